//! Receiving a picture: as a part of `multipart/form-data` (RFC 7578), or as the whole body.
//!
//! The picture goes to disk as it comes in, so memory does not grow with it. Every length is counted,
//! whatever the headers said.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use multer::{Field, Multipart};

use super::body::Body;
use super::problem::{Code, Problem};
use super::query::Query;
use crate::clock::Stopwatch;
use crate::domain::client::Caller;
use crate::service::quotas::{Exceeded, Meter};
use crate::service::submit::{Fields, Received, Upload};
use crate::service::{Service, ServiceError, Settings};

/// The fields beside the picture.
pub(super) const FIELDS: [&str; 16] = [
    "callback_url",
    "callback_events",
    "callback_secret",
    "callback_headers",
    "callback_max_attempts",
    "callback_retry_initial_ms",
    "callback_retry_max_ms",
    "preset",
    "variants",
    "metadata_policy",
    "allow_truncated",
    "priority",
    "start_at",
    "deadline_ms",
    "tags",
    "metadata",
];
/// Fields that are part of the contract and not of this version, so that their refusal can say so.
pub(super) const LATER: [&str; 3] = ["notify_email", "notify_after_ms", "operations"];
/// The longest text field; metadata is the longest that is any use, with 4 KiB.
const MAX_FIELD_BYTES: usize = 16 * 1024;
/// Parts of a request; each known one may come once.
const MAX_PARTS: usize = 32;
/// What multipart may add to the picture: part headers, boundaries and the text fields.
const MULTIPART_OVERHEAD: u64 = (MAX_PARTS * MAX_FIELD_BYTES) as u64;
/// Bytes that may come in without a part or a chunk coming out. The parser keeps and rescans an
/// unfinished part header, so an endless one would cost time with the square of its length.
const MAX_UNPARSED_BYTES: usize = 256 * 1024;

/// What came in.
pub(super) struct Incoming {
    pub(super) picture: Received,
    pub(super) filename: Option<String>,
    pub(super) claimed_type: Option<String>,
    pub(super) fields: Fields,
}

/// How the picture is sent.
enum Form {
    Multipart { boundary: String },
    Raw { media_type: String },
}

/// What is known before the body: refusing by it costs the client nothing.
pub(super) struct Head {
    form: Form,
    fields: Fields,
    length: Option<u64>,
}

impl Head {
    pub(super) fn read(headers: &HeaderMap, query: &str, limit: u64) -> Result<Self, Problem> {
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (form, fields, longest) = if essence == "multipart/form-data" {
            Query::parse(query, &[])?;
            let boundary = multer::parse_boundary(content_type)
                .map_err(|error| Problem::of(Code::MalformedMultipart).with_detail(error.to_string()))?;
            (Form::Multipart { boundary }, Fields::default(), limit.saturating_add(MULTIPART_OVERHEAD))
        } else if essence.starts_with("image/") || essence == "application/octet-stream" {
            let mut fields = Fields::default();
            for (name, value) in Query::parse(query, &FIELDS)?.pairs() {
                set(&mut fields, &name, value)?;
            }
            (Form::Raw { media_type: essence }, fields, limit)
        } else {
            let got = if essence.is_empty() { "no Content-Type" } else { &essence };
            let detail = format!(
                "{got}: a picture comes as multipart/form-data, as image/*, or by application/json with source_url"
            );
            return Err(Problem::of(Code::UnsupportedMediaType).with_detail(detail));
        };
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > longest) {
            return Err(Problem::payload_too_large(limit));
        }
        Ok(Self { form, fields, length })
    }

    /// Reads the body to its end.
    pub(super) async fn receive(
        self,
        service: &Service,
        caller: &Caller,
        body: &mut Body,
    ) -> Result<Incoming, Problem> {
        let Settings { max_upload_bytes: limit, body_whole, .. } = *service.settings();
        let source = Source::new(body, service.settings(), service.meter(caller, self.length)?);
        let whole = async {
            match self.form {
                Form::Multipart { boundary } => multipart(service, source, boundary, limit).await,
                Form::Raw { media_type } => raw(service, source, media_type, self.fields, limit).await,
            }
        };
        tokio::time::timeout(body_whole, whole).await.unwrap_or_else(|_| Err(too_slow()))
    }
}

/// The body as it comes in, with a bound on how long it is waited for.
struct Source<'a> {
    body: &'a mut Body,
    idle: Duration,
    pace: Pace,
    meter: Meter<'a>,
}

impl<'a> Source<'a> {
    fn new(body: &'a mut Body, settings: &Settings, meter: Meter<'a>) -> Self {
        let Settings { body_idle: idle, min_upload_rate: rate, upload_grace: grace, .. } = *settings;
        Self { body, idle, meter, pace: Pace { rate, grace, bytes: 0, waited: Duration::ZERO } }
    }

    async fn next(&mut self) -> Option<Result<Bytes, StreamFault>> {
        let stopwatch = Stopwatch::start();
        let chunk = tokio::time::timeout(self.idle.min(self.pace.left()), self.body.next()).await;
        self.pace.waited += stopwatch.elapsed();
        match chunk {
            Err(_) => Some(Err(StreamFault::TooSlow)),
            Ok(None) => None,
            Ok(Some(Err(_))) => Some(Err(StreamFault::Broken)),
            Ok(Some(Ok(chunk))) => {
                self.pace.bytes += chunk.len() as u64;
                let counted = self.meter.count(chunk.len() as u64);
                Some(counted.map(|()| chunk).map_err(StreamFault::Quota))
            }
        }
    }
}

/// How fast a body must come. Only the time counts that we wait for the client, so that our own disk is not its fault.
struct Pace {
    rate: u32,
    grace: Duration,
    bytes: u64,
    waited: Duration,
}

impl Pace {
    /// How much longer it may be waited for.
    fn left(&self) -> Duration {
        let earned = if self.rate == 0 { Duration::MAX } else { Duration::from_secs(self.bytes) / self.rate };
        self.grace.saturating_add(earned).saturating_sub(self.waited)
    }
}

async fn raw(
    service: &Service,
    mut source: Source<'_>,
    media_type: String,
    fields: Fields,
    limit: u64,
) -> Result<Incoming, Problem> {
    let mut upload = service.receive().await?;
    while let Some(chunk) = source.next().await {
        write(&mut upload, &chunk?, limit).await?;
    }
    Ok(Incoming { picture: finish(upload).await?, filename: None, claimed_type: Some(media_type), fields })
}

async fn multipart(
    service: &Service,
    source: Source<'_>,
    boundary: String,
    limit: u64,
) -> Result<Incoming, Problem> {
    let unparsed = Arc::new(AtomicUsize::new(0));
    let mut parts = Multipart::new(counted(source, Arc::clone(&unparsed)), boundary);
    let mut fields = Fields::default();
    let mut picture = None;
    for _ in 0..MAX_PARTS {
        let Some(part) = parts.next_field().await.map_err(|error| malformed(&error))? else {
            let Some((picture, filename, claimed_type)) = picture else {
                return Err(Problem::field(
                    Code::Validation,
                    "image",
                    "required",
                    "a part named image must hold the picture",
                ));
            };
            return Ok(Incoming { picture, filename, claimed_type, fields });
        };
        unparsed.store(0, Ordering::Relaxed);
        let name = part.name().unwrap_or_default().to_owned();
        if name != "image" {
            let text = text(part, &name, &unparsed).await?;
            set(&mut fields, &name, text)?;
        } else if picture.is_some() {
            return Err(Problem::field(Code::Validation, "image", "repeated", "given more than once"));
        } else {
            picture = Some(image(service, part, limit, &unparsed).await?);
        }
    }
    Err(Problem::of(Code::MalformedMultipart).with_detail(format!("more than {MAX_PARTS} parts")))
}

type Picture = (Received, Option<String>, Option<String>);

async fn image(
    service: &Service,
    mut part: Field<'_>,
    limit: u64,
    unparsed: &AtomicUsize,
) -> Result<Picture, Problem> {
    let filename = part.file_name().map(str::to_owned).filter(|name| !name.is_empty());
    let claimed_type = part.content_type().map(|mime| mime.essence_str().to_owned());
    let mut upload = service.receive().await?;
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        unparsed.store(0, Ordering::Relaxed);
        write(&mut upload, &chunk, limit).await?;
    }
    Ok((finish(upload).await?, filename, claimed_type))
}

async fn text(mut part: Field<'_>, name: &str, unparsed: &AtomicUsize) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = part.chunk().await.map_err(|error| malformed(&error))? {
        unparsed.store(0, Ordering::Relaxed);
        if bytes.len() + chunk.len() > MAX_FIELD_BYTES {
            let detail = format!("at most {MAX_FIELD_BYTES} bytes");
            return Err(Problem::field(Code::Validation, name, "too_long", detail));
        }
        bytes.extend_from_slice(&chunk);
    }
    String::from_utf8(bytes)
        .map_err(|_| Problem::field(Code::Validation, name, "not_utf8", "must be UTF-8 text"))
}

/// The body as the parser takes it, with a bound on how much it may keep.
fn counted(
    source: Source<'_>,
    unparsed: Arc<AtomicUsize>,
) -> impl Stream<Item = Result<Bytes, StreamFault>> + Send {
    futures_util::stream::unfold(source, move |mut source| {
        let unparsed = Arc::clone(&unparsed);
        async move {
            let item = source.next().await?.and_then(|chunk| {
                let before = unparsed.fetch_add(chunk.len(), Ordering::Relaxed);
                if before > MAX_UNPARSED_BYTES { Err(StreamFault::Unparsed) } else { Ok(chunk) }
            });
            Some((item, source))
        }
    })
}

/// Why the parser gets no more of the body; it hands this back inside its own error.
#[derive(Debug, Clone, thiserror::Error)]
enum StreamFault {
    #[error("the body came too slowly")]
    TooSlow,
    #[error("the connection broke before the body's end")]
    Broken,
    #[error("a part header of more than {MAX_UNPARSED_BYTES} bytes")]
    Unparsed,
    #[error(transparent)]
    Quota(#[from] Exceeded),
}

fn malformed(error: &multer::Error) -> Problem {
    if let multer::Error::StreamReadFailed(cause) = error
        && let Some(fault) = cause.downcast_ref::<StreamFault>()
    {
        return fault.clone().into();
    }
    Problem::of(Code::MalformedMultipart).with_detail(error.to_string())
}

impl From<StreamFault> for Problem {
    fn from(fault: StreamFault) -> Self {
        match fault {
            StreamFault::TooSlow => too_slow(),
            StreamFault::Quota(exceeded) => ServiceError::QuotaExceeded(exceeded).into(),
            StreamFault::Broken | StreamFault::Unparsed => {
                Self::of(Code::MalformedMultipart).with_detail(fault.to_string())
            }
        }
    }
}

fn too_slow() -> Problem {
    Problem::of(Code::RequestTimeout)
}

async fn write(upload: &mut Upload, chunk: &[u8], limit: u64) -> Result<(), Problem> {
    if upload.bytes() + chunk.len() as u64 > limit {
        return Err(ServiceError::PayloadTooLarge { limit }.into());
    }
    upload.write(chunk).await.map_err(|error| ServiceError::from(error).into())
}

async fn finish(upload: Upload) -> Result<Received, Problem> {
    upload.finish().await.map_err(|error| ServiceError::from(error).into())
}

/// Sets a field that is known and not set yet. An empty one counts as not given, as HTML forms send it.
fn set(fields: &mut Fields, name: &str, value: String) -> Result<(), Problem> {
    let Some(field) = field(fields, name) else {
        let (error, detail) = match name {
            "source_url" => ("not_with_image", "send application/json instead of a picture".to_owned()),
            _ if LATER.contains(&name) => {
                ("not_supported", "this version does not support it yet".to_owned())
            }
            _ => ("unknown", format!("known: image, {}", FIELDS.join(", "))),
        };
        return Err(Problem::field(Code::Validation, name, error, detail));
    };
    if field.is_some() {
        return Err(Problem::field(Code::Validation, name, "repeated", "given more than once"));
    }
    *field = Some(value).filter(|value| !value.is_empty());
    Ok(())
}

/// The place of a field.
pub(super) fn field<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Option<String>> {
    Some(match name {
        "callback_url" => &mut fields.callback_url,
        "callback_events" => &mut fields.callback_events,
        "callback_secret" => &mut fields.callback_secret,
        "callback_headers" => &mut fields.callback_headers,
        "callback_max_attempts" => &mut fields.callback_max_attempts,
        "callback_retry_initial_ms" => &mut fields.callback_retry_initial_ms,
        "callback_retry_max_ms" => &mut fields.callback_retry_max_ms,
        "preset" => &mut fields.preset,
        "variants" => &mut fields.variants,
        "metadata_policy" => &mut fields.metadata_policy,
        "allow_truncated" => &mut fields.allow_truncated,
        "priority" => &mut fields.priority,
        "start_at" => &mut fields.start_at,
        "deadline_ms" => &mut fields.deadline_ms,
        "tags" => &mut fields.tags,
        "metadata" => &mut fields.metadata,
        _ => return None,
    })
}
