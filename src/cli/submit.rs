//! `darkroom submit`: hand in a picture.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Body;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::multipart::{Form, Part};
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::Job;
use super::secret::{self, Hidden, SecretArgs};
use super::{output, render, watch};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Enough to recognise every picture format by.
const HEAD_BYTES: u64 = 64;

const EXAMPLES: &str = "\
Examples:
  darkroom submit photo.jpg --wait
  darkroom submit photo.jpg --callback https://hooks.example/darkroom --tag cats,summer
  darkroom submit photo.jpg --event completed --callback http://127.0.0.1:9000/ --json
  darkroom submit photo.jpg --variants '[{\"name\": \"square\", \"width\": 300, \"height\": 300, \"fit\": \"cover\"}]'
  darkroom submit --source-url https://cdn.example/photo.jpg --wait
  darkroom submit --batch jobs.ndjson
  darkroom submit photo.jpg --metadata '{\"order\": 7}' --idempotency-key order-7

With --wait the exit code is 0 when the job is completed, 4 when it failed, 5 when it takes too long.";

/// What to hand in, and how.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The picture: JPEG, PNG, WebP or GIF
    #[arg(required_unless_present_any = ["source_url", "batch"])]
    file: Option<PathBuf>,
    /// Where the service fetches the picture from, instead of a file
    #[arg(long, value_name = "URL", conflicts_with = "file")]
    source_url: Option<String>,
    /// Many jobs from a file: {"jobs": […]}, or one a line, each with source_url and the API's fields; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "source_url", "callback", "variants", "preset", "metadata_policy", "allow_truncated", "priority", "start_at", "deadline", "tags", "metadata", "idempotency_key", "wait"])]
    batch: Option<PathBuf>,
    /// Where the service posts the job's events
    #[arg(long, value_name = "URL")]
    callback: Option<String>,
    /// Which events it posts: queued, started, completed, failed, cancelled [default: how the job ends]
    #[arg(long = "event", value_name = "NAME", value_delimiter = ',', requires = "callback")]
    events: Vec<String>,
    #[command(flatten)]
    secret: SecretArgs,
    /// A header to send with them; other users of this machine can see flags, so prefer a file for credentials
    #[arg(long = "callback-header", value_name = "NAME: VALUE", requires = "callback")]
    headers: Vec<Hidden>,
    /// A file with such headers, one a line
    #[arg(long = "callback-header-file", value_name = "FILE", requires = "callback")]
    header_file: Option<PathBuf>,
    /// How many attempts each may take, 1 to 25 [default: the service's]
    #[arg(long = "callback-max-attempts", value_name = "N", requires = "callback")]
    max_attempts: Option<u32>,
    /// The delay after the first failed attempt, 1000 to 3600000 [default: the service's]
    #[arg(long = "callback-retry-initial", value_name = "MILLISECONDS", requires = "callback")]
    retry_initial_ms: Option<u64>,
    /// The longest delay, 1000 to 86400000 [default: the service's]
    #[arg(long = "callback-retry-max", value_name = "MILLISECONDS", requires = "callback")]
    retry_max_ms: Option<u64>,
    /// What to make of the picture, a JSON array: [{"name": "square", "width": 300, "height": 300, "fit": "cover"}]
    #[arg(long, value_name = "JSON", conflicts_with = "preset")]
    variants: Option<String>,
    /// What to make of it, by a name of the service's configuration
    #[arg(long, value_name = "NAME")]
    preset: Option<String>,
    /// What the artifacts keep of the picture's metadata: none, copyright, all [default: none]
    #[arg(long, value_name = "POLICY")]
    metadata_policy: Option<String>,
    /// Take the picture although its file ends too early
    #[arg(long)]
    allow_truncated: bool,
    /// Which of your own jobs go first: high, normal, low
    #[arg(long, value_name = "PRIORITY")]
    priority: Option<String>,
    /// When to start at the earliest (RFC 3339)
    #[arg(long, value_name = "TIME")]
    start_at: Option<String>,
    /// How long the job may take in all; then it fails
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    deadline: Option<u64>,
    /// A label of your own, to be found again by
    #[arg(long = "tag", value_name = "TAG", value_delimiter = ',')]
    tags: Vec<String>,
    /// Data of your own, a JSON object that comes back with the job
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// Makes repeating this command safe: one key, one job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Wait until the job is over
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..), requires = "wait")]
    timeout: u64,
    /// Print the job as the service sends it
    #[arg(long)]
    json: bool,
}

/// A picture on its way to a service.
#[derive(Default)]
pub(super) struct Submission {
    pub(super) file: PathBuf,
    /// Where the picture is fetched from, instead of the file.
    pub(super) source_url: Option<String>,
    /// The form's other fields.
    pub(super) fields: Vec<(&'static str, String)>,
    pub(super) idempotency_key: Option<String>,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    if let Some(file) = &args.batch {
        return super::bulk::submit(&Api::new(target)?, file, args.json).await;
    }
    let (wait, json, limit) = (args.wait, args.json, Duration::from_secs(args.timeout));
    let submission = args.into_submission()?;
    let api = Api::new(target)?;
    let job = submission.send(&api).await?;
    if !json {
        output::text(&render::accepted(&job.body))?;
    } else if !wait {
        output::json(&job.text)?;
    }
    if wait { watch::follow_and_print(&api, job, limit, json).await } else { Ok(()) }
}

impl Args {
    fn into_submission(self) -> Result<Submission, CliError> {
        let mut fields = Vec::new();
        let headers = self.callback_headers()?;
        if let Some(url) = self.callback {
            fields.push(("callback_url", url));
            fields.extend(joined(&self.events).map(|events| ("callback_events", events)));
            fields.extend(self.secret.read()?.map(|secret| ("callback_secret", secret.expose_text())));
            fields.extend(headers.map(|headers| ("callback_headers", headers)));
            fields.extend(self.max_attempts.map(|number| ("callback_max_attempts", number.to_string())));
            fields.extend(self.retry_initial_ms.map(|ms| ("callback_retry_initial_ms", ms.to_string())));
            fields.extend(self.retry_max_ms.map(|ms| ("callback_retry_max_ms", ms.to_string())));
        } else if self.secret.is_given() {
            return Err(CliError::Usage("a secret signs callbacks: give --callback too".to_owned()));
        }
        fields.extend(self.variants.map(|variants| ("variants", variants)));
        fields.extend(self.preset.map(|preset| ("preset", preset)));
        fields.extend(self.metadata_policy.map(|policy| ("metadata_policy", policy)));
        fields.extend(self.allow_truncated.then(|| ("allow_truncated", "true".to_owned())));
        fields.extend(self.priority.map(|priority| ("priority", priority)));
        fields.extend(self.start_at.map(|time| ("start_at", time)));
        let millis = self.deadline.map(|seconds| seconds.saturating_mul(1000).to_string());
        fields.extend(millis.map(|millis| ("deadline_ms", millis)));
        fields.extend(joined(&self.tags).map(|tags| ("tags", tags)));
        fields.extend(self.metadata.map(|metadata| ("metadata", metadata)));
        let (file, source_url) = (self.file.unwrap_or_default(), self.source_url);
        Ok(Submission { file, source_url, fields, idempotency_key: self.idempotency_key })
    }

    /// The headers as the field has them.
    fn callback_headers(&self) -> Result<Option<String>, CliError> {
        let mut headers = serde_json::Map::new();
        let mut add = |line: &str, origin: &str| {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| CliError::Usage(format!("{origin} must be written as NAME: VALUE")))?;
            let repeated = headers.insert(name.trim().to_owned(), value.trim().into()).is_some();
            if repeated { Err(CliError::Usage(format!("{origin} names a header again"))) } else { Ok(()) }
        };
        for (n, header) in (1..).zip(&self.headers) {
            add(header.expose(), &format!("--callback-header {n}"))?;
        }
        if let Some(file) = &self.header_file {
            let name = file.display();
            let text = secret::read_text(file)
                .map_err(|source| CliError::input(format!("cannot read the headers in {name}"), source))?;
            for (n, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
                add(line, &format!("line {n} of {name}"))?;
            }
        }
        Ok((!headers.is_empty()).then(|| serde_json::Value::from(headers).to_string()))
    }
}

impl Submission {
    /// Posts the picture where the service's root says that jobs are.
    pub(super) async fn send(self, api: &Api) -> Result<Reply<Job>, CliError> {
        let headers = self.headers()?;
        if let Some(url) = self.source_url {
            let body = json(url, self.fields)?;
            let jobs = api.root().await?;
            return api.post_json_with(jobs.href("jobs")?, &body, headers).await;
        }
        let picture = open(&self.file)
            .await
            .map_err(|source| CliError::input(format!("cannot read {}", self.file.display()), source))?;
        let jobs = api.root().await?;
        // The picture comes last: the service has read everything else before it arrives.
        let form = self.fields.into_iter().fold(Form::new(), |form, (name, value)| form.text(name, value));
        api.post_form(jobs.href("jobs")?, form.part("image", picture), headers).await
    }

    fn headers(&self) -> Result<HeaderMap, CliError> {
        let mut headers = HeaderMap::new();
        if let Some(key) = &self.idempotency_key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| CliError::Usage("--idempotency-key must be printable ASCII".to_owned()))?;
            headers.insert(IDEMPOTENCY_KEY, value);
        }
        Ok(headers)
    }
}

/// The form's fields, each as JSON has it.
fn json(source_url: String, fields: Vec<(&'static str, String)>) -> Result<Value, CliError> {
    let mut members = serde_json::Map::from_iter([("source_url".to_owned(), source_url.into())]);
    for (name, text) in fields {
        let value = match name {
            "callback_events" | "tags" => text.split(',').map(str::trim).collect(),
            "callback_headers"
            | "variants"
            | "metadata"
            | "allow_truncated"
            | "deadline_ms"
            | "callback_max_attempts"
            | "callback_retry_initial_ms"
            | "callback_retry_max_ms" => serde_json::from_str(&text)
                .map_err(|error| CliError::Usage(format!("{name} is no JSON: {error}")))?,
            _ => Value::from(text),
        };
        members.insert(name.to_owned(), value);
    }
    Ok(members.into())
}

/// The picture as a part that is read while it is sent.
async fn open(path: &Path) -> io::Result<Part> {
    let mut file = File::open(path).await?;
    let length = file.metadata().await?.len();
    let mut head = Vec::new();
    (&mut file).take(HEAD_BYTES).read_to_end(&mut head).await?;
    file.rewind().await?;
    // No more than was announced, should the file grow meanwhile.
    let body = Body::wrap_stream(ReaderStream::new(file.take(length)));
    let part =
        Part::stream_with_length(body, length).mime_str(media_type(&head)).map_err(io::Error::other)?;
    Ok(match path.file_name() {
        Some(name) => part.file_name(name.to_string_lossy().into_owned()),
        None => part,
    })
}

/// What the bytes are, whatever the file is called.
fn media_type(head: &[u8]) -> &'static str {
    image::guess_format(head).map_or("application/octet-stream", |format| format.to_mime_type())
}

fn joined(values: &[String]) -> Option<String> {
    (!values.is_empty()).then(|| values.join(","))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn submission(line: &str) -> Result<Submission, CliError> {
        Line::try_parse_from(line.split(' ')).unwrap().args.into_submission()
    }

    #[test]
    fn flags_become_fields() {
        let line = "submit a.jpg --callback http://127.0.0.1:9/ --event completed,failed --event queued \
                    --tag a --tag b --metadata {} --preset avatar --metadata-policy all --allow-truncated --priority low --deadline 60 --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let fields = submission(&line.split_whitespace().collect::<Vec<_>>().join(" ")).unwrap().fields;
        let expected = [
            ("callback_url", "http://127.0.0.1:9/"),
            ("callback_events", "completed,failed,queued"),
            ("callback_secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            ("preset", "avatar"),
            ("metadata_policy", "all"),
            ("allow_truncated", "true"),
            ("priority", "low"),
            ("deadline_ms", "60000"),
            ("tags", "a,b"),
            ("metadata", "{}"),
        ];
        assert_eq!(fields, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn a_source_takes_the_place_of_a_file_and_its_fields_have_types() {
        let line = "submit --source-url https://a.example/c.jpg?k=1 --tag a,b --deadline 60 --metadata {\"a\":1} --priority low";
        let Submission { source_url, fields, .. } = submission(line).unwrap();
        let expected = serde_json::json!({
            "source_url": "https://a.example/c.jpg?k=1", "tags": ["a", "b"], "deadline_ms": 60000,
            "metadata": {"a": 1}, "priority": "low",
        });
        assert_eq!(json(source_url.unwrap(), fields).unwrap(), expected);
        assert!(Line::try_parse_from(["submit"]).is_err());
        assert!(Line::try_parse_from(["submit", "a.jpg", "--source-url", "https://a.example/"]).is_err());
    }

    #[test]
    fn headers_come_from_flags_and_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("headers");
        std::fs::write(&file, "X-Team: cats\n\nX-Url: http://a.example:1/\n").unwrap();
        let file = file.display().to_string();
        let line = |header: &'static str| {
            let args = ["submit", "a.jpg", "--callback", "http://127.0.0.1:9/", "--callback-header", header];
            let file = ["--callback-header-file", &file, "--callback-max-attempts", "3"];
            Line::try_parse_from([&args[..], &file].concat()).unwrap().args.into_submission()
        };
        let fields = line("Authorization:Bearer t0ken").unwrap().fields;
        let headers = r#"{"Authorization":"Bearer t0ken","X-Team":"cats","X-Url":"http://a.example:1/"}"#;
        assert_eq!(fields[1], ("callback_headers", headers.to_owned()));
        assert_eq!(fields[2], ("callback_max_attempts", "3".to_owned()));
        for wrong in ["Bearer t0ken", "X-Team: t0ken"] {
            let error = line(wrong).err().unwrap();
            assert_eq!(error.exit_code(), crate::cli::error::USAGE);
            assert!(!error.to_string().contains("t0ken"), "{error}");
        }
    }

    #[test]
    fn a_secret_without_a_callback_is_a_mistake() {
        let error = submission("submit a.jpg --secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").err().unwrap();
        assert_eq!(error.exit_code(), crate::cli::error::USAGE);
        assert!(Line::try_parse_from(["submit", "a.jpg", "--event", "completed"]).is_err());
        assert!(Line::try_parse_from(["submit", "a.jpg", "--timeout", "9"]).is_err());
    }

    #[test]
    fn the_media_type_is_that_of_the_bytes() {
        assert_eq!(media_type(b"\x89PNG\r\n\x1a\n"), "image/png");
        assert_eq!(media_type(b"\xff\xd8\xff\xe0"), "image/jpeg");
        assert_eq!(media_type(b""), "application/octet-stream");
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_named() {
        let api = Api::new(&Target::open("http://127.0.0.1:1")).unwrap();
        let submission = Submission { file: "no-such.jpg".into(), ..Submission::default() };
        let error = submission.send(&api).await.err().unwrap();
        assert!(error.to_string().contains("no-such.jpg"), "{error}");
    }
}
