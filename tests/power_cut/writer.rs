//! The process that writes until the power is gone, and says what was acknowledged.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use darkroom::blobs::{Blobs, ORIGINAL};
use darkroom::clock::{Clock, entropy, random_fraction};
use darkroom::domain::event::Event;
use darkroom::domain::id::{JobId, WorkerId};
use darkroom::domain::job::Job;
use darkroom::store::{Store, StoreError, Submitted};
use tokio::sync::RwLock;

use crate::parts::{self, say};
use crate::records::{self, Said};

const PRODUCERS: usize = 16;
const WORKERS: usize = 4;
const COURIERS: usize = 16;
/// Jobs that wait before producers do.
const BACKLOG: u64 = 64;
const LEASE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

pub fn run(folder: &Path) {
    // When the power goes while it opens, nothing was acknowledged; sled may panic then, and that need not be read.
    std::panic::set_hook(Box::new(|_| {}));
    let Ok((store, blobs)) = parts::open(folder) else { std::process::exit(1) };
    drop(std::panic::take_hook());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let worker = WorkerId::new(now(), &entropy());
    let writer = Arc::new(Writer { store, blobs, worker, pictures: RwLock::new(()) });
    runtime.block_on(writer.write());
}

struct Writer {
    store: Arc<dyn Store>,
    blobs: Blobs,
    worker: WorkerId,
    /// Held for reading while a picture is stored.
    pictures: RwLock<()>,
}

impl Writer {
    async fn write(self: Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..PRODUCERS {
            tasks.spawn(Arc::clone(&self).produce());
        }
        for _ in 0..WORKERS {
            tasks.spawn(Arc::clone(&self).work());
        }
        for _ in 0..COURIERS {
            tasks.spawn(Arc::clone(&self).deliver());
        }
        tasks.spawn(Arc::clone(&self).follow());
        tasks.spawn(Arc::clone(&self).hold_pictures_back());
        // The store ends the process when it cannot sync. Whoever gets an error before that says no more.
        while let Some(ended) = tasks.join_next().await {
            let _ = ended.unwrap();
        }
    }

    async fn produce(self: Arc<Self>) -> Result<(), StoreError> {
        loop {
            while self.store.waiting_jobs() > BACKLOG {
                tokio::time::sleep(PAUSE).await;
            }
            let id = JobId::new(now(), &entropy());
            // When no picture can be stored any more, the job is submitted all the same: so the store finds out.
            self.store_picture(id, ORIGINAL).await;
            if let Submitted::Created(job) = self.store.submit(records::submission(id), now()).await? {
                say(&Said::from(&job));
            }
        }
    }

    async fn work(self: Arc<Self>) -> Result<(), StoreError> {
        loop {
            let jobs = self.store.claim_jobs(self.worker, 4, LEASE, now()).await?;
            if jobs.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
            for job in jobs {
                say(&Said::from(&job));
                self.process(&job).await?;
            }
        }
    }

    async fn process(&self, job: &Job) -> Result<(), StoreError> {
        let token = job.lease_token;
        for variant in job.missing_variants() {
            if self.store_picture(job.id, &variant.name).await {
                self.store.add_artifact(job.id, token, records::artifact(job.id, &variant), None).await?;
            }
            let until = now().checked_add(LEASE).unwrap();
            self.store.extend_job(job.id, token, until).await?;
        }
        let job = self.store.finish_job(job.id, token, records::ending(job, now()), now()).await?;
        say(&Said::from(&job));
        Ok(())
    }

    async fn deliver(self: Arc<Self>) -> Result<(), StoreError> {
        loop {
            let due = self.store.claim_deliveries(self.worker, 2, LEASE, now()).await?;
            if due.is_empty() {
                tokio::time::sleep(PAUSE).await;
            }
            for (delivery, _) in due {
                let (attempt, verdict) = records::attempt(delivery.id, delivery.attempt_count + 1, now());
                let (id, token) = (delivery.id, delivery.token());
                say(&Said::from(&self.store.settle_delivery(id, token, attempt, verdict, now()).await?));
            }
        }
    }

    /// Says which events are durable, as everyone who follows the log is told.
    async fn follow(self: Arc<Self>) -> Result<(), StoreError> {
        let mut durable = self.store.signals().events.subscribe();
        let mut last = *durable.borrow_and_update();
        while durable.changed().await.is_ok() {
            let end = *durable.borrow_and_update();
            while last < end {
                let events = self.store.events_after(last, 500).await?;
                let events: Vec<Event> = events.into_iter().filter(|event| event.seq <= end).collect();
                events.iter().for_each(|event| say(&Said::from(event)));
                last = events.last().map_or(end, |event| event.seq);
            }
        }
        Ok(())
    }

    /// The sync of a picture makes ext4 commit its journal, and so much of what the store has written too. There must
    /// be times without, or a sync that the store forgot would be hidden.
    async fn hold_pictures_back(self: Arc<Self>) -> Result<(), StoreError> {
        loop {
            tokio::time::sleep(Duration::from_millis(300).mul_f64(random_fraction())).await;
            let _held = self.pictures.write().await;
            tokio::time::sleep(Duration::from_millis(300).mul_f64(random_fraction())).await;
        }
    }

    async fn store_picture(&self, id: JobId, name: &str) -> bool {
        let _held = self.pictures.read().await;
        self.blobs.put(id, name, &records::picture(id, name)).await.is_ok()
    }
}

fn now() -> jiff::Timestamp {
    Clock::system().now()
}
