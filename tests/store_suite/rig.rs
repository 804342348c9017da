//! What the cases share: a store, the values they put into it, and the runner, which closes the books after each.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use darkroom::domain::client::ClientId;
use darkroom::domain::delivery::{Attempt, Delivery, DeliveryState, ErrorClass, Failure};
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::event::{Event, EventKind, Subject as Told};
use darkroom::domain::id::{JobId, WorkerId};
use darkroom::domain::image::{Format, Handling, Variant};
use darkroom::domain::job::{Artifact, Callback, Input, Job, JobError, JobStatus, NewJob, Priority, Source};
use darkroom::domain::retry::RetryOverride;
use darkroom::domain::secret::{SealedSecret, SigningSecret};
use darkroom::store::{
    Ending, FetchRoom, Idempotency, JobAction, JobQuery, Policy, Store, StoreError, Submission, Submitted,
};
use jiff::Timestamp;
use tokio::runtime::Runtime;

use crate::engines::{Engine, Subject};

/// How long the leases of [`Rig::claim`] are, in seconds.
pub const LEASE: i64 = 30;
/// How long jobs that have ended are kept, in seconds.
pub const KEEP_FINISHED: i64 = 1000;
/// How long deleted jobs are kept, in seconds.
pub const KEEP_DELETED: i64 = 100;
pub const KEEP_UNDELIVERED: i64 = 7200;

/// Runs a case over an engine, then looks at the books, before and after an opening.
pub fn run(engine: Engine, case: impl AsyncFnOnce(&Rig)) {
    let rig = Rig { store: engine.open(policy()), engine };
    runtime().block_on(async {
        case(&rig).await;
        if rig.is_closed().await {
            return;
        }
        let books = rig.audit().await.unwrap();
        assert_eq!(books.faults, [""; 0]);
        let queued = |jobs: &BTreeMap<JobStatus, u64>| jobs.get(&JobStatus::Queued).copied().unwrap_or(0);
        assert_eq!(rig.waiting_jobs(), queued(&books.jobs), "who waits is who is queued");
        rig.store.reopen(at(1_000_000)).await;
        let opened = rig.audit().await.unwrap();
        assert_eq!(opened.faults, [""; 0]);
        assert_eq!(rig.waiting_jobs(), queued(&opened.jobs), "also after opening");
        let is_leased = books.jobs.contains_key(&JobStatus::Processing)
            || books.deliveries.contains_key(&DeliveryState::Sending);
        if !is_leased {
            assert_eq!(opened, books, "the same before and after opening");
        }
        rig.close().await;
    });
}

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A store under test.
pub struct Rig {
    pub store: Arc<dyn Subject>,
    pub engine: Engine,
}

impl Deref for Rig {
    type Target = dyn Subject;

    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

impl Rig {
    pub async fn cancel_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.change_job(id, JobAction::Cancel, None, now).await
    }

    pub async fn retry_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.change_job(id, JobAction::Retry, None, now).await
    }

    pub async fn delete_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.change_job(id, JobAction::Delete, None, now).await
    }

    pub async fn restore_job(&self, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
        self.change_job(id, JobAction::Restore, None, now).await
    }

    /// Another store of the same engine, under other bounds for destinations.
    pub async fn under(&self, dispatch: DispatchPolicy) -> Self {
        let (engine, policy) = (self.engine, Policy { dispatch, ..policy() });
        let store = tokio::task::spawn_blocking(move || engine.open(policy)).await.unwrap();
        Self { store, engine }
    }

    /// `jobs`, or fewer where each step is an opening.
    pub fn many(&self, jobs: u32) -> u32 {
        if self.engine == Engine::Reopened { jobs.min(30) } else { jobs }
    }

    async fn is_closed(&self) -> bool {
        matches!(self.sweep_jobs(at(0)).await, Err(StoreError::Closed))
    }

    /// A new job.
    pub async fn accept(&self, job: NewJob, now: Timestamp) -> Job {
        match self.submit(Submission { job, idempotency: None }, now).await.unwrap() {
            Submitted::Created(job) => job,
            other => panic!("expected a new job, not {other:?}"),
        }
    }

    /// Several new jobs, at once.
    pub async fn accept_all(&self, jobs: impl IntoIterator<Item = NewJob>, now: Timestamp) -> Vec<Job> {
        futures_util::future::join_all(jobs.into_iter().map(|job| self.accept(job, now))).await
    }

    /// A job with an idempotency key, and a payload with this fingerprint.
    pub async fn accept_keyed(&self, job: NewJob, key: &str, fingerprint: u8, now: Timestamp) -> Submitted {
        let idempotency = Idempotency { key: key.to_owned(), fingerprint: [fingerprint; 32] };
        self.submit(Submission { job, idempotency: Some(idempotency) }, now).await.unwrap()
    }

    /// Claims jobs for worker 1, under leases of [`LEASE`].
    pub async fn claim(&self, limit: usize, now: Timestamp) -> Vec<Job> {
        self.claim_jobs(worker(1), limit, secs(LEASE), now).await.unwrap()
    }

    /// Accepts a job whose picture is to be fetched.
    pub async fn accept_source(&self, job: NewJob<Source>, now: Timestamp) -> Job {
        match self.submit_source(Submission { job, idempotency: None }, now).await.unwrap() {
            Submitted::Created(job) => job,
            other => panic!("{other:?}"),
        }
    }

    /// Claims jobs to be fetched for worker 1, under leases of [`LEASE`].
    pub async fn claim_to_fetch(&self, room: FetchRoom, now: Timestamp) -> Vec<Job> {
        self.claim_fetches(worker(1), room, secs(LEASE), now).await.unwrap()
    }

    /// Claims the one job that there is to claim.
    pub async fn claim_one(&self, now: Timestamp) -> Job {
        let mut claimed = self.claim(2, now).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }

    /// Insists that there is nothing to claim, and that a worker which goes by the next due time sleeps.
    pub async fn claims_nothing(&self, now: Timestamp) {
        assert_eq!(self.claim(1, now).await, []);
        let due = self.next_due().await.unwrap().job;
        assert!(due.is_none_or(|due| due > now), "nothing to claim at {now}, and the next is due at {due:?}");
    }

    pub async fn finish(&self, job: &Job, ending: Ending, now: Timestamp) -> Job {
        self.finish_job(job.id, job.lease_token, ending, now).await.unwrap()
    }

    /// A job that was accepted, claimed and ended in this way, all at `now`; nothing else may wait.
    pub async fn ended(&self, job: NewJob, ending: Ending, now: Timestamp) -> Job {
        self.accept(job, now).await;
        let job = self.claim_one(now).await;
        self.finish(&job, ending, now).await
    }

    pub async fn stored(&self, id: JobId) -> Job {
        self.job(id).await.unwrap().expect("the job is there")
    }

    pub async fn story(&self, id: JobId) -> Vec<Event> {
        self.events_of(id, 0, usize::MAX).await.unwrap()
    }

    /// The kinds of a job's events.
    pub async fn told(&self, id: JobId) -> Vec<EventKind> {
        self.story(id).await.into_iter().map(|event| event.kind).collect()
    }

    /// All that a query finds, page by page.
    pub async fn list(&self, query: JobQuery) -> Vec<Job> {
        list(self.store.as_ref(), query).await
    }

    /// Claims deliveries for worker 1, under leases of [`LEASE`].
    pub async fn claim_attempts(&self, limit: usize, now: Timestamp) -> Vec<Delivery> {
        let claimed = self.claim_deliveries(worker(1), limit, secs(LEASE), now).await.unwrap();
        for (delivery, event) in &claimed {
            assert_eq!((delivery.event_id, delivery.event_seq), (event.id, event.seq), "each with its event");
        }
        if claimed.len() < limit {
            let due = self.next_due().await.unwrap().delivery;
            assert!(due.is_none_or(|due| due > now), "no more to claim at {now}, and one is due at {due:?}");
        }
        claimed.into_iter().map(|(delivery, _)| delivery).collect()
    }

    pub async fn claim_attempt(&self, now: Timestamp) -> Delivery {
        let mut claimed = self.claim_attempts(2, now).await;
        assert_eq!(claimed.len(), 1, "{claimed:?}");
        claimed.remove(0)
    }
}

pub async fn list(store: &(impl Store + ?Sized), query: JobQuery) -> Vec<Job> {
    let mut query = JobQuery { limit: query.limit.max(1), ..query };
    let mut jobs = Vec::new();
    loop {
        let page = store.jobs(query.clone()).await.unwrap();
        assert!(page.jobs.len() <= query.limit, "no page exceeds its limit");
        jobs.extend(page.jobs);
        match page.next {
            // It has to come to an end.
            Some(next) if query.before.is_none_or(|before| next < before) => query.before = Some(next),
            Some(next) => panic!("after the page before {:?} comes the one before {next}", query.before),
            None => return jobs,
        }
    }
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub fn secs(seconds: i64) -> Duration {
    Duration::from_secs(seconds.unsigned_abs())
}

pub fn policy() -> Policy {
    Policy {
        // What the model claims is not to depend on the order of equal times.
        dispatch: DispatchPolicy { at_first: 64, ..DispatchPolicy::default() },
        source: "http://127.0.0.1:8080".to_owned(),
        keep_finished: secs(KEEP_FINISHED),
        keep_deleted: secs(KEEP_DELETED),
        keep_undelivered: secs(KEEP_UNDELIVERED),
    }
}

pub fn worker(n: u8) -> WorkerId {
    WorkerId::new(at(0), &[n; 10])
}

pub fn client(name: &str) -> ClientId {
    name.parse().unwrap()
}

/// The `n`th id of that time.
pub fn job_id(n: u32, now: Timestamp) -> JobId {
    let mut entropy = [0; 10];
    entropy[6..].copy_from_slice(&n.to_be_bytes());
    JobId::new(now, &entropy)
}

/// A picture.
pub fn input() -> Input {
    Input {
        filename: Some("cat.jpg".to_owned()),
        format: Format::Jpeg,
        bytes: 1000,
        width: 40,
        height: 30,
        sha256: [7; 32],
    }
}

/// The same job, but for its picture, which is on this host.
pub fn elsewhere(job: NewJob, host: &str) -> NewJob<Source> {
    let url = format!("https://{host}/cat.jpg?signature=s3cr3t").parse().unwrap();
    let sealed = SealedSecret::plain(&SigningSecret::from_entropy([8; 32]));
    NewJob {
        id: job.id,
        client: job.client,
        input: Source::new(&url, sealed),
        variants: job.variants,
        preset: job.preset,
        handling: job.handling,
        callback: job.callback,
        priority: job.priority,
        start_at: job.start_at,
        deadline_ms: job.deadline_ms,
        tags: job.tags,
        metadata: job.metadata,
    }
}

/// Room for so many fetches, of which as many may be of one source.
pub fn room(places: usize) -> FetchRoom {
    FetchRoom { places, per_source: places, ..FetchRoom::default() }
}

/// A plain job without a callback.
pub fn job(n: u32, now: Timestamp) -> NewJob {
    NewJob {
        id: job_id(n, now),
        client: client("a"),
        input: input(),
        variants: Variant::defaults(),
        preset: None,
        handling: Handling::default(),
        callback: None,
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: Vec::new(),
        metadata: None,
    }
}

/// A callback for these kinds of events.
pub fn telling(events: &[EventKind]) -> Option<Callback> {
    Some(Callback {
        url: "https://hooks.example/abc".parse().unwrap(),
        events: events.to_vec(),
        secret: Some(SealedSecret::plain(&SigningSecret::from_entropy([7; 32]))),
        headers: Vec::new(),
        retry: RetryOverride::default(),
        latest: None,
    })
}

pub fn error() -> JobError {
    JobError {
        code: "image-undecodable".to_owned(),
        title: "The image cannot be decoded".to_owned(),
        detail: "it ends early".to_owned(),
        retryable: false,
    }
}

pub fn artifact(name: &str, bytes: u64) -> Artifact {
    let (format, sha256) = (Format::Jpeg, [9; 32]);
    Artifact { name: name.to_owned(), format, bytes, width: 40, height: 30, sha256 }
}

/// The record of an attempt that failed.
pub fn failed_attempt(number: u32, now: Timestamp) -> Attempt {
    Attempt {
        number,
        started_at: now,
        duration_ms: 3,
        trigger: darkroom::domain::delivery::Trigger::default(),
        timings: darkroom::domain::delivery::Timings::default(),
        remote_addr: None,
        response: None,
        error: Some(Failure::new(ErrorClass::Timeout, "15 s")),
        next_attempt_at: None,
    }
}

pub fn ids<'a>(jobs: impl IntoIterator<Item = &'a Job>) -> Vec<JobId> {
    jobs.into_iter().map(|job| job.id).collect()
}

/// The job that an event tells of.
pub fn job_of(event: &Event) -> &Job {
    match &event.subject {
        Told::Job(job) => job,
        other => panic!("{other:?} is no job"),
    }
}
