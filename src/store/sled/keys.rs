//! Every byte layout of a key: one tree, a prefix byte that names the kind, numbers big-endian,
//! so that the order of keys is the order in which they are read.

use std::ops::Range;

use jiff::Timestamp;

use crate::domain::client::ClientId;
use crate::domain::id::{AuditId, DeliveryId, DestinationId, JobId, ReplayId};
use crate::domain::job::{JobStatus, Priority};
use crate::store::StoreError;

/// A key's bytes.
pub(super) type Key = Vec<u8>;

/// The version of all these layouts and of the records.
pub(super) const SCHEMA: &[u8] = b"m/schema";
/// The last place in the event log that was given away, for when the events themselves are purged.
pub(super) const LAST_SEQ: &[u8] = b"m/seq";
/// What is paused.
pub(super) const PAUSED: &[u8] = b"m/paused";
/// How many deliveries there are, by where they stand.
pub(super) const LEDGER: &[u8] = b"m/ledger";
/// The keys of the service.
pub(super) const KEYRING: &[u8] = b"m/keyring";

pub(super) const JOB: u8 = b'j';
pub(super) const JOB_LIST: u8 = b'n';
pub(super) const JOB_TAG: u8 = b't';
pub(super) const JOB_READY: u8 = b'q';
pub(super) const JOB_FETCH: u8 = b'F';
pub(super) const JOB_WAITS: u8 = b'w';
pub(super) const JOB_LEASE: u8 = b'l';
pub(super) const JOB_DEADLINE: u8 = b'h';
pub(super) const JOB_PURGE: u8 = b'g';
pub(super) const GARBAGE: u8 = b'b';
pub(super) const IDEMPOTENCY: u8 = b'i';
pub(super) const EVENTS: u8 = b'v';
pub(super) const LONG_EVENT: u8 = b'f';
pub(super) const EVENT_OF_JOB: u8 = b'k';
pub(super) const DELIVERY: u8 = b'd';
pub(super) const DELIVERY_OF_JOB: u8 = b'o';
pub(super) const DELIVERY_DUE: u8 = b'u';
pub(super) const DELIVERY_RETRYING: u8 = b'y';
pub(super) const DELIVERY_EXHAUSTED: u8 = b'c';
pub(super) const DESTINATION: u8 = b'D';
pub(super) const EVENT_PURGE: u8 = b'E';
pub(super) const REPLAY: u8 = b'R';
pub(super) const REPLAY_KEY: u8 = b'K';
pub(super) const REPLAY_RUNNING: u8 = b'Q';
pub(super) const REPLAY_ITEM: u8 = b'I';
pub(super) const ATTEMPT: u8 = b'a';
pub(super) const SECRETS: u8 = b'S';
pub(super) const CLIENT: u8 = b'C';
pub(super) const ACTION: u8 = b'A';
pub(super) const SET_ASIDE: u8 = b'z';

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

/// A text with its length in front, so that none is the beginning of another. Longer ones than 255 bytes are
/// cut: whoever reads the record sees whether it is the right one.
fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut bytes = vec![length];
    bytes.extend_from_slice(&text.as_bytes()[..usize::from(length)]);
    bytes
}

/// By client, deleted or not, and status; then the newest last. Those of any status have a list of their own: several
/// that are read one after another miss a job that moves from one to another meanwhile, or have it twice.
pub(super) fn job_list(client: &ClientId, deleted: bool, status: Option<JobStatus>, id: JobId) -> Key {
    [job_list_prefix(client, deleted, status).as_slice(), id.as_bytes()].concat()
}

/// What the keys of one list begin with.
pub(super) fn job_list_prefix(client: &ClientId, deleted: bool, status: Option<JobStatus>) -> Key {
    key(JOB_LIST, &[&text(client.as_str()), &[u8::from(deleted), status.map_or(ANY_STATUS, status_byte)]])
}

pub(super) fn job_tag(client: &ClientId, tag: &str, id: JobId) -> Key {
    [job_tag_prefix(client, tag).as_slice(), id.as_bytes()].concat()
}

pub(super) fn job_tag_prefix(client: &ClientId, tag: &str) -> Key {
    key(JOB_TAG, &[&text(client.as_str()), &text(tag)])
}

/// The queue: each client has its own stretch, in which priority and then age decide.
pub(super) fn job_ready(client: &ClientId, priority: Priority, id: JobId) -> Key {
    [job_ready_prefix(client, priority).as_slice(), id.as_bytes()].concat()
}

pub(super) fn job_ready_prefix(client: &ClientId, priority: Priority) -> Key {
    key(JOB_READY, &[&text(client.as_str()), &[priority_byte(priority)]])
}

/// The end of the stretch of the queue that `ready`, a key of it, lies in.
pub(super) fn end_of_turn(ready: &[u8]) -> Key {
    let length = ready.get(1).copied().map_or(0, usize::from);
    let mut end: Key = ready.iter().copied().take(2 + length).collect();
    // Above every priority.
    end.push(u8::MAX);
    end
}

/// What waits to be fetched: each source has its own stretch, in which priority and then age decide.
pub(super) fn job_fetch(source: DestinationId, priority: Priority, id: JobId) -> Key {
    key(JOB_FETCH, &[source.as_bytes(), &[priority_byte(priority)], id.as_bytes()])
}

/// The source that a key of `job_fetch` is of.
pub(super) fn source_of(fetch: &[u8]) -> Option<DestinationId> {
    Some(DestinationId::from_bytes(*fetch.get(1..)?.first_chunk()?))
}

/// The end of a source's stretch.
pub(super) fn end_of_source(source: DestinationId) -> Key {
    // Above every priority.
    key(JOB_FETCH, &[source.as_bytes(), &[u8::MAX]])
}

/// One whose picture is still to be fetched has a byte more, by which it is counted as such.
pub(super) fn job_waits(due: Timestamp, is_elsewhere: bool, id: JobId) -> Key {
    let mark: &[u8] = if is_elsewhere { &[JOB_FETCH] } else { &[] };
    key(JOB_WAITS, &[&time(due), mark, id.as_bytes()])
}

/// Whether the picture of a waiting job is still to be fetched.
pub(super) fn is_to_be_fetched(key: &[u8]) -> bool {
    match key.first() {
        Some(&JOB_WAITS) => key.len() > 1 + 8 + 16,
        first => first == Some(&JOB_FETCH),
    }
}

pub(super) fn job_lease(until: Timestamp, id: JobId) -> Key {
    key(JOB_LEASE, &[&time(until), id.as_bytes()])
}

pub(super) fn job_deadline(at: Timestamp, id: JobId) -> Key {
    key(JOB_DEADLINE, &[&time(at), id.as_bytes()])
}

pub(super) fn job_purge(at: Timestamp, id: JobId) -> Key {
    key(JOB_PURGE, &[&time(at), id.as_bytes()])
}

/// The secrets of a client.
pub(super) fn secrets(client: &ClientId) -> Key {
    key(SECRETS, &[client.as_str().as_bytes()])
}

pub(super) fn action(id: AuditId) -> Key {
    key(ACTION, &[id.as_bytes()])
}

pub(super) fn client(name: &ClientId) -> Key {
    key(CLIENT, &[name.as_str().as_bytes()])
}

/// Where an entry of a queue goes whose record cannot be used.
pub(super) fn set_aside(entry: &[u8]) -> Key {
    key(SET_ASIDE, &[entry])
}

pub(super) fn garbage(job: JobId) -> Key {
    key(GARBAGE, &[job.as_bytes()])
}

/// The client's length goes first, so that no client's keys can be read as another's.
pub(super) fn idempotency(client: &ClientId, client_key: &str) -> Key {
    let client = client.as_str().as_bytes();
    key(IDEMPOTENCY, &[&client.len().to_be_bytes(), client, client_key.as_bytes()])
}

/// What the client chose, of a key that `idempotency` made for it.
pub(super) fn client_key_of(key: &[u8], client: &ClientId) -> Option<String> {
    let prefix = idempotency(client, "");
    key.strip_prefix(prefix.as_slice()).and_then(|text| String::from_utf8(text.to_vec()).ok())
}

/// Whose key it is and what the client chose, of a key that `idempotency` made.
pub(super) fn client_and_key_of(key: &[u8]) -> Option<(ClientId, String)> {
    let (length, rest) = key.get(1..)?.split_first_chunk()?;
    let (client, client_key) = rest.split_at_checked(usize::from_be_bytes(*length))?;
    let client = std::str::from_utf8(client).ok()?.parse().ok()?;
    Some((client, String::from_utf8(client_key.to_vec()).ok()?))
}

/// The group that an event lies in; [`super::log`] says how many make one.
pub(super) fn events(group: u64) -> Key {
    key(EVENTS, &[&group.to_be_bytes()])
}

pub(super) fn long_event(seq: u64) -> Key {
    key(LONG_EVENT, &[&seq.to_be_bytes()])
}

pub(super) fn event_of_job(job: JobId, seq: u64) -> Key {
    key(EVENT_OF_JOB, &[job.as_bytes(), &seq.to_be_bytes()])
}

pub(super) fn delivery(id: DeliveryId) -> Key {
    key(DELIVERY, &[id.as_bytes()])
}

pub(super) fn delivery_of_job(job: JobId, id: DeliveryId) -> Key {
    key(DELIVERY_OF_JOB, &[job.as_bytes(), id.as_bytes()])
}

/// What waits, by destination; of each, first attempts and then retries; then by due time.
pub(super) fn delivery_due(
    destination: DestinationId,
    class: DueClass,
    due: Timestamp,
    id: DeliveryId,
) -> Key {
    key(DELIVERY_DUE, &[destination.as_bytes(), &[class as u8], &time(due), id.as_bytes()])
}

/// What of it goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DueClass {
    First = 0,
    Retry = 1,
}

pub(super) fn delivery_retrying(id: DeliveryId) -> Key {
    key(DELIVERY_RETRYING, &[id.as_bytes()])
}

pub(super) fn delivery_exhausted(id: DeliveryId) -> Key {
    key(DELIVERY_EXHAUSTED, &[id.as_bytes()])
}

pub(super) fn destination(id: DestinationId) -> Key {
    key(DESTINATION, &[id.as_bytes()])
}

pub(super) fn replay(id: ReplayId) -> Key {
    key(REPLAY, &[id.as_bytes()])
}

pub(super) fn replay_running(id: ReplayId) -> Key {
    key(REPLAY_RUNNING, &[id.as_bytes()])
}

pub(super) fn replay_item(id: ReplayId, number: u64) -> Key {
    key(REPLAY_ITEM, &[id.as_bytes(), &number.to_be_bytes()])
}

pub(super) fn replay_items_end(id: ReplayId) -> Key {
    key(REPLAY_ITEM, &[id.as_bytes(), &[0xff; 9]])
}

/// Like those of jobs.
pub(super) fn replay_key(client: &ClientId, client_key: &str) -> Key {
    let mut key = idempotency(client, client_key);
    key[0] = REPLAY_KEY;
    key
}

/// An event that belongs to no job.
pub(super) fn event_purge(at: Timestamp, seq: u64) -> Key {
    key(EVENT_PURGE, &[&time(at), &seq.to_be_bytes()])
}

/// What waits of one class of a destination, the earliest due first.
pub(super) fn due_of(destination: DestinationId, class: DueClass) -> Range<Key> {
    let prefix = |class: u8| key(DELIVERY_DUE, &[destination.as_bytes(), &[class]]);
    prefix(class as u8)..prefix(class as u8 + 1)
}

/// The destination, the class and the due time in a key of `delivery_due`.
pub(super) fn due_parts(key: &[u8]) -> Option<(DestinationId, u8, Timestamp)> {
    let (destination, rest) = key.get(1..)?.split_first_chunk()?;
    let (&class, rest) = rest.split_first()?;
    let millis = u64::from_be_bytes(*rest.first_chunk()?);
    let due = Timestamp::from_millisecond(i64::try_from(millis).ok()?).ok()?;
    Some((DestinationId::from_bytes(*destination), class, due))
}

/// What waits of the destinations behind this one.
pub(super) fn due_behind(destination: DestinationId) -> Range<Key> {
    key(DELIVERY_DUE, &[destination.as_bytes(), &[u8::MAX]])..vec![DELIVERY_DUE + 1]
}

/// The keys that are `prefix` and an id made from `since` to before `until`.
pub(super) fn made_between(prefix: u8, since: Option<Timestamp>, until: Option<Timestamp>) -> Range<Key> {
    // The first 48 bits of an id are its milliseconds.
    let at = |at: Timestamp| key(prefix, &[&time(at)[2..]]);
    since.map_or_else(|| vec![prefix], at)..until.map_or_else(|| vec![prefix + 1], at)
}

pub(super) fn attempt(delivery: DeliveryId, number: u32) -> Key {
    key(ATTEMPT, &[delivery.as_bytes(), &number.to_be_bytes()])
}

/// In the place of a status.
const ANY_STATUS: u8 = u8::MAX;

fn status_byte(status: JobStatus) -> u8 {
    match status {
        JobStatus::Queued => 0,
        JobStatus::Processing => 1,
        JobStatus::Completed => 2,
        JobStatus::Failed => 3,
        JobStatus::Cancelled => 4,
    }
}

fn priority_byte(priority: Priority) -> u8 {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
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

/// The keys that are `prefix` and an id from `first` to before `end`.
pub(super) fn ids(prefix: &[u8], first: Option<JobId>, end: Option<JobId>) -> Range<Key> {
    let from = [prefix, first.as_ref().map_or(&[][..], |id| id.as_bytes())].concat();
    // No id is above sixteen 0xff, and the seventeenth puts the end behind that one too.
    let to = [prefix, end.as_ref().map_or(&[0xff; 17][..], |id| id.as_bytes())].concat();
    from..to
}

pub(super) fn events_of(job: JobId, after: u64) -> Range<Key> {
    event_of_job(job, after.saturating_add(1))..key(EVENT_OF_JOB, &[job.as_bytes(), &[0xff; 9]])
}

pub(super) fn deliveries_of(job: JobId) -> Range<Key> {
    key(DELIVERY_OF_JOB, &[job.as_bytes()])..key(DELIVERY_OF_JOB, &[job.as_bytes(), &[0xff; 17]])
}

pub(super) fn attempts_of(delivery: DeliveryId) -> Range<Key> {
    attempt(delivery, 0)..key(ATTEMPT, &[delivery.as_bytes(), &[0xff; 5]])
}

/// The delivery whose attempt a key is.
pub(super) fn delivery_of_attempt(key: &[u8]) -> Option<DeliveryId> {
    Some(DeliveryId::from_bytes(*key.get(1..)?.first_chunk()?))
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

/// The number that ends a key: which event or which group.
pub(super) fn last_number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(*key.get(1..)?.last_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    fn job_id(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    #[test]
    fn what_is_due_includes_now_and_nothing_later() {
        let id = job_id(0xff);
        let range = due(JOB_WAITS, at(1000));
        for elsewhere in [false, true] {
            assert!(range.contains(&job_waits(at(0), elsewhere, id)));
            assert!(range.contains(&job_waits(at(1000), elsewhere, id)));
            assert!(!range.contains(&job_waits(at(1001), elsewhere, job_id(0))));
            let key = job_waits(at(1000), elsewhere, id);
            assert_eq!((time_of(&key), is_to_be_fetched(&key)), (Some(at(1000)), elsewhere));
            assert_eq!(last_id(&key).unwrap(), *id.as_bytes());
        }
    }

    #[test]
    fn a_list_ends_before_its_cursor_and_within_its_client_and_status() {
        let (client, other): (ClientId, ClientId) = ("a".parse().unwrap(), "a0".parse().unwrap());
        let prefix = job_list_prefix(&client, false, Some(JobStatus::Failed));
        let all = ids(&prefix, None, None);
        assert!(all.contains(&job_list(&client, false, Some(JobStatus::Failed), job_id(0xff))));
        assert!(!all.contains(&job_list(&client, false, Some(JobStatus::Completed), job_id(1))));
        assert!(!all.contains(&job_list(&client, true, Some(JobStatus::Failed), job_id(1))));
        assert!(!all.contains(&job_list(&other, false, Some(JobStatus::Failed), job_id(1))));
        let part = ids(&prefix, Some(job_id(2)), Some(job_id(4)));
        let has = |n| part.contains(&job_list(&client, false, Some(JobStatus::Failed), job_id(n)));
        assert_eq!([1, 2, 3, 4].map(has), [false, true, true, false]);
    }

    #[test]
    fn an_idempotency_key_tells_whose_it_is() {
        for (client, client_key) in [("a", "bc"), ("ab", "c"), ("a", "")] {
            let client: ClientId = client.parse().unwrap();
            let key = idempotency(&client, client_key);
            assert_eq!(client_and_key_of(&key), Some((client, client_key.to_owned())));
        }
        for short in [&b"i"[..], &idempotency(&ClientId::dev(), "")[..10]] {
            assert_eq!(client_and_key_of(short), None);
        }
    }

    #[test]
    fn a_turn_ends_behind_a_clients_last_and_before_the_next_clients_first() {
        let clients: [ClientId; 3] = ["a", "ab", "b"].map(|name| name.parse().unwrap());
        let mut keys: Vec<Key> = Vec::new();
        for client in &clients {
            for priority in Priority::ALL {
                keys.extend([1, 0xff].map(|n| job_ready(client, priority, job_id(n))));
            }
        }
        keys.sort();
        let mut turns: Vec<Key> = keys.iter().map(|key| end_of_turn(key)).collect();
        turns.dedup();
        assert_eq!(turns.len(), 3);
        for key in &keys {
            let after = keys.iter().filter(|other| **other >= end_of_turn(key)).count();
            assert_eq!(after % 6, 0, "whole stretches");
        }
    }

    #[test]
    fn a_record_ids_range_holds_its_own_and_no_others() {
        let (one, two) = (job_id(1), job_id(2));
        let last = DeliveryId::from_bytes([0xff; 16]);
        assert!(deliveries_of(one).contains(&delivery_of_job(one, last)));
        assert!(!deliveries_of(one).contains(&delivery_of_job(two, last)));
        assert!(attempts_of(last).contains(&attempt(last, u32::MAX)));
        assert!(events_of(one, 6).contains(&event_of_job(one, u64::MAX)));
        assert!(!events_of(one, 6).contains(&event_of_job(one, 6)));
        assert_eq!(delivery_of_attempt(&attempt(last, 7)), Some(last));
        assert_eq!((last_number(&events(7)), last_number(&event_of_job(one, 7))), (Some(7), Some(7)));
    }
}
