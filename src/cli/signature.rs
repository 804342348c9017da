//! `darkroom signature`: sign, verify and explain callbacks by hand.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use super::error::CliError;
use super::output;
use super::secret::SecretsArgs;
use crate::clock::Clock;
use crate::notify::webhook::explain::{Explanation, Finding, explain};
use crate::notify::webhook::signature::{self, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, VerifyError};

/// As many as a receiver takes.
const MAX_BODY_BYTES: u64 = 1 << 20;
const MAX_HEADERS_BYTES: u64 = 64 << 10;

const NOTES: &str = "\
Examples:
  darkroom signature sign --id evt_1 --secret-file signing-secret event.json > headers
  curl -H @headers --data-binary @event.json http://127.0.0.1:3000/hooks
  darkroom signature verify --headers headers --secret-file signing-secret event.json
  darkroom signature explain --headers headers --secret-file signing-secret < event.json

The body is read from standard input when no file is named. \
The exit code of verify and explain is 0 if the callback verifies, 1 if it does not, and 2 if that cannot be told, \
as when a file cannot be read.";

#[derive(clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print a JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Print the headers that sign a body
    Sign(Sign),
    /// Say whether a callback verifies
    Verify(Check),
    /// Say why a callback does not verify: what in its headers, its body or the secret would have to be otherwise
    Explain(Check),
}

#[derive(clap::Args)]
#[command(after_help = NOTES)]
struct Sign {
    /// The callback's webhook-id
    #[arg(long)]
    id: String,
    /// When it is signed, in Unix seconds; without it, now
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    #[command(flatten)]
    secrets: SecretsArgs,
    /// The file with the body
    body: Option<PathBuf>,
}

#[derive(clap::Args)]
#[command(after_help = NOTES)]
struct Check {
    /// A header as it was received; several are put together
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<String>,
    /// A file with the headers as they were received, a line each, or - for standard input
    #[arg(long, value_name = "FILE")]
    headers: Option<PathBuf>,
    /// When it was received, in Unix seconds; without it, now
    #[arg(long, value_name = "SECONDS")]
    at: Option<i64>,
    #[command(flatten)]
    secrets: SecretsArgs,
    /// The file with the body
    body: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<(), CliError> {
    match args.command {
        Command::Sign(sign) => sign.run(args.json),
        Command::Verify(check) => check.verify(args.json),
        Command::Explain(check) => check.explain(args.json),
    }
}

impl Sign {
    fn run(self, json: bool) -> Result<(), CliError> {
        // A dot would leave open where the id ends.
        if self.id.is_empty() || !self.id.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.') {
            return Err(CliError::Usage("--id is visible ASCII without spaces and dots".to_owned()));
        }
        read_stdin_once(&self.secrets, None, self.body.as_deref())?;
        let secrets = self.secrets.parse()?;
        let body = body(self.body.as_deref())?;
        let timestamp = self.timestamp.unwrap_or_else(|| Clock::system().now().as_second());
        let signature = signature::header(&secrets, &self.id, timestamp, &body);
        let headers =
            [(HEADER_ID, self.id), (HEADER_TIMESTAMP, timestamp.to_string()), (HEADER_SIGNATURE, signature)];
        if json {
            return output::json(&json!(std::collections::BTreeMap::from(headers)).to_string());
        }
        output::text(&headers.map(|(name, value)| format!("{name}: {value}")).join("\n"))
    }
}

impl Check {
    fn verify(self, json: bool) -> Result<(), CliError> {
        let secrets = self.secrets()?.parse()?;
        let (headers, body, now) = self.received()?;
        let mut verdict = Err(VerifyError::NoMatch);
        for secret in &secrets {
            verdict = signature::verify(secret, &headers, &body, now);
            if verdict.is_ok() {
                break;
            }
        }
        let reason = verdict.as_ref().err().map(ToString::to_string);
        if json {
            output::json(&json!({"verified": verdict.is_ok(), "reason": reason}).to_string())?;
        }
        match reason {
            None if json => Ok(()),
            None => output::text("verified"),
            Some(reason) => Err(CliError::Check(format!("not verified: {reason}"))),
        }
    }

    fn explain(self, json: bool) -> Result<(), CliError> {
        let secrets = self.secrets()?.texts()?;
        let secrets: Vec<_> = secrets.iter().map(|secret| secret.expose()).collect();
        let (headers, body, now) = self.received()?;
        let explanation = explain(&secrets, &headers, &body, now);
        if json { output::json(&record(&explanation)) } else { output::text(&paragraph(&explanation)) }?;
        if explanation.verified {
            Ok(())
        } else {
            Err(CliError::Check("the callback does not verify".to_owned()))
        }
    }

    /// The secrets, when standard input is asked for one thing only.
    fn secrets(&self) -> Result<&SecretsArgs, CliError> {
        read_stdin_once(&self.secrets, self.headers.as_deref(), self.body.as_deref())?;
        Ok(&self.secrets)
    }

    fn received(&self) -> Result<(HeaderMap, Vec<u8>, Timestamp), CliError> {
        let now = match self.at {
            None => Clock::system().now(),
            Some(second) => Timestamp::from_second(second)
                .map_err(|_| CliError::Usage("--at is no time that exists".to_owned()))?,
        };
        let mut headers = HeaderMap::new();
        if let Some(file) = &self.headers {
            let bytes = read(file, MAX_HEADERS_BYTES, "headers")?;
            let text = String::from_utf8_lossy(&bytes);
            // A copy of a whole request begins with its first line.
            let lines = (1..).zip(text.lines());
            for (n, line) in lines.filter(|(_, line)| !line.trim().is_empty() && !line.contains(" HTTP/")) {
                add(&mut headers, line, || format!("line {n} of {}", file.display()))?;
            }
        }
        for (n, line) in (1..).zip(&self.header) {
            add(&mut headers, line, || format!("--header {n}"))?;
        }
        Ok((headers, body(self.body.as_deref())?, now))
    }
}

/// Adds a header. One that is wrong is named and not repeated: it may be a secret that was mixed up.
fn add(headers: &mut HeaderMap, line: &str, origin: impl Fn() -> String) -> Result<(), CliError> {
    let parse = || {
        let (name, value) = line.split_once(':')?;
        Some((
            name.trim().parse::<HeaderName>().ok()?,
            HeaderValue::from_bytes(value.trim().as_bytes()).ok()?,
        ))
    };
    let (name, value) = parse()
        .ok_or_else(|| CliError::Usage(format!("{} is no header; one is written name: value", origin())))?;
    headers.append(name, value);
    Ok(())
}

fn read_stdin_once(
    secrets: &SecretsArgs,
    headers: Option<&Path>,
    body: Option<&Path>,
) -> Result<(), CliError> {
    let is_stdin = |file: &Path| file == Path::new("-");
    let times = secrets.stdins()
        + usize::from(headers.is_some_and(is_stdin))
        + usize::from(body.is_none_or(is_stdin));
    if times > 1 {
        return Err(CliError::Usage(
            "standard input can be one thing only: the body (when no file is named), the headers or a secret"
                .to_owned(),
        ));
    }
    Ok(())
}

fn body(file: Option<&Path>) -> Result<Vec<u8>, CliError> {
    read(file.unwrap_or(Path::new("-")), MAX_BODY_BYTES, "a body")
}

fn read(file: &Path, limit: u64, what: &str) -> Result<Vec<u8>, CliError> {
    let cannot = |source| CliError::input(format!("cannot read {what} from {}", file.display()), source);
    let mut bytes = Vec::new();
    let reader: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(cannot)?)
    };
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > limit {
        return Err(CliError::Usage(format!("{} is longer than {limit} bytes", file.display())));
    }
    Ok(bytes)
}

fn paragraph(explanation: &Explanation) -> String {
    let verdict = if explanation.verified { "verified" } else { "not verified" };
    let findings =
        explanation.findings.iter().map(|finding| format!("\n- {}", output::printable(&finding.to_string())));
    std::iter::once(verdict.to_owned()).chain(findings).collect()
}

/// An explanation as `--json` prints it.
fn record(explanation: &Explanation) -> String {
    #[derive(Serialize)]
    struct Told<'a> {
        #[serde(flatten)]
        finding: &'a Finding,
        message: String,
    }
    let told = |finding| Told { finding, message: finding.to_string() };
    let findings: Vec<_> = explanation.findings.iter().map(told).collect();
    json!({"verified": explanation.verified, "findings": findings}).to_string()
}
