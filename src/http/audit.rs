//! What operators did.

use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::page::Page;
use super::problem::Problem;
use super::query::Query;
use super::resource::Call;
use crate::domain::client::ClientId;
use crate::domain::id::AuditId;
use crate::service::audit::AuditEntry;
use crate::service::view::{LinkBuilder, time};

/// Something that an operator did.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub(super) struct EntryView {
    #[schema(value_type = AuditId)]
    id: String,
    #[schema(format = "date-time")]
    at: String,
    #[schema(value_type = ClientId)]
    client: String,
    /// Method and route; its parameters have their names.
    action: String,
    /// The path and its query, or the path of what was made.
    target: String,
    request_id: String,
    /// The HTTP status that came of it; none for what is under way, and for what the process did not survive.
    status: Option<u16>,
}

impl EntryView {
    fn new(entry: &AuditEntry) -> Self {
        let AuditEntry { id, at, client, action, target, request_id, status } = entry.clone();
        let (id, at, client) = (id.to_string(), time(at), client.as_str().to_owned());
        Self { id, at, client, action, target, request_id, status }
    }
}

/// `GET /v1/audit`: newest first.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["limit", "cursor"])?;
    let page = Page::of("/v1/audit", &query, &[])?;
    let before = page.id()?.map(AuditId::from_bytes);
    let mut found = call.service.audit_entries(before, page.limit.saturating_add(1)).await?;
    let has_more = found.len() > page.limit;
    found.truncate(page.limit);
    let next = found.last().filter(|_| has_more).map(|last| last.id);
    let items = found.iter().map(EntryView::new).collect();
    Ok(page.answer(items, next.as_ref().map(|id| &id.as_bytes()[..]), LinkBuilder::new(call.reader())))
}
