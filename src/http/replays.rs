//! Replays: many deliveries sent again.

use http::StatusCode;
use http::header::LOCATION;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use warp::reply::Response;

use super::deliveries::filter;
use super::document;
use super::jobs::idempotency_key;
use super::page::Page;
use super::problem::{Code, Problem};
use super::query::{Query, invalid};
use super::represent::{insert, json};
use super::resource::Call;
use crate::domain::client::ClientId;
use crate::domain::delivery::{DeliveryState, ErrorClass};
use crate::domain::id::{JobId, ReplayId};
use crate::service::replays::{Replay, ReplayAction, ReplayFilter, Wanted};
use crate::service::view::{DeliveryView, LinkBuilder, Links, ReplayItemView, ReplayView};

const DEFAULT_RATE: u32 = 50;
const MAX_RATE: u32 = 10_000;

/// What a client asks for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewReplay)]
pub(super) struct Request {
    #[serde(deserialize_with = "object")]
    filter: Filter,
    #[serde(default = "default_rate")]
    #[schema(minimum = 1, maximum = 10_000, default = 50)]
    rate_per_second: u32,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// By name alone: members in an order are nothing that somebody means.
fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    let text = Box::<RawValue>::deserialize(deserializer)?;
    if !text.get().starts_with('{') {
        return Err(D::Error::custom("an object is expected"));
    }
    serde_json::from_str(text.get()).map_err(D::Error::custom)
}

fn default_rate() -> u32 {
    DEFAULT_RATE
}

/// As for a list of deliveries.
#[derive(Deserialize, Default, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = DeliveryFilter)]
pub(super) struct Filter {
    client: Option<String>,
    #[schema(schema_with = document::filter_state)]
    state: Option<String>,
    destination: Option<String>,
    #[schema(schema_with = document::filter_event)]
    event_type: Option<String>,
    #[schema(value_type = Option<JobId>)]
    job_id: Option<String>,
    #[schema(value_type = Option<ErrorClass>)]
    error_class: Option<String>,
    #[schema(minimum = 100, maximum = 999)]
    status_code: Option<u16>,
    #[schema(format = DateTime)]
    since: Option<String>,
    #[schema(format = DateTime)]
    until: Option<String>,
}

impl Filter {
    fn read(&self, call: &Call, force: bool) -> Result<(Option<ClientId>, ReplayFilter), Problem> {
        let status_code = self.status_code.map(|code| code.to_string());
        let query = filter(call, |name| match name {
            "client" => self.client.as_deref(),
            // What was given up, unless something else is asked for.
            "state" => Some(self.state.as_deref().unwrap_or(DeliveryState::Exhausted.as_str())),
            "destination" => self.destination.as_deref(),
            "event_type" => self.event_type.as_deref(),
            "job_id" => self.job_id.as_deref(),
            "error_class" => self.error_class.as_deref(),
            "status_code" => status_code.as_deref(),
            "since" => self.since.as_deref(),
            "until" => self.until.as_deref(),
            _ => None,
        })?;
        let mut states = query.states;
        if states.contains(&DeliveryState::Delivered) && !force {
            return Err(invalid(
                "filter.state",
                "needs_force",
                "what was delivered is sent again with force only",
            ));
        }
        // One whose attempt is under way cannot be hurried.
        states.retain(|state| *state != DeliveryState::Sending);
        if states.is_empty() {
            return Err(invalid(
                "filter.state",
                "unknown",
                "an attempt that is under way cannot be repeated",
            ));
        }
        let filter = ReplayFilter {
            states,
            destination: query.destination,
            kind: query.kind,
            job: query.job,
            error_class: query.error_class,
            status_code: query.status_code,
            since: query.since,
            until: query.until,
        };
        Ok((query.client, filter))
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = ReplayDryRun)]
pub(super) struct DryRun {
    dry_run: bool,
    matched: u64,
    matched_has_more: bool,
    sample: Vec<DeliveryView>,
    #[serde(rename = "_links")]
    links: Links,
}

/// `POST /v1/replays`
pub(super) async fn start(mut call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let header_key = idempotency_key(&call.headers)?;
    let request: Request = call.body.json().await?;
    let (only, filter) = request.filter.read(&call, request.force)?;
    if !(1..=MAX_RATE).contains(&request.rate_per_second) {
        return Err(invalid("rate_per_second", "out_of_range", format!("from 1 to {MAX_RATE}")));
    }
    if request.dry_run {
        let matched = call.service.match_replay(only.as_ref(), &filter).await?;
        return Ok(json(&DryRun {
            dry_run: true,
            matched: matched.count,
            matched_has_more: matched.has_more,
            sample: matched
                .sample
                .iter()
                .map(|delivery| call.service.view_delivery(delivery, call.reader()))
                .collect(),
            links: LinkBuilder::new(call.reader()).post("start", "/v1/replays").build(),
        }));
    }
    let key_is_fine = |key: &String| (1..=255).contains(&key.len());
    if request.idempotency_key.as_ref().is_some_and(|key| !key_is_fine(key)) {
        return Err(Problem::of(Code::InvalidIdempotencyKey));
    }
    if header_key.is_some()
        && request.idempotency_key.as_ref().is_some_and(|own| Some(own) != header_key.as_ref())
    {
        return Err(invalid(
            "idempotency_key",
            "contradictory",
            "another one than the header Idempotency-Key",
        ));
    }
    let wanted = Wanted {
        only,
        filter,
        rate_per_second: request.rate_per_second,
        force: request.force,
        idempotency_key: header_key.or(request.idempotency_key),
    };
    let (replay, is_new) = call.service.start_replay(call.caller()?, wanted).await?;
    let mut response = represent(&call, &replay);
    *response.status_mut() = StatusCode::ACCEPTED;
    if !is_new {
        insert(response.headers_mut(), super::jobs::IDEMPOTENCY_REPLAYED, "true");
    }
    insert(response.headers_mut(), LOCATION, &format!("{}/v1/replays/{}", call.reader().base(), replay.id));
    Ok(response)
}

/// `GET /v1/replays`
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["limit", "cursor"])?;
    let page = Page::of("/v1/replays", &query, &[])?;
    let before = page.id()?.map(ReplayId::from_bytes);
    let (replays, next) = call.service.replays(call.caller()?, before, page.limit).await?;
    let items = replays.iter().map(|replay| ReplayView::new(replay, call.reader())).collect();
    let next = next.as_ref().map(|id| &id.as_bytes()[..]);
    Ok(page.answer(items, next, LinkBuilder::new(call.reader()).post("create", "/v1/replays")))
}

/// `GET /v1/replays/{id}`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let replay = call.service.replay(call.caller()?, id(&call)?).await?;
    Ok(represent(&call, &replay))
}

/// `GET /v1/replays/{id}/items`
pub(super) async fn items(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["limit", "cursor"])?;
    let id = id(&call)?;
    let replay = format!("/v1/replays/{id}");
    let path = format!("{replay}/items");
    let page = Page::of(&path, &query, &[])?;
    let from = page.place()?.and_then(|place| place.try_into().ok()).map_or(0, u64::from_be_bytes);
    let mut items = call.service.replay_items(call.caller()?, id, from, page.limit + 1).await?;
    let next = items.get(page.limit).map(|(item, _)| item.number.to_be_bytes());
    items.truncate(page.limit);
    let reader = call.reader();
    let items = items.iter().map(|(item, delivery)| ReplayItemView::new(id, item, delivery.as_ref(), reader));
    let links = LinkBuilder::new(call.reader()).get("replay", &replay);
    Ok(page.answer(items.collect(), next.as_ref().map(|number| &number[..]), links))
}

/// `POST /v1/replays/{id}/pause`
pub(super) async fn pause(call: Call) -> Result<Response, Problem> {
    change(call, ReplayAction::Pause).await
}

/// `POST /v1/replays/{id}/resume`
pub(super) async fn resume(call: Call) -> Result<Response, Problem> {
    change(call, ReplayAction::Resume).await
}

/// `POST /v1/replays/{id}/cancel`: what it has sent again goes on.
pub(super) async fn cancel(call: Call) -> Result<Response, Problem> {
    change(call, ReplayAction::Cancel).await
}

async fn change(call: Call, action: ReplayAction) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let replay = call.service.change_replay(call.caller()?, id(&call)?, action).await?;
    Ok(represent(&call, &replay))
}

fn represent(call: &Call, replay: &Replay) -> Response {
    json(&ReplayView::new(replay, call.reader()))
}

fn id(call: &Call) -> Result<ReplayId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such replay"))
}
