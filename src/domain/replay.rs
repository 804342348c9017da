//! A replay: a durable operation that sends many deliveries again, in its own time.
//!
//! ```text
//! running ⇄ paused ─► finished | cancelled
//! ```

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::attempt::ErrorClass;
use super::client::ClientId;
use super::delivery::{Delivery, DeliveryState};
use super::event::EventKind;
use super::id::{DeliveryId, DestinationId, JobId, ReplayId};

/// Where a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ReplayState {
    /// Takes up one delivery after another, or waits for those that it took up.
    Running,
    /// Takes up no more until it is resumed; those that it took up go on.
    Paused,
    /// All of its deliveries have ended.
    Finished,
    /// Takes up no more; those that it took up go on.
    Cancelled,
}

impl ReplayState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Running, Self::Paused, Self::Finished, Self::Cancelled];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        }
    }
}

/// The replay's state does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the replay is {}", .0.as_str())]
pub struct ReplayConflict(pub ReplayState);

/// Which deliveries are sent again: all that fit every one of these that is given.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReplayFilter {
    /// Where they stand.
    pub states: Vec<DeliveryState>,
    /// Where they go.
    pub destination: Option<DestinationId>,
    /// The kind of their event.
    pub kind: Option<EventKind>,
    /// Their job.
    pub job: Option<JobId>,
    /// How their latest attempt failed.
    pub error_class: Option<ErrorClass>,
    /// What their latest attempt was answered.
    pub status_code: Option<u16>,
    /// When they were made, at the earliest.
    #[serde(with = "millisecond::optional")]
    pub since: Option<Timestamp>,
    /// When they were made, before this.
    #[serde(with = "millisecond::optional")]
    pub until: Option<Timestamp>,
}

/// A replay to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// Its id.
    pub id: ReplayId,
    /// Who starts it.
    pub client: ClientId,
    /// Whose deliveries; `None`: those of all clients.
    pub only: Option<ClientId>,
    /// Which of them.
    pub filter: ReplayFilter,
    /// How many are taken up in a second, at most.
    pub rate_per_second: u32,
    /// Also those that arrived.
    pub force: bool,
    /// How many fit when it was started.
    pub matched: u64,
    /// Whether more did than were counted.
    pub matched_has_more: bool,
}

/// A durable operation that sends many deliveries again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// Its id.
    pub id: ReplayId,
    /// Who started it.
    pub client: ClientId,
    /// Which of them.
    pub filter: ReplayFilter,
    /// How many are taken up in a second, at most.
    pub rate_per_second: u32,
    /// Also those that arrived.
    pub force: bool,
    /// Where it stands.
    pub state: ReplayState,
    /// When it was started.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When it ended.
    #[serde(with = "millisecond::optional")]
    pub finished_at: Option<Timestamp>,
    /// How many fitted when it was started.
    pub matched: u64,
    /// Whether more did than were counted.
    pub matched_has_more: bool,
    /// How many were taken up.
    pub taken: u64,
    /// How many of these did not fit any more.
    pub skipped: u64,
    /// How many arrived.
    pub delivered: u64,
    /// How many were given up again, or called off.
    pub failed: u64,
    /// Behind which place of the list the next are looked for.
    pub cursor: Option<Vec<u8>>,
    /// Whether all that fit have been taken up.
    pub is_at_end: bool,
    /// How many somebody else has sent again since; what became of them is not this replay's.
    pub taken_over: u64,
    /// Whose deliveries; `None`: those of all clients.
    pub only: Option<ClientId>,
}

/// What became of a delivery that a replay had sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It arrived.
    Delivered,
    /// It was given up again, or called off.
    Failed,
    /// Somebody else sent it again.
    TakenOver,
}

/// One delivery of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayItem {
    /// Its place, from 0.
    pub number: u64,
    /// Which.
    pub delivery: DeliveryId,
    /// Where it stood when it was taken up.
    pub was: DeliveryState,
    /// Whether it was sent again; if not, it did not fit any more.
    pub is_sent: bool,
}

impl ReplayOutcome {
    /// Of a delivery that somebody changed while it waited: called off, given up, or sent again.
    #[must_use]
    pub fn of_change(delivery: &Delivery) -> Self {
        if delivery.state == DeliveryState::Pending { Self::TakenOver } else { Self::Failed }
    }
}

impl Replay {
    /// A replay that was just started.
    #[must_use]
    pub fn started(new: NewReplay, now: Timestamp) -> Self {
        Self {
            id: new.id,
            client: new.client,
            filter: new.filter,
            rate_per_second: new.rate_per_second,
            force: new.force,
            state: ReplayState::Running,
            created_at: now,
            finished_at: None,
            matched: new.matched,
            matched_has_more: new.matched_has_more,
            taken: 0,
            skipped: 0,
            delivered: 0,
            failed: 0,
            cursor: None,
            is_at_end: false,
            taken_over: 0,
            only: new.only,
        }
    }

    /// How many have ended.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.skipped + self.delivered + self.failed + self.taken_over
    }

    /// How many fitted when it was started and did not any more when it came to them; known when it has come to all
    /// that were counted.
    #[must_use]
    pub fn no_longer_matching(&self) -> Option<u64> {
        (self.is_at_end && !self.matched_has_more).then(|| self.matched.saturating_sub(self.taken))
    }

    /// running → paused
    pub fn pause(&mut self) -> Result<(), ReplayConflict> {
        self.expect(&[ReplayState::Running, ReplayState::Paused])?;
        self.state = ReplayState::Paused;
        Ok(())
    }

    /// paused → running
    pub fn resume(&mut self, now: Timestamp) -> Result<(), ReplayConflict> {
        self.expect(&[ReplayState::Running, ReplayState::Paused])?;
        self.state = ReplayState::Running;
        self.conclude(now);
        Ok(())
    }

    /// running, paused → cancelled
    pub fn cancel(&mut self, now: Timestamp) -> Result<(), ReplayConflict> {
        self.expect(&[ReplayState::Running, ReplayState::Paused])?;
        (self.state, self.finished_at) = (ReplayState::Cancelled, Some(now));
        Ok(())
    }

    /// A delivery was taken up, and sent again or not.
    pub fn take(&mut self, is_sent: bool) {
        self.taken += 1;
        self.skipped += u64::from(!is_sent);
    }

    /// The list was read so far: to its end, if there is no cursor.
    pub fn read_to(&mut self, cursor: Option<Vec<u8>>, now: Timestamp) {
        self.is_at_end = cursor.is_none();
        self.cursor = cursor;
        self.conclude(now);
    }

    /// A delivery that it had sent again is its own no more.
    pub fn ended(&mut self, outcome: ReplayOutcome, now: Timestamp) {
        match outcome {
            ReplayOutcome::Delivered => self.delivered += 1,
            ReplayOutcome::Failed => self.failed += 1,
            ReplayOutcome::TakenOver => self.taken_over += 1,
        }
        self.conclude(now);
    }

    fn conclude(&mut self, now: Timestamp) {
        if self.state == ReplayState::Running && self.is_at_end && self.done() >= self.taken {
            (self.state, self.finished_at) = (ReplayState::Finished, Some(now));
        }
    }

    fn expect(&self, states: &[ReplayState]) -> Result<(), ReplayConflict> {
        if states.contains(&self.state) { Ok(()) } else { Err(ReplayConflict(self.state)) }
    }
}
