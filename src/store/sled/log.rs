//! The event log. Events are short and come in order, and most of what an entry of the tree costs is the entry: so
//! eight that follow one another lie in one, and each of them is written and purged on its own.

use super::engine::{Engine, Reads};
use super::keys::{self, Key};
use super::records;
use super::tx::Tx;
use crate::domain::event::Event;
use crate::store::StoreError;

/// Events of one entry.
const GROUP: u64 = 8;
/// A longer event has an entry of its own, as each that comes or goes writes its whole group: eight of these stay far
/// below [`records::MAX_BYTES`].
const LONG_BYTES: usize = 2 * 1024;
/// The layout of a group: this byte, then for each event its place and its length, and so many bytes.
const VERSION: u8 = 1;
/// A group without events.
pub(super) const EMPTY: &[u8] = &[VERSION];
/// A place within its group, and a length in two bytes.
const HEAD_BYTES: usize = 3;

/// An event as it lies in its group; without bytes when it is a long one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) seq: u64,
    pub(super) bytes: &'a [u8],
}

impl Entry<'_> {
    pub(super) fn is_long(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// The events of the group at `key`, in the order in which they were put.
pub(super) fn entries<'a>(key: &[u8], group: &'a [u8]) -> Result<Vec<Entry<'a>>, StoreError> {
    let corrupt = || StoreError::Corrupt("a group of events is cut off".to_owned());
    let first = keys::last_number(key).and_then(|number| number.checked_mul(GROUP)).ok_or_else(corrupt)?;
    let Some((&VERSION, mut rest)) = group.split_first() else { return Err(corrupt()) };
    let mut entries = Vec::new();
    while let Some((&[place, high, low], behind)) = rest.split_first_chunk::<HEAD_BYTES>() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (bytes, behind) = behind.split_at_checked(length).ok_or_else(corrupt)?;
        let place = Some(u64::from(place)).filter(|place| *place < GROUP).ok_or_else(corrupt)?;
        entries.push(Entry { seq: first.saturating_add(place), bytes });
        rest = behind;
    }
    if rest.is_empty() { Ok(entries) } else { Err(corrupt()) }
}

/// The group that an event belongs to.
pub(super) fn key_of(seq: u64) -> Key {
    keys::events(seq / GROUP)
}

/// A group of the events but `seq`, and with these bytes for it if there are any.
fn with(entries: &[Entry<'_>], seq: u64, bytes: Option<&[u8]>) -> Vec<u8> {
    let new = bytes.map(|bytes| Entry { seq, bytes });
    let mut group = vec![VERSION];
    for Entry { seq, bytes } in entries.iter().filter(|entry| entry.seq != seq).copied().chain(new) {
        // Both fit: a place is below eight, and a length is below that of a long event.
        group.push(u8::try_from(seq % GROUP).unwrap_or(u8::MAX));
        group.extend_from_slice(&u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
        group.extend_from_slice(bytes);
    }
    group
}

/// Writes an event at its place.
pub(super) fn put(tx: &mut Tx<'_>, event: &Event) -> Result<(), StoreError> {
    let group = load(tx, &key_of(event.seq))?;
    for (key, value) in added(&group, event)? {
        tx.put_raw(key, value);
    }
    Ok(())
}

/// What is to be written so that an event is in its group.
pub(super) fn added(group: &[u8], event: &Event) -> Result<Vec<(Key, Vec<u8>)>, StoreError> {
    let (key, mut bytes) = (key_of(event.seq), records::encode(event)?);
    let mut writes = Vec::new();
    if bytes.len() > LONG_BYTES {
        writes.push((keys::long_event(event.seq), std::mem::take(&mut bytes)));
    }
    let group = with(&entries(&key, group)?, event.seq, Some(&bytes));
    writes.push((key, group));
    Ok(writes)
}

/// A group that can be read. One that cannot is set aside, so that it holds up none of its neighbours.
fn load(tx: &mut Tx<'_>, key: &Key) -> Result<Vec<u8>, StoreError> {
    let Some(group) = tx.get_raw(key)? else { return Ok(EMPTY.to_vec()) };
    if let Err(error) = entries(key, &group) {
        let entry = crate::domain::hex::hex(key);
        tracing::error!(%error, entry, "a group of events was set aside");
        tx.put_raw(keys::set_aside(key), group);
        return Ok(EMPTY.to_vec());
    }
    Ok(group)
}

pub(super) fn get(tx: &Tx<'_>, seq: u64) -> Result<Option<Event>, StoreError> {
    let key = key_of(seq);
    let Some(group) = tx.get_raw(&key)? else { return Ok(None) };
    match entries(&key, &group)?.into_iter().find(|entry| entry.seq == seq) {
        Some(entry) if entry.is_long() => tx.get(&keys::long_event(seq)),
        Some(entry) => records::decode(entry.bytes).map(Some),
        None => Ok(None),
    }
}

/// Removes an event; it may have gone already.
pub(super) fn remove(tx: &mut Tx<'_>, seq: u64) -> Result<(), StoreError> {
    let key = key_of(seq);
    let group = load(tx, &key)?;
    let entries = entries(&key, &group)?;
    let found = entries.iter().find(|entry| entry.seq == seq);
    // Also when its group was damaged, and says nothing of it.
    if found.is_none_or(Entry::is_long) && tx.get_raw(&keys::long_event(seq))?.is_some() {
        tx.delete(keys::long_event(seq));
    }
    if entries.iter().all(|entry| entry.seq == seq) {
        tx.delete(key);
    } else {
        let group = with(&entries, seq, None);
        tx.put_raw(key, group);
    }
    Ok(())
}

/// The last place that an event of the log has.
pub(super) fn last_seq(engine: &Engine) -> Result<Option<u64>, StoreError> {
    let Some((key, group)) = engine.scan(keys::all(keys::EVENTS)).next_back().transpose()? else {
        return Ok(None);
    };
    let last = entries(&key, &group).ok().and_then(|entries| entries.iter().map(|entry| entry.seq).max());
    // Of a group that says nothing, every place counts as taken.
    let end = || keys::last_number(&key).map(|number| number.saturating_add(1).saturating_mul(GROUP) - 1);
    Ok(last.or_else(end))
}

/// Up to `limit` events behind `after`, up to `last`. What cannot be read is left out, and holds up none behind it.
pub(super) fn read(engine: &Engine, after: u64, last: u64, limit: usize) -> Result<Vec<Event>, StoreError> {
    let (Some(first), true) = (after.checked_add(1), limit > 0) else { return Ok(Vec::new()) };
    let mut events = Vec::new();
    for group in engine.scan(key_of(first)..keys::events((last / GROUP).saturating_add(1))) {
        let (key, group) = group?;
        let mut entries = match entries(&key, &group) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, group = crate::domain::hex::hex(&key), "events were left out");
                continue;
            }
        };
        entries.retain(|entry| (first..=last).contains(&entry.seq));
        entries.sort_by_key(|entry| entry.seq);
        for entry in entries {
            events.extend(readable(engine, entry)?);
            if events.len() == limit {
                return Ok(events);
            }
        }
    }
    Ok(events)
}

/// The event at this place, unless it has been purged or cannot be read.
pub(super) fn read_one(engine: &impl Reads, seq: u64) -> Result<Option<Event>, StoreError> {
    let key = key_of(seq);
    let Some(group) = engine.get_raw(&key)? else { return Ok(None) };
    match entries(&key, &group).map(|entries| entries.into_iter().find(|entry| entry.seq == seq)) {
        Ok(Some(entry)) => readable(engine, entry),
        Ok(None) => Ok(None),
        Err(error) => {
            tracing::error!(%error, seq, "an event was left out");
            Ok(None)
        }
    }
}

fn readable(engine: &impl Reads, entry: Entry<'_>) -> Result<Option<Event>, StoreError> {
    let event = if entry.is_long() {
        // It may be purged meanwhile.
        let Some(bytes) = engine.get_raw(&keys::long_event(entry.seq))? else { return Ok(None) };
        records::decode(&bytes)
    } else {
        records::decode(entry.bytes)
    };
    match event {
        Ok(event) => Ok(Some(event)),
        Err(error) => {
            tracing::error!(%error, seq = entry.seq, "an event was left out");
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::Writes;
    use super::super::engine::tests::{CACHE, policy};
    use super::super::records::encode;
    use super::super::space::Room;
    use super::super::tx::Cursor;
    use super::super::writer::Shared;
    use super::*;
    use crate::domain::event::{EventKind, Subject};
    use crate::domain::id::EventId;
    use crate::domain::job::Job;
    use crate::domain::job::tests::{at, new_job};
    use crate::store::Ledger;

    fn event(seq: u64, bytes: usize) -> Event {
        let mut job = Job::accepted(new_job(1), at(1));
        job.metadata = Some("m".repeat(bytes));
        let id = EventId::new(at(1), &[1; 10]);
        let subject = Subject::Job(Box::new(job));
        Event { id, seq, kind: EventKind::JobQueued, at: at(1), source: String::new(), subject }
    }

    fn engine_in(folder: &tempfile::TempDir) -> Engine {
        Engine::open(folder.path(), CACHE, &policy()).unwrap()
    }

    /// Commits what `step` does.
    fn write(shared: &Shared, step: impl FnOnce(&mut Tx<'_>)) {
        let mut snapshot = None;
        let cursor =
            Cursor { next_seq: 1, turn: Key::new(), fetch_turn: Key::new(), ledger: Ledger::default() };
        let mut tx = Tx::new(shared, cursor, Room::Enough, &mut snapshot);
        step(&mut tx);
        let writes = std::mem::take(&mut tx.writes);
        shared.engine.commit(writes).unwrap();
    }

    fn seqs(shared: &Shared, after: u64, last: u64, limit: usize) -> Vec<u64> {
        read(&shared.engine, after, last, limit).unwrap().iter().map(|event| event.seq).collect()
    }

    #[test]
    fn events_long_and_short_are_read_in_order_and_removed_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::load(engine_in(&folder), policy()).unwrap();
        let long = |seq: u64| if seq.is_multiple_of(3) { LONG_BYTES } else { 0 };
        write(&shared, |tx| {
            // Out of order, as an import brings the long ones.
            for seq in (1..=20).rev() {
                put(tx, &event(seq, long(seq))).unwrap();
            }
        });
        assert_eq!(seqs(&shared, 0, u64::MAX, 99), (1..=20).collect::<Vec<_>>());
        assert_eq!(seqs(&shared, 6, 16, 9), (7..=15).collect::<Vec<_>>());
        assert_eq!(seqs(&shared, 6, 10, 9), [7, 8, 9, 10]);
        assert_eq!((seqs(&shared, u64::MAX, u64::MAX, 9), seqs(&shared, 0, 9, 0)), (vec![], vec![]));
        assert_eq!(last_seq(&shared.engine).unwrap(), Some(20));
        for seq in [3, 4] {
            assert_eq!(read_one(&shared.engine, seq).unwrap(), Some(event(seq, long(seq))));
        }
        write(&shared, |tx| {
            assert_eq!(get(tx, 9).unwrap(), Some(event(9, LONG_BYTES)));
            for seq in (2..=19).chain([3, 99]) {
                remove(tx, seq).unwrap();
                assert_eq!(get(tx, seq).unwrap(), None);
            }
        });
        assert_eq!(seqs(&shared, 0, u64::MAX, 99), [1, 20]);
        assert_eq!(read_one(&shared.engine, 3).unwrap(), None);
        write(&shared, |tx| [1, 20].into_iter().for_each(|seq| remove(tx, seq).unwrap()));
        let left = [keys::EVENTS, keys::LONG_EVENT].map(|kind| shared.engine.scan(keys::all(kind)).count());
        assert_eq!((left, last_seq(&shared.engine).unwrap()), ([0, 0], None));
    }

    #[test]
    fn eight_of_the_longest_short_events_fit_into_a_value() {
        let fits = (0..).map(|n| event(7, n)).take_while(|event| encode(event).unwrap().len() <= LONG_BYTES);
        let longest = fits.last().unwrap();
        assert_eq!(encode(&longest).unwrap().len(), LONG_BYTES);
        let group = (0..8).fold(EMPTY.to_vec(), |group, seq| {
            added(&group, &Event { seq, ..longest.clone() }).unwrap().pop().unwrap().1
        });
        assert_eq!(entries(&key_of(7), &group).unwrap().len(), 8);
        assert!(group.len() <= records::MAX_BYTES, "{}", group.len());
    }

    #[test]
    fn a_group_that_cannot_be_read_holds_up_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Shared::load(engine_in(&folder), policy()).unwrap();
        let groups: [&[u8]; 5] =
            [&[], &[9], &[VERSION, 1, 0], &[VERSION, 1, 0, 5, 1], &[VERSION, 8, 0, 1, 1]];
        for group in groups {
            write(&shared, |tx| put(tx, &event(17, LONG_BYTES)).unwrap());
            shared.engine.commit(Writes::from([(keys::events(2), Some(group.to_vec()))])).unwrap();
            write(&shared, |tx| put(tx, &event(1, 0)).unwrap());
            assert_eq!(seqs(&shared, 0, u64::MAX, 9), [1]);
            assert_eq!(read_one(&shared.engine, 17).unwrap(), None);
            assert_eq!(last_seq(&shared.engine).unwrap(), Some(23), "its places count as taken");
            write(&shared, |tx| {
                remove(tx, 17).unwrap();
                put(tx, &event(18, 0)).unwrap();
            });
            assert_eq!(seqs(&shared, 0, u64::MAX, 9), [1, 18]);
            let aside = shared.engine.get_raw(&keys::set_aside(&keys::events(2))).unwrap();
            assert_eq!(aside.as_deref(), Some(group));
            assert_eq!(shared.engine.scan(keys::all(keys::LONG_EVENT)).count(), 0);
        }
    }
}
