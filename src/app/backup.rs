//! Export and import of a data folder on which no service runs.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;

use super::StartError;
use super::files::open_store;
use crate::clock::Clock;
use crate::config::{Config, Storage};
pub use crate::service::backup::{BackupError, Missing, Progress, Summary};
use crate::service::{backup, keyfile};
use crate::store::sled::OpenError;
use crate::store::{Store, StoreError};

/// The file in a data folder that says: an import was begun here.
const UNFINISHED: &str = "import-unfinished";
const BUFFER: usize = 256 * 1024;

/// Why there is no export, or no import.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is nothing to export.
    #[error("there is no store in {}; name another folder with --data-dir", .0.display())]
    NoStore(PathBuf),
    /// An import takes an empty folder.
    #[error(
        "{} is there already, and an import is for a folder without a store; name another one with --data-dir",
        .0.display()
    )]
    Occupied(PathBuf),
    /// The data folder does not open.
    #[error(transparent)]
    Open(#[from] StartError),
    /// The export or the import failed.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// An import failed on the way.
    #[error(
        "the import was not finished, and {} is of no use: empty it and import again",
        folder.display()
    )]
    BrokenOff {
        /// Where to.
        folder: PathBuf,
        /// Why.
        source: Box<Error>,
    },
}

impl Error {
    /// Whether a running service has the store: it can be asked for the same file.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Open(StartError::Store(OpenError::Locked(_))))
    }
}

/// Writes everything in the data folder to `out`.
pub async fn export(
    config: Config,
    clock: Clock,
    out: File,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> Result<(), Error> {
    blocking(move || {
        let storage = &config.storage;
        if !is_filled(&storage.store_dir()).map_err(at(&storage.data_dir))? {
            return Err(Error::NoStore(storage.data_dir.clone()));
        }
        refuse_unfinished(storage)?;
        let (store, blobs) = open_store(&config, source(&config), &clock)?;
        let (store, runtime): (Arc<dyn Store>, _) = (Arc::new(store), Handle::current());
        let source = backup::Source {
            blobs,
            signing_secret_file: storage.signing_secret_file(),
            encryption_key_file: storage.encryption_key_file(),
            created_at: clock.now(),
        };
        let out = BufWriter::with_capacity(BUFFER, out);
        let written = runtime
            .block_on(store.export())
            .map_err(BackupError::from)
            .and_then(|export| backup::write(export, &source, out, &mut progress));
        runtime.block_on(store.close());
        Ok(written?)
    })
    .await
}

/// Reads an export from beginning to end and says what it holds.
pub async fn check(
    file: PathBuf,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Summary, Error> {
    blocking(move || Ok(backup::check(&file, &mut progress)?)).await
}

/// Whether an export can be taken into the data folder.
pub fn check_vacancy(storage: &Storage) -> Result<(), Error> {
    refuse_unfinished(storage)?;
    for path in [
        storage.store_dir(),
        storage.blobs_dir(),
        storage.signing_secret_file(),
        storage.encryption_key_file(),
    ] {
        if is_filled(&path).map_err(at(&path))? {
            return Err(Error::Occupied(path));
        }
    }
    Ok(())
}

/// Takes a checked export into the data folder, which must hold none of its own.
pub async fn import(
    config: Config,
    clock: Clock,
    file: PathBuf,
    mut progress: impl FnMut(Progress) + Send + 'static,
) -> Result<(), Error> {
    blocking(move || {
        check_vacancy(&config.storage)?;
        let folder = &config.storage.data_dir;
        let mark = folder.join(UNFINISHED);
        let begin = || {
            std::fs::create_dir_all(folder)?;
            // Fails where another import has just begun.
            File::create_new(&mark)?.sync_all()?;
            File::open(folder)?.sync_all()
        };
        begin().map_err(at(folder))?;
        fill(&config, &clock, &file, &mut progress)
            .map_err(|error| Error::BrokenOff { folder: folder.clone(), source: Box::new(error) })?;
        let end = || {
            std::fs::remove_file(&mark)?;
            File::open(folder)?.sync_all()
        };
        Ok(end().map_err(at(folder))?)
    })
    .await
}

fn fill(
    config: &Config,
    clock: &Clock,
    file: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), Error> {
    let (store, blobs) = open_store(config, source(config), clock)?;
    let imported = backup::import(file, &store, &blobs, clock.now(), progress);
    Handle::current().block_on(store.close());
    let backup::KeyFiles { signing_secret, encryption_key } = imported?;
    let secret = signing_secret.map(|it| (config.storage.signing_secret_file(), it.expose_text()));
    let key = encryption_key.map(|it| (config.storage.encryption_key_file(), it.expose_text()));
    for (path, text) in secret.into_iter().chain(key) {
        keyfile::write(&path, &text).map_err(at(&path))?;
    }
    Ok(())
}

/// A folder whose import did not come to its end has a part of the jobs, or jobs without pictures.
pub(super) fn refuse_unfinished(storage: &Storage) -> Result<(), StartError> {
    let folder = &storage.data_dir;
    if folder.join(UNFINISHED).exists() { Err(StartError::Unfinished(folder.clone())) } else { Ok(()) }
}

/// What events of jobs whose worker is found dead have as their source, where no service listens.
pub(super) fn source(config: &Config) -> String {
    match config.server.public_base_url.trim_end_matches('/') {
        "" => format!("http://{}", config.server.listen),
        url => url.to_owned(),
    }
}

/// Whether there is a file, or a folder with something in it.
fn is_filled(path: &Path) -> io::Result<bool> {
    match std::fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(true),
        Err(error) => Err(error),
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Data { path, source }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(BackupError::from(StoreError::Engine(error.into())).into()))
}
