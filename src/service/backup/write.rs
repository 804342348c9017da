//! The file being written, from an export of the store and the pictures beside it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Seek as _, Write};
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;

use super::{
    BackupError, ENCRYPTION_KEY, END, End, FORMAT, HEADER, Hashing, Header, Missing, NAMED, Picture,
    Progress, RECORDS, SIGNING_SECRET, pictures_of,
};
use crate::blobs::Blobs;
use crate::store::{Export, Record};

/// Bytes after which a file of records is full.
const RECORD_FILE_BYTES: usize = 4 * 1024 * 1024;
/// Read at once from a picture.
const BUFFER: usize = 256 * 1024;

/// What is written besides the records.
pub struct Source {
    /// The pictures.
    pub blobs: Blobs,
    /// The data folder's signing secret, if it has one.
    pub signing_secret_file: PathBuf,
    /// The data folder's encryption key, if it has one.
    pub encryption_key_file: PathBuf,
    /// The time.
    pub created_at: Timestamp,
}

/// Writes everything. It blocks, on a thread of the runtime that may.
pub fn write(
    mut export: Box<dyn Export>,
    source: &Source,
    out: impl Write,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), BackupError> {
    let mut tar = Tar::new(out, source.created_at);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    tar.json(HEADER, &Header { format: FORMAT, created_at: source.created_at, darkroom: version })?;
    for (name, file) in
        [(SIGNING_SECRET, &source.signing_secret_file), (ENCRYPTION_KEY, &source.encryption_key_file)]
    {
        match std::fs::read(file) {
            Ok(secret) => tar.file(name, &secret)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::io("cannot read a file of keys")(error)),
        }
    }
    let mut done = Progress::default();
    let named = records(&mut *export, source, &mut tar, &mut done, progress)?;
    let sha256 = tar.digest.clone().finalize().into();
    let mut end =
        End { records: done.records, pictures: 0, missing: 0, missing_pictures: Vec::new(), sha256 };
    for line in named.lines() {
        let line = line.map_err(scratch_failed)?;
        let picture: Picture = serde_json::from_str(&line).map_err(|error| scratch_failed(error.into()))?;
        match intact(&source.blobs, &picture) {
            Ok(content) => {
                tar.picture(&picture, content)?;
                done.pictures += 1;
                done.bytes += picture.bytes;
                progress(done);
            }
            Err(reason) => {
                tracing::error!(job = %picture.job, picture = picture.name, reason, "left out of a backup");
                end.missing += 1;
                if end.missing_pictures.len() < NAMED {
                    end.missing_pictures.push(Missing { job: picture.job, name: picture.name, reason });
                }
            }
        }
    }
    end.pictures = done.pictures;
    tar.json(END, &end)?;
    tar.finish()
}

/// All records; what the jobs name is kept aside in a file, until it is their turn.
fn records<W: Write>(
    export: &mut dyn Export,
    source: &Source,
    tar: &mut Tar<W>,
    done: &mut Progress,
    progress: &mut dyn FnMut(Progress),
) -> Result<BufReader<File>, BackupError> {
    let mut named = BufWriter::new(source.blobs.scratch().map_err(scratch_failed)?);
    let mut lines = Vec::new();
    let mut files = 0;
    let mut flush = |lines: &mut Vec<u8>, tar: &mut Tar<W>| {
        files += 1;
        tar.file(&format!("{RECORDS}{files:06}.jsonl"), lines)?;
        lines.clear();
        Ok::<_, BackupError>(())
    };
    while let Some(records) = Handle::current().block_on(export.next())? {
        for record in records {
            if let Record::Job(job) = &record {
                for picture in pictures_of(job) {
                    let line = to_json(&picture)?;
                    named.write_all(&line).and_then(|()| named.write_all(b"\n")).map_err(scratch_failed)?;
                }
            }
            lines.extend(to_json(&record)?);
            lines.push(b'\n');
            done.records += 1;
            if lines.len() >= RECORD_FILE_BYTES {
                flush(&mut lines, tar)?;
            }
        }
        progress(*done);
    }
    if !lines.is_empty() {
        flush(&mut lines, tar)?;
    }
    let mut named = named.into_inner().map_err(|error| scratch_failed(error.into_error()))?;
    named.rewind().map_err(scratch_failed)?;
    Ok(BufReader::new(named))
}

/// The picture, if it is what its job says; else what it is instead.
fn intact(blobs: &Blobs, picture: &Picture) -> Result<File, String> {
    match hashed(blobs, picture) {
        Ok((file, bytes, sha256)) if bytes == picture.bytes && sha256 == picture.sha256 => Ok(file),
        Ok(_) => Err("its bytes are not those that its job names".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn hashed(blobs: &Blobs, picture: &Picture) -> io::Result<(File, u64, [u8; 32])> {
    let runtime = Handle::current();
    let (file, _) = runtime.block_on(blobs.get(picture.job, &picture.name))?;
    let file = runtime.block_on(file.into_std());
    let mut content = Hashing::new(BufReader::with_capacity(BUFFER, file));
    io::copy(&mut content, &mut io::sink())?;
    let mut file = content.inner.into_inner();
    file.rewind()?;
    Ok((file, content.bytes, content.digest.finalize().into()))
}

/// A tar file in the making.
struct Tar<W: Write> {
    builder: tar::Builder<W>,
    /// Over every file but the pictures.
    digest: Sha256,
    mtime: u64,
}

impl<W: Write> Tar<W> {
    fn new(out: W, created_at: Timestamp) -> Self {
        let mtime = u64::try_from(created_at.as_second()).unwrap_or(0);
        Self { builder: tar::Builder::new(out), digest: Sha256::new(), mtime }
    }

    fn json(&mut self, name: &str, value: &impl Serialize) -> Result<(), BackupError> {
        self.file(name, &to_json(value)?)
    }

    fn file(&mut self, name: &str, content: &[u8]) -> Result<(), BackupError> {
        self.digest.update(content);
        self.append(name, content.len() as u64, content)
    }

    fn picture(&mut self, picture: &Picture, content: File) -> Result<(), BackupError> {
        let content = BufReader::with_capacity(BUFFER, content);
        self.append(&picture.path(), picture.bytes, content.take(picture.bytes))
    }

    fn append(&mut self, name: &str, bytes: u64, content: impl Read) -> Result<(), BackupError> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes);
        // There are secrets in it.
        header.set_mode(0o600);
        header.set_mtime(self.mtime);
        self.builder
            .append_data(&mut header, name, content)
            .map_err(BackupError::io("cannot write the export"))
    }

    fn finish(self) -> Result<(), BackupError> {
        let written = self.builder.into_inner().and_then(|mut out| out.flush());
        written.map_err(BackupError::io("cannot write the export"))
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, BackupError> {
    serde_json::to_vec(value).map_err(|error| BackupError::io("cannot write the export")(error.into()))
}

fn scratch_failed(error: io::Error) -> BackupError {
    BackupError::io("cannot use a file in the data folder's uploads/")(error)
}
