//! Doing a job's work: from a claim to its end.

use std::ops::ControlFlow;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::job_error;
use super::{Service, ServiceError, view};
use crate::blobs::ORIGINAL;
use crate::clock::random_fraction;
use crate::domain::job::{Artifact, Job, JobError, TransitionError};
use crate::imaging::{self, Rendered, Stage, Step};
use crate::store::{Ending, StoreError};

/// Steps that imaging may be ahead of the disk: one artifact being stored, one finished.
const STEPS_AHEAD: usize = 2;

/// Why the work on a job stops before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
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
}

impl Service {
    /// Takes up to `limit` jobs that are due.
    pub async fn claim_jobs(&self, limit: usize) -> Result<Vec<Job>, ServiceError> {
        let now = self.clock.now();
        Ok(self.store.claim_jobs(self.worker, limit, self.settings.lease, now).await?)
    }

    /// Works on a claimed job until it ends, is given back because `shutdown` was asked for, or is lost to another worker.
    pub async fn process(&self, job: Job, shutdown: &CancellationToken) {
        let token = job.lease_token;
        let called_off = self.begin(job.id);
        let ending = self.attempt_job(&job, token, shutdown, &called_off).await;
        self.end(job.id);
        let Some(ending) = ending else {
            tracing::warn!(job = %job.id, "the lease was lost; another worker has the job");
            return;
        };
        let finished = self
            .when_there_is_room(|| self.store.finish_job(job.id, token, ending.clone(), self.clock.now()))
            .await;
        match finished {
            Ok(job) => {
                let code = job.error.as_ref().map(|error| error.code.as_str());
                tracing::info!(job = %job.id, status = job.status.as_str(), attempt = job.attempt, code, "job");
            }
            // Its lease runs out, and it is tried again.
            Err(error) => {
                tracing::error!(job = %job.id, error = &error as &dyn std::error::Error, "a job's end was not recorded");
            }
        }
    }

    /// `None` when the job is another worker's by now.
    async fn attempt_job(
        &self,
        job: &Job,
        token: u64,
        shutdown: &CancellationToken,
        called_off: &CancellationToken,
    ) -> Option<Ending> {
        if job.attempt > self.settings.job_retry.max_attempts {
            let detail = format!("the worker died during each of {} tries", job.attempt - 1);
            return Some(Ending::Failed(failure(
                "worker-lost",
                "The picture could not be processed",
                &detail,
            )));
        }
        match self.run(job, token, shutdown, called_off).await {
            Ok(None) => Some(Ending::Completed),
            Ok(Some(Stop::Shutdown)) => Some(Ending::GivenBack(None)),
            Ok(Some(Stop::Cancelled)) => Some(Ending::Cancelled),
            Ok(Some(Stop::LeaseLost))
            | Err(ServiceError::Store(StoreError::Transition(TransitionError::StaleLease))) => None,
            Ok(Some(Stop::OutOfTime)) => {
                let detail = format!("it took longer than {} s", self.settings.limits.max_time.as_secs_f32());
                Some(Ending::Failed(failure("processing-timeout", "The picture took too long", &detail)))
            }
            Err(error) => Some(self.after_failure(job, &error)),
        }
    }

    /// A fault of the picture is final; a fault of ours is tried again, later each time, and then is final too.
    fn after_failure(&self, job: &Job, error: &ServiceError) -> Ending {
        tracing::warn!(job = %job.id, attempt = job.attempt, error = error as &dyn std::error::Error, "a try failed");
        let error = match error {
            ServiceError::Image(error) => job_error(error),
            other => JobError {
                retryable: true,
                ..failure("processing-failed", "The picture could not be processed", &other.to_string())
            },
        };
        let due = self.settings.job_retry.next_attempt_at(self.clock.now(), job.attempt, random_fraction());
        match due.filter(|_| error.retryable) {
            Some(due) => Ending::RetryAt(error, due),
            None => Ending::Failed(error),
        }
    }

    /// Makes the artifacts that are missing, and stores each as soon as it is made.
    async fn run(
        &self,
        job: &Job,
        token: u64,
        shutdown: &CancellationToken,
        called_off: &CancellationToken,
    ) -> Result<Option<Stop>, ServiceError> {
        let original = self.blobs.read(job.id, ORIGINAL).await?;
        let (variants, limits) = (job.missing_variants(), self.settings.limits);
        let (steps, mut made) = mpsc::channel(STEPS_AHEAD);
        let work = self.imaging.run(move || {
            imaging::render(&original, &variants, &limits, &mut |step| match steps.blocking_send(step) {
                Ok(()) => ControlFlow::Continue(()),
                // Nobody takes the steps any more: the work is to stop.
                Err(_) => ControlFlow::Break(()),
            })
        });
        let watch = self.watch(job, token, shutdown, called_off);
        tokio::pin!(work, watch);
        let mut current = Try { job, token, made: job.artifacts.len() };
        let result = loop {
            tokio::select! {
                Some(step) = made.recv() => self.take(&mut current, step).await?,
                result = &mut work => break result,
                // The thread finds the channel closed at its next step; nothing waits for it meanwhile.
                stop = &mut watch => return stop.map(Some),
            }
        };
        result?;
        while let Some(step) = made.recv().await {
            self.take(&mut current, step).await?;
        }
        Ok(None)
    }

    /// Keeps the lease, until the work must stop.
    async fn watch(
        &self,
        job: &Job,
        token: u64,
        shutdown: &CancellationToken,
        called_off: &CancellationToken,
    ) -> Result<Stop, ServiceError> {
        let deadline = tokio::time::sleep(self.settings.limits.max_time);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(Stop::Shutdown),
                () = called_off.cancelled() => return Ok(Stop::Cancelled),
                () = &mut deadline => return Ok(Stop::OutOfTime),
                () = tokio::time::sleep(self.settings.heartbeat) => {
                    let until = self.clock.now().checked_add(self.settings.lease).unwrap_or(jiff::Timestamp::MAX);
                    match self.store.extend_job(job.id, token, until).await {
                        Ok(job) if job.cancel_requested_at.is_some() => return Ok(Stop::Cancelled),
                        Ok(_) => {}
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
    async fn keep(&self, current: &Try<'_>, rendered: Rendered) -> Result<(), ServiceError> {
        let Rendered { name, format, width, height, bytes } = rendered;
        let stored = self.blobs.put(current.job.id, &name, &bytes).await?;
        let artifact = Artifact { name, format, bytes: stored.bytes, width, height, sha256: stored.sha256 };
        Ok(self.store.add_artifact(current.job.id, current.token, artifact).await?)
    }
}

fn failure(code: &str, title: &str, detail: &str) -> JobError {
    JobError { code: code.to_owned(), title: title.to_owned(), detail: detail.to_owned(), retryable: false }
}
