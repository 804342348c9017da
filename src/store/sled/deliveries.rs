//! The use-cases of deliveries and their attempts.
//!
//! A claim writes nothing: whoever held one is gone with the process, and what it held is due as it was. So it is kept in
//! memory ([`Dispatch`]), and an attempt costs two entries of the tree: its delivery, and what that had waiting.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::engine::Engine;
use super::keys::{self, DueClass, Key};
use super::log;
use super::records::{DeliveryRecord, JobRecord};
use super::tx::Tx;
use super::writer::Shared;
use crate::clock::entropy;
use crate::domain::delivery::{Attempt, Delivery, DeliveryConflict, DeliveryState, Verdict};
use crate::domain::destination::{Change, Destination, Health, HoldReason, Standing};
use crate::domain::dispatch::{Dispatch, DispatchPolicy, Turn};
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::id::{DeliveryId, DestinationId, EventId, JobId, WorkerId};
use crate::domain::job::{Job, Lease};
use crate::domain::replay::ReplayOutcome;
use crate::store::{DestinationStatus, StoreError};

/// Expired leases that one claim frees; the next claim frees the next.
const FREED_PER_CLAIM: usize = 128;
/// Deliveries of one job, and attempts of one delivery, that a list shows: far more than there can be.
const LIST_LIMIT: usize = 1000;

/// Finds the destinations for which something waits: one look-up each, however much that is.
pub(super) fn dispatch(engine: &Engine, policy: DispatchPolicy) -> Result<Dispatch, StoreError> {
    let token = u64::from_be_bytes(entropy());
    let mut dispatch = Dispatch::new(policy, token);
    let mut rest = keys::all(keys::DELIVERY_DUE);
    while let Some(key) = engine.first_key(rest)? {
        let Some((id, _, first)) = keys::due_parts(&key) else {
            return Err(StoreError::Corrupt("an entry of what waits is cut off".to_owned()));
        };
        let retry = engine.first_key(keys::due_of(id, DueClass::Retry))?;
        let retry = retry.and_then(|key| keys::due_parts(&key)).map(|(.., due)| due);
        match engine.get::<Destination>(&keys::destination(id))? {
            Some(destination) => dispatch.put(destination),
            None => tracing::error!(%id, "a destination is not there"),
        }
        dispatch.wake(id, retry.map_or(first, |retry| retry.min(first)));
        rest = keys::due_behind(id);
    }
    Ok(dispatch)
}

pub(super) fn claim(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    limit: usize,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<(Delivery, Event)>, StoreError> {
    let until = later(now, lease);
    let mut dispatch = tx.dispatch();
    dispatch.expire(FREED_PER_CLAIM, now);
    let mut claimed = Vec::new();
    while claimed.len() < limit
        && let Some(turn) = dispatch.next(now)
    {
        let quota = turn.quota.min(limit - claimed.len());
        let taken = take_turn(tx, &mut dispatch, turn, quota, now, |dispatch, delivery| {
            dispatch.claim(turn.destination, delivery, worker, until, now)
        });
        match taken {
            Ok((taken, next_due)) => {
                claimed.extend(taken);
                dispatch.took(turn, next_due, now);
            }
            // Nobody gets what was claimed, and all of it is due as it was.
            Err(error) => {
                claimed.iter().for_each(|(delivery, _): &(Delivery, Event)| dispatch.give_back(delivery.id));
                dispatch.took(turn, Some(now), now);
                return Err(error);
            }
        }
    }
    Ok(claimed)
}

/// What was claimed in a turn, and when what was left is due.
type Taken = (Vec<(Delivery, Event)>, Option<Timestamp>);

/// Claims what is due of one destination.
fn take_turn(
    tx: &mut Tx<'_>,
    dispatch: &mut Dispatch,
    turn: Turn,
    quota: usize,
    now: Timestamp,
    claim: impl Fn(&mut Dispatch, &Delivery) -> Lease,
) -> Result<Taken, StoreError> {
    let (chosen, next_due) = choose(tx, dispatch, turn, quota, now)?;
    let mut read = Vec::new();
    for key in chosen {
        read.extend(tx.take_entry(&key, |tx, id| {
            let delivery = tx.load::<DeliveryRecord>(DeliveryId::from_bytes(id))?.delivery;
            let event = log::get(tx, delivery.event_seq)?.ok_or(StoreError::NotFound)?;
            Ok((delivery, event))
        })?);
    }
    // Last, as it is not taken back with the step.
    let leased = read.into_iter().map(|(delivery, event)| {
        let lease = claim(dispatch, &delivery);
        (delivery.leased(Some(lease)), event)
    });
    Ok((leased.collect(), next_due))
}

/// The entries that a turn takes, and when the first of those that it leaves is due.
fn choose(
    tx: &mut Tx<'_>,
    dispatch: &Dispatch,
    turn: Turn,
    quota: usize,
    now: Timestamp,
) -> Result<(Vec<Key>, Option<Timestamp>), StoreError> {
    // Those under way are still among what waits; and one more says what comes next.
    let limit = quota + dispatch.in_flight(turn.destination).0 as usize + 1;
    let mut waiting = |class| {
        let mut keys = tx.keys(keys::due_of(turn.destination, class), limit)?;
        keys.retain(|key| {
            keys::last_id(key).is_ok_and(|id| dispatch.lease(DeliveryId::from_bytes(id)).is_none())
        });
        Ok::<_, StoreError>(keys)
    };
    let (firsts, retries) = (waiting(DueClass::First)?, waiting(DueClass::Retry)?);
    let due = |key: &Key| keys::due_parts(key).map_or(Timestamp::UNIX_EPOCH, |(.., due)| due);
    let (mut firsts, mut retries) = (firsts.into_iter().peekable(), retries.into_iter().peekable());
    let mut chosen = Vec::new();
    chosen.extend(retries.next_if(|key| turn.is_retrys && due(key) <= now));
    while chosen.len() < quota
        && let Some(key) =
            firsts.next_if(|key| due(key) <= now).or_else(|| retries.next_if(|key| due(key) <= now))
    {
        chosen.push(key);
    }
    let next_due = firsts.peek().map(&due).into_iter().chain(retries.peek().map(&due)).min();
    Ok((chosen, next_due))
}

pub(super) fn settle(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    token: u64,
    attempt: &Attempt,
    verdict: &Verdict,
    now: Timestamp,
) -> Result<Delivery, StoreError> {
    let mut delivery = tx.checkout::<DeliveryRecord>(id)?;
    tx.dispatch().check(id, token)?;
    if !delivery.record.note_attempt(attempt)? {
        tx.put(keys::attempt(id, attempt.number), attempt)?;
    }
    let before = delivery.record.delivery.state;
    delivery.record.delivery.settle(attempt, verdict, now);
    let delivery = tx.save(delivery)?.delivery;
    tx.cursor.ledger.moved(before, delivery.state);
    if let Some(replay) = delivery.replay.filter(|_| delivery.state.is_terminal()) {
        let is_delivered = delivery.state == DeliveryState::Delivered;
        let outcome = if is_delivered { ReplayOutcome::Delivered } else { ReplayOutcome::Failed };
        super::replays::ended(tx, replay, outcome, now)?;
    }
    if delivery.state == DeliveryState::Exhausted {
        tell_exhausted(tx, &delivery, now)?;
    }
    let mut dispatch = tx.dispatch();
    let ended = dispatch.end(id, Health::of(attempt), attempt.error.as_ref(), now);
    tx.deliveries_ready |= ended.wakes;
    let (mut to_write, mut change) = (ended.to_write.map(|destination| *destination), ended.change);
    if attempt.asks_to_disable()
        && let Some(mut destination) = dispatch.destination(delivery.destination_id()).cloned()
    {
        change = destination.hold(HoldReason::Disabled, now).or(change);
        dispatch.put(destination.clone());
        to_write = Some(destination);
    }
    drop(dispatch);
    if let Some(destination) = to_write
        && let Err(error) = write_destination(tx, &destination, change, now)
    {
        // The claim is gone, and the delivery is due as it was.
        tx.due.push((delivery.destination_id(), now));
        return Err(error);
    }
    if let Verdict::RetryAt(due) = verdict {
        // Also when it is due at the very time at which it was before.
        tx.due.push((delivery.destination_id(), *due));
    }
    Ok(delivery)
}

pub(super) fn give_back(tx: &mut Tx<'_>, id: DeliveryId, token: u64) -> Result<(), StoreError> {
    tx.load::<DeliveryRecord>(id)?;
    let mut dispatch = tx.dispatch();
    dispatch.check(id, token)?;
    dispatch.give_back(id);
    tx.deliveries_ready = true;
    Ok(())
}

pub(super) fn cancel(tx: &mut Tx<'_>, id: DeliveryId, now: Timestamp) -> Result<Delivery, StoreError> {
    take_over(tx, id, now, |delivery| delivery.cancel(now))
}

pub(super) fn send_again(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    force: bool,
    now: Timestamp,
) -> Result<Delivery, StoreError> {
    take_over(tx, id, now, |delivery| delivery.send_again(None, force, now))
}

/// Ends a delivery whose destination was held back for too long.
pub(super) fn give_up(tx: &mut Tx<'_>, id: DeliveryId, now: Timestamp) -> Result<(), StoreError> {
    let delivery = take_over(tx, id, now, |delivery| delivery.give_up(now))?;
    tell_exhausted(tx, &delivery, now)
}

/// Changes a delivery; if a replay waits for its end, that has come.
fn take_over(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    now: Timestamp,
    by: impl FnOnce(&mut Delivery) -> Result<(), DeliveryConflict>,
) -> Result<Delivery, StoreError> {
    let job = tx.load::<DeliveryRecord>(id)?.delivery.job_id;
    if tx.load::<JobRecord>(job)?.is_going {
        return Err(StoreError::NotFound);
    }
    let mut of_replay = None;
    let delivery = change(tx, id, |delivery| {
        of_replay = delivery.replay.filter(|_| delivery.state == DeliveryState::Pending);
        by(delivery)
    })?;
    if let Some(replay) = of_replay {
        super::replays::ended(tx, replay, ReplayOutcome::of_change(&delivery), now)?;
    }
    Ok(delivery)
}

/// Changes a delivery of which no attempt is under way; one that is makes it conflict.
pub(super) fn change<E>(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    change: impl FnOnce(&mut Delivery) -> Result<(), E>,
) -> Result<Delivery, StoreError>
where
    StoreError: From<E>,
{
    let mut checkout = tx.checkout::<DeliveryRecord>(id)?;
    let before = checkout.record.delivery.state;
    let mut shown = checkout.record.delivery.clone().leased(tx.dispatch().lease(id));
    change(&mut shown)?;
    checkout.record.delivery = shown;
    let delivery = tx.save(checkout)?.delivery;
    tx.cursor.ledger.moved(before, delivery.state);
    Ok(delivery)
}

/// A delivery that is new; the first to a destination makes that one known.
pub(super) fn insert(tx: &mut Tx<'_>, delivery: Delivery) -> Result<(), StoreError> {
    let id = delivery.destination_id();
    if tx.dispatch().destination(id).is_none() && tx.get::<Destination>(&keys::destination(id))?.is_none() {
        let destination = Destination::of(&delivery.client, &delivery.url, delivery.created_at);
        tx.put(keys::destination(id), &destination)?;
    }
    tx.cursor.ledger.came(delivery.state);
    tx.insert(&DeliveryRecord::new(delivery))
}

/// A delivery of another store. One that was being sent there waits here.
pub(super) fn take_in(tx: &mut Tx<'_>, mut delivery: Delivery) -> Result<(), StoreError> {
    if delivery.state == DeliveryState::Sending {
        delivery.state = DeliveryState::Pending;
    }
    insert(tx, delivery)
}

fn tell_exhausted(tx: &mut Tx<'_>, delivery: &Delivery, now: Timestamp) -> Result<(), StoreError> {
    let mut job = tx.checkout::<JobRecord>(delivery.job_id)?;
    let snapshot = Delivery { secret: None, headers: Vec::new(), ..delivery.clone() };
    let event = event(tx, EventKind::DeliveryExhausted, Subject::Delivery(Box::new(snapshot)), now);
    super::jobs::note_event(tx, &mut job.record, event.seq);
    tx.save(job)?;
    log::put(tx, &event)
}

fn event(tx: &mut Tx<'_>, kind: EventKind, subject: Subject, now: Timestamp) -> Event {
    let source = tx.policy().source.clone();
    Event { id: EventId::new(now, &entropy()), seq: tx.take_seq(), kind, at: now, source, subject }
}

/// Writes what changed about a destination, and tells of it.
fn write_destination(
    tx: &mut Tx<'_>,
    destination: &Destination,
    change: Option<Change>,
    now: Timestamp,
) -> Result<(), StoreError> {
    tx.put(keys::destination(destination.id), destination)?;
    let kind = match change {
        Some(Change::Suspended) => EventKind::DestinationSuspended,
        Some(Change::Resumed) => EventKind::DestinationResumed,
        None => return Ok(()),
    };
    let event = event(tx, kind, Subject::Destination(Box::new(destination.clone())), now);
    // It belongs to no job that it could go with.
    tx.mark(keys::event_purge(later(now, tx.policy().keep_finished), event.seq));
    log::put(tx, &event)
}

pub(super) fn pause_destination(
    tx: &mut Tx<'_>,
    id: DestinationId,
    now: Timestamp,
) -> Result<Destination, StoreError> {
    change_destination(tx, id, now, |destination| destination.hold(HoldReason::Paused, now))
}

pub(super) fn resume_destination(
    tx: &mut Tx<'_>,
    id: DestinationId,
    now: Timestamp,
) -> Result<Destination, StoreError> {
    change_destination(tx, id, now, |destination| destination.resume(now))
}

fn change_destination(
    tx: &mut Tx<'_>,
    id: DestinationId,
    now: Timestamp,
    change: impl FnOnce(&mut Destination) -> Option<Change>,
) -> Result<Destination, StoreError> {
    let known = tx.dispatch().destination(id).cloned();
    let mut destination = match known {
        Some(destination) => destination,
        None => tx.get(&keys::destination(id))?.ok_or(StoreError::NotFound)?,
    };
    let change = change(&mut destination);
    write_destination(tx, &destination, change, now)?;
    tx.dispatch().put(destination.clone());
    tx.due.push((id, now));
    Ok(destination)
}

pub(super) fn destination(
    shared: &Shared,
    id: DestinationId,
) -> Result<Option<DestinationStatus>, StoreError> {
    let stored = shared.engine.get::<Destination>(&keys::destination(id))?;
    stored.map(|destination| status(shared, destination)).transpose()
}

/// The destinations behind `after`, by id.
pub(super) fn destinations(
    shared: &Shared,
    after: Option<DestinationId>,
    limit: usize,
) -> Result<Vec<DestinationStatus>, StoreError> {
    let mut range = keys::all(keys::DESTINATION);
    if let Some(after) = after {
        range.start = keys::destination(after);
        range.start.push(0);
    }
    let stored: Vec<Destination> = shared.engine.scan_values(range, limit)?;
    stored.into_iter().map(|destination| status(shared, destination)).collect()
}

/// Without counting what waits, which takes a look at each.
pub(super) fn standings(shared: &Shared, limit: usize) -> Result<BTreeMap<Standing, u64>, StoreError> {
    let stored: Vec<Destination> = shared.engine.scan_values(keys::all(keys::DESTINATION), limit)?;
    let dispatch = shared.dispatch();
    let mut standings = BTreeMap::new();
    for stored in &stored {
        let standing = dispatch.destination(stored.id).unwrap_or(stored).standing();
        *standings.entry(standing).or_default() += 1;
    }
    Ok(standings)
}

fn status(shared: &Shared, stored: Destination) -> Result<DestinationStatus, StoreError> {
    let id = stored.id;
    let (destination, (in_flight, limit)) = {
        let dispatch = shared.dispatch();
        (dispatch.destination(id).cloned().unwrap_or(stored), dispatch.in_flight(id))
    };
    let count = |class| {
        let keys = shared.engine.scan(keys::due_of(id, class)).take(DestinationStatus::COUNTED);
        keys.map(|entry| entry.map(|_| 1)).sum::<Result<usize, _>>()
    };
    let waiting = count(DueClass::First)? + count(DueClass::Retry)?;
    Ok(DestinationStatus { destination, in_flight, in_flight_limit: limit, waiting })
}

/// A delivery as it is now, with the attempt that is under way.
pub(super) fn get(shared: &Shared, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    // The lease first: one that ends in between is seen as it was, and not as one that waits.
    let lease = shared.dispatch().lease(id);
    let record = shared.engine.get::<DeliveryRecord>(&keys::delivery(id))?;
    Ok(record.map(|record| record.delivery.leased(lease)))
}

/// A job with its callback as that is now: not part of its record, which an attempt would have to write each time.
pub(super) fn shown(shared: &Shared, mut job: Job) -> Result<Job, StoreError> {
    if let Some(latest) = job.callback.as_mut().and_then(|callback| callback.latest.as_mut())
        && let Some(delivery) = get(shared, latest.delivery)?
    {
        *latest = delivery.progress();
        job.revision += delivery.shown_revision();
    }
    Ok(job)
}

pub(super) fn of_job(shared: &Shared, job: JobId) -> Result<Vec<Delivery>, StoreError> {
    let engine = &shared.engine;
    // The entries first: they come after what is noted.
    let more = engine.scan(keys::deliveries_of(job)).take(LIST_LIMIT).map(|entry| {
        let (key, _) = entry?;
        Ok(DeliveryId::from_bytes(keys::last_id(&key)?))
    });
    let more: Vec<DeliveryId> = more.collect::<Result<_, StoreError>>()?;
    let Some(record) = super::jobs::record(engine, job)? else { return Ok(Vec::new()) };
    let ids = record.deliveries.into_iter().chain(more).take(LIST_LIMIT);
    // They may be purged meanwhile, and one that cannot be read is left out.
    let deliveries = ids.filter_map(|id| match get(shared, id) {
        Err(StoreError::Corrupt(error)) => {
            tracing::error!(%id, error, "a delivery was left out");
            None
        }
        found => found.transpose(),
    });
    let mut deliveries: Vec<_> = deliveries.collect::<Result<_, _>>()?;
    // Ids of the same millisecond are in no order.
    deliveries.sort_by_key(|delivery| delivery.event_seq);
    Ok(deliveries)
}

pub(super) fn attempts(engine: &Engine, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
    // The entries first: they come after what is noted.
    let more = engine.scan_values(keys::attempts_of(delivery), LIST_LIMIT)?;
    let noted = engine.get::<DeliveryRecord>(&keys::delivery(delivery))?;
    let mut attempts: Vec<Attempt> = noted.map_or(Ok(Vec::new()), |record| record.attempts())?;
    attempts.extend(more);
    attempts.sort_by_key(|attempt| attempt.number);
    Ok(attempts)
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}
