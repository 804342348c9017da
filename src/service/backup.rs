//! Backups: a whole store and its pictures in one tar file, and back.
//!
//! ```text
//! darkroom-export.json     the format's version, when and by which Darkroom
//! signing-secret           where the data folder has one
//! encryption-key           where the data folder has one: what opens the sealed secrets in the records
//! records/000001.jsonl …   one record a line, all jobs first; 4 MiB each
//! blobs/<job>/<name> …     the pictures, in the order in which the jobs name them
//! end.json                 how much there was to be, and the SHA-256 over everything before the pictures
//! ```
//!
//! Records are told as of one moment; pictures never change. Each is checked against its job's hash before it goes
//! in, and the whole file before any of it comes out. Memory does not grow with the store.

use std::io::{self, Read};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::blobs::ORIGINAL;
use crate::domain::hex::hash;
use crate::domain::id::JobId;
use crate::domain::job::Job;
use crate::domain::secret::{EncryptionKey, SigningSecret};
use crate::store::StoreError;

mod read;
mod stream;
mod write;

pub use read::{check, import};
pub use write::{Source, write};

/// The version of the format. One that older records cannot be read with is another.
const FORMAT: u32 = 5;

const HEADER: &str = "darkroom-export.json";
const SIGNING_SECRET: &str = "signing-secret";
const ENCRYPTION_KEY: &str = "encryption-key";
const RECORDS: &str = "records/";
const PICTURES: &str = "blobs/";
const END: &str = "end.json";

/// Missing pictures that are named; the others are counted.
const NAMED: usize = 1000;

/// Why a backup was not made, or not taken.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The store failed, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file failed.
    #[error("{what}")]
    Io {
        /// What could not be done.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is something else.
    #[error("this is no export of Darkroom")]
    NotAnExport,
    /// It was written by a later version.
    #[error(
        "the export has format version {found}, and this darkroom reads versions up to {FORMAT}; use a later one"
    )]
    Format {
        /// Which version.
        found: u32,
    },
    /// Its end is missing.
    #[error("the export is cut off")]
    CutOff,
    /// It does not hold what was written.
    #[error("the export is damaged: {0}")]
    Damaged(String),
}

impl BackupError {
    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Records so far.
    pub records: u64,
    /// Pictures so far.
    pub pictures: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What an export holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// When it was begun.
    pub created_at: Timestamp,
    /// The version of Darkroom that wrote it.
    pub darkroom: String,
    /// Records of all kinds.
    pub records: u64,
    /// Pictures.
    pub pictures: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pictures that were to be there and are not.
    pub missing: u64,
    /// Which, and why; the first thousand.
    pub missing_pictures: Vec<Missing>,
    /// Whether the data folder's signing secret is in it.
    pub signing_secret: bool,
    /// Whether the data folder's encryption key is in it.
    pub encryption_key: bool,
    /// The encryption keys that are needed besides.
    pub needed_keys: Vec<String>,
}

/// The files of a data folder that are in its export.
#[derive(Debug, Default)]
pub struct KeyFiles {
    /// The newest signing secret.
    pub signing_secret: Option<SigningSecret>,
    /// What opens the sealed secrets.
    pub encryption_key: Option<EncryptionKey>,
}

/// A picture that is not in the export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Whose.
    pub job: JobId,
    /// Which.
    pub name: String,
    /// What was found instead.
    pub reason: String,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    created_at: Timestamp,
    darkroom: String,
}

#[derive(Serialize, Deserialize)]
struct End {
    records: u64,
    pictures: u64,
    missing: u64,
    missing_pictures: Vec<Missing>,
    #[serde(with = "hash")]
    sha256: [u8; 32],
}

/// A picture as its job describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Picture {
    job: JobId,
    name: String,
    bytes: u64,
    #[serde(with = "hash")]
    sha256: [u8; 32],
}

impl Picture {
    fn path(&self) -> String {
        format!("{PICTURES}{}/{}", self.job, self.name)
    }
}

fn pictures_of(job: &Job) -> impl Iterator<Item = Picture> + use<> {
    let original = job.input.as_ref().map(|input| (ORIGINAL.to_owned(), input.bytes, input.sha256));
    let made = job.artifacts.iter().map(|artifact| (artifact.name.clone(), artifact.bytes, artifact.sha256));
    let all: Vec<_> = original.into_iter().chain(made).collect();
    let job = job.id;
    all.into_iter().map(move |(name, bytes, sha256)| Picture { job, name, bytes, sha256 })
}

/// Hashes what is read through it.
struct Hashing<R> {
    inner: R,
    digest: Sha256,
    bytes: u64,
}

impl<R> Hashing<R> {
    fn new(inner: R) -> Self {
        Self { inner, digest: Sha256::new(), bytes: 0 }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.digest.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}
