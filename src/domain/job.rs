//! A job: its states, and the only functions that move it from one to another.
//!
//! ```text
//! queued ─► processing ─► completed | failed | cancelled
//!    ▲           │                        │
//!    ├───────────┘                        │  lease ran out, given back, or a failed try that may be repeated
//!    └────────────────────────────────────┘  somebody asks for another go
//! ```
//!
//! A job whose picture is elsewhere is worked on twice: it is fetched, waits again, and then is like any other.
//!
//! Each transition names what happened, is guarded by the state it leaves and, where a worker
//! makes it, by the lease's fencing token: a worker that outlived its lease cannot finish a job
//! that another now owns.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::client::ClientId;
use super::destination::Destination;
use super::id::{DestinationId, JobId, WorkerId};
use super::image::{Handling, Placeholder, Variant};

mod parts;
mod status;

pub use parts::{Artifact, Callback, CallbackProgress, Input, JobError, Origin, Priority, Source};
pub use status::JobStatus;

/// The right to work on something, until a time; the token fences off whoever held it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub worker: WorkerId,
    /// Grows with each claim.
    pub token: u64,
    /// When it runs out unless it is extended.
    #[serde(with = "millisecond::required")]
    pub until: Timestamp,
}

/// A transition that the present state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransitionError {
    /// The lease ran out, and the work may be another's by now.
    #[error("the lease is no longer held")]
    StaleLease,
    /// The job is not in the state that this starts from.
    #[error("not possible while {}", .0.as_str())]
    WrongState(JobStatus),
    /// The job is deleted, and this is for one that is not.
    #[error("not possible while deleted")]
    Deleted,
    /// The job is not deleted, and this is for one that is.
    #[error("not possible unless deleted")]
    NotDeleted,
}

/// What a client asked for, checked and stored, before it is a job; its picture is here, or is to be fetched from
/// a [`Source`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob<P = Input> {
    /// The job's id; a picture that is here is stored under it already.
    pub id: JobId,
    /// Who asked.
    pub client: ClientId,
    /// The picture.
    pub input: P,
    /// What to make of it.
    pub variants: Vec<Variant>,
    /// The configured name that stood for these variants.
    pub preset: Option<String>,
    /// How the picture is treated.
    pub handling: Handling,
    /// Who is told.
    pub callback: Option<Callback>,
    /// Whether it goes before the client's others.
    pub priority: Priority,
    /// No worker takes it up before then.
    pub start_at: Option<Timestamp>,
    /// How long it may take in all, from when it is accepted, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// The client's own labels.
    pub tags: Vec<String>,
    /// The client's own data: the text of a JSON object.
    pub metadata: Option<String>,
}

/// One accepted picture and what becomes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id, which sorts by creation.
    pub id: JobId,
    /// Whose it is.
    pub client: ClientId,
    /// Where it stands.
    pub status: JobStatus,
    /// Grows with every change that a client can see.
    pub revision: u64,
    /// When it was accepted.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When a worker first took it up.
    #[serde(with = "millisecond::optional")]
    pub started_at: Option<Timestamp>,
    /// When its story ended.
    #[serde(with = "millisecond::optional")]
    pub finished_at: Option<Timestamp>,
    /// When a queued job may be taken up; `None` is at once.
    #[serde(with = "millisecond::optional")]
    pub due_at: Option<Timestamp>,
    /// Whether it goes before the client's others.
    pub priority: Priority,
    /// How long it may take in all, in milliseconds.
    pub deadline_ms: Option<u64>,
    /// When it fails unless it has ended.
    #[serde(with = "millisecond::optional")]
    pub deadline_at: Option<Timestamp>,
    /// When somebody called it off while it was being worked on.
    #[serde(with = "millisecond::optional")]
    pub cancel_requested_at: Option<Timestamp>,
    /// When it was deleted, unless it was restored since.
    #[serde(with = "millisecond::optional")]
    pub deleted_at: Option<Timestamp>,
    /// When everything about it is removed, pictures included; only for jobs that have ended.
    #[serde(with = "millisecond::optional")]
    pub purge_at: Option<Timestamp>,
    /// The client's key for it, which goes when it goes.
    pub idempotency_key: Option<String>,
    /// How many tries were begun and not given back: to fetch its picture, and from when that is here, to make the
    /// artifacts.
    pub attempt: u32,
    /// The picture; `None` until it is here.
    pub input: Option<Input>,
    /// Where it is fetched from, if it did not come with the request.
    #[serde(default)]
    pub source: Option<Source>,
    /// What is wanted.
    pub variants: Vec<Variant>,
    /// The configured name that stood for these variants when the job was accepted.
    #[serde(default)]
    pub preset: Option<String>,
    /// How the picture is treated.
    #[serde(default)]
    pub handling: Handling,
    /// What is shown until the artifacts are; known with the first of them.
    #[serde(default)]
    pub placeholder: Option<Placeholder>,
    /// What was made.
    pub artifacts: Vec<Artifact>,
    /// Who is told.
    pub callback: Option<Callback>,
    /// The client's own labels.
    pub tags: Vec<String>,
    /// The client's own data: the text of a JSON object.
    pub metadata: Option<String>,
    /// Why it failed, or why its last try did.
    pub error: Option<JobError>,
    /// Who works on it.
    pub lease: Option<Lease>,
    /// The token of the latest claim.
    pub lease_token: u64,
}

impl Job {
    /// A job that was just accepted.
    #[must_use]
    pub fn accepted<P: Into<Origin>>(new: NewJob<P>, now: Timestamp) -> Self {
        let (input, source) = match new.input.into() {
            Origin::Here(input) => (Some(input), None),
            Origin::Elsewhere(source) => (None, Some(source)),
        };
        Self {
            id: new.id,
            client: new.client,
            status: JobStatus::Queued,
            revision: 1,
            created_at: now,
            started_at: None,
            finished_at: None,
            due_at: new.start_at.filter(|start| *start > now),
            priority: new.priority,
            deadline_ms: new.deadline_ms,
            deadline_at: deadline(now, new.deadline_ms),
            cancel_requested_at: None,
            deleted_at: None,
            purge_at: None,
            idempotency_key: None,
            attempt: 0,
            input,
            source,
            variants: new.variants,
            preset: new.preset,
            handling: new.handling,
            placeholder: None,
            artifacts: Vec::new(),
            callback: new.callback,
            tags: new.tags,
            metadata: new.metadata,
            error: None,
            lease: None,
            lease_token: 0,
        }
    }

    /// The time it waited for has come: queued stays queued, and a worker may take it up.
    pub fn become_ready(&mut self) -> Result<(), TransitionError> {
        self.expect(JobStatus::Queued)?;
        self.due_at = None;
        Ok(())
    }

    /// A worker takes the job up: queued → processing.
    pub fn claim(
        &mut self,
        worker: WorkerId,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<(), TransitionError> {
        self.expect(JobStatus::Queued)?;
        self.lease_token += 1;
        self.lease = Some(Lease { worker, token: self.lease_token, until });
        self.attempt += 1;
        self.due_at = None;
        self.started_at.get_or_insert(now);
        self.enter(JobStatus::Processing);
        Ok(())
    }

    /// The worker is alive and goes on: processing stays processing.
    pub fn extend_lease(&mut self, token: u64, until: Timestamp) -> Result<(), TransitionError> {
        let lease = self.held(token)?;
        self.lease = Some(Lease { until, ..lease });
        Ok(())
    }

    /// Its picture is here: processing → queued, for a worker that makes the artifacts, or cancelled if that was asked
    /// for, with all its tries before it. From where it came is not needed any more.
    pub fn fetched(&mut self, token: u64, input: Input, now: Timestamp) -> Result<(), TransitionError> {
        self.held(token)?;
        self.input = Some(input);
        if let Some(source) = &mut self.source {
            source.sealed = None;
        }
        self.attempt = 0;
        self.error = None;
        self.requeue(None, now);
        Ok(())
    }

    /// One artifact is stored, so that a repeated try need not make it again; with the first one the picture's
    /// placeholder is known, too.
    pub fn add_artifact(
        &mut self,
        token: u64,
        artifact: Artifact,
        placeholder: Option<Placeholder>,
    ) -> Result<(), TransitionError> {
        self.held(token)?;
        self.placeholder = placeholder.or_else(|| self.placeholder.take());
        self.artifacts.retain(|existing| existing.name != artifact.name);
        self.artifacts.push(artifact);
        self.revision += 1;
        Ok(())
    }

    /// Everything wanted is there: processing → completed.
    pub fn complete(&mut self, token: u64, now: Timestamp) -> Result<(), TransitionError> {
        self.held(token)?;
        self.error = None;
        self.end(JobStatus::Completed, now);
        Ok(())
    }

    /// It cannot be done: processing → failed.
    pub fn fail(&mut self, token: u64, error: JobError, now: Timestamp) -> Result<(), TransitionError> {
        self.held(token)?;
        self.error = Some(error);
        self.end(JobStatus::Failed, now);
        Ok(())
    }

    /// It was called off while it was being worked on: processing → cancelled.
    pub fn stop_cancelled(&mut self, token: u64, now: Timestamp) -> Result<(), TransitionError> {
        self.held(token)?;
        self.cancel_requested_at.get_or_insert(now);
        self.end(JobStatus::Cancelled, now);
        Ok(())
    }

    /// This try failed and another may not: processing → queued, due at `due_at`; or cancelled, if that was asked for.
    pub fn retry_later(
        &mut self,
        token: u64,
        error: JobError,
        due_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), TransitionError> {
        self.held(token)?;
        self.error = Some(error);
        self.requeue(Some(due_at), now);
        Ok(())
    }

    /// The worker gives it back unfinished, for no fault of the job: processing → queued, or cancelled if that
    /// was asked for. It is not counted as a try.
    pub fn give_back(
        &mut self,
        token: u64,
        due_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), TransitionError> {
        self.held(token)?;
        self.attempt = self.attempt.saturating_sub(1);
        self.requeue(due_at, now);
        Ok(())
    }

    /// The worker is gone: processing → queued, or cancelled if that was asked for. The try stays counted, since
    /// the job may be what ended the worker.
    pub fn lose_worker(&mut self, now: Timestamp) -> Result<(), TransitionError> {
        self.expect(JobStatus::Processing)?;
        self.requeue(None, now);
        Ok(())
    }

    /// Its deadline passed: queued or processing → failed. Who works on it finds the lease gone.
    pub fn expire(&mut self, error: JobError, now: Timestamp) -> Result<(), TransitionError> {
        self.expect_active()?;
        self.error = Some(error);
        self.end(JobStatus::Failed, now);
        Ok(())
    }

    /// Somebody calls it off: queued → cancelled; processing is asked to stop, once.
    pub fn cancel(&mut self, now: Timestamp) -> Result<(), TransitionError> {
        self.expect_active()?;
        if self.status == JobStatus::Queued {
            self.end(JobStatus::Cancelled, now);
        } else if self.cancel_requested_at.is_none() {
            self.cancel_requested_at = Some(now);
            self.revision += 1;
        }
        Ok(())
    }

    /// Somebody asks for another go: failed or cancelled → queued, with all its tries and its whole deadline
    /// before it. Artifacts that exist are not made again.
    pub fn retry(&mut self, now: Timestamp) -> Result<(), TransitionError> {
        if !matches!(self.status, JobStatus::Failed | JobStatus::Cancelled) {
            return Err(TransitionError::WrongState(self.status));
        }
        if self.deleted_at.is_some() {
            return Err(TransitionError::Deleted);
        }
        self.attempt = 0;
        self.error = None;
        (self.finished_at, self.cancel_requested_at, self.purge_at) = (None, None, None);
        self.due_at = None;
        self.deadline_at = deadline(now, self.deadline_ms);
        self.enter(JobStatus::Queued);
        Ok(())
    }

    /// Hides it from lists until it is restored or, at `purge_at`, purged; what has not ended is cancelled, too.
    /// Deleting again changes nothing; the answer says whether this did.
    pub fn delete(&mut self, now: Timestamp, purge_at: Timestamp) -> bool {
        if self.deleted_at.is_some() {
            return false;
        }
        // What has ended stays as it is.
        let _ = self.cancel(now);
        self.deleted_at = Some(now);
        self.purge_at = Some(purge_at);
        self.revision += 1;
        true
    }

    /// Takes a deletion back; if the job has ended it is kept until `keep_until`.
    pub fn restore(&mut self, keep_until: Timestamp) -> Result<(), TransitionError> {
        if self.deleted_at.take().is_none() {
            return Err(TransitionError::NotDeleted);
        }
        self.purge_at = self.status.is_terminal().then_some(keep_until);
        self.revision += 1;
        Ok(())
    }

    /// Says how long a job that has just ended is kept; one that is deleted keeps its time.
    pub fn keep_until(&mut self, until: Timestamp) {
        self.purge_at.get_or_insert(until);
    }

    /// Which source its picture is still to be fetched from: a client's own origin.
    #[must_use]
    pub fn awaits(&self) -> Option<DestinationId> {
        let source = self.source.as_ref().filter(|_| self.input.is_none())?;
        Some(Destination::id(&self.client, &source.url))
    }

    /// The variants that have no artifact yet.
    #[must_use]
    pub fn missing_variants(&self) -> Vec<Variant> {
        let made = |variant: &&Variant| !self.artifacts.iter().any(|artifact| artifact.name == variant.name);
        self.variants.iter().filter(made).cloned().collect()
    }

    /// The job as an event keeps it: without secrets, which may change while the event does not.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut copy = self.clone();
        if let Some(callback) = &mut copy.callback {
            (callback.secret, callback.headers) = (None, Vec::new());
        }
        if let Some(source) = &mut copy.source {
            source.sealed = None;
        }
        copy
    }

    fn held(&self, token: u64) -> Result<Lease, TransitionError> {
        self.expect_active()?;
        self.lease.filter(|lease| lease.token == token).ok_or(TransitionError::StaleLease)
    }

    fn enter(&mut self, status: JobStatus) {
        self.status = status;
        self.revision += 1;
    }

    fn expect(&self, status: JobStatus) -> Result<(), TransitionError> {
        if self.status == status { Ok(()) } else { Err(TransitionError::WrongState(self.status)) }
    }

    fn expect_active(&self) -> Result<(), TransitionError> {
        if self.status.is_terminal() { Err(TransitionError::WrongState(self.status)) } else { Ok(()) }
    }

    /// Back to the queue, unless it was called off meanwhile.
    fn requeue(&mut self, due_at: Option<Timestamp>, now: Timestamp) {
        if self.cancel_requested_at.is_some() {
            return self.end(JobStatus::Cancelled, now);
        }
        self.lease = None;
        self.due_at = due_at;
        self.enter(JobStatus::Queued);
    }

    fn end(&mut self, status: JobStatus, now: Timestamp) {
        self.lease = None;
        self.due_at = None;
        self.finished_at = Some(now);
        self.enter(status);
    }
}

fn deadline(now: Timestamp, millis: Option<u64>) -> Option<Timestamp> {
    now.checked_add(Duration::from_millis(millis?)).ok()
}

#[cfg(test)]
pub(crate) mod tests;
