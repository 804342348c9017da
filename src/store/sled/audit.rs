//! The books, counted from the records: every story fits together, and the index has exactly what follows from it.

use std::sync::{Arc, PoisonError};

use super::as_of::{AsOf, Images};
use super::engine::Reads;
use super::records::{DeliveryRecord, Indexed, JobRecord, decode};
use super::tx::Tx;
use super::{SledStore, export, keys, log};
use crate::domain::client::Client;
use crate::domain::destination::Destination;
use crate::domain::hex::hex;
use crate::domain::id::DeliveryId;
use crate::store::{Audit, Ledger, StoreError};

/// What is kept by its own key only as part of a job's story, or as an entry of the index.
const FOLLOWING: [u8; 17] = [
    keys::JOB_LIST,
    keys::JOB_TAG,
    keys::JOB_READY,
    keys::JOB_FETCH,
    keys::JOB_WAITS,
    keys::JOB_LEASE,
    keys::JOB_DEADLINE,
    keys::JOB_PURGE,
    keys::IDEMPOTENCY,
    keys::EVENT_OF_JOB,
    keys::DELIVERY,
    keys::DELIVERY_OF_JOB,
    keys::DELIVERY_DUE,
    keys::DELIVERY_RETRYING,
    keys::DELIVERY_EXHAUSTED,
    keys::ATTEMPT,
    keys::SET_ASIDE,
];

/// Counts everything as it is at one moment.
pub(super) async fn begin(store: &SledStore) -> Result<Audit, StoreError> {
    // One at a time, as the writer remembers for one.
    let permit = Arc::clone(&store.audits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
    let images = Arc::new(Images::new(export::IMAGE_BYTES));
    let (kept, shared) = (Arc::downgrade(&images), Arc::clone(&store.shared));
    let begin = move |_: &mut Tx<'_>| {
        *shared.images.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        Ok(*shared.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    };
    let ledger = store.writer.read_in_turn(begin).await?;
    store
        .read(move |shared| {
            // A scan cannot be called off, so it counts for as long as it runs.
            let _permit = permit;
            audit(&AsOf { engine: &shared.engine, images: &images }, ledger)
        })
        .await
}

pub(super) fn audit(engine: &impl Reads, ledger: Ledger) -> Result<Audit, StoreError> {
    let mut audit = Audit::default();
    // How many keys of each kind there are to be, counted by their first byte.
    let mut expected = [0_u64; 256];
    for entry in engine.scan(keys::all(keys::JOB)) {
        let (key, value) = entry?;
        match decode::<JobRecord>(&value) {
            Ok(record) => story(engine, &record, &mut expected, &mut audit)?,
            Err(error) => {
                audit.fault(format!("the job at {} cannot be read: {error}", hex(&key)));
            }
        }
    }
    for kind in FOLLOWING {
        let found = engine.scan(keys::all(kind)).try_fold(0_u64, |count, entry| entry.map(|_| count + 1))?;
        let expected = expected[usize::from(kind)];
        if found != expected {
            audit.fault(format!(
                "there are {found} keys of the kind {:?}, and {expected} follow",
                char::from(kind)
            ));
        }
    }
    let events = count_events(engine, &mut audit)?;
    let of_none =
        engine.scan(keys::all(keys::EVENT_PURGE)).try_fold(0, |count, entry| entry.map(|_| count + 1))?;
    let told = expected[usize::from(keys::EVENTS)];
    if events != told + of_none {
        audit.fault(format!("there are {events} events; {told} are of a job, and {of_none} of none"));
    }
    for entry in engine.scan(keys::all(keys::CLIENT)) {
        let (key, value) = entry?;
        match decode::<Client>(&value) {
            Ok(client) if keys::client(&client.name)[..] == *key => {}
            Ok(client) => audit.fault(format!("the client {} is not where it belongs", client.name.as_str())),
            Err(error) => audit.fault(format!("the client at {} cannot be read: {error}", hex(&key))),
        }
    }
    audit.ledger(ledger);
    Ok(audit)
}

/// How many events there are, readable or not.
fn count_events(engine: &impl Reads, audit: &mut Audit) -> Result<u64, StoreError> {
    let (mut count, mut long) = (0, 0_u64);
    for group in engine.scan(keys::all(keys::EVENTS)) {
        let (key, group) = group?;
        match log::entries(&key, &group) {
            Ok(entries) => {
                count += entries.len() as u64;
                long += entries.iter().filter(|entry| entry.is_long()).count() as u64;
            }
            Err(error) => audit.fault(format!("{}: {error}", hex(&key))),
        }
    }
    let found =
        engine.scan(keys::all(keys::LONG_EVENT)).try_fold(0_u64, |count, entry| entry.map(|_| count + 1))?;
    if found != long {
        audit.fault(format!("there are {found} long events, and {long} follow"));
    }
    Ok(count)
}

fn story(
    engine: &impl Reads,
    record: &JobRecord,
    expected: &mut [u64; 256],
    audit: &mut Audit,
) -> Result<(), StoreError> {
    let job = &record.job;
    let mut seqs = record.events.clone();
    for entry in engine.scan(keys::events_of(job.id, 0)) {
        seqs.extend(keys::last_number(&entry?.0));
        expected[usize::from(keys::EVENT_OF_JOB)] += 1;
    }
    expected[usize::from(keys::EVENTS)] += seqs.len() as u64;
    let events = seqs.iter().filter_map(|seq| log::read_one(engine, *seq).transpose());
    let events: Vec<_> = events.collect::<Result<_, _>>()?;
    if !record.is_going && seqs.len() != events.len() {
        audit.fault(format!("{} has {} events, and others are noted", job.id, events.len()));
    }
    let mut ids = record.deliveries.clone();
    for entry in engine.scan(keys::deliveries_of(job.id)) {
        ids.push(DeliveryId::from_bytes(keys::last_id(&entry?.0)?));
        expected[usize::from(keys::DELIVERY_OF_JOB)] += 1;
    }
    let mut deliveries = Vec::new();
    for id in ids {
        match engine.get::<DeliveryRecord>(&keys::delivery(id)) {
            Ok(Some(record)) => {
                let attempts = engine.scan(keys::attempts_of(id)).count();
                expected[usize::from(keys::ATTEMPT)] += attempts as u64;
                expected[usize::from(keys::DELIVERY)] += 1;
                index(engine, &record, expected, audit)?;
                let destination = record.delivery.destination_id();
                if engine.get::<Destination>(&keys::destination(destination))?.is_none() {
                    audit.fault(format!("the destination of {id} is not there"));
                }
                let attempts = attempts + record.noted();
                deliveries.push((record.delivery, attempts));
            }
            Ok(None) => audit.fault(format!("{id} of {} is not there", job.id)),
            Err(error) => audit.fault(format!("{id} of {} cannot be read: {error}", job.id)),
        }
    }
    if let Some(key) = &job.idempotency_key {
        expected[usize::from(keys::IDEMPOTENCY)] += 1;
        if engine.get_raw(&keys::idempotency(&job.client, key))?.is_none() {
            audit.fault(format!("the idempotency key of {} is not there", job.id));
        }
    }
    index(engine, record, expected, audit)?;
    if record.is_going {
        for (delivery, _) in deliveries {
            *audit.deliveries.entry(delivery.state).or_default() += 1;
        }
    } else {
        audit.story(job, &events, &deliveries);
    }
    Ok(())
}

fn index<R: Indexed>(
    engine: &impl Reads,
    record: &R,
    expected: &mut [u64; 256],
    audit: &mut Audit,
) -> Result<(), StoreError> {
    let mut index = record.index();
    index.sort();
    // Two equal labels are one entry.
    index.dedup();
    for key in index {
        if let Some(kind) = key.first() {
            expected[usize::from(*kind)] += 1;
        }
        if engine.get_raw(&key)?.is_none() {
            audit.fault(format!("the entry {} is missing", hex(&key)));
        }
    }
    Ok(())
}
