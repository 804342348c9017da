//! Image bytes in a local folder, durable before anyone is told of them.
//!
//! ```text
//! uploads/<random>.part            being received; nothing refers to it, and opening clears what is left
//! blobs/<2 hex digits>/<job>.<name>    original and artifacts
//! ```
//!
//! A blob is written, synced, renamed into place, and its folder is synced; only then does the caller go on.

use std::collections::BTreeMap;
use std::fs::File as StdFile;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt;

use crate::clock::entropy;
use crate::domain::id::JobId;

/// Fewer, larger writes while an upload trickles in. The buffer grows with what has come, so that one that sends
/// nothing costs nothing.
const WRITE_BUFFER: usize = 256 * 1024;

/// The name of the picture as it came in.
pub const ORIGINAL: &str = "original";

/// Bytes after which an upload looks again whether there is room for it.
const LOOK_EVERY: u64 = 1024 * 1024;

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
    /// What is to stay free of the disk, in bytes. Artifacts of accepted jobs may use half of it.
    reserve: u64,
}

/// What was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 (FIPS 180-4).
    pub sha256: [u8; 32],
}

impl Blobs {
    /// Opens the folder, or makes it, and clears uploads that a process left when it died. It blocks.
    ///
    /// `reserve` bytes of the disk are left free, or an eighth of it where that is less.
    pub fn open(root: &Path, reserve: u64) -> io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let reserve = fs4::total_space(root).map_or(reserve, |total| reserve.min(total / 8));
        let blobs = Self { root: root.to_owned(), reserve };
        let uploads = blobs.uploads();
        std::fs::create_dir_all(&uploads)?;
        for entry in std::fs::read_dir(&uploads)? {
            std::fs::remove_file(entry?.path())?;
        }
        for shard in 0..=u8::MAX {
            std::fs::create_dir_all(blobs.shard(shard))?;
        }
        for folder in [&root.join("blobs"), root] {
            sync_folder(folder)?;
        }
        Ok(blobs)
    }

    /// Whether there is room for new pictures; [`io::ErrorKind::StorageFull`] when there is none.
    pub fn check_room(&self) -> io::Result<()> {
        check_room(&self.root, self.reserve)
    }

    /// Whether there is room for one more of so many bytes.
    pub fn check_room_for(&self, bytes: u64) -> io::Result<()> {
        check_room(&self.root, self.reserve.saturating_add(bytes))
    }

    /// Whether there is room for artifacts of jobs that were accepted.
    pub fn check_room_for_artifacts(&self) -> io::Result<()> {
        check_room(&self.root, self.reserve / 2)
    }

    /// Begins to receive a blob. Dropped before [`Upload::store`], it leaves nothing behind.
    pub async fn receive(&self) -> io::Result<Upload> {
        self.begin(self.reserve).await
    }

    async fn begin(&self, reserve: u64) -> io::Result<Upload> {
        check_room(&self.root, reserve)?;
        let path = self.new_part();
        // In one piece with what deletes it: a caller that goes away meanwhile leaves nothing either.
        let (file, part) = blocking(move || {
            let file = StdFile::options().write(true).create_new(true).open(&path)?;
            Ok((file, Part { path, stored: false }))
        })
        .await?;
        let room = (self.root.clone(), reserve);
        Ok(Upload {
            file: File::from_std(file),
            buffer: Vec::new(),
            part,
            hash: Sha256::new(),
            bytes: 0,
            room,
        })
    }

    /// Stores a whole blob.
    pub async fn put(&self, job: JobId, name: &str, bytes: &[u8]) -> io::Result<Stored> {
        let mut upload = self.begin(self.reserve / 2).await?;
        upload.write(bytes).await?;
        upload.finish().await?.store(self, job, name).await
    }

    /// A file for what does not fit into memory; it has no name and is gone when it is closed. It blocks.
    pub fn scratch(&self) -> io::Result<StdFile> {
        let path = self.new_part();
        let file = StdFile::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    /// Opens a blob for reading; the second value is its size in bytes.
    pub async fn get(&self, job: JobId, name: &str) -> io::Result<(File, u64)> {
        let file = File::open(self.path(job, name)).await?;
        let bytes = file.metadata().await?.len();
        Ok((file, bytes))
    }

    /// Reads a whole blob.
    pub async fn read(&self, job: JobId, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(job, name)).await
    }

    /// Deletes a blob; one that is not there is deleted already.
    pub async fn delete(&self, job: JobId, name: &str) -> io::Result<()> {
        match fs::remove_file(self.path(job, name)).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// The blobs of one of the 256 folders: their jobs, each with the names of its blobs.
    pub async fn in_shard(&self, shard: u8) -> io::Result<BTreeMap<JobId, Vec<String>>> {
        let mut found: BTreeMap<JobId, Vec<String>> = BTreeMap::new();
        let mut entries = fs::read_dir(self.shard(shard)).await?;
        while let Some(entry) = entries.next_entry().await? {
            let file = entry.file_name();
            // What has another form is not ours to judge.
            let parts = file.to_str().and_then(|file| file.split_once('.'));
            if let Some((Ok(job), name)) = parts.map(|(job, name)| (job.parse(), name)) {
                found.entry(job).or_default().push(name.to_owned());
            }
        }
        Ok(found)
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn new_part(&self) -> PathBuf {
        let name = u128::from_le_bytes(entropy());
        self.uploads().join(format!("{name:032x}.part"))
    }

    /// An id ends in random digits, so the last two spread blobs evenly over 256 folders.
    fn path(&self, job: JobId, name: &str) -> PathBuf {
        self.shard(job.as_bytes()[15]).join(format!("{job}.{name}"))
    }

    fn shard(&self, shard: u8) -> PathBuf {
        self.root.join(format!("blobs/{shard:02x}"))
    }
}

/// A blob being received.
#[derive(Debug)]
pub struct Upload {
    file: File,
    buffer: Vec<u8>,
    part: Part,
    hash: Sha256,
    bytes: u64,
    /// Where, and how much is to stay free there.
    room: (PathBuf, u64),
}

impl Upload {
    /// Appends.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        let before = self.bytes;
        self.bytes += bytes.len() as u64;
        if self.bytes / LOOK_EVERY != before / LOOK_EVERY {
            check_room(&self.room.0, self.room.1)?;
        }
        if self.buffer.len() + bytes.len() < WRITE_BUFFER {
            self.buffer.extend_from_slice(bytes);
            return Ok(());
        }
        self.write_out().await?;
        self.file.write_all(bytes).await
    }

    async fn write_out(&mut self) -> io::Result<()> {
        self.file.write_all(&self.buffer).await?;
        self.buffer.clear();
        Ok(())
    }

    /// How many bytes came in so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything is there: syncs it to disk.
    pub async fn finish(mut self) -> io::Result<Received> {
        self.write_out().await?;
        self.file.flush().await?;
        self.file.sync_all().await?;
        let stored = Stored { bytes: self.bytes, sha256: self.hash.finalize().into() };
        Ok(Received { part: self.part, stored })
    }
}

/// A blob that was received whole and synced, but has no name yet.
#[derive(Debug)]
pub struct Received {
    part: Part,
    stored: Stored,
}

impl Received {
    /// What was received.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.stored
    }

    /// Opens it for reading. It blocks.
    pub fn open(&self) -> io::Result<StdFile> {
        StdFile::open(&self.part.path)
    }

    /// Gives it its name; afterwards it survives a power cut. When it fails, nothing is left.
    pub async fn store(self, blobs: &Blobs, job: JobId, name: &str) -> io::Result<Stored> {
        let path = blobs.path(job, name);
        // In one piece: a caller that goes away meanwhile leaves a whole blob or none.
        blocking(move || {
            self.part.rename(&path)?;
            let synced = path.parent().map_or(Ok(()), sync_folder);
            if synced.is_err()
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::error!(%error, path = %path.display(), "a blob that is not durable could not be deleted");
            }
            synced.map(|()| self.stored)
        })
        .await
    }
}

fn check_room(folder: &Path, reserve: u64) -> io::Result<()> {
    // A system that cannot say finds out when it writes.
    match fs4::available_space(folder) {
        Ok(free) if free < reserve => Err(io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    StdFile::open(folder)?.sync_all()
}

/// Runs `work` where it may wait for the disk, to its end, whether or not anyone still waits for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A file in `uploads/`, deleted on drop unless it was stored.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    stored: bool,
}

impl Part {
    fn rename(mut self, to: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, to)?;
        self.stored = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.stored
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "an abandoned upload could not be deleted");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn job() -> JobId {
        JobId::new(Timestamp::UNIX_EPOCH, &[5; 10])
    }

    fn uploads(root: &Path) -> usize {
        std::fs::read_dir(root.join("uploads")).unwrap().count()
    }

    #[tokio::test]
    async fn a_blob_reads_back_with_its_hash() {
        let root = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(root.path(), 0).unwrap();
        let stored = blobs.put(job(), "preview", b"abc").await.unwrap();
        assert_eq!(stored.bytes, 3);
        // The test vector of FIPS 180-4 for "abc".
        assert_eq!(stored.sha256[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(blobs.read(job(), "preview").await.unwrap(), b"abc");
        assert_eq!(blobs.get(job(), "preview").await.unwrap().1, 3);
        assert_eq!(uploads(root.path()), 0);
        blobs.delete(job(), "preview").await.unwrap();
        blobs.delete(job(), "preview").await.unwrap();
        assert_eq!(blobs.read(job(), "preview").await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn an_abandoned_upload_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(root.path(), 0).unwrap();
        let mut upload = blobs.receive().await.unwrap();
        upload.write(b"abc").await.unwrap();
        assert_eq!(uploads(root.path()), 1);
        drop(upload);
        assert_eq!(uploads(root.path()), 0);
        drop(blobs.receive().await.unwrap().finish().await.unwrap());
        assert_eq!(uploads(root.path()), 0);
    }

    #[test]
    fn a_scratch_file_has_no_name() {
        use std::io::{Read as _, Seek as _, Write as _};

        let root = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(root.path(), 0).unwrap();
        let mut file = blobs.scratch().unwrap();
        assert_eq!(uploads(root.path()), 0);
        file.write_all(b"abc").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[tokio::test]
    async fn opening_clears_what_a_killed_process_left() {
        let root = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(root.path(), 0).unwrap();
        std::mem::forget(blobs.receive().await.unwrap());
        assert_eq!(uploads(root.path()), 1);
        Blobs::open(root.path(), 0).unwrap();
        assert_eq!(uploads(root.path()), 0);
    }
}
