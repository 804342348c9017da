//! The use-cases of jobs, and of the event log that tells their story.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::engine::Engine;
use super::keys::{self, Key};
use super::records::{DeliveryRecord, IdempotencyRecord, JobRecord};
use super::tx::{Checkout, Tx};
use super::writer::Shared;
use super::{deliveries, log};
use crate::clock::entropy;
use crate::domain::delivery::Delivery;
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::id::{DeliveryId, DestinationId, EventId, JobId, WorkerId};
use crate::domain::job::{Input, Job, JobError, JobStatus, Origin, Priority};
use crate::store::{
    Ending, FetchRoom, JobAction, JobPage, JobQuery, NextDue, Paused, StoreError, Submission, Submitted,
};

/// Entries of each kind that one sweep deals with; the next goes on.
const SWEPT_AT_ONCE: usize = 128;
/// Records that are looked at for one page of a list.
const LOOKED_AT_PER_PAGE: usize = 2000;

pub(super) fn submit<P: Into<Origin>>(
    tx: &mut Tx<'_>,
    submission: Submission<P>,
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
            return Ok(Submitted::Repeated(tx.load::<JobRecord>(known.job)?.job));
        }
        tx.put(key, &IdempotencyRecord { job: job.id, fingerprint: idempotency.fingerprint })?;
        job.idempotency_key = Some(idempotency.key);
    }
    let mut record = JobRecord::new(job);
    tell(tx, &mut record, EventKind::JobQueued, now)?;
    tx.insert(&record)?;
    Ok(Submitted::Created(record.job))
}

pub(super) fn claim(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    limit: usize,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Job>, StoreError> {
    let mut claimed = Vec::new();
    if !may_claim(tx, now)? {
        return Ok(claimed);
    }
    let until = later(now, lease);
    while claimed.len() < limit
        && let Some(key) = next_ready(tx)?
    {
        tx.cursor.turn = keys::end_of_turn(&key);
        claimed.extend(claim_one(tx, &key, worker, until, now)?);
    }
    Ok(claimed)
}

pub(super) fn claim_fetches(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    mut room: FetchRoom,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<Job>, StoreError> {
    let mut claimed = Vec::new();
    if !may_claim(tx, now)? {
        return Ok(claimed);
    }
    let until = later(now, lease);
    while claimed.len() < room.places
        && let Some((source, key)) = next_to_fetch(tx, &room)?
    {
        tx.cursor.fetch_turn = keys::end_of_source(source);
        if let Some(job) = claim_one(tx, &key, worker, until, now)? {
            room.take(source);
            claimed.push(job);
        }
    }
    Ok(claimed)
}

/// Does what is due, and says whether work goes on.
fn may_claim(tx: &mut Tx<'_>, now: Timestamp) -> Result<bool, StoreError> {
    // Once a batch: many claim at the same time.
    if tx.swept < Some(now) {
        sweep(tx, now)?;
        tx.swept = Some(now);
    }
    Ok(!tx.get::<Paused>(keys::PAUSED)?.unwrap_or_default().work)
}

fn claim_one(
    tx: &mut Tx<'_>,
    entry: &Key,
    worker: WorkerId,
    until: Timestamp,
    now: Timestamp,
) -> Result<Option<Job>, StoreError> {
    let claimed = tx.take_entry(entry, |tx, id| {
        let mut job = tx.checkout::<JobRecord>(JobId::from_bytes(id))?;
        let is_first = job.record.job.started_at.is_none();
        job.record.job.claim(worker, until, now)?;
        if is_first {
            tell(tx, &mut job.record, EventKind::JobStarted, now)?;
        }
        tx.save(job)
    })?;
    Ok(claimed.map(|record| record.job))
}

/// The first job of the next source that has one and room for it. Sources without room are passed over in one look-up
/// each, and there are no more of them than fetches under way.
fn next_to_fetch(tx: &mut Tx<'_>, room: &FetchRoom) -> Result<Option<(DestinationId, Key)>, StoreError> {
    let all = keys::all(keys::JOB_FETCH);
    let turn = tx.cursor.fetch_turn.clone();
    for (mut from, end) in [(turn.clone(), all.end), (all.start, turn)] {
        while from < end
            && let Some(key) = tx.keys(from..end.clone(), 1)?.pop()
            && let Some(source) = keys::source_of(&key)
        {
            if !room.is_full(source) {
                return Ok(Some((source, key)));
            }
            from = keys::end_of_source(source);
        }
    }
    Ok(None)
}

/// The first job of the next client that has one. Each client's first is one look-up away, however many
/// jobs another has waiting.
fn next_ready(tx: &mut Tx<'_>) -> Result<Option<Key>, StoreError> {
    let all = keys::all(keys::JOB_READY);
    let turn = tx.cursor.turn.clone();
    if tx.last_turn.as_ref() != Some(&turn) {
        if let Some(key) = tx.keys(turn.clone()..all.end, 1)?.pop() {
            return Ok(Some(key));
        }
        tx.last_turn = Some(turn.clone());
    }
    Ok(tx.keys(all.start..turn, 1)?.pop())
}

pub(super) fn sweep(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let expired = tx.keys(keys::due(keys::JOB_LEASE, now), SWEPT_AT_ONCE)?;
    free(tx, expired, now)?;
    for key in tx.keys(keys::due(keys::JOB_WAITS, now), SWEPT_AT_ONCE)? {
        tx.take_entry(&key, |tx, id| {
            tx.update(JobId::from_bytes(id), |record: &mut JobRecord| record.job.become_ready())
        })?;
    }
    for key in tx.keys(keys::due(keys::JOB_DEADLINE, now), SWEPT_AT_ONCE)? {
        tx.take_entry(&key, |tx, id| {
            let mut job = tx.checkout::<JobRecord>(JobId::from_bytes(id))?;
            let error = JobError::deadline_exceeded(job.record.job.deadline_ms.unwrap_or(0));
            job.record.job.expire(error, now)?;
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
            let mut job = tx.checkout::<JobRecord>(JobId::from_bytes(id))?;
            job.record.job.lose_worker(now)?;
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
    let mut job = checkout(tx, id)?;
    match ending {
        Ending::Completed => job.record.job.complete(token, now)?,
        Ending::Failed(error) => job.record.job.fail(token, error, now)?,
        Ending::RetryAt(error, due) => job.record.job.retry_later(token, error, due, now)?,
        Ending::Cancelled => job.record.job.stop_cancelled(token, now)?,
        Ending::GivenBack(due) => job.record.job.give_back(token, due, now)?,
    }
    conclude(tx, &mut job.record, now)?;
    Ok(tx.save(job)?.job)
}

pub(super) fn fetched(
    tx: &mut Tx<'_>,
    id: JobId,
    token: u64,
    input: Input,
    now: Timestamp,
) -> Result<Job, StoreError> {
    let mut job = checkout(tx, id)?;
    job.record.job.fetched(token, input, now)?;
    conclude(tx, &mut job.record, now)?;
    Ok(tx.save(job)?.job)
}

pub(super) fn change(
    tx: &mut Tx<'_>,
    id: JobId,
    action: JobAction,
    expected: Option<&[u64]>,
    now: Timestamp,
) -> Result<Job, StoreError> {
    let mut job = checkout(tx, id)?;
    if let Some(expected) = expected {
        let shown = job.record.job.revision + shown_revision(tx, &job.record.job)?;
        if !expected.contains(&shown) {
            return Err(StoreError::Outdated);
        }
    }
    let record = &mut job.record;
    match action {
        JobAction::Cancel => {
            record.job.cancel(now)?;
            conclude(tx, record, now)?;
        }
        JobAction::Retry => {
            record.job.retry(now)?;
            tell(tx, record, EventKind::JobQueued, now)?;
        }
        JobAction::Delete => {
            let had_ended = record.job.status.is_terminal();
            if record.job.delete(now, later(now, tx.policy().keep_deleted)) {
                if !had_ended {
                    conclude(tx, record, now)?;
                }
                tell(tx, record, EventKind::JobDeleted, now)?;
            }
        }
        JobAction::Restore => {
            record.job.restore(later(now, tx.policy().keep_finished))?;
            tell(tx, record, EventKind::JobRestored, now)?;
        }
    }
    Ok(tx.save(job)?.job)
}

/// When there is next something to do. What waits to be fetched is no such time: its source may be busy.
pub(super) fn next_due(shared: &Shared, paused: Paused) -> Result<NextDue, StoreError> {
    let engine = &shared.engine;
    let first =
        |prefix| Ok::<_, StoreError>(engine.first_key(keys::all(prefix))?.as_deref().and_then(keys::time_of));
    let is_ready = !paused.work && engine.first_key(keys::all(keys::JOB_READY))?.is_some();
    let ready = is_ready.then_some(Timestamp::UNIX_EPOCH);
    let deadline = first(keys::JOB_DEADLINE)?;
    let waits = [first(keys::JOB_WAITS)?, first(keys::JOB_LEASE)?, deadline];
    let sweep = waits.into_iter().flatten().min();
    let delivery = shared.dispatch().next_due();
    Ok(NextDue { job: sweep.into_iter().chain(ready).min(), sweep, delivery, deadline })
}

/// A job that is not going, to be changed.
fn checkout(tx: &Tx<'_>, id: JobId) -> Result<Checkout<JobRecord>, StoreError> {
    let job = tx.checkout::<JobRecord>(id)?;
    if job.record.is_going { Err(StoreError::NotFound) } else { Ok(job) }
}

/// The record of a job that is not going.
pub(super) fn record(engine: &Engine, id: JobId) -> Result<Option<JobRecord>, StoreError> {
    Ok(engine.get::<JobRecord>(&keys::job(id))?.filter(|record| !record.is_going))
}

pub(super) fn get(engine: &Engine, id: JobId) -> Result<Option<Job>, StoreError> {
    Ok(record(engine, id)?.map(|record| record.job))
}

pub(super) fn list(engine: &Engine, query: &JobQuery) -> Result<JobPage, StoreError> {
    let first_at = |time| JobId::new(time, &[0; 10]);
    let first = query.created_after.map(|time| first_at(later(time, Duration::from_millis(1))));
    let mut end = query.before.into_iter().chain(query.created_before.map(first_at)).min();
    let mut page = JobPage::default();
    let mut looked_at = 0;
    loop {
        // One more, to know whether there is a next page.
        let (ids, is_all) = newest(engine, query, first, end, query.limit + 1 - page.jobs.len())?;
        for id in ids {
            if page.jobs.len() == query.limit {
                page.next = end;
                return Ok(page);
            }
            end = Some(id);
            looked_at += 1;
            // The page is read while jobs move on: an entry may be older than its job.
            match get(engine, id) {
                Ok(job) => page.jobs.extend(job.filter(|job| query.matches(job))),
                Err(error @ StoreError::Corrupt(_)) => {
                    tracing::error!(job = %id, %error, "left out of a list");
                }
                Err(error) => return Err(error),
            }
        }
        if is_all {
            return Ok(page);
        }
        if looked_at >= LOOKED_AT_PER_PAGE {
            page.next = end;
            return Ok(page);
        }
    }
}

/// The newest jobs that a query may mean, about `count` of those from `first` to before `end`, and whether these are
/// all.
///
/// The lists are read one after another, in an order in which a job that moves meanwhile is found in one of them.
fn newest(
    engine: &Engine,
    query: &JobQuery,
    first: Option<JobId>,
    end: Option<JobId>,
    count: usize,
) -> Result<(Vec<JobId>, bool), StoreError> {
    let prefixes = match (&query.client, &query.tag, query.status) {
        (_, _, Some(JobStatus::Processing)) => return Ok((processing(engine, first, end)?, true)),
        (None, _, _) => vec![vec![keys::JOB]],
        (Some(client), Some(tag), _) => vec![keys::job_tag_prefix(client, tag)],
        (Some(client), None, Some(JobStatus::Queued)) => {
            let scheduled = keys::job_list_prefix(client, false, query.status);
            let ready = Priority::ALL.map(|priority| keys::job_ready_prefix(client, priority));
            [scheduled].into_iter().chain(ready).collect()
        }
        (Some(client), None, status) => {
            // Once more those that are not deleted: one may have been restored meanwhile.
            let lists = if query.include_deleted { &[false, true, false][..] } else { &[false] };
            lists.iter().map(|deleted| keys::job_list_prefix(client, *deleted, status)).collect()
        }
    };
    let (mut ids, mut from) = (BTreeSet::new(), None);
    for prefix in prefixes {
        let mut last = None;
        for entry in engine.scan(keys::ids(&prefix, first, end)).rev().take(count) {
            let id = JobId::from_bytes(keys::last_id(&entry?.0)?);
            last = Some((id, last.map_or(1, |(_, count)| count + 1)));
            ids.insert(id);
        }
        // Below the last that was read of a list there may be more of it.
        from = from.max(last.filter(|(_, read)| *read == count).map(|(id, _)| id));
    }
    let newest = ids.into_iter().rev().take_while(|id| from.is_none_or(|from| from <= *id));
    Ok((newest.collect(), from.is_none()))
}

/// The few jobs that workers have, newest first.
fn processing(engine: &Engine, first: Option<JobId>, end: Option<JobId>) -> Result<Vec<JobId>, StoreError> {
    // A lease that is extended moves on, ahead of the scan: it is seen once more, and never missed.
    let mut ids = BTreeSet::new();
    for entry in engine.scan(keys::all(keys::JOB_LEASE)) {
        ids.insert(JobId::from_bytes(keys::last_id(&entry?.0)?));
    }
    ids.retain(|id| first.is_none_or(|first| first <= *id) && end.is_none_or(|end| *id < end));
    Ok(ids.into_iter().rev().collect())
}

pub(super) fn events_of(
    engine: &Engine,
    job: JobId,
    after: u64,
    limit: usize,
) -> Result<Vec<Event>, StoreError> {
    // The entries first: they come after what is noted, so that no event is told before an earlier one.
    let more = engine.scan(keys::events_of(job, after)).take(limit).map(|entry| {
        let (key, _) = entry?;
        Ok(keys::last_number(&key).unwrap_or(0))
    });
    let more: Vec<u64> = more.collect::<Result<_, StoreError>>()?;
    let Some(record) = record(engine, job)? else { return Ok(Vec::new()) };
    let noted = record.events.into_iter().filter(|seq| *seq > after);
    let events = noted.chain(more).map(|seq| log::read_one(engine, seq));
    events.filter_map(Result::transpose).take(limit).collect()
}

/// Tells of an ending, if that is what the job has come to, and says how long it is kept.
fn conclude(tx: &mut Tx<'_>, record: &mut JobRecord, now: Timestamp) -> Result<(), StoreError> {
    let Some(kind) = record.job.status.ending() else { return Ok(()) };
    record.job.keep_until(later(now, tx.policy().keep_finished));
    tell(tx, record, kind, now)
}

/// Appends an event to the log, and makes its delivery if the job's callback asked for its kind.
fn tell(tx: &mut Tx<'_>, record: &mut JobRecord, kind: EventKind, now: Timestamp) -> Result<(), StoreError> {
    let id = EventId::new(now, &entropy());
    let mut event = Event {
        id,
        seq: tx.take_seq(),
        kind,
        at: now,
        source: tx.policy().source.clone(),
        subject: Subject::Job(Box::new(record.job.snapshot())),
    };
    if record.job.callback.as_ref().is_some_and(|callback| callback.events.contains(&kind)) {
        // What the job showed of the one before goes on counting.
        record.job.revision += shown_revision(tx, &record.job)?;
        let job = &mut record.job;
        if let Some(callback) = &mut job.callback {
            let id = DeliveryId::new(now, &entropy());
            let delivery = Delivery::of(&event, &job.client, job.id, callback, id);
            callback.latest = Some(delivery.progress());
            event.subject = Subject::Job(Box::new(job.snapshot()));
            deliveries::insert(tx, delivery)?;
            note_delivery(tx, record, id);
        }
    }
    note_event(tx, record, event.seq);
    log::put(tx, &event)
}

/// What the latest delivery adds to the revision that the job's own record has.
fn shown_revision(tx: &Tx<'_>, job: &Job) -> Result<u64, StoreError> {
    let Some(latest) = job.callback.as_ref().and_then(|callback| callback.latest) else { return Ok(0) };
    let delivery = tx.get::<DeliveryRecord>(&keys::delivery(latest.delivery))?;
    Ok(delivery.map_or(0, |record| record.delivery.shown_revision()))
}

/// Notes an event as one of the job's.
pub(super) fn note_event(tx: &mut Tx<'_>, record: &mut JobRecord, seq: u64) {
    if let Some(seq) = record.note_event(seq) {
        tx.mark(keys::event_of_job(record.job.id, seq));
    }
}

/// Notes a delivery as one of the job's.
pub(super) fn note_delivery(tx: &mut Tx<'_>, record: &mut JobRecord, id: DeliveryId) {
    if !record.note_delivery(id) {
        tx.mark(keys::delivery_of_job(record.job.id, id));
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
