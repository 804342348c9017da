//! From older layouts to this one, when a store is opened.
//!
//! A step is done in bounded commits and the version is written last: a process that dies in between begins
//! again, and finds what is done by the versions of the records.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::engine::{Engine, Writes};
use super::keys::{self, Key};
use super::log;
use super::records::{self, IdempotencyRecord, Indexed, JobRecord};
use crate::domain::client::ClientId;
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{DeliveryId, EventId, JobId};
use crate::domain::image::Variant;
use crate::domain::job::{Artifact, Callback, Input, Job, JobError, JobStatus, Lease, Priority};
use crate::store::{Policy, StoreError};

/// Records that are changed in one commit.
const RECORDS_PER_COMMIT: usize = 500;

/// The index of jobs by status, which version 1 had.
const V1_JOB_BY_STATUS: u8 = b's';
/// Where versions 1 and 2 kept each event.
const OLDER_EVENT: u8 = b'e';

/// What follows from the records of jobs, in any version.
const INDEX: [u8; 8] = [
    V1_JOB_BY_STATUS,
    keys::JOB_LIST,
    keys::JOB_TAG,
    keys::JOB_READY,
    keys::JOB_WAITS,
    keys::JOB_LEASE,
    keys::JOB_DEADLINE,
    keys::JOB_PURGE,
];

/// A job as version 1 kept it.
#[derive(Serialize, Deserialize)]
struct JobV1 {
    id: JobId,
    client: ClientId,
    status: JobStatus,
    revision: u64,
    #[serde(with = "millisecond::required")]
    created_at: Timestamp,
    #[serde(with = "millisecond::optional")]
    started_at: Option<Timestamp>,
    #[serde(with = "millisecond::optional")]
    finished_at: Option<Timestamp>,
    #[serde(with = "millisecond::required")]
    due_at: Timestamp,
    attempt: u32,
    input: Input,
    variants: Vec<Variant>,
    artifacts: Vec<Artifact>,
    callback: Option<Callback>,
    tags: Vec<String>,
    metadata: Option<String>,
    error: Option<JobError>,
    lease: Option<Lease>,
    lease_token: u64,
}

/// An event as version 1 kept it.
#[derive(Serialize, Deserialize)]
struct EventV1 {
    id: EventId,
    seq: u64,
    kind: EventKind,
    job_id: JobId,
    #[serde(with = "millisecond::required")]
    at: Timestamp,
    source: String,
    job: JobV1,
}

impl JobV1 {
    fn upgraded(self, policy: &Policy) -> Job {
        let kept = |finished: Timestamp| finished.checked_add(policy.keep_finished).unwrap_or(Timestamp::MAX);
        Job {
            id: self.id,
            client: self.client,
            status: self.status,
            revision: self.revision,
            created_at: self.created_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            // A time that has passed by now is found to be due at once.
            due_at: (self.status == JobStatus::Queued).then_some(self.due_at),
            priority: Priority::Normal,
            deadline_ms: None,
            deadline_at: None,
            cancel_requested_at: None,
            deleted_at: None,
            purge_at: self.finished_at.map(kept),
            idempotency_key: None,
            attempt: self.attempt,
            input: self.input,
            variants: self.variants,
            artifacts: self.artifacts,
            callback: self.callback,
            tags: self.tags,
            metadata: self.metadata,
            error: self.error,
            lease: self.lease,
            lease_token: self.lease_token,
        }
    }
}

/// Brings a store of schema version 1 or 2 to this one.
///
/// Version 2 kept a job without what is noted with it, and each event by itself, as version 1 did.
pub(super) fn from(found: u32, engine: &Engine, policy: &Policy) -> Result<(), StoreError> {
    tracing::info!("upgrading the store from schema version {found}");
    // Both ordered something else otherwise; every entry of the index is made anew from its record.
    for prefix in INDEX {
        each(engine, prefix, |key, _, writes| {
            writes.insert(key, None);
            Ok(())
        })?;
    }
    each(engine, keys::JOB, |key, value, writes| {
        let record = match (older::<JobV1>(1, value)?, older::<Job>(2, value)?) {
            (Some(job), _) => JobRecord::new(job.upgraded(policy)),
            (_, Some(job)) => JobRecord::new(job),
            (None, None) => records::decode(value)?,
        };
        writes.extend(record.index().into_iter().map(|key| (key, Some(Vec::new()))));
        writes.insert(key, Some(records::encode(&record)?));
        Ok(())
    })?;
    each(engine, OLDER_EVENT, |key, value, writes| {
        let event = match older::<EventV1>(1, value)? {
            Some(EventV1 { id, seq, kind, job_id, at, source, job }) => {
                Event { id, seq, kind, job_id, at, source, job: job.upgraded(policy) }
            }
            None => records::decode(value)?,
        };
        let (seq, job_id) = (event.seq, event.job_id);
        let group = current(engine, writes, &log::key_of(seq))?.unwrap_or_else(|| log::EMPTY.to_vec());
        writes.extend(log::added(&group, &event)?.into_iter().map(|(key, value)| (key, Some(value))));
        // Version 2 had an entry for each.
        writes.insert(keys::event_of_job(job_id, seq), None);
        change_job(engine, writes, job_id, |record, writes| {
            if let Some(seq) = record.note_event(seq) {
                writes.insert(keys::event_of_job(job_id, seq), Some(Vec::new()));
            }
        })?;
        writes.insert(key, None);
        Ok(())
    })?;
    each(engine, keys::DELIVERY_OF_JOB, |key, _, writes| {
        let id = DeliveryId::from_bytes(keys::last_id(&key)?);
        let Some(job) = key.get(1..).and_then(|ids| ids.first_chunk().copied()) else { return Ok(()) };
        change_job(engine, writes, JobId::from_bytes(job), |record, writes| {
            if record.note_delivery(id) {
                writes.insert(key, None);
            }
        })
    })?;
    each(engine, keys::IDEMPOTENCY, |key, value, writes| {
        let known: IdempotencyRecord = records::decode(value)?;
        change_job(engine, writes, known.job, |record, _| {
            record.job.idempotency_key = keys::client_key_of(&key, &record.job.client);
        })
    })
}

/// What a key holds, with what is to be written.
fn current(engine: &Engine, writes: &Writes, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    match writes.get(key) {
        Some(write) => Ok(write.clone()),
        None => Ok(engine.get_raw(key)?.map(|value| value.to_vec())),
    }
}

/// Changes the record of a job, if it is there.
fn change_job(
    engine: &Engine,
    writes: &mut Writes,
    id: JobId,
    change: impl FnOnce(&mut JobRecord, &mut Writes),
) -> Result<(), StoreError> {
    let Some(value) = current(engine, writes, &keys::job(id))? else { return Ok(()) };
    let mut record = records::decode(&value)?;
    change(&mut record, writes);
    writes.insert(keys::job(id), Some(records::encode(&record)?));
    Ok(())
}

/// A record of this version; `None` when it is of another.
fn older<T: DeserializeOwned>(version: u8, value: &[u8]) -> Result<Option<T>, StoreError> {
    match value.split_first() {
        Some((found, record)) if *found == version => {
            postcard::from_bytes(record).map(Some).map_err(|error| StoreError::Corrupt(error.to_string()))
        }
        _ => Ok(None),
    }
}

/// Collects changes for every entry of a kind, and commits them a few at a time.
fn each(
    engine: &Engine,
    prefix: u8,
    mut change: impl FnMut(Key, &[u8], &mut Writes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut writes = Writes::new();
    for (count, entry) in engine.scan(keys::all(prefix)).enumerate() {
        let (key, value) = entry?;
        change(key.to_vec(), &value, &mut writes)?;
        if count % RECORDS_PER_COMMIT == RECORDS_PER_COMMIT - 1 {
            engine.commit(std::mem::take(&mut writes))?;
        }
    }
    engine.commit(writes)
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::{CACHE, policy};
    use super::*;
    use crate::domain::job::tests::{at, new_job, worker};

    fn put_v1<T: Serialize>(writes: &mut Writes, key: Key, record: &T) {
        writes.insert(key, Some(postcard::to_extend(record, vec![1]).unwrap()));
    }

    fn job_v1(n: u8, status: JobStatus) -> JobV1 {
        let job = Job::accepted(new_job(n), at(1));
        let ended = status.is_terminal().then_some(at(9));
        let lease = Lease { worker: worker(1), token: 1, until: at(40) };
        JobV1 {
            id: job.id,
            client: job.client,
            status,
            revision: 3,
            created_at: at(1),
            started_at: None,
            finished_at: ended,
            due_at: at(2),
            attempt: 1,
            input: job.input,
            variants: job.variants,
            artifacts: Vec::new(),
            callback: None,
            tags: vec!["red".to_owned()],
            metadata: None,
            error: None,
            lease: (status == JobStatus::Processing).then_some(lease),
            lease_token: 1,
        }
    }

    #[test]
    fn a_store_of_version_1_opens_as_one_of_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let mut writes = Writes::from([(keys::SCHEMA.to_vec(), Some(1_u32.to_be_bytes().to_vec()))]);
        let stories = [
            (1, JobStatus::Queued, EventKind::JobQueued),
            (2, JobStatus::Processing, EventKind::JobStarted),
            (3, JobStatus::Completed, EventKind::JobCompleted),
        ];
        for (n, status, kind) in stories {
            let job = job_v1(n, status);
            put_v1(&mut writes, keys::job(job.id), &job);
            writes.insert([&[V1_JOB_BY_STATUS, n][..], job.id.as_bytes()].concat(), Some(Vec::new()));
            writes.insert([&[keys::JOB_READY][..], &[0; 8], job.id.as_bytes()].concat(), Some(Vec::new()));
            let (id, seq, job_id) = (EventId::new(at(1), &[n; 10]), u64::from(n), job.id);
            let event = EventV1 { id, seq, kind, job_id, at: at(1), source: "http://a".to_owned(), job };
            put_v1(&mut writes, [&[OLDER_EVENT][..], &seq.to_be_bytes()].concat(), &event);
        }
        let known = IdempotencyRecord { job: job_v1(3, JobStatus::Completed).id, fingerprint: [0; 32] };
        put_v1(&mut writes, keys::idempotency(&ClientId::dev(), "order-7"), &known);
        engine.commit(writes).unwrap();
        // The second time, everything is done but the version is not written: as after a kill.
        for _ in 0..2 {
            from(1, &engine, &policy()).unwrap();
        }
        drop(engine);

        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let audit = super::super::audit::audit(&engine).unwrap();
        assert_eq!(audit.faults, Vec::<String>::new());
        assert_eq!(audit.jobs.values().sum::<u64>(), 3);
        let JobRecord { job: done, events, .. } = engine.get(&keys::job(known.job)).unwrap().unwrap();
        assert_eq!(done.idempotency_key.as_deref(), Some("order-7"));
        assert_eq!(done.purge_at, Some(at(9).checked_add(policy().keep_finished).unwrap()));
        assert_eq!((done.tags.as_slice(), events.as_slice()), (&["red".to_owned()][..], &[3][..]));
    }

    #[test]
    fn what_belongs_to_a_job_is_noted_in_it_and_the_rest_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let job = job_v1(1, JobStatus::Queued);
        let job_id = job.id;
        let mut writes = Writes::new();
        put_v1(&mut writes, keys::job(job_id), &job);
        for n in 1..=66 {
            let mut job = job_v1(1, JobStatus::Queued);
            job.metadata = Some("m".repeat(100 * usize::from(n)));
            let (id, seq) = (EventId::new(at(1), &[n; 10]), u64::from(n));
            let kind = EventKind::JobQueued;
            let event = EventV1 { id, seq, kind, job_id, at: at(1), source: "http://a".to_owned(), job };
            put_v1(&mut writes, [&[OLDER_EVENT][..], &seq.to_be_bytes()].concat(), &event);
            let delivery = DeliveryId::from_bytes([n; 16]);
            writes.insert(keys::delivery_of_job(job_id, delivery), Some(Vec::new()));
        }
        engine.commit(writes).unwrap();
        for _ in 0..2 {
            from(1, &engine, &policy()).unwrap();
            let JobRecord { events, deliveries, .. } = engine.get(&keys::job(job_id)).unwrap().unwrap();
            assert_eq!(events, (1..=64).collect::<Vec<_>>());
            assert_eq!(deliveries, (1..=64).map(|n| DeliveryId::from_bytes([n; 16])).collect::<Vec<_>>());
            let count = |range| engine.scan(range).count();
            assert_eq!(count(keys::events_of(job_id, 64)), 2);
            assert_eq!((count(keys::deliveries_of(job_id)), count(keys::all(OLDER_EVENT))), (2, 0));
            let events = super::super::jobs::events_of(&engine, job_id, 0, 99).unwrap();
            assert_eq!(
                events.iter().map(|event| event.seq).collect::<Vec<_>>(),
                (1..=66).collect::<Vec<_>>()
            );
            assert_eq!(events[65].job.metadata.as_ref().unwrap().len(), 6600);
        }
    }

    #[test]
    fn a_store_of_version_2_opens_as_one_of_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let job = Job::accepted(new_job(1), at(1));
        let mut writes = Writes::from([(keys::SCHEMA.to_vec(), Some(2_u32.to_be_bytes().to_vec()))]);
        writes.insert(keys::job(job.id), Some(postcard::to_extend(&job, vec![2]).unwrap()));
        for key in JobRecord::new(job.clone()).index() {
            writes.insert(key, Some(Vec::new()));
        }
        let queued = keys::job_list(&job.client, false, Some(JobStatus::Queued), job.id);
        writes.insert(queued, Some(Vec::new()));
        for seq in 1..=70 {
            let (id, kind, source) = (EventId::new(at(1), &[7; 10]), EventKind::JobQueued, String::new());
            let event = Event { id, seq, kind, job_id: job.id, at: at(1), source, job: job.snapshot() };
            let key = [&[OLDER_EVENT][..], &seq.to_be_bytes()].concat();
            writes.insert(key, Some(records::encode(&event).unwrap()));
            writes.insert(keys::event_of_job(job.id, seq), Some(Vec::new()));
        }
        engine.commit(writes).unwrap();
        // The second time, everything is done but the version is not written: as after a kill.
        for _ in 0..2 {
            from(2, &engine, &policy()).unwrap();
        }
        drop(engine);

        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert_eq!(super::super::audit::audit(&engine).unwrap().faults, Vec::<String>::new());
        assert_eq!(super::super::jobs::get(&engine, job.id).unwrap(), Some(job.clone()));
        let events = super::super::jobs::events_of(&engine, job.id, 0, 99).unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=70).collect::<Vec<_>>());
    }
}
