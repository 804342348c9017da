//! Many jobs called off at once, by a filter, in bounded steps.

use futures_util::future::join_all;

use super::{Service, ServiceError};
use crate::domain::client::Caller;
use crate::domain::id::JobId;
use crate::domain::job::{Job, JobStatus};
use crate::store::{JobAction, JobPage, JobQuery, StoreError};

/// Jobs of one step, which share the commits of the store.
const STEP: usize = 100;
/// A call ends after the step with which it has found so many,
const MOST_MATCHED: usize = 1000;
/// or after so many steps: a filter that hardly any job fits still ends soon.
const MOST_STEPS: usize = 20;
/// As many are shown.
const SAMPLE: usize = 10;

/// What a call did, or would do.
#[derive(Debug, Default)]
pub struct BulkCancel {
    /// Jobs that fit and could be called off when they were looked at.
    pub matched: usize,
    /// The first of them, as they were.
    pub sample: Vec<Job>,
    /// They were queued, and are cancelled.
    pub cancelled: usize,
    /// They are being worked on, and stop at their next step.
    pub stopping: usize,
    /// They ended by themselves meanwhile.
    pub skipped: usize,
    /// Where the next call goes on, if not all were looked at.
    pub next: Option<JobId>,
}

impl Service {
    /// Calls off the jobs that fit, of those that the caller sees; or only looks for them.
    pub async fn cancel_jobs(
        &self,
        caller: &Caller,
        query: JobQuery,
        dry_run: bool,
    ) -> Result<BulkCancel, ServiceError> {
        let mut done = BulkCancel { next: query.before, ..BulkCancel::default() };
        for _ in 0..MOST_STEPS {
            let step = JobQuery { before: done.next, limit: STEP, ..query.clone() };
            let JobPage { mut jobs, next } = self.jobs(caller, step).await?;
            jobs.retain(|job| !job.status.is_terminal() && job.cancel_requested_at.is_none());
            done.matched += jobs.len();
            done.next = next;
            if !dry_run {
                self.cancel_each(&jobs, &mut done).await?;
            }
            jobs.truncate(SAMPLE.saturating_sub(done.sample.len()));
            done.sample.append(&mut jobs);
            if next.is_none() || done.matched >= MOST_MATCHED {
                break;
            }
        }
        Ok(done)
    }

    async fn cancel_each(&self, jobs: &[Job], done: &mut BulkCancel) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let cancels = jobs.iter().map(|job| self.store.change_job(job.id, JobAction::Cancel, None, now));
        let mut failed = None;
        for cancelled in join_all(cancels).await {
            match cancelled {
                Ok(job) if job.status == JobStatus::Cancelled => done.cancelled += 1,
                Ok(job) => {
                    self.stop_running(&job);
                    done.stopping += 1;
                }
                Err(StoreError::Transition(_) | StoreError::NotFound) => done.skipped += 1,
                // The others are called off all the same, and who waits for them is told.
                Err(error) => failed = Some(error),
            }
        }
        self.changed.notify_waiters();
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}
