//! The embedded engine: [sled] behind one writer.
//!
//! - `engine`: three calls (get, scan, commit a batch) and opening; the only file that knows sled.
//! - `writer`: the one thread that changes anything; group commit. `tx`: what a step sees and does. `space`: room on the disk for it.
//!   `watchdog`: ends the process when it hangs.
//! - `keys`, `records`, `log`: what is on disk.
//! - `jobs`, `deliveries`, `clients`, `lists`, `replays`, `purge`: the use-cases, as plain code over a batch in the making.
//! - `audit`: whether all of it fits together, `as_of` one moment. `upgrade`: from older layouts, which are in `layouts`.
//! - `export`, `import`: all of it out, as of one moment, and in again.
//!
//! [sled]: https://docs.rs/sled/0.34.7

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use self::engine::Engine;
use self::records::JobRecord;
use self::space::Space;
use self::tx::Tx;
use self::writer::{Durability, Shared, Writer};
use super::{
    Audit, DeliveryPage, DeliveryQuery, DestinationStatus, Ending, Export, FetchRoom, Garbage, Idempotency,
    Import, JobAction, JobPage, JobQuery, Ledger, NextDue, Paused, Policy, Purged, ReplayAction, Signals,
    StartedReplay, Store, StoreError, Submission, Submitted, Waiting,
};
use crate::domain::client::ClientId;
use crate::domain::delivery::{Attempt, Delivery, Verdict};
use crate::domain::destination::{Destination, Standing};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, DestinationId, JobId, ReplayId, WorkerId};
use crate::domain::image::Placeholder;
use crate::domain::job::{Artifact, Input, Job, Source};
use crate::domain::replay::{NewReplay, Replay, ReplayItem};
use crate::domain::rotation::ClientSecrets;
use crate::domain::secret::Keyring;

mod as_of;
mod audit;
mod clients;
mod deliveries;
mod engine;
mod export;
mod import;
mod jobs;
mod keys;
mod layouts;
mod lists;
mod log;
mod purge;
mod records;
mod replays;
mod space;
mod turns;
mod tx;
mod upgrade;
mod watchdog;
mod writer;

pub use engine::OpenError;

/// How the embedded store is opened.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much of the tree sled keeps in memory, in bytes; the process uses somewhat more.
    pub cache_bytes: u64,
    /// What holds for every record.
    pub policy: Policy,
}

/// The embedded store: one process, one folder.
pub struct SledStore {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    /// One, for the export that may be under way.
    exports: Arc<Semaphore>,
    audits: Arc<Semaphore>,
}

impl SledStore {
    /// Opens the store in `folder`, or makes it, and frees what a process that died had claimed.
    ///
    /// It blocks: call it off the runtime's threads.
    pub fn open(folder: &Path, options: Options, now: Timestamp) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder { path: folder.to_owned(), source };
        space::give_way(folder).map_err(failed)?;
        let engine = Engine::open(folder, options.cache_bytes, &options.policy)?;
        let space = Space::new(folder).map_err(failed)?;
        let shared = Arc::new(Shared::load(engine, options.policy).map_err(OpenError::Unreadable)?);
        let writer = Writer::start(Arc::clone(&shared), space).map_err(OpenError::Thread)?;
        match writer.write_blocking(Durability::Synced, move |tx| free_all(tx, now)) {
            Err(StoreError::Full) => {
                *shared.stale_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            }
            freed => freed.map_err(OpenError::Unreadable)?,
        }
        let (exports, audits) = (Arc::new(Semaphore::new(1)), Arc::new(Semaphore::new(1)));
        Ok(Self { shared, writer: Arc::new(writer), exports, audits })
    }

    /// A job that was just written, with its callback as that is now: what it takes is in memory.
    fn shown(&self, job: Job) -> Result<Job, StoreError> {
        deliveries::shown(&self.shared, job)
    }

    /// Runs a read off the runtime's threads, since it may have to wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Shared) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || read(&shared))
            .await
            .map_err(|error| StoreError::Engine(error.into()))?
    }
}

/// sled locks its folder, so whoever held a lease is not alive: nothing needs to wait for it to run out.
fn free_all(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    jobs::free_all(tx, now)
}

#[async_trait]
impl Store for SledStore {
    async fn submit(&self, submission: Submission, now: Timestamp) -> Result<Submitted, StoreError> {
        match self.writer.take_in(move |tx| jobs::submit(tx, submission, now)).await? {
            Submitted::Repeated(job) => self.shown(job).map(Submitted::Repeated),
            new => Ok(new),
        }
    }

    async fn submit_source(
        &self,
        submission: Submission<Source>,
        now: Timestamp,
    ) -> Result<Submitted, StoreError> {
        match self.writer.take_in(move |tx| jobs::submit(tx, submission, now)).await? {
            Submitted::Repeated(job) => self.shown(job).map(Submitted::Repeated),
            new => Ok(new),
        }
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        // Two records, which are in the cache or one read of the disk away: a hop to another thread takes longer.
        jobs::get(&self.shared.engine, id)?.map(|job| self.shown(job)).transpose()
    }

    async fn jobs(&self, query: JobQuery) -> Result<JobPage, StoreError> {
        self.read(move |shared| {
            let JobPage { jobs, next } = jobs::list(&shared.engine, &query)?;
            let jobs = jobs.into_iter().map(|job| deliveries::shown(shared, job));
            Ok(JobPage { jobs: jobs.collect::<Result<_, _>>()?, next })
        })
        .await
    }

    async fn claim_jobs(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        // Synced, because a first claim is an event.
        self.writer.write(Durability::Synced, move |tx| jobs::claim(tx, worker, limit, lease, now)).await
    }

    async fn claim_fetches(
        &self,
        worker: WorkerId,
        room: FetchRoom,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        self.writer
            .write(Durability::Synced, move |tx| jobs::claim_fetches(tx, worker, room, lease, now))
            .await
    }

    async fn picture_fetched(
        &self,
        id: JobId,
        token: u64,
        input: Input,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let job =
            self.writer.write(Durability::Synced, move |tx| jobs::fetched(tx, id, token, input, now)).await?;
        self.shown(job)
    }

    async fn sweep_jobs(&self, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(Durability::Synced, move |tx| jobs::sweep(tx, now)).await
    }

    async fn extend_job(&self, id: JobId, token: u64, until: Timestamp) -> Result<Job, StoreError> {
        self.writer
            .write(Durability::Written, move |tx| {
                tx.update(id, |record: &mut JobRecord| record.job.extend_lease(token, until))
            })
            .await
            .map(|record| record.job)
    }

    async fn add_artifact(
        &self,
        id: JobId,
        token: u64,
        artifact: Artifact,
        placeholder: Option<Placeholder>,
    ) -> Result<(), StoreError> {
        self.writer
            .write(Durability::Written, move |tx| {
                tx.update(id, |record: &mut JobRecord| record.job.add_artifact(token, artifact, placeholder))
            })
            .await
            .map(drop)
    }

    async fn finish_job(
        &self,
        id: JobId,
        token: u64,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let job =
            self.writer.write(Durability::Synced, move |tx| jobs::finish(tx, id, token, ending, now)).await?;
        self.shown(job)
    }

    async fn change_job(
        &self,
        id: JobId,
        action: JobAction,
        expected: Option<Vec<u64>>,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        let step = move |tx: &mut Tx<'_>| jobs::change(tx, id, action, expected.as_deref(), now);
        self.shown(self.writer.write(Durability::Synced, step).await?)
    }

    async fn ahead_of(&self, id: JobId, limit: usize) -> Result<Option<usize>, StoreError> {
        self.read(move |shared| turns::ahead_of(&shared.engine, id, limit)).await
    }

    async fn claim_deliveries(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<(Delivery, Event)>, StoreError> {
        self.writer
            .write(Durability::Written, move |tx| deliveries::claim(tx, worker, limit, lease, now))
            .await
    }

    async fn settle_delivery(
        &self,
        id: DeliveryId,
        token: u64,
        attempt: Attempt,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<Delivery, StoreError> {
        self.writer
            .write(Durability::Synced, move |tx| deliveries::settle(tx, id, token, &attempt, &verdict, now))
            .await
    }

    async fn give_back_delivery(&self, id: DeliveryId, token: u64) -> Result<(), StoreError> {
        self.writer.write(Durability::Written, move |tx| deliveries::give_back(tx, id, token)).await
    }

    async fn cancel_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<Delivery, StoreError> {
        self.writer.write(Durability::Synced, move |tx| deliveries::cancel(tx, id, now)).await
    }

    async fn send_again(&self, id: DeliveryId, force: bool, now: Timestamp) -> Result<Delivery, StoreError> {
        self.writer.write(Durability::Synced, move |tx| deliveries::send_again(tx, id, force, now)).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.read(move |shared| lists::deliveries(shared, &query)).await
    }

    async fn oldest_undelivered(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(|shared| lists::oldest_undelivered(&shared.engine)).await
    }

    async fn destination(&self, id: DestinationId) -> Result<Option<DestinationStatus>, StoreError> {
        self.read(move |shared| deliveries::destination(shared, id)).await
    }

    async fn destinations(
        &self,
        after: Option<DestinationId>,
        limit: usize,
    ) -> Result<Vec<DestinationStatus>, StoreError> {
        self.read(move |shared| deliveries::destinations(shared, after, limit)).await
    }

    async fn standings(&self, limit: usize) -> Result<BTreeMap<Standing, u64>, StoreError> {
        self.read(move |shared| deliveries::standings(shared, limit)).await
    }

    async fn pause_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError> {
        self.writer.write(Durability::Synced, move |tx| deliveries::pause_destination(tx, id, now)).await
    }

    async fn resume_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError> {
        self.writer.write(Durability::Synced, move |tx| deliveries::resume_destination(tx, id, now)).await
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(move |shared| deliveries::get(shared, id)).await
    }

    async fn deliveries_of(&self, job: JobId) -> Result<Vec<Delivery>, StoreError> {
        self.read(move |shared| deliveries::of_job(shared, job)).await
    }

    async fn attempts_of(&self, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        self.read(move |shared| deliveries::attempts(&shared.engine, delivery)).await
    }

    async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        // What is committed and not yet synced is not told.
        let last = *self.shared.signals.events.borrow();
        self.read(move |shared| log::read(&shared.engine, after, last, limit)).await
    }

    async fn events_of(&self, job: JobId, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(move |shared| jobs::events_of(&shared.engine, job, after, limit)).await
    }

    async fn purge(&self, limit: usize, now: Timestamp) -> Result<Purged, StoreError> {
        self.writer.write(Durability::Synced, move |tx| purge::purge(tx, limit, now)).await
    }

    async fn garbage(&self, limit: usize) -> Result<Vec<Garbage>, StoreError> {
        let garbage = self.read(move |shared| purge::garbage(&shared.engine, limit)).await?;
        // Asked afterwards: what was purged since an export began was listed while it held its permit.
        Ok(if self.exports.available_permits() == 0 { Vec::new() } else { garbage })
    }

    async fn forget_garbage(&self, jobs: Vec<JobId>) -> Result<(), StoreError> {
        self.writer
            .write(Durability::Written, move |tx| {
                purge::forget(tx, &jobs);
                Ok(())
            })
            .await
    }

    async fn set_paused(&self, paused: Paused) -> Result<(), StoreError> {
        self.writer.write(Durability::Synced, move |tx| tx.put(keys::PAUSED.to_vec(), &paused)).await?;
        self.shared.pause(paused);
        Ok(())
    }

    fn paused(&self) -> Paused {
        *self.shared.paused.read().unwrap_or_else(PoisonError::into_inner)
    }

    async fn secrets(&self, client: &ClientId) -> Result<Option<ClientSecrets>, StoreError> {
        let key = keys::secrets(client);
        self.read(move |shared| shared.engine.get(&key)).await
    }

    async fn set_secrets(&self, secrets: ClientSecrets) -> Result<(), StoreError> {
        self.writer
            .write(Durability::Synced, move |tx| {
                let key = keys::secrets(&secrets.client);
                let stored = tx.get::<ClientSecrets>(&key)?.map_or(0, |stored| stored.revision);
                if secrets.revision != stored + 1 {
                    return Err(StoreError::Outdated);
                }
                tx.put(key, &secrets)
            })
            .await
    }

    async fn keyring(&self) -> Result<Keyring, StoreError> {
        self.read(|shared| Ok(shared.engine.get(keys::KEYRING)?.unwrap_or_default())).await
    }

    async fn set_keyring(&self, keyring: Keyring) -> Result<(), StoreError> {
        self.writer.write(Durability::Synced, move |tx| tx.put(keys::KEYRING.to_vec(), &keyring)).await
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        audit::begin(self).await
    }

    async fn export(&self) -> Result<Box<dyn Export>, StoreError> {
        export::begin(self, export::IMAGE_BYTES).await
    }

    async fn import(&self) -> Result<Box<dyn Import>, StoreError> {
        import::begin(self).await
    }

    async fn next_due(&self) -> Result<NextDue, StoreError> {
        let paused = self.paused();
        self.read(move |shared| jobs::next_due(shared, paused)).await
    }

    async fn start_replay(
        &self,
        new: NewReplay,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<StartedReplay, StoreError> {
        self.writer.take_in(move |tx| replays::start(tx, new, idempotency, now)).await
    }

    async fn change_replay(
        &self,
        id: ReplayId,
        action: ReplayAction,
        now: Timestamp,
    ) -> Result<Replay, StoreError> {
        self.writer.write(Durability::Synced, move |tx| replays::change(tx, id, action, now)).await
    }

    async fn advance_replay(&self, id: ReplayId, limit: usize, now: Timestamp) -> Result<Replay, StoreError> {
        let (replay, page) = self
            .read(move |shared| {
                let replay = replays::get(&shared.engine, id)?.ok_or(StoreError::NotFound)?;
                let page = lists::deliveries(shared, &DeliveryQuery::next_of(&replay, limit))?;
                Ok((replay, page))
            })
            .await?;
        let ids: Vec<_> = page.deliveries.iter().map(|delivery| delivery.id).collect();
        self.writer.write(Durability::Synced, move |tx| replays::take(tx, &replay, ids, page.next, now)).await
    }

    async fn replay(&self, id: ReplayId) -> Result<Option<Replay>, StoreError> {
        self.read(move |shared| replays::get(&shared.engine, id)).await
    }

    async fn replays(&self, before: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>, StoreError> {
        self.read(move |shared| replays::list(&shared.engine, before, limit)).await
    }

    async fn running_replays(&self) -> Result<Vec<ReplayId>, StoreError> {
        self.read(|shared| replays::running(&shared.engine)).await
    }

    async fn replay_items(
        &self,
        id: ReplayId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<ReplayItem>, StoreError> {
        self.read(move |shared| replays::items(&shared.engine, id, from, limit)).await
    }

    fn standing(&self, id: DestinationId) -> Option<Standing> {
        self.shared.dispatch().destination(id).map(Destination::standing)
    }

    fn pace_destination(&self, id: DestinationId, per_minute: Option<u32>) {
        self.shared.dispatch().pace(id, per_minute);
    }

    fn ledger(&self) -> Ledger {
        *self.shared.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Waiting {
        self.shared.waiting()
    }

    fn signals(&self) -> &Signals {
        &self.shared.signals
    }

    async fn close(&self) {
        self.writer.close().await;
    }
}
