//! All records as they were at one moment, read out while the store goes on.
//!
//! The reader asks for one slice after another. Each is a step of the writer, so between two commits: it reads what
//! is committed, and where a commit has changed something ahead of the reader, what was there before. Nothing
//! waits for anything but a slice, and nothing is locked.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;

use super::SledStore;
use super::engine::{Bytes, Engine, Writes};
use super::keys::{self, Key};
use super::log;
use super::records::{self, DeliveryRecord, IdempotencyRecord, JobRecord};
use super::tx::{Held, Merged, Tx};
use super::writer::{Durability, Shared, Writer};
use crate::domain::hex::hex;
use crate::store::{Export, Record, StoreError};

/// What an export may remember of what has changed since it began.
pub(super) const IMAGE_BYTES: usize = 256 * 1024 * 1024;
/// About what an image takes besides its key and value.
const IMAGE_OVERHEAD: usize = 96;
/// Keys that one slice looks at, and bytes after which it ends: about a millisecond.
const SLICE_KEYS: usize = 256;
const SLICE_BYTES: usize = 512 * 1024;

/// What is read out, in this order. Everything else follows from it.
const KINDS: [u8; 10] = [
    keys::JOB,
    keys::EVENTS,
    keys::LONG_EVENT,
    keys::DESTINATION,
    keys::DELIVERY,
    keys::ATTEMPT,
    keys::IDEMPOTENCY,
    keys::GARBAGE,
    keys::SECRETS,
    keys::CLIENT,
];

/// What the writer keeps of an export.
pub(super) struct Snapshot {
    /// Gone when nobody reads it any more.
    reader: Weak<()>,
    /// What is still to be read, the kinds in the order of [`KINDS`]. Each ends behind the last key that it had:
    /// what comes in is mostly newer, and is nothing to remember or to pass over.
    rest: VecDeque<Range<Key>>,
    /// What keys ahead of the reader held, before they were first changed.
    images: BTreeMap<Key, Option<Bytes>>,
    bytes: usize,
    limit: usize,
    failure: Option<StoreError>,
}

impl Snapshot {
    fn begin(engine: &Engine, reader: &Arc<()>, limit: usize) -> Result<Self, StoreError> {
        let rest = KINDS.into_iter().map(|kind| {
            let Range { start, .. } = keys::all(kind);
            let last = engine.last_key(keys::all(kind))?;
            let end = last.map_or_else(|| start.clone(), |last| behind(&last));
            Ok(start..end)
        });
        Ok(Self {
            reader: Arc::downgrade(reader),
            rest: rest.collect::<Result<_, StoreError>>()?,
            images: BTreeMap::new(),
            bytes: 0,
            limit,
            failure: None,
        })
    }

    pub(super) fn is_read(&self) -> bool {
        self.reader.strong_count() > 0
    }

    /// Keeps what `writes`, which are about to be committed, replace.
    pub(super) fn remember(&mut self, engine: &Engine, writes: &Writes) {
        for key in writes.keys() {
            if self.failure.is_some() {
                return;
            }
            if !self.is_ahead(key) || self.images.contains_key(key) {
                continue;
            }
            match engine.get_raw(key) {
                Ok(image) => {
                    self.bytes += cost(key, image.as_ref());
                    self.images.insert(key.clone(), image);
                    if self.bytes > self.limit {
                        self.fail(StoreError::ExportOutgrown { limit: self.limit });
                    }
                }
                Err(error) => self.fail(error),
            }
        }
    }

    fn is_ahead(&self, key: &Key) -> bool {
        self.rest.iter().any(|range| range.contains(key))
    }

    /// The export ends here; the service goes on.
    fn fail(&mut self, error: StoreError) {
        self.failure = Some(error);
        self.images.clear();
    }

    /// The next entries, and goes on behind them.
    fn slice(&mut self, engine: &Engine) -> Result<Slice, StoreError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(range) = self.rest.pop_front() else { return Ok(Slice::default()) };
        let mut slice = Slice::default();
        let (mut looked_at, mut bytes) = (0, 0);
        let mut passed = range.clone();
        for entry in Merged::new(engine.scan(range.clone()), self.images.range(range.clone())) {
            let (key, held) = entry?;
            let value = held.map(|held| match held {
                Held::Stored(value) => value,
                Held::Above(image) => image.clone(),
            });
            looked_at += 1;
            bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
            let next = behind(&key);
            slice.entries.extend(value.map(|value| (key, value)));
            if looked_at == SLICE_KEYS || bytes >= SLICE_BYTES {
                self.rest.push_front(next.clone()..range.end);
                passed.end = next;
                break;
            }
        }
        self.forget(passed);
        slice.rest = self.rest.front().cloned();
        Ok(slice)
    }

    /// The reader has passed these.
    fn forget(&mut self, range: Range<Key>) {
        let passed: Vec<Key> = self.images.range(range).map(|(key, _)| key.clone()).collect();
        for key in passed {
            if let Some(image) = self.images.remove(&key) {
                self.bytes -= cost(&key, image.as_ref());
            }
        }
    }
}

/// Entries, and where the next ones are; `None` at the end.
#[derive(Default)]
struct Slice {
    entries: Vec<(Key, Bytes)>,
    rest: Option<Range<Key>>,
}

/// The first key after `key`.
pub(super) fn behind(key: &[u8]) -> Key {
    [key, &[0]].concat()
}

pub(super) fn cost(key: &Key, image: Option<&Bytes>) -> usize {
    IMAGE_OVERHEAD + key.len() + image.map_or(0, |image| image.len())
}

/// Who reads it out.
struct SledExport {
    shared: Arc<Shared>,
    writer: Arc<Writer>,
    /// While this lives, the writer keeps the snapshot.
    _reader: Arc<()>,
    _permit: OwnedSemaphorePermit,
    rest: Option<Range<Key>>,
    /// Told last.
    meta: Option<Record>,
}

pub(super) async fn begin(store: &SledStore, limit: usize) -> Result<Box<dyn Export>, StoreError> {
    let permit = Arc::clone(&store.exports).try_acquire_owned().map_err(|_| StoreError::ExportRunning)?;
    let reader = Arc::new(());
    let (reading, shared) = (Arc::clone(&reader), Arc::clone(&store.shared));
    let meta = store
        .writer
        .write(Durability::Written, move |tx| {
            let paused = tx.committed().get(keys::PAUSED)?.unwrap_or_default();
            let keyring = tx.committed().get(keys::KEYRING)?.unwrap_or_default();
            *tx.snapshot = Some(Snapshot::begin(tx.committed(), &reading, limit)?);
            Ok(Record::Meta { last_seq: *shared.signals.events.borrow(), paused, keyring })
        })
        .await?;
    Ok(Box::new(SledExport {
        shared: Arc::clone(&store.shared),
        writer: Arc::clone(&store.writer),
        _reader: reader,
        _permit: permit,
        rest: Some(keys::all(KINDS[0])),
        meta: Some(meta),
    }))
}

#[async_trait]
impl Export for SledExport {
    async fn next(&mut self) -> Result<Option<Vec<Record>>, StoreError> {
        while let Some(range) = self.rest.clone() {
            let shared = Arc::clone(&self.shared);
            // Reads ahead, so that the writer finds the slice in memory and does not wait for the disk.
            tokio::task::spawn_blocking(move || shared.engine.scan(range).take(SLICE_KEYS).for_each(drop))
                .await
                .map_err(|error| StoreError::Engine(error.into()))?;
            let slice = self.writer.write(Durability::Written, next_slice).await?;
            self.rest = slice.rest;
            let records = slice.entries.iter().map(|(key, value)| records_of(key, value));
            let records = records.collect::<Result<Vec<_>, _>>()?.concat();
            if !records.is_empty() {
                return Ok(Some(records));
            }
        }
        Ok(self.meta.take().map(|meta| vec![meta]))
    }
}

fn next_slice(tx: &mut Tx<'_>) -> Result<Slice, StoreError> {
    let engine = tx.committed();
    let slice = tx.snapshot.as_mut().ok_or(StoreError::Closed)?.slice(engine);
    if slice.is_err() {
        // Whoever asks once more does not get the rest without what failed.
        *tx.snapshot = None;
    }
    slice
}

fn records_of(key: &[u8], value: &[u8]) -> Result<Vec<Record>, StoreError> {
    let corrupt = |error: String| StoreError::Corrupt(format!("{}: {error}", hex(key)));
    let named = |error| match error {
        StoreError::Corrupt(error) => corrupt(error),
        other => other,
    };
    let no_key = || corrupt("not a key of its kind".to_owned());
    let event = |value: &[u8]| records::decode(value).map(|event| Record::Event(Box::new(event)));
    let record = match key.first() {
        Some(&keys::JOB) => {
            let job = records::decode::<JobRecord>(value).map_err(named)?;
            // What is left of the story of one that is going finds no job when it is taken in.
            return Ok(if job.is_going { Vec::new() } else { vec![Record::Job(Box::new(job.job))] });
        }
        Some(&keys::EVENTS) => {
            // The long ones come by themselves.
            let events = log::entries(key, value).and_then(|entries| {
                entries.iter().filter(|entry| !entry.is_long()).map(|entry| event(entry.bytes)).collect()
            });
            return events.map_err(named);
        }
        Some(&keys::LONG_EVENT) => event(value),
        Some(&keys::DELIVERY) => return delivery(value).map_err(named),
        Some(&keys::DESTINATION) => records::decode(value).map(|it| Record::Destination(Box::new(it))),
        Some(&keys::ATTEMPT) => {
            let delivery = keys::delivery_of_attempt(key).ok_or_else(no_key)?;
            records::decode(value).map(|attempt| Record::Attempt { delivery, attempt: Box::new(attempt) })
        }
        Some(&keys::IDEMPOTENCY) => {
            let (client, key) = keys::client_and_key_of(key).ok_or_else(no_key)?;
            records::decode(value).map(|IdempotencyRecord { job, fingerprint }| Record::Idempotency {
                client,
                key,
                job,
                fingerprint,
            })
        }
        Some(&keys::GARBAGE) => records::decode(value).map(Record::Garbage),
        Some(&keys::SECRETS) => records::decode(value).map(|it| Record::Secrets(Box::new(it))),
        Some(&keys::CLIENT) => records::decode(value).map(|it| Record::Client(Box::new(it))),
        _ => Err(no_key()),
    };
    record.map(|record| vec![record]).map_err(named)
}

/// A delivery and the attempts that are noted with it.
fn delivery(value: &[u8]) -> Result<Vec<Record>, StoreError> {
    let record: DeliveryRecord = records::decode(value)?;
    let attempts = record.attempts()?;
    let delivery = record.delivery.id;
    let attempts = attempts.into_iter().map(|one| Record::Attempt { delivery, attempt: Box::new(one) });
    Ok([Record::Delivery(Box::new(record.delivery))].into_iter().chain(attempts).collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::Options;
    use super::super::engine::tests::{CACHE, policy};
    use super::*;
    use crate::domain::job::tests::{at, new_job};
    use crate::store::{JobAction, Store as _, Submission};

    type Entries = BTreeMap<Key, Vec<u8>>;

    fn key(n: u16) -> Key {
        [&[keys::JOB][..], &n.to_be_bytes()].concat()
    }

    /// An engine with 600 jobs, one event and an entry of the index, and what of that an export is to hold.
    fn filled(folder: &std::path::Path) -> (Engine, Entries) {
        let engine = Engine::open(folder, CACHE, &policy()).unwrap();
        let mut all: Entries = (0..600).map(|n| (key(n), n.to_be_bytes().to_vec())).collect();
        all.insert(vec![keys::EVENTS, 1], b"event".to_vec());
        let mut writes: Writes = all.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        writes.insert(vec![keys::JOB_READY, 1], Some(Vec::new()));
        engine.commit(writes).unwrap();
        (engine, all)
    }

    /// As the writer does it.
    fn commit(
        engine: &Engine,
        snapshot: &mut Snapshot,
        writes: impl IntoIterator<Item = (Key, Option<Vec<u8>>)>,
    ) {
        let writes = writes.into_iter().collect();
        snapshot.remember(engine, &writes);
        engine.commit(writes).unwrap();
    }

    fn read(engine: &Engine, snapshot: &mut Snapshot, into: &mut Entries) -> bool {
        let slice = snapshot.slice(engine).unwrap();
        for (key, value) in slice.entries {
            assert!(into.insert(key, value.to_vec()).is_none(), "told twice");
        }
        slice.rest.is_some()
    }

    #[test]
    fn what_is_changed_ahead_of_the_reader_and_behind_it_is_told_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, expected) = filled(folder.path());
        let reader = Arc::new(());
        let mut snapshot = Snapshot::begin(&engine, &reader, IMAGE_BYTES).unwrap();
        let mut told = Entries::new();
        read(&engine, &mut snapshot, &mut told);
        let (behind, ahead) = (10, 400);
        assert!(told.contains_key(&key(behind + 2)) && !told.contains_key(&key(ahead)));
        for n in [behind, ahead] {
            let inserted = [key(n), vec![1]].concat();
            commit(&engine, &mut snapshot, [(key(n), Some(b"other".to_vec())), (key(n + 1), None)]);
            commit(&engine, &mut snapshot, [(inserted.clone(), Some(b"new".to_vec()))]);
            // Once more: only what was there first counts.
            commit(
                &engine,
                &mut snapshot,
                [(key(n), None), (key(n + 1), Some(b"back".to_vec())), (inserted, None)],
            );
        }
        commit(
            &engine,
            &mut snapshot,
            [(vec![keys::EVENTS, 2], Some(Vec::new())), (vec![keys::EVENTS, 1], None)],
        );
        commit(&engine, &mut snapshot, [(vec![keys::JOB_READY, 2], Some(Vec::new()))]);
        assert_eq!(snapshot.images.len(), 4, "three keys of jobs, one of an event, and none that is newer");
        while read(&engine, &mut snapshot, &mut told) {}
        assert_eq!(told, expected);
        assert_eq!((snapshot.images.len(), snapshot.bytes), (0, 0));
    }

    #[test]
    fn whatever_is_done_meanwhile_the_moment_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, expected) = filled(folder.path());
        let reader = Arc::new(());
        let mut snapshot = Snapshot::begin(&engine, &reader, IMAGE_BYTES).unwrap();
        let mut told = Entries::new();
        // A generator after Knuth, so that a failure can be repeated.
        let mut random = 7_u64;
        while read(&engine, &mut snapshot, &mut told) {
            for _ in 0..20 {
                let writes = (0..10).map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let bytes = random.to_be_bytes();
                    let n = u16::from_be_bytes([bytes[0], bytes[1]]) % 700;
                    let key = if bytes[2] < 20 { [key(n), vec![0]].concat() } else { key(n) };
                    (key, (bytes[3] < 128).then(|| bytes.to_vec()))
                });
                commit(&engine, &mut snapshot, writes);
            }
        }
        assert_eq!(told, expected);
    }

    #[test]
    fn an_export_ends_when_too_much_changes_and_the_rest_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (engine, _) = filled(folder.path());
        let reader = Arc::new(());
        let mut snapshot = Snapshot::begin(&engine, &reader, 5 * (IMAGE_OVERHEAD + 10)).unwrap();
        commit(&engine, &mut snapshot, (0..5).map(|n| (key(n), None)));
        assert!(snapshot.slice(&engine).is_ok());
        commit(&engine, &mut snapshot, (300..306).map(|n| (key(n), None)));
        assert!(matches!(snapshot.slice(&engine), Err(StoreError::ExportOutgrown { .. })));
        assert!(snapshot.images.is_empty());
        assert!(engine.get_raw(&key(305)).unwrap().is_none());
    }

    fn open(folder: &std::path::Path) -> SledStore {
        let options = Options { cache_bytes: CACHE, policy: policy() };
        SledStore::open(folder, options, Timestamp::UNIX_EPOCH).unwrap()
    }

    #[tokio::test]
    async fn one_at_a_time_and_pictures_stay_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        let store = tokio::task::spawn_blocking(move || open(&path)).await.unwrap();
        let submission = |n| Submission { job: new_job(n), idempotency: None };
        store.submit(submission(1), at(1)).await.unwrap();
        let id = new_job(1).id;
        let mut export = store.export().await.unwrap();
        assert!(matches!(store.export().await, Err(StoreError::ExportRunning)));
        store.submit(submission(2), at(2)).await.unwrap();
        store.change_job(id, JobAction::Delete, None, at(3)).await.unwrap();
        let long_after = at(1_000_000);
        let worker = crate::domain::job::tests::worker(1);
        // The callback of its cancellation must have ended before it may go.
        let claimed =
            store.claim_deliveries(worker, 1, std::time::Duration::from_secs(1), long_after).await.unwrap();
        let (delivery, _) = &claimed[0];
        let attempt = crate::domain::delivery::Attempt {
            number: 1,
            started_at: at(4),
            duration_ms: 1,
            trigger: crate::domain::delivery::Trigger::default(),
            timings: crate::domain::delivery::Timings::default(),
            remote_addr: None,
            response: None,
            error: None,
            next_attempt_at: None,
        };
        let verdict = crate::domain::delivery::Verdict::Delivered;
        store.settle_delivery(delivery.id, delivery.token(), attempt, verdict, long_after).await.unwrap();
        assert_eq!(store.purge(10, long_after).await.unwrap().jobs, 1);
        assert!(store.job(id).await.unwrap().is_none());
        assert_eq!(store.garbage(10).await.unwrap(), []);

        let mut told = Vec::new();
        while let Some(records) = export.next().await.unwrap() {
            told.extend(records);
        }
        let jobs: Vec<_> = told
            .iter()
            .filter_map(|record| if let Record::Job(job) = record { Some(job.id) } else { None })
            .collect();
        assert_eq!(jobs, [id]);
        assert!(matches!(told.last(), Some(Record::Meta { last_seq: 1, .. })), "{told:?}");
        assert!(export.next().await.unwrap().is_none());
        assert_eq!(store.garbage(10).await.unwrap(), []);
        drop(export);
        assert_eq!(store.garbage(10).await.unwrap().len(), 1);
        store.export().await.unwrap();
        store.close().await;
    }
}
