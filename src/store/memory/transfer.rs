//! All that a store holds, out and in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::books::Books;
use crate::domain::delivery::DeliveryState;
use crate::store::{Export, Import, Record, StoreError};

/// The records of the moment at which it began.
pub(super) struct MemoryExport {
    records: Option<Vec<Record>>,
    is_running: Arc<AtomicBool>,
}

impl MemoryExport {
    pub(super) fn begin(books: &Books, is_running: &Arc<AtomicBool>) -> Result<Self, StoreError> {
        if is_running.swap(true, Ordering::AcqRel) {
            return Err(StoreError::ExportRunning);
        }
        let jobs = books.jobs.values().map(|job| Record::Job(Box::new(job.clone())));
        let events = books.events.values().map(|event| Record::Event(Box::new(event.clone())));
        let destinations = books.destinations.values().map(|one| Record::Destination(Box::new(one.clone())));
        let deliveries = books.deliveries.values().map(|one| Record::Delivery(Box::new(one.clone())));
        let attempts = books.attempts.iter().map(|((delivery, _), attempt)| Record::Attempt {
            delivery: *delivery,
            attempt: Box::new(attempt.clone()),
        });
        let keys = books.idempotency.iter().map(|((client, key), (job, fingerprint))| Record::Idempotency {
            client: client.clone(),
            key: key.clone(),
            job: *job,
            fingerprint: *fingerprint,
        });
        let garbage = books.garbage.values().cloned().map(Record::Garbage);
        let secrets = books.secrets.values().map(|one| Record::Secrets(Box::new(one.clone())));
        let clients = books.clients.values().map(|one| Record::Client(Box::new(one.clone())));
        let actions = books.actions.values().map(|one| Record::Action(Box::new(one.clone())));
        let keyring = books.keyring.clone();
        let meta = Record::Meta { last_seq: books.last_seq, paused: books.paused, keyring };
        let records = jobs
            .chain(events)
            .chain(destinations)
            .chain(deliveries)
            .chain(attempts)
            .chain(keys)
            .chain(garbage)
            .chain(secrets)
            .chain(clients)
            .chain(actions);
        let records = Some(records.chain([meta]).collect());
        Ok(Self { records, is_running: Arc::clone(is_running) })
    }
}

#[async_trait]
impl Export for MemoryExport {
    async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        Ok(self.records.take())
    }
}

impl Drop for MemoryExport {
    fn drop(&mut self) {
        self.is_running.store(false, Ordering::Release);
    }
}

/// A store being filled.
pub(super) struct MemoryImport {
    books: Arc<Mutex<Books>>,
}

impl MemoryImport {
    pub(super) fn begin(books: &Arc<Mutex<Books>>) -> Result<Self, StoreError> {
        let import = Self { books: Arc::clone(books) };
        let is_empty = import.lock().jobs.is_empty() && import.lock().events.is_empty();
        if is_empty { Ok(import) } else { Err(StoreError::NotEmpty) }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Import for MemoryImport {
    async fn put(&mut self, records: Vec<Record>) -> Result<(), StoreError> {
        let mut books = self.lock();
        for record in records {
            match record {
                Record::Job(job) => drop(books.jobs.insert(job.id, *job)),
                Record::Event(event) => drop(books.events.insert(event.seq, *event)),
                Record::Destination(one) => drop(books.destinations.insert(one.id, *one)),
                Record::Delivery(mut one) => {
                    if one.state == DeliveryState::Sending {
                        one.state = DeliveryState::Pending;
                    }
                    books.keep_delivery(*one);
                }
                Record::Attempt { delivery, attempt } => {
                    books.attempts.insert((delivery, attempt.number), *attempt);
                }
                Record::Idempotency { client, key, job, fingerprint } => {
                    books.idempotency.insert((client, key), (job, fingerprint));
                }
                Record::Garbage(garbage) => drop(books.garbage.insert(garbage.job, garbage)),
                Record::Secrets(secrets) => drop(books.secrets.insert(secrets.client.clone(), *secrets)),
                Record::Client(client) => drop(books.clients.insert(client.name.clone(), *client)),
                Record::Action(entry) => drop(books.actions.insert(entry.id, *entry)),
                Record::Meta { last_seq, paused, keyring } => {
                    (books.last_seq, books.paused) = (books.last_seq.max(last_seq), paused);
                    books.keyring = keyring;
                }
            }
        }
        Ok(())
    }

    async fn finish(self: Box<Self>, now: Timestamp) -> Result<(), StoreError> {
        let mut books = self.lock();
        books.restart();
        books.free_jobs(Timestamp::MAX, now)
    }
}
