//! The port in its plainest form: ordered maps behind a lock, where everything that is looked for is filtered from all
//! that there is, and nothing outlives the process.
//!
//! It is the reference that the conformance suite (`tests/store_suite`) compares the other engines with, which is why
//! it is public: it is to be obviously right, not fast, and it shares the domain with them and nothing else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use self::books::Books;
use self::transfer::{MemoryExport, MemoryImport};
use super::{
    Audit, Ending, Export, Garbage, Import, JobPage, JobQuery, NextDue, Paused, Policy, Purged, Signals,
    Store, StoreError, Submission, Submitted,
};
use crate::domain::delivery::{Attempt, Delivery, Verdict};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, JobId, WorkerId};
use crate::domain::job::{Artifact, Job};

mod books;
mod transfer;

/// A store that is gone with its process.
pub struct MemoryStore {
    books: Arc<Mutex<Books>>,
    is_exporting: Arc<AtomicBool>,
    signals: Signals,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let books = Arc::new(Mutex::new(Books::new(policy)));
        Self { books, is_exporting: Arc::default(), signals: Signals::default() }
    }

    /// What closing and opening does to a store: nobody who held a lease is alive, and the turns begin anew.
    pub fn reopen(&self, now: Timestamp) {
        self.lock().closed = false;
        let freed = self.step(|books| {
            books.turn = None;
            books.free_jobs(Timestamp::MAX, now)?;
            books.free_deliveries(Timestamp::MAX, now)
        });
        debug_assert!(freed.is_ok(), "what is leased can be freed");
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, read: impl FnOnce(&Books) -> T) -> Result<T, StoreError> {
        let books = self.lock();
        if books.closed { Err(StoreError::Closed) } else { Ok(read(&books)) }
    }

    /// One step, and the wake-ups that follow from it.
    fn step<T>(&self, step: impl FnOnce(&mut Books) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut books = self.lock();
        if books.closed {
            return Err(StoreError::Closed);
        }
        let (waiting, pending) = (books.waiting(), books.pending());
        let result = step(&mut books)?;
        if !books.waiting().is_subset(&waiting) {
            self.signals.jobs.notify_one();
        }
        if !books.pending().is_subset(&pending) {
            self.signals.deliveries.notify_one();
        }
        let last = books.last_seq;
        self.signals.events.send_if_modified(|seq| std::mem::replace(seq, last) != last);
        Ok(result)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn submit(&self, submission: Submission, now: Timestamp) -> Result<Submitted, StoreError> {
        self.step(|books| books.submit(submission, now))
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(|books| books.jobs.get(&id).cloned())
    }

    async fn jobs(&self, query: JobQuery) -> Result<JobPage, StoreError> {
        self.read(|books| books.list(&query))
    }

    async fn claim_jobs(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.step(|books| books.claim_jobs(worker, limit, lease, now))
    }

    async fn sweep_jobs(&self, now: Timestamp) -> Result<(), StoreError> {
        self.step(|books| books.sweep(now))
    }

    async fn extend_job(&self, id: JobId, token: u64, until: Timestamp) -> Result<Job, StoreError> {
        self.step(|books| books.change_job(id, |job| job.extend_lease(token, until)))
    }

    async fn add_artifact(&self, id: JobId, token: u64, artifact: Artifact) -> Result<(), StoreError> {
        self.step(|books| books.change_job(id, |job| job.add_artifact(token, artifact)).map(drop))
    }

    async fn finish_job(
        &self,
        id: JobId,
        token: u64,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(|books| books.finish(id, token, ending, now))
    }

    async fn cancel_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.step(|books| books.cancel(id, now))
    }

    async fn retry_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.step(|books| books.retry(id, now))
    }

    async fn delete_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.step(|books| books.delete(id, now))
    }

    async fn restore_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.step(|books| books.restore(id, now))
    }

    async fn claim_deliveries(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<(Delivery, Event)>, StoreError> {
        self.step(|books| books.claim_deliveries(worker, limit, lease, now))
    }

    async fn settle_delivery(
        &self,
        id: DeliveryId,
        token: u64,
        attempt: Attempt,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<Delivery, StoreError> {
        self.step(|books| books.settle(id, token, attempt, &verdict, now))
    }

    async fn give_back_delivery(&self, id: DeliveryId, token: u64, now: Timestamp) -> Result<(), StoreError> {
        self.step(|books| books.change_delivery(id, |delivery| delivery.give_back(token, now)).map(drop))
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(|books| books.deliveries.values().find(|delivery| delivery.id == id).cloned())
    }

    async fn deliveries_of(&self, job: JobId) -> Result<Vec<Delivery>, StoreError> {
        self.read(|books| books.deliveries_of(job))
    }

    async fn attempts_of(&self, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        self.read(|books| books.attempts_of(delivery))
    }

    async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|books| {
            books.events.values().filter(|event| event.seq > after).take(limit).cloned().collect()
        })
    }

    async fn events_of(&self, job: JobId, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(|books| {
            books.events_of(job).into_iter().filter(|event| event.seq > after).take(limit).collect()
        })
    }

    async fn purge(&self, limit: usize, now: Timestamp) -> Result<Purged, StoreError> {
        self.step(|books| Ok(books.purge(limit, now)))
    }

    async fn garbage(&self, limit: usize) -> Result<Vec<Garbage>, StoreError> {
        // An export needs the pictures of the jobs that it tells of.
        let limit = if self.is_exporting.load(Ordering::Acquire) { 0 } else { limit };
        self.read(|books| books.garbage.values().take(limit).cloned().collect())
    }

    async fn forget_garbage(&self, jobs: Vec<JobId>) -> Result<(), StoreError> {
        self.step(|books| {
            books.garbage.retain(|job, _| !jobs.contains(job));
            Ok(())
        })
    }

    async fn set_paused(&self, paused: Paused) -> Result<(), StoreError> {
        self.step(|books| {
            books.paused = paused;
            Ok(())
        })?;
        self.signals.jobs.notify_one();
        Ok(())
    }

    fn paused(&self) -> Paused {
        self.lock().paused
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        self.read(Books::audit)
    }

    async fn export(&self) -> Result<Box<dyn Export>, StoreError> {
        Ok(Box::new(self.read(|books| MemoryExport::begin(books, &self.is_exporting))??))
    }

    async fn import(&self) -> Result<Box<dyn Import>, StoreError> {
        Ok(Box::new(MemoryImport::begin(&self.books)?))
    }

    async fn next_due(&self) -> Result<NextDue, StoreError> {
        self.read(Books::next_due)
    }

    fn waiting_jobs(&self) -> u64 {
        self.lock().waiting().len() as u64
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }

    async fn close(&self) {
        self.lock().closed = true;
    }
}
