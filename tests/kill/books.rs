//! The books, after a kill: the store as the next process would find it, compared with what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use darkroom::blobs::ORIGINAL;
use darkroom::clock::Clock;
use darkroom::domain::delivery::DeliveryState;
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::event::{Event, EventKind, Subject};
use darkroom::domain::id::JobId;
use darkroom::domain::job::{Job, JobStatus};
use darkroom::store::sled::{OpenError, Options, SledStore};
use darkroom::store::{Audit, JobQuery, Policy, Store};
use sha2::{Digest as _, Sha256};

use crate::clients::Ledger;
use crate::points::Leaves;
use crate::receiver::Receiver;

/// Records read at a time.
const PAGE: usize = 500;

/// All that is on disk.
pub struct Books {
    pub jobs: BTreeMap<JobId, Job>,
    events: Vec<Event>,
    audit: Audit,
    waiting: u64,
    /// By job: the names of its pictures, and their hashes.
    pictures: BTreeMap<JobId, BTreeMap<String, [u8; 32]>>,
}

impl Books {
    /// Reads a copy of the store: opening would change it, and what the kill left is for the next server to open.
    pub async fn read(data: &Path) -> Result<Self, OpenError> {
        let copy = tempfile::tempdir().unwrap();
        copy_store(&data.join("store"), copy.path());
        let month = Duration::from_secs(30 * 24 * 60 * 60);
        let policy = Policy {
            dispatch: DispatchPolicy::default(),
            source: String::new(),
            keep_finished: month,
            keep_deleted: month,
            keep_undelivered: month,
        };
        let options = Options { cache_bytes: 64 << 20, policy };
        let folder = copy.path().to_owned();
        let open = move || SledStore::open(&folder, options, Clock::system().now());
        let store = tokio::task::spawn_blocking(open).await.unwrap()?;
        let audit = store.audit().await.unwrap();
        let books = Self {
            jobs: jobs(&store).await,
            events: events(&store).await,
            audit,
            waiting: store.waiting_jobs(),
            pictures: pictures(&data.join("blobs")),
        };
        store.close().await;
        Ok(books)
    }

    /// What was acknowledged and is not there.
    pub fn lost(&self, ledger: &Ledger) -> Vec<String> {
        let missing = ledger.jobs.iter().filter_map(|(id, known)| match self.jobs.get(id) {
            Some(job) => known.missing(job),
            None => Some(format!("{id} was acknowledged, and is not there")),
        });
        missing.collect()
    }

    /// What does not fit together.
    pub fn faults(&self, receiver: &Receiver) -> Vec<String> {
        let mut faults = self.audit.faults.clone();
        // Accepted = finished + waiting + running, each counted in its own way.
        let queued = self.events.iter().filter(|event| event.kind == EventKind::JobQueued);
        let accepted: BTreeSet<_> = queued.filter_map(Event::job_id).collect();
        let count = |status| self.audit.jobs.get(&status).copied().unwrap_or(0);
        let finished: u64 = JobStatus::ALL.into_iter().filter(|status| status.is_terminal()).map(count).sum();
        let (waiting, running) = (count(JobStatus::Queued), count(JobStatus::Processing));
        if accepted.len() as u64 != finished + self.waiting + running || waiting != self.waiting {
            let (accepted, counted) = (accepted.len(), self.waiting);
            faults.push(format!(
                "{accepted} accepted, {finished} finished, {waiting} (counted: {counted}) waiting, {running} running"
            ));
        }
        if !accepted.iter().eq(self.jobs.keys()) {
            faults.push("the log has other jobs than the store".to_owned());
        }
        if running != 0 {
            faults.push(format!("{running} jobs are running, and nobody is alive"));
        }
        self.jobs.values().for_each(|job| self.check_pictures(job, &mut faults));
        let logged: BTreeMap<_, _> = self.events.iter().map(|event| (event.id.to_string(), event)).collect();
        for (id, told) in receiver.told() {
            let event = logged.get(&id);
            let same = event.is_some_and(|event| {
                told == (
                    event.seq,
                    event.kind.as_str().to_owned(),
                    event.job_id().map_or_else(String::new, |id| id.to_string()),
                )
            });
            if !same {
                faults.push(format!("{id} was told, {told:?}, and the log has {event:?}"));
            }
        }
        faults.extend(receiver.take_faults());
        faults
    }

    /// What a job speaks of is on disk, to the last byte.
    fn check_pictures(&self, job: &Job, faults: &mut Vec<String>) {
        let pictures = self.pictures.get(&job.id);
        let artifacts = job.artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact.sha256));
        for (name, sha256) in artifacts.chain(job.input.iter().map(|input| (ORIGINAL, input.sha256))) {
            let there = pictures.and_then(|pictures| pictures.get(name));
            if there != Some(&sha256) {
                faults.push(format!("{name} of {} has the hash {there:02x?}", job.id));
            }
        }
        let missing = job.missing_variants().len();
        if job.status == JobStatus::Completed && missing != 0 {
            faults.push(format!("{} is completed without {missing} artifacts", job.id));
        }
    }

    /// What must hold once everything has come to its end.
    pub fn unfinished(&self, receiver: &Receiver) -> Vec<String> {
        let open = self.jobs.values().filter(|job| !job.status.is_terminal());
        let open = open.map(|job| format!("{} is {}", job.id, job.status.as_str()));
        let taken = receiver.taken();
        let wanted = self.events.iter().filter(|event| {
            let callback = match &event.subject {
                Subject::Job(job) => job.callback.as_ref(),
                _ => None,
            };
            callback.is_some_and(|callback| callback.events.contains(&event.kind))
        });
        let untold = wanted.filter(|event| !taken.contains(&event.id.to_string()));
        let untold = untold.map(|event| format!("{} of {:?} was never told", event.id, event.job_id()));
        let undelivered =
            self.audit.deliveries.iter().filter(|(state, _)| **state != DeliveryState::Delivered);
        let undelivered =
            undelivered.map(|(state, count)| format!("{count} deliveries are {}", state.as_str()));
        open.chain(untold).chain(undelivered).collect()
    }

    /// Pictures that belong to no job.
    pub fn orphans(&self) -> BTreeSet<JobId> {
        self.pictures.keys().filter(|id| !self.jobs.contains_key(id)).copied().collect()
    }

    /// How far the newest job has come that was not among these.
    pub fn leaves(&self, before: &BTreeSet<JobId>) -> Leaves {
        let Some(job) = self.jobs.values().rfind(|job| !before.contains(&job.id)) else {
            return Leaves::Nothing;
        };
        let attempts = job.callback.as_ref().and_then(|callback| callback.latest);
        match (job.status, attempts.map_or(0, |latest| latest.attempts)) {
            (JobStatus::Completed, 0) => Leaves::Completed,
            (JobStatus::Completed, _) => Leaves::Told,
            _ if job.started_at.is_some() => Leaves::Started(job.artifacts.len()),
            _ => Leaves::Queued,
        }
    }
}

async fn jobs(store: &SledStore) -> BTreeMap<JobId, Job> {
    let mut query = JobQuery { include_deleted: true, limit: PAGE, ..JobQuery::default() };
    let mut jobs = BTreeMap::new();
    loop {
        let page = store.jobs(query.clone()).await.unwrap();
        jobs.extend(page.jobs.into_iter().map(|job| (job.id, job)));
        query.before = page.next;
        if query.before.is_none() {
            return jobs;
        }
    }
}

async fn events(store: &SledStore) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let last = events.last().map_or(0, |event| event.seq);
        let page = store.events_after(last, PAGE).await.unwrap();
        if page.is_empty() {
            return events;
        }
        events.extend(page);
    }
}

/// The engine's files; the ballast is room and no more.
fn copy_store(from: &Path, to: &Path) {
    // Killed before it made one: opening makes an empty one.
    let Ok(entries) = fs::read_dir(from) else { return };
    for entry in entries.map(Result::unwrap).filter(|entry| entry.file_name() != "ballast") {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_store(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn pictures(blobs: &Path) -> BTreeMap<JobId, BTreeMap<String, [u8; 32]>> {
    let mut pictures: BTreeMap<JobId, BTreeMap<_, _>> = BTreeMap::new();
    let shards = fs::read_dir(blobs).into_iter().flatten().map(|shard| shard.unwrap().path());
    for file in shards.flat_map(|shard| fs::read_dir(shard).unwrap()) {
        let path = file.unwrap().path();
        let (job, name) = path.file_name().unwrap().to_str().unwrap().split_once('.').unwrap();
        let sha256 = Sha256::digest(fs::read(&path).unwrap()).into();
        pictures.entry(job.parse().unwrap()).or_default().insert(name.to_owned(), sha256);
    }
    pictures
}
