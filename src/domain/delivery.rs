//! A delivery: one event on its way to one destination, and the record of each attempt.
//!
//! ```text
//! pending ─► sending ─► delivered | exhausted      (cancelled, while it is pending)
//!    ▲          │              │
//!    └──────────┘              │  the attempt failed, or was cut off
//!    └─────────────────────────┘  somebody has it sent again
//!
//! pending ─► exhausted             its destination was held back for too long
//! ```

use std::time::Duration;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use url::Url;

pub use super::attempt::{Attempt, ErrorClass, Failure, Fault, ResponseHead, Timings, Trigger};
use super::client::ClientId;
use super::destination::Destination;
use super::event::{Event, EventKind};
use super::id::{DeliveryId, DestinationId, EventId, JobId, ReplayId};
use super::job::{Callback, CallbackProgress, Lease};
use super::retry::RetryOverride;
use super::secret::SealedSecret;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeliveryState {
    /// Waits until its next attempt is due.
    Pending,
    /// An attempt is under way.
    Sending,
    /// The receiver answered 2xx.
    Delivered,
    /// The last attempt of its schedule failed.
    Exhausted,
    /// It was called off.
    Cancelled,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Pending, Self::Sending, Self::Delivered, Self::Exhausted, Self::Cancelled];

    /// Whether its fate is known.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Delivered | Self::Exhausted | Self::Cancelled)
    }

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver took it.
    Delivered,
    /// It failed and is tried again then.
    RetryAt(Timestamp),
    /// It failed, and the schedule is at its end.
    Exhausted,
}

/// One event on its way to one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its id, which sorts by creation.
    pub id: DeliveryId,
    /// Whose it is.
    #[serde(default = "ClientId::dev")]
    pub client: ClientId,
    /// What is delivered.
    pub event_id: EventId,
    /// Where that stands in the event log.
    pub event_seq: u64,
    /// The event's kind.
    pub event_kind: EventKind,
    /// The job it is about.
    pub job_id: JobId,
    /// Where to.
    pub url: Url,
    /// Signs instead of the client's secrets.
    pub secret: Option<SealedSecret>,
    /// Sent with each attempt, besides our own. Their values may be credentials.
    #[serde(default)]
    pub headers: Vec<(String, SealedSecret)>,
    /// What it has of its own instead of the configured schedule.
    #[serde(default)]
    pub retry: RetryOverride,
    /// Where it stands. [`DeliveryState::Sending`] is not kept: it holds while there is a lease.
    pub state: DeliveryState,
    /// Grows with every change that is kept.
    #[serde(default)]
    pub revision: u64,
    /// Attempts recorded so far.
    pub attempt_count: u32,
    /// How many of them its present schedule does not count.
    #[serde(default)]
    pub earlier_attempts: u32,
    /// Why the next attempt is made.
    #[serde(default)]
    pub trigger: Trigger,
    /// The replay that has sent it again.
    #[serde(default)]
    pub replay: Option<ReplayId>,
    /// When the next attempt is due; `None` when there is none.
    #[serde(with = "millisecond::optional")]
    pub next_attempt_at: Option<Timestamp>,
    /// Why the latest attempt failed.
    pub last_error: Option<Failure>,
    /// What the receiver answered to it.
    pub last_status_code: Option<u16>,
    /// When it came to be.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When it was delivered, given up or called off.
    #[serde(with = "millisecond::optional")]
    pub finished_at: Option<Timestamp>,
    /// Who makes the attempt that is under way. It is not kept: it ends with the process.
    #[serde(skip)]
    pub lease: Option<Lease>,
}

/// The attempt is not this worker's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery's lease is no longer held")]
pub struct StaleDelivery;

/// The delivery's state does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery is {}", .0.as_str())]
pub struct DeliveryConflict(pub DeliveryState);

impl Delivery {
    /// The delivery of `event` to `callback`, due at once.
    #[must_use]
    pub fn of(event: &Event, client: &ClientId, job_id: JobId, callback: &Callback, id: DeliveryId) -> Self {
        Self {
            id,
            client: client.clone(),
            event_id: event.id,
            event_seq: event.seq,
            event_kind: event.kind,
            job_id,
            url: callback.url.clone(),
            secret: callback.secret.clone(),
            headers: callback.headers.clone(),
            retry: callback.retry,
            state: DeliveryState::Pending,
            revision: 0,
            attempt_count: 0,
            earlier_attempts: 0,
            trigger: Trigger::Scheduled,
            replay: None,
            next_attempt_at: Some(event.at),
            last_error: None,
            last_status_code: None,
            created_at: event.at,
            finished_at: None,
            lease: None,
        }
    }

    /// Shows it with the attempt that is under way: pending → sending.
    #[must_use]
    pub fn leased(mut self, lease: Option<Lease>) -> Self {
        if lease.is_some() && self.state == DeliveryState::Pending {
            (self.state, self.lease) = (DeliveryState::Sending, lease);
        }
        self
    }

    /// The attempt ended: → delivered, exhausted, or pending with a later due time.
    pub fn settle(&mut self, attempt: &Attempt, verdict: &Verdict, now: Timestamp) {
        self.revision += 1;
        self.trigger = Trigger::Scheduled;
        self.attempt_count = attempt.number;
        self.last_error.clone_from(&attempt.error);
        self.last_status_code = attempt.response.as_ref().map(|response| response.status);
        (self.state, self.next_attempt_at, self.finished_at) = match verdict {
            Verdict::Delivered => (DeliveryState::Delivered, None, Some(now)),
            Verdict::RetryAt(due) => (DeliveryState::Pending, Some(*due), None),
            Verdict::Exhausted => (DeliveryState::Exhausted, None, Some(now)),
        };
    }

    /// Somebody calls it off: pending → cancelled. One whose attempt is under way may yet arrive.
    pub fn cancel(&mut self, now: Timestamp) -> Result<(), DeliveryConflict> {
        if self.state != DeliveryState::Pending {
            return Err(DeliveryConflict(self.state));
        }
        self.revision += 1;
        (self.state, self.next_attempt_at, self.finished_at) = (DeliveryState::Cancelled, None, Some(now));
        Ok(())
    }

    /// Whether it has been due for so long without an attempt: its destination is held back.
    #[must_use]
    pub fn is_overdue(&self, by: Duration, now: Timestamp) -> bool {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        self.state == DeliveryState::Pending
            && self.next_attempt_at.is_some_and(|due| now.duration_since(due) >= by)
    }

    /// Nobody waits for its destination any longer: pending → exhausted.
    pub fn give_up(&mut self, now: Timestamp) -> Result<(), DeliveryConflict> {
        if self.state != DeliveryState::Pending {
            return Err(DeliveryConflict(self.state));
        }
        self.revision += 1;
        let detail = "its destination was held back for so long that it was given up";
        self.last_error = Some(Failure::new(ErrorClass::Timeout, detail));
        (self.state, self.next_attempt_at, self.finished_at) = (DeliveryState::Exhausted, None, Some(now));
        Ok(())
    }

    /// It is sent again, with its whole schedule: exhausted, cancelled, pending, and delivered if `force` → pending,
    /// due at once.
    pub fn send_again(
        &mut self,
        replay: Option<ReplayId>,
        force: bool,
        now: Timestamp,
    ) -> Result<(), DeliveryConflict> {
        let may_be = match self.state {
            DeliveryState::Pending | DeliveryState::Exhausted | DeliveryState::Cancelled => true,
            DeliveryState::Delivered => force,
            DeliveryState::Sending => false,
        };
        if !may_be {
            return Err(DeliveryConflict(self.state));
        }
        self.revision += 1;
        self.trigger = if replay.is_some() { Trigger::Replay } else { Trigger::Manual };
        self.replay = replay;
        self.earlier_attempts = self.attempt_count;
        (self.state, self.next_attempt_at, self.finished_at) = (DeliveryState::Pending, Some(now), None);
        Ok(())
    }

    /// Whether its next attempt goes before retries: it is the first of all, or somebody waits for it.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.attempt_count == self.earlier_attempts && self.trigger != Trigger::Replay
    }

    /// What the job's callback shows of this delivery.
    #[must_use]
    pub fn progress(&self) -> CallbackProgress {
        CallbackProgress {
            delivery: self.id,
            state: self.state,
            attempts: self.attempt_count,
            next_attempt_at: self.next_attempt_at,
            delivered_at: self.finished_at.filter(|_| self.state == DeliveryState::Delivered),
        }
    }

    /// What it adds to the revision of a job that shows it.
    #[must_use]
    pub fn shown_revision(&self) -> u64 {
        // Without the lease, which a power cut takes back: what was shown is never taken back with it.
        self.revision
    }

    /// The token of the attempt that is under way; 0, which none has, when there is none.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.lease.map_or(0, |lease| lease.token)
    }

    /// Scheme, host and port of the URL: what a destination is known by.
    #[must_use]
    pub fn destination(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// The destination's id.
    #[must_use]
    pub fn destination_id(&self) -> DestinationId {
        Destination::id(&self.client, &self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::Subject;
    use crate::domain::job::Job;
    use crate::domain::job::tests::{at, new_job, worker};

    fn delivery() -> Delivery {
        let job = Job::accepted(new_job(1), at(1));
        let event = Event {
            id: EventId::new(at(1), &[1; 10]),
            seq: 7,
            kind: EventKind::JobCompleted,
            at: at(5),
            source: "http://127.0.0.1:8080".to_owned(),
            subject: Subject::Job(Box::new(job.snapshot())),
        };
        let callback = job.callback.unwrap();
        Delivery::of(&event, &job.client, job.id, &callback, DeliveryId::new(at(5), &[2; 10]))
    }

    fn attempt(number: u32) -> Attempt {
        Attempt {
            number,
            trigger: Trigger::Scheduled,
            started_at: at(6),
            duration_ms: 3,
            timings: Timings::default(),
            remote_addr: None,
            response: None,
            error: Some(Failure::new(ErrorClass::Timeout, "15 s")),
            next_attempt_at: Some(at(11)),
        }
    }

    #[test]
    fn a_failed_attempt_waits_and_a_delivered_one_ends() {
        let mut delivery = delivery();
        delivery.settle(&attempt(1), &Verdict::RetryAt(at(11)), at(7));
        assert_eq!((delivery.state, delivery.next_attempt_at), (DeliveryState::Pending, Some(at(11))));
        delivery.settle(&Attempt { error: None, ..attempt(2) }, &Verdict::Delivered, at(12));
        let progress = delivery.progress();
        assert_eq!(
            (progress.attempts, progress.delivered_at, progress.next_attempt_at),
            (2, Some(at(12)), None)
        );
        assert_eq!((delivery.last_error, delivery.revision), (None, 2));
    }

    #[test]
    fn only_what_waits_can_be_cancelled() {
        let lease = Lease { worker: worker(1), token: 1, until: at(30) };
        let mut sending = delivery().leased(Some(lease));
        assert_eq!(sending.cancel(at(6)), Err(DeliveryConflict(DeliveryState::Sending)));
        let mut delivery = delivery();
        delivery.cancel(at(6)).unwrap();
        assert_eq!((delivery.finished_at, delivery.next_attempt_at), (Some(at(6)), None));
        assert_eq!(delivery.cancel(at(7)), Err(DeliveryConflict(DeliveryState::Cancelled)));
    }

    #[test]
    fn what_is_sent_again_has_its_whole_schedule_and_keeps_counting() {
        let mut delivery = delivery();
        delivery.settle(&attempt(1), &Verdict::Exhausted, at(7));
        assert!(!delivery.is_first());
        delivery.send_again(None, false, at(20)).unwrap();
        assert_eq!((delivery.state, delivery.next_attempt_at), (DeliveryState::Pending, Some(at(20))));
        assert_eq!((delivery.attempt_count, delivery.earlier_attempts), (1, 1));
        assert!(delivery.is_first() && delivery.finished_at.is_none());
        delivery.settle(&Attempt { error: None, ..attempt(2) }, &Verdict::Delivered, at(21));
        let refused = Err(DeliveryConflict(DeliveryState::Delivered));
        assert_eq!(delivery.send_again(None, false, at(22)), refused);
        delivery.send_again(None, true, at(22)).unwrap();
    }

    #[test]
    fn a_destination_is_scheme_host_and_port() {
        assert_eq!(delivery().destination(), "https://hooks.example");
    }
}
