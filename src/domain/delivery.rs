//! A delivery: one event on its way to one destination, and the record of each attempt.
//!
//! ```text
//! pending ─► sending ─► delivered | exhausted
//!    ▲          │
//!    └──────────┘  the attempt failed, or was cut off
//! ```

use std::net::SocketAddr;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use url::Url;

use super::event::{Event, EventKind};
use super::id::{DeliveryId, EventId, JobId, WorkerId};
use super::job::{Callback, CallbackProgress, Lease};
use super::secret::SigningSecret;

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
}

impl DeliveryState {
    /// Whether its fate is known.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Delivered | Self::Exhausted)
    }

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Delivered => "delivered",
            Self::Exhausted => "exhausted",
        }
    }
}

/// What kind of failure an attempt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// The name did not resolve.
    Dns,
    /// No connection came about.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The attempt's deadline passed.
    Timeout,
    /// The connection broke.
    Reset,
    /// The receiver answered 3xx; redirects are not followed.
    Redirect,
    /// The address is not one that callbacks may reach.
    BlockedAddress,
    /// The receiver answered with another status than 2xx.
    Http,
    /// The answer exceeded its bounds.
    TooLarge,
    /// The answer was no HTTP.
    Protocol,
}

impl ErrorClass {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Redirect => "redirect",
            Self::BlockedAddress => "blocked_address",
            Self::Http => "http",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub class: ErrorClass,
    /// What happened, in a sentence without secrets.
    pub detail: String,
}

/// The head of the receiver's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// The HTTP status code.
    pub status: u16,
    /// Header fields, at most 2 KiB.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, at most 4 KiB.
    pub body: String,
    /// Whether the body went on.
    pub truncated: bool,
}

/// The record of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// When it began.
    #[serde(with = "millisecond::required")]
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// The address it was connected to.
    pub remote_addr: Option<SocketAddr>,
    /// What the receiver answered.
    pub response: Option<ResponseHead>,
    /// Why it failed; `None` when it was delivered.
    pub error: Option<Failure>,
    /// When the next one is due, as decided then.
    #[serde(with = "millisecond::optional")]
    pub next_attempt_at: Option<Timestamp>,
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
    /// Signs instead of the client's secret.
    pub secret: Option<SigningSecret>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Attempts recorded so far.
    pub attempt_count: u32,
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
    /// When it was delivered or given up.
    #[serde(with = "millisecond::optional")]
    pub finished_at: Option<Timestamp>,
    /// Who makes the attempt that is under way.
    pub lease: Option<Lease>,
    /// The token of the latest claim.
    pub lease_token: u64,
}

/// The attempt is not this worker's any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the delivery's lease is no longer held")]
pub struct StaleDelivery;

impl Delivery {
    /// The delivery of `event` to `callback`, due at once.
    #[must_use]
    pub fn of(event: &Event, callback: &Callback, id: DeliveryId) -> Self {
        Self {
            id,
            event_id: event.id,
            event_seq: event.seq,
            event_kind: event.kind,
            job_id: event.job_id,
            url: callback.url.clone(),
            secret: callback.secret.clone(),
            state: DeliveryState::Pending,
            attempt_count: 0,
            next_attempt_at: Some(event.at),
            last_error: None,
            last_status_code: None,
            created_at: event.at,
            finished_at: None,
            lease: None,
            lease_token: 0,
        }
    }

    /// An attempt begins: pending → sending.
    pub fn claim(&mut self, worker: WorkerId, until: Timestamp) -> Result<(), StaleDelivery> {
        if self.state != DeliveryState::Pending {
            return Err(StaleDelivery);
        }
        self.lease_token += 1;
        self.lease = Some(Lease { worker, token: self.lease_token, until });
        self.state = DeliveryState::Sending;
        Ok(())
    }

    /// The attempt ended: sending → delivered, exhausted, or pending with a later due time.
    pub fn settle(
        &mut self,
        token: u64,
        attempt: &Attempt,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<(), StaleDelivery> {
        self.held(token)?;
        self.lease = None;
        self.attempt_count = attempt.number;
        self.last_error.clone_from(&attempt.error);
        self.last_status_code = attempt.response.as_ref().map(|response| response.status);
        (self.state, self.next_attempt_at, self.finished_at) = match verdict {
            Verdict::Delivered => (DeliveryState::Delivered, None, Some(now)),
            Verdict::RetryAt(due) => (DeliveryState::Pending, Some(*due), None),
            Verdict::Exhausted => (DeliveryState::Exhausted, None, Some(now)),
        };
        Ok(())
    }

    /// The attempt was cut off before it ended, so nobody knows whether it arrived: sending → pending, due now.
    pub fn give_back(&mut self, token: u64, now: Timestamp) -> Result<(), StaleDelivery> {
        self.held(token)?;
        self.lose_worker(now)
    }

    /// The worker is gone: sending → pending, due now.
    pub fn lose_worker(&mut self, now: Timestamp) -> Result<(), StaleDelivery> {
        if self.state != DeliveryState::Sending {
            return Err(StaleDelivery);
        }
        self.lease = None;
        self.state = DeliveryState::Pending;
        self.next_attempt_at = Some(now);
        Ok(())
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

    /// Scheme, host and port of the URL: what a destination is known by.
    #[must_use]
    pub fn destination(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    fn held(&self, token: u64) -> Result<(), StaleDelivery> {
        match self.lease {
            Some(lease) if lease.token == token && self.state == DeliveryState::Sending => Ok(()),
            _ => Err(StaleDelivery),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::Job;
    use crate::domain::job::tests::{at, new_job, worker};

    fn delivery() -> Delivery {
        let job = Job::accepted(new_job(1), at(1));
        let event = Event {
            id: EventId::new(at(1), &[1; 10]),
            seq: 7,
            kind: EventKind::JobCompleted,
            job_id: job.id,
            at: at(5),
            source: "http://127.0.0.1:8080".to_owned(),
            job: job.snapshot(),
        };
        let callback = job.callback.unwrap();
        Delivery::of(&event, &callback, DeliveryId::new(at(5), &[2; 10]))
    }

    fn attempt(number: u32) -> Attempt {
        Attempt {
            number,
            started_at: at(6),
            duration_ms: 3,
            remote_addr: None,
            response: None,
            error: Some(Failure { class: ErrorClass::Timeout, detail: "15 s".to_owned() }),
            next_attempt_at: Some(at(11)),
        }
    }

    #[test]
    fn a_failed_attempt_waits_and_a_delivered_one_ends() {
        let mut delivery = delivery();
        delivery.claim(worker(1), at(30)).unwrap();
        assert!(delivery.claim(worker(2), at(30)).is_err());
        delivery.settle(1, &attempt(1), &Verdict::RetryAt(at(11)), at(7)).unwrap();
        assert_eq!((delivery.state, delivery.next_attempt_at), (DeliveryState::Pending, Some(at(11))));
        delivery.claim(worker(1), at(50)).unwrap();
        delivery.settle(2, &Attempt { error: None, ..attempt(2) }, &Verdict::Delivered, at(12)).unwrap();
        let progress = delivery.progress();
        assert_eq!(
            (progress.attempts, progress.delivered_at, progress.next_attempt_at),
            (2, Some(at(12)), None)
        );
        assert_eq!(delivery.last_error, None);
    }

    #[test]
    fn a_settled_attempt_is_not_settled_again() {
        let mut delivery = delivery();
        delivery.claim(worker(1), at(30)).unwrap();
        delivery.lose_worker(at(31)).unwrap();
        delivery.claim(worker(2), at(60)).unwrap();
        assert_eq!(delivery.settle(1, &attempt(1), &Verdict::Exhausted, at(32)), Err(StaleDelivery));
        delivery.settle(2, &attempt(1), &Verdict::Exhausted, at(33)).unwrap();
        assert_eq!(delivery.settle(2, &attempt(1), &Verdict::Delivered, at(34)), Err(StaleDelivery));
        assert_eq!(delivery.state, DeliveryState::Exhausted);
    }

    #[test]
    fn a_destination_is_scheme_host_and_port() {
        assert_eq!(delivery().destination(), "https://hooks.example");
    }
}
