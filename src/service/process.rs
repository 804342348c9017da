//! Doing a job's work: from a claim to its end.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::{fetch_error, job_error};
use super::{Service, ServiceError, view};
use crate::blobs::ORIGINAL;
use crate::clock::random_fraction;
use crate::domain::id::JobId;
use crate::domain::image::{Placeholder, named_by};
use crate::domain::job::{Artifact, Job, JobError};
use crate::domain::retry::RetryPolicy;
use crate::imaging::{ImagingError, Permit, Rendered, Stage, Step, Task};
use crate::store::{Ending, StoreError};

/// Steps that imaging may be ahead of the disk: more than a job has, so that a disk that stalls does not use up
/// the time that the picture may take.
const STEPS_AHEAD: usize = 128;
/// How long a job waits whose artifacts found no room on the disk.
const NO_ROOM_DELAY: Duration = Duration::from_secs(5);
/// How long a job waits that got nowhere near its source.
const NO_WAY_DELAY: Duration = Duration::from_secs(30);
/// For so long since it began, no such try counts. Beyond that they do: to some sources there is no way from here at all.
const NO_WAY_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Why the work on a job stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The process stops.
    Shutdown,
    /// The lease is another's.
    LeaseLost,
    /// It was called off.
    Cancelled,
    /// It takes too long.
    OutOfTime,
}

/// What is known of a try while it runs.
struct Try<'a> {
    job: &'a Job,
    token: u64,
    made: usize,
    /// Goes with the next artifact, as it would be a commit by itself.
    placeholder: Option<Placeholder>,
}

impl Service {
    /// Takes up to `limit` jobs that are due.
    pub async fn claim_jobs(&self, limit: usize) -> Result<Vec<Job>, ServiceError> {
        // A picture that cannot be stored need not be made.
        self.blobs.check_room_for_artifacts()?;
        let now = self.clock.now();
        Ok(self.store.claim_jobs(self.worker, limit, self.settings.lease, now).await?)
    }

    /// Works on a claimed job, on the thread that was taken for it, until it ends, is given back because
    /// `shutdown` was asked for, or is lost to another worker.
    pub async fn process(&self, job: Job, thread: Permit, shutdown: &CancellationToken) {
        let token = job.lease_token;
        let called_off = self.begin(job.id);
        let ending = self.attempt_job(&job, token, thread, shutdown, &called_off).await;
        self.end(job.id);
        let Some(ending) = ending else {
            tracing::warn!(job = %job.id, "the lease was lost; another worker has the job");
            return;
        };
        self.conclude(job.id, token, &ending).await;
    }

    /// Records how a try ended.
    pub(super) async fn conclude(&self, id: JobId, token: u64, ending: &Ending) {
        let finished = self
            .when_there_is_room(|| self.store.finish_job(id, token, ending.clone(), self.clock.now()))
            .await;
        match finished {
            Ok(job) => {
                let code = job.error.as_ref().map(|error| error.code.as_str());
                tracing::info!(job = %job.id, status = job.status.as_str(), attempt = job.attempt, code, "job");
                if job.status.is_terminal() {
                    self.drain.ended(self.clock.now(), self.store.waiting().work > 0);
                }
                self.changed.notify_waiters();
            }
            // Its lease runs out, and it is tried again.
            Err(error) => {
                tracing::error!(job = %id, error = &error as &dyn std::error::Error, "a job's end was not recorded");
            }
        }
    }

    /// `None` when the job is another worker's by now.
    async fn attempt_job(
        &self,
        job: &Job,
        token: u64,
        thread: Permit,
        shutdown: &CancellationToken,
        called_off: &CancellationToken,
    ) -> Option<Ending> {
        if let Some(ending) = self.after_too_many(job) {
            return Some(ending);
        }
        match self.run(job, token, thread, shutdown, called_off).await {
            Ok(None) => Some(Ending::Completed),
            Ok(Some(Stop::Shutdown)) => Some(Ending::GivenBack(None)),
            Ok(Some(Stop::Cancelled)) => Some(Ending::Cancelled),
            Ok(Some(Stop::LeaseLost)) | Err(ServiceError::Store(StoreError::Transition(_))) => None,
            Ok(Some(Stop::OutOfTime)) => {
                let detail = format!("it took longer than {} s", self.settings.max_time.as_secs_f32());
                Some(Ending::Failed(failure("processing-timeout", "The picture took too long", &detail)))
            }
            Err(error) => Some(self.after_failure(job, &error)),
        }
    }

    /// The end of a job whose last try ended with its worker.
    pub(super) fn after_too_many(&self, job: &Job) -> Option<Ending> {
        let detail = format!("the worker died during the last of {} tries", job.attempt.saturating_sub(1));
        // The picture need not be to blame: every job that a server's death cuts off counts a try.
        let ending = || JobError {
            retryable: true,
            ..failure("worker-lost", "The work on the picture was cut off too often", &detail)
        };
        (job.attempt > self.retry_policy(job).max_attempts).then(|| Ending::Failed(ending()))
    }

    pub(super) fn after_failure(&self, job: &Job, error: &ServiceError) -> Ending {
        tracing::warn!(job = %job.id, attempt = job.attempt, error = error as &dyn std::error::Error, "a try failed");
        let now = self.clock.now();
        let began = job.started_at.unwrap_or(now);
        if error.is_on_the_way() && now.duration_since(began) < NO_WAY_FOR {
            return Ending::GivenBack(Some(now.checked_add(NO_WAY_DELAY).unwrap_or(Timestamp::MAX)));
        }
        after_failure(error, job.attempt, self.retry_policy(job), now)
    }

    fn retry_policy(&self, job: &Job) -> &RetryPolicy {
        let of_fetches = self.fetching.retry_policy().filter(|_| job.input.is_none());
        of_fetches.unwrap_or(&self.settings.job_retry)
    }

    /// Makes what is missing, and keeps the lease meanwhile. Whatever is under way when the work must stop is
    /// dropped: an artifact that is half stored is deleted, or made again by the next try.
    async fn run(
        &self,
        job: &Job,
        token: u64,
        thread: Permit,
        shutdown: &CancellationToken,
        called_off: &CancellationToken,
    ) -> Result<Option<Stop>, ServiceError> {
        tokio::select! {
            made = self.make(job, token, thread) => made,
            stop = self.watch(job, token, shutdown, called_off) => stop.map(Some),
        }
    }

    /// Makes the artifacts that are missing, and stores each as soon as it is made.
    async fn make(&self, job: &Job, token: u64, thread: Permit) -> Result<Option<Stop>, ServiceError> {
        let variants = job.missing_variants();
        let watermarks =
            named_by(&variants, &self.settings.presets.watermarks).map_err(ImagingError::from)?;
        let input = self.blobs.read(job.id, ORIGINAL).await?;
        let (handling, limits) = (job.handling, self.settings.limits);
        let task = Task { input, variants, watermarks, handling, limits };
        let task = Arc::new(task);
        // Waiting for others costs a job none of its time; each of them has a bound of its own.
        let room = self.imaging.reserve(&thread, &task).await?;
        let (steps, mut made) = mpsc::channel(STEPS_AHEAD);
        let work = self.imaging.render(thread, room, task, steps);
        let work = tokio::time::timeout(self.settings.max_time, work);
        tokio::pin!(work);
        let mut current = Try { job, token, made: job.artifacts.len(), placeholder: None };
        let result = loop {
            tokio::select! {
                Some(step) = made.recv() => self.take(&mut current, step).await?,
                result = &mut work => break result,
            }
        };
        match result {
            Ok(result) => result?,
            // The thread finds the channel closed at its next step; nothing waits for it meanwhile.
            Err(_) => return Ok(Some(Stop::OutOfTime)),
        }
        while let Some(step) = made.recv().await {
            self.take(&mut current, step).await?;
        }
        Ok(None)
    }

    /// Keeps the lease, until the work must stop.
    pub(super) async fn watch(
        &self,
        job: &Job,
        token: u64,
        shutdown: &CancellationToken,
        called_off: &CancellationToken,
    ) -> Result<Stop, ServiceError> {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Stop::Shutdown),
                () = called_off.cancelled() => return Ok(Stop::Cancelled),
                () = tokio::time::sleep(self.settings.heartbeat) => {
                    let until = self.clock.now().checked_add(self.settings.lease).unwrap_or(Timestamp::MAX);
                    match self.store.extend_job(job.id, token, until).await {
                        Ok(job) if job.cancel_requested_at.is_some() => return Ok(Stop::Cancelled),
                        // Without room nobody else can claim it either.
                        Ok(_) | Err(StoreError::Full) => {}
                        Err(StoreError::Transition(_)) => return Ok(Stop::LeaseLost),
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
    }

    async fn take(&self, current: &mut Try<'_>, step: Step) -> Result<(), ServiceError> {
        match step {
            Step::Stage(stage) => self.show(current, Some(stage)),
            Step::Placeholder(placeholder) => current.placeholder = Some(placeholder),
            Step::Artifact(rendered) => {
                self.keep(current, rendered).await?;
                current.made += 1;
                self.show(current, None);
            }
        }
        Ok(())
    }

    fn show(&self, current: &Try<'_>, stage: Option<Stage>) {
        let progress =
            view::Progress::running(current.made, current.job.variants.len(), stage.map(Stage::as_str));
        self.set_progress(current.job.id, progress);
    }

    /// The bytes are durable before the job says that they are there.
    async fn keep(&self, current: &mut Try<'_>, rendered: Rendered) -> Result<(), ServiceError> {
        let Rendered { name, format, width, height, bytes } = rendered;
        let stored = self.blobs.put(current.job.id, &name, &bytes).await?;
        let artifact = Artifact { name, format, bytes: stored.bytes, width, height, sha256: stored.sha256 };
        let placeholder = current.placeholder.take();
        Ok(self.store.add_artifact(current.job.id, current.token, artifact, placeholder).await?)
    }
}

/// A fault of the picture is final; a fault of ours is tried again, later each time, and then is final too. A full
/// disk is neither: whichever try meets it, there is another when there may be room.
fn after_failure(error: &ServiceError, attempt: u32, policy: &RetryPolicy, now: Timestamp) -> Ending {
    let not_before = now.checked_add(error.retry_after()).unwrap_or(Timestamp::MAX);
    let error = match error {
        ServiceError::StorageFull => {
            return Ending::GivenBack(Some(now.checked_add(NO_ROOM_DELAY).unwrap_or(Timestamp::MAX)));
        }
        ServiceError::Image(error) => job_error(error),
        ServiceError::Fetch(error) => fetch_error(error),
        ServiceError::Invalid(faults) => {
            let all: Vec<_> =
                faults.iter().map(|fault| format!("{}: {}", fault.field, fault.detail)).collect();
            failure("validation", "The picture does not fit what is wanted of it", &all.join("; "))
        }
        other => JobError {
            retryable: true,
            ..failure("processing-failed", "The picture could not be processed", &other.to_string())
        },
    };
    match policy.next_attempt_at(now, attempt, random_fraction()).filter(|_| error.retryable) {
        Some(due) => Ending::RetryAt(error, due.max(not_before)),
        None => Ending::Failed(error),
    }
}

fn failure(code: &str, title: &str, detail: &str) -> JobError {
    JobError { code: code.to_owned(), title: title.to_owned(), detail: detail.to_owned(), retryable: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_fails_no_job() {
        let policy = RetryPolicy {
            initial: Duration::from_secs(2),
            multiplier: 2.0,
            max_delay: Duration::from_secs(60),
            max_attempts: 3,
        };
        let after = |error, attempt| after_failure(&error, attempt, &policy, Timestamp::UNIX_EPOCH);
        let fault = || ServiceError::Io(std::io::Error::other("a disk that fails"));
        assert!(matches!(after(fault(), 1), Ending::RetryAt(..)));
        assert!(matches!(after(fault(), 3), Ending::Failed(_)));
        let full = || ServiceError::from(std::io::Error::from(std::io::ErrorKind::StorageFull));
        for attempt in [1, 3, 4] {
            let later = Ending::GivenBack(Some(Timestamp::from_second(5).unwrap()));
            assert_eq!(after(full(), attempt), later);
        }
    }
}
