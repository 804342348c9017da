//! All that a store holds, out and in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::books::Books;
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
        let meta = Record::Meta { last_seq: books.last_seq, paused: books.paused };
        let records = jobs.chain(events).chain(deliveries).chain(attempts).chain(keys).chain(garbage);
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
                Record::Delivery(one) => drop(books.deliveries.insert(one.event_seq, *one)),
                Record::Attempt { delivery, attempt } => {
                    books.attempts.insert((delivery, attempt.number), *attempt);
                }
                Record::Idempotency { client, key, job, fingerprint } => {
                    books.idempotency.insert((client, key), (job, fingerprint));
                }
                Record::Garbage(garbage) => drop(books.garbage.insert(garbage.job, garbage)),
                Record::Meta { last_seq, paused } => {
                    (books.last_seq, books.paused) = (books.last_seq.max(last_seq), paused);
                }
            }
        }
        Ok(())
    }

    async fn finish(self: Box<Self>, now: Timestamp) -> Result<(), StoreError> {
        let mut books = self.lock();
        books.free_jobs(Timestamp::MAX, now)?;
        books.free_deliveries(Timestamp::MAX, now)
    }
}
