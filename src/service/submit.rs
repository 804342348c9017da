//! Accepting a job: check everything, make the picture durable, then commit.

use std::fmt;
use std::io::BufReader;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use url::Url;

use super::error::FieldError;
use super::intake::Slot;
use super::vault::Vault;
use super::{Service, ServiceError};
use crate::blobs::{Blobs, ORIGINAL, Stored};
pub use crate::blobs::{Received, Upload};
use crate::clock::entropy;
use crate::domain::client::ClientId;
use crate::domain::id::JobId;
use crate::domain::image::{Handling, Presets};
use crate::domain::job::{Input, Job, NewJob, Priority};
use crate::domain::retry::RetryOverride;
use crate::domain::secret::SigningSecret;
use crate::domain::trace::TraceParent;
use crate::imaging::{self, Probe};
use crate::notify::webhook::guard::ResolveError;
use crate::store::{Idempotency, Store, StoreError, Submission, Submitted};

mod callback;
mod pictures;
mod source;

pub(super) use self::pictures::check_sizes;
pub use self::source::SourceRequest;

/// How long looking up a callback's host may hold up its submission. A slow name server is no reason to
/// refuse a job: the guard looks again at each attempt.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How far ahead a start may be: a job waits in the queue, and counts there.
const FURTHEST_START: SignedDuration = SignedDuration::from_hours(30 * 24);
/// From a second to thirty days.
pub(crate) const DEADLINES_MS: RangeInclusive<u64> = 1000..=30 * 24 * 60 * 60 * 1000;
const MAX_METADATA_BYTES: usize = 4096;
pub(crate) const MAX_TAGS: usize = 16;
pub(crate) const MAX_TAG_BYTES: usize = 64;

/// Limits of fields, for the API's document.
pub mod limits {
    pub(crate) use super::callback::{
        ATTEMPTS as CALLBACK_ATTEMPTS, INITIAL_MS as CALLBACK_INITIAL_MS,
        MAX_HEADERS as MAX_CALLBACK_HEADERS, MAX_MS as CALLBACK_MAX_MS,
        MAX_VALUE_BYTES as MAX_CALLBACK_HEADER_VALUE,
    };
    pub(crate) use super::{DEADLINES_MS, MAX_TAG_BYTES, MAX_TAGS};
    pub(crate) use crate::notify::webhook::guard::{
        MAX_SOURCE_URL_LENGTH as MAX_SOURCE_URL, MAX_URL_LENGTH as MAX_CALLBACK_URL,
    };
}

/// The fields beside the picture, as text.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Where to post events.
    pub callback_url: Option<String>,
    /// Which events, separated by commas.
    pub callback_events: Option<String>,
    /// Signs them: `whsec_…`.
    pub callback_secret: Option<String>,
    /// Sent with them: a JSON object of strings.
    pub callback_headers: Option<String>,
    /// How many attempts each may take.
    pub callback_max_attempts: Option<String>,
    /// The delay after the first failed attempt, in milliseconds.
    pub callback_retry_initial_ms: Option<String>,
    /// The longest delay, in milliseconds.
    pub callback_retry_max_ms: Option<String>,
    /// A configured name for variants.
    pub preset: Option<String>,
    /// What to make of the picture: a JSON array.
    pub variants: Option<String>,
    /// `none`, `copyright` or `all`: what artifacts keep of the picture's metadata.
    pub metadata_policy: Option<String>,
    /// Whether a picture that is cut short is taken: `true` or `false`.
    pub allow_truncated: Option<String>,
    /// `high`, `normal` or `low`, among the client's own jobs.
    pub priority: Option<String>,
    /// When to start at the earliest: RFC 3339.
    pub start_at: Option<String>,
    /// How long the job may take in all, in milliseconds.
    pub deadline_ms: Option<String>,
    /// Labels, separated by commas.
    pub tags: Option<String>,
    /// A JSON object.
    pub metadata: Option<String>,
    /// The trace that the request belongs to: its callbacks will, too. It is no part of what is asked for.
    pub trace: Option<TraceParent>,
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fields")
            .field("callback_url", &self.callback_url)
            .field("callback_events", &self.callback_events)
            .field("preset", &self.preset)
            .field("variants", &self.variants)
            .field("metadata_policy", &self.metadata_policy)
            .field("allow_truncated", &self.allow_truncated)
            .field("priority", &self.priority)
            .field("start_at", &self.start_at)
            .field("deadline_ms", &self.deadline_ms)
            .field("tags", &self.tags)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// A request for a job, received whole.
pub struct Request {
    /// Who asks.
    pub client: ClientId,
    /// The picture.
    pub picture: Received,
    /// The picture's name, for people.
    pub filename: Option<String>,
    /// The media type that the client gave the picture.
    pub claimed_type: Option<String>,
    /// The other fields.
    pub fields: Fields,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// The job.
    pub job: Job,
    /// Whether an earlier request with the same idempotency key made it.
    pub replayed: bool,
}

/// The fields, checked.
struct Wanted {
    callback: Option<callback::Wanted>,
    pictures: pictures::Wanted,
    priority: Priority,
    start_at: Option<Timestamp>,
    deadline_ms: Option<u64>,
    tags: Vec<String>,
    metadata: Option<String>,
}

impl Service {
    /// Begins to receive a picture.
    pub async fn receive(&self) -> Result<Upload, ServiceError> {
        Ok(self.blobs.receive().await?)
    }

    /// Accepts a job. It is durable when this returns; when it fails, nothing is left of it.
    pub async fn submit(&self, slot: Slot, request: Request) -> Result<Accepted, ServiceError> {
        let url = request.fields.callback_url.as_deref().map(|text| self.guard.parse(text)).transpose()?;
        if let Some(url) = &url {
            self.check_host(url).await?;
        }
        let wanted = check_fields(&request.fields, &self.settings.presets, url, self.clock.now())?;
        let Request { client, picture, filename, claimed_type, idempotency_key, .. } = request;
        let (picture, probe) = self.probe(picture, wanted.pictures.handling).await?;
        check_claim(claimed_type.as_deref(), &probe)?;
        let Wanted { pictures, .. } = &wanted;
        check_sizes(&pictures.variants, pictures.preset.as_deref(), &probe)?;
        let watermarks = &self.settings.presets.watermarks;
        self.imaging.admit(&probe, picture.stored().bytes, &pictures.variants, watermarks)?;

        let stored = picture.stored();
        let idempotency = idempotency_key
            .map(|key| Idempotency { key, fingerprint: fingerprint(&stored.sha256, &wanted, &self.vault) });
        let now = self.clock.now();
        let id = JobId::new(now, &entropy());
        let filename = filename.map(|name| name.chars().take(Input::MAX_FILENAME_CHARS).collect());
        let job = self.new_job(id, client, input(filename, stored, &probe), wanted);
        let submission = Submission { job, idempotency };
        // On a task of its own: a client that hangs up now must not leave a picture without its job.
        let commit = commit(Arc::clone(&self.store), self.blobs.clone(), picture, submission, now, slot);
        accepted(tokio::spawn(commit).await.map_err(|error| StoreError::Engine(error.into()))??)
    }

    fn new_job<P>(&self, id: JobId, client: ClientId, input: P, wanted: Wanted) -> NewJob<P> {
        NewJob {
            id,
            client,
            input,
            variants: wanted.pictures.variants,
            preset: wanted.pictures.preset,
            handling: wanted.pictures.handling,
            callback: wanted.callback.map(|callback| callback.sealed(&self.vault, id)),
            priority: wanted.priority,
            start_at: wanted.start_at,
            deadline_ms: wanted.deadline_ms,
            tags: wanted.tags,
            metadata: wanted.metadata,
        }
    }

    /// Reads the picture's header and structure, on a thread that may wait for the disk.
    pub(super) async fn probe(
        &self,
        picture: Received,
        handling: Handling,
    ) -> Result<(Received, Probe), ServiceError> {
        if picture.stored().bytes == 0 {
            return Err(ServiceError::Invalid(vec![FieldError {
                field: "image".to_owned(),
                code: "empty",
                detail: "the picture has no bytes".to_owned(),
            }]));
        }
        let limits = self.settings.limits;
        let probed = tokio::task::spawn_blocking(move || {
            let mut source = BufReader::with_capacity(64 * 1024, picture.open()?);
            Ok::<_, ServiceError>((imaging::probe(&mut source, &handling, &limits)?, picture))
        });
        let (probe, picture) = probed.await.map_err(|_| imaging::ImagingError::Panicked)??;
        Ok((picture, probe))
    }

    /// Whether the host resolves, and only to addresses that callbacks may reach.
    async fn check_host(&self, url: &Url) -> Result<(), ServiceError> {
        let Some(url::Host::Domain(host)) = url.host() else { return Ok(()) };
        let port = url.port_or_known_default().unwrap_or(443);
        match tokio::time::timeout(LOOKUP_TIMEOUT, self.guard.resolve(host, port)).await {
            Ok(Err(ResolveError::Refused(refused))) => Err(refused.into()),
            // Name servers have bad moments, too; the delivery is tried again, and its fate is told.
            Ok(Err(error)) if error.is_temporary() => Ok(()),
            Ok(Err(ResolveError::Lookup(_) | ResolveError::Empty)) => {
                Err(ServiceError::CallbackUnresolvable { host: host.to_owned() })
            }
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }
}

fn accepted(submitted: Submitted) -> Result<Accepted, ServiceError> {
    match submitted {
        Submitted::Created(job) => Ok(Accepted { job, replayed: false }),
        Submitted::Repeated(job) => Ok(Accepted { job, replayed: true }),
        Submitted::KeyReused => Err(ServiceError::IdempotencyKeyReused),
    }
}

/// A picture that is here.
pub(super) fn input(filename: Option<String>, stored: Stored, probe: &Probe) -> Input {
    Input {
        filename,
        format: probe.format,
        bytes: stored.bytes,
        width: probe.width,
        height: probe.height,
        sha256: stored.sha256,
    }
}

/// Makes the picture durable, then the job; the picture of a job that came to nothing is deleted.
async fn commit(
    store: Arc<dyn Store>,
    blobs: Blobs,
    picture: Received,
    submission: Submission,
    now: Timestamp,
    slot: Slot,
) -> Result<Submitted, ServiceError> {
    let id = submission.job.id;
    picture.store(&blobs, id, ORIGINAL).await?;
    let submitted = store.submit(submission, now).await;
    // The slot counts until the job counts as waiting.
    drop(slot);
    // What was submitted is the answer, also when its picture stays behind.
    if !matches!(submitted, Ok(Submitted::Created(_)))
        && let Err(error) = blobs.delete(id, ORIGINAL).await
    {
        tracing::error!(%error, job = %id, "the picture of a job that came to nothing could not be deleted");
    }
    Ok(submitted?)
}

/// A client that names a picture's type must name it right; `application/octet-stream` names none.
fn check_claim(claimed: Option<&str>, probe: &Probe) -> Result<(), ServiceError> {
    let Some(claimed) = claimed else { return Ok(()) };
    let essence = claimed.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let detected = probe.format.media_type();
    let same = essence == detected
        || (essence == "image/jpg" && detected == "image/jpeg")
        || matches!(essence.as_str(), "" | "application/octet-stream" | "image/*");
    if same { Ok(()) } else { Err(ServiceError::MediaTypeMismatch { claimed: essence, detected }) }
}

fn check_fields(
    fields: &Fields,
    presets: &Presets,
    url: Option<Url>,
    now: Timestamp,
) -> Result<Wanted, ServiceError> {
    let mut errors = Vec::new();
    let mut refuse = |field: &str, code, detail: &str| {
        errors.push(FieldError { field: field.to_owned(), code, detail: detail.to_owned() });
    };
    let callback = callback::check(fields, url, &mut refuse);
    let pictures = pictures::check(fields, presets, &mut refuse);
    let priority = fields.priority.as_deref().map_or(Some(Priority::Normal), Priority::parse);
    if priority.is_none() {
        refuse("priority", "unknown", "high, normal or low");
    }
    let start_at = fields.start_at.as_deref().map(str::parse::<Timestamp>).transpose();
    if start_at.is_err() {
        refuse("start_at", "not_a_time", "a time as RFC 3339 has it, such as 2026-11-21T09:00:00Z");
    }
    let start_at = start_at.unwrap_or_default();
    if start_at.is_some_and(|start| start > now.checked_add(FURTHEST_START).unwrap_or(Timestamp::MAX)) {
        refuse("start_at", "too_late", "within the next 30 days");
    }
    let deadline_ms = fields.deadline_ms.as_deref().map(str::parse::<u64>).transpose();
    let deadline_ms =
        deadline_ms.ok().filter(|millis| millis.is_none_or(|millis| DEADLINES_MS.contains(&millis)));
    if deadline_ms.is_none() {
        let detail = format!("milliseconds from {} to {}", DEADLINES_MS.start(), DEADLINES_MS.end());
        refuse("deadline_ms", "out_of_range", &detail);
    }
    let tags = list(fields.tags.as_deref());
    if tags.len() > MAX_TAGS || tags.iter().any(|tag| tag.len() > MAX_TAG_BYTES) {
        refuse("tags", "too_long", &format!("at most {MAX_TAGS} tags of {MAX_TAG_BYTES} bytes"));
    }
    if let Err((code, detail)) = fields.metadata.as_deref().map_or(Ok(()), check_metadata) {
        refuse("metadata", code, &detail);
    }
    if !errors.is_empty() {
        return Err(ServiceError::Invalid(errors));
    }
    Ok(Wanted {
        callback,
        pictures,
        priority: priority.unwrap_or_default(),
        // Whole milliseconds, as everything that is stored.
        start_at: start_at.and_then(|start| Timestamp::from_millisecond(start.as_millisecond()).ok()),
        deadline_ms: deadline_ms.flatten(),
        tags,
        metadata: fields.metadata.clone(),
    })
}

fn list(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}

fn check_metadata(text: &str) -> Result<(), (&'static str, String)> {
    if text.len() > MAX_METADATA_BYTES {
        return Err(("too_long", format!("at most {MAX_METADATA_BYTES} bytes")));
    }
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(_)) => Ok(()),
        Ok(_) => Err(("not_an_object", "must be a JSON object".to_owned())),
        Err(error) => Err(("not_json", error.to_string())),
    }
}

/// What makes two requests the same: the picture and the fields, never the raw body, whose multipart
/// boundary differs from try to try. Each part goes in with its length, so that none can pass for two.
fn fingerprint(picture: &[u8; 32], wanted: &Wanted, vault: &Vault) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(picture);
    if let Some(callback) = &wanted.callback {
        add(callback.url.as_str().as_bytes());
        callback.events.iter().for_each(|kind| add(kind.as_str().as_bytes()));
        add(callback.secret.as_ref().map_or(&[], SigningSecret::expose_bytes));
        for (name, value) in &callback.headers {
            add(b"header");
            add(name.as_bytes());
            // A password may be guessed from a plain hash.
            add(&vault.digest(value.as_bytes()));
        }
        let RetryOverride { max_attempts, initial_ms, max_delay_ms } = callback.retry;
        for (name, number) in [
            (&b"max_attempts"[..], max_attempts.map(u64::from)),
            (b"retry_initial_ms", initial_ms),
            (b"retry_max_ms", max_delay_ms),
        ] {
            if let Some(number) = number {
                add(name);
                add(&number.to_be_bytes());
            }
        }
    }
    add(wanted.priority.as_str().as_bytes());
    add(&wanted.start_at.map_or(0, Timestamp::as_millisecond).to_be_bytes());
    add(&wanted.deadline_ms.unwrap_or(0).to_be_bytes());
    add(b"tags");
    wanted.tags.iter().for_each(|tag| add(tag.as_bytes()));
    add(wanted.metadata.as_deref().unwrap_or_default().as_bytes());
    wanted.pictures.fingerprint(&mut add);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EventKind;
    use crate::domain::image::Format;
    use crate::domain::secret::EncryptionKey;

    fn codes(fields: &Fields) -> Vec<(String, &'static str)> {
        match check_fields(fields, &Presets::default(), None, Timestamp::UNIX_EPOCH) {
            Err(ServiceError::Invalid(errors)) => {
                errors.into_iter().map(|error| (error.field, error.code)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn vault() -> Vault {
        Vault::new(&EncryptionKey::from_entropy([1; 32]), &[])
    }

    #[test]
    fn headers_and_schedule_are_part_of_the_fingerprint() {
        let print = |headers: &str, attempts: Option<&str>, initial: Option<&str>, max: Option<&str>| {
            let text = |text: &str| Some(text.to_owned());
            let fields = Fields {
                callback_headers: Some(headers.to_owned()).filter(|text| !text.is_empty()),
                callback_max_attempts: attempts.and_then(text),
                callback_retry_initial_ms: initial.and_then(text),
                callback_retry_max_ms: max.and_then(text),
                ..Fields::default()
            };
            let url = Url::parse("https://a.example/x").ok();
            fingerprint(
                &[1; 32],
                &check_fields(&fields, &Presets::default(), url, Timestamp::UNIX_EPOCH).unwrap(),
                &vault(),
            )
        };
        let same = print(r#"{"x-a":"1","X-B":"2"}"#, None, None, None);
        assert_eq!(print(r#" {"x-b":"2", "x-a":"1"}"#, None, None, None), same);
        let all = [
            same,
            print("", None, None, None),
            print(r#"{"x-a":"1","x-b":"3"}"#, None, None, None),
            print("", Some("5"), None, None),
            print("", None, Some("5000"), None),
            print("", None, None, Some("5000")),
        ];
        assert_eq!(all.iter().collect::<std::collections::HashSet<_>>().len(), all.len());
    }

    #[test]
    fn a_schedule_has_bounds_and_needs_a_callback() {
        let field = |name: &str, text: &str| {
            let mut fields = Fields::default();
            let field = match name {
                "callback_max_attempts" => &mut fields.callback_max_attempts,
                "callback_retry_initial_ms" => &mut fields.callback_retry_initial_ms,
                _ => &mut fields.callback_retry_max_ms,
            };
            *field = Some(text.to_owned());
            codes(&fields)
        };
        for (name, right, wrong) in [
            ("callback_max_attempts", ["1", "25"], ["0", "26"]),
            ("callback_retry_initial_ms", ["1000", "3600000"], ["999", "3600001"]),
            ("callback_retry_max_ms", ["1000", "86400000"], ["999", "86400001"]),
        ] {
            let required = vec![("callback_url".to_owned(), "required")];
            assert!(right.iter().all(|text| field(name, text) == required), "{name}");
            for text in [&wrong[..], &["-1", "x", "1.5"]].concat() {
                assert_eq!(field(name, text)[0], (name.to_owned(), "out_of_range"), "{text}");
            }
        }
        let fields = Fields {
            callback_retry_initial_ms: Some("5000".to_owned()),
            callback_retry_max_ms: Some("4999".to_owned()),
            ..Fields::default()
        };
        assert_eq!(codes(&fields)[0], ("callback_retry_max_ms".to_owned(), "out_of_range"));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let fields = Fields {
            callback_url: None,
            callback_events: Some("completed, exploded".to_owned()),
            callback_secret: Some("hunter2".to_owned()),
            tags: Some("t".repeat(65)),
            metadata: Some("[1]".to_owned()),
            ..Fields::default()
        };
        let expected = [
            ("callback_events", "unknown_event"),
            ("callback_secret", "not_a_secret"),
            ("callback_url", "required"),
            ("tags", "too_long"),
            ("metadata", "not_an_object"),
        ];
        assert_eq!(codes(&fields), expected.map(|(field, code)| (field.to_owned(), code)));
    }

    #[test]
    fn events_are_a_set_that_is_not_empty() {
        for none in [",", " , "] {
            let fields = Fields { callback_events: Some(none.to_owned()), ..Fields::default() };
            assert!(codes(&fields).contains(&("callback_events".to_owned(), "empty")), "{none:?}");
        }
        assert_eq!(
            callback::events(Some("failed, job.queued,failed")),
            Ok(vec![EventKind::JobQueued, EventKind::JobFailed])
        );
        assert_eq!(callback::events(None), Ok(EventKind::TERMINAL.to_vec()));
    }

    #[test]
    fn a_secret_does_not_show() {
        let fields = Fields {
            callback_secret: Some("whsec_MfKQ".to_owned()),
            callback_headers: Some(r#"{"authorization":"MfKQ"}"#.to_owned()),
            ..Fields::default()
        };
        assert!(!format!("{fields:?}").contains("MfKQ"));
    }

    #[test]
    fn no_field_is_required() {
        let wanted =
            check_fields(&Fields::default(), &Presets::default(), None, Timestamp::UNIX_EPOCH).unwrap();
        assert!(wanted.callback.is_none() && wanted.tags.is_empty() && wanted.metadata.is_none());
    }

    #[test]
    fn the_same_wishes_have_the_same_fingerprint_and_others_another() {
        let print = |tags: &str, metadata: &str| {
            let url = Url::parse("https://a.example/x").ok();
            let fields = Fields {
                tags: Some(tags.to_owned()),
                metadata: Some(metadata.to_owned()),
                ..Fields::default()
            };
            fingerprint(
                &[1; 32],
                &check_fields(&fields, &Presets::default(), url, Timestamp::UNIX_EPOCH).unwrap(),
                &vault(),
            )
        };
        assert_eq!(print("a,b", "{}"), print(" a , b ", "{}"));
        assert_ne!(print("a,b", "{}"), print("ab", "{}"));
        assert_ne!(print("a", "{}"), print("a", "{ }"));
    }

    #[test]
    fn a_wrong_claim_is_refused() {
        let probe = Probe { format: Format::Jpeg, width: 1, height: 1, coding: imaging::Coding::default() };
        for right in [None, Some("image/jpeg"), Some("image/JPG; q=1"), Some("application/octet-stream")] {
            assert!(check_claim(right, &probe).is_ok(), "{right:?}");
        }
        assert!(matches!(
            check_claim(Some("image/png"), &probe),
            Err(ServiceError::MediaTypeMismatch { .. })
        ));
    }
}
