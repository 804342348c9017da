//! Every byte layout of a key: one tree, a prefix byte that names the kind, numbers big-endian,
//! so that the order of keys is the order in which they are read.

use std::ops::Range;

use jiff::Timestamp;

use crate::domain::client::ClientId;
use crate::domain::id::{DeliveryId, JobId};
use crate::domain::job::JobStatus;
use crate::store::StoreError;

/// A key's bytes.
pub(super) type Key = Vec<u8>;

/// The version of all these layouts and of the records.
pub(super) const SCHEMA: &[u8] = b"m/schema";

pub(super) const JOB: u8 = b'j';
pub(super) const JOB_BY_STATUS: u8 = b's';
pub(super) const JOB_QUEUE: u8 = b'q';
pub(super) const JOB_LEASE: u8 = b'l';
pub(super) const IDEMPOTENCY: u8 = b'i';
pub(super) const EVENT: u8 = b'e';
pub(super) const DELIVERY: u8 = b'd';
pub(super) const DELIVERY_OF_JOB: u8 = b'o';
pub(super) const DELIVERY_DUE: u8 = b'p';
pub(super) const DELIVERY_LEASE: u8 = b'x';
pub(super) const ATTEMPT: u8 = b'a';

fn key(prefix: u8, parts: &[&[u8]]) -> Key {
    let mut key = vec![prefix];
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// Milliseconds since 1970, before which nothing is due.
fn time(at: Timestamp) -> [u8; 8] {
    u64::try_from(at.as_millisecond()).unwrap_or(0).to_be_bytes()
}

pub(super) fn job(id: JobId) -> Key {
    key(JOB, &[id.as_bytes()])
}

pub(super) fn job_by_status(status: JobStatus, id: JobId) -> Key {
    key(JOB_BY_STATUS, &[&[status_byte(status)], id.as_bytes()])
}

pub(super) fn job_queue(due: Timestamp, id: JobId) -> Key {
    key(JOB_QUEUE, &[&time(due), id.as_bytes()])
}

pub(super) fn job_lease(until: Timestamp, id: JobId) -> Key {
    key(JOB_LEASE, &[&time(until), id.as_bytes()])
}

/// The client's length goes first, so that no client's keys can be read as another's.
pub(super) fn idempotency(client: &ClientId, client_key: &str) -> Key {
    let client = client.as_str().as_bytes();
    key(IDEMPOTENCY, &[&client.len().to_be_bytes(), client, client_key.as_bytes()])
}

pub(super) fn event(seq: u64) -> Key {
    key(EVENT, &[&seq.to_be_bytes()])
}

pub(super) fn delivery(id: DeliveryId) -> Key {
    key(DELIVERY, &[id.as_bytes()])
}

pub(super) fn delivery_of_job(job: JobId, id: DeliveryId) -> Key {
    key(DELIVERY_OF_JOB, &[job.as_bytes(), id.as_bytes()])
}

pub(super) fn delivery_due(due: Timestamp, id: DeliveryId) -> Key {
    key(DELIVERY_DUE, &[&time(due), id.as_bytes()])
}

pub(super) fn delivery_lease(until: Timestamp, id: DeliveryId) -> Key {
    key(DELIVERY_LEASE, &[&time(until), id.as_bytes()])
}

pub(super) fn attempt(delivery: DeliveryId, number: u32) -> Key {
    key(ATTEMPT, &[delivery.as_bytes(), &number.to_be_bytes()])
}

fn status_byte(status: JobStatus) -> u8 {
    match status {
        JobStatus::Queued => 0,
        JobStatus::Processing => 1,
        JobStatus::Completed => 2,
        JobStatus::Failed => 3,
    }
}

/// All keys that begin with `prefix`.
pub(super) fn all(prefix: u8) -> Range<Key> {
    vec![prefix]..vec![prefix + 1]
}

/// The keys of the kind `prefix` whose time is `now` or earlier.
pub(super) fn due(prefix: u8, now: Timestamp) -> Range<Key> {
    let after = u64::try_from(now.as_millisecond()).unwrap_or(0).saturating_add(1);
    vec![prefix]..key(prefix, &[&after.to_be_bytes()])
}

/// All jobs, or all that stand at `status`, older than `before`.
pub(super) fn jobs(status: Option<JobStatus>, before: Option<JobId>) -> Range<Key> {
    let first = match status {
        Some(status) => vec![JOB_BY_STATUS, status_byte(status)],
        None => vec![JOB],
    };
    // No id is above sixteen 0xff, and the seventeenth puts the end behind that one too.
    let end = match before {
        Some(id) => [first.as_slice(), id.as_bytes()].concat(),
        None => [first.as_slice(), &[0xff; 17]].concat(),
    };
    first..end
}

pub(super) fn events_after(seq: u64) -> Range<Key> {
    event(seq.saturating_add(1))..vec![EVENT + 1]
}

pub(super) fn deliveries_of(job: JobId) -> Range<Key> {
    key(DELIVERY_OF_JOB, &[job.as_bytes()])..key(DELIVERY_OF_JOB, &[job.as_bytes(), &[0xff; 17]])
}

pub(super) fn attempts_of(delivery: DeliveryId) -> Range<Key> {
    attempt(delivery, 0)..key(ATTEMPT, &[delivery.as_bytes(), &[0xff; 5]])
}

/// The 16 bytes of the id that ends a key.
pub(super) fn last_id(key: &[u8]) -> Result<[u8; 16], StoreError> {
    key.last_chunk().copied().ok_or_else(|| StoreError::Corrupt("an index entry without an id".to_owned()))
}

/// The time that follows the prefix.
pub(super) fn time_of(key: &[u8]) -> Option<Timestamp> {
    let millis = u64::from_be_bytes(*key.get(1..)?.first_chunk()?);
    Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()
}

/// The number that follows the prefix of an event's key.
pub(super) fn seq_of(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn what_is_due_includes_now_and_nothing_later() {
        let id = JobId::new(at(1), &[0xff; 10]);
        let range = due(JOB_QUEUE, at(1000));
        assert!(range.contains(&job_queue(at(0), id)));
        assert!(range.contains(&job_queue(at(1000), id)));
        assert!(!range.contains(&job_queue(at(1001), JobId::from_bytes([0; 16]))));
        assert_eq!(time_of(&job_queue(at(1000), id)), Some(at(1000)));
        assert_eq!(last_id(&job_queue(at(1000), id)).unwrap(), *id.as_bytes());
    }

    #[test]
    fn a_page_ends_before_its_cursor_and_within_its_status() {
        let (old, new) = (JobId::new(at(1), &[0; 10]), JobId::new(at(2), &[0; 10]));
        assert!(jobs(None, Some(new)).contains(&job(old)));
        assert!(!jobs(None, Some(new)).contains(&job(new)));
        let failed = jobs(Some(JobStatus::Failed), None);
        assert!(failed.contains(&job_by_status(JobStatus::Failed, JobId::from_bytes([0xff; 16]))));
        assert!(!failed.contains(&job_by_status(JobStatus::Completed, old)));
        assert!(jobs(Some(JobStatus::Queued), Some(new)).contains(&job_by_status(JobStatus::Queued, old)));
    }

    #[test]
    fn a_record_ids_range_holds_its_own_and_no_others() {
        let (one, two) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        let last = DeliveryId::from_bytes([0xff; 16]);
        assert!(deliveries_of(one).contains(&delivery_of_job(one, last)));
        assert!(!deliveries_of(one).contains(&delivery_of_job(two, last)));
        assert!(attempts_of(last).contains(&attempt(last, u32::MAX)));
        assert!(events_after(6).contains(&event(7)) && !events_after(6).contains(&event(6)));
    }
}
