//! The process that opens what a cut left, and compares it with what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use darkroom::blobs::{Blobs, ORIGINAL};
use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::ClientId;
use darkroom::domain::delivery::{Attempt, Delivery, DeliveryState};
use darkroom::domain::event::{Event, EventKind, Subject};
use darkroom::domain::id::{DeliveryId, JobId, WorkerId};
use darkroom::domain::job::{Callback, Job, JobStatus};
use darkroom::store::{JobQuery, Store, StoreError, Submitted};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::parts::{self, say};
use crate::records::{self, Said};

/// Records read, or claimed, at a time.
const PAGE: usize = 100;
const LEASE: Duration = Duration::from_secs(60);

/// What a verification found.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What the store holds, in words.
    pub holds: String,
    /// Why the store does not open or cannot be read.
    pub not_opened: Option<String>,
    /// What was said and does not hold.
    pub lost: Vec<String>,
    /// What holds in part.
    pub torn: Vec<String>,
}

pub fn run(folder: &Path) {
    let said: Vec<Said> = std::io::stdin().lines().filter_map(|line| parts::heard(&line.unwrap())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let report = match parts::open(folder) {
        Ok((store, blobs)) => runtime.block_on(verify(store, &blobs, &said)),
        Err(error) => Report { not_opened: Some(format!("{error:?}")), ..Report::default() },
    };
    say(&report);
}

async fn verify(store: Arc<dyn Store>, blobs: &Blobs, said: &[Said]) -> Report {
    let mut report = Report::default();
    match Books::read(store.as_ref()).await {
        Ok(books) => {
            let [jobs, events] = [books.jobs.len(), books.events.len()];
            let attempts: usize = books.deliveries.values().map(|(_, attempts)| attempts.len()).sum();
            let deliveries = books.deliveries.len();
            report.holds =
                format!("{jobs} jobs, {events} events, {deliveries} deliveries, {attempts} attempts");
            said.iter().for_each(|said| books.check_said(said, &mut report.lost));
            let torn = &mut report.torn;
            books.check_jobs(torn);
            books.check_log(torn);
            books.check_deliveries(torn);
            books.check_pictures(blobs, torn).await;
            // Before what follows claims and submits.
            match store.audit().await {
                Ok(audit) => torn.extend(audit.faults),
                Err(error) => torn.push(format!("the audit fails: {error:?}")),
            }
            for result in [
                books.check_keys(store.as_ref(), torn).await,
                books.check_lists(store.as_ref(), torn).await,
                books.check_queues(store.as_ref(), torn).await,
            ] {
                torn.extend(result.err().map(|error| format!("a step fails: {error:?}")));
            }
        }
        Err(error) => report.not_opened = Some(format!("unreadable: {error:?}")),
    }
    store.close().await;
    report
}

/// All that the store holds, as its port shows it.
struct Books {
    jobs: BTreeMap<JobId, Job>,
    events: BTreeMap<u64, Event>,
    deliveries: BTreeMap<DeliveryId, (Delivery, Vec<Attempt>)>,
}

impl Books {
    async fn read(store: &dyn Store) -> Result<Self, StoreError> {
        let jobs = list(store, None).await?.into_iter().map(|job| (job.id, job)).collect();
        let mut books = Self { jobs, events: BTreeMap::new(), deliveries: BTreeMap::new() };
        loop {
            let last = books.events.last_key_value().map_or(0, |(seq, _)| *seq);
            let page = store.events_after(last, PAGE).await?;
            if page.is_empty() {
                break;
            }
            books.events.extend(page.into_iter().map(|event| (event.seq, event)));
        }
        for id in books.jobs.keys() {
            for delivery in store.deliveries_of(*id).await? {
                let attempts = store.attempts_of(delivery.id).await?;
                books.deliveries.insert(delivery.id, (delivery, attempts));
            }
        }
        Ok(books)
    }

    fn check_said(&self, said: &Said, lost: &mut Vec<String>) {
        let holds = match *said {
            Said::Job { id, status, revision, token } => self.jobs.get(&id).is_some_and(|job| {
                let is_there = job.revision >= revision && job.lease_token >= token;
                is_there && (job.status == status || !status.is_terminal())
            }),
            Said::Delivery { id, attempts, state } => {
                self.deliveries.get(&id).is_some_and(|(delivery, recorded)| {
                    let is_there = delivery.attempt_count >= attempts && recorded.len() >= attempts as usize;
                    is_there && (delivery.state == state || state == DeliveryState::Pending)
                })
            }
            Said::Event { seq, id } => self.events.get(&seq).is_some_and(|event| event.id == id),
        };
        if !holds {
            lost.push(format!("{said:?}"));
        }
    }

    /// A job is what was submitted, and its state has all that belongs to it.
    fn check_jobs(&self, torn: &mut Vec<String>) {
        for job in self.jobs.values() {
            let new = records::submission(job.id).job;
            let asked = |callback: &Option<Callback>| {
                callback.as_ref().map(|callback| (callback.url.clone(), callback.events.clone()))
            };
            let is_whole = job.input.as_ref() == Some(&new.input)
                && job.variants == new.variants
                && asked(&job.callback) == asked(&new.callback)
                && (&job.tags, &job.metadata) == (&new.tags, &new.metadata);
            expect(is_whole, torn, || format!("{} is not what was submitted", job.id));

            let noted = job.artifacts.iter().all(|noted| {
                let variant = job.variants.iter().find(|variant| variant.name == noted.name);
                variant.is_some_and(|variant| records::artifact(job.id, variant) == *noted)
            });
            expect(noted, torn, || format!("{} notes artifacts that nobody made", job.id));

            let fits = match job.status {
                JobStatus::Completed => job.missing_variants().is_empty() && job.error.is_none(),
                JobStatus::Failed => job.error.is_some(),
                // Opening has freed it.
                JobStatus::Processing => false,
                JobStatus::Queued => job.lease.is_none(),
                // The writer cancels none.
                JobStatus::Cancelled => false,
            };
            let ended = job.finished_at.is_some() == job.status.is_terminal();
            expect(fits && ended, torn, || format!("{} is {:?} by half: {job:?}", job.id, job.status));
        }
    }

    /// The log has no gap, and tells of each job exactly what became of it.
    fn check_log(&self, torn: &mut Vec<String>) {
        expect((1..).zip(self.events.keys()).all(|(place, seq)| place == *seq), torn, || {
            format!("{} events, the last in place {:?}", self.events.len(), self.events.keys().last())
        });
        let ids: BTreeSet<_> = self.events.values().map(|event| event.id).collect();
        expect(ids.len() == self.events.len(), torn, || "an event's id is there twice".to_owned());

        let mut told: BTreeMap<JobId, Vec<EventKind>> = BTreeMap::new();
        for event in self.events.values() {
            let Some(id) = event.job_id() else { continue };
            let snapshot = match &event.subject {
                Subject::Job(told_of) => {
                    told.entry(id).or_default().push(event.kind);
                    self.jobs.get(&id).is_some_and(|job| {
                        (job.id, &job.input, &job.metadata) == (told_of.id, &told_of.input, &told_of.metadata)
                    })
                }
                _ => self.jobs.contains_key(&id),
            };
            expect(snapshot, torn, || format!("event {} tells of a job that is not there", event.seq));
        }
        for job in self.jobs.values() {
            let ending = job.status.ending();
            let started = job.started_at.map(|_| EventKind::JobStarted);
            let story: Vec<_> = [Some(EventKind::JobQueued), started, ending].into_iter().flatten().collect();
            let told = told.get(&job.id).map_or(&[][..], Vec::as_slice);
            expect(told == story, torn, || {
                format!("{} is {:?}, and the log tells {told:?}", job.id, job.status)
            });
        }
    }

    /// Each event that a callback asked for has one delivery, with every attempt whole.
    fn check_deliveries(&self, torn: &mut Vec<String>) {
        let wanted = self.events.values().filter(|event| {
            let job = event.job_id().and_then(|id| self.jobs.get(&id));
            let callback = job.and_then(|job| job.callback.as_ref());
            callback.is_some_and(|callback| callback.events.contains(&event.kind))
        });
        let wanted: Vec<_> =
            wanted.filter_map(|event| Some((event.seq, event.id, event.job_id()?))).collect();
        let mut made: Vec<_> = self.deliveries.values().map(|(made, _)| made).collect();
        made.sort_by_key(|made| made.event_seq);
        let found = made.iter().map(|made| (made.event_seq, made.event_id, made.job_id));
        expect(found.eq(wanted.iter().copied()), torn, || {
            format!("{} deliveries of {} events that asked for one", made.len(), wanted.len())
        });

        for (delivery, attempts) in self.deliveries.values() {
            let numbered = (1..=delivery.attempt_count).eq(attempts.iter().map(|attempt| attempt.number));
            let whole = attempts.iter().all(|attempt| {
                records::attempt(delivery.id, attempt.number, attempt.started_at).0 == *attempt
            });
            let ended = matches!(delivery.state, DeliveryState::Delivered | DeliveryState::Exhausted);
            let waits = delivery.state == DeliveryState::Pending && delivery.next_attempt_at.is_some();
            expect(numbered && whole && ended != waits, torn, || {
                format!("{} is {:?} with {} attempts", delivery.id, delivery.state, attempts.len())
            });
        }
        let latest: BTreeMap<_, _> = made.iter().map(|made| (made.job_id, made.progress())).collect();
        for job in self.jobs.values() {
            let latest = latest.get(&job.id).copied();
            let shown = job.callback.as_ref().and_then(|callback| callback.latest);
            expect(shown == latest, torn, || format!("{} shows {shown:?}, and it is {latest:?}", job.id));
        }
    }

    /// The pictures that a job speaks of are there, to the last byte.
    async fn check_pictures(&self, blobs: &Blobs, torn: &mut Vec<String>) {
        for job in self.jobs.values() {
            let made = job.artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact.sha256));
            for (name, sha256) in made.chain(job.input.iter().map(|input| (ORIGINAL, input.sha256))) {
                let stored = blobs.read(job.id, name).await.map(|bytes| Sha256::digest(&bytes).into());
                expect(stored.as_ref().is_ok_and(|stored| *stored == sha256), torn, || {
                    format!("{name} of {}: {:?}", job.id, stored.map(|_: [u8; 32]| "other bytes"))
                });
            }
        }
    }

    /// Every idempotency key finds its job.
    async fn check_keys(&self, store: &dyn Store, torn: &mut Vec<String>) -> Result<(), StoreError> {
        for id in self.jobs.keys() {
            let answer = store.submit(records::submission(*id), Clock::system().now()).await?;
            let found = matches!(&answer, Submitted::Repeated(job) if job.id == *id);
            expect(found, torn, || format!("the key of {id} does not find it: {answer:?}"));
        }
        Ok(())
    }

    /// The list of each status has exactly the jobs that stand there.
    async fn check_lists(&self, store: &dyn Store, torn: &mut Vec<String>) -> Result<(), StoreError> {
        for status in JobStatus::ALL {
            let listed: BTreeSet<_> = list(store, Some(status)).await?.iter().map(|job| job.id).collect();
            let expected = self.jobs.values().filter(|job| job.status == status).map(|job| job.id).collect();
            expect(listed == expected, torn, || {
                format!("{} jobs listed as {status:?}, and {} are", listed.len(), expected.len())
            });
        }
        Ok(())
    }

    /// All that waits can be claimed, and nothing else. It comes last, as it changes the store.
    async fn check_queues(&self, store: &dyn Store, torn: &mut Vec<String>) -> Result<(), StoreError> {
        let now = Clock::system().now();
        let worker = WorkerId::new(now, &entropy());
        let waiting = self.jobs.values().filter(|job| job.status == JobStatus::Queued).map(|job| job.id);
        let waiting: BTreeSet<_> = waiting.collect();
        let pending = self.deliveries.values().map(|(delivery, _)| delivery);
        let pending = pending.filter(|delivery| delivery.state == DeliveryState::Pending);
        let pending: BTreeSet<_> = pending.map(|delivery| delivery.id).collect();
        expect(store.waiting_jobs() == waiting.len() as u64, torn, || {
            format!("{} jobs are counted as waiting, and {} do", store.waiting_jobs(), waiting.len())
        });

        // Deliveries first: a claimed job may be an event, and so a delivery, of its own.
        let mut claimed = BTreeSet::new();
        loop {
            let page = store.claim_deliveries(worker, PAGE, LEASE, now).await?;
            if page.is_empty() {
                break;
            }
            for (delivery, event) in page {
                expect(delivery.event_id == event.id, torn, || {
                    format!("{} has another's event", delivery.id)
                });
                claimed.insert(delivery.id);
            }
        }
        expect(claimed == pending, torn, || {
            format!("{} deliveries can be claimed, and {} wait", claimed.len(), pending.len())
        });
        let mut claimed = BTreeSet::new();
        loop {
            let page = store.claim_jobs(worker, PAGE, LEASE, now).await?;
            if page.is_empty() {
                break;
            }
            claimed.extend(page.iter().map(|job| job.id));
        }
        expect(claimed == waiting, torn, || {
            format!("{} jobs can be claimed, and {} wait", claimed.len(), waiting.len())
        });
        Ok(())
    }
}

/// All jobs, or all that stand at `status`.
async fn list(store: &dyn Store, status: Option<JobStatus>) -> Result<Vec<Job>, StoreError> {
    let mut query = JobQuery { client: Some(ClientId::dev()), status, limit: PAGE, ..JobQuery::default() };
    let mut jobs: Vec<Job> = Vec::new();
    loop {
        let page = store.jobs(query.clone()).await?;
        jobs.extend(page.jobs);
        if page.next.is_none() {
            return Ok(jobs);
        }
        query.before = page.next;
    }
}

fn expect(holds: bool, findings: &mut Vec<String>, finding: impl FnOnce() -> String) {
    if !holds {
        findings.push(finding());
    }
}
