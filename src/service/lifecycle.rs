//! What clients and operators do to a job that is there: call it off, try it again, delete, restore; and pause the queue.

use super::{Service, ServiceError};
use crate::domain::client::Caller;
use crate::domain::id::JobId;
use crate::domain::job::{Job, JobStatus};
pub use crate::store::{Paused, Waiting};

/// Where pictures are worked on.
#[derive(Debug)]
pub struct ImagingState {
    /// What keeps imaging processes in, and whether it stands; `None` where threads of the service do the work.
    pub walls: Option<Vec<(&'static str, bool)>>,
    /// The bytes of memory that are reserved, of how many.
    pub memory: (u64, u64),
}

impl Service {
    /// Where pictures are worked on.
    #[must_use]
    pub fn imaging(&self) -> ImagingState {
        let walls = self.imaging.walls().map(|walls| walls.named().to_vec());
        ImagingState { walls, memory: self.imaging.budget().usage() }
    }

    /// Calls a job off: a queued one is cancelled, a running one is asked to stop at its next step.
    pub async fn cancel_job(&self, caller: &Caller, id: JobId) -> Result<Job, ServiceError> {
        self.job(caller, id).await?;
        let job = self.store.cancel_job(id, self.clock.now()).await?;
        self.stop_running(&job);
        Ok(job)
    }

    /// Queues a job again that failed or was cancelled.
    pub async fn retry_job(&self, caller: &Caller, id: JobId) -> Result<Job, ServiceError> {
        self.job(caller, id).await?;
        Ok(self.store.retry_job(id, self.clock.now()).await?)
    }

    /// Hides a job from lists until it is restored or purged, and cancels it unless it has ended.
    pub async fn delete_job(&self, caller: &Caller, id: JobId) -> Result<Job, ServiceError> {
        self.job(caller, id).await?;
        let job = self.store.delete_job(id, self.clock.now()).await?;
        self.stop_running(&job);
        Ok(job)
    }

    /// Takes a deletion back.
    pub async fn restore_job(&self, caller: &Caller, id: JobId) -> Result<Job, ServiceError> {
        self.job(caller, id).await?;
        Ok(self.store.restore_job(id, self.clock.now()).await?)
    }

    /// Stops or continues taking jobs in, and working on them. It outlasts the process.
    pub async fn set_paused(&self, paused: Paused) -> Result<(), ServiceError> {
        tracing::info!(intake = paused.intake, work = paused.work, "paused");
        Ok(self.store.set_paused(paused).await?)
    }

    /// What is paused.
    #[must_use]
    pub fn paused(&self) -> Paused {
        self.store.paused()
    }

    /// How many jobs wait for a worker.
    #[must_use]
    pub fn waiting(&self) -> Waiting {
        self.store.waiting()
    }

    /// Tells the work on this job, if it runs here, that it was called off; elsewhere its next heartbeat does.
    fn stop_running(&self, job: &Job) {
        if job.status == JobStatus::Processing && job.cancel_requested_at.is_some() {
            self.call_off(job.id);
        }
    }
}
