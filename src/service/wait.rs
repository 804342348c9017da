//! Waiting for what becomes of a job, instead of asking again and again.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Service, ServiceError};
use crate::domain::client::Caller;
use crate::domain::id::JobId;
use crate::domain::job::Job;

/// Who may wait at once; each costs a connection, and a look at its job when something happens.
pub(super) const MAX_WAITERS: usize = 1024;
/// Between two looks of one waiter, so that a busy store is not read for each event by each of them.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

impl Service {
    /// The job once it is as `wanted`; or as it is when `limit` is up or the service stops. `None` when too many wait
    /// already.
    pub async fn awaited_job(
        &self,
        caller: &Caller,
        id: JobId,
        limit: Duration,
        wanted: impl Fn(&Job) -> bool + Send + Sync,
    ) -> Result<Option<Job>, ServiceError> {
        let Ok(_place) = self.waiters.try_acquire() else { return Ok(None) };
        // Before the first look, so that no event between the two is missed.
        let mut events = self.signals().events.subscribe();
        let mut looks = interval(LOOK_PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = sleep(limit);
        tokio::pin!(over);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let job = self.job(caller, id).await?;
            if wanted(&job) || over.is_elapsed() || !self.is_ready() {
                return Ok(Some(job));
            }
            tokio::select! {
                () = &mut over => continue,
                () = self.stopping.cancelled() => continue,
                _ = events.changed() => {}
                () = changed => {}
            }
            tokio::select! {
                _ = looks.tick() => {}
                () = &mut over => {}
                () = self.stopping.cancelled() => {}
            }
        }
    }
}
