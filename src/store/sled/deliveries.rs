//! The use-cases of deliveries and their attempts.

use std::time::Duration;

use jiff::Timestamp;

use super::engine::Engine;
use super::keys::{self, Key};
use super::log;
use super::records::JobRecord;
use super::tx::Tx;
use crate::domain::delivery::{Attempt, Delivery, StaleDelivery, Verdict};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, JobId, WorkerId};
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
            let event = log::get(tx, delivery.event_seq)?.ok_or(StoreError::NotFound)?;
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
    // The entries first: they come after what is noted.
    let more = engine.scan(keys::deliveries_of(job)).take(LIST_LIMIT).map(|entry| {
        let (key, _) = entry?;
        Ok(DeliveryId::from_bytes(keys::last_id(&key)?))
    });
    let more: Vec<DeliveryId> = more.collect::<Result<_, StoreError>>()?;
    let Some(record) = super::jobs::record(engine, job)? else { return Ok(Vec::new()) };
    let ids = record.deliveries.into_iter().chain(more).take(LIST_LIMIT);
    // They may be purged meanwhile.
    let deliveries = ids.filter_map(|id| get(engine, id).transpose());
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
    let Some(mut record) = tx.get::<JobRecord>(&key)? else { return Ok(()) };
    let latest = record.job.callback.as_mut().and_then(|callback| callback.latest.as_mut());
    let Some(latest) = latest.filter(|latest| latest.delivery == delivery.id) else { return Ok(()) };
    *latest = delivery.progress();
    record.job.revision += 1;
    tx.put(key, &record)
}
