//! What clients and operators do to a job that is there: call it off, try it again, delete, restore; and pause the queue.

use super::view::Reader;
use super::{Service, ServiceError};
use crate::domain::client::Caller;
use crate::domain::id::JobId;
use crate::domain::job::{Job, JobStatus};
use crate::store::StoreError;
pub use crate::store::{JobAction, Paused, Waiting};

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

    /// Does something to a job; if `at` names revisions, only while the job has one of them.
    pub async fn change_job(
        &self,
        caller: &Caller,
        id: JobId,
        action: JobAction,
        at: Option<Vec<u64>>,
    ) -> Result<Job, ServiceError> {
        self.job(caller, id).await?;
        let job = match self.store.change_job(id, action, at, self.clock.now()).await {
            Err(StoreError::Outdated) => {
                let job = self.job(caller, id).await?;
                let etag = self.view_job(&job, Reader::of_events(&self.settings.base_url)).etag();
                return Err(ServiceError::PreconditionFailed { etag });
            }
            changed => changed?,
        };
        self.stop_running(&job);
        self.changed.notify_waiters();
        Ok(job)
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
    pub(super) fn stop_running(&self, job: &Job) {
        if job.status == JobStatus::Processing && job.cancel_requested_at.is_some() {
            self.call_off(job.id);
        }
    }
}
