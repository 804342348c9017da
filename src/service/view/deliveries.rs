//! Deliveries, their attempts, destinations and replays.

use serde::Serialize;
use utoipa::ToSchema;

use super::{LinkBuilder, Links, Reader, schema, time};
use crate::domain::delivery::{
    Attempt, Delivery, DeliveryState, ErrorClass, Failure, Fault, ResponseHead, Timings, Trigger,
};
use crate::domain::destination::{Destination, HoldReason, Standing};
use crate::domain::event::EventKind;
use crate::domain::id::{DeliveryId, DestinationId, EventId, JobId, ReplayId};
use crate::domain::replay::{Replay, ReplayItem, ReplayState};
use crate::store::DestinationStatus;

/// A delivery.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub struct DeliveryView {
    #[schema(value_type = DeliveryId)]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client: Option<String>,
    #[schema(value_type = EventId)]
    event_id: String,
    #[schema(value_type = EventKind)]
    event_type: &'static str,
    #[schema(value_type = JobId)]
    job_id: String,
    #[schema(schema_with = schema::channel)]
    channel: &'static str,
    destination: String,
    #[schema(value_type = DestinationId)]
    destination_id: String,
    #[schema(format = "uri")]
    url: String,
    #[schema(value_type = DeliveryState)]
    state: &'static str,
    /// Why nothing may be sent although it is due. Not part of an event, which never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Standing, nullable = false)]
    pub(in crate::service) destination_state: Option<&'static str>,
    attempt_count: u32,
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    last_error: Option<FailureView>,
    last_status_code: Option<u16>,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Failure)]
struct FailureView {
    #[schema(value_type = ErrorClass)]
    class: &'static str,
    #[schema(value_type = Fault)]
    fault: &'static str,
    detail: String,
}

impl DeliveryView {
    /// The delivery, for this reader.
    #[must_use]
    pub fn new(delivery: &Delivery, reader: Reader<'_>) -> Self {
        Self {
            id: delivery.id.to_string(),
            client: reader.owner(&delivery.client),
            event_id: delivery.event_id.to_string(),
            event_type: delivery.event_kind.as_str(),
            job_id: delivery.job_id.to_string(),
            channel: "webhook",
            destination: delivery.destination(),
            url: delivery.url.to_string(),
            destination_id: delivery.destination_id().to_string(),
            state: delivery.state.as_str(),
            destination_state: None,
            attempt_count: delivery.attempt_count,
            next_attempt_at: delivery.next_attempt_at.map(time),
            last_error: delivery.last_error.as_ref().map(failure_view),
            last_status_code: delivery.last_status_code,
            created_at: time(delivery.created_at),
            finished_at: delivery.finished_at.map(time),
            links: delivery_links(delivery, reader),
        }
    }
}

fn delivery_links(delivery: &Delivery, reader: Reader<'_>) -> Links {
    let path = format!("/v1/deliveries/{}", delivery.id);
    let mut links = LinkBuilder::new(reader)
        .get("self", &path)
        .get("collection", "/v1/deliveries")
        .get("job", &format!("/v1/jobs/{}", delivery.job_id))
        .get("destination", &format!("/v1/destinations/{}", delivery.destination_id()))
        .get("attempts", &format!("{path}/attempts"));
    if delivery.state == DeliveryState::Pending {
        links = links.post("cancel", &format!("{path}/cancel"));
    }
    // One that arrived is sent again by force only, which no link invites to.
    if matches!(delivery.state, DeliveryState::Pending | DeliveryState::Exhausted | DeliveryState::Cancelled)
    {
        links = links.post("replay", &format!("{path}/replay"));
    }
    links.build()
}

/// A destination.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Destination)]
pub struct DestinationView {
    #[schema(value_type = DestinationId)]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client: Option<String>,
    origin: String,
    #[schema(value_type = Standing)]
    state: &'static str,
    #[schema(format = DateTime)]
    created_at: String,
    /// When the state began, for those that are held or suspended.
    #[schema(format = DateTime)]
    held_since: Option<String>,
    #[schema(format = DateTime)]
    open_until: Option<String>,
    #[schema(format = DateTime)]
    failing_since: Option<String>,
    failures: u32,
    last_error: Option<FailureView>,
    #[schema(format = DateTime)]
    last_success_at: Option<String>,
    #[serde(flatten)]
    traffic: Option<TrafficView>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Traffic)]
struct TrafficView {
    in_flight: u32,
    in_flight_limit: u32,
    waiting: usize,
    /// Whether more wait than were counted.
    waiting_has_more: bool,
}

impl DestinationView {
    /// The destination, for this reader; events tell nothing of its traffic.
    #[must_use]
    pub fn new(destination: &Destination, status: Option<&DestinationStatus>, reader: Reader<'_>) -> Self {
        let path = format!("/v1/destinations/{}", destination.id);
        let mut links = LinkBuilder::new(reader).get("self", &path).get("collection", "/v1/destinations");
        links = links.get("deliveries", &format!("/v1/deliveries?destination={}", destination.id));
        if destination.hold.is_none_or(|hold| hold.reason != HoldReason::Paused) {
            links = links.post("pause", &format!("{path}/pause"));
        }
        if destination.hold.is_some() || destination.open.is_some() {
            links = links.post("resume", &format!("{path}/resume"));
        }
        Self {
            id: destination.id.to_string(),
            client: reader.owner(&destination.client),
            origin: destination.origin.clone(),
            state: destination.standing().as_str(),
            created_at: time(destination.created_at),
            held_since: destination.hold.map(|hold| hold.since).or(destination.suspended_at).map(time),
            open_until: destination.open.map(|open| time(open.until)),
            failing_since: destination.failing_since.map(time),
            failures: destination.failures,
            last_error: destination.last_failure.as_ref().map(failure_view),
            last_success_at: destination.last_success_at.map(time),
            traffic: status.map(|status| TrafficView {
                in_flight: status.in_flight,
                in_flight_limit: status.in_flight_limit,
                waiting: status.waiting,
                waiting_has_more: status.waiting >= DestinationStatus::COUNTED,
            }),
            links: links.build(),
        }
    }
}

/// A replay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub struct ReplayView {
    #[schema(value_type = ReplayId)]
    id: String,
    /// Who started it.
    client: String,
    #[schema(value_type = ReplayState)]
    state: &'static str,
    filter: ReplayFilterView,
    rate_per_second: u32,
    force: bool,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    matched: u64,
    matched_has_more: bool,
    taken: u64,
    done: u64,
    delivered: u64,
    failed: u64,
    skipped: u64,
    taken_over: u64,
    no_longer_matching: Option<u64>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayFilter)]
struct ReplayFilterView {
    client: Option<String>,
    state: String,
    #[schema(value_type = Option<DestinationId>)]
    destination: Option<String>,
    #[schema(value_type = Option<EventKind>)]
    event_type: Option<&'static str>,
    #[schema(value_type = Option<JobId>)]
    job_id: Option<String>,
    #[schema(value_type = Option<ErrorClass>)]
    error_class: Option<&'static str>,
    status_code: Option<u16>,
    #[schema(format = DateTime)]
    since: Option<String>,
    #[schema(format = DateTime)]
    until: Option<String>,
}

impl ReplayView {
    /// The replay, for this reader.
    #[must_use]
    pub fn new(replay: &Replay, reader: Reader<'_>) -> Self {
        let path = format!("/v1/replays/{}", replay.id);
        let mut links = LinkBuilder::new(reader).get("self", &path).get("collection", "/v1/replays");
        links = links.get("items", &format!("{path}/items"));
        links = links.get("deliveries", &format!("/v1/deliveries?replay_id={}", replay.id));
        links = match replay.state {
            ReplayState::Running => links.post("pause", &format!("{path}/pause")),
            ReplayState::Paused => links.post("resume", &format!("{path}/resume")),
            ReplayState::Finished | ReplayState::Cancelled => links,
        };
        if matches!(replay.state, ReplayState::Running | ReplayState::Paused) {
            links = links.post("cancel", &format!("{path}/cancel"));
        }
        let filter = &replay.filter;
        let states: Vec<_> = filter.states.iter().map(|state| state.as_str()).collect();
        Self {
            id: replay.id.to_string(),
            client: replay.client.as_str().to_owned(),
            state: replay.state.as_str(),
            filter: ReplayFilterView {
                client: replay.only.as_ref().map(|client| client.as_str().to_owned()),
                state: states.join(","),
                destination: filter.destination.map(|id| id.to_string()),
                event_type: filter.kind.map(EventKind::as_str),
                job_id: filter.job.map(|id| id.to_string()),
                error_class: filter.error_class.map(ErrorClass::as_str),
                status_code: filter.status_code,
                since: filter.since.map(time),
                until: filter.until.map(time),
            },
            rate_per_second: replay.rate_per_second,
            force: replay.force,
            created_at: time(replay.created_at),
            finished_at: replay.finished_at.map(time),
            matched: replay.matched,
            matched_has_more: replay.matched_has_more,
            taken: replay.taken,
            done: replay.done(),
            delivered: replay.delivered,
            failed: replay.failed,
            skipped: replay.skipped,
            taken_over: replay.taken_over,
            no_longer_matching: replay.no_longer_matching(),
            links: links.build(),
        }
    }
}

/// One delivery of a replay.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayItem)]
pub struct ReplayItemView {
    number: u64,
    #[schema(value_type = DeliveryId)]
    delivery_id: String,
    #[schema(value_type = DeliveryState)]
    was: &'static str,
    #[schema(schema_with = schema::replay_result)]
    result: &'static str,
    last_status_code: Option<u16>,
    last_error: Option<FailureView>,
    #[serde(rename = "_links")]
    links: Links,
}

impl ReplayItemView {
    /// The item, with its delivery as that is now, for this reader.
    #[must_use]
    pub fn new(replay: ReplayId, item: &ReplayItem, delivery: Option<&Delivery>, reader: Reader<'_>) -> Self {
        let result = match delivery {
            _ if !item.is_sent => "skipped",
            None => "gone",
            // Somebody has sent it again since.
            Some(delivery) if delivery.replay != Some(replay) => "taken_over",
            Some(delivery) => delivery.state.as_str(),
        };
        let path = format!("/v1/deliveries/{}", item.delivery);
        Self {
            number: item.number,
            delivery_id: item.delivery.to_string(),
            was: item.was.as_str(),
            result,
            last_status_code: delivery.and_then(|delivery| delivery.last_status_code),
            last_error: delivery.and_then(|delivery| delivery.last_error.as_ref()).map(failure_view),
            links: LinkBuilder::new(reader).get("delivery", &path).build(),
        }
    }
}

fn failure_view(failure: &Failure) -> FailureView {
    FailureView {
        class: failure.class.as_str(),
        fault: failure.fault.as_str(),
        detail: failure.detail.clone(),
    }
}

/// An attempt.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Attempt)]
pub struct AttemptView {
    number: u32,
    #[schema(value_type = Trigger)]
    trigger: &'static str,
    #[schema(format = DateTime)]
    started_at: String,
    duration_ms: u64,
    timings_ms: TimingsView,
    remote_addr: Option<String>,
    status_code: Option<u16>,
    response: Option<ResponseView>,
    error: Option<FailureView>,
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
}

/// Milliseconds with three decimals.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Timings)]
struct TimingsView {
    dns: Option<f64>,
    connect: Option<f64>,
    tls: Option<f64>,
    ttfb: Option<f64>,
    body: Option<f64>,
}

impl TimingsView {
    fn new(timings: Timings) -> Self {
        let ms = |us: Option<u32>| us.map(|us| f64::from(us) / 1000.0);
        let Timings { dns_us, connect_us, tls_us, ttfb_us, body_us } = timings;
        Self {
            dns: ms(dns_us),
            connect: ms(connect_us),
            tls: ms(tls_us),
            ttfb: ms(ttfb_us),
            body: ms(body_us),
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReceiverAnswer)]
struct ResponseView {
    #[schema(schema_with = schema::header_pairs)]
    headers: Vec<(String, String)>,
    body: String,
    truncated: bool,
}

impl AttemptView {
    /// The attempt.
    #[must_use]
    pub fn new(attempt: &Attempt) -> Self {
        Self {
            number: attempt.number,
            trigger: attempt.trigger.as_str(),
            started_at: time(attempt.started_at),
            duration_ms: attempt.duration_ms,
            timings_ms: TimingsView::new(attempt.timings),
            remote_addr: attempt.remote_addr.map(|address| address.to_string()),
            status_code: attempt.response.as_ref().map(|response| response.status),
            response: attempt.response.as_ref().map(response_view),
            error: attempt.error.as_ref().map(failure_view),
            next_attempt_at: attempt.next_attempt_at.map(time),
        }
    }
}

fn response_view(response: &ResponseHead) -> ResponseView {
    let ResponseHead { headers, body, truncated, .. } = response.clone();
    ResponseView { headers, body, truncated }
}
