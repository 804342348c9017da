//! The file being read: checked as a whole, then taken in.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tar::{Archive, Entry, EntryType};
use tokio::runtime::Handle;

use super::{
    BackupError, ENCRYPTION_KEY, END, End, FORMAT, HEADER, Hashing, Header, KeyFiles, PICTURES, Picture,
    Progress, RECORDS, SIGNING_SECRET, Summary, pictures_of,
};
use crate::blobs::Blobs;
use crate::domain::secret::KeyId;
use crate::service::vault::Vault;
use crate::store::{Record, Store};

/// More than any file but a picture has: one of records ends with the line that makes it 4 MiB.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// Read at once from a picture.
const BUFFER: usize = 256 * 1024;

/// Reads the whole file and says what it holds, if every byte is as it was written. It blocks.
pub fn check(file: &Path, progress: &mut dyn FnMut(Progress)) -> Result<Summary, BackupError> {
    walk(file, &mut |_, _| Ok(()), progress).map(|(summary, _)| summary)
}

/// Takes in a file that was checked: pictures first, then records, so that no job is there before its pictures.
/// Returns the keys that are in it. It blocks, on a thread of the runtime that may.
pub fn import(
    file: &Path,
    store: &dyn Store,
    blobs: &Blobs,
    now: Timestamp,
    progress: &mut dyn FnMut(Progress),
) -> Result<KeyFiles, BackupError> {
    let runtime = Handle::current();
    let mut import = runtime.block_on(store.import())?;
    let mut keep = |picture: &Picture, content: &mut dyn Read| {
        let kept = keep(blobs, &runtime, picture, content);
        kept.map_err(BackupError::io("a picture cannot be stored"))
    };
    let (_, keys) = walk(file, &mut keep, progress)?;
    let mut archive = open(file)?;
    for entry in archive.entries_with_seek().map_err(unreadable)? {
        let Some(records) = records_of(&mut entry.map_err(unreadable)?)? else { continue };
        runtime.block_on(import.put(records))?;
    }
    runtime.block_on(import.finish(now))?;
    Ok(keys)
}

fn keep(blobs: &Blobs, runtime: &Handle, picture: &Picture, content: &mut dyn Read) -> io::Result<()> {
    let mut upload = runtime.block_on(blobs.receive())?;
    let mut buffer = vec![0; BUFFER];
    loop {
        match content.read(&mut buffer)? {
            0 => break,
            n => runtime.block_on(upload.write(&buffer[..n]))?,
        }
    }
    runtime.block_on(async { upload.finish().await?.store(blobs, picture.job, &picture.name).await })?;
    Ok(())
}

type OnPicture<'a> = dyn FnMut(&Picture, &mut dyn Read) -> Result<(), BackupError> + 'a;

/// Goes through the file once, and through its jobs a second time beside the pictures, which come in their order.
fn walk(
    file: &Path,
    on_picture: &mut OnPicture<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<(Summary, KeyFiles), BackupError> {
    let mut beside = open(file)?;
    let mut expected = beside
        .entries_with_seek()
        .map_err(unreadable)?
        .map(|entry| records_of(&mut entry.map_err(unreadable)?))
        .filter_map(Result::transpose)
        // Where a file has no job, the jobs are at their end.
        .take_while(|records| records.as_ref().map_or(true, |records| records.iter().any(is_job)))
        .flat_map(|records| records.map_or_else(|error| vec![Err(error)], |records| named(&records)));
    let mut archive = open(file)?;
    let mut entries = archive.entries().map_err(unreadable)?;
    let mut pass = Pass::default();
    let mut first = entries.next().ok_or(BackupError::NotAnExport)?.map_err(|_| BackupError::NotAnExport)?;
    let header = pass.header(&mut first)?;
    for entry in entries {
        pass.entry(&mut entry.map_err(unreadable)?, &mut expected, on_picture)?;
        progress(pass.done);
    }
    let end = pass.end.take().ok_or(BackupError::CutOff)?;
    for picture in expected {
        picture?;
        pass.missing += 1;
    }
    pass.compare_with(&end)?;
    let summary = Summary {
        created_at: header.created_at,
        darkroom: header.darkroom,
        records: pass.done.records,
        pictures: pass.done.pictures,
        bytes: pass.done.bytes,
        missing: pass.missing,
        missing_pictures: end.missing_pictures,
        signing_secret: pass.keys.signing_secret.is_some(),
        encryption_key: pass.keys.encryption_key.is_some(),
        needed_keys: pass.needed_keys(),
    };
    Ok((summary, pass.keys))
}

/// What was found so far.
#[derive(Default)]
struct Pass {
    done: Progress,
    missing: u64,
    keys: KeyFiles,
    sealed_by: Vec<KeyId>,
    /// Over every file before the pictures.
    digest: Sha256,
    end: Option<End>,
}

impl Pass {
    fn header(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<Header, BackupError> {
        if name_of(entry)? != HEADER {
            return Err(BackupError::NotAnExport);
        }
        let content = small(entry)?;
        self.digest.update(&content);
        let header: Header = json(HEADER, &content)?;
        if header.format > FORMAT { Err(BackupError::Format { found: header.format }) } else { Ok(header) }
    }

    fn entry(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        expected: &mut dyn Iterator<Item = Result<Picture, BackupError>>,
        on_picture: &mut OnPicture<'_>,
    ) -> Result<(), BackupError> {
        let name = name_of(entry)?;
        if self.end.is_some() {
            return Err(damaged(&name, "stands behind the end"));
        }
        if name.starts_with(PICTURES) {
            // Those in between were missing when the export was made.
            let picture = loop {
                let picture = expected.next().unwrap_or_else(|| Err(damaged(&name, "belongs to no job")))?;
                if picture.path() == name {
                    break picture;
                }
                self.missing += 1;
            };
            compare(&picture, entry, on_picture)?;
            self.done.pictures += 1;
            self.done.bytes += picture.bytes;
            return Ok(());
        }
        let content = small(entry)?;
        match name.as_str() {
            END => self.end = Some(json(END, &content)?),
            SIGNING_SECRET => {
                let secret = std::str::from_utf8(&content).ok().and_then(|text| text.trim().parse().ok());
                self.keys.signing_secret = Some(secret.ok_or_else(|| damaged(&name, "is none"))?);
                self.digest.update(&content);
            }
            ENCRYPTION_KEY => {
                let key = std::str::from_utf8(&content).ok().and_then(|text| text.trim().parse().ok());
                self.keys.encryption_key = Some(key.ok_or_else(|| damaged(&name, "is none"))?);
                self.digest.update(&content);
            }
            _ if name.starts_with(RECORDS) => {
                let records = records(&name, &content)?;
                self.done.records += records.len() as u64;
                for record in &records {
                    if let Record::Meta { keyring, .. } = record {
                        self.sealed_by.clone_from(&keyring.sealed_by);
                    }
                }
                self.digest.update(&content);
            }
            _ => return Err(damaged(&name, "does not belong there")),
        }
        Ok(())
    }

    fn needed_keys(&self) -> Vec<String> {
        let inside = self.keys.encryption_key.as_ref().map(Vault::id_of);
        self.sealed_by.iter().filter(|id| inside != Some(**id)).map(KeyId::to_string).collect()
    }

    fn compare_with(&self, end: &End) -> Result<(), BackupError> {
        if self.digest.clone().finalize()[..] != end.sha256 {
            return Err(damaged(END, "names another hash"));
        }
        let Progress { records, pictures, .. } = self.done;
        let counted = (records, pictures, self.missing);
        if counted == (end.records, end.pictures, end.missing) {
            Ok(())
        } else {
            Err(damaged(END, "counts otherwise"))
        }
    }
}

/// Hands the picture on, and sees whether it is the one that its job names.
fn compare(
    picture: &Picture,
    entry: &mut Entry<'_, impl Read>,
    on_picture: &mut OnPicture<'_>,
) -> Result<(), BackupError> {
    let mut content = Hashing::new(entry);
    on_picture(picture, &mut content)?;
    io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
    if content.bytes < content.inner.size() {
        return Err(BackupError::CutOff);
    }
    if content.bytes == picture.bytes && content.digest.finalize()[..] == picture.sha256 {
        Ok(())
    } else {
        Err(damaged(&picture.path(), "is not the picture that its job names"))
    }
}

fn open(file: &Path) -> Result<Archive<BufReader<File>>, BackupError> {
    let file = File::open(file).map_err(BackupError::io("the export cannot be opened"))?;
    Ok(Archive::new(BufReader::with_capacity(BUFFER, file)))
}

/// The records of a file of records.
fn records_of(entry: &mut Entry<'_, impl Read>) -> Result<Option<Vec<Record>>, BackupError> {
    let name = name_of(entry)?;
    if name.starts_with(RECORDS) { records(&name, &small(entry)?).map(Some) } else { Ok(None) }
}

fn records(name: &str, content: &[u8]) -> Result<Vec<Record>, BackupError> {
    let lines = content.strip_suffix(b"\n").unwrap_or(content).split(|byte| *byte == b'\n');
    let records = (1..).zip(lines).map(|(number, line)| {
        let wrong = |problem: &str| damaged(&format!("line {number} of {name}"), problem);
        // What the parser says may repeat what it read, and there are secrets in it.
        let record = serde_json::from_slice(line).map_err(|_| wrong("is not a record"))?;
        if names_of(&record).all(is_plain) {
            Ok(record)
        } else {
            Err(wrong("names a picture as none is named"))
        }
    });
    records.collect()
}

/// What becomes part of a file's path.
fn names_of(record: &Record) -> impl Iterator<Item = &str> {
    let (job, garbage) = match record {
        Record::Job(job) => (Some(job), None),
        Record::Garbage(garbage) => (None, Some(garbage)),
        _ => (None, None),
    };
    let wanted = job.into_iter().flat_map(|job| job.variants.iter().map(|variant| variant.name.as_str()));
    let made = job.into_iter().flat_map(|job| job.artifacts.iter().map(|artifact| artifact.name.as_str()));
    wanted.chain(made).chain(garbage.into_iter().flat_map(|garbage| garbage.names.iter().map(String::as_str)))
}

fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_job(record: &Record) -> bool {
    matches!(record, Record::Job(_))
}

fn named(records: &[Record]) -> Vec<Result<Picture, BackupError>> {
    let jobs =
        records.iter().filter_map(|record| if let Record::Job(job) = record { Some(job) } else { None });
    jobs.flat_map(|job| pictures_of(job)).map(Ok).collect()
}

fn name_of(entry: &Entry<'_, impl Read>) -> Result<String, BackupError> {
    let path = entry.path().map_err(unreadable)?;
    let name = path.to_str().map(str::to_owned);
    name.filter(|_| entry.header().entry_type() == EntryType::Regular)
        .ok_or_else(|| BackupError::Damaged("it has something in it that is no plain file".to_owned()))
}

/// The content of what is no picture.
fn small(entry: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, BackupError> {
    let size = entry.size();
    if size > MAX_FILE_BYTES {
        return Err(BackupError::Damaged(format!("it has a file of {size} bytes in it that is no picture")));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(unreadable)?;
    if (content.len() as u64) < size { Err(BackupError::CutOff) } else { Ok(content) }
}

fn json<T: DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, BackupError> {
    serde_json::from_slice(content).map_err(|_| damaged(name, "cannot be read"))
}

fn damaged(what: &str, problem: &str) -> BackupError {
    BackupError::Damaged(format!("{what} {problem}"))
}

/// The tar reader tells a file that ends early and one that makes no sense apart by the kind alone.
fn unreadable(error: io::Error) -> BackupError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => BackupError::CutOff,
        io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            BackupError::Damaged(error.to_string())
        }
        _ => BackupError::io("the export cannot be read")(error),
    }
}
