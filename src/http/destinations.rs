//! Destinations: whether they are well, and what is held back.

use warp::reply::Response;

use super::page::Page;
use super::problem::{Code, Problem};
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use crate::domain::id::DestinationId;
use crate::service::deliveries::DestinationStatus;
use crate::service::view::{DestinationView, LinkBuilder, Reader};

/// `GET /v1/destinations`
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["limit", "cursor", "client"])?;
    let page = Page::of("/v1/destinations", &query, &["client"])?;
    let only = call.only(query.get("client"))?;
    let after = page.id()?.map(DestinationId::from_bytes);
    let (found, next) = call.service.destinations(call.caller()?, only.as_ref(), after, page.limit).await?;
    let items = found.iter().map(|status| view(status, call.reader())).collect();
    let next = next.as_ref().map(|id| &id.as_bytes()[..]);
    Ok(page.answer(items, next, LinkBuilder::new(call.reader())))
}

/// `GET /v1/destinations/{id}`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let status = call.service.destination(call.caller()?, id(&call)?).await?;
    Ok(represent(&call, &status))
}

/// `POST /v1/destinations/{id}/pause`
pub(super) async fn pause(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let status = call.service.pause_destination(call.caller()?, id(&call)?).await?;
    Ok(represent(&call, &status))
}

/// `POST /v1/destinations/{id}/resume`
pub(super) async fn resume(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let status = call.service.resume_destination(call.caller()?, id(&call)?).await?;
    Ok(represent(&call, &status))
}

fn represent(call: &Call, status: &DestinationStatus) -> Response {
    json(&view(status, call.reader()))
}

fn view(status: &DestinationStatus, reader: Reader<'_>) -> DestinationView {
    DestinationView::new(&status.destination, Some(status), reader)
}

fn id(call: &Call) -> Result<DestinationId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such destination"))
}
