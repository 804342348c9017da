//! The event log as a feed: for receivers that were down, and for audits.

use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::jobs::job_id;
use super::problem::Problem;
use super::query::{Query, invalid};
use super::represent::json;
use super::resource::Call;
use crate::domain::event::EventKind;
use crate::domain::id::JobId;
use crate::service::read::{EventPage, EventQuery};
use crate::service::view::{EventView, LinkBuilder, Links};

#[derive(Serialize, ToSchema)]
#[schema(as = EventFeed)]
pub(super) struct Feed {
    items: Vec<EventView>,
    page: PageInfo,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FeedPage)]
pub(super) struct PageInfo {
    limit: usize,
    has_more: bool,
}

/// `GET /v1/events?after=SEQ&limit=&types=&job_id=&client=`
pub(super) async fn feed(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["after", "limit", "types", "job_id", "client"])?;
    let job = query.get("job_id").map(|text| {
        text.parse::<JobId>().map_err(|_| invalid("job_id", "not_a_job", "a job's id, such as job_…"))
    });
    page(&call, &query, "/v1/events", job.transpose()?).await
}

/// `GET /v1/jobs/{id}/events?after=SEQ&limit=&types=`
pub(super) async fn of_job(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["after", "limit", "types"])?;
    let job = job_id(&call)?;
    page(&call, &query, &format!("/v1/jobs/{job}/events"), Some(job)).await
}

/// `next` is there even when nothing follows yet: it is where to look again.
async fn page(call: &Call, query: &Query, path: &str, job: Option<JobId>) -> Result<Response, Problem> {
    let (after, limit) = (after(query)?, query.limit()?);
    let kinds = query.get("types").map(kinds).transpose()?;
    let wanted = EventQuery { client: call.only(query.get("client"))?, after, limit, kinds, job };
    let EventPage { events, read, has_more } = call.service.events(call.caller()?, wanted).await?;
    let filters: String = ["types", "job_id", "client"].into_iter().fold(String::new(), |filters, name| {
        let value = query.get(name).map(|value| format!("&{name}={value}"));
        filters + &value.unwrap_or_default()
    });
    let at = |after: u64| format!("{path}?after={after}&limit={limit}{filters}");
    let mut links = LinkBuilder::new(call.reader()).get("self", &at(after)).get("next", &at(read));
    if let Some(job) = job {
        links = links.get("job", &format!("/v1/jobs/{job}"));
    }
    Ok(json(&Feed {
        items: events.iter().map(EventView::new).collect(),
        page: PageInfo { limit, has_more },
        links: links.build(),
    }))
}

/// Names separated by commas: those of events, which are not to be changed in a link.
fn kinds(text: &str) -> Result<Vec<EventKind>, Problem> {
    let kind = |name: &str| EventKind::ALL.into_iter().find(|kind| kind.as_str() == name);
    let known = || EventKind::ALL.map(EventKind::as_str).join(", ");
    text.split(',').map(|name| kind(name).ok_or_else(|| invalid("types", "unknown", known()))).collect()
}

fn after(query: &Query) -> Result<u64, Problem> {
    query
        .get("after")
        .map_or(Ok(0), str::parse)
        .map_err(|_| invalid("after", "not_a_number", "the seq of the last event you have"))
}
