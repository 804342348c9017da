//! Image bytes in a local folder, durable before anyone is told of them.
//!
//! ```text
//! uploads/<random>.part            being received; nothing refers to it, and opening clears what is left
//! blobs/<2 hex digits>/<job>.<name>    original and artifacts
//! ```
//!
//! A blob is written, synced, renamed into place, and its folder is synced; only then does the caller go on.

use std::fs::File as StdFile;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::clock::entropy;
use crate::domain::id::JobId;

/// Fewer, larger writes while an upload trickles in.
const WRITE_BUFFER: usize = 256 * 1024;

/// The name of the picture as it came in.
pub const ORIGINAL: &str = "original";

/// A folder of blobs.
#[derive(Debug, Clone)]
pub struct Blobs {
    root: PathBuf,
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
    pub fn open(root: &Path) -> io::Result<Self> {
        let blobs = Self { root: root.to_owned() };
        let uploads = blobs.uploads();
        std::fs::create_dir_all(&uploads)?;
        for entry in std::fs::read_dir(&uploads)? {
            std::fs::remove_file(entry?.path())?;
        }
        for shard in 0..=u8::MAX {
            std::fs::create_dir_all(root.join(format!("blobs/{shard:02x}")))?;
        }
        for folder in [&root.join("blobs"), root] {
            StdFile::open(folder)?.sync_all()?;
        }
        Ok(blobs)
    }

    /// Begins to receive a blob. Dropped before [`Upload::store`], it leaves nothing behind.
    pub async fn receive(&self) -> io::Result<Upload> {
        let path = self.new_part();
        let file = File::options().read(true).write(true).create_new(true).open(&path).await?;
        Ok(Upload {
            file: BufWriter::with_capacity(WRITE_BUFFER, file),
            part: Part { path, stored: false },
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    /// Stores a whole blob.
    pub async fn put(&self, job: JobId, name: &str, bytes: &[u8]) -> io::Result<Stored> {
        let mut upload = self.receive().await?;
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

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn new_part(&self) -> PathBuf {
        let name = u128::from_le_bytes(entropy());
        self.uploads().join(format!("{name:032x}.part"))
    }

    /// An id ends in random digits, so the last two spread blobs evenly over 256 folders.
    fn path(&self, job: JobId, name: &str) -> PathBuf {
        let shard = job.as_bytes()[15];
        self.root.join(format!("blobs/{shard:02x}/{job}.{name}"))
    }
}

/// A blob being received.
#[derive(Debug)]
pub struct Upload {
    file: BufWriter<File>,
    part: Part,
    hash: Sha256,
    bytes: u64,
}

impl Upload {
    /// Appends.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// How many bytes came in so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Everything is there: syncs it to disk.
    pub async fn finish(mut self) -> io::Result<Received> {
        self.file.flush().await?;
        self.file.get_ref().sync_all().await?;
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

    /// Gives it its name; afterwards it survives a power cut.
    pub async fn store(mut self, blobs: &Blobs, job: JobId, name: &str) -> io::Result<Stored> {
        let path = blobs.path(job, name);
        fs::rename(&self.part.path, &path).await?;
        self.part.stored = true;
        if let Some(folder) = path.parent() {
            File::open(folder).await?.sync_all().await?;
        }
        Ok(self.stored)
    }
}

/// A file in `uploads/`, deleted on drop unless it was stored.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    stored: bool,
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
        let blobs = Blobs::open(root.path()).unwrap();
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
        let blobs = Blobs::open(root.path()).unwrap();
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
        let blobs = Blobs::open(root.path()).unwrap();
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
        let blobs = Blobs::open(root.path()).unwrap();
        std::mem::forget(blobs.receive().await.unwrap());
        assert_eq!(uploads(root.path()), 1);
        Blobs::open(root.path()).unwrap();
        assert_eq!(uploads(root.path()), 0);
    }
}
