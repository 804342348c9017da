//! Deliveries and their attempts: what became of a callback.

use http::StatusCode;
use serde::Serialize;
use url::Url;
use utoipa::ToSchema;
use warp::reply::Response;

use super::jobs::job_id;
use super::page::Page;
use super::problem::{Code, Problem};
use super::query::{Query, invalid};
use super::represent::json;
use super::resource::Call;
use crate::domain::client::ClientId;
use crate::domain::delivery::{DeliveryState, ErrorClass};
use crate::domain::destination::Destination;
use crate::domain::event::EventKind;
use crate::domain::id::{DeliveryId, DestinationId};
use crate::service::deliveries::DeliveryQuery;
use crate::service::view::{AttemptView, LinkBuilder, Links};

#[derive(Serialize, ToSchema)]
pub(super) struct List<T> {
    items: Vec<T>,
    #[serde(rename = "_links")]
    links: Links,
}

/// The filters of a list of deliveries; links to other pages carry them on.
pub(super) const FILTERS: [&str; 10] = [
    "client",
    "state",
    "destination",
    "event_type",
    "job_id",
    "replay_id",
    "error_class",
    "status_code",
    "since",
    "until",
];

/// `GET /v1/deliveries`
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &[&["limit", "cursor"], &FILTERS[..]].concat())?;
    let page = Page::of("/v1/deliveries", &query, &FILTERS)?;
    let wanted =
        DeliveryQuery { cursor: page.place()?, limit: page.limit, ..filter(&call, |name| query.get(name))? };
    let found = call.service.deliveries(call.caller()?, wanted).await?;
    let items =
        found.deliveries.iter().map(|delivery| call.service.view_delivery(delivery, call.reader())).collect();
    Ok(page.answer(items, found.next.as_deref(), LinkBuilder::new(call.reader())))
}

/// The deliveries that these filters name; what is wrong with one is said of it.
pub(super) fn filter<'a>(
    call: &Call,
    get: impl Fn(&'static str) -> Option<&'a str>,
) -> Result<DeliveryQuery, Problem> {
    let client = call.only(get("client"))?;
    // An origin is another destination of each client: without one named, the caller's own is meant.
    let own = client.as_ref().unwrap_or(&call.caller()?.client);
    let time = |name: &'static str| {
        let detail = "a time as RFC 3339 has it, such as 2026-11-21T09:00:00Z";
        get(name).map(|text| text.parse().map_err(|_| invalid(name, "not_a_time", detail))).transpose()
    };
    let id = |name: &'static str| move |_| invalid(name, "not_an_id", "an id as answers have it");
    Ok(DeliveryQuery {
        states: get("state").map_or(Ok(Vec::new()), states)?,
        destination: get("destination").map(|text| destination(own, text)).transpose()?,
        kind: get("event_type").map(event_kind).transpose()?,
        job: get("job_id").map(|text| text.parse().map_err(|_| id("job_id")(()))).transpose()?,
        replay: get("replay_id").map(|text| text.parse().map_err(|_| id("replay_id")(()))).transpose()?,
        error_class: get("error_class").map(error_class).transpose()?,
        status_code: get("status_code").map(status_code).transpose()?,
        since: time("since")?,
        until: time("until")?,
        client,
        ..DeliveryQuery::default()
    })
}

fn states(text: &str) -> Result<Vec<DeliveryState>, Problem> {
    if text == "undelivered" {
        return Ok(vec![DeliveryState::Pending, DeliveryState::Sending, DeliveryState::Exhausted]);
    }
    let known = DeliveryState::ALL.map(DeliveryState::as_str).join(", ");
    let state = DeliveryState::ALL.into_iter().find(|state| state.as_str() == text);
    let unknown = || invalid("state", "unknown", format!("undelivered, {known}"));
    state.map(|state| vec![state]).ok_or_else(unknown)
}

/// Its id, or its origin: scheme, host and port.
fn destination(client: &ClientId, text: &str) -> Result<DestinationId, Problem> {
    let of_url = || {
        let url = Url::parse(text).ok().filter(Url::has_host)?;
        Some(Destination::id(client, &url))
    };
    let detail = "a destination's id, or its origin such as https://hooks.example";
    text.parse().ok().or_else(of_url).ok_or_else(|| invalid("destination", "not_a_destination", detail))
}

fn event_kind(text: &str) -> Result<EventKind, Problem> {
    let known = EventKind::OF_JOBS.map(EventKind::as_str).join(", ");
    EventKind::parse(text).ok_or_else(|| invalid("event_type", "unknown", known))
}

fn error_class(text: &str) -> Result<ErrorClass, Problem> {
    let known = ErrorClass::ALL.map(ErrorClass::as_str).join(", ");
    let class = ErrorClass::ALL.into_iter().find(|class| class.as_str() == text);
    class.ok_or_else(|| invalid("error_class", "unknown", known))
}

fn status_code(text: &str) -> Result<u16, Problem> {
    let code = text.parse().ok().filter(|code| (100..1000).contains(code));
    code.ok_or_else(|| invalid("status_code", "not_a_status", "a number of three digits"))
}

/// `POST /v1/deliveries/{id}/cancel`
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let delivery = call.service.cancel_delivery(call.caller()?, id(&call)?).await?;
    Ok(json(&call.service.view_delivery(&delivery, call.reader())))
}

/// `POST /v1/deliveries/{id}/replay?force=true|false`: it is sent in a moment, so this is accepted rather than done.
pub(super) async fn replay(call: Call) -> Result<Response, Problem> {
    let force = Query::parse(&call.query, &["force"])?.flag("force")?;
    let delivery = call.service.send_again(call.caller()?, id(&call)?, force).await?;
    let mut response = json(&call.service.view_delivery(&delivery, call.reader()));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

/// `GET /v1/jobs/{id}/deliveries`
pub(super) async fn of_job(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let job = job_id(&call)?;
    let deliveries = call.service.deliveries_of(call.caller()?, job).await?;
    let path = format!("/v1/jobs/{job}");
    Ok(json(&List {
        items: deliveries
            .iter()
            .map(|delivery| call.service.view_delivery(delivery, call.reader()))
            .collect(),
        links: LinkBuilder::new(call.reader())
            .get("self", &format!("{path}/deliveries"))
            .get("job", &path)
            .build(),
    }))
}

/// `GET /v1/deliveries/{id}`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let delivery = call.service.delivery(call.caller()?, id(&call)?).await?;
    Ok(json(&call.service.view_delivery(&delivery, call.reader())))
}

/// `GET /v1/deliveries/{id}/attempts`
pub(super) async fn attempts(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let id = id(&call)?;
    let attempts = call.service.attempts_of(call.caller()?, id).await?;
    let path = format!("/v1/deliveries/{id}");
    let links = LinkBuilder::new(call.reader());
    Ok(json(&List {
        items: attempts.iter().map(AttemptView::new).collect(),
        links: links.get("self", &format!("{path}/attempts")).get("delivery", &path).build(),
    }))
}

fn id(call: &Call) -> Result<DeliveryId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such delivery"))
}
