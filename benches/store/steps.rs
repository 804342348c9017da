//! The work that is measured, all of it through the port.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::ClientId;
use darkroom::domain::delivery::{Attempt, Delivery, ResponseHead, Verdict};
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::{JobId, WorkerId};
use darkroom::domain::image::{Format, Handling, Variant};
use darkroom::domain::job::{Callback, Input, Job, JobStatus, NewJob, Priority};
use darkroom::domain::retry::RetryOverride;
use darkroom::store::sled::{Options, SledStore};
use darkroom::store::{Ending, JobQuery, Policy, Store, Submission};
use jiff::Timestamp;

/// Who works at once.
pub(crate) const PRODUCERS: usize = 64;
/// Who works at once when it only is to be over soon.
const FILLERS: usize = 512;
/// Jobs between two looks at a fill.
const SLICE: usize = 5000;
/// One in so many jobs of a fill has the label.
const TAGGED: usize = 100;
/// As many jobs get their ids in a millisecond, whose order within it is random.
const IDS_PER_MILLISECOND: usize = 20;
/// The default configuration's.
pub(crate) const CACHE_BYTES: u64 = 64 << 20;
pub(crate) const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Pages that one section lists.
pub(crate) const PAGES: usize = 200;
const PAGE: usize = 50;
const LEASE: Duration = Duration::from_secs(600);
const TAG: &str = "album";

/// A store, and who works on it.
pub(crate) struct Desk {
    pub(crate) folder: PathBuf,
    pub(crate) store: Arc<dyn Store>,
    worker: WorkerId,
}

/// What a store was filled with.
pub(crate) struct Fill {
    middle: JobId,
}

impl Fill {
    /// The pages that are listed.
    pub(crate) fn pages(&self) -> [(&'static str, JobQuery); 5] {
        let all = newest();
        [
            ("list, first page", all.clone()),
            ("list, a middle page", JobQuery { before: Some(self.middle), ..all.clone() }),
            ("list, by status", JobQuery { status: Some(JobStatus::Completed), ..all.clone() }),
            ("list, by status, none", JobQuery { status: Some(JobStatus::Queued), ..all.clone() }),
            ("list, by tag", JobQuery { tag: Some(TAG.to_owned()), ..all }),
        ]
    }
}

pub(crate) fn newest() -> JobQuery {
    JobQuery { client: Some(ClientId::dev()), limit: PAGE, ..JobQuery::default() }
}

pub(crate) fn of_client(jobs: &[Job], client: &str) -> usize {
    jobs.iter().filter(|job| job.client.as_str() == client).count()
}

impl Desk {
    pub(crate) async fn open(folder: &Path) -> Self {
        let source = "http://127.0.0.1:8080".to_owned();
        let policy = Policy {
            dispatch: DispatchPolicy::default(),
            source,
            keep_finished: DAY,
            keep_deleted: DAY,
            keep_undelivered: DAY,
        };
        let now = Clock::system().now();
        let options = Options { cache_bytes: CACHE_BYTES, policy };
        let at = folder.to_owned();
        let open = tokio::task::spawn_blocking(move || SledStore::open(&at, options, now).unwrap());
        let store = Arc::new(open.await.unwrap());
        Self { folder: folder.to_owned(), store, worker: WorkerId::new(now, &entropy()) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Clock::system().now()
    }

    /// Finished jobs, each with a delivery that waits until tomorrow: as if their destination were dead.
    pub(crate) async fn fill(&self, jobs: usize) -> Fill {
        let mut middle = None;
        for done in (0..jobs).step_by(SLICE) {
            let slice = SLICE.min(jobs - done);
            let now = self.now();
            let ids = self.submit_as(FILLERS, "dev", slice, now).await;
            if done <= jobs / 2 {
                middle = ids.get(slice / 2).copied();
            }
            let jobs = self.claim_as(8, slice, 64, now).await;
            self.finish_as(FILLERS, jobs, now + DAY).await;
        }
        Fill { middle: middle.unwrap() }
    }

    pub(crate) async fn submit(&self, client: &str, jobs: usize) -> Vec<JobId> {
        self.submit_as(PRODUCERS, client, jobs, self.now()).await
    }

    async fn submit_as(&self, producers: usize, client: &str, jobs: usize, now: Timestamp) -> Vec<JobId> {
        let client: ClientId = client.parse().unwrap();
        let new = (0..jobs)
            .map(|n| {
                let made = now + Duration::from_millis((n / IDS_PER_MILLISECOND) as u64);
                new_job(JobId::new(made, &entropy()), client.clone(), n % TAGGED == 0)
            })
            .collect();
        self.spread(producers, new, move |store, job: NewJob| async move {
            let id = job.id;
            store.submit(Submission { job, idempotency: None }, now).await.unwrap();
            id
        })
        .await
    }

    pub(crate) async fn claim(&self, jobs: usize, limit: usize) -> Vec<Job> {
        self.claim_as(PRODUCERS, jobs, limit, self.now()).await
    }

    async fn claim_as(&self, producers: usize, jobs: usize, limit: usize, now: Timestamp) -> Vec<Job> {
        let worker = self.worker;
        self.spread(producers, batches(jobs, limit), move |store, limit| async move {
            let jobs = store.claim_jobs(worker, limit, LEASE, now).await.unwrap();
            assert_eq!(jobs.len(), limit);
            jobs
        })
        .await
        .concat()
    }

    pub(crate) async fn finish(&self, jobs: Vec<Job>, now: Timestamp) {
        self.finish_as(PRODUCERS, jobs, now).await;
    }

    async fn finish_as(&self, producers: usize, jobs: Vec<Job>, now: Timestamp) {
        self.spread(producers, jobs, move |store, job: Job| async move {
            store.finish_job(job.id, job.lease_token, Ending::Completed, now).await.unwrap();
        })
        .await;
    }

    pub(crate) async fn claim_deliveries(&self, count: usize, now: Timestamp) -> Vec<Delivery> {
        let worker = self.worker;
        self.spread(PRODUCERS, batches(count, 16), move |store, limit| async move {
            let claimed = store.claim_deliveries(worker, limit, LEASE, now).await.unwrap();
            assert_eq!(claimed.len(), limit);
            claimed.into_iter().map(|(delivery, _)| delivery).collect::<Vec<_>>()
        })
        .await
        .concat()
    }

    /// Ends an attempt of each: delivered, or to be tried again then.
    pub(crate) async fn settle(&self, deliveries: Vec<Delivery>, again: Option<Timestamp>) {
        let now = self.now();
        self.spread(PRODUCERS, deliveries, move |store, delivery: Delivery| async move {
            let attempt = attempt(delivery.attempt_count + 1, again, now);
            let verdict = again.map_or(Verdict::Delivered, Verdict::RetryAt);
            store.settle_delivery(delivery.id, delivery.token(), attempt, verdict, now).await.unwrap();
        })
        .await;
    }

    /// Pages, one after another.
    pub(crate) async fn list(&self, query: JobQuery) {
        for _ in 0..PAGES {
            self.store.jobs(query.clone()).await.unwrap();
        }
    }

    /// From the submission to the callback.
    pub(crate) async fn whole_story(&self, jobs: usize, now: Timestamp) {
        self.submit_as(PRODUCERS, "dev", jobs, now).await;
        let claimed = self.claim_as(PRODUCERS, jobs, 16, now).await;
        self.finish(claimed, now).await;
        let due = self.claim_deliveries(jobs, now).await;
        self.settle(due, None).await;
    }

    /// Removes all whose time has come.
    pub(crate) async fn purge(&self, now: Timestamp) -> usize {
        let mut removed = 0;
        loop {
            let purged = self.store.purge(256, now).await.unwrap();
            removed += purged.jobs;
            let garbage = self.store.garbage(256).await.unwrap();
            self.store
                .forget_garbage(garbage.into_iter().map(|garbage| garbage.job).collect())
                .await
                .unwrap();
            if !purged.more {
                return removed;
            }
        }
    }

    /// Does `step` for each of `items`, with so many at work at once.
    async fn spread<T, R, F>(
        &self,
        producers: usize,
        items: Vec<T>,
        step: impl Fn(Arc<dyn Store>, T) -> F + Clone + Send + 'static,
    ) -> Vec<R>
    where
        T: Send + 'static,
        R: Send + 'static,
        F: Future<Output = R> + Send,
    {
        let mut shares: Vec<Vec<T>> = (0..producers).map(|_| Vec::new()).collect();
        for (n, item) in items.into_iter().enumerate() {
            shares[n % producers].push(item);
        }
        let tasks: Vec<_> = shares
            .into_iter()
            .map(|share| {
                let (store, step) = (Arc::clone(&self.store), step.clone());
                tokio::spawn(async move {
                    let mut results = Vec::with_capacity(share.len());
                    for item in share {
                        results.push(step(Arc::clone(&store), item).await);
                    }
                    results
                })
            })
            .collect();
        let mut results = Vec::new();
        for task in tasks {
            results.extend(task.await.unwrap());
        }
        results
    }
}

/// `count` in parts of `limit` and a rest.
fn batches(count: usize, limit: usize) -> Vec<usize> {
    (0..count).step_by(limit).map(|done| limit.min(count - done)).collect()
}

fn new_job(id: JobId, client: ClientId, is_tagged: bool) -> NewJob {
    NewJob {
        id,
        client,
        input: Input {
            filename: Some("IMG_20261121_090000.jpg".to_owned()),
            format: Format::Jpeg,
            bytes: 3_753_621,
            width: 4032,
            height: 3024,
            sha256: [7; 32],
        },
        variants: Variant::defaults(),
        preset: None,
        handling: Handling::default(),
        callback: Some(Callback {
            url: "https://hooks.example/darkroom/completed".parse().unwrap(),
            events: EventKind::TERMINAL.to_vec(),
            secret: None,
            headers: Vec::new(),
            retry: RetryOverride::default(),
            latest: None,
        }),
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: if is_tagged { vec![TAG.to_owned()] } else { Vec::new() },
        metadata: Some(r#"{"order":"A-10087","customer":{"id":4711}}"#.to_owned()),
    }
}

fn attempt(number: u32, next_attempt_at: Option<Timestamp>, now: Timestamp) -> Attempt {
    let headers = [("content-type", "application/json"), ("server", "nginx"), ("content-length", "15")];
    Attempt {
        number,
        started_at: now,
        duration_ms: 48,
        trigger: darkroom::domain::delivery::Trigger::default(),
        timings: darkroom::domain::delivery::Timings::default(),
        remote_addr: Some(([203, 0, 113, 7], 443).into()),
        response: Some(ResponseHead {
            status: if next_attempt_at.is_some() { 503 } else { 200 },
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
            body: r#"{"status":"ok"}"#.to_owned(),
            truncated: false,
        }),
        error: None,
        next_attempt_at,
    }
}
