//! The use-cases of jobs, and of the event log that tells their story.

use std::iter::Peekable;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::engine::Engine;
use super::keys::{self, Key};
use super::records::{self, IdempotencyRecord};
use super::tx::Tx;
use crate::clock::entropy;
use crate::domain::delivery::Delivery;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{DeliveryId, EventId, JobId, WorkerId};
use crate::domain::job::{Job, JobError};
use crate::store::{Ending, JobPage, JobQuery, Paused, StoreError, Submission, Submitted};

/// Entries of each kind that one sweep deals with; the next goes on.
const SWEPT_AT_ONCE: usize = 128;
/// Records that are looked at for one page of a list.
const LOOKED_AT_PER_PAGE: usize = 2000;

pub(super) fn submit(
    tx: &mut Tx<'_>,
    submission: Submission,
    now: Timestamp,
) -> Result<Submitted, StoreError> {
    let Submission { job: new, idempotency } = submission;
    let mut job = Job::accepted(new, now);
    if let Some(idempotency) = idempotency {
        let key = keys::idempotency(&job.client, &idempotency.key);
        if let Some(known) = tx.get::<IdempotencyRecord>(&key)? {
            if known.fingerprint != idempotency.fingerprint {
                return Ok(Submitted::KeyReused);
            }
            return Ok(Submitted::Repeated(tx.load(known.job)?));
        }
        tx.put(key, &IdempotencyRecord { job: job.id, fingerprint: idempotency.fingerprint })?;
        job.idempotency_key = Some(idempotency.key);
    }
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
    sweep(tx, now)?;
    if tx.get::<Paused>(keys::PAUSED)?.unwrap_or_default().work {
        return Ok(Vec::new());
    }
    let until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
    let mut claimed = Vec::new();
    while claimed.len() < limit
        && let Some(key) = next_ready(tx)?
    {
        tx.cursor.turn = keys::end_of_turn(&key);
        let job = tx.take_entry(&key, |tx, id| {
            let mut job = tx.checkout::<Job>(JobId::from_bytes(id))?;
            let is_first = job.record.started_at.is_none();
            job.record.claim(worker, until, now)?;
            if is_first {
                tell(tx, &mut job.record, EventKind::JobStarted, now)?;
            }
            tx.save(job)
        })?;
        claimed.extend(job);
    }
    Ok(claimed)
}

/// The first job of the next client that has one. Each client's first is one look-up away, however many
/// jobs another has waiting.
fn next_ready(tx: &Tx<'_>) -> Result<Option<Key>, StoreError> {
    let all = keys::all(keys::JOB_READY);
    let turn = tx.cursor.turn.clone();
    let first = |range| Ok::<_, StoreError>(tx.keys(range, 1)?.pop());
    Ok(match first(turn.clone()..all.end)? {
        Some(key) => Some(key),
        None => first(all.start..turn)?,
    })
}

pub(super) fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let expired = tx.keys(keys::due(keys::JOB_LEASE, now), SWEPT_AT_ONCE)?;
    free(tx, expired, now)?;
    for key in tx.keys(keys::due(keys::JOB_WAITS, now), SWEPT_AT_ONCE)? {
        tx.take_entry(&key, |tx, id| tx.update(JobId::from_bytes(id), Job::become_ready))?;
    }
    for key in tx.keys(keys::due(keys::JOB_DEADLINE, now), SWEPT_AT_ONCE)? {
        tx.take_entry(&key, |tx, id| {
            let mut job = tx.checkout::<Job>(JobId::from_bytes(id))?;
            let error = JobError::deadline_exceeded(job.record.deadline_ms.unwrap_or(0));
            job.record.expire(error, now)?;
            conclude(tx, &mut job.record, now)?;
            tx.save(job)
        })?;
    }
    Ok(())
}

/// Takes every job from its worker: when none can be alive.
pub(super) fn free_all(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let leases = tx.keys(keys::all(keys::JOB_LEASE), usize::MAX)?;
    free(tx, leases, now)
}

fn free(tx: &mut Tx<'_>, leases: Vec<Key>, now: Timestamp) -> Result<(), StoreError> {
    for key in leases {
        tx.take_entry(&key, |tx, id| {
            let mut job = tx.checkout::<Job>(JobId::from_bytes(id))?;
            job.record.lose_worker(now)?;
            conclude(tx, &mut job.record, now)?;
            tx.save(job)
        })?;
    }
    Ok(())
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
        Ending::Completed => job.record.complete(token, now)?,
        Ending::Failed(error) => job.record.fail(token, error, now)?,
        Ending::RetryAt(error, due) => job.record.retry_later(token, error, due, now)?,
        Ending::Cancelled => job.record.stop_cancelled(token, now)?,
        Ending::GivenBack(due) => job.record.give_back(token, due, now)?,
    }
    conclude(tx, &mut job.record, now)?;
    tx.save(job)
}

pub(super) fn cancel(tx: &mut Tx<'_>, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
    let mut job = tx.checkout::<Job>(id)?;
    job.record.cancel(now)?;
    conclude(tx, &mut job.record, now)?;
    tx.save(job)
}

pub(super) fn retry(tx: &mut Tx<'_>, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
    let mut job = tx.checkout::<Job>(id)?;
    job.record.retry(now)?;
    tell(tx, &mut job.record, EventKind::JobQueued, now)?;
    tx.save(job)
}

pub(super) fn delete(tx: &mut Tx<'_>, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
    let mut job = tx.checkout::<Job>(id)?;
    let had_ended = job.record.status.is_terminal();
    if job.record.delete(now, later(now, tx.policy().keep_deleted)) {
        if !had_ended {
            conclude(tx, &mut job.record, now)?;
        }
        tell(tx, &mut job.record, EventKind::JobDeleted, now)?;
    }
    tx.save(job)
}

pub(super) fn restore(tx: &mut Tx<'_>, id: JobId, now: Timestamp) -> Result<Job, StoreError> {
    let mut job = tx.checkout::<Job>(id)?;
    job.record.restore(later(now, tx.policy().keep_finished))?;
    tell(tx, &mut job.record, EventKind::JobRestored, now)?;
    tx.save(job)
}

pub(super) fn get(engine: &Engine, id: JobId) -> Result<Option<Job>, StoreError> {
    engine.get(&keys::job(id))
}

pub(super) fn list(engine: &Engine, query: &JobQuery) -> Result<JobPage, StoreError> {
    let first_at = |time| JobId::new(time, &[0; 10]);
    let first = query.created_after.map(|time| first_at(later(time, Duration::from_millis(1))));
    let end = query.before.into_iter().chain(query.created_before.map(first_at)).min();
    let prefixes = match (&query.client, &query.tag) {
        (None, _) => vec![vec![keys::JOB]],
        (Some(client), Some(tag)) => vec![keys::job_tag_prefix(client, tag)],
        (Some(client), None) => {
            let lists = [Some(false), query.include_deleted.then_some(true)];
            let prefix = |deleted| keys::job_list_prefix(client, deleted, query.status);
            lists.into_iter().flatten().map(prefix).collect()
        }
    };
    let lists = prefixes.iter().map(|prefix| {
        let entries = engine.scan(keys::ids(prefix, first, end)).rev();
        entries.map(|entry| Ok(JobId::from_bytes(keys::last_id(&entry?.0)?))).peekable()
    });

    let mut page = JobPage::default();
    let mut last = None;
    for (looked_at, id) in (Newest { lists: lists.collect() }).enumerate() {
        if page.jobs.len() == query.limit || looked_at == LOOKED_AT_PER_PAGE {
            page.next = last;
            break;
        }
        let id = id?;
        // Deleted or restored meanwhile, it is in both lists.
        if last.replace(id) == Some(id) {
            continue;
        }
        // The page is read while jobs move on: an entry may be older than its job.
        match get(engine, id) {
            Ok(job) => page.jobs.extend(job.filter(|job| query.matches(job))),
            Err(error @ StoreError::Corrupt(_)) => tracing::error!(job = %id, %error, "left out of a list"),
            Err(error) => return Err(error),
        }
    }
    Ok(page)
}

/// Several lists of ids, each newest first, as one.
struct Newest<I: Iterator> {
    lists: Vec<Peekable<I>>,
}

impl<I: Iterator<Item = Result<JobId, StoreError>>> Iterator for Newest<I> {
    type Item = Result<JobId, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let heads = self.lists.iter_mut().enumerate().filter_map(|(index, list)| {
            // A failure goes first, as if it were the newest of all.
            list.peek().map(|head| (head.as_ref().map_or([0xff; 16], |id| *id.as_bytes()), index))
        });
        let (_, index) = heads.max()?;
        self.lists.get_mut(index)?.next()
    }
}

pub(super) fn events(engine: &Engine, after: u64, last: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
    let entries = engine.scan(keys::event(after.saturating_add(1))..keys::event(last.saturating_add(1)));
    readable(entries.map(|entry| entry.map(|(_, value)| value)), limit)
}

pub(super) fn events_of(
    engine: &Engine,
    job: JobId,
    after: u64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let values = engine.scan(keys::events_of(job, after)).filter_map(|entry| {
        let seq = entry.map(|(key, _)| keys::seq_of(&key).unwrap_or(0));
        // It may be purged meanwhile.
        seq.and_then(|seq| engine.get_raw(&keys::event(seq))).transpose()
    });
    readable(values, limit)
}

/// An event that cannot be read is left out, and holds up none behind it.
fn readable(
    values: impl Iterator<Item = Result<super::engine::Bytes, StoreError>>,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    let events = values.map(|value| match records::decode::<Event>(&value?) {
        Ok(event) => Ok(Some(event)),
        Err(error) => {
            tracing::error!(%error, "an event was left out");
            Ok(None)
        }
    });
    events.filter_map(Result::transpose).take(limit).collect()
}

/// Tells of an ending, if that is what the job has come to, and says how long it is kept.
fn conclude(tx: &mut Tx<'_>, job: &mut Job, now: Timestamp) -> Result<(), StoreError> {
    let Some(kind) = job.status.ending() else { return Ok(()) };
    job.keep_until(later(now, tx.policy().keep_finished));
    tell(tx, job, kind, now)
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
        source: tx.policy().source.clone(),
        job: job.snapshot(),
    };
    if let Some(callback) = job.callback.as_mut().filter(|callback| callback.events.contains(&kind)) {
        let delivery = Delivery::of(&event, callback, DeliveryId::new(now, &entropy()));
        callback.latest = Some(delivery.progress());
        event.job = job.snapshot();
        tx.insert(&delivery)?;
    }
    tx.mark(keys::event_of_job(job.id, event.seq));
    tx.put(keys::event(event.seq), &event)
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
