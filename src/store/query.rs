//! What is asked of a store, and what it answers: pages, and how things stand.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::client::ClientId;
use crate::domain::delivery::{Delivery, DeliveryConflict, DeliveryState, ErrorClass};
use crate::domain::destination::Destination;
use crate::domain::event::EventKind;
use crate::domain::id::{DestinationId, JobId, ReplayId};
use crate::domain::job::{Job, JobStatus};
use crate::domain::replay::{Replay, ReplayFilter};

/// Which jobs a page holds.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Only this client's.
    pub client: Option<ClientId>,
    /// Only those that stand here.
    pub status: Option<JobStatus>,
    /// Only those with this label.
    pub tag: Option<String>,
    /// Only those accepted later than this.
    pub created_after: Option<Timestamp>,
    /// Only those accepted earlier than this.
    pub created_before: Option<Timestamp>,
    /// Deleted ones too.
    pub include_deleted: bool,
    /// Only those older than this one: where the previous page ended.
    pub before: Option<JobId>,
    /// How many at most.
    pub limit: usize,
}

impl JobQuery {
    /// Whether a job is one of those asked for, whatever page it is on.
    #[must_use]
    pub fn matches(&self, job: &Job) -> bool {
        self.client.as_ref().is_none_or(|client| *client == job.client)
            && self.status.is_none_or(|status| status == job.status)
            && self.tag.as_ref().is_none_or(|tag| job.tags.contains(tag))
            && self.created_after.is_none_or(|time| job.created_at > time)
            && self.created_before.is_none_or(|time| job.created_at < time)
            && (self.include_deleted || job.deleted_at.is_none())
    }
}

/// How many jobs may be claimed to be fetched.
#[derive(Debug, Clone, Default)]
pub struct FetchRoom {
    /// In all, besides those that are under way.
    pub places: usize,
    /// Of one source at the same time, those under way included.
    pub per_source: usize,
    /// How many of which source are under way.
    pub taken: BTreeMap<DestinationId, usize>,
}

impl FetchRoom {
    /// Whether a source has as many as it may.
    #[must_use]
    pub fn is_full(&self, source: DestinationId) -> bool {
        self.taken.get(&source).is_some_and(|taken| *taken >= self.per_source)
    }

    /// One more of this source is under way.
    pub fn take(&mut self, source: DestinationId) {
        *self.taken.entry(source).or_default() += 1;
    }
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct JobPage {
    /// Newest first. There may be fewer than asked for although there are more: an engine looks at so many
    /// records for one page and no more.
    pub jobs: Vec<Job>,
    /// Where the next page begins, as its `before`; `None` on the last page.
    pub next: Option<JobId>,
}

/// Which deliveries a page holds.
#[derive(Debug, Clone, Default)]
pub struct DeliveryQuery {
    /// Only this client's.
    pub client: Option<ClientId>,
    /// Only those that stand at one of these; none is all.
    pub states: Vec<DeliveryState>,
    /// Only those to this destination.
    pub destination: Option<DestinationId>,
    /// Only those of events of this kind.
    pub kind: Option<EventKind>,
    /// Only those of this job.
    pub job: Option<JobId>,
    /// Only those that this replay has sent again.
    pub replay: Option<ReplayId>,
    /// Only those whose latest attempt failed so.
    pub error_class: Option<ErrorClass>,
    /// Only those whose latest attempt was answered so.
    pub status_code: Option<u16>,
    /// Only those made then or later.
    pub since: Option<Timestamp>,
    /// Only those made before then.
    pub until: Option<Timestamp>,
    /// Where the previous page ended.
    pub cursor: Option<Vec<u8>>,
    /// How many at most.
    pub limit: usize,
}

impl DeliveryQuery {
    /// Whether a delivery is one of those asked for, whatever page it is on.
    #[must_use]
    pub fn matches(&self, delivery: &Delivery) -> bool {
        let class = delivery.last_error.as_ref().map(|failure| failure.class);
        self.client.as_ref().is_none_or(|client| *client == delivery.client)
            && (self.states.is_empty() || self.states.contains(&delivery.state))
            && self.destination.is_none_or(|id| id == delivery.destination_id())
            && self.kind.is_none_or(|kind| kind == delivery.event_kind)
            && self.job.is_none_or(|job| job == delivery.job_id)
            && self.replay.is_none_or(|replay| Some(replay) == delivery.replay)
            && self.error_class.is_none_or(|wanted| Some(wanted) == class)
            && self.status_code.is_none_or(|code| Some(code) == delivery.last_status_code)
            && self.since.is_none_or(|time| delivery.created_at >= time)
            && self.until.is_none_or(|time| delivery.created_at < time)
    }

    /// Whether only those are asked for whose fate is open: what waits or is under way, and what has been given up.
    #[must_use]
    pub fn is_of_undelivered(&self) -> bool {
        let settled = [DeliveryState::Delivered, DeliveryState::Cancelled];
        !self.states.is_empty() && !self.states.iter().any(|state| settled.contains(state))
    }
}

/// A page of deliveries.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DeliveryPage {
    /// Newest first; if only those are asked for that were not delivered, first those that were given up, then those
    /// that have failed before, then those that are still to be tried, by destination. There may be fewer than asked
    /// for although there are more: an engine looks at so many records for one page and no more.
    pub deliveries: Vec<Delivery>,
    /// Where the next page begins, as its `cursor`; `None` on the last page.
    pub next: Option<Vec<u8>>,
}

/// What became of a replay that was to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartedReplay {
    /// A new one.
    Created(Replay),
    /// The key was seen before: this is the replay of then.
    Repeated(Replay),
    /// The key was seen before with another request.
    KeyReused,
}

/// What is done to a job that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// It is called off: a queued one is cancelled, a running one is asked to stop.
    Cancel,
    /// One that failed or was cancelled is queued again.
    Retry,
    /// It is hidden from lists until it is restored or purged, and cancelled unless it has ended.
    Delete,
    /// Its deletion is taken back.
    Restore,
}

/// What is done to a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayAction {
    /// It takes up no more until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It takes up no more.
    Cancel,
}

impl DeliveryQuery {
    /// The deliveries that a replay takes up.
    #[must_use]
    pub fn of_replay(only: Option<&ClientId>, filter: &ReplayFilter) -> Self {
        Self {
            client: only.cloned(),
            states: filter.states.clone(),
            destination: filter.destination,
            kind: filter.kind,
            job: filter.job,
            error_class: filter.error_class,
            status_code: filter.status_code,
            since: filter.since,
            until: filter.until,
            ..Self::default()
        }
    }

    /// The next deliveries that a replay takes up: none that came to be after it.
    pub(crate) fn next_of(replay: &Replay, limit: usize) -> Self {
        let started = replay.created_at.checked_add(Duration::from_millis(1)).unwrap_or(Timestamp::MAX);
        let until = replay.filter.until.map_or(started, |until| until.min(started));
        let cursor = replay.cursor.clone();
        Self { until: Some(until), cursor, limit, ..Self::of_replay(replay.only.as_ref(), &replay.filter) }
    }
}

/// A replay has a delivery sent again, if that still fits.
pub(crate) fn replayed(
    replay: &Replay,
    delivery: &mut Delivery,
    now: Timestamp,
) -> Result<(), DeliveryConflict> {
    if !DeliveryQuery::next_of(replay, 0).matches(delivery) {
        return Err(DeliveryConflict(delivery.state));
    }
    delivery.send_again(Some(replay.id), replay.force, now)
}

/// A destination and what goes on there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationStatus {
    /// The destination.
    pub destination: Destination,
    /// Attempts under way.
    pub in_flight: u32,
    /// How many may be.
    pub in_flight_limit: u32,
    /// Deliveries that wait for it, those under way included; counted up to [`Self::COUNTED`] of a class.
    pub waiting: usize,
}

impl DestinationStatus {
    /// How far what waits is counted: first attempts and retries, each.
    pub const COUNTED: usize = 1000;
}

/// How many deliveries there are, by where they stand: each is in one of these, until its job is purged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// All of them.
    pub accepted: u64,
    /// The receiver has it.
    pub delivered: u64,
    /// Waits for an attempt, or for the end of one.
    pub waiting: u64,
    /// Given up.
    pub exhausted: u64,
    /// Called off.
    pub cancelled: u64,
}

impl Ledger {
    /// Whether every delivery is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.delivered + self.waiting + self.exhausted + self.cancelled
    }

    /// A delivery came to be.
    pub fn came(&mut self, state: DeliveryState) {
        self.accepted += 1;
        *self.of(state) += 1;
    }

    /// A delivery was removed with its job.
    pub fn went(&mut self, state: DeliveryState) {
        self.accepted = self.accepted.saturating_sub(1);
        let of = self.of(state);
        *of = of.saturating_sub(1);
    }

    /// A delivery changed its state.
    pub fn moved(&mut self, from: DeliveryState, to: DeliveryState) {
        let of = self.of(from);
        *of = of.saturating_sub(1);
        *self.of(to) += 1;
    }

    fn of(&mut self, state: DeliveryState) -> &mut u64 {
        match state {
            DeliveryState::Pending | DeliveryState::Sending => &mut self.waiting,
            DeliveryState::Delivered => &mut self.delivered,
            DeliveryState::Exhausted => &mut self.exhausted,
            DeliveryState::Cancelled => &mut self.cancelled,
        }
    }
}
