//! The port in its plainest form: ordered maps behind a lock, where everything that is looked for is filtered from all
//! that there is, and nothing outlives the process.
//!
//! It is the reference that the conformance suite (`tests/store_suite`) compares the other engines with, which is why
//! it is public: it is to be obviously right, not fast, and it shares the domain with them and nothing else.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use self::books::Books;
use self::transfer::{MemoryExport, MemoryImport};
use super::{
    Audit, DeliveryPage, DeliveryQuery, DestinationStatus, Ending, Export, FetchRoom, Garbage, Idempotency,
    Import, JobAction, JobPage, JobQuery, Ledger, NextDue, Paused, Policy, Purged, ReplayAction, Signals,
    StartedReplay, Store, StoreError, Submission, Submitted, Waiting,
};
use crate::domain::client::ClientId;
use crate::domain::delivery::{Attempt, Delivery, DeliveryState, Verdict};
use crate::domain::destination::{Destination, HoldReason, Standing};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, DestinationId, JobId, ReplayId, WorkerId};
use crate::domain::image::Placeholder;
use crate::domain::job::{Artifact, Input, Job, Source};
use crate::domain::replay::{NewReplay, Replay, ReplayItem, ReplayState};
use crate::domain::rotation::ClientSecrets;
use crate::domain::secret::Keyring;

mod books;
mod clients;
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
            (books.turn, books.fetch_turn) = (None, None);
            books.restart();
            books.free_jobs(Timestamp::MAX, now)
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
            self.signals.fetches.notify_one();
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

    async fn submit_source(
        &self,
        submission: Submission<Source>,
        now: Timestamp,
    ) -> Result<Submitted, StoreError> {
        self.step(|books| books.submit(submission, now))
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(|books| books.jobs.get(&id).map(|job| books.shown(job)))
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

    async fn claim_fetches(
        &self,
        worker: WorkerId,
        room: FetchRoom,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.step(|books| books.claim_fetches(worker, room, lease, now))
    }

    async fn picture_fetched(
        &self,
        id: JobId,
        token: u64,
        input: Input,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(|books| books.fetched(id, token, input, now).map(|job| books.shown(&job)))
    }

    async fn sweep_jobs(&self, now: Timestamp) -> Result<(), StoreError> {
        self.step(|books| books.sweep(now))
    }

    async fn extend_job(&self, id: JobId, token: u64, until: Timestamp) -> Result<Job, StoreError> {
        self.step(|books| books.change_job(id, |job| job.extend_lease(token, until)))
    }

    async fn add_artifact(
        &self,
        id: JobId,
        token: u64,
        artifact: Artifact,
        placeholder: Option<Placeholder>,
    ) -> Result<(), StoreError> {
        self.step(|books| {
            books.change_job(id, |job| job.add_artifact(token, artifact, placeholder)).map(drop)
        })
    }

    async fn finish_job(
        &self,
        id: JobId,
        token: u64,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(|books| books.finish(id, token, ending, now).map(|job| books.shown(&job)))
    }

    async fn change_job(
        &self,
        id: JobId,
        action: JobAction,
        expected: Option<Vec<u64>>,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(|books| books.change(id, action, expected.as_deref(), now).map(|job| books.shown(&job)))
    }

    async fn ahead_of(&self, id: JobId, limit: usize) -> Result<Option<usize>, StoreError> {
        Ok(self.lock().ahead_of(id).map(|ahead| ahead.min(limit)))
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

    async fn give_back_delivery(&self, id: DeliveryId, token: u64) -> Result<(), StoreError> {
        self.step(|books| books.give_back(id, token))?;
        self.signals.deliveries.notify_one();
        Ok(())
    }

    async fn cancel_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<Delivery, StoreError> {
        self.step(|books| books.take_over(id, now, |delivery| delivery.cancel(now)))
    }

    async fn send_again(&self, id: DeliveryId, force: bool, now: Timestamp) -> Result<Delivery, StoreError> {
        self.step(|books| books.take_over(id, now, |delivery| delivery.send_again(None, force, now)))
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.read(|books| books.list_deliveries(&query))
    }

    async fn oldest_undelivered(&self) -> Result<Option<Timestamp>, StoreError> {
        let is_open =
            |one: &&Delivery| matches!(one.state, DeliveryState::Pending | DeliveryState::Exhausted);
        self.read(|books| books.deliveries.values().filter(is_open).map(|one| one.id.created_at()).min())
    }

    async fn destination(&self, id: DestinationId) -> Result<Option<DestinationStatus>, StoreError> {
        self.read(|books| books.destinations.get(&id).map(|one| books.status(one)))
    }

    async fn destinations(
        &self,
        after: Option<DestinationId>,
        limit: usize,
    ) -> Result<Vec<DestinationStatus>, StoreError> {
        self.read(|books| {
            let behind = |id: &DestinationId| after.is_none_or(|after| after < *id);
            let all = books.destinations.values().filter(|one| behind(&one.id)).take(limit);
            all.map(|one| books.status(one)).collect()
        })
    }

    async fn standings(&self, limit: usize) -> Result<BTreeMap<Standing, u64>, StoreError> {
        self.read(|books| {
            let mut standings = BTreeMap::new();
            for one in books.destinations.values().take(limit) {
                *standings.entry(books.status(one).destination.standing()).or_default() += 1;
            }
            standings
        })
    }

    async fn pause_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError> {
        self.step(|books| books.change_destination(id, now, |one| one.hold(HoldReason::Paused, now)))
    }

    async fn resume_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError> {
        let resumed = self.step(|books| books.change_destination(id, now, |one| one.resume(now)))?;
        self.signals.deliveries.notify_one();
        Ok(resumed)
    }

    async fn start_replay(
        &self,
        new: NewReplay,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<StartedReplay, StoreError> {
        self.step(|books| books.start_replay(new, idempotency, now))
    }

    async fn change_replay(
        &self,
        id: ReplayId,
        action: ReplayAction,
        now: Timestamp,
    ) -> Result<Replay, StoreError> {
        self.step(|books| books.change_replay(id, action, now))
    }

    async fn advance_replay(&self, id: ReplayId, limit: usize, now: Timestamp) -> Result<Replay, StoreError> {
        self.step(|books| books.advance_replay(id, limit, now))
    }

    async fn replay(&self, id: ReplayId) -> Result<Option<Replay>, StoreError> {
        self.read(|books| books.replays.get(&id).cloned())
    }

    async fn replays(&self, before: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>, StoreError> {
        let older = |replay: &&Replay| before.is_none_or(|before| replay.id < before);
        self.read(|books| books.replays.values().rev().filter(older).take(limit).cloned().collect())
    }

    async fn running_replays(&self) -> Result<Vec<ReplayId>, StoreError> {
        let takes = |replay: &&Replay| replay.state == ReplayState::Running && !replay.is_at_end;
        self.read(|books| books.replays.values().filter(takes).map(|replay| replay.id).collect())
    }

    async fn replay_items(
        &self,
        id: ReplayId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<ReplayItem>, StoreError> {
        self.read(|books| {
            let items = books.replay_items.range((id, from)..=(id, u64::MAX));
            items.take(limit).map(|(_, item)| item.clone()).collect()
        })
    }

    fn standing(&self, id: DestinationId) -> Option<Standing> {
        self.lock().standing(id)
    }

    fn pace_destination(&self, id: DestinationId, per_minute: Option<u32>) {
        self.lock().pace(id, per_minute);
    }

    fn ledger(&self) -> Ledger {
        self.lock().ledger()
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(|books| {
            let found = books.deliveries.values().find(|delivery| delivery.id == id);
            found.map(|delivery| books.leased(delivery))
        })
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
        self.signals.fetches.notify_one();
        Ok(())
    }

    fn paused(&self) -> Paused {
        self.lock().paused
    }

    async fn secrets(&self, client: &ClientId) -> Result<Option<ClientSecrets>, StoreError> {
        self.read(|books| books.secrets.get(client).cloned())
    }

    async fn set_secrets(&self, secrets: ClientSecrets) -> Result<(), StoreError> {
        self.step(|books| {
            let stored = books.secrets.get(&secrets.client).map_or(0, |stored| stored.revision);
            if secrets.revision != stored + 1 {
                return Err(StoreError::Outdated);
            }
            books.secrets.insert(secrets.client.clone(), secrets);
            Ok(())
        })
    }

    async fn keyring(&self) -> Result<Keyring, StoreError> {
        self.read(|books| books.keyring.clone())
    }

    async fn set_keyring(&self, keyring: Keyring) -> Result<(), StoreError> {
        self.step(|books| {
            books.keyring = keyring;
            Ok(())
        })
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

    fn waiting(&self) -> Waiting {
        self.lock().count_waiting()
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }

    async fn close(&self) {
        self.lock().closed = true;
    }
}
