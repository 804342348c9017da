//! One-time tickets, for pages in browsers: what opens an event stream or a picture there sends no headers.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::problem::Problem;
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use crate::service::tickets::Ticket;
use crate::service::view::time;

/// Stands for an API key, once.
#[derive(Serialize, ToSchema)]
#[schema(as = Ticket)]
pub(super) struct TicketView {
    /// Here, and nowhere else afterwards.
    ticket: String,
    #[schema(format = "date-time")]
    expires_at: String,
}

/// `POST /v1/tickets`
pub(super) async fn create(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let Ticket { text, expires_at } = call.service.ticket(call.caller()?)?;
    let mut response = json(&TicketView { ticket: text, expires_at: time(expires_at) });
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}
