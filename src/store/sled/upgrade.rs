//! From older layouts to this one, when a store is opened.
//!
//! A step is done in bounded commits and the version is written last: a process that dies in between begins
//! again, and finds what is done by the versions of the records.

use serde::de::DeserializeOwned;

use super::engine::{Engine, Writes};
use super::keys::{self, Key};
use super::layouts::{AttemptV1, DeliveryV1, EventV1, JobRecordV3, JobRecordV4, JobV1, JobV2};
use super::log;
use super::records::{self, DeliveryRecord, IdempotencyRecord, Indexed, JobRecord};
use crate::domain::client::ClientId;
use crate::domain::delivery::Attempt;
use crate::domain::destination::Destination;
use crate::domain::event::{Event, Subject};
use crate::domain::id::{DeliveryId, JobId};
use crate::store::{Ledger, Policy, StoreError};

/// Records that are changed in one commit.
const RECORDS_PER_COMMIT: usize = 500;

/// The index of jobs by status, which version 1 had.
const V1_JOB_BY_STATUS: u8 = b's';
/// Where versions 1 and 2 kept each event.
const OLDER_EVENT: u8 = b'e';
/// What waited until version 3, and the claims of it.
const OLDER_WAITING: [u8; 2] = [b'p', b'x'];

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

/// Brings a store of an older schema version to this one.
///
/// Version 2 kept a job without what is noted with it, and each event by itself, as version 1 did. Version 3 had one list
/// of what waits for all destinations together, and claims of it on disk. Version 4 knew less of what is wanted of a picture.
/// What version 5 kept is read as it is: it had no picture that was to be fetched. So is that of version 6, which had no clients.
pub(super) fn from(found: u32, engine: &Engine, policy: &Policy) -> Result<(), StoreError> {
    tracing::info!("upgrading the store from schema version {found}");
    match found {
        5 | 6 => return Ok(()),
        4 => return jobs(engine),
        _ => {}
    }
    // Both ordered something else otherwise; every entry of the index is made anew from its record.
    for prefix in INDEX {
        each(engine, prefix, |key, _, writes| {
            writes.insert(key, None);
            Ok(())
        })?;
    }
    each(engine, keys::JOB, |key, value, writes| {
        let record = job_of(value, policy)?;
        writes.extend(record.index().into_iter().map(|key| (key, Some(Vec::new()))));
        writes.insert(key, Some(records::encode(&record)?));
        Ok(())
    })?;
    each(engine, OLDER_EVENT, |key, value, writes| {
        let (event, job_id) = match older::<EventV1>(1, value)? {
            Some(EventV1 { id, seq, kind, job_id, at, source, job }) => {
                let subject = Subject::Job(Box::new(job.upgraded(policy)));
                (Event { id, seq, kind, at, source, subject }, job_id)
            }
            None => {
                let event: Event = records::decode(value)?;
                let job =
                    event.job_id().ok_or_else(|| StoreError::Corrupt("an event without a job".to_owned()))?;
                (event, job)
            }
        };
        let seq = event.seq;
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
    })?;
    deliveries(engine)
}

/// A job of any version.
fn job_of(value: &[u8], policy: &Policy) -> Result<JobRecord, StoreError> {
    Ok(if let Some(job) = older::<JobV1>(1, value)? {
        JobRecord::new(job.upgraded(policy))
    } else if let Some(job) = older::<JobV2>(2, value)? {
        JobRecord::new(job.into())
    } else if let Some(record) = older::<JobRecordV3>(3, value)? {
        record.into()
    } else if let Some(record) = older::<JobRecordV4>(4, value)? {
        record.into()
    } else {
        records::decode(value)?
    })
}

/// Each job of version 4; nothing by which it is found has changed.
fn jobs(engine: &Engine) -> Result<(), StoreError> {
    each(engine, keys::JOB, |key, value, writes| {
        if let Some(record) = older::<JobRecordV4>(4, value)? {
            writes.insert(key, Some(records::encode(&JobRecord::from(record))?));
        }
        Ok(())
    })
}

/// Each delivery with its entries of the index, its destination, and its place in the ledger.
fn deliveries(engine: &Engine) -> Result<(), StoreError> {
    for prefix in OLDER_WAITING {
        each(engine, prefix, |key, _, writes| {
            writes.insert(key, None);
            Ok(())
        })?;
    }
    each(engine, keys::ATTEMPT, |key, value, writes| {
        if let Some(attempt) = older::<AttemptV1>(1, value)? {
            writes.insert(key, Some(records::encode(&Attempt::from(attempt))?));
        }
        Ok(())
    })?;
    let mut ledger = Ledger::default();
    each(engine, keys::DELIVERY, |key, value, writes| {
        let record = match older::<DeliveryV1>(1, value)? {
            Some(delivery) => {
                let job = engine.get::<JobRecord>(&keys::job(delivery.job_id))?;
                let client = job.map_or_else(ClientId::dev, |record| record.job.client);
                DeliveryRecord::new(delivery.upgraded(client))
            }
            None => records::decode(value)?,
        };
        let delivery = &record.delivery;
        ledger.came(delivery.state);
        let destination = Destination::of(&delivery.client, &delivery.url, delivery.created_at);
        if current(engine, writes, &keys::destination(destination.id))?.is_none() {
            writes.insert(keys::destination(destination.id), Some(records::encode(&destination)?));
        }
        writes.extend(record.index().into_iter().map(|key| (key, Some(Vec::new()))));
        writes.insert(key, Some(records::encode(&record)?));
        Ok(())
    })?;
    engine.commit(Writes::from([(keys::LEDGER.to_vec(), Some(records::encode(&ledger)?))]))
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
    use serde::Serialize;

    use super::super::layouts::{FailureV1, JobV4, JobV5};
    use super::super::records::Record;
    use super::*;
    use crate::domain::delivery::{DeliveryState, ErrorClass};
    use crate::domain::event::EventKind;
    use crate::domain::id::EventId;
    use crate::domain::job::tests::{at, new_job, worker};
    use crate::domain::job::{Job, JobStatus, Lease};
    use crate::domain::secret::SigningSecret;

    fn put_v1<T: Serialize>(writes: &mut Writes, key: Key, record: &T) {
        writes.insert(key, Some(postcard::to_extend(record, vec![1]).unwrap()));
    }

    fn audit(engine: &Engine) -> crate::store::Audit {
        let ledger = engine.get(keys::LEDGER).unwrap().unwrap_or_default();
        super::super::audit::audit(engine, ledger).unwrap()
    }

    fn job_v1(n: u8, status: JobStatus) -> JobV1 {
        let job = Job::accepted(new_job(n), at(1));
        let variants = JobV4::from(job.clone()).variants;
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
            input: job.input.unwrap(),
            variants,
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
        let audit = audit(&engine);
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
            let Subject::Job(job) = &events[65].subject else { panic!("not of a job") };
            assert_eq!(job.metadata.as_ref().unwrap().len(), 6600);
        }
    }

    #[test]
    fn a_store_of_version_2_opens_as_one_of_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        // Without a callback it is as it was in version 2.
        let job = Job { callback: None, ..Job::accepted(new_job(1), at(1)) };
        let mut writes = Writes::from([(keys::SCHEMA.to_vec(), Some(2_u32.to_be_bytes().to_vec()))]);
        writes.insert(
            keys::job(job.id),
            Some(postcard::to_extend(&JobV4::from(job.clone()), vec![2]).unwrap()),
        );
        for key in JobRecord::new(job.clone()).index() {
            writes.insert(key, Some(Vec::new()));
        }
        let queued = keys::job_list(&job.client, false, Some(JobStatus::Queued), job.id);
        writes.insert(queued, Some(Vec::new()));
        for seq in 1..=70_u64 {
            let (id, kind, source) = (EventId::new(at(1), &[7; 10]), EventKind::JobQueued, String::new());
            let event = (id, seq, kind, job.id, at(1).as_millisecond(), source, JobV4::from(job.clone()));
            let key = [&[OLDER_EVENT][..], &seq.to_be_bytes()].concat();
            writes.insert(key, Some(postcard::to_extend(&event, vec![2]).unwrap()));
            writes.insert(keys::event_of_job(job.id, seq), Some(Vec::new()));
        }
        engine.commit(writes).unwrap();
        // The second time, everything is done but the version is not written: as after a kill.
        for _ in 0..2 {
            from(2, &engine, &policy()).unwrap();
        }
        drop(engine);

        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert_eq!(audit(&engine).faults, Vec::<String>::new());
        assert_eq!(super::super::jobs::get(&engine, job.id).unwrap(), Some(job.clone()));
        let events = super::super::jobs::events_of(&engine, job.id, 0, 99).unwrap();
        assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=70).collect::<Vec<_>>());
    }

    #[test]
    fn what_waited_in_a_store_of_version_3_waits_in_one_of_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let job = Job { callback: None, ..Job::accepted(new_job(1), at(1)) };
        let ids = [1, 2, 3].map(|n| DeliveryId::new(at(1), &[n; 10]));
        let mut writes = Writes::from([(keys::SCHEMA.to_vec(), Some(3_u32.to_be_bytes().to_vec()))]);
        let record = (JobV4::from(job.clone()), vec![1_u64], ids.to_vec(), false);
        writes.insert(keys::job(job.id), Some(postcard::to_extend(&record, vec![3]).unwrap()));
        let event = (
            EventId::new(at(1), &[7; 10]),
            1_u64,
            EventKind::JobQueued,
            job.id,
            at(1).as_millisecond(),
            String::new(),
            JobV4::from(job.clone()),
        );
        let event = postcard::to_extend(&event, vec![2]).unwrap();
        let group = [log::EMPTY, &[1], &u16::try_from(event.len()).unwrap().to_be_bytes(), &event];
        writes.insert(log::key_of(1), Some(group.concat()));
        let states = [DeliveryState::Pending, DeliveryState::Sending, DeliveryState::Exhausted];
        let lease = Lease { worker: worker(1), token: 1, until: at(40) };
        for (id, state) in ids.into_iter().zip(states) {
            let is_over = state == DeliveryState::Exhausted;
            let delivery = DeliveryV1 {
                id,
                event_id: EventId::new(at(1), &[7; 10]),
                event_seq: 1,
                event_kind: EventKind::JobQueued,
                job_id: job.id,
                url: "https://hooks.example/a".parse().unwrap(),
                secret: Some(SigningSecret::from_entropy([9; 32])),
                state,
                attempt_count: 1,
                next_attempt_at: (!is_over).then_some(at(9)),
                last_error: Some(FailureV1 { class: ErrorClass::Dns, detail: "d".to_owned() }),
                last_status_code: None,
                created_at: at(1),
                finished_at: is_over.then_some(at(8)),
                lease: (state == DeliveryState::Sending).then_some(lease),
                lease_token: 1,
            };
            put_v1(&mut writes, keys::delivery(id), &delivery);
            let attempt = (1_u32, 2000_i64, 3_u64, (), (), (), ());
            let attempt = postcard::to_extend(&attempt, vec![1]).unwrap();
            // Four fields that are none.
            writes.insert(keys::attempt(id, 1), Some([&attempt[..], &[0; 4]].concat()));
            writes.insert([&OLDER_WAITING[..1], id.as_bytes()].concat(), Some(Vec::new()));
        }
        for key in JobRecord::new(job).index() {
            writes.insert(key, Some(Vec::new()));
        }
        engine.commit(writes).unwrap();
        // The second time, everything is done but the version is not written: as after a kill.
        for _ in 0..2 {
            from(3, &engine, &policy()).unwrap();
        }
        drop(engine);

        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let ledger: Ledger = engine.get(keys::LEDGER).unwrap().unwrap();
        assert_eq!((ledger.accepted, ledger.waiting, ledger.exhausted), (3, 2, 1));
        let stored = |id| engine.get::<DeliveryRecord>(&keys::delivery(id)).unwrap().unwrap().delivery;
        assert_eq!(stored(ids[1]).state, DeliveryState::Pending);
        let plain = stored(ids[0]).secret.unwrap().as_plain();
        assert_eq!(plain, Some(SigningSecret::from_entropy([9; 32])));
        assert_eq!(super::super::deliveries::attempts(&engine, ids[2]).unwrap().len(), 1);
        let dispatch = super::super::deliveries::dispatch(&engine, policy().dispatch).unwrap();
        assert_eq!(dispatch.next_due(), Some(at(9)));
        let faults = audit(&engine).faults;
        // It has three deliveries of one event, which no job had.
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn a_store_of_version_4_opens_as_one_of_this_version() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let job = Job::accepted(new_job(1), at(1));
        let record = JobRecord { events: vec![1], ..JobRecord::new(job.clone()) };
        let before = (JobV4::from(job.clone()), vec![1_u64], Vec::<DeliveryId>::new(), false);
        let mut writes = Writes::from([(keys::SCHEMA.to_vec(), Some(4_u32.to_be_bytes().to_vec()))]);
        writes.insert(keys::job(job.id), Some(postcard::to_extend(&before, vec![4]).unwrap()));
        writes.extend(record.index().into_iter().map(|key| (key, Some(Vec::new()))));
        writes.insert(keys::event_of_job(job.id, 1), None);
        // The subject of an event has its number, which for a job is 0.
        let event = (
            EventId::new(at(1), &[7; 10]),
            1_u64,
            EventKind::JobQueued,
            at(1).as_millisecond(),
            "http://a",
            0_u8,
            JobV4::from(job.snapshot()),
        );
        let event = postcard::to_extend(&event, vec![3]).unwrap();
        let length = u16::try_from(event.len()).unwrap().to_be_bytes();
        writes.insert(log::key_of(1), Some([log::EMPTY, &[1], &length, &event].concat()));
        let ledger = Ledger { accepted: 9, delivered: 9, ..Ledger::default() };
        writes.insert(keys::LEDGER.to_vec(), Some(records::encode(&ledger).unwrap()));
        engine.commit(writes).unwrap();
        drop(engine);

        // Opening upgrades; from() again is as after a kill before the version was written.
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        from(4, &engine, &policy()).unwrap();
        assert_eq!(engine.get::<JobRecord>(&keys::job(job.id)).unwrap(), Some(record));
        let events = super::super::jobs::events_of(&engine, job.id, 0, 99).unwrap();
        let subjects: Vec<_> = events.into_iter().map(|event| event.subject).collect();
        assert_eq!(subjects, [Subject::Job(Box::new(job.snapshot()))]);
        assert_eq!(engine.get::<Ledger>(keys::LEDGER).unwrap(), Some(ledger), "what was counted stays");
        assert_eq!(engine.get_raw(&keys::job(job.id)).unwrap().unwrap()[0], <JobRecord as Record>::VERSION);
    }

    #[test]
    fn a_store_of_version_5_opens_as_one_of_this_version_and_is_not_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let job = Job { callback: None, tags: vec!["red".to_owned()], ..Job::accepted(new_job(1), at(1)) };
        let record = JobRecord { events: vec![1], ..JobRecord::new(job.clone()) };
        let before = (JobV5::from(job.clone()), vec![1_u64], Vec::<DeliveryId>::new(), false);
        let mut writes = Writes::from([(keys::SCHEMA.to_vec(), Some(5_u32.to_be_bytes().to_vec()))]);
        writes.insert(keys::job(job.id), Some(postcard::to_extend(&before, vec![5]).unwrap()));
        writes.extend(record.index().into_iter().map(|key| (key, Some(Vec::new()))));
        let event = (
            EventId::new(at(1), &[7; 10]),
            1_u64,
            EventKind::JobQueued,
            at(1).as_millisecond(),
            "http://a",
            0_u8,
            JobV5::from(job.snapshot()),
        );
        let event = postcard::to_extend(&event, vec![4]).unwrap();
        let length = u16::try_from(event.len()).unwrap().to_be_bytes();
        writes.insert(log::key_of(1), Some([log::EMPTY, &[1], &length, &event].concat()));
        engine.commit(writes).unwrap();
        drop(engine);

        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert_eq!(engine.get_raw(keys::SCHEMA).unwrap().unwrap().as_ref(), 7_u32.to_be_bytes());
        assert_eq!(engine.get::<JobRecord>(&keys::job(job.id)).unwrap(), Some(record));
        assert_eq!(engine.get_raw(&keys::job(job.id)).unwrap().unwrap()[0], 5);
        let events = super::super::jobs::events_of(&engine, job.id, 0, 99).unwrap();
        let subjects: Vec<_> = events.into_iter().map(|event| event.subject).collect();
        assert_eq!(subjects, [Subject::Job(Box::new(job.snapshot()))]);
        assert_eq!(audit(&engine).faults, Vec::<String>::new());
    }
}
