//! Small files that hold one secret each, for their owner alone.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// What the file holds; `None` when there is none.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file is there with all of the text or, after a full disk or a power cut, as it was.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&part)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&part, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_back_and_replaces_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("signing-secret");
        assert_eq!(read(&path).unwrap(), None);
        // What a start left that met a full disk.
        std::fs::write(root.path().join("signing-secret.part"), "whsec_").unwrap();
        for text in ["one", "two"] {
            write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap().as_deref(), Some(text));
        }
        let left: Vec<_> =
            std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["signing-secret"]);
    }

    #[cfg(unix)]
    #[test]
    fn what_cannot_be_written_whole_leaves_no_file_of_its_name() {
        use std::os::unix::fs::PermissionsExt as _;

        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("signing-secret");
        // A device that is always full stands where the bytes go.
        std::os::unix::fs::symlink("/dev/full", root.path().join("signing-secret.part")).unwrap();
        assert_eq!(write(&path, "one").unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(!path.exists());
        std::fs::remove_file(root.path().join("signing-secret.part")).unwrap();
        write(&path, "one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
