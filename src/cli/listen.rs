//! `darkroom listen`: a receiver of callbacks for the desk.

use std::net::SocketAddr;

use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::error::CliError;
use super::forward::Forward;
use super::output;
use super::receiver::{Callback, Play, Policy, Receiver, Verdict};
use super::script::{SYNTAX, Script, Steps};
use super::secret::SecretArgs;
use crate::clock::Clock;

pub(super) const DEFAULT_LISTEN: &str = "127.0.0.1:9000";
const UNKNOWN: &str = "-";
/// Longer than any type, id or number that a sender means.
const MAX_FIELD_CHARS: usize = 100;

const NOTES: &str = "\
Examples:
  darkroom listen --secret-file darkroom-data/signing-secret
  darkroom listen --secret-file signing-secret --forward-to http://127.0.0.1:3000/hooks
  DARKROOM_SECRET=whsec_... darkroom listen --count 1 --json
  darkroom listen --respond 500*3,429:retry-after=5,timeout,200
  darkroom listen --respond 503,200 --per-event
  darkroom listen --respond delay=20s:200,stall-body,reset --cycle

A callback that verifies is answered 200, or with the status of where it was forwarded to; \
one that does not is answered 400 and not forwarded. Without a secret, all are taken and said to be not verified.
With --count the exit code is 0 when all of them verified or there was no secret, and 1 otherwise.
With --json each callback is one line; everything else goes to standard error.

With --respond, callbacks that are not refused are answered by a script. They are forwarded all the same, \
as if only the answer had got lost. With --count the end waits for the answers under way.
";

fn notes() -> String {
    format!("{NOTES}\n{SYNTAX}")
}

/// How to receive.
#[derive(clap::Args)]
#[command(after_help = notes())]
pub(super) struct Args {
    /// Where to listen; port 0 lets the system choose one
    #[arg(long, value_name = "ADDR:PORT", default_value = DEFAULT_LISTEN)]
    listen: SocketAddr,
    #[command(flatten)]
    secret: SecretArgs,
    /// Hand callbacks on to this URL, headers and body as they came, and answer with its status
    #[arg(long, value_name = "URL")]
    forward_to: Option<Url>,
    /// Answer by this script, such as 500*3,timeout,200; several are joined
    #[arg(long, value_name = "SCRIPT")]
    respond: Vec<Steps>,
    /// Begin the script again after its last step
    #[arg(long, requires = "respond")]
    cycle: bool,
    /// Each event sees the script from its start: its attempts are counted by webhook-id
    #[arg(long, requires = "respond")]
    per_event: bool,
    /// Print a JSON object for each callback
    #[arg(long)]
    json: bool,
    /// Stop after so many callbacks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let secret = args.secret.read()?;
    if secret.is_none() {
        output::note("no secret given: callbacks are taken without being verified");
    }
    let forward = args.forward_to.map(Forward::to).transpose()?;
    let script = Script::join(args.respond, args.cycle);
    let script = script.map(|script| Play { script, per_event: args.per_event });
    let policy = Policy { secret, forward, script, clock: Clock::system() };
    let (receiver, mut callbacks) = Receiver::start(args.listen, policy)
        .await
        .map_err(|source| CliError::io(format!("cannot listen on {}", args.listen), source))?;
    let ready = format!("listening on {}", receiver.url());
    if args.json {
        output::note(&ready);
    } else {
        output::line(&ready)?;
    }

    let (mut received, mut rejected) = (0, 0);
    while let Some(callback) = callbacks.recv().await {
        received += 1;
        rejected += u64::from(matches!(callback.verdict, Verdict::Rejected(_)));
        if args.json { output::json(&json(&callback)) } else { output::line(&line(&callback)) }?;
        if args.count.is_some_and(|count| received >= count) {
            // What was answered already is still printed; later ones are told to come again.
            callbacks.close();
        }
    }
    receiver.stop().await;
    if rejected == 0 {
        Ok(())
    } else {
        Err(CliError::Check(format!("{rejected} of {received} callbacks did not verify")))
    }
}

fn line(callback: &Callback) -> String {
    let mut line = format!(
        "{:.3}  {}  {}  attempt {}  {}",
        callback.received_at,
        field(callback.event_type()),
        field(callback.job_id()),
        field(callback.attempt.as_deref()),
        callback.verdict,
    );
    if let Some(status) = callback.forwarded {
        line.push_str(&format!("  forwarded: {status}"));
    }
    if let Some(step) = &callback.step {
        line.push_str(&format!("  answered: {}", step.text));
    }
    if let Some(times) = callback.seen.filter(|times| *times > 1) {
        line.push_str(&format!("  seen: {times} times"));
    }
    line
}

/// A part of the line that the sender wrote. With a space in it, it could pass for several.
fn field(text: Option<&str>) -> String {
    let shown = text.unwrap_or(UNKNOWN).chars().take(MAX_FIELD_CHARS);
    shown.map(|c| if c.is_whitespace() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// A callback as `--json` prints it.
#[derive(Serialize)]
struct Record<'a> {
    received_at: String,
    webhook_id: Option<&'a str>,
    event_type: Option<&'a str>,
    job_id: Option<&'a str>,
    attempt: Option<&'a str>,
    /// Null when there was no secret.
    verified: Option<bool>,
    verdict: String,
    /// How often this webhook-id came in and was not rejected, this time included.
    seen: Option<u64>,
    /// Null when the answer has no status.
    status_code: Option<u16>,
    /// The script's step, or else the status.
    answered: String,
    delay_ms: u64,
    forwarded: bool,
    forward_status_code: Option<u16>,
    event: &'a Value,
}

fn json(callback: &Callback) -> String {
    let status_code = callback.status.map(|status| status.as_u16());
    let step = callback.step.as_ref();
    let record = Record {
        received_at: format!("{:.3}", callback.received_at),
        webhook_id: callback.id.as_deref(),
        event_type: callback.event_type(),
        job_id: callback.job_id(),
        attempt: callback.attempt.as_deref(),
        verified: match callback.verdict {
            Verdict::Verified => Some(true),
            Verdict::Unchecked => None,
            Verdict::Rejected(_) => Some(false),
        },
        verdict: callback.verdict.to_string(),
        seen: callback.seen,
        status_code,
        answered: match step {
            Some(step) => step.text.clone(),
            None => status_code.map(|code| code.to_string()).unwrap_or_default(),
        },
        delay_ms: step.map_or(0, |step| u64::try_from(step.delay.as_millis()).unwrap_or(u64::MAX)),
        forwarded: callback.forwarded.is_some(),
        forward_status_code: callback.forwarded.map(|status| status.as_u16()),
        event: &callback.event,
    };
    // Strings, numbers and a value that was JSON before: there is nothing in it that JSON cannot say.
    serde_json::to_string(&record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use jiff::Timestamp;

    use super::*;

    fn callback(verdict: Verdict) -> Callback {
        Callback {
            received_at: Timestamp::UNIX_EPOCH,
            id: Some("evt_1".to_owned()),
            attempt: Some("2".to_owned()),
            verdict,
            seen: Some(1),
            status: Some(StatusCode::OK),
            step: None,
            forwarded: None,
            event: serde_json::json!({"type": "job.completed", "subject": "job_1"}),
        }
    }

    #[test]
    fn a_line_tells_type_job_attempt_and_verdict() {
        let line = line(&callback(Verdict::Verified));
        assert_eq!(line, "1970-01-01T00:00:00.000Z  job.completed  job_1  attempt 2  verified");
    }

    #[test]
    fn json_is_one_line_and_tells_unchecked_from_rejected() {
        let text = json(&callback(Verdict::Unchecked));
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert_eq!((&value["verified"], &value["event"]["subject"]), (&Value::Null, &Value::from("job_1")));
    }
}
