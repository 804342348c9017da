//! How a value is written (one byte for its layout's version, then postcard), and by which keys it is found.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keys::{self, DueClass, Key};
use super::layouts::{EventV2, EventV3, EventV4, JobRecordV5};
use crate::domain::audit::AuditEntry;
use crate::domain::client::Client;
use crate::domain::delivery::{Attempt, Delivery, DeliveryState};
use crate::domain::destination::Destination;
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, JobId, ReplayId};
use crate::domain::job::{Job, JobStatus};
use crate::domain::replay::{Replay, ReplayItem, ReplayState};
use crate::domain::rotation::ClientSecrets;
use crate::domain::secret::Keyring;
use crate::store::{Garbage, Ledger, Paused, StoreError};

/// The largest value that is safe. sled moves a leaf that exceeds a quarter of a segment to a file
/// that it never syncs; a leaf has up to 17 entries: 8 MiB / 4 / 17 = 123 KiB, and half of that is left
/// for the engine's own framing.
pub(super) const MAX_BYTES: usize = 60 * 1024;

/// What is kept as a value. The version of its layout is the value's first byte: a change of the type raises it,
/// and [`super::upgrade`] learns the older one.
pub(super) trait Record: Serialize + DeserializeOwned {
    const VERSION: u8;

    /// Reads an older layout, where records of it are left as they are.
    fn older(_version: u8, _record: &[u8]) -> Option<Result<Self, postcard::Error>> {
        None
    }
}

impl Record for JobRecord {
    const VERSION: u8 = 6;

    // So that an upgrade need not write every job anew.
    fn older(version: u8, record: &[u8]) -> Option<Result<Self, postcard::Error>> {
        (version == 5).then(|| postcard::from_bytes::<JobRecordV5>(record).map(Self::from))
    }
}

impl Record for Event {
    const VERSION: u8 = 5;

    // Events are many, and each is right where it lies.
    fn older(version: u8, record: &[u8]) -> Option<Result<Self, postcard::Error>> {
        match version {
            2 => Some(postcard::from_bytes::<EventV2>(record).map(Self::from)),
            3 => Some(postcard::from_bytes::<EventV3>(record).map(Self::from)),
            4 => Some(postcard::from_bytes::<EventV4>(record).map(Self::from)),
            _ => None,
        }
    }
}

impl Record for DeliveryRecord {
    const VERSION: u8 = 2;
}

impl Record for Attempt {
    const VERSION: u8 = 2;
}

impl Record for Destination {
    const VERSION: u8 = 1;
}

impl Record for Replay {
    const VERSION: u8 = 3;

    // Version 1 ended before `taken_over`, version 2 before `only`; both are 0 there.
    fn older(version: u8, record: &[u8]) -> Option<Result<Self, postcard::Error>> {
        let missing: &[u8] = match version {
            1 => &[0, 0],
            2 => &[0],
            _ => return None,
        };
        Some(postcard::from_bytes(&[record, missing].concat()))
    }
}

impl Record for ReplayItem {
    const VERSION: u8 = 1;
}

impl Record for ReplayKey {
    const VERSION: u8 = 1;
}

/// What an idempotency key of a replay stands for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ReplayKey {
    pub(super) replay: ReplayId,
    pub(super) fingerprint: [u8; 32],
}

impl Indexed for Replay {
    type Id = ReplayId;

    fn key(id: ReplayId) -> Key {
        keys::replay(id)
    }

    fn id(&self) -> ReplayId {
        self.id
    }

    fn index(&self) -> Vec<Key> {
        let takes = self.state == ReplayState::Running && !self.is_at_end;
        takes.then(|| keys::replay_running(self.id)).into_iter().collect()
    }
}

impl Record for Ledger {
    const VERSION: u8 = 1;
}

impl Record for Garbage {
    const VERSION: u8 = 1;
}

impl Record for Paused {
    const VERSION: u8 = 1;
}

impl Record for ClientSecrets {
    const VERSION: u8 = 1;
}

impl Record for Client {
    const VERSION: u8 = 1;
}

impl Record for AuditEntry {
    const VERSION: u8 = 1;
}

impl Record for Keyring {
    const VERSION: u8 = 1;
}

/// The last `seq`.
impl Record for u64 {
    const VERSION: u8 = 1;
}

/// A record whose index entries follow from it.
pub(super) trait Indexed: Record + Clone {
    type Id: Copy;

    /// Where it is kept.
    fn key(id: Self::Id) -> Key;

    fn id(&self) -> Self::Id;

    /// The keys by which it is found.
    fn index(&self) -> Vec<Key>;
}

/// A job, and where the rest of its story is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JobRecord {
    pub(super) job: Job,
    /// Its first events, by their places in the log, in order.
    pub(super) events: Vec<u64>,
    /// Its first deliveries.
    pub(super) deliveries: Vec<DeliveryId>,
    /// Whether its purge has begun: whoever asks for it finds nothing, as a part of its story may be gone.
    pub(super) is_going: bool,
}

impl JobRecord {
    /// Events and deliveries that are noted here: those of a job that went as jobs do, at a fraction of what keys of
    /// their own cost. What more there is, when somebody goes on retrying it, has an entry of the index each.
    pub(super) const NOTED: usize = 64;

    pub(super) fn new(job: Job) -> Self {
        Self { job, events: Vec::new(), deliveries: Vec::new(), is_going: false }
    }

    /// Notes an event. The latest is given back when there are too many: it needs an entry.
    #[must_use]
    pub(super) fn note_event(&mut self, seq: u64) -> Option<u64> {
        if let Err(place) = self.events.binary_search(&seq) {
            self.events.insert(place, seq);
        }
        if self.events.len() > Self::NOTED { self.events.pop() } else { None }
    }

    /// Notes a delivery; not when there are too many: it needs an entry.
    #[must_use]
    pub(super) fn note_delivery(&mut self, id: DeliveryId) -> bool {
        let has_room = self.deliveries.len() < Self::NOTED;
        if has_room {
            self.deliveries.push(id);
        }
        has_room
    }
}

impl Indexed for JobRecord {
    type Id = JobId;

    fn key(id: JobId) -> Key {
        keys::job(id)
    }

    fn id(&self) -> JobId {
        self.job.id
    }

    fn index(&self) -> Vec<Key> {
        let job = &self.job;
        let (id, client) = (job.id, &job.client);
        if self.is_going {
            return job.purge_at.map(|at| keys::job_purge(at, id)).into_iter().collect();
        }
        let list = |status| keys::job_list(client, job.deleted_at.is_some(), status, id);
        let mut index = vec![list(None)];
        // Those that are ready are found in the queue, and the few that are being processed by their leases.
        let awaits = job.awaits();
        let is_queued = job.status == JobStatus::Queued;
        let is_in_list = job.status.is_terminal() || is_queued && (job.due_at.is_some() || awaits.is_some());
        index.extend(is_in_list.then(|| list(Some(job.status))));
        index.extend(job.tags.iter().map(|tag| keys::job_tag(client, tag, id)));
        match (job.status, job.due_at) {
            (JobStatus::Queued, Some(due)) => index.push(keys::job_waits(due, awaits.is_some(), id)),
            (JobStatus::Queued, None) => index.push(match awaits {
                Some(source) => keys::job_fetch(source, job.priority, id),
                None => keys::job_ready(client, job.priority, id),
            }),
            _ => {}
        }
        if let Some(lease) = job.lease {
            index.push(keys::job_lease(lease.until, id));
        }
        if job.status.is_terminal() {
            index.extend(job.purge_at.map(|at| keys::job_purge(at, id)));
        } else {
            index.extend(job.deadline_at.map(|at| keys::job_deadline(at, id)));
        }
        index
    }
}

/// A delivery with its first attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct DeliveryRecord {
    pub(super) delivery: Delivery,
    /// As they are written by themselves. Most deliveries have one, which then is no entry of its own.
    attempts: Vec<Vec<u8>>,
}

impl DeliveryRecord {
    /// How much of its attempts is noted here, in bytes: more would be written anew with each further attempt.
    const NOTED_BYTES: usize = 2 * 1024;

    pub(super) fn new(delivery: Delivery) -> Self {
        Self { delivery, attempts: Vec::new() }
    }

    /// Notes an attempt; not when it is too long, or earlier ones were: it needs an entry.
    pub(super) fn note_attempt(&mut self, attempt: &Attempt) -> Result<bool, StoreError> {
        let bytes = encode(attempt)?;
        let noted: usize = self.attempts.iter().map(Vec::len).sum();
        let is_next = self.attempts.len() == self.delivery.attempt_count as usize;
        let has_room = is_next && noted + bytes.len() <= Self::NOTED_BYTES;
        if has_room {
            self.attempts.push(bytes);
        }
        Ok(has_room)
    }

    /// The attempts that are noted here.
    pub(super) fn attempts(&self) -> Result<Vec<Attempt>, StoreError> {
        self.attempts.iter().map(|bytes| decode(bytes)).collect()
    }

    /// How many are.
    pub(super) fn noted(&self) -> usize {
        self.attempts.len()
    }
}

impl Indexed for DeliveryRecord {
    type Id = DeliveryId;

    fn key(id: DeliveryId) -> Key {
        keys::delivery(id)
    }

    fn id(&self) -> DeliveryId {
        self.delivery.id
    }

    fn index(&self) -> Vec<Key> {
        let delivery = &self.delivery;
        match (delivery.state, delivery.next_attempt_at) {
            (DeliveryState::Pending, Some(due)) => {
                let class = if delivery.is_first() { DueClass::First } else { DueClass::Retry };
                let due = keys::delivery_due(delivery.destination_id(), class, due, delivery.id);
                // One that never failed is found by its destination; this entry would be one more for each.
                let retrying = (class == DueClass::Retry).then(|| keys::delivery_retrying(delivery.id));
                retrying.into_iter().chain([due]).collect()
            }
            (DeliveryState::Exhausted, _) => vec![keys::delivery_exhausted(delivery.id)],
            _ => Vec::new(),
        }
    }
}

impl Record for IdempotencyRecord {
    const VERSION: u8 = 1;
}

/// What an idempotency key stands for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IdempotencyRecord {
    pub(super) job: JobId,
    pub(super) fingerprint: [u8; 32],
}

pub(super) fn encode<R: Record>(value: &R) -> Result<Vec<u8>, StoreError> {
    let bytes =
        postcard::to_extend(value, vec![R::VERSION]).map_err(|error| StoreError::Engine(error.into()))?;
    if bytes.len() > MAX_BYTES {
        return Err(StoreError::RecordTooLarge { bytes: bytes.len(), limit: MAX_BYTES });
    }
    Ok(bytes)
}

pub(super) fn decode<R: Record>(bytes: &[u8]) -> Result<R, StoreError> {
    match bytes.split_first() {
        Some((version, record)) if *version == R::VERSION => {
            postcard::from_bytes(record).map_err(|error| StoreError::Corrupt(error.to_string()))
        }
        Some((version, record)) => match R::older(*version, record) {
            Some(older) => older.map_err(|error| StoreError::Corrupt(error.to_string())),
            None => Err(StoreError::Corrupt(format!("unknown record version {version}"))),
        },
        None => Err(StoreError::Corrupt("empty record".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::{at, new_job};

    #[test]
    fn a_job_reads_back() {
        let mut job = JobRecord::new(Job::accepted(new_job(3), at(9)));
        assert_eq!((job.note_event(7), job.note_event(8)), (None, None));
        let bytes = encode(&job).unwrap();
        assert_eq!(decode::<JobRecord>(&bytes).unwrap(), job);
        assert!(bytes.len() < 300, "a plain job takes {} bytes", bytes.len());
    }

    #[test]
    fn the_first_events_are_noted_in_whatever_order_they_come() {
        let mut job = JobRecord::new(Job::accepted(new_job(3), at(9)));
        for seq in (1..=64).rev() {
            assert_eq!(job.note_event(2 * seq), None);
        }
        assert_eq!((job.note_event(200), job.note_event(2), job.note_event(3)), (Some(200), None, Some(128)));
        assert_eq!((job.events.len(), job.events[..3].to_vec()), (JobRecord::NOTED, vec![2, 3, 4]));
    }

    #[test]
    fn damage_and_excess_are_errors() {
        let bytes = encode(&JobRecord::new(Job::accepted(new_job(3), at(9)))).unwrap();
        assert!(matches!(decode::<JobRecord>(&bytes[..20]), Err(StoreError::Corrupt(_))));
        assert!(matches!(decode::<JobRecord>(&[]), Err(StoreError::Corrupt(_))));
        let newer = [&[JobRecord::VERSION + 1], &bytes[1..]].concat();
        assert!(matches!(decode::<JobRecord>(&newer), Err(StoreError::Corrupt(_))));
        let huge = Garbage { job: JobId::from_bytes([0; 16]), names: vec!["a".repeat(MAX_BYTES)] };
        assert!(matches!(encode(&huge), Err(StoreError::RecordTooLarge { .. })));
    }
}
