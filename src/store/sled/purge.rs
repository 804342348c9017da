//! Removing what is no longer kept, in bounded steps: a job goes with its whole story.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::engine::Engine;
use super::keys::{self, Key};
use super::log;
use super::records::{DeliveryRecord, JobRecord, ReplayKey};
use super::tx::{Checkout, Tx};
use crate::domain::delivery::Delivery;
use crate::domain::destination::Destination;
use crate::domain::id::{DeliveryId, JobId, ReplayId};
use crate::domain::replay::{Replay, ReplayOutcome};
use crate::store::{Garbage, Purged, StoreError};

/// Keys that one step removes, but for what the last job's record notes, so that nobody waits long behind it.
const KEYS_AT_ONCE: usize = 4096;
/// Replays that one step looks at.
const REPLAYS_AT_ONCE: usize = 100;
/// How long a job is kept on whose callback is still on its way when its time has come.
const POSTPONED_BY: Duration = Duration::from_secs(3600);
/// The name of the picture as it came in.
const ORIGINAL: &str = "original";

pub(super) fn purge(tx: &mut Tx<'_>, limit: usize, now: Timestamp) -> Result<Purged, StoreError> {
    let mut purged = Purged::default();
    let mut left = KEYS_AT_ONCE;
    for key in tx.keys(keys::due(keys::JOB_PURGE, now), limit)? {
        if left == 0 {
            break;
        }
        if tx.take_entry(&key, |tx, id| purge_job(tx, JobId::from_bytes(id), &mut left, now))? == Some(true) {
            purged.jobs += 1;
        }
    }
    // Events that belong to no job.
    for key in tx.keys(keys::due(keys::EVENT_PURGE, now), left)? {
        log::remove(tx, keys::last_number(&key).unwrap_or(0))?;
        tx.delete(key);
        left -= 1;
    }
    if left > 0 {
        purge_replays(tx, &mut left, now)?;
    }
    // Also when it is only the events of a job that have gone.
    if left < KEYS_AT_ONCE {
        let last_seq = tx.last_seq();
        tx.put(keys::LAST_SEQ.to_vec(), &last_seq)?;
    }
    purged.more = left == 0
        || !tx.keys(keys::due(keys::JOB_PURGE, now), 1)?.is_empty()
        || !tx.keys(keys::due(keys::EVENT_PURGE, now), 1)?.is_empty();
    Ok(purged)
}

/// Whether the job is gone; it goes last, so that a story too long for one step is gone on with in the next.
fn purge_job(tx: &mut Tx<'_>, id: JobId, left: &mut usize, now: Timestamp) -> Result<bool, StoreError> {
    let mut job = tx.checkout::<JobRecord>(id)?;
    let is_going = job.record.is_going;
    let mut ids: Vec<_> = job.record.deliveries.iter().map(|id| (*id, None)).collect();
    // Before anything of it goes, all have been looked at.
    for key in tx.keys(keys::deliveries_of(id), if is_going { *left } else { usize::MAX })? {
        ids.push((DeliveryId::from_bytes(keys::last_id(&key)?), Some(key)));
    }
    let mut deliveries = Vec::new();
    for (id, entry) in ids {
        match tx.load::<DeliveryRecord>(id) {
            Ok(record) => deliveries.push((id, entry, Some(record))),
            // Nobody else can help any more.
            Err(StoreError::NotFound | StoreError::Corrupt(_)) if is_going => {
                deliveries.push((id, entry, None));
            }
            Err(error) => return Err(error),
        }
    }
    let is_on_its_way = |record: &DeliveryRecord| !record.delivery.state.is_terminal();
    if !is_going && deliveries.iter().any(|(_, _, record)| record.as_ref().is_some_and(is_on_its_way)) {
        let records = deliveries.into_iter().filter_map(|(.., record)| record);
        let deliveries: Vec<_> = records.map(|record| record.delivery).collect();
        return give_up(tx, job, &deliveries, now).map(|()| false);
    }
    job.record.is_going = true;
    if let Some(key) = job.record.job.idempotency_key.take() {
        tx.delete(keys::idempotency(&job.record.job.client, &key));
    }
    for (id, entry, delivery) in deliveries {
        for attempt in take(tx, keys::attempts_of(id), left)? {
            tx.delete(attempt);
        }
        if *left == 0 {
            tx.save(job)?;
            return Ok(false);
        }
        match delivery {
            Some(record) => remove_delivery(tx, record, now)?,
            None => tx.delete(keys::delivery(id)),
        }
        job.record.deliveries.retain(|noted| *noted != id);
        entry.into_iter().for_each(|key| tx.delete(key));
        *left -= 1;
    }
    for key in take(tx, keys::events_of(id, 0), left)? {
        log::remove(tx, keys::last_number(&key).unwrap_or(0))?;
        tx.delete(key);
    }
    if *left == 0 {
        tx.save(job)?;
        return Ok(false);
    }
    for seq in std::mem::take(&mut job.record.events) {
        log::remove(tx, seq)?;
        *left = left.saturating_sub(1);
    }
    // An artifact may lie there that was never noted: its worker was cut off in between.
    let wanted = job.record.job.variants.iter().map(|variant| &variant.name);
    let made = job.record.job.artifacts.iter().map(|artifact| &artifact.name);
    let names: BTreeSet<_> = wanted.chain(made).cloned().chain([ORIGINAL.to_owned()]).collect();
    tx.put(keys::garbage(id), &Garbage { job: id, names: names.into_iter().collect() })?;
    tx.remove(job);
    *left = left.saturating_sub(1);
    Ok(true)
}

/// Ends what has been overdue for long, and keeps the job: for those who are to hear of it, or until the rest has ended.
fn give_up(
    tx: &mut Tx<'_>,
    mut job: Checkout<JobRecord>,
    deliveries: &[Delivery],
    now: Timestamp,
) -> Result<(), StoreError> {
    let keep = tx.policy().keep_undelivered;
    let overdue: Vec<_> = deliveries
        .iter()
        .filter(|one| {
            let dispatch = tx.dispatch();
            let is_held = dispatch.destination(one.destination_id()).is_some_and(Destination::is_held);
            is_held && one.is_overdue(keep, now) && dispatch.lease(one.id).is_none()
        })
        .collect();
    let is_last = overdue.len() == deliveries.iter().filter(|one| !one.state.is_terminal()).count();
    let postponed = if is_last { keep.max(POSTPONED_BY) } else { POSTPONED_BY };
    job.record.job.purge_at = Some(now.checked_add(postponed).unwrap_or(Timestamp::MAX));
    tx.save(job)?;
    overdue.into_iter().try_for_each(|delivery| super::deliveries::give_up(tx, delivery.id, now))
}

/// Replays go a while after they have ended. There are few, as people start them: the oldest are looked at each time.
fn purge_replays(tx: &mut Tx<'_>, left: &mut usize, now: Timestamp) -> Result<(), StoreError> {
    let ended_by = SignedDuration::try_from(tx.policy().keep_finished)
        .ok()
        .and_then(|keep| now.checked_sub(keep).ok())
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let mut gone = BTreeSet::new();
    for key in tx.keys(keys::all(keys::REPLAY), REPLAYS_AT_ONCE)? {
        let id = ReplayId::from_bytes(keys::last_id(&key)?);
        let replay = match tx.checkout::<Replay>(id) {
            Ok(replay) if replay.record.finished_at.is_some_and(|at| at <= ended_by) => replay,
            Ok(_) | Err(StoreError::Corrupt(_)) => continue,
            Err(error) => return Err(error),
        };
        for item in take(tx, keys::replay_item(id, 0)..keys::replay_items_end(id), left)? {
            tx.delete(item);
        }
        if *left == 0 {
            break;
        }
        gone.insert(id);
        tx.remove(replay);
        *left -= 1;
    }
    if gone.is_empty() {
        return Ok(());
    }
    for key in tx.keys(keys::all(keys::REPLAY_KEY), usize::MAX)? {
        match tx.get::<ReplayKey>(&key) {
            Ok(Some(known)) if gone.contains(&known.replay) => tx.delete(key),
            Ok(_) | Err(StoreError::Corrupt(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remove_delivery(tx: &mut Tx<'_>, record: DeliveryRecord, now: Timestamp) -> Result<(), StoreError> {
    let delivery = &record.delivery;
    tx.cursor.ledger.went(delivery.state);
    if let Some(replay) = delivery.replay.filter(|_| !delivery.state.is_terminal()) {
        super::replays::ended(tx, replay, ReplayOutcome::Failed, now)?;
    }
    tx.remove(Checkout::of(record));
    Ok(())
}

/// As many keys of `range` as are left to be removed in this step.
fn take(tx: &mut Tx<'_>, range: std::ops::Range<Key>, left: &mut usize) -> Result<Vec<Key>, StoreError> {
    let keys = tx.keys(range, *left)?;
    *left -= keys.len();
    Ok(keys)
}

pub(super) fn garbage(engine: &Engine, limit: usize) -> Result<Vec<Garbage>, StoreError> {
    engine.scan_values(keys::all(keys::GARBAGE), limit)
}

pub(super) fn forget(tx: &mut Tx<'_>, jobs: &[JobId]) {
    for job in jobs {
        tx.delete(keys::garbage(*job));
    }
}
