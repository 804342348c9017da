//! The engines under test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use darkroom::clock::Stopwatch;
use darkroom::domain::api_key::KeyHash;
use darkroom::domain::audit::AuditEntry;
use darkroom::domain::client::{Client, ClientId};
use darkroom::domain::delivery::{Attempt, Delivery, Verdict};
use darkroom::domain::destination::{Destination, Standing};
use darkroom::domain::event::Event;
use darkroom::domain::id::{AuditId, DeliveryId, DestinationId, JobId, ReplayId, WorkerId};
use darkroom::domain::image::Placeholder;
use darkroom::domain::job::{Artifact, Input, Job, Source};
use darkroom::domain::replay::{NewReplay, Replay, ReplayItem};
use darkroom::domain::rotation::ClientSecrets;
use darkroom::domain::secret::Keyring;
use darkroom::store::memory::MemoryStore;
use darkroom::store::sled::{OpenError, Options, SledStore};
use darkroom::store::{
    Audit, ClientStore, DeliveryPage, DeliveryQuery, DestinationStatus, Ending, Export, FetchRoom, Garbage,
    Idempotency, Import, JobAction, JobPage, JobQuery, Ledger, NextDue, Paused, Policy, Purged, ReplayAction,
    Signals, StartedReplay, Store, StoreError, Submission, Submitted, Waiting,
};
use futures_util::FutureExt as _;
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::rig::at;

/// What a case runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The model.
    Memory,
    /// sled, as it is used.
    Sled,
    /// sled, closed and opened after every step.
    Reopened,
}

impl Engine {
    pub fn open(self, policy: Policy) -> Arc<dyn Subject> {
        match self {
            Self::Memory => Arc::new(MemoryStore::new(policy)),
            Self::Sled => Arc::new(Reopening::open(policy, false)),
            Self::Reopened => Arc::new(Reopening::open(policy, true)),
        }
    }
}

/// A store that can be closed and opened while it is tested.
#[async_trait]
pub trait Subject: Store {
    async fn reopen(&self, now: Timestamp);
}

#[async_trait]
impl Subject for MemoryStore {
    async fn reopen(&self, now: Timestamp) {
        Self::reopen(self, now);
    }
}

/// sled, which may be closed and opened after every step that changes something.
///
/// Opening frees every lease, which is a step of its own: so while one is held, this keeps the store open. That way
/// every case runs here as it is, what survives an opening is exactly what was there before it, and this can insist
/// on that. What opening does to leases is a case (`opening_frees_what_was_claimed`), and the model test opens at any
/// time.
pub struct Reopening {
    /// `None` while it is closed.
    inner: RwLock<Option<Arc<SledStore>>>,
    /// Nobody is inside while it is closed.
    inside: tokio::sync::RwLock<()>,
    after_every_step: AtomicBool,
    /// What was claimed, and may still be.
    claimed: Mutex<(BTreeSet<JobId>, BTreeSet<DeliveryId>)>,
    /// The latest time that was passed in.
    latest: Mutex<Timestamp>,
    /// One for all the stores that come and go.
    signals: Signals,
    policy: Policy,
    folder: TempDir,
}

impl Reopening {
    pub fn open(policy: Policy, after_every_step: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let this = Self {
            inner: RwLock::new(Some(Arc::new(open(folder.path(), policy.clone(), at(0))))),
            policy,
            inside: tokio::sync::RwLock::default(),
            after_every_step: AtomicBool::new(after_every_step),
            claimed: Mutex::default(),
            latest: Mutex::new(at(0)),
            signals: Signals::default(),
            folder,
        };
        this.forward(&this.inner());
        this
    }

    fn inner(&self) -> Arc<SledStore> {
        Arc::clone(self.inner.read().unwrap().as_ref().expect("nobody is inside while it is closed"))
    }

    async fn read<T, F: Future<Output = T>>(&self, read: impl FnOnce(Arc<SledStore>) -> F) -> T {
        let _inside = self.inside.read().await;
        read(self.inner()).await
    }

    async fn step<T, F: Future<Output = T>>(
        &self,
        now: Option<Timestamp>,
        step: impl FnOnce(Arc<SledStore>) -> F,
    ) -> T {
        if let Some(now) = now {
            let mut latest = self.latest.lock().unwrap();
            *latest = now.max(*latest);
        }
        if !self.after_every_step.load(Ordering::Relaxed) {
            let _inside = self.inside.read().await;
            let result = step(self.inner()).await;
            self.forward(&self.inner());
            return result;
        }
        let _alone = self.inside.write().await;
        let result = step(self.inner()).await;
        if !self.holds_leases().await {
            let now = *self.latest.lock().unwrap();
            let before = Shown::of(&self.inner(), now).await;
            self.close_and_open().await;
            assert_eq!(Shown::of(&self.inner(), now).await, before, "the same before and after opening");
        }
        self.forward(&self.inner());
        result
    }

    async fn holds_leases(&self) -> bool {
        let inner = self.inner();
        let (mut jobs, mut deliveries) = self.claimed.lock().unwrap().clone();
        for id in jobs.clone() {
            if inner.job(id).await.unwrap().is_none_or(|job| job.lease.is_none()) {
                jobs.remove(&id);
            }
        }
        for id in deliveries.clone() {
            if inner.delivery(id).await.unwrap().is_none_or(|delivery| delivery.lease.is_none()) {
                deliveries.remove(&id);
            }
        }
        let held = !jobs.is_empty() || !deliveries.is_empty();
        *self.claimed.lock().unwrap() = (jobs, deliveries);
        held
    }

    /// The caller is alone.
    async fn close_and_open(&self) {
        let inner = self.inner.write().unwrap().take().expect("it is open");
        inner.close().await;
        self.forward(&inner);
        assert_eq!(Arc::strong_count(&inner), 1, "nobody is inside");
        drop(inner);
        let (folder, now) = (self.folder.path().to_owned(), *self.latest.lock().unwrap());
        let policy = self.policy.clone();
        let inner = tokio::task::spawn_blocking(move || open(&folder, policy, now)).await.unwrap();
        *self.inner.write().unwrap() = Some(Arc::new(inner));
    }

    /// Passes wake-ups on.
    fn forward(&self, inner: &SledStore) {
        let pass = |from: &Notify, to: &Notify| {
            if from.notified().now_or_never().is_some() {
                to.notify_one();
            }
        };
        pass(&inner.signals().jobs, &self.signals.jobs);
        pass(&inner.signals().fetches, &self.signals.fetches);
        pass(&inner.signals().deliveries, &self.signals.deliveries);
        let last = *inner.signals().events.borrow();
        self.signals.events.send_if_modified(|seq| std::mem::replace(seq, last) != last);
    }
}

fn open(folder: &Path, policy: Policy, now: Timestamp) -> SledStore {
    let options = Options { cache_bytes: 16 * 1024 * 1024, policy };
    let waits = Stopwatch::start();
    loop {
        match SledStore::open(&folder.join("store"), options.clone(), now) {
            // A thread of sled's own may hold its file for a moment longer than the last who used it.
            Err(OpenError::Locked(_)) if waits.elapsed() < Duration::from_secs(60) => {
                std::thread::yield_now();
            }
            opened => return opened.unwrap(),
        }
    }
}

/// What a store says of itself at a glance.
#[derive(Debug, PartialEq)]
struct Shown {
    waiting: Waiting,
    paused: Paused,
    next_due: NextDue,
    last_event: u64,
}

impl Shown {
    async fn of(store: &SledStore, now: Timestamp) -> Self {
        let mut next_due = store.next_due().await.unwrap();
        let is_left_alone = |one: &Destination| one.hold.is_some() || one.open.is_some();
        let destinations = store.destinations(None, usize::MAX).await.unwrap();
        if destinations.iter().any(|one| is_left_alone(&one.destination)) {
            // Who wakes for what waits there finds nothing to claim, once: it need not be in the same moment.
            next_due.delivery = None;
        }
        // What is due is due, whatever time it is given.
        next_due.delivery = next_due.delivery.map(|due| due.max(now));
        Self {
            waiting: store.waiting(),
            paused: store.paused(),
            next_due,
            last_event: *store.signals().events.borrow(),
        }
    }
}

#[async_trait]
impl Subject for Reopening {
    async fn reopen(&self, now: Timestamp) {
        let _alone = self.inside.write().await;
        *self.latest.lock().unwrap() = now;
        self.close_and_open().await;
        self.forward(&self.inner());
    }
}

#[async_trait]
impl ClientStore for Reopening {
    async fn put_client(&self, client: Client) -> Result<(), StoreError> {
        self.step(None, async move |store| store.put_client(client).await).await
    }

    fn client(&self, name: &ClientId) -> Option<Arc<Client>> {
        self.inner().client(name)
    }

    fn client_of_key(&self, key: &KeyHash) -> Option<Arc<Client>> {
        self.inner().client_of_key(key)
    }

    fn clients(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Client>> {
        self.inner().clients(after, limit)
    }

    async fn note_action(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.step(None, async move |store| store.note_action(entry).await).await
    }

    async fn actions(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(async move |store| store.actions(before, limit).await).await
    }

    async fn forget_actions(&self, end: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.step(None, async move |store| store.forget_actions(end, limit).await).await
    }

    async fn waiting_of(&self, client: &ClientId, most: u64) -> Result<u64, StoreError> {
        self.read(async move |store| store.waiting_of(client, most).await).await
    }
}

#[async_trait]
impl Store for Reopening {
    async fn submit(&self, submission: Submission, now: Timestamp) -> Result<Submitted, StoreError> {
        self.step(Some(now), async move |store| store.submit(submission, now).await).await
    }

    async fn submit_source(
        &self,
        submission: Submission<Source>,
        now: Timestamp,
    ) -> Result<Submitted, StoreError> {
        self.step(Some(now), async move |store| store.submit_source(submission, now).await).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError> {
        self.read(async move |store| store.job(id).await).await
    }

    async fn jobs(&self, query: JobQuery) -> Result<JobPage, StoreError> {
        self.read(async move |store| store.jobs(query).await).await
    }

    async fn claim_jobs(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let claim = async move |store: Arc<SledStore>| {
            let jobs = store.claim_jobs(worker, limit, lease, now).await?;
            self.claimed.lock().unwrap().0.extend(jobs.iter().map(|job| job.id));
            Ok(jobs)
        };
        self.step(Some(now), claim).await
    }

    async fn claim_fetches(
        &self,
        worker: WorkerId,
        room: FetchRoom,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError> {
        let claim = async move |store: Arc<SledStore>| {
            let jobs = store.claim_fetches(worker, room, lease, now).await?;
            self.claimed.lock().unwrap().0.extend(jobs.iter().map(|job| job.id));
            Ok(jobs)
        };
        self.step(Some(now), claim).await
    }

    async fn picture_fetched(
        &self,
        id: JobId,
        token: u64,
        input: Input,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(Some(now), async move |store| store.picture_fetched(id, token, input, now).await).await
    }

    async fn sweep_jobs(&self, now: Timestamp) -> Result<(), StoreError> {
        self.step(Some(now), async move |store| store.sweep_jobs(now).await).await
    }

    async fn extend_job(&self, id: JobId, token: u64, until: Timestamp) -> Result<Job, StoreError> {
        self.step(None, async move |store| store.extend_job(id, token, until).await).await
    }

    async fn add_artifact(
        &self,
        id: JobId,
        token: u64,
        artifact: Artifact,
        placeholder: Option<Placeholder>,
    ) -> Result<(), StoreError> {
        self.step(None, async move |store| store.add_artifact(id, token, artifact, placeholder).await).await
    }

    async fn finish_job(
        &self,
        id: JobId,
        token: u64,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(Some(now), async move |store| store.finish_job(id, token, ending, now).await).await
    }

    async fn change_job(
        &self,
        id: JobId,
        action: JobAction,
        expected: Option<Vec<u64>>,
        now: Timestamp,
    ) -> Result<Job, StoreError> {
        self.step(Some(now), async move |store| store.change_job(id, action, expected, now).await).await
    }

    async fn ahead_of(&self, id: JobId, limit: usize) -> Result<Option<usize>, StoreError> {
        self.read(async move |store| store.ahead_of(id, limit).await).await
    }

    async fn claim_deliveries(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<(Delivery, Event)>, StoreError> {
        let claim = async move |store: Arc<SledStore>| {
            let deliveries = store.claim_deliveries(worker, limit, lease, now).await?;
            self.claimed.lock().unwrap().1.extend(deliveries.iter().map(|(delivery, _)| delivery.id));
            Ok(deliveries)
        };
        self.step(Some(now), claim).await
    }

    async fn settle_delivery(
        &self,
        id: DeliveryId,
        token: u64,
        attempt: Attempt,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<Delivery, StoreError> {
        let settle =
            async move |store: Arc<SledStore>| store.settle_delivery(id, token, attempt, verdict, now).await;
        self.step(Some(now), settle).await
    }

    async fn give_back_delivery(&self, id: DeliveryId, token: u64) -> Result<(), StoreError> {
        self.step(None, async move |store| store.give_back_delivery(id, token).await).await
    }

    async fn cancel_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<Delivery, StoreError> {
        self.step(Some(now), async move |store| store.cancel_delivery(id, now).await).await
    }

    async fn send_again(&self, id: DeliveryId, force: bool, now: Timestamp) -> Result<Delivery, StoreError> {
        self.step(Some(now), async move |store| store.send_again(id, force, now).await).await
    }

    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError> {
        self.read(async move |store| store.deliveries(query).await).await
    }

    async fn oldest_undelivered(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(async move |store| store.oldest_undelivered().await).await
    }

    async fn destination(&self, id: DestinationId) -> Result<Option<DestinationStatus>, StoreError> {
        self.read(async move |store| store.destination(id).await).await
    }

    async fn destinations(
        &self,
        after: Option<DestinationId>,
        limit: usize,
    ) -> Result<Vec<DestinationStatus>, StoreError> {
        self.read(async move |store| store.destinations(after, limit).await).await
    }

    async fn standings(&self, limit: usize) -> Result<BTreeMap<Standing, u64>, StoreError> {
        self.read(async move |store| store.standings(limit).await).await
    }

    async fn pause_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError> {
        self.step(Some(now), async move |store| store.pause_destination(id, now).await).await
    }

    async fn resume_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError> {
        self.step(Some(now), async move |store| store.resume_destination(id, now).await).await
    }

    async fn start_replay(
        &self,
        new: NewReplay,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<StartedReplay, StoreError> {
        self.step(Some(now), async move |store| store.start_replay(new, idempotency, now).await).await
    }

    async fn change_replay(
        &self,
        id: ReplayId,
        action: ReplayAction,
        now: Timestamp,
    ) -> Result<Replay, StoreError> {
        self.step(Some(now), async move |store| store.change_replay(id, action, now).await).await
    }

    async fn advance_replay(&self, id: ReplayId, limit: usize, now: Timestamp) -> Result<Replay, StoreError> {
        self.step(Some(now), async move |store| store.advance_replay(id, limit, now).await).await
    }

    async fn replay(&self, id: ReplayId) -> Result<Option<Replay>, StoreError> {
        self.read(async move |store| store.replay(id).await).await
    }

    async fn replays(&self, before: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>, StoreError> {
        self.read(async move |store| store.replays(before, limit).await).await
    }

    async fn running_replays(&self) -> Result<Vec<ReplayId>, StoreError> {
        self.read(async move |store| store.running_replays().await).await
    }

    async fn replay_items(
        &self,
        id: ReplayId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<ReplayItem>, StoreError> {
        self.read(async move |store| store.replay_items(id, from, limit).await).await
    }

    fn standing(&self, id: DestinationId) -> Option<Standing> {
        self.inner().standing(id)
    }

    fn pace_destination(&self, id: DestinationId, per_minute: Option<u32>) {
        self.inner().pace_destination(id, per_minute);
    }

    fn ledger(&self) -> Ledger {
        self.inner().ledger()
    }

    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.read(async move |store| store.delivery(id).await).await
    }

    async fn deliveries_of(&self, job: JobId) -> Result<Vec<Delivery>, StoreError> {
        self.read(async move |store| store.deliveries_of(job).await).await
    }

    async fn attempts_of(&self, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
        self.read(async move |store| store.attempts_of(delivery).await).await
    }

    async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(async move |store| store.events_after(after, limit).await).await
    }

    async fn events_of(&self, job: JobId, after: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
        self.read(async move |store| store.events_of(job, after, limit).await).await
    }

    async fn purge(&self, limit: usize, now: Timestamp) -> Result<Purged, StoreError> {
        self.step(Some(now), async move |store| store.purge(limit, now).await).await
    }

    async fn garbage(&self, limit: usize) -> Result<Vec<Garbage>, StoreError> {
        self.read(async move |store| store.garbage(limit).await).await
    }

    async fn forget_garbage(&self, jobs: Vec<JobId>) -> Result<(), StoreError> {
        self.step(None, async move |store| store.forget_garbage(jobs).await).await
    }

    async fn set_paused(&self, paused: Paused) -> Result<(), StoreError> {
        self.step(None, async move |store| store.set_paused(paused).await).await
    }

    fn paused(&self) -> Paused {
        self.inner().paused()
    }

    async fn secrets(&self, client: &ClientId) -> Result<Option<ClientSecrets>, StoreError> {
        let client = client.clone();
        self.read(async move |store| store.secrets(&client).await).await
    }

    async fn set_secrets(&self, secrets: ClientSecrets) -> Result<(), StoreError> {
        self.step(None, async move |store| store.set_secrets(secrets).await).await
    }

    async fn keyring(&self) -> Result<Keyring, StoreError> {
        self.read(async move |store| store.keyring().await).await
    }

    async fn set_keyring(&self, keyring: Keyring) -> Result<(), StoreError> {
        self.step(None, async move |store| store.set_keyring(keyring).await).await
    }

    async fn audit(&self) -> Result<Audit, StoreError> {
        self.read(async move |store| store.audit().await).await
    }

    /// Without opening anew: what it reads out goes on being read.
    async fn export(&self) -> Result<Box<dyn Export>, StoreError> {
        let store = self.inner();
        store.export().await
    }

    async fn import(&self) -> Result<Box<dyn Import>, StoreError> {
        let store = self.inner();
        store.import().await
    }

    async fn next_due(&self) -> Result<NextDue, StoreError> {
        self.read(async move |store| store.next_due().await).await
    }

    fn waiting(&self) -> Waiting {
        self.inner().waiting()
    }

    fn signals(&self) -> &Signals {
        &self.signals
    }

    /// It stays closed.
    async fn close(&self) {
        self.after_every_step.store(false, Ordering::Relaxed);
        self.inner().close().await;
    }
}
