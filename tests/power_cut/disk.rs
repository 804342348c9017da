//! A disk that can lose its power: an ext4 in a file, on a loop device.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::system::{Unable, run, tool};

/// The file is sparse: it takes what was written.
const BYTES: u64 = 1024 * 1024 * 1024;

/// Compiles a file of this folder.
pub fn compile(source: &str, options: &[&str], to: &Path) -> Result<(), Unable> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power_cut").join(source);
    let mut cc = tool("cc");
    cc.args(["-O1", "-Wall", "-Wextra", "-Werror"]).args(options).arg("-o").arg(to).arg(source);
    run(&mut cc).map_err(Unable::missing)
}

/// The disk. What it mounts goes with the mount namespace of the process, so it needs no end of its own.
pub struct Disk {
    image: PathBuf,
    root: PathBuf,
    cutter: PathBuf,
}

impl Disk {
    /// A disk in `folder`, tried out: it was cut off once. What fails later is a failure, and no excuse.
    pub fn new(folder: &Path) -> Result<Self, Unable> {
        let [image, root, cutter] = ["image", "root", "cutter"].map(|name| folder.join(name));
        compile("cut.c", &[], &cutter)?;
        std::fs::create_dir(&root).unwrap();
        let disk = Self { image, root, cutter };
        disk.format()?;
        disk.mount()?;
        disk.cutter()?.cut()?;
        if File::create(disk.root.join("file")).is_ok() {
            return Err(Unable::Refused("a file system that was shut off still takes files".to_owned()));
        }
        disk.unmount()?;
        disk.mount()?;
        disk.unmount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes it empty. It must not be mounted.
    pub fn format(&self) -> Result<(), Unable> {
        File::create(&self.image).unwrap().set_len(BYTES).unwrap();
        run(tool("mkfs.ext4").args(["-q", "-F"]).arg(&self.image)).map_err(Unable::missing)
    }

    /// The kernel lets go of the loop device by itself once nothing is mounted from it.
    pub fn mount(&self) -> Result<(), Unable> {
        run(tool("mount").args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.root))
    }

    pub fn unmount(&self) -> Result<(), Unable> {
        run(tool("umount").arg(&self.root))
    }

    /// What cuts it off: started beforehand, so that the cut is not late.
    pub fn cutter(&self) -> Result<Cutter, Unable> {
        let started = Command::new(&self.cutter).arg(&self.root).stdin(Stdio::piped()).spawn();
        started.map(Cutter).map_err(|error| Unable::Refused(format!("the cutter: {error}")))
    }
}

/// A process that waits for a byte to cut a disk off.
pub struct Cutter(Child);

impl Cutter {
    pub fn cut(&mut self) -> Result<(), Unable> {
        // That it cannot be told means that it is gone, and its status says why.
        let _ = self.0.stdin.take().unwrap().write_all(b"!");
        match self.0.wait().unwrap().code() {
            Some(0) => Ok(()),
            Some(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                Err(Unable::Refused(format!("ext4 cannot be shut off: {error}")))
            }
            None => Err(Unable::Refused("the cutter was killed".to_owned())),
        }
    }
}
