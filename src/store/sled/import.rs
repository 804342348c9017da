//! All records in again, each with the index entries that follow from it.

use std::sync::Arc;
use std::vec;

use async_trait::async_trait;
use jiff::Timestamp;

use super::records::{IdempotencyRecord, JobRecord};
use super::tx::{Checkout, Tx};
use super::writer::{Durability, Shared, Writer};
use super::{SledStore, deliveries, jobs, keys, log};
use crate::domain::id::JobId;
use crate::domain::secret::Keyring;
use crate::store::{Import, Paused, Record, StoreError};

/// Bytes after which a commit takes no further record.
const BYTES_PER_COMMIT: usize = 1024 * 1024;

struct SledImport {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    paused: Paused,
    keyring: Keyring,
}

pub(super) async fn begin(store: &SledStore) -> Result<Box<dyn Import>, StoreError> {
    let is_empty = store
        .read(|shared| {
            let first = [keys::JOB, keys::EVENTS].map(|kind| shared.engine.first_key(keys::all(kind)));
            first.into_iter().try_fold(true, |is_empty, first| Ok(is_empty && first?.is_none()))
        })
        .await?;
    if !is_empty {
        return Err(StoreError::NotEmpty);
    }
    let (shared, writer) = (Arc::clone(&store.shared), Arc::clone(&store.writer));
    Ok(Box::new(SledImport { shared, writer, paused: Paused::default(), keyring: Keyring::default() }))
}

#[async_trait]
impl Import for SledImport {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        for record in &records {
            if let Record::Meta { paused, keyring, .. } = record {
                (self.paused, self.keyring) = (*paused, keyring.clone());
            }
        }
        let mut rest = records.into_iter();
        while !rest.as_slice().is_empty() {
            rest = self.writer.write(Durability::Written, move |tx| put_some(tx, rest)).await?;
        }
        Ok(())
    }

    async fn finish(self: Box<Self>, now: Timestamp) -> Result<(), StoreError> {
        let Self { paused, keyring, .. } = *self;
        self.writer
            .write(Durability::Synced, move |tx| {
                jobs::free_all(tx, now)?;
                // Written in any case, so that there is something to sync.
                let last_seq = tx.last_seq();
                tx.put(keys::LAST_SEQ.to_vec(), &last_seq)?;
                tx.put(keys::KEYRING.to_vec(), &keyring)?;
                tx.put(keys::PAUSED.to_vec(), &paused)
            })
            .await?;
        self.shared.pause(paused);
        Ok(())
    }
}

/// As many as fit into a commit; gives back the others.
fn put_some(
    tx: &mut Tx<'_>,
    mut records: vec::IntoIter<Record>,
) -> Result<vec::IntoIter<Record>, StoreError> {
    while tx.bytes() < BYTES_PER_COMMIT
        && let Some(record) = records.next()
    {
        put(tx, record)?;
    }
    Ok(records)
}

fn put(tx: &mut Tx<'_>, record: Record) -> Result<(), StoreError> {
    match record {
        Record::Job(job) => tx.insert(&JobRecord::new(*job)),
        Record::Event(event) => {
            tx.skip_seq(event.seq);
            if let Some(id) = event.job_id() {
                let Some(mut job) = job(tx, id)? else { return Ok(()) };
                jobs::note_event(tx, &mut job.record, event.seq);
                tx.save(job)?;
            } else {
                let kept = event.at.checked_add(tx.policy().keep_finished).unwrap_or(Timestamp::MAX);
                tx.mark(keys::event_purge(kept, event.seq));
            }
            log::put(tx, &event)
        }
        Record::Delivery(delivery) => {
            let Some(mut job) = job(tx, delivery.job_id)? else { return Ok(()) };
            jobs::note_delivery(tx, &mut job.record, delivery.id);
            tx.save(job)?;
            deliveries::take_in(tx, *delivery)
        }
        Record::Attempt { delivery, attempt } => {
            if tx.get_raw(&keys::delivery(delivery))?.is_none() {
                return Ok(());
            }
            tx.put(keys::attempt(delivery, attempt.number), &*attempt)
        }
        Record::Idempotency { client, key, job, fingerprint } => {
            tx.put(keys::idempotency(&client, &key), &IdempotencyRecord { job, fingerprint })
        }
        Record::Destination(destination) => {
            tx.dispatch().put((*destination).clone());
            tx.put(keys::destination(destination.id), &*destination)
        }
        Record::Garbage(garbage) => tx.put(keys::garbage(garbage.job), &garbage),
        Record::Secrets(secrets) => tx.put(keys::secrets(&secrets.client), &*secrets),
        Record::Client(client) => tx.put(keys::client(&client.name), &*client),
        Record::Action(entry) => tx.put(keys::action(entry.id), &*entry),
        Record::Meta { last_seq, .. } => {
            tx.skip_seq(last_seq);
            Ok(())
        }
    }
}

/// The job of a part of a story; `None` for one that was being purged when the export was made.
fn job(tx: &Tx<'_>, id: JobId) -> Result<Option<Checkout<JobRecord>>, StoreError> {
    match tx.checkout(id) {
        Ok(job) => Ok(Some(job)),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}
