//! The queue: how much waits, and whether it is paused.

use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::document;
use super::problem::Problem;
use super::query::{Query, invalid};
use super::represent::json;
use super::resource::Call;
use crate::service::Service;
use crate::service::lifecycle::Paused;
use crate::service::view::{LinkBuilder, Links};

#[derive(Serialize, ToSchema)]
pub(super) struct Queue {
    waiting: u64,
    capacity: u64,
    fetches: Fetches,
    paused: PausedView,
    imaging: Imaging,
    #[serde(rename = "_links")]
    links: Links,
}

/// Jobs whose picture is still to be fetched.
#[derive(Serialize, ToSchema)]
struct Fetches {
    waiting: u64,
    capacity: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Paused)]
struct PausedView {
    intake: bool,
    work: bool,
}

/// Where pictures are worked on.
#[derive(Serialize, ToSchema)]
struct Imaging {
    /// `process` or `thread`
    #[schema(schema_with = document::isolation)]
    isolation: &'static str,
    /// What keeps the processes in, and what this system lacks of that.
    walls: Vec<&'static str>,
    missing: Vec<&'static str>,
    memory: Memory,
}

/// In bytes.
#[derive(Serialize, ToSchema)]
struct Memory {
    used: u64,
    budget: u64,
}

impl Imaging {
    fn of(service: &Service) -> Self {
        let imaging = service.imaging();
        let named = |wanted| {
            let walls = imaging.walls.iter().flatten().filter(move |(_, stands)| *stands == wanted);
            walls.map(|(wall, _)| *wall).collect()
        };
        Self {
            isolation: if imaging.walls.is_some() { "process" } else { "thread" },
            walls: named(true),
            missing: named(false),
            memory: Memory { used: imaging.memory.0, budget: imaging.memory.1 },
        }
    }
}

/// `GET /v1/queue`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    Ok(represent(&call))
}

/// `POST /v1/queue/pause?what=intake|work`: both, unless one is named.
pub(super) async fn pause(call: Call) -> Result<Response, Problem> {
    set(call, true).await
}

/// `POST /v1/queue/resume?what=intake|work`: both, unless one is named.
pub(super) async fn resume(call: Call) -> Result<Response, Problem> {
    set(call, false).await
}

async fn set(call: Call, to: bool) -> Result<Response, Problem> {
    let mut paused = call.service.paused();
    match Query::parse(&call.query, &["what"])?.get("what") {
        None => paused = Paused { intake: to, work: to },
        Some("intake") => paused.intake = to,
        Some("work") => paused.work = to,
        Some(_) => return Err(invalid("what", "unknown", "intake or work")),
    }
    call.service.set_paused(paused).await?;
    Ok(represent(&call))
}

fn represent(call: &Call) -> Response {
    let paused = call.service.paused();
    let mut links = LinkBuilder::new(call.reader()).get("self", "/v1/queue");
    if !(paused.intake && paused.work) {
        links = links.post("pause", "/v1/queue/pause");
    }
    if paused.intake || paused.work {
        links = links.post("resume", "/v1/queue/resume");
    }
    let (waiting, settings) = (call.service.waiting(), call.service.settings());
    json(&Queue {
        waiting: waiting.work,
        capacity: settings.queue_capacity,
        fetches: Fetches { waiting: waiting.fetches, capacity: settings.source_capacity },
        paused: PausedView { intake: paused.intake, work: paused.work },
        imaging: Imaging::of(&call.service),
        links: links.build(),
    })
}
