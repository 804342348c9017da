//! Where to start, whether the service is well, and what its problems mean.

use http::header::{ACCEPT, CONTENT_TYPE, LINK, VARY};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::document;
use super::problem::{CATALOGUE, Code, Problem};
use super::represent::json;
use super::resource::Call;
use crate::service::ServiceError;
use crate::service::view::{LinkBuilder, Links};

#[derive(Serialize, ToSchema)]
pub(super) struct Root<'a> {
    name: &'static str,
    version: &'static str,
    /// What `preset` can be.
    presets: Vec<&'a str>,
    presets_only: bool,
    #[serde(rename = "_links")]
    links: Links,
}

/// `GET /`
pub(super) async fn links(call: Call) -> Result<Response, Problem> {
    let links = LinkBuilder::new(call.reader())
        .get("self", "/")
        .get("jobs", "/v1/jobs")
        .get("job", "/v1/jobs/{id}")
        .post("create", "/v1/jobs")
        .post("batch", "/v1/jobs/batch")
        .post("cancel_jobs", "/v1/jobs/cancel{?client,status,tag,created_after,created_before,dry_run}")
        .get("events", "/v1/events")
        .get("deliveries", "/v1/deliveries")
        .get("delivery", "/v1/deliveries/{id}")
        .get("destinations", "/v1/destinations")
        .get("destination", "/v1/destinations/{id}")
        .get("replays", "/v1/replays")
        .get("replay", "/v1/replays/{id}")
        .post("start_replay", "/v1/replays")
        .post("test_callback", "/v1/callbacks/test")
        .get("ledger", "/v1/ledger")
        .get("metrics", "/metrics")
        .get("queue", "/v1/queue")
        .get("backup", "/v1/backup")
        .get("secrets", "/v1/secrets")
        .post("create_ticket", "/v1/tickets")
        .get("audit", "/v1/audit")
        .get("clients", "/v1/clients")
        .get("client", "/v1/clients/{name}")
        .get("webhook_keys", "/.well-known/webhook-keys")
        .get("openapi", "/openapi.json")
        .get("asyncapi", "/asyncapi.json")
        .get("docs", "/docs")
        .get("live", "/health/live")
        .get("ready", "/health/ready");
    let presets = &call.service.settings().presets;
    let mut response = json(&Root {
        name: "darkroom",
        version: env!("CARGO_PKG_VERSION"),
        presets: presets.named.keys().map(String::as_str).collect(),
        presets_only: presets.only,
        links: links.build(),
    });
    let base_url = &call.service.settings().base_url;
    let description = format!("<{base_url}/openapi.json>; rel=\"service-desc\"");
    response.headers_mut().extend(HeaderValue::try_from(description).ok().map(|value| (LINK, value)));
    Ok(response)
}

#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

/// `GET /health/live`: the process answers.
pub(super) async fn live(_: Call) -> Result<Response, Problem> {
    Ok(json(&Health { status: "live" }))
}

/// `GET /health/ready`: requests are served. On a full disk they are, too: new jobs get their 507, all else goes on.
pub(super) async fn ready(call: Call) -> Result<Response, Problem> {
    if !call.service.is_ready() {
        return Err(ServiceError::Stopping.into());
    }
    // The store is asked something, so that a store that hangs or fails shows.
    call.service.next_due().await?;
    Ok(json(&Health { status: "ready" }))
}

/// `GET /problems/{code}`: what a problem document's `type` leads to.
pub(super) async fn problem(call: Call) -> Result<Response, Problem> {
    let row = CATALOGUE.iter().find(|row| row.slug == call.param(0));
    let row = row.ok_or_else(|| Problem::of(Code::NotFound).with_detail("there is no such problem"))?;
    let mut response = if accepts_html(&call.headers) {
        document::problem_page(row)
    } else {
        let page = format!("{}\n\n{}\n{}\n", row.status, row.title, row.advice);
        let mut response = Response::new(page.into());
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Whether the client names HTML, as browsers do; `*/*` alone is satisfied with plain text.
fn accepts_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let is_html = parts.next().is_some_and(|range| range.eq_ignore_ascii_case("text/html"));
        let refuses = |part: &str| part.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        is_html && !parts.any(refuses)
    })
}
