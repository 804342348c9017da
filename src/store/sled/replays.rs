//! The use-cases of replays. Deliveries are taken up in steps, each with the place that it came to; so a replay goes on
//! behind that place after whatever cut it off, and takes none up twice.

use jiff::Timestamp;

use super::engine::Engine;
use super::keys;
use super::records::{DeliveryRecord, JobRecord, ReplayKey};
use super::tx::Tx;
use crate::domain::delivery::DeliveryState;
use crate::domain::id::{DeliveryId, ReplayId};
use crate::domain::replay::{NewReplay, Replay, ReplayConflict, ReplayItem, ReplayOutcome, ReplayState};
use crate::store::{Idempotency, ReplayAction, StartedReplay, StoreError, replayed};

pub(super) fn start(
    tx: &mut Tx<'_>,
    new: NewReplay,
    idempotency: Option<Idempotency>,
    now: Timestamp,
) -> Result<StartedReplay, StoreError> {
    if let Some(Idempotency { key, fingerprint }) = idempotency {
        let key = keys::replay_key(&new.client, &key);
        if let Some(known) = tx.get::<ReplayKey>(&key)? {
            if known.fingerprint != fingerprint {
                return Ok(StartedReplay::KeyReused);
            }
            return tx.load(known.replay).map(StartedReplay::Repeated);
        }
        tx.put(key, &ReplayKey { replay: new.id, fingerprint })?;
    }
    let replay = Replay::started(new, now);
    tx.insert(&replay)?;
    Ok(StartedReplay::Created(replay))
}

pub(super) fn change(
    tx: &mut Tx<'_>,
    id: ReplayId,
    action: ReplayAction,
    now: Timestamp,
) -> Result<Replay, StoreError> {
    tx.update(id, |replay: &mut Replay| match action {
        ReplayAction::Pause => replay.pause(),
        ReplayAction::Resume => replay.resume(now),
        ReplayAction::Cancel => replay.cancel(now),
    })
}

/// Takes up the deliveries of a page that was read behind the replay's cursor.
pub(super) fn take(
    tx: &mut Tx<'_>,
    read: &Replay,
    page: Vec<DeliveryId>,
    next: Option<Vec<u8>>,
    now: Timestamp,
) -> Result<Replay, StoreError> {
    let mut checkout = tx.checkout::<Replay>(read.id)?;
    // It was paused meanwhile, or somebody else has taken the page up.
    let Replay { state, is_at_end, cursor, .. } = &checkout.record;
    if *state != ReplayState::Running || *is_at_end || *cursor != read.cursor {
        return Ok(checkout.record);
    }
    for id in page {
        let replay = &mut checkout.record;
        let Some(DeliveryRecord { delivery, .. }) = tx.get(&keys::delivery(id))? else { continue };
        // It comes again where the list goes on among those that wait.
        if delivery.replay == Some(replay.id) {
            continue;
        }
        // It is about to go with its job.
        if tx.get::<JobRecord>(&keys::job(delivery.job_id))?.is_none_or(|job| job.is_going) {
            continue;
        }
        let was = delivery.state;
        let is_sent = super::deliveries::change(tx, id, |delivery| replayed(replay, delivery, now)).is_ok();
        if let Some(other) = delivery.replay.filter(|_| is_sent && was == DeliveryState::Pending) {
            ended(tx, other, ReplayOutcome::TakenOver, now)?;
        }
        let item = ReplayItem { number: replay.taken, delivery: id, was, is_sent };
        tx.put(keys::replay_item(replay.id, item.number), &item)?;
        replay.take(is_sent);
    }
    checkout.record.read_to(next, now);
    tx.save(checkout)
}

/// A delivery that a replay had sent again has ended, or is somebody else's now.
pub(super) fn ended(
    tx: &mut Tx<'_>,
    id: ReplayId,
    outcome: ReplayOutcome,
    now: Timestamp,
) -> Result<(), StoreError> {
    let changed = tx.update(id, |replay: &mut Replay| {
        replay.ended(outcome, now);
        Ok::<_, ReplayConflict>(())
    });
    match changed {
        // It was purged.
        Err(StoreError::NotFound) => Ok(()),
        other => other.map(drop),
    }
}

pub(super) fn get(engine: &Engine, id: ReplayId) -> Result<Option<Replay>, StoreError> {
    engine.get(&keys::replay(id))
}

/// Replays before `before`, the newest first.
pub(super) fn list(
    engine: &Engine,
    before: Option<ReplayId>,
    limit: usize,
) -> Result<Vec<Replay>, StoreError> {
    let mut range = keys::all(keys::REPLAY);
    if let Some(before) = before {
        range.end = keys::replay(before);
    }
    let entries = engine.scan(range).rev().take(limit);
    entries.map(|entry| super::records::decode(&entry?.1)).collect()
}

pub(super) fn running(engine: &Engine) -> Result<Vec<ReplayId>, StoreError> {
    let entries = engine.scan(keys::all(keys::REPLAY_RUNNING));
    entries.map(|entry| Ok(ReplayId::from_bytes(keys::last_id(&entry?.0)?))).collect()
}

pub(super) fn items(
    engine: &Engine,
    id: ReplayId,
    from: u64,
    limit: usize,
) -> Result<Vec<ReplayItem>, StoreError> {
    engine.scan_values(keys::replay_item(id, from)..keys::replay_items_end(id), limit)
}
