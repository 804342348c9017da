//! The one thread that changes anything.
//!
//! Steps queue up while the disk syncs; then all that wait are run one after another over the same
//! batch, which is committed, synced once, and only then answered (group commit). So a step is
//! plain code: nothing else writes, and it sees what the steps before it did.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::as_of::Images;
use super::engine::Engine;
use super::space::{Room, Space};
use super::tx::{Cursor, Tx};
use super::watchdog::Watchdog;
use super::{clients, deliveries, keys, log, records};
use crate::domain::dispatch::Dispatch;
use crate::domain::id::DestinationId;
use crate::store::clients::Directory;
use crate::store::{Ledger, Paused, Policy, Signals, StoreError, Waiting};

/// Steps that may wait in front of the thread; who comes later waits for room.
const QUEUE: usize = 1024;
/// Steps that share a commit, so that none waits for an endless one.
const STEPS_PER_COMMIT: usize = 512;
/// Bytes after which a commit takes no further step: half a segment, so that a batch stays one piece of the log.
const BYTES_PER_COMMIT: usize = 4 * 1024 * 1024;

/// What a step's answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The change survives a power cut. Whatever makes an event asks for this, so that a place in the log that
    /// somebody has seen is never given away again.
    Synced,
    /// The change survives the process; it rides along with the next sync.
    Written,
}

/// What the writer and the readers share.
pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) policy: Policy,
    pub(super) signals: Signals,
    waiting_work: AtomicU64,
    waiting_fetches: AtomicU64,
    pub(super) paused: RwLock<Paused>,
    pub(super) clients: RwLock<Directory>,
    pub(super) ledger: Mutex<Ledger>,
    dispatch: Mutex<Dispatch>,
    /// What whoever reads the store as of a moment needs of what was since replaced.
    pub(super) images: Mutex<Weak<Images>>,
    /// When the store was opened, while there is no room to free what a dead process had claimed.
    pub(super) stale_since: Mutex<Option<Timestamp>>,
}

impl Shared {
    pub(super) fn load(engine: Engine, policy: Policy) -> Result<Self, StoreError> {
        let mut waiting = Waiting::default();
        for prefix in [keys::JOB_READY, keys::JOB_FETCH, keys::JOB_WAITS] {
            for entry in engine.scan(keys::all(prefix)) {
                let is_to_be_fetched = keys::is_to_be_fetched(&entry?.0);
                *(if is_to_be_fetched { &mut waiting.fetches } else { &mut waiting.work }) += 1;
            }
        }
        let last_event = log::last_seq(&engine)?;
        // The last events may have been purged; their places stay taken.
        let last_seq = last_event.max(engine.get::<u64>(keys::LAST_SEQ)?).unwrap_or(0);
        let paused = engine.get(keys::PAUSED)?.unwrap_or_default();
        let clients = clients::load(&engine)?;
        let signals = Signals::default();
        signals.events.send_replace(last_seq);
        let dispatch = Mutex::new(deliveries::dispatch(&engine, policy.dispatch.clone())?);
        let ledger = Mutex::new(engine.get(keys::LEDGER)?.unwrap_or_default());
        Ok(Self {
            engine,
            policy,
            signals,
            waiting_work: AtomicU64::new(waiting.work),
            waiting_fetches: AtomicU64::new(waiting.fetches),
            paused: RwLock::new(paused),
            clients: RwLock::new(clients),
            ledger,
            dispatch,
            images: Mutex::default(),
            stale_since: Mutex::default(),
        })
    }

    /// How many jobs wait.
    pub(super) fn waiting(&self) -> Waiting {
        let count = |of: &AtomicU64| of.load(Ordering::Acquire);
        Waiting { work: count(&self.waiting_work), fetches: count(&self.waiting_fetches) }
    }

    /// Whose turn it is, and what is under way. Nobody holds it for long.
    pub(super) fn dispatch(&self) -> MutexGuard<'_, Dispatch> {
        self.dispatch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deliveries to these are due then. Losing it to an error delays them until the next start.
    fn wake(&self, due: Vec<(DestinationId, Timestamp)>) {
        let mut dispatch = self.dispatch();
        for (id, due) in due {
            if dispatch.destination(id).is_none() {
                match self.engine.get(&keys::destination(id)) {
                    Ok(Some(destination)) => dispatch.put(destination),
                    Ok(None) => tracing::error!(%id, "a destination is not there"),
                    Err(error) => tracing::error!(%id, %error, "a destination cannot be read"),
                }
            }
            dispatch.wake(id, due);
        }
        dispatch.forget_idle();
    }

    /// Lets everyone know what is paused from now on.
    pub(super) fn pause(&self, paused: Paused) {
        *self.paused.write().unwrap_or_else(PoisonError::into_inner) = paused;
        self.signals.jobs.notify_one();
        self.signals.fetches.notify_one();
    }
}

/// What a step does to the room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It takes something in.
    New,
    /// It ends or removes something, or is small.
    GoesOn,
    /// It writes nothing.
    Reads,
}

type Answer = Box<dyn FnOnce() + Send>;
type Step = Box<dyn FnOnce(&mut Tx<'_>) -> Answer + Send>;

enum Command {
    Run(Durability, Step),
    Stop,
}

/// The handle to the thread.
pub(super) struct Writer {
    commands: mpsc::Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>, space: Space) -> std::io::Result<Self> {
        let watchdog = Watchdog::start()?;
        let (commands, received) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            // sled panics where others return errors. What its memory holds then is not to be trusted.
            if catch_unwind(AssertUnwindSafe(|| run(&shared, space, &watchdog, received))).is_err() {
                abort("go on", &StoreError::Closed);
            }
        })?;
        Ok(Self { commands, thread: Mutex::new(Some(thread)) })
    }

    /// Runs `step`, and returns what it returned once that is as durable as asked for. A step that fails changes nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        durability: Durability,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(Kind::GoesOn, durability, step).await
    }

    /// The same for a step that takes something in: synced, and refused when room runs out.
    pub(super) async fn take_in<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(Kind::New, Durability::Synced, step).await
    }

    /// Runs a step that writes nothing between two commits.
    pub(super) async fn read_in_turn<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(Kind::Reads, Durability::Written, step).await
    }

    async fn run<T: Send + 'static>(
        &self,
        kind: Kind,
        durability: Durability,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (step, answer) = prepare(kind, step);
        self.commands.send(Command::Run(durability, step)).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// The same for a thread that may block; it panics on the runtime's own.
    pub(super) fn write_blocking<T: Send + 'static>(
        &self,
        durability: Durability,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (step, answer) = prepare(Kind::GoesOn, step);
        self.commands.blocking_send(Command::Run(durability, step)).map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)?
    }

    /// Ends the thread after the steps that already wait.
    pub(super) async fn close(&self) {
        let _ = self.commands.send(Command::Stop).await;
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn prepare<T: Send + 'static>(
    kind: Kind,
    step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> (Step, oneshot::Receiver<Result<T, StoreError>>) {
    let (reply, answer) = oneshot::channel();
    let step = Box::new(move |tx: &mut Tx<'_>| {
        let result = match (tx.room, kind) {
            (_, Kind::Reads) | (Room::Enough, _) | (Room::Low, Kind::GoesOn) => tx.attempt(step),
            (Room::Low, Kind::New) | (Room::None, _) => Err(StoreError::Full),
        };
        // Who asked may have gone away; the change stands all the same.
        Box::new(move || drop(reply.send(result))) as Answer
    });
    (step, answer)
}

fn run(shared: &Shared, mut space: Space, watchdog: &Watchdog, mut commands: mpsc::Receiver<Command>) {
    let mut cursor = Cursor {
        next_seq: *shared.signals.events.borrow() + 1,
        turn: keys::all(keys::JOB_READY).start,
        fetch_turn: keys::all(keys::JOB_FETCH).start,
        ledger: *shared.ledger.lock().unwrap_or_else(PoisonError::into_inner),
    };
    let mut snapshot = None;
    while let Some(Command::Run(durability, step)) = commands.blocking_recv() {
        let mut tx = Tx::new(shared, cursor, space.room(), &mut snapshot);
        let mut synced = durability == Durability::Synced;
        // Before any claim of this process, which it would take back.
        synced |= watchdog.watch(|| free_stale(shared, &mut tx));
        // The steps too: sled splits and merges pages for whoever comes by, also for one who only reads.
        let mut answers = vec![watchdog.watch(|| step(&mut tx))];
        let mut stop = false;
        while answers.len() < STEPS_PER_COMMIT && tx.bytes < BYTES_PER_COMMIT {
            match commands.try_recv() {
                Ok(Command::Run(durability, step)) => {
                    synced |= durability == Durability::Synced;
                    answers.push(watchdog.watch(|| step(&mut tx)));
                }
                Ok(Command::Stop) => {
                    stop = true;
                    break;
                }
                Err(_) => break,
            }
        }
        cursor = tx.cursor.clone();
        watchdog.watch(|| commit(shared, tx, synced));
        for answer in answers {
            answer();
        }
        if stop {
            break;
        }
    }
    // What was only written is synced too before the process goes.
    watchdog.watch(|| sync_or_abort(&shared.engine));
}

/// Frees what a dead process had claimed, once there is room for it; whether it did.
fn free_stale(shared: &Shared, tx: &mut Tx<'_>) -> bool {
    let mut stale_since = shared.stale_since.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(since) = stale_since.take_if(|_| tx.room != Room::None) else { return false };
    if let Err(error) = tx.attempt(|tx| super::free_all(tx, since)) {
        tracing::error!(%error, "what a dead process had claimed is free when its leases have run out");
    }
    true
}

/// Commits, syncs, and tells those who wait for a change.
fn commit(shared: &Shared, tx: Tx<'_>, synced: bool) {
    let Tx { mut writes, waiting_delta, jobs_ready, deliveries_ready, due, cursor, snapshot, .. } = tx;
    if deliveries_ready {
        shared.signals.deliveries.notify_one();
    }
    if writes.is_empty() {
        return;
    }
    {
        let mut ledger = shared.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *ledger, cursor.ledger) != cursor.ledger {
            match records::encode(&cursor.ledger) {
                Ok(value) => drop(writes.insert(keys::LEDGER.to_vec(), Some(value))),
                Err(error) => tracing::error!(%error, "the ledger was not written"),
            }
        }
    }
    snapshot.take_if(|snapshot| !snapshot.is_read());
    if let Some(snapshot) = snapshot {
        snapshot.remember(&shared.engine, &writes);
    }
    let images = shared.images.lock().unwrap_or_else(PoisonError::into_inner).upgrade();
    if let Some(images) = images {
        images.remember(&shared.engine, &writes);
    }
    let clients = clients::changed(&writes);
    if let Err(error) = shared.engine.commit(writes) {
        // Half of the engine's memory may have changed: only a fresh open knows what holds.
        abort("commit", &error);
    }
    if synced {
        sync_or_abort(&shared.engine);
    }
    clients::learn(shared, clients);
    // Two's complement: adding the wrapped value of a negative number subtracts.
    shared.waiting_work.fetch_add(waiting_delta.work.cast_unsigned(), Ordering::AcqRel);
    shared.waiting_fetches.fetch_add(waiting_delta.fetches.cast_unsigned(), Ordering::AcqRel);
    if jobs_ready {
        shared.signals.jobs.notify_one();
        shared.signals.fetches.notify_one();
    }
    if !due.is_empty() {
        shared.wake(due);
        shared.signals.deliveries.notify_one();
    }
    let last_seq = cursor.next_seq - 1;
    shared.signals.events.send_if_modified(|seq| std::mem::replace(seq, last_seq) != last_seq);
}

/// After a failed sync the kernel may have dropped the very pages that were to be written, and a second
/// sync would report success. So the process ends; what it has not answered was never acknowledged.
fn sync_or_abort(engine: &Engine) {
    if let Err(error) = engine.sync() {
        abort("sync", &error);
    }
}

pub(super) fn abort(what: &str, error: &(dyn std::error::Error + 'static)) -> ! {
    tracing::error!(
        error,
        "the store could not {what}; the process ends so that nothing unsafe is acknowledged"
    );
    std::process::abort()
}
