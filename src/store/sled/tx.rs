//! A batch in the making: what a step sees and does.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::MutexGuard;

use jiff::Timestamp;

use super::engine::{Bytes, Engine, Entry, Writes};
use super::export::Snapshot;
use super::keys::{self, Key};
use super::records::{self, Indexed, Record};
use super::space::Room;
use super::writer::Shared;
use crate::domain::dispatch::Dispatch;
use crate::domain::id::DestinationId;
use crate::store::{Ledger, Policy, StoreError};

/// A record on its way from a load to a save, with the index entries that it had.
pub(super) struct Checkout<R> {
    pub(super) record: R,
    index: Vec<Key>,
}

impl<R: Indexed> Checkout<R> {
    /// A record as it is kept.
    pub(super) fn of(record: R) -> Self {
        Self { index: record.index(), record }
    }
}

/// What goes on from one commit to the next.
#[derive(Debug, Clone)]
pub(super) struct Cursor {
    /// The next place in the event log.
    pub(super) next_seq: u64,
    /// Where in the queue the next client is looked for: each gets its turn.
    pub(super) turn: Key,
    /// The same among those whose picture is to be fetched, where each source gets its turn.
    pub(super) fetch_turn: Key,
    /// How many deliveries there are, by where they stand.
    pub(super) ledger: Ledger,
}

/// By how much the counts of waiting jobs change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Delta {
    pub(super) work: i64,
    pub(super) fetches: i64,
}

/// A batch in the making: reads see its writes, a failed step's writes are taken back.
pub(super) struct Tx<'a> {
    shared: &'a Shared,
    pub(super) writes: Writes,
    /// What the running step overwrote in `writes`.
    undo: Vec<(Key, Option<Option<Vec<u8>>>)>,
    /// By where a scan begins: of the engine's keys up to here, `writes` decides each. Without it, every claim would
    /// walk over all that the claims before it took.
    overwritten: BTreeMap<Key, Key>,
    /// Up to when a step of this batch has dealt with all that was due.
    pub(super) swept: Option<Timestamp>,
    /// No job is ready behind this turn.
    pub(super) last_turn: Option<Key>,
    pub(super) bytes: usize,
    pub(super) cursor: Cursor,
    pub(super) room: Room,
    pub(super) waiting_delta: Delta,
    pub(super) jobs_ready: bool,
    pub(super) deliveries_ready: bool,
    /// Destinations with something to send, and when.
    pub(super) due: Vec<(DestinationId, Timestamp)>,
    /// The export that is under way.
    pub(super) snapshot: &'a mut Option<Snapshot>,
}

impl<'a> Tx<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        cursor: Cursor,
        room: Room,
        snapshot: &'a mut Option<Snapshot>,
    ) -> Self {
        Self {
            shared,
            writes: Writes::new(),
            undo: Vec::new(),
            overwritten: BTreeMap::new(),
            swept: None,
            last_turn: None,
            bytes: 0,
            cursor,
            room,
            waiting_delta: Delta::default(),
            jobs_ready: false,
            deliveries_ready: false,
            due: Vec::new(),
            snapshot,
        }
    }

    /// Runs one step; when it fails or panics, its writes are taken back.
    pub(super) fn attempt<T>(
        &mut self,
        step: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.undo.clear();
        self.part(|tx| {
            catch_unwind(AssertUnwindSafe(|| step(tx)))
                .unwrap_or_else(|_| Err(StoreError::Engine("a step of the store panicked".into())))
        })
    }

    /// Runs a part of a step; when it fails, its own writes are taken back and the step may go on.
    fn part<T>(&mut self, part: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let (mark, cursor) = (self.undo.len(), self.cursor.clone());
        let (waiting_delta, bytes) = (self.waiting_delta, self.bytes);
        let result = part(self);
        if result.is_err() {
            self.overwritten.clear();
            (self.swept, self.last_turn) = (None, None);
            for (key, before) in self.undo.drain(mark..).rev() {
                match before {
                    Some(write) => self.writes.insert(key, write),
                    None => self.writes.remove(&key),
                };
            }
            (self.cursor, self.waiting_delta, self.bytes) = (cursor, waiting_delta, bytes);
        }
        result
    }

    /// Does `part` for the entry `key` of a queue. If that fails, the entry is set aside, so that a record which
    /// cannot be read, or does not fit its entry, never holds up those behind it.
    pub(super) fn take_entry<T>(
        &mut self,
        key: &Key,
        part: impl FnOnce(&mut Tx<'_>, [u8; 16]) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.part(|tx| part(tx, keys::last_id(key)?)) {
            Ok(done) => Ok(Some(done)),
            Err(error @ (StoreError::Engine(_) | StoreError::Closed)) => Err(error),
            Err(error) => {
                let entry = crate::domain::hex::hex(key);
                tracing::error!(%error, entry, "an entry of a queue was set aside");
                self.count(key, -1);
                self.write(key.clone(), None);
                self.write(keys::set_aside(key), Some(Vec::new()));
                Ok(None)
            }
        }
    }

    /// What holds for the whole store.
    pub(super) fn policy(&self) -> &'a Policy {
        &self.shared.policy
    }

    /// The next place in the event log.
    pub(super) fn take_seq(&mut self) -> u64 {
        let seq = self.cursor.next_seq;
        self.cursor.next_seq += 1;
        seq
    }

    /// Everything up to `seq` is given away already.
    pub(super) fn skip_seq(&mut self, seq: u64) {
        self.cursor.next_seq = self.cursor.next_seq.max(seq.saturating_add(1));
    }

    /// Whose turn it is, and what is under way. It is not taken back with a step: whoever changes it does so last.
    pub(super) fn dispatch(&self) -> MutexGuard<'a, Dispatch> {
        self.shared.dispatch()
    }

    /// The engine, without what this batch changes.
    pub(super) fn committed(&self) -> &'a Engine {
        &self.shared.engine
    }

    /// How much the batch has to write already.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The last place in the event log that was given away.
    pub(super) fn last_seq(&self) -> u64 {
        self.cursor.next_seq - 1
    }

    pub(super) fn get<T: Record>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        match self.writes.get(key) {
            Some(write) => write.as_deref().map(records::decode).transpose(),
            None => self.shared.engine.get(key),
        }
    }

    /// A value as it is kept.
    pub(super) fn get_raw(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.writes.get(key) {
            Some(write) => Ok(write.clone()),
            None => Ok(self.shared.engine.get_raw(key)?.map(|value| value.to_vec())),
        }
    }

    /// Up to `limit` keys of `range`, in order.
    pub(super) fn keys(&mut self, range: Range<Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let from = self.overwritten.get(&range.start).unwrap_or(&range.start).min(&range.end).clone();
        let stored = self.shared.engine.scan(from..range.end.clone());
        let mut merged = Merged::new(stored, self.writes.range(range.clone()));
        let (mut keys, mut overwritten, mut is_front) = (Vec::new(), None, true);
        while keys.len() < limit
            && let Some((key, held)) = merged.next().transpose()?
        {
            is_front &= !matches!(held, Some(Held::Stored(_)));
            if is_front {
                overwritten = Some(key.clone());
            }
            keys.extend(held.is_some().then_some(key));
        }
        self.overwritten.extend(overwritten.map(|key| (range.start, key)));
        Ok(keys)
    }

    pub(super) fn put<T: Record>(&mut self, key: Key, value: &T) -> Result<(), StoreError> {
        let value = records::encode(value)?;
        self.put_raw(key, value);
        Ok(())
    }

    /// Writes a value that is encoded already.
    pub(super) fn put_raw(&mut self, key: Key, value: Vec<u8>) {
        self.write(key, Some(value));
    }

    /// The record of this id.
    pub(super) fn load<R: Indexed>(&self, id: R::Id) -> Result<R, StoreError> {
        self.get(&R::key(id))?.ok_or(StoreError::NotFound)
    }

    /// Writes a record that is new, and its index entries.
    pub(super) fn insert<R: Indexed>(&mut self, record: &R) -> Result<(), StoreError> {
        self.put(R::key(record.id()), record)?;
        self.reindex(&[], &record.index());
        Ok(())
    }

    /// The record of this id, to be changed and then saved.
    pub(super) fn checkout<R: Indexed>(&self, id: R::Id) -> Result<Checkout<R>, StoreError> {
        Ok(Checkout::of(self.load(id)?))
    }

    /// Writes a changed record, and the difference of its index entries.
    pub(super) fn save<R: Indexed>(
        &mut self,
        Checkout { record, index }: Checkout<R>,
    ) -> Result<R, StoreError> {
        self.put(R::key(record.id()), &record)?;
        self.reindex(&index, &record.index());
        Ok(record)
    }

    /// Removes a record and the index entries that it had.
    pub(super) fn remove<R: Indexed>(&mut self, Checkout { record, index }: Checkout<R>) {
        self.write(R::key(record.id()), None);
        self.reindex(&index, &[]);
    }

    /// Removes one key.
    pub(super) fn delete(&mut self, key: Key) {
        self.write(key, None);
    }

    /// Writes a key that says all by itself.
    pub(super) fn mark(&mut self, key: Key) {
        self.write(key, Some(Vec::new()));
    }

    /// Changes a record.
    pub(super) fn update<R: Indexed, E>(
        &mut self,
        id: R::Id,
        change: impl FnOnce(&mut R) -> Result<(), E>,
    ) -> Result<R, StoreError>
    where
        StoreError: From<E>,
    {
        let mut checkout = self.checkout(id)?;
        change(&mut checkout.record)?;
        self.save(checkout)
    }

    /// Replaces the index keys `before` by `after`, and notes what that wakes.
    fn reindex(&mut self, before: &[Key], after: &[Key]) {
        for key in before.iter().filter(|key| !after.contains(key)) {
            self.count(key, -1);
            self.write(key.clone(), None);
        }
        for key in after.iter().filter(|key| !before.contains(key)) {
            self.count(key, 1);
            self.write(key.clone(), Some(Vec::new()));
        }
    }

    fn count(&mut self, key: &[u8], delta: i64) {
        match key.first() {
            Some(&(keys::JOB_READY | keys::JOB_FETCH | keys::JOB_WAITS)) => {
                if delta > 0 {
                    self.last_turn = None;
                }
                let fetches = keys::is_to_be_fetched(key);
                let of = &mut self.waiting_delta;
                *(if fetches { &mut of.fetches } else { &mut of.work }) += delta;
                self.jobs_ready |= delta > 0;
            }
            Some(&keys::DELIVERY_DUE) if delta > 0 => {
                self.due.extend(keys::due_parts(key).map(|(destination, _, due)| (destination, due)));
            }
            _ => {}
        }
    }

    fn write(&mut self, key: Key, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        let before = self.writes.insert(key.clone(), value);
        // What is written once more is written once.
        let replaced = before.as_ref().map_or(0, |value| key.len() + value.as_ref().map_or(0, Vec::len));
        self.bytes = self.bytes.saturating_sub(replaced);
        self.undo.push((key, before));
    }
}

/// A value, and on which of two layers it was found.
pub(super) enum Held<'a, V> {
    Stored(Bytes),
    Above(&'a V),
}

/// The keys of the engine and of a layer above it in one order. The layer decides what a key holds, or that it
/// holds nothing.
pub(super) struct Merged<'a, S: Iterator, V> {
    stored: Peekable<S>,
    above: Peekable<btree_map::Range<'a, Key, Option<V>>>,
}

impl<'a, S: Iterator, V> Merged<'a, S, V> {
    pub(super) fn new(stored: S, above: btree_map::Range<'a, Key, Option<V>>) -> Self {
        Self { stored: stored.peekable(), above: above.peekable() }
    }
}

impl<'a, S, V> Iterator for Merged<'a, S, V>
where
    S: Iterator<Item = Result<Entry, StoreError>>,
{
    type Item = Result<(Key, Option<Held<'a, V>>), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let above_first = match (self.stored.peek(), self.above.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(Ok((stored, _))), Some((above, _))) => above.as_slice() <= stored.as_ref(),
        };
        if !above_first {
            let entry = self.stored.next()?;
            return Some(entry.map(|(key, value)| (key.to_vec(), Some(Held::Stored(value)))));
        }
        let (key, value) = self.above.next()?;
        if matches!(self.stored.peek(), Some(Ok((stored, _))) if stored.as_ref() == key.as_slice()) {
            self.stored.next();
        }
        Some(Ok((key.clone(), value.as_ref().map(Held::Above))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::{CACHE, policy};
    use super::*;

    #[test]
    fn a_scan_skips_what_the_batch_took_and_finds_what_came_back() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let entry = |n: u8| vec![keys::JOB_READY, n];
        engine.commit((1..=6).map(|n| (entry(n), Some(Vec::new()))).collect()).unwrap();
        let shared = Shared::load(engine, policy()).unwrap();
        let mut snapshot = None;
        let (turn, fetch_turn) = (Key::new(), Key::new());
        let cursor = Cursor { next_seq: 1, turn, fetch_turn, ledger: Ledger::default() };
        let mut tx = Tx::new(&shared, cursor, Room::Enough, &mut snapshot);
        let first = |tx: &mut Tx<'_>| tx.keys(keys::all(keys::JOB_READY), 1).unwrap().pop();

        for n in 1..=3 {
            assert_eq!(first(&mut tx), Some(entry(n)));
            tx.delete(entry(n));
        }
        assert_eq!(first(&mut tx), Some(entry(4)));
        assert_eq!(tx.overwritten.get(&keys::all(keys::JOB_READY).start), Some(&entry(3)));
        assert_eq!(tx.keys(entry(0)..entry(3), 9).unwrap(), Vec::<Key>::new());
        tx.mark(entry(2));
        assert_eq!(first(&mut tx), Some(entry(2)));
        tx.delete(entry(2));

        let bytes = tx.bytes();
        let failed = tx.attempt(|tx| {
            tx.delete(entry(4));
            tx.put_raw(entry(4), vec![0; 9]);
            assert_eq!(tx.bytes(), bytes + 2 + 9, "what is written once more is written once");
            tx.delete(entry(4));
            tx.delete(entry(5));
            assert_eq!(first(tx), Some(entry(6)));
            Err::<(), _>(StoreError::NotFound)
        });
        assert!(matches!(failed, Err(StoreError::NotFound)), "{failed:?}");
        assert_eq!(tx.bytes(), bytes);
        assert_eq!(first(&mut tx), Some(entry(4)));

        for n in 4..=6 {
            tx.delete(entry(n));
        }
        assert_eq!(first(&mut tx), None);
        // What was taken may end behind where a narrower scan does.
        let all = keys::all(keys::JOB_READY);
        assert_eq!(tx.keys(all.start..entry(2), 9).unwrap(), Vec::<Key>::new());
        assert_eq!(tx.keys(entry(1)..entry(9), 0).unwrap(), Vec::<Key>::new());
    }
}
