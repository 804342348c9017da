//! Destinations: whether they are well, and what is held back.

use serde::Serialize;
use warp::reply::Response;

use super::problem::{Code, Problem};
use super::query::{Query, invalid};
use super::represent::{PageInfo, json};
use super::resource::Call;
use crate::domain::client::ClientId;
use crate::domain::id::DestinationId;
use crate::service::deliveries::DestinationStatus;
use crate::service::view::{DestinationView, LinkBuilder, Links};

#[derive(Serialize)]
struct List {
    items: Vec<DestinationView>,
    page: PageInfo,
    #[serde(rename = "_links")]
    links: Links,
}

/// `GET /v1/destinations`
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["limit", "cursor"])?;
    let limit = query.limit()?;
    let bad = |_| invalid("cursor", "not_a_cursor", "the next_cursor of the page before");
    let after = query.get("cursor").map(|cursor| cursor.parse().map_err(bad)).transpose()?;
    let (found, next) = call.service.destinations(&ClientId::dev(), after, limit).await?;
    let base = &call.service.settings().base_url;
    let mut links = LinkBuilder::new(base).get("self", "/v1/destinations");
    if let Some(next) = next {
        links = links.get("next", &format!("/v1/destinations?limit={limit}&cursor={next}"));
    }
    Ok(json(&List {
        items: found.iter().map(|status| view(status, base)).collect(),
        page: PageInfo::new(limit, next.map(|next| next.to_string())),
        links: links.build(),
    }))
}

/// `GET /v1/destinations/{id}`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let status = call.service.destination(&ClientId::dev(), id(&call)?).await?;
    Ok(represent(&call, &status))
}

/// `POST /v1/destinations/{id}/pause`
pub(super) async fn pause(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let status = call.service.pause_destination(&ClientId::dev(), id(&call)?).await?;
    Ok(represent(&call, &status))
}

/// `POST /v1/destinations/{id}/resume`
pub(super) async fn resume(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let status = call.service.resume_destination(&ClientId::dev(), id(&call)?).await?;
    Ok(represent(&call, &status))
}

fn represent(call: &Call, status: &DestinationStatus) -> Response {
    json(&view(status, &call.service.settings().base_url))
}

fn view(status: &DestinationStatus, base: &str) -> DestinationView {
    DestinationView::new(&status.destination, Some(status), base)
}

fn id(call: &Call) -> Result<DestinationId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such destination"))
}
