//! The seam to the engine: get, scan, commit a batch. Another embedded engine is another of this file.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::keys::{self, Key};
use super::records::{self, Record};
use super::{space, upgrade};
use crate::store::{Policy, StoreError};

/// Fixed for a store's life: sled refuses another value afterwards. See [`records::MAX_BYTES`].
pub(super) const SEGMENT_BYTES: usize = 8 * 1024 * 1024;

/// sled's file.
pub(super) const LOG: &str = "db";

/// A file beside sled's that says: here a store was made, so an empty one is a lost one.
const MADE: &str = "made";

/// The layout of keys and records that this version writes.
const SCHEMA_VERSION: u32 = 7;

/// One collection frees up to 512 pieces, and a change leaves two to four.
const WRITES_PER_COLLECTION: usize = 64;

/// sled's threads hold the file's lock a moment longer than the store that is closed, and so does a child that is
/// between its fork and its exec: a lock counts as another process's after 2 s.
const LOCK_TRIES: u32 = 200;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// sled counts a page as it lies in the log; in memory, keys and values in allocations of their own, it takes about
/// twice that.
const MEMORY_PER_CACHED_BYTE: u64 = 2;

/// Bytes of keys and values after which a close notes where the pages lie: in the log they take about three times
/// that, which an opening reads in half a second.
const COMMITTED_FOR_SNAPSHOT: u64 = 128 * 1024 * 1024;
/// Nothing is read then.
const SNAPSHOT_CACHE_BYTES: u64 = 1024 * 1024;

/// Changes to be made together: a value to put, or `None` to delete.
pub(super) type Writes = BTreeMap<Key, Option<Vec<u8>>>;

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder cannot be made or read.
    #[error("cannot use the folder {}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by another darkroom process; stop that one first, or choose another --data-dir", .0.display())]
    Locked(PathBuf),
    /// What is there cannot be opened.
    #[error(
        "the store in {} is damaged and was left as it is ({reason}); restore the folder from a backup, or move it away to start empty",
        path.display()
    )]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// It was written by another version.
    #[error(
        "the store has schema version {found}, and this darkroom reads versions up to {SCHEMA_VERSION}; use the version that wrote it"
    )]
    Schema {
        /// Which version.
        found: u32,
    },
    /// Its records cannot be read.
    #[error("the store's records cannot be read")]
    Unreadable(#[source] StoreError),
    /// The writer's thread did not start.
    #[error("cannot start the store's writer")]
    Thread(#[source] io::Error),
}

/// A value or a key, shared with the engine's cache.
pub(super) type Bytes = sled::IVec;
/// A key and its value.
pub(super) type Entry = (Bytes, Bytes);

/// An open engine.
pub(super) struct Engine {
    db: sled::Db,
    /// sled's file once more, to sync it: sled's own `flush` never asks the disk to (`sync_file_range` does
    /// not), so that a power cut would take back what was acknowledged.
    log: File,
    // Dropped last, when sled has let go of its folder.
    at_close: AtClose,
}

/// sled notes where each page lies only when it opens, and reads from there on all that was logged since: 4 s for a
/// million jobs. After much work this is done at the close, so that the next start need not.
struct AtClose {
    folder: PathBuf,
    /// Bytes that were committed since the last opening.
    committed: AtomicU64,
}

impl Drop for AtClose {
    fn drop(&mut self) {
        if *self.committed.get_mut() < COMMITTED_FOR_SNAPSHOT {
            return;
        }
        if let Err(error) = write_snapshot(&self.folder) {
            tracing::info!(%error, "the next start will take longer");
        }
    }
}

/// What can be read: the engine as it is, or as it was.
pub(super) trait Reads {
    fn get_raw(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    fn get<T: Record>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get_raw(key)?.map(|value| records::decode(&value)).transpose()
    }

    /// The entries of `range` in the order of their keys.
    fn scan(&self, range: Range<Key>) -> impl Iterator<Item = Result<Entry, StoreError>>;
}

impl Reads for Engine {
    fn get_raw(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Self::get_raw(self, key)
    }

    fn scan(&self, range: Range<Key>) -> impl Iterator<Item = Result<Entry, StoreError>> {
        Self::scan(self, range)
    }
}

impl Engine {
    pub(super) fn open(folder: &Path, cache_bytes: u64, policy: &Policy) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Folder { path: folder.to_owned(), source };
        std::fs::create_dir_all(folder).map_err(failed)?;
        let was_made = folder.join(MADE).exists();
        clear_half_written(folder, was_made)?;
        let db = open_sled(folder, cache_bytes)?;
        let log = File::open(folder.join(LOG)).map_err(failed)?;
        let at_close = AtClose { folder: folder.to_owned(), committed: AtomicU64::new(0) };
        let engine = Self { db, log, at_close };
        match engine.schema()? {
            Some(SCHEMA_VERSION) => {}
            Some(found) if (1..SCHEMA_VERSION).contains(&found) => {
                upgrade::from(found, &engine, policy).map_err(OpenError::Unreadable)?;
                // What the upgrade wrote is to be on disk before the version says so.
                engine.sync().map_err(failed)?;
                engine.set_schema().map_err(OpenError::Unreadable)?;
                engine.sync().map_err(failed)?;
            }
            Some(found) => return Err(OpenError::Schema { found }),
            // sled opens a file whose log it cannot find as an empty one.
            None if was_made => return Err(damaged(folder, "its records are gone".to_owned())),
            None => engine.set_schema().map_err(OpenError::Unreadable)?,
        }
        if !was_made {
            sync_new(folder).map_err(failed)?;
        }
        Ok(engine)
    }

    pub(super) fn get<T: Record>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get_raw(key)?.map(|value| records::decode(&value)).transpose()
    }

    pub(super) fn get_raw(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.db.get(key).map_err(failure)
    }

    /// The entries of `range` in the order of their keys; from the end with `.rev()`.
    pub(super) fn scan(
        &self,
        range: Range<Key>,
    ) -> impl DoubleEndedIterator<Item = Result<Entry, StoreError>> {
        self.db.range(range).map(|entry| entry.map_err(failure))
    }

    /// Up to `limit` records of `range`, in the order of their keys.
    pub(super) fn scan_values<T: Record>(
        &self,
        range: Range<Key>,
        limit: usize,
    ) -> Result<Vec<T>, StoreError> {
        self.scan(range).take(limit).map(|entry| records::decode(&entry?.1)).collect()
    }

    pub(super) fn first_key(&self, range: Range<Key>) -> Result<Option<Bytes>, StoreError> {
        Ok(self.scan(range).next().transpose()?.map(|(key, _)| key))
    }

    pub(super) fn last_key(&self, range: Range<Key>) -> Result<Option<Bytes>, StoreError> {
        Ok(self.scan(range).next_back().transpose()?.map(|(key, _)| key))
    }

    /// Makes all changes or none. They survive the process afterwards, and the machine after [`Engine::sync`].
    pub(super) fn commit(&self, writes: Writes) -> Result<(), StoreError> {
        let garbage = writes.len();
        let mut batch = sled::Batch::default();
        let mut bytes = 0;
        for (key, value) in writes {
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        self.db.apply_batch(batch).map_err(failure)?;
        self.db.flush().map_err(failure)?;
        collect(garbage);
        self.at_close.committed.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Makes every commit so far survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.log.sync_data()
    }

    fn set_schema(&self) -> Result<(), StoreError> {
        let version = SCHEMA_VERSION.to_be_bytes().to_vec();
        self.commit(Writes::from([(keys::SCHEMA.to_vec(), Some(version))]))
    }

    fn schema(&self) -> Result<Option<u32>, OpenError> {
        let stored = self.get_raw(keys::SCHEMA).map_err(OpenError::Unreadable)?;
        // A version that is not a number is none that this program knows.
        Ok(stored.map(|version| version.as_ref().try_into().map_or(u32::MAX, u32::from_be_bytes)))
    }
}

/// Frees what `writes` changes left behind. Each leaves a copy of its page to crossbeam's collector, which sled shares
/// with us, and sled asks it to collect too seldom when changes come in batches: memory grew by gigabytes.
fn collect(writes: usize) {
    for _ in 0..=writes / WRITES_PER_COLLECTION {
        crossbeam_epoch::pin().flush();
    }
}

fn failure(error: sled::Error) -> StoreError {
    StoreError::Engine(Box::new(error))
}

/// Removes what a process that was killed while it opened the store may have left half written. sled takes it for
/// whole, and would not open the store ever again; it needs neither, as the log has everything. Under sled's own
/// lock, since another process may be writing these files at this moment.
fn clear_half_written(folder: &Path, was_made: bool) -> Result<(), OpenError> {
    let failed = |source| OpenError::Folder { path: folder.to_owned(), source };
    let log = File::options().create(true).truncate(false).write(true).open(folder.join("db"));
    let log = log.map_err(failed)?;
    lock(&log, folder)?;
    let clear = || {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let is_snapshot = path.extension().is_some_and(|extension| extension == "generating");
            // The configuration is written before the first record.
            let is_configuration = !was_made && log.metadata()?.len() == 0 && path.ends_with("conf");
            if is_snapshot || is_configuration {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    };
    clear().map_err(failed)?;
    // Closed alone, the file stays locked as long as a child has it that is between its fork and its exec.
    log.unlock().map_err(failed)
}

/// Locks sled's file until it is dropped.
fn lock(log: &File, folder: &Path) -> Result<(), OpenError> {
    let mut tries = 1..LOCK_TRIES;
    loop {
        match log.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if tries.next().is_some() => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(folder.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(OpenError::Folder { path: folder.to_owned(), source });
            }
        }
    }
}

/// Opens sled once more and closes it; not on a full disk, where that could take the room of the next start.
fn write_snapshot(folder: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Folder { path: folder.to_owned(), source };
    if fs4::available_space(folder).map_err(failed)? < space::ENOUGH {
        return Ok(());
    }
    let log = File::open(folder.join(LOG)).map_err(failed)?;
    lock(&log, folder)?;
    log.unlock().map_err(failed)?;
    open_sled(folder, SNAPSHOT_CACHE_BYTES).map(drop)
}

/// sled answers some damage with a panic instead of an error; neither leaves this function.
fn open_sled(folder: &Path, cache_bytes: u64) -> Result<sled::Db, OpenError> {
    let config = sled::Config::new()
        .path(folder)
        .cache_capacity(cache_bytes / MEMORY_PER_CACHED_BYTE)
        // The writer decides when to flush.
        .flush_every_ms(None)
        .segment_size(SEGMENT_BYTES);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) if is_lock_failure(&error) => {
            Err(OpenError::Locked(folder.to_owned()))
        }
        Ok(Err(sled::Error::Io(source))) => Err(OpenError::Folder { path: folder.to_owned(), source }),
        Ok(Err(error)) => Err(damaged(folder, error.to_string())),
        Err(panic) => Err(damaged(folder, panic_text(panic.as_ref()))),
    }
}

fn damaged(folder: &Path, reason: String) -> OpenError {
    OpenError::Damaged { path: folder.to_owned(), reason }
}

/// sled wraps the failed `flock` in an error of its own, kind `Other`, and all else it passes on as it is.
fn is_lock_failure(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().contains("could not acquire lock")
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("the engine panicked").to_owned()
}

/// A new store's files and their names, down to the folder's own, must be on disk before anything in them
/// counts; then the mark says that they are.
fn sync_new(folder: &Path) -> io::Result<()> {
    for name in ["conf", LOG] {
        File::open(folder.join(name))?.sync_all()?;
    }
    sync_folder(folder)?;
    if let Some(parent) = folder.canonicalize()?.parent() {
        sync_folder(parent)?;
    }
    File::create(folder.join(MADE))?.sync_all()?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::id::JobId;
    use crate::store::Garbage;

    pub(crate) const CACHE: u64 = 16 * 1024 * 1024;

    pub(crate) fn policy() -> Policy {
        Policy {
            dispatch: crate::domain::dispatch::DispatchPolicy::default(),
            source: "http://127.0.0.1:8080".to_owned(),
            keep_finished: Duration::from_secs(1000),
            keep_deleted: Duration::from_secs(100),
            keep_undelivered: Duration::from_secs(100),
        }
    }

    #[test]
    fn a_second_open_says_who_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let _engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert!(matches!(Engine::open(folder.path(), CACHE, &policy()), Err(OpenError::Locked(_))));
    }

    #[test]
    fn a_damaged_store_is_an_error_that_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        drop(Engine::open(folder.path(), CACHE, &policy()).unwrap());
        let db = folder.path().join("db");
        let length = std::fs::metadata(&db).unwrap().len();
        for damage in [vec![0_u8; usize::try_from(length).unwrap()], Vec::new()] {
            std::fs::write(&db, damage).unwrap();
            let error = Engine::open(folder.path(), CACHE, &policy()).err().unwrap();
            assert!(error.to_string().contains("restore the folder from a backup"), "{error}");
        }
    }

    #[test]
    fn an_opening_that_was_killed_is_no_damage() {
        let folder = tempfile::tempdir().unwrap();
        // The first opening, within its configuration.
        std::fs::write(folder.path().join("conf"), "segment_size: 83").unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        engine.commit(Writes::from([(vec![b'z'], Some(vec![1]))])).unwrap();
        drop(engine);
        // A later one, within the snapshot that it makes.
        std::fs::write(folder.path().join("snap.7FFFFFFFFFFFFFFF.generating"), [0; 40]).unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert!(engine.get_raw(b"z").unwrap().is_some());
    }

    #[test]
    fn a_close_after_much_work_notes_where_the_pages_lie() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            let is_snapshot = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("snap.");
            names.filter(is_snapshot).collect::<Vec<_>>()
        };
        for (committed, noted) in [(COMMITTED_FOR_SNAPSHOT - 1, false), (COMMITTED_FOR_SNAPSHOT, true)] {
            let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
            let opened = names();
            engine.commit(Writes::from([(vec![b'z', u8::from(noted)], Some(vec![1]))])).unwrap();
            engine.at_close.committed.store(committed, Ordering::Relaxed);
            drop(engine);
            assert_eq!(names() != opened, noted, "{committed}");
        }
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert_eq!(engine.scan(keys::all(b'z')).count(), 2);
    }

    #[test]
    fn a_newer_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        engine.commit(Writes::from([(keys::SCHEMA.to_vec(), Some(9_u32.to_be_bytes().to_vec()))])).unwrap();
        drop(engine);
        let error = Engine::open(folder.path(), CACHE, &policy()).err().unwrap();
        assert!(matches!(error, OpenError::Schema { found: 9 }), "{error}");
    }

    #[test]
    fn what_was_committed_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        let large = Garbage { job: JobId::from_bytes([0; 16]), names: vec!["a".repeat(50 * 1024)] };
        let value = records::encode(&large).unwrap();
        let puts = (0..40_u8).map(|n| (vec![b'z', n], Some(value.clone())));
        engine.commit(puts.collect()).unwrap();
        engine.commit(Writes::from([(vec![b'z', 3], None)])).unwrap();
        engine.sync().unwrap();
        drop(engine);
        let engine = Engine::open(folder.path(), CACHE, &policy()).unwrap();
        assert_eq!(engine.scan_values::<Garbage>(keys::all(b'z'), 100).unwrap().len(), 39);
        // Values of this size must stay in the log: sled never syncs what it keeps in files of its own.
        let blobs = std::fs::read_dir(folder.path().join("blobs")).unwrap().count();
        assert_eq!(blobs, 0);
    }
}
