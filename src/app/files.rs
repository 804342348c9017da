//! What lies in the data folder, opened.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::{StartError, backup, keys};
use crate::blobs::Blobs;
use crate::clock::Clock;
use crate::config::Config;
use crate::service::secrets::Keys;
use crate::store::Policy;
use crate::store::sled::{Options, SledStore};

const MIB: u64 = 1024 * 1024;

/// What lies in the data folder.
pub(super) struct Files {
    pub(super) store: SledStore,
    pub(super) blobs: Blobs,
    pub(super) keys: Keys,
}

/// Opens everything, or makes it. It blocks, on a thread of the runtime that may.
pub(super) fn open(config: &Config, source: String, clock: &Clock) -> Result<Files, StartError> {
    backup::refuse_unfinished(&config.storage)?;
    let (store, blobs) = open_store(config, source, clock)?;
    let keys = keys::open(config, &store, clock)?;
    Ok(Files { store, blobs, keys })
}

/// The store goes first: its lock keeps a second process from everything else in the folder.
pub(super) fn open_store(
    config: &Config,
    source: String,
    clock: &Clock,
) -> Result<(SledStore, Blobs), StartError> {
    let folder = &config.storage.data_dir;
    let failed = |source| StartError::Data { path: folder.clone(), source };
    make_folder(folder).map_err(failed)?;
    let policy = Policy {
        dispatch: config.dispatch_policy(),
        source,
        keep_finished: Duration::from_millis(config.retention.finished_ms),
        keep_deleted: Duration::from_millis(config.retention.deleted_ms),
        keep_undelivered: Duration::from_millis(config.retention.undelivered_ms),
    };
    let options = Options { cache_bytes: config.storage.cache_mib.saturating_mul(MIB), policy };
    let store = SledStore::open(&config.storage.store_dir(), options, clock.now())?;
    let blobs = Blobs::open(folder, config.storage.reserve_mib.saturating_mul(MIB)).map_err(failed)?;
    Ok((store, blobs))
}

/// Makes the folder and those above it that are missing; their names survive a power cut.
fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> = std::path::absolute(folder)?
        .ancestors()
        .take_while(|folder| !folder.exists())
        .map(Path::to_owned)
        .collect();
    std::fs::create_dir_all(folder)?;
    missing.iter().filter_map(|folder| folder.parent()).try_for_each(sync_folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_with_those_above_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b/c");
        make_folder(&folder).unwrap();
        make_folder(&folder).unwrap();
        assert!(folder.is_dir());
        std::fs::write(root.path().join("file"), "").unwrap();
        assert!(make_folder(&root.path().join("file/below")).is_err());
    }
}
