//! Jobs: submit, show, list, and their pictures.

use std::io::SeekFrom;
use std::time::Duration;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, LOCATION, RETRY_AFTER, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;
use warp::Reply as _;
use warp::reply::Response;

use super::conditional::{Part, not_modified, part};
use super::log::trace_parent;
use super::page::Page;
use super::prefer::{self, PREFERENCE_APPLIED, Preferences};
use super::problem::{Code, Problem};
use super::query::{Query, invalid};
use super::represent::{insert, json};
use super::resource::Call;
use super::source;
use super::upload::{Head, Incoming};
use crate::domain::hex::hex;
use crate::domain::id::JobId;
use crate::domain::job::{Job, JobStatus};
use crate::service::ServiceError;
use crate::service::links::Signed;
use crate::service::read::{JobQuery, OpenArtifact};
use crate::service::submit::{Accepted, Request, SourceRequest};
use crate::service::view::{LinkBuilder, download_name};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
/// As long as caches may keep a picture.
const YEAR_SECONDS: u64 = 31_536_000;
/// Read at once from a picture on its way out.
const CHUNK_BYTES: usize = 64 * 1024;

/// `POST /v1/jobs`
///
/// The order matters: what the headers tell, then room in the queue, and only then the body. A client
/// that sent `Expect: 100-continue` is refused before it uploads.
pub(super) async fn submit(mut call: Call) -> Result<Response, Problem> {
    let service = &call.service;
    let client = call.caller()?.client.clone();
    let head = if source::is_json(&call.headers) {
        source::check_head(&call.headers, &call.query)?;
        None
    } else {
        Some(Head::read(&call.headers, &call.query, service.settings().max_upload_bytes)?)
    };
    let idempotency_key = idempotency_key(&call.headers)?;
    let key_in_use = idempotency_key.as_deref().map(|key| service.hold_key(&client, key)).transpose()?;
    let caller = call.caller()?.clone();
    let place = service.place(&caller).await?;
    let slot = if head.is_some() { service.reserve() } else { service.reserve_source() }?;
    let slot = slot.with_place(place);
    let Accepted { job: accepted, replayed } = match head {
        Some(head) => {
            let Incoming { picture, filename, claimed_type, mut fields } =
                head.receive(service, &caller, &mut call.body).await?;
            fields.trace = trace_parent(&call.headers);
            let request = Request { client, picture, filename, claimed_type, fields, idempotency_key };
            service.submit(slot, request).await?
        }
        None => {
            let source::Incoming { source_url, mut fields, faults } = source::receive(&mut call.body).await?;
            fields.trace = trace_parent(&call.headers);
            let request = SourceRequest { client, source_url, fields, faults, idempotency_key };
            service.submit_source(slot, request).await?
        }
    };
    drop(key_in_use);
    // The job is accepted whatever comes of the wait.
    let mut granted = Preferences::read(&call.headers);
    let waited = wait(&call, accepted.id, granted.wait, |job| job.status.is_terminal()).await.ok().flatten();
    granted.wait = granted.wait.filter(|_| waited.is_some());
    let just_accepted = waited.is_none() && !replayed;
    let mut response =
        represent_as(&call, &waited.unwrap_or(accepted), just_accepted, StatusCode::ACCEPTED).await;
    let headers = response.headers_mut();
    headers.insert(IDEMPOTENCY_REPLAYED, HeaderValue::from_static(if replayed { "true" } else { "false" }));
    headers.insert(VARY, prefer::VARY_BY);
    headers.extend(granted.applied().map(|applied| (PREFERENCE_APPLIED, applied)));
    Ok(response)
}

/// `GET /v1/jobs/{id}`: with `Prefer: wait` at its end; with `If-None-Match` too, once it is another than the client has.
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let id = job_id(&call)?;
    // It is answered when all is done, or as much as there is.
    let mut granted = Preferences { respond_async: false, ..Preferences::read(&call.headers) };
    let is_known = |job: &Job| not_modified(&call.headers, &call.service.view_job(job, call.reader()).etag());
    let is_poll = call.headers.contains_key(IF_NONE_MATCH);
    let wanted = |job: &Job| if is_poll { !is_known(job) } else { job.status.is_terminal() };
    let waited = wait(&call, id, granted.wait, wanted).await?;
    granted.wait = granted.wait.filter(|_| waited.is_some());
    let job = match waited {
        Some(job) => job,
        None => call.service.job(call.caller()?, id).await?,
    };
    let mut response = represent(&call, &job, StatusCode::OK).await;
    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
    if not_modified(&call.headers, etag) {
        let mut headers = std::mem::take(response.headers_mut());
        headers.remove(CONTENT_TYPE);
        response = unchanged();
        *response.headers_mut() = headers;
    }
    let headers = response.headers_mut();
    // Kept, it saves sending it again, and is asked about each time.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(VARY, prefer::VARY_BY);
    headers.extend(granted.applied().map(|applied| (PREFERENCE_APPLIED, applied)));
    Ok(response)
}

/// The job once it is as `wanted`, or as it is after as long as the client prefers to wait. `None` if it does not, or
/// too many do.
async fn wait(
    call: &Call,
    id: JobId,
    wait: Option<Duration>,
    wanted: impl Fn(&Job) -> bool + Send + Sync,
) -> Result<Option<Job>, Problem> {
    let Some(wait) = wait else { return Ok(None) };
    Ok(call.service.awaited_job(call.caller()?, id, wait, wanted).await?)
}

/// The filters of a list of jobs; links to other pages carry them on.
const FILTERS: [&str; 6] = ["client", "status", "tag", "created_after", "created_before", "include_deleted"];

/// `GET /v1/jobs`
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &[&["limit", "cursor"], &FILTERS[..]].concat())?;
    let page = Page::of("/v1/jobs", &query, &FILTERS)?;
    let found = call
        .service
        .jobs(
            call.caller()?,
            JobQuery {
                client: call.only(query.get("client"))?,
                status: query.get("status").map(status).transpose()?,
                tag: query.get("tag").map(str::to_owned),
                created_after: query.time("created_after")?,
                created_before: query.time("created_before")?,
                include_deleted: query.flag("include_deleted")?,
                before: page.id()?.map(JobId::from_bytes),
                limit: page.limit,
            },
        )
        .await?;
    let items = found.jobs.iter().map(|job| call.service.view_job(job, call.reader())).collect();
    let links = LinkBuilder::new(call.reader()).post("create", "/v1/jobs");
    Ok(page.answer(items, found.next.as_ref().map(|id| &id.as_bytes()[..]), links))
}

/// `GET /v1/jobs/{id}/artifacts/{name}`: for whoever may see the job, or has a signed link.
pub(super) async fn artifact(call: Call) -> Result<Response, Problem> {
    let is_signed = !call.query.is_empty();
    if !is_signed {
        call.caller()?;
    }
    let query = Query::parse(&call.query, &["expires", "signature"])?;
    let id = job_id(&call)?;
    let name = call.param(1);
    // It never changes under its URL; but it is the client's own.
    let (artifact, fresh) = if is_signed {
        let [expires, signature] = ["expires", "signature"].map(|name| query.get(name).unwrap_or_default());
        let (artifact, left) = call.service.signed_artifact(id, name, Signed { expires, signature }).await?;
        (artifact, left.as_secs())
    } else {
        (call.service.artifact(call.caller()?, id, name).await?, YEAR_SECONDS)
    };
    let etag = format!("\"{}\"", hex(&artifact.sha256));
    let mut response = if not_modified(&call.headers, &etag) {
        unchanged()
    } else {
        let filename = download_name(&id.to_string(), name, artifact.format);
        let mut response = bytes(artifact, &call.headers, &etag).await?;
        insert(response.headers_mut(), CONTENT_DISPOSITION, &format!("inline; filename=\"{filename}\""));
        response
    };
    let headers = response.headers_mut();
    insert(headers, CACHE_CONTROL, &format!("private, max-age={fresh}, immutable"));
    insert(headers, ETAG, &etag);
    Ok(response)
}

/// The whole, or the part that the request asks for.
async fn bytes(mut artifact: OpenArtifact, request: &HeaderMap, etag: &str) -> Result<Response, Problem> {
    let whole = artifact.bytes;
    let (status, range) = match part(request, etag, whole) {
        Part::Whole => (StatusCode::OK, 0..whole),
        Part::Bytes(range) => (StatusCode::PARTIAL_CONTENT, *range.start()..*range.end() + 1),
        Part::Unsatisfiable => return Err(Problem::range_not_satisfiable(whole)),
    };
    let length = range.end - range.start;
    artifact.file.seek(SeekFrom::Start(range.start)).await.map_err(ServiceError::from)?;
    let chunks = ReaderStream::with_capacity(artifact.file.take(length), CHUNK_BYTES);
    let mut response = warp::reply::stream(chunks).into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(artifact.format.media_type()));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(NOSNIFF, HeaderValue::from_static("nosniff"));
    if status == StatusCode::PARTIAL_CONTENT {
        insert(headers, CONTENT_RANGE, &format!("bytes {}-{}/{whole}", range.start, range.end - 1));
    }
    Ok(response)
}

fn unchanged() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

/// An id of the wrong form is the id of nothing.
pub(super) fn job_id(call: &Call) -> Result<JobId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such job"))
}

/// A job, with the headers that go with its state.
pub(super) async fn represent(call: &Call, job: &Job, status: StatusCode) -> Response {
    represent_as(call, job, false, status).await
}

async fn represent_as(call: &Call, job: &Job, just_accepted: bool, status: StatusCode) -> Response {
    let view = call.service.view_job(job, call.reader());
    let mut response = json(&view);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    insert(headers, ETAG, &view.etag());
    if status == StatusCode::ACCEPTED {
        insert(headers, LOCATION, view.href());
    }
    if let Some(after) = call.service.poll_after(job, just_accepted).await {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    response
}

/// A string of RFC 8941 in quotes, or the bare token that many clients send.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let key = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    check_key(key.to_owned()).map(Some)
}

pub(super) fn check_key(key: String) -> Result<String, Problem> {
    let valid =
        (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"');
    if valid { Ok(key) } else { Err(Problem::of(Code::InvalidIdempotencyKey)) }
}

pub(super) fn status(text: &str) -> Result<JobStatus, Problem> {
    JobStatus::parse(text).ok_or_else(|| {
        let known = JobStatus::ALL.map(JobStatus::as_str).join(", ");
        invalid("status", "unknown", format!("one of {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &'static str) -> Result<Option<String>, Problem> {
        idempotency_key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static(text))]))
    }

    #[test]
    fn keys_come_with_and_without_quotes() {
        assert_eq!(key("\"8e03-1\"").unwrap().as_deref(), Some("8e03-1"));
        assert_eq!(key("8e03-1").unwrap().as_deref(), Some("8e03-1"));
        assert!(idempotency_key(&HeaderMap::new()).unwrap().is_none());
        for bad in ["", "\"\"", "a b", "a\"b"] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }
}
