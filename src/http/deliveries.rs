//! Deliveries and their attempts: what became of a callback.

use serde::Serialize;
use warp::reply::Response;

use super::jobs::job_id;
use super::problem::{Code, Problem};
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use crate::domain::client::ClientId;
use crate::domain::id::DeliveryId;
use crate::service::view::{AttemptView, DeliveryView, LinkBuilder, Links};

#[derive(Serialize)]
struct List<T> {
    items: Vec<T>,
    #[serde(rename = "_links")]
    links: Links,
}

/// `GET /v1/jobs/{id}/deliveries`
pub(super) async fn of_job(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let job = job_id(&call)?;
    let base = &call.service.settings().base_url;
    let deliveries = call.service.deliveries_of(&ClientId::dev(), job).await?;
    let path = format!("/v1/jobs/{job}");
    Ok(json(&List {
        items: deliveries.iter().map(|delivery| DeliveryView::new(delivery, base)).collect(),
        links: LinkBuilder::new(base).get("self", &format!("{path}/deliveries")).get("job", &path).build(),
    }))
}

/// `GET /v1/deliveries/{id}`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let delivery = call.service.delivery(&ClientId::dev(), id(&call)?).await?;
    Ok(json(&DeliveryView::new(&delivery, &call.service.settings().base_url)))
}

/// `GET /v1/deliveries/{id}/attempts`
pub(super) async fn attempts(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let id = id(&call)?;
    let attempts = call.service.attempts_of(&ClientId::dev(), id).await?;
    let path = format!("/v1/deliveries/{id}");
    let links = LinkBuilder::new(&call.service.settings().base_url);
    Ok(json(&List {
        items: attempts.iter().map(AttemptView::new).collect(),
        links: links.get("self", &format!("{path}/attempts")).get("delivery", &path).build(),
    }))
}

fn id(call: &Call) -> Result<DeliveryId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such delivery"))
}
