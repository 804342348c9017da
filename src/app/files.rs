//! What lies in the data folder, opened.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use super::{StartError, backup};
use crate::blobs::Blobs;
use crate::clock::{Clock, entropy};
use crate::config::Config;
use crate::domain::secret::SigningSecret;
use crate::store::Policy;
use crate::store::sled::{Options, SledStore};

const MIB: u64 = 1024 * 1024;

/// What lies in the data folder.
pub(super) struct Files {
    pub(super) store: SledStore,
    pub(super) blobs: Blobs,
    pub(super) signing_secret: SigningSecret,
}

/// Opens everything, or makes it. It blocks.
pub(super) fn open(config: &Config, source: String, clock: &Clock) -> Result<Files, StartError> {
    backup::refuse_unfinished(&config.storage)?;
    let (store, blobs) = open_store(config, source, clock)?;
    let signing_secret = signing_secret(config)?;
    Ok(Files { store, blobs, signing_secret })
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
        source,
        keep_finished: Duration::from_millis(config.retention.finished_ms),
        keep_deleted: Duration::from_millis(config.retention.deleted_ms),
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

/// The configured secret, or the one that the first start made and kept.
fn signing_secret(config: &Config) -> Result<SigningSecret, StartError> {
    let configured = &config.callbacks.signing_secret;
    let path = config.storage.signing_secret_file();
    let text = if configured.is_empty() {
        read_or_make_secret(&path).map_err(|source| StartError::Data { path: path.clone(), source })?
    } else {
        configured.clone()
    };
    text.trim().parse().map_err(|_| StartError::SigningSecret(path))
}

fn read_or_make_secret(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = SigningSecret::from_entropy(entropy());
            write_secret(path, &secret)?;
            Ok(secret.expose_text())
        }
        other => other,
    }
}

/// Keeps a secret where it is looked for.
pub(super) fn write_secret(path: &Path, secret: &SigningSecret) -> io::Result<()> {
    write_whole(path, format!("{}\n", secret.expose_text()).as_bytes())
}

/// The file is there with all its bytes or, after a full disk or a power cut, not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), sync_folder)
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

    #[test]
    fn a_secret_is_made_once_and_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("signing-secret");
        // What a start left that met a full disk.
        std::fs::write(root.path().join("signing-secret.part"), "whsec_").unwrap();
        let secret = read_or_make_secret(&path).unwrap();
        assert!(secret.parse::<SigningSecret>().is_ok());
        assert_eq!(read_or_make_secret(&path).unwrap().trim(), secret);
        let left: Vec<_> =
            std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["signing-secret"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_cannot_be_written_whole_leaves_no_file_of_its_name() {
        use std::os::unix::fs::PermissionsExt as _;

        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("signing-secret");
        // A device that is always full stands where the bytes go.
        std::os::unix::fs::symlink("/dev/full", root.path().join("signing-secret.part")).unwrap();
        assert_eq!(read_or_make_secret(&path).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!path.exists());
        std::fs::remove_file(root.path().join("signing-secret.part")).unwrap();
        read_or_make_secret(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
