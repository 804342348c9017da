//! Whether every delivery is accounted for: the ledger, and the metrics.

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::problem::{Code, Problem};
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use crate::service::view::{LinkBuilder, Links};

#[derive(Serialize, ToSchema)]
pub(super) struct Ledger {
    accepted: u64,
    delivered: u64,
    waiting: u64,
    exhausted: u64,
    cancelled: u64,
    /// Whether the first is the sum of the others.
    balanced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    recount: Option<Recount>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
struct Recount {
    jobs: u64,
    deliveries: u64,
    faults: Vec<String>,
}

/// `GET /v1/ledger?recount=true|false`: with a recount, every record is looked at.
pub(super) async fn ledger(call: Call) -> Result<Response, Problem> {
    let recount = if Query::parse(&call.query, &["recount"])?.flag("recount")? {
        let audit = call.service.recount().await?;
        let (jobs, deliveries) = (audit.jobs.values().sum(), audit.deliveries.values().sum());
        Some(Recount { jobs, deliveries, faults: audit.faults })
    } else {
        None
    };
    let ledger = call.service.ledger();
    let links = LinkBuilder::new(call.reader()).get("self", "/v1/ledger");
    Ok(json(&Ledger {
        accepted: ledger.accepted,
        delivered: ledger.delivered,
        waiting: ledger.waiting,
        exhausted: ledger.exhausted,
        cancelled: ledger.cancelled,
        balanced: ledger.is_balanced(),
        recount,
        links: links.get("undelivered", "/v1/deliveries?state=undelivered").build(),
    }))
}

/// `GET /metrics`: in the text format of Prometheus, version 0.0.4.
pub(super) async fn metrics(call: Call) -> Result<Response, Problem> {
    let text = call.service.metrics().await?.ok_or_else(|| Problem::of(Code::Internal))?;
    let mut response = Response::new(text.into());
    let media_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    Ok(response)
}
