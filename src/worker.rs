//! The loops that time drives: claim, run, wait for the next.
//!
//! One loop takes jobs, one takes deliveries; both are [`work`]. What they do with what they took
//! is the service's.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::delivery::Delivery;
use crate::domain::event::Event;
use crate::domain::job::Job;
use crate::service::{Service, ServiceError};

mod fetches;
mod maintenance;
mod replays;

/// How long to wait before the next claim after the store failed.
const RETRY_CLAIM: Duration = Duration::from_secs(1);

/// A task that runs until it is told to stop. It may panic before, and then somebody must notice.
pub struct Supervised {
    name: &'static str,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Starts it.
    pub fn spawn(name: &'static str, task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { name, task: tokio::spawn(task) }
    }

    /// Returns the task's name when it has ended although nothing told it to.
    pub async fn failed(&mut self) -> &'static str {
        let cause = (&mut self.task).await.err().map(tracing::field::display);
        tracing::error!(task = self.name, cause, "a task that should run on has ended");
        self.name
    }

    /// Returns when it has ended, or had before.
    pub async fn stopped(&mut self) {
        if !self.task.is_finished() {
            // How it ended matters no more.
            let _ = (&mut self.task).await;
        }
    }
}

/// The running loops.
pub struct Workers {
    loops: Vec<Supervised>,
    stop: CancellationToken,
    cut_off: CancellationToken,
}

impl Workers {
    /// Starts the loops; at most `attempts` deliveries are under way at once, and what is no longer kept is
    /// removed every `maintenance`.
    #[must_use]
    pub fn start(service: &Arc<Service>, attempts: usize, maintenance: Duration) -> Self {
        let (stop, cut_off) = (CancellationToken::new(), CancellationToken::new());
        let jobs = Jobs { service: Arc::clone(service), stop: stop.clone() };
        let fetches = fetches::Fetches::new(service, stop.clone());
        let deliveries = Deliveries {
            service: Arc::clone(service),
            room: Arc::new(Semaphore::new(attempts)),
            cut_off: cut_off.clone(),
        };
        let (deadlines, old) = (Arc::clone(service), Arc::clone(service));
        let loops = vec![
            Supervised::spawn("the loop of jobs", work(jobs, stop.clone())),
            Supervised::spawn("the loop of fetches", work(fetches, stop.clone())),
            Supervised::spawn("the loop of deliveries", work(deliveries, stop.clone())),
            Supervised::spawn("the loop of deadlines", maintenance::keep_deadlines(deadlines, stop.clone())),
            Supervised::spawn("the loop of replays", replays::advance(Arc::clone(service), stop.clone())),
            Supervised::spawn("the loop of purges", maintenance::remove_old(old, maintenance, stop.clone())),
        ];
        Self { loops, stop, cut_off }
    }

    /// Returns the name of a loop that has ended although nothing told it to.
    pub async fn failed(&mut self) -> &'static str {
        let loops = self.loops.iter_mut().map(|one| Box::pin(one.failed()));
        futures_util::future::select_all(loops).await.0
    }

    /// Takes nothing more up, and gives running jobs back at their next step. Attempts go on.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns when everything that was taken up has ended or is given back.
    pub async fn stopped(&mut self) {
        for one in &mut self.loops {
            one.stopped().await;
        }
    }

    /// Gives attempts under way back, too.
    pub fn cut_off(&self) {
        self.cut_off.cancel();
    }
}

type Permit = Arc<OwnedSemaphorePermit>;

/// What a loop takes up, and what it does with it.
trait Work: Send + Sync + 'static {
    type Item: Send;

    fn service(&self) -> &Service;
    /// How much more may run.
    fn room(&self) -> &Arc<Semaphore>;
    /// What says that there may be something to claim.
    fn wake(&self) -> &Notify;
    fn claim(&self, limit: usize) -> impl Future<Output = Result<Vec<Self::Item>, ServiceError>> + Send;
    /// When there is next something to claim, without a wake-up.
    fn next_due(&self) -> impl Future<Output = Result<Option<Timestamp>, ServiceError>> + Send;
    /// There is room for the next when this has ended and no clone of `permit` is left.
    fn run(&self, item: Self::Item, permit: Permit) -> impl Future<Output = ()> + Send + 'static;
}

struct Jobs {
    service: Arc<Service>,
    stop: CancellationToken,
}

impl Work for Jobs {
    type Item = Job;

    fn service(&self) -> &Service {
        &self.service
    }

    fn room(&self) -> &Arc<Semaphore> {
        self.service.job_room()
    }

    fn wake(&self) -> &Notify {
        &self.service.signals().jobs
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Job>, ServiceError> {
        self.service.claim_jobs(limit).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, ServiceError> {
        Ok(self.service.next_due().await?.job)
    }

    fn run(&self, job: Job, thread: Permit) -> impl Future<Output = ()> + Send + 'static {
        let (service, stop) = (Arc::clone(&self.service), self.stop.clone());
        async move { service.process(job, thread, &stop).await }
    }
}

struct Deliveries {
    service: Arc<Service>,
    room: Arc<Semaphore>,
    cut_off: CancellationToken,
}

impl Work for Deliveries {
    type Item = (Delivery, Event);

    fn service(&self) -> &Service {
        &self.service
    }

    fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    fn wake(&self) -> &Notify {
        &self.service.signals().deliveries
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Self::Item>, ServiceError> {
        self.service.claim_deliveries(limit).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, ServiceError> {
        Ok(self.service.next_due().await?.delivery)
    }

    fn run(&self, (delivery, event): Self::Item, _: Permit) -> impl Future<Output = ()> + Send + 'static {
        let (service, cut_off) = (Arc::clone(&self.service), self.cut_off.clone());
        async move { service.deliver(delivery, &event, &cut_off).await }
    }
}

/// Claims as much as there is room for, runs each in a task of its own, and waits for room, a wake-up or
/// the next due time; until `stop`, and then for what is running.
async fn work<W: Work>(work: W, stop: CancellationToken) {
    let room = Arc::clone(work.room());
    let running = TaskTracker::new();
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            // Returned at once: it only waits until there is room for one.
            permit = room.acquire() => drop(permit),
        }
        // A wake-up from here on, before the wait below, is not missed: `Notify` keeps one.
        match work.claim(room.available_permits()).await {
            Ok(items) if items.is_empty() => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = work.wake().notified() => {}
                    () = wait_until_due(&work) => {}
                }
            }
            Ok(items) => {
                for item in items {
                    // It is there: this loop alone takes permits, and no more items than there were.
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await.map(Arc::new) else { return };
                    let task = work.run(item, Arc::clone(&permit));
                    running.spawn(async move {
                        task.await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                if !error.is_full() {
                    tracing::error!(error = &error as &dyn std::error::Error, "nothing could be claimed");
                }
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RETRY_CLAIM) => {}
                }
            }
        }
    }
    running.close();
    running.wait().await;
}

async fn wait_until_due<W: Work>(work: &W) {
    match work.next_due().await {
        Ok(Some(due)) => work.service().clock().sleep_until(due).await,
        // Only a wake-up brings work.
        Ok(None) => std::future::pending().await,
        // The next claim meets the same failure, and waits.
        Err(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_loop_that_panics_is_noticed_and_stopping_does_not_wait_for_it() {
        let (stop, cut_off) = (CancellationToken::new(), CancellationToken::new());
        let running = stop.clone().cancelled_owned();
        let mut workers = Workers {
            loops: vec![
                Supervised::spawn("jobs", running),
                Supervised::spawn("deliveries", async { panic!("a bug of ours") }),
            ],
            stop,
            cut_off,
        };
        assert_eq!(workers.failed().await, "deliveries");
        workers.stop();
        workers.stopped().await;
    }
}
