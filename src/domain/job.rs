//! A job: its states, and the only functions that move it from one to another.
//!
//! ```text
//! queued ─► processing ─► completed | failed | cancelled
//!    ▲           │                        │
//!    ├───────────┘                        │  lease ran out, given back, or a failed try that may be repeated
//!    └────────────────────────────────────┘  somebody asks for another go
//! ```
//!
//! Each transition names what happened, is guarded by the state it leaves and, where a worker
//! makes it, by the lease's fencing token: a worker that outlived its lease cannot finish a job
//! that another now owns.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::client::ClientId;
use super::event::EventKind;
use super::id::{JobId, WorkerId};
use super::image::Variant;

mod parts;

pub use parts::{Artifact, Callback, CallbackProgress, Input, JobError, Priority};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobStatus {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Processing,
    /// Its artifacts are stored.
    Completed,
    /// It ended without its artifacts; `error` says why.
    Failed,
    /// It was called off before its end.
    Cancelled,
}

impl JobStatus {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the name in the API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether the job's story is over.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.ending().is_some()
    }

    /// The event that tells of this ending; `None` while the story goes on.
    #[must_use]
    pub fn ending(self) -> Option<EventKind> {
        match self {
            Self::Queued | Self::Processing => None,
            Self::Completed => Some(EventKind::JobCompleted),
            Self::Failed => Some(EventKind::JobFailed),
            Self::Cancelled => Some(EventKind::JobCancelled),
        }
    }
}

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

/// What a client asked for, checked and stored, before it is a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// The job's id; the picture is stored under it already.
    pub id: JobId,
    /// Who asked.
    pub client: ClientId,
    /// The picture.
    pub input: Input,
    /// What to make of it.
    pub variants: Vec<Variant>,
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
    /// How many tries were begun and not given back.
    pub attempt: u32,
    /// The picture.
    pub input: Input,
    /// What is wanted.
    pub variants: Vec<Variant>,
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
    pub fn accepted(new: NewJob, now: Timestamp) -> Self {
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
            input: new.input,
            variants: new.variants,
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

    /// One artifact is stored; a repeated try need not make it again.
    pub fn add_artifact(&mut self, token: u64, artifact: Artifact) -> Result<(), TransitionError> {
        self.held(token)?;
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

    /// The variants that have no artifact yet.
    #[must_use]
    pub fn missing_variants(&self) -> Vec<Variant> {
        let made = |variant: &&Variant| !self.artifacts.iter().any(|artifact| artifact.name == variant.name);
        self.variants.iter().filter(made).cloned().collect()
    }

    /// The job as an event keeps it: without the secret, which may change while the event does not.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        let mut copy = self.clone();
        if let Some(callback) = &mut copy.callback {
            (callback.secret, callback.headers) = (None, Vec::new());
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
pub(crate) mod tests {
    use super::*;
    use crate::domain::image::Format;
    use crate::domain::retry::RetryOverride;
    use crate::domain::secret::{SealedSecret, SigningSecret};

    pub(crate) fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn worker(n: u8) -> WorkerId {
        WorkerId::new(at(0), &[n; 10])
    }

    pub(crate) fn new_job(n: u8) -> NewJob {
        NewJob {
            id: JobId::new(at(1), &[n; 10]),
            client: ClientId::dev(),
            input: Input {
                filename: Some("cat.jpg".to_owned()),
                format: Format::Jpeg,
                bytes: 1000,
                width: 40,
                height: 30,
                sha256: [n; 32],
            },
            variants: Variant::defaults(),
            callback: Some(Callback {
                url: "https://hooks.example/abc".parse().unwrap(),
                events: EventKind::TERMINAL.to_vec(),
                secret: Some(SealedSecret::plain(&SigningSecret::from_entropy([n; 32]))),
                headers: Vec::new(),
                retry: RetryOverride::default(),
                latest: None,
            }),
            priority: Priority::Normal,
            start_at: None,
            deadline_ms: None,
            tags: Vec::new(),
            metadata: None,
        }
    }

    pub(crate) fn error() -> JobError {
        JobError {
            code: "image-undecodable".to_owned(),
            title: "The image cannot be decoded".to_owned(),
            detail: "bad".to_owned(),
            retryable: false,
        }
    }

    fn claimed() -> (Job, u64) {
        let mut job = Job::accepted(new_job(1), at(1));
        job.claim(worker(1), at(31), at(2)).unwrap();
        let token = job.lease_token;
        (job, token)
    }

    #[test]
    fn a_job_is_claimed_once() {
        let (mut job, _) = claimed();
        assert_eq!(job.status, JobStatus::Processing);
        let again = job.claim(worker(2), at(40), at(3));
        assert_eq!(again, Err(TransitionError::WrongState(JobStatus::Processing)));
    }

    #[test]
    fn a_worker_that_outlived_its_lease_is_fenced_off() {
        let (mut job, stale) = claimed();
        job.lose_worker(at(40)).unwrap();
        job.claim(worker(2), at(80), at(41)).unwrap();
        let before = job.clone();
        assert_eq!(job.complete(stale, at(42)), Err(TransitionError::StaleLease));
        assert_eq!(job.fail(stale, error(), at(42)), Err(TransitionError::StaleLease));
        assert_eq!(job.extend_lease(stale, at(99)), Err(TransitionError::StaleLease));
        assert_eq!(job.give_back(stale, None, at(42)), Err(TransitionError::StaleLease));
        assert_eq!(job, before);
        assert_eq!(job.complete(job.lease_token, at(43)), Ok(()));
    }

    #[test]
    fn a_job_ends_once() {
        let (mut job, token) = claimed();
        job.complete(token, at(3)).unwrap();
        let again = job.fail(token, error(), at(4));
        assert_eq!(again, Err(TransitionError::WrongState(JobStatus::Completed)));
        assert_eq!((job.finished_at, job.error), (Some(at(3)), None));
    }

    #[test]
    fn what_shutdown_cuts_off_is_no_try_and_what_kills_the_worker_is() {
        let (mut job, token) = claimed();
        job.give_back(token, None, at(3)).unwrap();
        assert_eq!((job.status, job.attempt), (JobStatus::Queued, 0));
        job.claim(worker(2), at(40), at(4)).unwrap();
        job.lose_worker(at(41)).unwrap();
        assert_eq!((job.status, job.attempt, job.started_at), (JobStatus::Queued, 1, Some(at(2))));
    }

    #[test]
    fn artifacts_that_exist_are_not_made_again() {
        let (mut job, token) = claimed();
        let preview = Artifact {
            name: "preview".to_owned(),
            format: Format::Jpeg,
            bytes: 10,
            width: 40,
            height: 30,
            sha256: [0; 32],
        };
        job.add_artifact(token, preview.clone()).unwrap();
        job.add_artifact(token, preview).unwrap();
        assert_eq!(job.artifacts.len(), 1);
        let missing: Vec<_> = job.missing_variants().into_iter().map(|variant| variant.name).collect();
        assert_eq!(missing, ["optimized", "thumbnail"]);
    }

    #[test]
    fn a_snapshot_has_no_secret() {
        let job = Job::accepted(new_job(1), at(1));
        assert!(job.callback.as_ref().is_some_and(|callback| callback.secret.is_some()));
        assert!(job.snapshot().callback.is_some_and(|callback| callback.secret.is_none()));
    }

    #[test]
    fn a_queued_job_is_cancelled_at_once_and_a_running_one_when_it_stops() {
        let mut queued = Job::accepted(new_job(1), at(1));
        queued.cancel(at(2)).unwrap();
        assert_eq!((queued.status, queued.finished_at), (JobStatus::Cancelled, Some(at(2))));
        assert_eq!(queued.cancel(at(3)), Err(TransitionError::WrongState(JobStatus::Cancelled)));

        let (running, token) = claimed();
        let asked = |mut job: Job| {
            job.cancel(at(3)).unwrap();
            job.cancel(at(4)).unwrap();
            assert_eq!((job.status, job.cancel_requested_at), (JobStatus::Processing, Some(at(3))));
            job
        };
        let mut stopped = asked(running.clone());
        stopped.stop_cancelled(token, at(5)).unwrap();
        let mut lost = asked(running.clone());
        lost.lose_worker(at(5)).unwrap();
        let mut failed_try = asked(running.clone());
        failed_try.retry_later(token, error(), at(9), at(5)).unwrap();
        for job in [stopped, lost, failed_try] {
            assert_eq!((job.status, job.finished_at), (JobStatus::Cancelled, Some(at(5))));
        }
        // Who commits first wins.
        let mut done = asked(running);
        done.complete(token, at(5)).unwrap();
        assert_eq!(done.status, JobStatus::Completed);
    }

    #[test]
    fn another_go_starts_afresh_and_keeps_what_was_made() {
        let (mut job, token) = claimed();
        job.fail(token, error(), at(3)).unwrap();
        job.keep_until(at(100));
        job.retry(at(7)).unwrap();
        assert_eq!((job.status, job.attempt, &job.error), (JobStatus::Queued, 0, &None));
        assert_eq!((job.finished_at, job.purge_at, job.started_at), (None, None, Some(at(2))));
        let (mut job, token) = claimed();
        job.complete(token, at(3)).unwrap();
        assert_eq!(job.retry(at(7)), Err(TransitionError::WrongState(JobStatus::Completed)));
    }

    #[test]
    fn a_deadline_ends_a_job_in_any_state_and_starts_again_with_it() {
        let mut job = Job::accepted(NewJob { deadline_ms: Some(10_000), ..new_job(1) }, at(1));
        assert_eq!(job.deadline_at, Some(at(11)));
        job.claim(worker(1), at(31), at(2)).unwrap();
        let token = job.lease_token;
        job.expire(error(), at(11)).unwrap();
        assert_eq!(job.complete(token, at(12)), Err(TransitionError::WrongState(JobStatus::Failed)));
        job.retry(at(20)).unwrap();
        assert_eq!(job.deadline_at, Some(at(30)));
    }

    #[test]
    fn deleting_hides_what_has_ended_and_cancels_what_has_not() {
        let (mut done, token) = claimed();
        done.complete(token, at(3)).unwrap();
        done.keep_until(at(100));
        assert!(done.delete(at(4), at(50)));
        assert!(!done.delete(at(5), at(60)));
        assert_eq!((done.status, done.deleted_at), (JobStatus::Completed, Some(at(4))));
        assert_eq!(done.purge_at, Some(at(50)));
        assert_eq!(done.retry(at(5)), Err(TransitionError::WrongState(JobStatus::Completed)));
        done.restore(at(100)).unwrap();
        assert_eq!((done.deleted_at, done.purge_at), (None, Some(at(100))));
        assert_eq!(done.restore(at(100)), Err(TransitionError::NotDeleted));

        let mut queued = Job::accepted(new_job(1), at(1));
        queued.delete(at(2), at(50));
        assert_eq!(queued.status, JobStatus::Cancelled);
        assert_eq!(queued.retry(at(3)), Err(TransitionError::Deleted));
        let (mut running, _) = claimed();
        running.delete(at(2), at(50));
        assert_eq!((running.status, running.cancel_requested_at), (JobStatus::Processing, Some(at(2))));
    }

    #[test]
    fn a_scheduled_job_waits_and_a_time_that_has_passed_is_now() {
        let mut later = Job::accepted(NewJob { start_at: Some(at(9)), ..new_job(1) }, at(1));
        assert_eq!(later.due_at, Some(at(9)));
        later.become_ready().unwrap();
        assert_eq!(later.due_at, None);
        let past = Job::accepted(NewJob { start_at: Some(at(1)), ..new_job(1) }, at(1));
        assert_eq!(past.due_at, None);
    }
}
