//! A small disk, and what fills it.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

use super::system::{self, Unable, tool};

const MIB: u64 = 1024 * 1024;
const BYTES: u64 = 160 * MIB;

/// How it remembers.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// In a file, on a loop device.
    Ext4,
    /// The same in its older layout, in which no room can be set aside.
    Ext4WithoutExtents,
    /// In memory.
    Tmpfs,
}

/// A disk in a mount namespace of its own, which goes with the process that holds it.
pub struct Disk {
    keeper: Child,
    /// Where it is mounted, as those in the namespace see it.
    mounted: PathBuf,
    _folder: TempDir,
}

impl Disk {
    pub fn new(kind: Kind) -> Result<Self, Unable> {
        let folder = tempfile::tempdir().unwrap();
        let [image, mounted] = ["image", "mounted"].map(|name| folder.path().join(name));
        std::fs::create_dir(&mounted).unwrap();
        system::run(Command::new("nsenter").arg("--version"))?;
        // The keeper ends when its standard input does, so however this process ends.
        let mut keeper = tool("unshare");
        keeper.args(["--mount", "--", "sh", "-c", "mount \"$@\" && echo mounted && exec cat", "sh"]);
        match kind {
            Kind::Ext4 | Kind::Ext4WithoutExtents => {
                File::create(&image).unwrap().set_len(BYTES).unwrap();
                let layout: &[&str] = match kind {
                    Kind::Ext4WithoutExtents => &["-O", "^extents,^64bit"],
                    _ => &[],
                };
                let mut mkfs = tool("mkfs.ext4");
                system::run(mkfs.args(["-q", "-F"]).args(layout).arg(&image)).map_err(Unable::missing)?;
                keeper.args(["-t", "ext4", "-o", "loop"]).arg(&image);
            }
            Kind::Tmpfs => {
                keeper.args(["-t", "tmpfs", "-o", &format!("size={BYTES}"), "tmpfs"]);
            }
        }
        keeper.arg(&mounted).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut keeper = keeper.spawn().map_err(|error| Unable::Missing(format!("unshare: {error}")))?;
        let mut said = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut said).unwrap();
        if said.is_empty() {
            keeper.wait().unwrap();
            keeper.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            return Err(Unable::Refused(format!("mount: {}", said.trim())));
        }
        Ok(Self { keeper, mounted, _folder: folder })
    }

    /// Where `name` is for a process that [`Disk::command`] started.
    pub fn inside(&self, name: &str) -> PathBuf {
        self.mounted.join(name)
    }

    /// Where `name` is for this process.
    pub fn outside(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.inside(name).strip_prefix("/").unwrap())
    }

    /// The command to run a program where the disk is mounted.
    pub fn command(&self, program: &str) -> Command {
        let mut command = tool("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id())).args(["--", program]);
        command
    }

    /// What is free of it, in bytes, also of what is kept for the superuser.
    pub fn free(&self) -> u64 {
        fs4::free_space(self.outside("")).unwrap()
    }

    /// What is set aside behind the end of a file, in bytes.
    pub fn set_aside(&self, name: &str) -> u64 {
        let file = File::open(self.outside(name)).unwrap();
        fs4::FileExt::allocated_size(&file).unwrap().saturating_sub(file.metadata().unwrap().len())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// How a disk becomes full.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Between two system calls of others.
    AtOnce,
    /// While others go on.
    Slowly,
}

/// Another process's file, which takes all that there is to the last byte, and whatever becomes free.
pub struct Filler {
    path: PathBuf,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    has_all: AtomicBool,
    is_over: AtomicBool,
}

impl Filler {
    pub fn start(disk: &Disk, pace: Pace) -> Self {
        let mut filler = Self::of(disk, 0, pace);
        filler.go_on();
        filler
    }

    /// One that leaves so many bytes, and takes nothing more.
    pub fn leaving(disk: &Disk, bytes: u64) -> Self {
        Self::of(disk, bytes, Pace::AtOnce)
    }

    fn of(disk: &Disk, leaves: u64, pace: Pace) -> Self {
        let path = disk.outside("filler");
        let mut file = File::create(&path).unwrap();
        let bytes = disk.free().saturating_sub(leaves);
        if matches!(pace, Pace::AtOnce) && fs4::FileExt::allocate(&file, bytes).is_err() {
            // Another way; and the file system may need a little for itself.
            let _ = io::copy(&mut io::repeat(0).take(bytes), &mut file);
        }
        Self { path, state: Arc::default(), thread: None }
    }

    /// Whether there was nothing more for it.
    pub fn has_all(&self) -> bool {
        self.state.has_all.load(Ordering::Acquire)
    }

    /// Takes nothing, and keeps what it has.
    pub fn rest(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    /// Takes what there is again.
    pub fn go_on(&mut self) {
        self.state = Arc::default();
        let (state, path) = (Arc::clone(&self.state), self.path.clone());
        self.thread = Some(std::thread::spawn(move || {
            let mut file = File::options().append(true).open(path).unwrap();
            while !state.is_over.load(Ordering::Acquire) {
                if !take(&mut file) {
                    state.has_all.store(true, Ordering::Release);
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }));
    }
}

/// Takes a little, down to the last byte; whether there was so much.
fn take(file: &mut File) -> bool {
    let zeros = [0; 1 << 16];
    let mut bytes = zeros.len();
    while bytes > 0 {
        match file.write(&zeros[..bytes]) {
            Ok(_) => return true,
            Err(error) if error.kind() == ErrorKind::StorageFull => bytes /= 2,
            Err(error) => panic!("the filler: {error}"),
        }
    }
    false
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.rest();
        std::fs::remove_file(&self.path).unwrap();
    }
}
