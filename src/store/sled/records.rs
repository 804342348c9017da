//! How a value is written (one byte for its layout's version, then postcard), and by which keys it is found.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::keys::{self, Key};
use crate::domain::delivery::{Attempt, Delivery};
use crate::domain::event::Event;
use crate::domain::id::{DeliveryId, JobId};
use crate::domain::job::{Job, JobStatus};
use crate::store::{Garbage, Paused, StoreError};

/// The largest value that is safe. sled moves a leaf that exceeds a quarter of a segment to a file
/// that it never syncs; a leaf has up to 17 entries: 8 MiB / 4 / 17 = 123 KiB, and half of that is left
/// for the engine's own framing.
pub(super) const MAX_BYTES: usize = 60 * 1024;

/// What is kept as a value. The version of its layout is the value's first byte: a change of the type raises it,
/// and [`super::upgrade`] learns the older one.
pub(super) trait Record: Serialize + DeserializeOwned {
    const VERSION: u8;
}

impl Record for Job {
    const VERSION: u8 = 2;
}

impl Record for Event {
    const VERSION: u8 = 2;
}

impl Record for Delivery {
    const VERSION: u8 = 1;
}

impl Record for Attempt {
    const VERSION: u8 = 1;
}

impl Record for Garbage {
    const VERSION: u8 = 1;
}

impl Record for Paused {
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

impl Indexed for Job {
    type Id = JobId;

    fn key(id: JobId) -> Key {
        keys::job(id)
    }

    fn id(&self) -> JobId {
        self.id
    }

    fn index(&self) -> Vec<Key> {
        let (id, client) = (self.id, &self.client);
        let list = |status| keys::job_list(client, self.deleted_at.is_some(), status, id);
        let mut index = vec![list(None), list(Some(self.status))];
        index.extend(self.tags.iter().map(|tag| keys::job_tag(client, tag, id)));
        match (self.status, self.due_at) {
            (JobStatus::Queued, Some(due)) => index.push(keys::job_waits(due, id)),
            (JobStatus::Queued, None) => index.push(keys::job_ready(client, self.priority, id)),
            _ => {}
        }
        if let Some(lease) = self.lease {
            index.push(keys::job_lease(lease.until, id));
        }
        if self.status.is_terminal() {
            index.extend(self.purge_at.map(|at| keys::job_purge(at, id)));
        } else {
            index.extend(self.deadline_at.map(|at| keys::job_deadline(at, id)));
        }
        index
    }
}

impl Indexed for Delivery {
    type Id = DeliveryId;

    fn key(id: DeliveryId) -> Key {
        keys::delivery(id)
    }

    fn id(&self) -> DeliveryId {
        self.id
    }

    fn index(&self) -> Vec<Key> {
        let mut index = vec![keys::delivery_of_job(self.job_id, self.id)];
        match (self.lease, self.next_attempt_at) {
            (Some(lease), _) => index.push(keys::delivery_lease(lease.until, self.id)),
            (None, Some(due)) => index.push(keys::delivery_due(due, self.id)),
            (None, None) => {}
        }
        index
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
        Some((version, _)) => Err(StoreError::Corrupt(format!("unknown record version {version}"))),
        None => Err(StoreError::Corrupt("empty record".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::{at, new_job};

    #[test]
    fn a_job_reads_back() {
        let job = Job::accepted(new_job(3), at(9));
        let bytes = encode(&job).unwrap();
        assert_eq!(decode::<Job>(&bytes).unwrap(), job);
        assert!(bytes.len() < 300, "a plain job takes {} bytes", bytes.len());
    }

    #[test]
    fn damage_and_excess_are_errors() {
        let bytes = encode(&Job::accepted(new_job(3), at(9))).unwrap();
        assert!(matches!(decode::<Job>(&bytes[..20]), Err(StoreError::Corrupt(_))));
        assert!(matches!(decode::<Job>(&[]), Err(StoreError::Corrupt(_))));
        let newer = [&[Job::VERSION + 1], &bytes[1..]].concat();
        assert!(matches!(decode::<Job>(&newer), Err(StoreError::Corrupt(_))));
        let huge = Garbage { job: JobId::from_bytes([0; 16]), names: vec!["a".repeat(MAX_BYTES)] };
        assert!(matches!(encode(&huge), Err(StoreError::RecordTooLarge { .. })));
    }
}
