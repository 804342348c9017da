//! Many jobs in one request: each is accepted or refused for itself.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use warp::reply::Response;

use super::jobs::check_key;
use super::log::trace_parent;
use super::problem::{self, Code, Problem};
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use super::source::{self, Members};
use crate::domain::client::Caller;
use crate::domain::trace::TraceParent;
use crate::service::Service;
use crate::service::submit::{Accepted, SourceRequest};
use crate::service::view::{JobView, LinkBuilder, Links};

pub(super) const MAX_ITEMS: usize = 100;
const MAX_BYTES: usize = 1024 * 1024;
/// Items that are taken in at once, so that they share the commits of the store.
const AT_ONCE: usize = 16;
pub(super) const NDJSON: [&str; 2] = ["application/x-ndjson", "application/ndjson"];
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency_key";

/// The form as one document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    jobs: Vec<Box<RawValue>>,
}

/// What became of the jobs of a batch.
#[derive(Serialize, ToSchema)]
#[schema(as = BatchResult)]
pub(super) struct Answer {
    accepted: usize,
    refused: usize,
    items: Vec<Item>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchItem)]
struct Item {
    index: usize,
    /// What the job alone would have been answered with.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replayed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    job: Option<JobView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, value_type = Option<problem::Document<'static>>)]
    problem: Option<serde_json::Value>,
}

/// `POST /v1/jobs/batch`: 202 if any of them was accepted, else 200; what became of each is told in their order.
pub(super) async fn submit(mut call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    // Where there is no room for one of them, nothing is read; and so many bodies at once are in memory as of single ones.
    let room = call.service.reserve_source()?;
    let texts = texts(&mut call).await?;
    drop(room);
    if texts.is_empty() || texts.len() > MAX_ITEMS {
        let code = if texts.is_empty() { "empty" } else { "too_many" };
        return Err(Problem::field(Code::Validation, "jobs", code, format!("from 1 to {MAX_ITEMS} jobs")));
    }
    let (caller, trace) = (call.caller()?.clone(), trace_parent(&call.headers));
    let results = texts.into_iter().enumerate().map(|(index, text)| {
        let (service, caller) = (Arc::clone(&call.service), caller.clone());
        async move {
            // The first was counted as the request itself was.
            if index > 0 {
                service.count_request(&caller)?;
            }
            accept(&service, &caller, trace, &text).await
        }
    });
    let results: Vec<_> = stream::iter(results).buffered(AT_ONCE).collect().await;
    let items = results.into_iter().enumerate().map(|(index, result)| match result {
        Ok(Accepted { job, replayed }) => Item {
            index,
            status: StatusCode::ACCEPTED.as_u16(),
            replayed: Some(replayed),
            job: Some(call.service.view_job(&job, call.reader())),
            problem: None,
        },
        Err(problem) => {
            let instance = format!("/v1/jobs/batch#/jobs/{index}");
            // The id of the request is that of the whole answer.
            let document = problem.document(call.reader().base(), &instance, "");
            let document = serde_json::from_slice(&document).ok();
            Item { index, status: problem.status().as_u16(), replayed: None, job: None, problem: document }
        }
    });
    let items: Vec<_> = items.collect();
    let accepted = items.iter().filter(|item| item.job.is_some()).count();
    let links = LinkBuilder::new(call.reader()).get("jobs", "/v1/jobs").build();
    let mut response = json(&Answer { accepted, refused: items.len() - accepted, items, links });
    *response.status_mut() = if accepted > 0 { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(response)
}

/// The items as they came: members of one document, or lines.
async fn texts(call: &mut Call) -> Result<Vec<String>, Problem> {
    let is_lines = NDJSON.iter().any(|essence| source::has_type(&call.headers, essence));
    if !is_lines && !source::is_json(&call.headers) {
        let detail = "many jobs come as application/json or application/x-ndjson";
        return Err(Problem::of(Code::UnsupportedMediaType).with_detail(detail));
    }
    let malformed = |detail: String| Problem::of(Code::MalformedJson).with_detail(detail);
    let body = call.body.up_to(MAX_BYTES).await?;
    if is_lines {
        let text = String::from_utf8(body).map_err(|error| malformed(error.to_string()))?;
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        return Ok(lines.map(str::to_owned).collect());
    }
    let document: Document = serde_json::from_slice(&body).map_err(|error| malformed(error.to_string()))?;
    Ok(document.jobs.into_iter().map(|job| job.get().to_owned()).collect())
}

/// As a request for a job whose picture is to be fetched.
async fn accept(
    service: &Service,
    caller: &Caller,
    trace: Option<TraceParent>,
    text: &str,
) -> Result<Accepted, Problem> {
    let malformed =
        |error: serde_json::Error| Problem::of(Code::MalformedJson).with_detail(error.to_string());
    let Members(mut members) = serde_json::from_str(text).map_err(malformed)?;
    let named = members.extract_if(.., |(name, _)| name == IDEMPOTENCY_KEY).collect::<Vec<_>>();
    let keys = named.iter().map(|(_, value)| {
        let key =
            serde_json::from_str::<String>(value.get()).map_err(|_| Problem::of(Code::InvalidIdempotencyKey));
        check_key(key?)
    });
    let idempotency_key = match &keys.collect::<Result<Vec<_>, _>>()?[..] {
        [] => None,
        [key] => Some(key.clone()),
        _ => {
            return Err(Problem::field(
                Code::Validation,
                IDEMPOTENCY_KEY,
                "repeated",
                "given more than once",
            ));
        }
    };
    let client = caller.client.clone();
    let key_in_use = idempotency_key.as_deref().map(|key| service.hold_key(&client, key)).transpose()?;
    let place = service.place(caller).await?;
    let slot = service.reserve_source()?.with_place(place);
    let source::Incoming { source_url, mut fields, faults } = source::read(&members);
    fields.trace = trace;
    let request = SourceRequest { client, source_url, fields, faults, idempotency_key };
    let accepted = service.submit_source(slot, request).await?;
    drop(key_in_use);
    Ok(accepted)
}
