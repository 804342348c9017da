//! The use-cases of deliveries and their attempts.

use std::time::Duration;

use jiff::Timestamp;

use super::engine::Engine;
use super::keys::{self, Key};
use super::tx::Tx;
use crate::domain::delivery::{Attempt, Delivery, StaleDelivery, Verdict};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, JobId, WorkerId};
use crate::domain::job::Job;
use crate::store::StoreError;

/// Expired leases that one claim frees; the next claim frees the next.
const FREED_PER_CLAIM: usize = 128;
/// Deliveries of one job, and attempts of one delivery, that a list shows: far more than there can be.
const LIST_LIMIT: usize = 1000;

pub(super) fn claim(
    tx: &mut Tx<'_>,
    worker: WorkerId,
    limit: usize,
    lease: Duration,
    now: Timestamp,
) -> Result<Vec<(Delivery, Event)>, StoreError> {
    let expired = tx.keys(keys::due(keys::DELIVERY_LEASE, now), FREED_PER_CLAIM)?;
    free(tx, expired, now)?;
    let until = now.checked_add(lease).unwrap_or(Timestamp::MAX);
    let mut claimed = Vec::new();
    for key in tx.keys(keys::due(keys::DELIVERY_DUE, now), limit)? {
        claimed.extend(tx.take_entry(&key, |tx, id| {
            let id = DeliveryId::from_bytes(id);
            let delivery = update(tx, id, |delivery| delivery.claim(worker, until))?;
            let event = tx.get(&keys::event(delivery.event_seq))?.ok_or(StoreError::NotFound)?;
            Ok((delivery, event))
        })?);
    }
    Ok(claimed)
}

pub(super) fn settle(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    token: u64,
    attempt: &Attempt,
    verdict: &Verdict,
    now: Timestamp,
) -> Result<Delivery, StoreError> {
    tx.put(keys::attempt(id, attempt.number), attempt)?;
    update(tx, id, |delivery| delivery.settle(token, attempt, verdict, now))
}

pub(super) fn give_back(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    token: u64,
    now: Timestamp,
) -> Result<(), StoreError> {
    update(tx, id, |delivery| delivery.give_back(token, now))?;
    Ok(())
}

/// Takes every delivery from its worker: when none can be alive.
pub(super) fn free_all(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), StoreError> {
    let leases = tx.keys(keys::all(keys::DELIVERY_LEASE), usize::MAX)?;
    free(tx, leases, now)
}

fn free(tx: &mut Tx<'_>, leases: Vec<Key>, now: Timestamp) -> Result<(), StoreError> {
    for key in leases {
        tx.take_entry(&key, |tx, id| {
            update(tx, DeliveryId::from_bytes(id), |delivery| delivery.lose_worker(now))
        })?;
    }
    Ok(())
}

pub(super) fn get(engine: &Engine, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
    engine.get(&keys::delivery(id))
}

pub(super) fn of_job(engine: &Engine, job: JobId) -> Result<Vec<Delivery>, StoreError> {
    let ids = engine.scan(keys::deliveries_of(job)).take(LIST_LIMIT);
    let deliveries = ids.filter_map(|entry| {
        let id = entry.and_then(|(key, _)| keys::last_id(&key));
        id.and_then(|id| get(engine, DeliveryId::from_bytes(id))).transpose()
    });
    let mut deliveries: Vec<_> = deliveries.collect::<Result<_, _>>()?;
    // Ids of the same millisecond are in no order.
    deliveries.sort_by_key(|delivery| delivery.event_seq);
    Ok(deliveries)
}

pub(super) fn attempts(engine: &Engine, delivery: DeliveryId) -> Result<Vec<Attempt>, StoreError> {
    engine.scan_values(keys::attempts_of(delivery), LIST_LIMIT)
}

fn update(
    tx: &mut Tx<'_>,
    id: DeliveryId,
    change: impl FnOnce(&mut Delivery) -> Result<(), StaleDelivery>,
) -> Result<Delivery, StoreError> {
    let delivery = tx.update(id, change)?;
    show_in_job(tx, &delivery)?;
    Ok(delivery)
}

/// Keeps the job's view of its callback in step, if this is the delivery it shows: the latest one.
fn show_in_job(tx: &mut Tx<'_>, delivery: &Delivery) -> Result<(), StoreError> {
    let key = keys::job(delivery.job_id);
    let Some(mut job) = tx.get::<Job>(&key)? else { return Ok(()) };
    let latest = job.callback.as_mut().and_then(|callback| callback.latest.as_mut());
    let Some(latest) = latest.filter(|latest| latest.delivery == delivery.id) else { return Ok(()) };
    *latest = delivery.progress();
    job.revision += 1;
    tx.put(key, &job)
}
