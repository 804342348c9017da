//! Trying a callback before it matters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::reply::Response;

use super::problem::Problem;
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use crate::domain::delivery::ErrorClass;
use crate::domain::id::EventId;
use crate::service::trial::Trial;
use crate::service::view::{AttemptView, LinkBuilder, Links};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CallbackTrial)]
pub(super) struct Request {
    url: String,
    /// Signs instead of the client's.
    secret: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CallbackTrialResult)]
pub(super) struct Answer {
    url: String,
    guard: GuardView,
    /// What was sent, if the guard let it.
    sent: Option<SentView>,
    attempt: Option<AttemptView>,
    delivered: bool,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GuardVerdict)]
struct GuardView {
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SentEvent)]
struct SentView {
    #[schema(value_type = EventId)]
    webhook_id: String,
    webhook_timestamp: i64,
    body: String,
}

/// `POST /v1/callbacks/test`: one signed event of the type `callback.test`, and what became of it. Nothing of it is kept.
pub(super) async fn test(mut call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let Request { url, secret } = call.body.json().await?;
    let Trial { refused, sent } =
        call.service.try_callback(&call.caller()?.client, &url, secret.as_deref()).await?;
    // What a name leads to is known when it is looked up, at the attempt.
    let blocked = sent.as_ref().and_then(|sent| sent.attempt.error.as_ref());
    let blocked = blocked.filter(|failure| failure.class == ErrorClass::BlockedAddress);
    let guard = GuardView {
        allowed: refused.is_none() && blocked.is_none(),
        reason: refused.as_ref().map(|refused| refused.reason()).or(blocked.map(|_| "resolved_address")),
        detail: refused.as_ref().map(ToString::to_string).or(blocked.map(|failure| failure.detail.clone())),
    };
    let attempt = sent.as_ref().map(|sent| AttemptView::new(&sent.attempt));
    Ok(json(&Answer {
        url,
        guard,
        delivered: sent.as_ref().is_some_and(|sent| sent.attempt.error.is_none()),
        attempt,
        sent: sent.map(|sent| SentView {
            webhook_id: sent.id,
            webhook_timestamp: sent.timestamp,
            body: sent.body,
        }),
        links: LinkBuilder::new(call.reader()).get("root", "/").build(),
    }))
}
