//! The use-cases of jobs, and of the event log that tells their story.

use std::ops::Range;
use std::time::Duration;

use jiff::Timestamp;

use super::engine::Engine;
use super::keys::{self, Key};
use super::records::{self, IdempotencyRecord};
use super::writer::Tx;
use crate::clock::entropy;
use crate::domain::delivery::Delivery;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{DeliveryId, EventId, JobId, WorkerId};
use crate::domain::job::Job;
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
            return Ok(Submitted::Repeated(tx.load(known.job)?));
        }
        tx.put(key, &IdempotencyRecord { job: new.id, fingerprint: idempotency.fingerprint })?;
    }
    let mut job = Job::accepted(new, now);
    tell(tx, &mut job, EventKind::JobQueued, now)?;
    tx.insert(&job)?;
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
        let mut job = tx.checkout::<Job>(JobId::from_bytes(keys::last_id(&key)?))?;
        let is_first = job.record.started_at.is_none();
        job.record.claim(worker, until, now)?;
        if is_first {
            tell(tx, &mut job.record, EventKind::JobStarted, now)?;
        }
        claimed.push(tx.save(job)?);
    }
    Ok(claimed)
}

pub(super) fn finish(
    tx: &mut Tx<'_>,
    id: JobId,
    token: u64,
    ending: Ending,
    now: Timestamp,
) -> Result<Job, StoreError> {
    let mut job = tx.checkout::<Job>(id)?;
    match ending {
        Ending::Completed => {
            job.record.complete(token, now)?;
            tell(tx, &mut job.record, EventKind::JobCompleted, now)?;
        }
        Ending::Failed(error) => {
            job.record.fail(token, error, now)?;
            tell(tx, &mut job.record, EventKind::JobFailed, now)?;
        }
        Ending::RetryAt(error, due) => job.record.retry_later(token, error, due)?,
        Ending::GivenBack => job.record.give_back(token, now)?,
    }
    tx.save(job)
}

/// Takes every job from its worker: when none can be alive.
pub(super) fn free_all(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    free(tx, keys::all(keys::JOB_LEASE), usize::MAX, now)
}

fn free(tx: &mut Tx<'_>, leases: Range<Key>, limit: usize, now: Timestamp) -> Result<(), StoreError> {
    for key in tx.keys(leases, limit)? {
        tx.update(JobId::from_bytes(keys::last_id(&key)?), |job: &mut Job| job.lose_worker(now))?;
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
            Some(status) => {
                get(engine, JobId::from_bytes(keys::last_id(&key)?))?.filter(|job| job.status == status)
            }
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
        tx.insert(&delivery)?;
    }
    tx.put(keys::event(event.seq), &event)
}
