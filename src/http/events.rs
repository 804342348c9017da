//! The event log as a feed: for receivers that were down, and for audits.

use serde::Serialize;
use warp::reply::Response;

use super::jobs::job_id;
use super::problem::Problem;
use super::query::{Query, invalid};
use super::represent::json;
use super::resource::Call;
use crate::domain::client::ClientId;
use crate::service::view::{EventView, LinkBuilder, Links};

#[derive(Serialize)]
struct Feed {
    items: Vec<EventView>,
    #[serde(rename = "_links")]
    links: Links,
}

/// `GET /v1/events?after=SEQ&limit=`
///
/// `next` is there even when nothing follows yet: it is where to look again.
pub(super) async fn feed(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["after", "limit"])?;
    let limit = query.limit()?;
    let after = after(&query)?;
    let (events, read) = call.service.events_after(&ClientId::dev(), after, limit).await?;
    let path = |after: u64| format!("/v1/events?after={after}&limit={limit}");
    Ok(json(&Feed {
        items: events.iter().map(EventView::new).collect(),
        links: LinkBuilder::new(&call.service.settings().base_url)
            .get("self", &path(after))
            .get("next", &path(read))
            .build(),
    }))
}

/// `GET /v1/jobs/{id}/events?after=SEQ&limit=`
pub(super) async fn of_job(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["after", "limit"])?;
    let (job, limit, after) = (job_id(&call)?, query.limit()?, after(&query)?);
    let events = call.service.events_of(&ClientId::dev(), job, after, limit).await?;
    let last = events.last().map_or(after, |event| event.seq);
    let path = |after: u64| format!("/v1/jobs/{job}/events?after={after}&limit={limit}");
    Ok(json(&Feed {
        items: events.iter().map(EventView::new).collect(),
        links: LinkBuilder::new(&call.service.settings().base_url)
            .get("self", &path(after))
            .get("next", &path(last))
            .get("job", &format!("/v1/jobs/{job}"))
            .build(),
    }))
}

fn after(query: &Query) -> Result<u64, Problem> {
    query
        .get("after")
        .map_or(Ok(0), str::parse)
        .map_err(|_| invalid("after", "not_a_number", "the seq of the last event you have"))
}
