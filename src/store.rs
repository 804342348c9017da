//! The store is the truth: jobs, events, deliveries and attempts, and every step between them.
//!
//! [`Store`] is the port. Each of its methods is one atomic step, and each that changes something
//! returns after the change is durable, through a power cut and not only a kill, except where its
//! documentation says "written": that survives the process but may be lost with the machine.
//! Times are passed in.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use crate::domain::client::ClientId;
use crate::domain::delivery::{Attempt, Delivery, DeliveryConflict, DeliveryState, StaleDelivery, Verdict};
use crate::domain::destination::{Destination, Standing};
use crate::domain::dispatch::DispatchPolicy;
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, DestinationId, JobId, ReplayId, WorkerId};
use crate::domain::image::Placeholder;
use crate::domain::job::{Artifact, Input, Job, JobError, JobStatus, NewJob, Source, TransitionError};
use crate::domain::replay::{NewReplay, Replay, ReplayConflict, ReplayItem};
use crate::domain::rotation::ClientSecrets;
use crate::domain::secret::Keyring;

mod audit;
mod clients;
pub mod memory;
mod query;
pub mod sled;
pub mod transfer;

pub use clients::ClientStore;
pub(crate) use query::replayed;
pub use query::{
    DeliveryPage, DeliveryQuery, DestinationStatus, FetchRoom, JobAction, JobPage, JobQuery, Ledger,
    ReplayAction, StartedReplay,
};
pub use transfer::{Export, Import, Record};

/// The named use-cases that an engine implements.
#[async_trait]
pub trait Store: ClientStore + Send + Sync + 'static {
    /// Accepts a job: the job, its idempotency key and its first event, in one commit.
    async fn submit(&self, submission: Submission, now: Timestamp) -> Result<Submitted, StoreError>;

    /// The same for a job whose picture is to be fetched.
    async fn submit_source(
        &self,
        submission: Submission<Source>,
        now: Timestamp,
    ) -> Result<Submitted, StoreError>;

    /// The job of this id.
    async fn job(&self, id: JobId) -> Result<Option<Job>, StoreError>;

    /// A page of jobs, newest first.
    async fn jobs(&self, query: JobQuery) -> Result<JobPage, StoreError>;

    /// Takes up to `limit` jobs whose picture is here: one client after another, and of a client's own by priority, then age. First
    /// does what [`Store::sweep_jobs`] does. Takes none while work is paused.
    async fn claim_jobs(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError>;

    /// Takes jobs whose picture is still to be fetched, as many as there is room for: one source after another, and
    /// of each by priority, then age. Else it is as [`Store::claim_jobs`].
    async fn claim_fetches(
        &self,
        worker: WorkerId,
        room: FetchRoom,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<Job>, StoreError>;

    /// Notes that a job's picture is stored, and queues the job for those who make its artifacts.
    async fn picture_fetched(
        &self,
        id: JobId,
        token: u64,
        input: Input,
        now: Timestamp,
    ) -> Result<Job, StoreError>;

    /// Does what is due by `now`, a bounded number of each: jobs whose time to start has come become ready, those
    /// whose lease ran out are queued again, those whose deadline passed fail.
    async fn sweep_jobs(&self, now: Timestamp) -> Result<(), StoreError>;

    /// A heartbeat: the lease runs until `until`. The job says whether it was called off. Written.
    async fn extend_job(&self, id: JobId, token: u64, until: Timestamp) -> Result<Job, StoreError>;

    /// Notes a stored artifact, so that a repeated try goes on from there, and what it brings of the picture's
    /// placeholder. Written.
    async fn add_artifact(
        &self,
        id: JobId,
        token: u64,
        artifact: Artifact,
        placeholder: Option<Placeholder>,
    ) -> Result<(), StoreError>;

    /// Ends a try: the job, its terminal event and that event's delivery, in one commit.
    async fn finish_job(
        &self,
        id: JobId,
        token: u64,
        ending: Ending,
        now: Timestamp,
    ) -> Result<Job, StoreError>;

    /// Does what somebody asked for to a job; if its revision is none of those expected, [`StoreError::Outdated`].
    async fn change_job(
        &self,
        id: JobId,
        action: JobAction,
        expected: Option<Vec<u64>>,
        now: Timestamp,
    ) -> Result<Job, StoreError>;

    /// How many jobs are taken up before this one while each client takes its turns, counted up to `limit`; `None` if it
    /// does not wait for a turn.
    async fn ahead_of(&self, id: JobId, limit: usize) -> Result<Option<usize>, StoreError>;

    /// Takes up to `limit` deliveries that are due, each with its event: one destination after another, as many of each
    /// as it may have in flight, and of its own first attempts before retries. A claim ends with the process.
    async fn claim_deliveries(
        &self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<(Delivery, Event)>, StoreError>;

    /// Ends an attempt: its record, the delivery, and the job's view of it, in one commit.
    async fn settle_delivery(
        &self,
        id: DeliveryId,
        token: u64,
        attempt: Attempt,
        verdict: Verdict,
        now: Timestamp,
    ) -> Result<Delivery, StoreError>;

    /// Gives back a delivery whose attempt was cut off: it is due as it was.
    async fn give_back_delivery(&self, id: DeliveryId, token: u64) -> Result<(), StoreError>;

    /// Calls a delivery off that waits.
    async fn cancel_delivery(&self, id: DeliveryId, now: Timestamp) -> Result<Delivery, StoreError>;

    /// Has a delivery sent again at once, with its whole schedule; one that was delivered only with `force`.
    async fn send_again(&self, id: DeliveryId, force: bool, now: Timestamp) -> Result<Delivery, StoreError>;

    /// A page of deliveries.
    async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, StoreError>;

    /// When the oldest of the deliveries was made that have not arrived; of those that were never tried, the oldest of
    /// the first thousand destinations.
    async fn oldest_undelivered(&self) -> Result<Option<Timestamp>, StoreError>;

    /// The destination of this id.
    async fn destination(&self, id: DestinationId) -> Result<Option<DestinationStatus>, StoreError>;

    /// Up to `limit` destinations behind `after`, by id.
    async fn destinations(
        &self,
        after: Option<DestinationId>,
        limit: usize,
    ) -> Result<Vec<DestinationStatus>, StoreError>;

    /// How many destinations stand how; of the first `limit` by id.
    async fn standings(&self, limit: usize) -> Result<BTreeMap<Standing, u64>, StoreError>;

    /// Sends nothing more to a destination; what waits for it goes on waiting.
    async fn pause_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError>;

    /// Sends to a destination again, whatever held it back.
    async fn resume_destination(&self, id: DestinationId, now: Timestamp) -> Result<Destination, StoreError>;

    /// How a destination stands to which something waits.
    fn standing(&self, id: DestinationId) -> Option<Standing>;

    /// Sends no more than this to a destination, until the process ends; `None`: as much as the configuration says.
    fn pace_destination(&self, id: DestinationId, per_minute: Option<u32>);

    /// Starts a replay, once for each idempotency key.
    async fn start_replay(
        &self,
        new: NewReplay,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<StartedReplay, StoreError>;

    /// Pauses, resumes or cancels a replay.
    async fn change_replay(
        &self,
        id: ReplayId,
        action: ReplayAction,
        now: Timestamp,
    ) -> Result<Replay, StoreError>;

    /// Has up to `limit` further deliveries of a replay sent again, if it is running.
    async fn advance_replay(&self, id: ReplayId, limit: usize, now: Timestamp) -> Result<Replay, StoreError>;

    /// The replay of this id.
    async fn replay(&self, id: ReplayId) -> Result<Option<Replay>, StoreError>;

    /// Up to `limit` replays before `before`, the newest first.
    async fn replays(&self, before: Option<ReplayId>, limit: usize) -> Result<Vec<Replay>, StoreError>;

    /// The replays that have deliveries to take up.
    async fn running_replays(&self) -> Result<Vec<ReplayId>, StoreError>;

    /// Up to `limit` items of a replay from the number `from` on.
    async fn replay_items(
        &self,
        id: ReplayId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<ReplayItem>, StoreError>;

    /// How many deliveries there are, by where they stand.
    fn ledger(&self) -> Ledger;

    /// The delivery of this id.
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError>;

    /// The deliveries of a job, oldest first.
    async fn deliveries_of(&self, job: JobId) -> Result<Vec<Delivery>, StoreError>;

    /// The recorded attempts of a delivery, oldest first.
    async fn attempts_of(&self, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError>;

    /// Up to `limit` events whose `seq` is greater than `after`, in order.
    async fn events_after(&self, after: u64, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// Up to `limit` events of a job whose `seq` is greater than `after`, in order.
    async fn events_of(&self, job: JobId, after: u64, limit: usize) -> Result<Vec<Event>, StoreError>;

    /// Looks at up to `limit` jobs whose time to be purged has come, oldest time first, and removes them, each with
    /// all that belongs to it: events, deliveries, attempts, idempotency key. Their pictures are listed as [`Garbage`]
    /// in the same commit. A job with a callback that is still on its way is kept and looked at again an hour later.
    async fn purge(&self, limit: usize, now: Timestamp) -> Result<Purged, StoreError>;

    /// Up to `limit` purged jobs whose pictures are still to be removed; none while an [`Export`] exists, which may
    /// be of a time when the jobs were there.
    async fn garbage(&self, limit: usize) -> Result<Vec<Garbage>, StoreError>;

    /// The pictures of these are removed. Written: losing it costs a look for files that are gone.
    async fn forget_garbage(&self, jobs: Vec<JobId>) -> Result<(), StoreError>;

    /// Stops or continues taking jobs in, and working on them. It outlasts the process.
    async fn set_paused(&self, paused: Paused) -> Result<(), StoreError>;

    /// What is paused.
    fn paused(&self) -> Paused;

    /// The signing secrets of a client; `None` before it has any.
    async fn secrets(&self, client: &ClientId) -> Result<Option<ClientSecrets>, StoreError>;

    /// Keeps a client's secrets, whose revision must be the next.
    async fn set_secrets(&self, secrets: ClientSecrets) -> Result<(), StoreError>;

    /// What is kept of the keys of the service.
    async fn keyring(&self) -> Result<Keyring, StoreError>;

    /// Keeps that.
    async fn set_keyring(&self, keyring: Keyring) -> Result<(), StoreError>;

    /// Looks at every record and checks the books; it takes time in proportion to the store.
    async fn audit(&self) -> Result<Audit, StoreError>;

    /// Begins to read out every record, as all of them are at one moment before this returns. Nobody is held up.
    async fn export(&self) -> Result<Box<dyn Export>, StoreError>;

    /// Begins to fill a store that has no jobs with the records of another.
    async fn import(&self) -> Result<Box<dyn Import>, StoreError>;

    /// When there is next something to claim.
    async fn next_due(&self) -> Result<NextDue, StoreError>;

    /// How many jobs wait for a worker.
    fn waiting(&self) -> Waiting;

    /// All of them.
    fn waiting_jobs(&self) -> u64 {
        let Waiting { work, fetches } = self.waiting();
        work + fetches
    }

    /// What wakes those who wait for a change.
    fn signals(&self) -> &Signals;

    /// Finishes what was begun and lets go of the engine; later calls get [`StoreError::Closed`].
    async fn close(&self);
}

/// Jobs that wait for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Their picture is here.
    pub work: u64,
    /// Their picture is still to be fetched.
    pub fetches: u64,
}

/// A job to accept.
#[derive(Debug, Clone)]
pub struct Submission<P = Input> {
    /// The job.
    pub job: NewJob<P>,
    /// The client's key, by which a repeated request finds the job of the first.
    pub idempotency: Option<Idempotency>,
}

/// An `Idempotency-Key` and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// The key as the client chose it; it is the client's own.
    pub key: String,
    /// SHA-256 over the picture's hash, or what stands for its source, and the normalised fields.
    pub fingerprint: [u8; 32],
}

/// What became of a submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Submitted {
    /// A new job.
    Created(Job),
    /// The key and the payload were seen before: this is the job of then.
    Repeated(Job),
    /// The key was seen before with another payload.
    KeyReused,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ending {
    /// Everything wanted is stored.
    Completed,
    /// It cannot be done.
    Failed(JobError),
    /// It may succeed another time, not before then.
    RetryAt(JobError, Timestamp),
    /// It was called off.
    Cancelled,
    /// It was cut off for no fault of its own, and goes on at once or then; the try is not counted.
    GivenBack(Option<Timestamp>),
}

/// What a purge did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Purged {
    /// Jobs that are gone.
    pub jobs: usize,
    /// Whether more are due to go.
    pub more: bool,
}

/// The pictures of a job that is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// Whose they were.
    pub job: JobId,
    /// Their names: the original and the artifacts.
    pub names: Vec<String>,
}

/// What is stopped until somebody says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Paused {
    /// No jobs are taken in.
    pub intake: bool,
    /// No jobs are claimed; what runs goes on.
    pub work: bool,
}

/// How long things are kept, and under which name they are told.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// The public base URL, which each event keeps as its source.
    pub source: String,
    /// How long a job that has ended is kept.
    pub keep_finished: Duration,
    /// How long a deleted job can be restored.
    pub keep_deleted: Duration,
    /// How long a callback may be overdue, once its job is to go; then it is given up.
    pub keep_undelivered: Duration,
    /// What one destination may take.
    pub dispatch: DispatchPolicy,
}

/// The books, counted from the records themselves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Audit {
    /// Jobs by where they stand.
    pub jobs: BTreeMap<JobStatus, u64>,
    /// Deliveries by where they stand.
    pub deliveries: BTreeMap<DeliveryState, u64>,
    /// What does not fit together, each in a sentence; the first hundred.
    pub faults: Vec<String>,
}

/// The times of the next claims that can succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NextDue {
    /// A job is due, or a job's lease runs out.
    pub job: Option<Timestamp>,
    /// [`Store::sweep_jobs`] has something to do, which may make a job ready to be fetched.
    pub sweep: Option<Timestamp>,
    /// A delivery is due, or its lease runs out.
    pub delivery: Option<Timestamp>,
    /// The first deadline of a job that has not ended.
    pub deadline: Option<Timestamp>,
}

/// Wake-ups. They say "look again", carry no truth, and may come too often.
#[derive(Debug, Default)]
pub struct Signals {
    /// There may be a job to claim.
    pub jobs: Notify,
    /// There may be one to claim whose picture is to be fetched.
    pub fetches: Notify,
    /// There may be a delivery to claim.
    pub deliveries: Notify,
    /// The `seq` of the last durable event.
    pub events: watch::Sender<u64>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No such record.
    #[error("there is no such record")]
    NotFound,
    /// The job's state does not allow it.
    #[error("the job does not allow this: {0}")]
    Transition(#[from] TransitionError),
    /// The delivery's state does not allow it.
    #[error(transparent)]
    Delivery(#[from] DeliveryConflict),
    /// The replay's state does not allow it.
    #[error(transparent)]
    Replay(#[from] ReplayConflict),
    /// The delivery is not the caller's any more.
    #[error(transparent)]
    StaleDelivery(#[from] StaleDelivery),
    /// The record was changed meanwhile.
    #[error("the record was changed meanwhile")]
    Outdated,
    /// A record exceeds what the engine holds safely.
    #[error("a record of {bytes} bytes exceeds the limit of {limit}")]
    RecordTooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A record cannot be read.
    #[error("a stored record cannot be read: {0}")]
    Corrupt(String),
    /// One export at a time.
    #[error("another export is under way")]
    ExportRunning,
    /// Too much was changed while an export was read.
    #[error(
        "more was changed while the store was read than the {limit} bytes that are remembered for it; begin again"
    )]
    ExportOutgrown {
        /// How much is remembered.
        limit: usize,
    },
    /// An import is for an empty store.
    #[error("the store has jobs already")]
    NotEmpty,
    /// The engine failed.
    #[error("the storage engine failed")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The disk is full, or so nearly that nothing new is taken.
    #[error("there is no room left on the disk")]
    Full,
    /// The store is shut down.
    #[error("the store is closed")]
    Closed,
}
