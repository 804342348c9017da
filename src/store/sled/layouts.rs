//! Records as older versions kept them, to be read and never written.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use url::Url;

#[cfg(test)]
pub(super) use self::deliveries::FailureV1;
pub(super) use self::deliveries::{AttemptV1, DeliveryV1};
use super::records::JobRecord;
use crate::domain::client::ClientId;
use crate::domain::delivery::Delivery;
use crate::domain::destination::Destination;
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::id::{DeliveryId, EventId, JobId};
use crate::domain::image::{Colour, Fit, Focus, Format, Handling, Placeholder, Variant};
use crate::domain::job::{
    Artifact, Callback, CallbackProgress, Input, Job, JobError, JobStatus, Lease, Priority,
};
use crate::domain::retry::RetryOverride;
use crate::domain::secret::{SealedSecret, SigningSecret};
use crate::store::Policy;

mod deliveries;

/// A variant until schema version 4.
#[derive(Serialize, Deserialize)]
pub(super) struct VariantV1 {
    name: String,
    width: Option<u32>,
}

impl From<VariantV1> for Variant {
    fn from(VariantV1 { name, width }: VariantV1) -> Self {
        Self { name, width, ..Self::default() }
    }
}

/// A variant of schema version 5.
#[derive(Serialize, Deserialize)]
pub(super) struct VariantV2 {
    name: String,
    width: Option<u32>,
    height: Option<u32>,
    fit: Fit,
    focus: Focus,
    format: Option<Format>,
    quality: Option<u8>,
    background: Option<Colour>,
    enlarge: bool,
}

impl From<VariantV2> for Variant {
    fn from(variant: VariantV2) -> Self {
        let VariantV2 { name, width, height, fit, focus, format, quality, background, enlarge } = variant;
        Self { name, width, height, fit, focus, format, quality, background, enlarge, watermark: None }
    }
}

/// A callback until schema version 3.
#[derive(Serialize, Deserialize)]
pub(super) struct CallbackV1 {
    pub(super) url: Url,
    pub(super) events: Vec<EventKind>,
    pub(super) secret: Option<SigningSecret>,
    pub(super) latest: Option<CallbackProgress>,
}

impl From<CallbackV1> for Callback {
    fn from(CallbackV1 { url, events, secret, latest }: CallbackV1) -> Self {
        let secret = secret.as_ref().map(SealedSecret::plain);
        Self { url, events, secret, headers: Vec::new(), retry: RetryOverride::default(), latest }
    }
}

/// A job as version 1 kept it.
#[derive(Serialize, Deserialize)]
pub(super) struct JobV1 {
    pub(super) id: JobId,
    pub(super) client: ClientId,
    pub(super) status: JobStatus,
    pub(super) revision: u64,
    #[serde(with = "millisecond::required")]
    pub(super) created_at: Timestamp,
    #[serde(with = "millisecond::optional")]
    pub(super) started_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    pub(super) finished_at: Option<Timestamp>,
    #[serde(with = "millisecond::required")]
    pub(super) due_at: Timestamp,
    pub(super) attempt: u32,
    pub(super) input: Input,
    pub(super) variants: Vec<VariantV1>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) callback: Option<CallbackV1>,
    pub(super) tags: Vec<String>,
    pub(super) metadata: Option<String>,
    pub(super) error: Option<JobError>,
    pub(super) lease: Option<Lease>,
    pub(super) lease_token: u64,
}

/// An event as version 1 kept it.
#[derive(Serialize, Deserialize)]
pub(super) struct EventV1 {
    pub(super) id: EventId,
    pub(super) seq: u64,
    pub(super) kind: EventKind,
    pub(super) job_id: JobId,
    #[serde(with = "millisecond::required")]
    pub(super) at: Timestamp,
    pub(super) source: String,
    pub(super) job: JobV1,
}

impl JobV1 {
    pub(super) fn upgraded(self, policy: &Policy) -> Job {
        let kept = |finished: Timestamp| finished.checked_add(policy.keep_finished).unwrap_or(Timestamp::MAX);
        Job {
            id: self.id,
            client: self.client,
            status: self.status,
            revision: self.revision,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            // A time that has passed by now is found to be due at once.
            due_at: (self.status == JobStatus::Queued).then_some(self.due_at),
            priority: Priority::Normal,
            deadline_ms: None,
            deadline_at: None,
            cancel_requested_at: None,
            deleted_at: None,
            purge_at: self.finished_at.map(kept),
            idempotency_key: None,
            attempt: self.attempt,
            input: Some(self.input),
            source: None,
            variants: self.variants.into_iter().map(Variant::from).collect(),
            preset: None,
            handling: Handling::default(),
            placeholder: None,
            artifacts: self.artifacts,
            callback: self.callback.map(Callback::from),
            tags: self.tags,
            metadata: self.metadata,
            error: self.error,
            lease: self.lease,
            lease_token: self.lease_token,
        }
    }
}

/// A job of schema versions 2 and 3; in version 2 it was a record by itself.
pub(super) type JobV2 = JobBefore5<CallbackV1>;

/// A job of schema version 4.
pub(super) type JobV4 = JobBefore5<Callback>;

/// A job of schema versions 2 to 4, with the callback that each had.
#[derive(Serialize, Deserialize)]
pub(super) struct JobBefore5<C> {
    id: JobId,
    client: ClientId,
    status: JobStatus,
    revision: u64,
    #[serde(with = "millisecond::required")]
    created_at: Timestamp,
    #[serde(with = "millisecond::optional")]
    started_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    finished_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    due_at: Option<Timestamp>,
    priority: Priority,
    deadline_ms: Option<u64>,
    #[serde(with = "millisecond::optional")]
    deadline_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    cancel_requested_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    deleted_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    purge_at: Option<Timestamp>,
    idempotency_key: Option<String>,
    attempt: u32,
    input: Input,
    pub(super) variants: Vec<VariantV1>,
    artifacts: Vec<Artifact>,
    callback: Option<C>,
    tags: Vec<String>,
    metadata: Option<String>,
    error: Option<JobError>,
    lease: Option<Lease>,
    lease_token: u64,
}

impl<C: Into<Callback>> From<JobBefore5<C>> for Job {
    fn from(job: JobBefore5<C>) -> Self {
        Self {
            id: job.id,
            client: job.client,
            status: job.status,
            revision: job.revision,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            due_at: job.due_at,
            priority: job.priority,
            deadline_ms: job.deadline_ms,
            deadline_at: job.deadline_at,
            cancel_requested_at: job.cancel_requested_at,
            deleted_at: job.deleted_at,
            purge_at: job.purge_at,
            idempotency_key: job.idempotency_key,
            attempt: job.attempt,
            input: Some(job.input),
            source: None,
            variants: job.variants.into_iter().map(Variant::from).collect(),
            preset: None,
            handling: Handling::default(),
            placeholder: None,
            artifacts: job.artifacts,
            callback: job.callback.map(Into::into),
            tags: job.tags,
            metadata: job.metadata,
            error: job.error,
            lease: job.lease,
            lease_token: job.lease_token,
        }
    }
}

/// A job of schema version 3 or 4 and what is noted with it.
#[derive(Serialize, Deserialize)]
pub(super) struct JobRecordBefore5<C> {
    pub(super) job: JobBefore5<C>,
    pub(super) events: Vec<u64>,
    pub(super) deliveries: Vec<DeliveryId>,
    pub(super) is_going: bool,
}

pub(super) type JobRecordV3 = JobRecordBefore5<CallbackV1>;
pub(super) type JobRecordV4 = JobRecordBefore5<Callback>;

impl<C: Into<Callback>> From<JobRecordBefore5<C>> for JobRecord {
    fn from(JobRecordBefore5 { job, events, deliveries, is_going }: JobRecordBefore5<C>) -> Self {
        Self { job: job.into(), events, deliveries, is_going }
    }
}

/// A job of schema version 5, whose picture always came with its request.
#[derive(Serialize, Deserialize)]
pub(super) struct JobV5 {
    id: JobId,
    client: ClientId,
    status: JobStatus,
    revision: u64,
    #[serde(with = "millisecond::required")]
    created_at: Timestamp,
    #[serde(with = "millisecond::optional")]
    started_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    finished_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    due_at: Option<Timestamp>,
    priority: Priority,
    deadline_ms: Option<u64>,
    #[serde(with = "millisecond::optional")]
    deadline_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    cancel_requested_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    deleted_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    purge_at: Option<Timestamp>,
    idempotency_key: Option<String>,
    attempt: u32,
    input: Input,
    variants: Vec<VariantV2>,
    preset: Option<String>,
    handling: Handling,
    placeholder: Option<Placeholder>,
    artifacts: Vec<Artifact>,
    callback: Option<Callback>,
    tags: Vec<String>,
    metadata: Option<String>,
    error: Option<JobError>,
    lease: Option<Lease>,
    lease_token: u64,
}

impl From<JobV5> for Job {
    fn from(job: JobV5) -> Self {
        Self {
            id: job.id,
            client: job.client,
            status: job.status,
            revision: job.revision,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            due_at: job.due_at,
            priority: job.priority,
            deadline_ms: job.deadline_ms,
            deadline_at: job.deadline_at,
            cancel_requested_at: job.cancel_requested_at,
            deleted_at: job.deleted_at,
            purge_at: job.purge_at,
            idempotency_key: job.idempotency_key,
            attempt: job.attempt,
            input: Some(job.input),
            source: None,
            variants: job.variants.into_iter().map(Variant::from).collect(),
            preset: job.preset,
            handling: job.handling,
            placeholder: job.placeholder,
            artifacts: job.artifacts,
            callback: job.callback,
            tags: job.tags,
            metadata: job.metadata,
            error: job.error,
            lease: job.lease,
            lease_token: job.lease_token,
        }
    }
}

/// A job of schema version 5 and what is noted with it.
#[derive(Serialize, Deserialize)]
pub(super) struct JobRecordV5 {
    pub(super) job: JobV5,
    pub(super) events: Vec<u64>,
    pub(super) deliveries: Vec<DeliveryId>,
    pub(super) is_going: bool,
}

impl From<JobRecordV5> for JobRecord {
    fn from(JobRecordV5 { job, events, deliveries, is_going }: JobRecordV5) -> Self {
        Self { job: job.into(), events, deliveries, is_going }
    }
}

/// An event of schema version 4.
pub(super) type EventV3 = EventBefore6<JobV4>;

/// An event of schema version 5.
pub(super) type EventV4 = EventBefore6<JobV5>;

/// An event of schema versions 4 and 5, with the job that each had.
#[derive(Serialize, Deserialize)]
pub(super) struct EventBefore6<J> {
    id: EventId,
    seq: u64,
    kind: EventKind,
    #[serde(with = "millisecond::required")]
    at: Timestamp,
    source: String,
    subject: SubjectBefore6<J>,
}

#[derive(Serialize, Deserialize)]
enum SubjectBefore6<J> {
    Job(Box<J>),
    Delivery(Box<Delivery>),
    Destination(Box<Destination>),
}

impl<J: Into<Job>> From<EventBefore6<J>> for Event {
    fn from(EventBefore6 { id, seq, kind, at, source, subject }: EventBefore6<J>) -> Self {
        let subject = match subject {
            SubjectBefore6::Job(job) => Subject::Job(Box::new((*job).into())),
            SubjectBefore6::Delivery(delivery) => Subject::Delivery(delivery),
            SubjectBefore6::Destination(destination) => Subject::Destination(destination),
        };
        Self { id, seq, kind, at, source, subject }
    }
}

/// An event of schema versions 2 and 3.
#[derive(Serialize, Deserialize)]
pub(super) struct EventV2 {
    id: EventId,
    seq: u64,
    kind: EventKind,
    job_id: JobId,
    #[serde(with = "millisecond::required")]
    at: Timestamp,
    source: String,
    job: JobV2,
}

impl From<EventV2> for Event {
    fn from(EventV2 { id, seq, kind, at, source, job, .. }: EventV2) -> Self {
        Self { id, seq, kind, at, source, subject: Subject::Job(Box::new(job.into())) }
    }
}

/// What an older version would have kept of a job that this one made, for tests.
#[cfg(test)]
impl From<Job> for JobV4 {
    fn from(job: Job) -> Self {
        let variant = |Variant { name, width, .. }| VariantV1 { name, width };
        Self {
            id: job.id,
            client: job.client,
            status: job.status,
            revision: job.revision,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            due_at: job.due_at,
            priority: job.priority,
            deadline_ms: job.deadline_ms,
            deadline_at: job.deadline_at,
            cancel_requested_at: job.cancel_requested_at,
            deleted_at: job.deleted_at,
            purge_at: job.purge_at,
            idempotency_key: job.idempotency_key,
            attempt: job.attempt,
            input: job.input.unwrap(),
            variants: job.variants.into_iter().map(variant).collect(),
            artifacts: job.artifacts,
            callback: job.callback,
            tags: job.tags,
            metadata: job.metadata,
            error: job.error,
            lease: job.lease,
            lease_token: job.lease_token,
        }
    }
}

#[cfg(test)]
impl From<Variant> for VariantV2 {
    fn from(variant: Variant) -> Self {
        let Variant { name, width, height, fit, focus, format, quality, background, enlarge, .. } = variant;
        Self { name, width, height, fit, focus, format, quality, background, enlarge }
    }
}

#[cfg(test)]
impl From<Job> for JobV5 {
    fn from(job: Job) -> Self {
        Self {
            id: job.id,
            client: job.client,
            status: job.status,
            revision: job.revision,
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            due_at: job.due_at,
            priority: job.priority,
            deadline_ms: job.deadline_ms,
            deadline_at: job.deadline_at,
            cancel_requested_at: job.cancel_requested_at,
            deleted_at: job.deleted_at,
            purge_at: job.purge_at,
            idempotency_key: job.idempotency_key,
            attempt: job.attempt,
            input: job.input.unwrap(),
            variants: job.variants.into_iter().map(VariantV2::from).collect(),
            preset: job.preset,
            handling: job.handling,
            placeholder: job.placeholder,
            artifacts: job.artifacts,
            callback: job.callback,
            tags: job.tags,
            metadata: job.metadata,
            error: job.error,
            lease: job.lease,
            lease_token: job.lease_token,
        }
    }
}
