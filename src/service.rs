//! The use-cases. Everything that starts work (a request, an operator, time) drives these, and only these.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::domain::client::ClientLimits;
use crate::domain::id::{JobId, WorkerId};
use crate::domain::image::{Limits, Presets};
use crate::domain::retry::RetryPolicy;
use crate::imaging::Pool;
use crate::notify::webhook::ed25519::PrivateKey;
use crate::notify::webhook::guard::Guard;
use crate::notify::webhook::sender::Sender;
use crate::store::{Signals, Store, StoreError};

pub mod audit;
pub mod backup;
pub mod books;
pub mod bulk;
pub mod clients;
pub mod deliver;
pub mod deliveries;
mod drain;
pub mod error;
pub mod fetch;
pub mod handshake;
pub mod intake;
pub mod keyfile;
pub mod lifecycle;
pub mod links;
pub mod process;
pub mod quotas;
pub mod read;
pub mod replays;
pub mod retain;
pub mod secrets;
pub mod submit;
pub mod tickets;
pub mod trial;
pub mod vault;
pub mod view;
pub mod wait;

pub use error::ServiceError;

use self::secrets::Keys;

/// How often something that must be recorded looks whether there is room on the disk again.
const LOOK_FOR_ROOM_EVERY: Duration = Duration::from_secs(1);

/// The rooms below, as the use-cases need them.
pub struct Parts {
    /// The truth.
    pub store: Arc<dyn Store>,
    /// The pictures.
    pub blobs: Blobs,
    /// The threads that decode and encode.
    pub imaging: Pool,
    /// Where callbacks may go.
    pub guard: Guard,
    /// What makes one attempt.
    pub sender: Sender,
    /// The time.
    pub clock: Clock,
    /// What signs and what seals.
    pub keys: Keys,
}

/// The numbers that the use-cases keep to.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whether requests without a key are answered, as those of an operator.
    pub dev: bool,
    /// What a client may use whose own limits say nothing.
    pub limits_of_clients: ClientLimits,
    /// How long it is kept what operators did.
    pub keep_audit: Duration,
    /// What every link begins with, without a slash at the end.
    pub base_url: String,
    /// Where a signing secret that was made here is kept, for backups.
    pub signing_secret_file: PathBuf,
    /// Where an encryption key that was made here is kept, for backups.
    pub encryption_key_file: PathBuf,
    /// What a picture may cost.
    pub limits: Limits,
    /// Variants that have a name.
    pub presets: Presets,
    /// How long a thread may work on one job.
    pub max_time: Duration,
    /// The largest picture, in bytes.
    pub max_upload_bytes: u64,
    /// How long an upload may stand still.
    pub body_idle: Duration,
    /// How long an upload may take in all.
    pub body_whole: Duration,
    /// Uploads under way at once.
    pub max_uploads: u64,
    /// The fewest bytes a second that an upload may bring on average; 0 is no minimum.
    pub min_upload_rate: u32,
    /// How much longer than that an upload may take.
    pub upload_grace: Duration,
    /// Jobs that may wait.
    pub queue_capacity: u64,
    /// Jobs whose picture may wait to be fetched.
    pub source_capacity: u64,
    /// How long a claim lasts without a heartbeat.
    pub lease: Duration,
    /// How often a running job's lease is extended.
    pub heartbeat: Duration,
    /// How long one attempt of a delivery may take, its record included.
    pub attempt_lease: Duration,
    /// When a failed try of a job is repeated.
    pub job_retry: RetryPolicy,
    /// When a failed attempt of a delivery is repeated.
    pub delivery_retry: RetryPolicy,
    /// How long the links in callbacks are good, from the event on, for whoever has them; `None`: with a key alone.
    pub callback_links: Option<Duration>,
    /// Which receivers are asked first.
    pub handshake: handshake::HandshakePolicy,
}

/// The use-cases over their parts.
pub struct Service {
    store: Arc<dyn Store>,
    blobs: Blobs,
    imaging: Pool,
    guard: Guard,
    sender: Sender,
    clock: Clock,
    vault: vault::Vault,
    secrets: secrets::Secrets,
    ed25519: Option<PrivateKey>,
    settings: Settings,
    worker: WorkerId,
    intake: intake::Intake,
    fetching: fetch::Fetches,
    running: Mutex<HashMap<JobId, Running>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    waiters: Semaphore,
    /// A job looks other than it did, without an event that tells so.
    changed: Notify,
    drain: drain::Drain,
    replays_changed: Notify,
    trials: Semaphore,
    quotas: quotas::Quotas,
    tickets: tickets::Tickets,
    permissions: handshake::Permissions,
    /// Read by those who need pictures whose jobs may be purged meanwhile.
    pictures: Arc<RwLock<()>>,
}

impl Service {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> Self {
        let Parts { store, blobs, imaging, guard, sender, clock, keys } = parts;
        let Keys { vault, signing, ed25519 } = keys;
        let worker = WorkerId::new(clock.now(), &crate::clock::entropy());
        Self {
            intake: intake::Intake::new(
                settings.queue_capacity,
                settings.source_capacity,
                settings.max_uploads,
            ),
            fetching: fetch::Fetches::new(None),
            running: Mutex::default(),
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            waiters: Semaphore::new(wait::MAX_WAITERS),
            changed: Notify::new(),
            drain: drain::Drain::default(),
            replays_changed: Notify::new(),
            tickets: tickets::Tickets::default(),
            quotas: quotas::Quotas::new(settings.limits_of_clients, clock.now()),
            trials: Semaphore::new(trial::MAX_TRIALS),
            permissions: handshake::Permissions::default(),
            pictures: Arc::default(),
            store,
            blobs,
            imaging,
            guard,
            sender,
            clock,
            vault,
            secrets: secrets::Secrets::new(signing),
            ed25519,
            settings,
            worker,
        }
    }

    /// What wakes the loops.
    #[must_use]
    pub fn signals(&self) -> &Signals {
        self.store.signals()
    }

    /// The time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is done whole although nobody may wait for it any more.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// What everyone keeps to.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many more jobs can run, as permits.
    #[must_use]
    pub fn job_room(&self) -> &Arc<Semaphore> {
        self.imaging.room()
    }

    /// Takes no more jobs in, and lets nobody wait for one; what was accepted goes on.
    pub fn stop(&self) {
        self.stopping.cancel();
    }

    /// Whether jobs are taken in.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.stopping.is_cancelled()
    }

    /// Does a step of the store again until the disk has room for it, or the service stops.
    async fn when_there_is_room<T, F>(&self, step: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match step().await {
                Err(StoreError::Full) if self.is_ready() => tokio::time::sleep(LOOK_FOR_ROOM_EVERY).await,
                done => return done,
            }
        }
    }

    /// How far a running job is; `None` when it does not run here.
    fn progress_of(&self, job: JobId) -> Option<view::Progress> {
        self.running().get(&job).and_then(|running| running.progress)
    }

    fn set_progress(&self, job: JobId, progress: view::Progress) {
        if let Some(running) = self.running().get_mut(&job) {
            running.progress = Some(progress);
        }
        self.changed.notify_waiters();
    }

    /// Work on a job begins; the token is cancelled when the job is called off.
    fn begin(&self, job: JobId) -> CancellationToken {
        let called_off = CancellationToken::new();
        self.running().insert(job, Running { progress: None, called_off: called_off.clone() });
        called_off
    }

    fn end(&self, job: JobId) {
        self.running().remove(&job);
        self.changed.notify_waiters();
    }

    /// Tells the work on a job, if it runs here, that it was called off.
    fn call_off(&self, job: JobId) {
        if let Some(running) = self.running().get(&job) {
            running.called_off.cancel();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<JobId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A job that is being worked on here.
struct Running {
    progress: Option<view::Progress>,
    called_off: CancellationToken,
}
