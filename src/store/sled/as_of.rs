//! The engine as it was at one moment, for whoever reads much of it while it is written.
//!
//! Before a commit the writer keeps what the commit replaces. A reader looks at the engine first and then at what was
//! kept: whatever it saw of a later commit was kept before that commit began, so it is put right.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::engine::{Bytes, Engine, Entry, Reads, Writes};
use super::keys::Key;
use crate::store::StoreError;

/// Keys that are read at once.
const CHUNK: usize = 256;

/// What was kept since that moment: what keys held before they were first changed.
pub(super) struct Images {
    kept: Mutex<Kept>,
    limit: usize,
}

#[derive(Default)]
struct Kept {
    images: BTreeMap<Key, Option<Bytes>>,
    bytes: usize,
    /// Why it cannot be read any more.
    failure: Option<StoreError>,
}

impl Images {
    /// For up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self { kept: Mutex::default(), limit }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what `writes`, which are about to be committed, replace.
    pub(super) fn remember(&self, engine: &Engine, writes: &Writes) {
        let mut kept = self.kept();
        for key in writes.keys() {
            if kept.failure.is_some() {
                return;
            }
            if kept.images.contains_key(key) {
                continue;
            }
            match engine.get_raw(key) {
                Ok(image) => {
                    kept.bytes += super::export::cost(key, image.as_ref());
                    kept.images.insert(key.clone(), image);
                    if kept.bytes > self.limit {
                        kept.images.clear();
                        kept.failure = Some(StoreError::ExportOutgrown { limit: self.limit });
                    }
                }
                Err(error) => kept.failure = Some(error),
            }
        }
    }
}

/// The engine as it was when these images were begun.
pub(super) struct AsOf<'a> {
    pub(super) engine: &'a Engine,
    pub(super) images: &'a Images,
}

impl AsOf<'_> {
    /// What was kept, unless that is not all.
    fn kept(&self) -> Result<MutexGuard<'_, Kept>, StoreError> {
        let mut kept = self.images.kept();
        match kept.failure.take() {
            None => Ok(kept),
            Some(failure) => {
                kept.failure = Some(StoreError::ExportOutgrown { limit: self.images.limit });
                Err(failure)
            }
        }
    }

    /// The next entries of `range`, and where it goes on.
    fn chunk(&self, range: &Range<Key>) -> Result<(VecDeque<Entry>, Key), StoreError> {
        let read: Vec<Entry> = self.engine.scan(range.clone()).take(CHUNK).collect::<Result<_, _>>()?;
        let end = match read.last() {
            Some((last, _)) if read.len() == CHUNK => super::export::behind(last),
            _ => range.end.clone(),
        };
        let mut entries: BTreeMap<Bytes, Bytes> = read.into_iter().collect();
        for (key, image) in self.kept()?.images.range(range.start.clone()..end.clone()) {
            match image {
                Some(value) => drop(entries.insert(Bytes::from(key.as_slice()), value.clone())),
                None => drop(entries.remove(key.as_slice())),
            }
        }
        Ok((entries.into_iter().collect(), end))
    }
}

impl Reads for AsOf<'_> {
    fn get_raw(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let now = self.engine.get_raw(key)?;
        Ok(self.kept()?.images.get(key).cloned().unwrap_or(now))
    }

    fn scan(&self, mut rest: Range<Key>) -> impl Iterator<Item = Result<Entry, StoreError>> {
        let mut chunk = VecDeque::new();
        std::iter::from_fn(move || {
            while chunk.is_empty() && rest.start < rest.end {
                match self.chunk(&rest) {
                    Ok((entries, end)) => (chunk, rest.start) = (entries, end),
                    Err(error) => {
                        rest.start.clone_from(&rest.end);
                        return Some(Err(error));
                    }
                }
            }
            chunk.pop_front().map(Ok)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::engine::tests::{CACHE, policy};
    use super::*;

    fn key(n: u16) -> Key {
        [&b"j"[..], &n.to_be_bytes()].concat()
    }

    #[test]
    fn what_is_changed_meanwhile_is_read_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let all: Vec<_> = (0..600).map(|n| key(2 * n)).collect();
        engine.commit(all.iter().map(|key| (key.clone(), Some(key.clone()))).collect()).unwrap();
        let images = Images::new(usize::MAX);
        let as_of = AsOf { engine: &engine, images: &images };
        let commit = |writes: Writes| {
            images.remember(&engine, &writes);
            engine.commit(writes).unwrap();
        };
        let mut scan = as_of.scan(b"j".to_vec()..b"k".to_vec());
        let mut read = vec![scan.next().unwrap().unwrap()];
        // New ones in between, some gone, some changed, some twice; the end of a chunk among them.
        commit((0..600).step_by(2).map(|n| (key(2 * n + 1), Some(vec![1]))).collect());
        commit((250..260).map(|n| (key(2 * n), None)).collect());
        commit((255..300).map(|n| (key(2 * n), Some(vec![2]))).collect());
        read.extend(scan.map(Result::unwrap));
        let expected: Vec<_> = all.iter().map(|key| (Bytes::from(&key[..]), Bytes::from(&key[..]))).collect();
        assert_eq!(read, expected);
        assert_eq!(as_of.get_raw(&key(500)).unwrap().unwrap(), key(500));
        assert_eq!(as_of.get_raw(&key(1)).unwrap(), None);
    }

    #[test]
    fn more_than_can_be_kept_is_an_error_and_not_half_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let images = Images::new(150);
        for n in 0..2 {
            images.remember(&engine, &Writes::from([(key(n), Some(Vec::new()))]));
        }
        let as_of = AsOf { engine: &engine, images: &images };
        for _ in 0..2 {
            assert!(matches!(as_of.get_raw(&key(1)), Err(StoreError::ExportOutgrown { .. })));
        }
        assert!(as_of.scan(key(0)..key(9)).next().unwrap().is_err());
    }
}
