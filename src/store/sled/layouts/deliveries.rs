//! Deliveries and attempts as older versions kept them.

use std::net::SocketAddr;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::domain::client::ClientId;
use crate::domain::delivery::{
    Attempt, Delivery, DeliveryState, ErrorClass, Failure, ResponseHead, Timings, Trigger,
};
use crate::domain::event::EventKind;
use crate::domain::id::{DeliveryId, EventId, JobId};
use crate::domain::job::Lease;
use crate::domain::retry::RetryOverride;
use crate::domain::secret::{SealedSecret, SigningSecret};

#[derive(Serialize, Deserialize)]
pub(in crate::store::sled) struct FailureV1 {
    pub(in crate::store::sled) class: ErrorClass,
    pub(in crate::store::sled) detail: String,
}

impl From<FailureV1> for Failure {
    fn from(FailureV1 { class, detail }: FailureV1) -> Self {
        Self::new(class, detail)
    }
}

/// A delivery until schema version 3.
#[derive(Serialize, Deserialize)]
pub(in crate::store::sled) struct DeliveryV1 {
    pub(in crate::store::sled) id: DeliveryId,
    pub(in crate::store::sled) event_id: EventId,
    pub(in crate::store::sled) event_seq: u64,
    pub(in crate::store::sled) event_kind: EventKind,
    pub(in crate::store::sled) job_id: JobId,
    pub(in crate::store::sled) url: Url,
    pub(in crate::store::sled) secret: Option<SigningSecret>,
    pub(in crate::store::sled) state: DeliveryState,
    pub(in crate::store::sled) attempt_count: u32,
    #[serde(with = "millisecond::optional")]
    pub(in crate::store::sled) next_attempt_at: Option<Timestamp>,
    pub(in crate::store::sled) last_error: Option<FailureV1>,
    pub(in crate::store::sled) last_status_code: Option<u16>,
    #[serde(with = "millisecond::required")]
    pub(in crate::store::sled) created_at: Timestamp,
    #[serde(with = "millisecond::optional")]
    pub(in crate::store::sled) finished_at: Option<Timestamp>,
    pub(in crate::store::sled) lease: Option<Lease>,
    pub(in crate::store::sled) lease_token: u64,
}

impl DeliveryV1 {
    /// One that was being sent when its process ended waits, as its worker is gone.
    pub(in crate::store::sled) fn upgraded(self, client: ClientId) -> Delivery {
        let state = if self.state == DeliveryState::Sending { DeliveryState::Pending } else { self.state };
        Delivery {
            id: self.id,
            client,
            event_id: self.event_id,
            event_seq: self.event_seq,
            event_kind: self.event_kind,
            job_id: self.job_id,
            url: self.url,
            secret: self.secret.as_ref().map(SealedSecret::plain),
            headers: Vec::new(),
            retry: RetryOverride::default(),
            state,
            revision: 0,
            attempt_count: self.attempt_count,
            earlier_attempts: 0,
            trigger: Trigger::Scheduled,
            replay: None,
            next_attempt_at: self.next_attempt_at,
            last_error: self.last_error.map(Failure::from),
            last_status_code: self.last_status_code,
            created_at: self.created_at,
            finished_at: self.finished_at,
            lease: None,
        }
    }
}

/// An attempt until schema version 3.
#[derive(Serialize, Deserialize)]
pub(in crate::store::sled) struct AttemptV1 {
    number: u32,
    #[serde(with = "millisecond::required")]
    started_at: Timestamp,
    duration_ms: u64,
    remote_addr: Option<SocketAddr>,
    response: Option<ResponseHead>,
    error: Option<FailureV1>,
    #[serde(with = "millisecond::optional")]
    next_attempt_at: Option<Timestamp>,
}

impl From<AttemptV1> for Attempt {
    fn from(attempt: AttemptV1) -> Self {
        Self {
            number: attempt.number,
            trigger: Trigger::Scheduled,
            started_at: attempt.started_at,
            duration_ms: attempt.duration_ms,
            timings: Timings::default(),
            remote_addr: attempt.remote_addr,
            response: attempt.response,
            error: attempt.error.map(Failure::from),
            next_attempt_at: attempt.next_attempt_at,
        }
    }
}
