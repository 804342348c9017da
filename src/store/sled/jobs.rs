//! The use-cases of jobs, and of the event log that tells their story.

use std::time::Duration;

use jiff::Timestamp;

use super::deliveries;
use super::engine::Engine;
use super::keys::{self, Key};
use super::records::{self, IdempotencyRecord};
use super::writer::Tx;
use crate::clock::entropy;
use crate::domain::delivery::Delivery;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{DeliveryId, EventId, JobId, WorkerId};
use crate::domain::job::{Job, JobStatus, TransitionError};
use crate::store::{Ending, JobQuery, StoreError, Submission, Submitted};

/// Expired leases that one claim frees; the next claim frees the next.
const FREED_PER_CLAIM: usize = 128;

pub(super) fn submit(
    tx: &mut Tx<'_>,
    submission: Submission,
    now: Timestamp,
) -> Result<Submitted, StoreError> {
    let Submission { job: new, idempotency } = submission;
    if let Some(idempotency) = idempotency {
        let key = keys::idempotency(&new.client, &idempotency.key);
        if let Some(known) = tx.get::<IdempotencyRecord>(&key)? {
            if known.fingerprint != idempotency.fingerprint {
                return Ok(Submitted::KeyReused);
            }
            return Ok(Submitted::Repeated(load(tx, known.job)?));
        }
        tx.put(key, &IdempotencyRecord { job: new.id, fingerprint: idempotency.fingerprint })?;
    }
    let mut job = Job::accepted(new, now);
    tell(tx, &mut job, EventKind::JobQueued, now)?;
    save(tx, None, &job)?;
    Ok(Submitted::Created(job))
}

pub(super) fn claim(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    limit: usize,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Job>, StoreError> {
    free(tx, keys::due(keys::JOB_LEASE, now), FREED_PER_CLAIM, now)?;
    let until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
    let mut claimed = Vec::new();
    for key in tx.keys(keys::due(keys::JOB_QUEUE, now), limit)? {
        let before = load(tx, id_in(&key)?)?;
        let mut job = before.clone();
        job.claim(worker, until, now)?;
        if before.started_at.is_none() {
            tell(tx, &mut job, EventKind::JobStarted, now)?;
        }
        save(tx, Some(&before), &job)?;
        claimed.push(job);
    }
    Ok(claimed)
}

pub(super) fn update(
    tx: &mut Tx<'_>,
    id: JobId,
    change: impl FnOnce(&mut Job) -> Result<(), TransitionError>,
) -> Result<(), StoreError> {
    let before = load(tx, id)?;
    let mut job = before.clone();
    change(&mut job)?;
    save(tx, Some(&before), &job)
}

pub(super) fn finish(
    tx: &mut Tx<'_>,
    id: JobId,
    token: u64,
    ending: Ending,
    now: Timestamp,
) -> Result<Job, StoreError> {
    let before = load(tx, id)?;
    let mut job = before.clone();
    match ending {
        Ending::Completed => {
            job.complete(token, now)?;
            tell(tx, &mut job, EventKind::JobCompleted, now)?;
        }
        Ending::Failed(error) => {
            job.fail(token, error, now)?;
            tell(tx, &mut job, EventKind::JobFailed, now)?;
        }
        Ending::RetryAt(error, due) => job.retry_later(token, error, due)?,
        Ending::GivenBack => job.give_back(token, now)?,
    }
    save(tx, Some(&before), &job)?;
    Ok(job)
}

/// Takes every job from its worker: when none can be alive.
pub(super) fn free_all(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    free(tx, keys::all(keys::JOB_LEASE), usize::MAX, now)
}

fn free(
    tx: &mut Tx<'_>,
    leases: std::ops::Range<Key>,
    limit: usize,
    now: Timestamp,
) -> Result<(), StoreError> {
    for key in tx.keys(leases, limit)? {
        update(tx, id_in(&key)?, |job| job.lose_worker(now))?;
    }
    Ok(())
}

pub(super) fn get(engine: &Engine, id: JobId) -> Result<Option<Job>, StoreError> {
    engine.get(&keys::job(id))
}

pub(super) fn list(engine: &Engine, query: &JobQuery) -> Result<Vec<Job>, StoreError> {
    let mut page = Vec::new();
    for entry in engine.scan(keys::jobs(query.status, query.before)).rev() {
        let (key, value) = entry?;
        let job = match query.status {
            None => Some(records::decode::<Job>(&value)?),
            // The page is read while jobs move on: an index entry may be older than its job.
            Some(status) => get(engine, id_in(&key)?)?.filter(|job| job.status == status),
        };
        page.extend(job.filter(|job| job.client == query.client));
        if page.len() == query.limit {
            break;
        }
    }
    Ok(page)
}

/// Appends an event to the log, and makes its delivery if the job's callback asked for its kind.
fn tell(tx: &mut Tx<'_>, job: &mut Job, kind: EventKind, now: Timestamp) -> Result<(), StoreError> {
    let id = EventId::new(now, &entropy());
    let mut event = Event {
        id,
        seq: tx.take_seq(),
        kind,
        job_id: job.id,
        at: now,
        source: tx.source().to_owned(),
        job: job.snapshot(),
    };
    if let Some(callback) = job.callback.as_mut().filter(|callback| callback.events.contains(&kind)) {
        let delivery = Delivery::of(&event, callback, DeliveryId::new(now, &entropy()));
        callback.latest = Some(delivery.progress());
        event.job = job.snapshot();
        deliveries::insert(tx, &delivery)?;
    }
    tx.put(keys::event(event.seq), &event)
}

fn load(tx: &Tx<'_>, id: JobId) -> Result<Job, StoreError> {
    tx.get(&keys::job(id))?.ok_or(StoreError::NotFound)
}

/// Writes the record, and the index entries that follow from it.
fn save(tx: &mut Tx<'_>, before: Option<&Job>, job: &Job) -> Result<(), StoreError> {
    tx.put(keys::job(job.id), job)?;
    tx.reindex(&before.map(index).unwrap_or_default(), &index(job));
    Ok(())
}

fn index(job: &Job) -> Vec<Key> {
    let mut index = vec![keys::job_by_status(job.status, job.id)];
    if job.status == JobStatus::Queued {
        index.push(keys::job_queue(job.due_at, job.id));
    }
    if let Some(lease) = job.lease {
        index.push(keys::job_lease(lease.until, job.id));
    }
    index
}

fn id_in(key: &[u8]) -> Result<JobId, StoreError> {
    keys::last_id(key)
        .map(JobId::from_bytes)
        .ok_or_else(|| StoreError::Corrupt("an index entry without an id".to_owned()))
}
