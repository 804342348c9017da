//! Removing what is no longer kept: records first, in one commit with a note of their pictures, then the pictures.

use std::time::Duration;

use super::{Service, ServiceError};

/// Jobs that one step purges, and purged jobs whose pictures one step removes.
const JOBS_AT_ONCE: usize = 100;
/// A picture without a job is given this long: its job may be about to be committed.
const ORPHAN_AGE: Duration = Duration::from_secs(60 * 60);

impl Service {
    /// Does what time asks of jobs, workers or not: what was to start later is ready, what had a deadline fails.
    pub async fn sweep_jobs(&self) -> Result<(), ServiceError> {
        Ok(self.store.sweep_jobs(self.clock.now()).await?)
    }

    /// Takes one step of purging; whether there is more to do.
    pub async fn purge(&self) -> Result<bool, ServiceError> {
        let purged = self.store.purge(JOBS_AT_ONCE, self.clock.now()).await?;
        if purged.jobs > 0 {
            tracing::info!(jobs = purged.jobs, "purged");
        }
        let garbage = self.store.garbage(JOBS_AT_ONCE).await?;
        let more = purged.more || garbage.len() == JOBS_AT_ONCE;
        let mut gone = Vec::new();
        for garbage in garbage {
            for name in &garbage.names {
                self.blobs.delete(garbage.job, name).await?;
            }
            gone.push(garbage.job);
        }
        if !gone.is_empty() {
            self.store.forget_garbage(gone).await?;
        }
        Ok(more)
    }

    /// Removes the pictures of one shard that no job knows: a process died between a picture and its job.
    pub async fn remove_orphans(&self, shard: u8) -> Result<(), ServiceError> {
        // A backup reads pictures whose jobs are purged by now; the next round will do.
        let Ok(_pictures) = self.pictures.try_write() else { return Ok(()) };
        let born_before = self.clock.now().checked_sub(ORPHAN_AGE).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        for (job, names) in self.blobs.in_shard(shard).await? {
            if job.created_at() < born_before && self.store.job(job).await?.is_none() {
                tracing::warn!(%job, "pictures without a job are removed");
                for name in names {
                    self.blobs.delete(job, &name).await?;
                }
            }
        }
        Ok(())
    }
}
