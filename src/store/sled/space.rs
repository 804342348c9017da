//! Room on the disk. The log owns the room of the next commits before they are made: blocks behind the end of its
//! file, which nobody else can take, however fast the disk fills. So no commit meets a full disk, which would end
//! the process; and there is enough of them that what was accepted is still finished, told and deleted while
//! nothing new is taken.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use fs4::FileExt as _;

use super::engine::{LOG, SEGMENT_BYTES};

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// What one commit may take: the segments that its batch and what sled rewrites for it begin.
const COMMIT: u64 = 2 * SEGMENT;
/// What there must be for something new: several thousand finishes, attempts or deletions more.
pub(super) const ENOUGH: u64 = COMMIT + 2 * SEGMENT;

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// Everything.
    Enough,
    /// What ends or removes something; nothing new.
    Low,
    /// Nothing.
    None,
}

/// The room that the log has.
pub(super) struct Space {
    log: File,
    folder: PathBuf,
    /// Up to where it is set aside.
    reserved: u64,
    /// What the file had of the disk then. sled cuts off its end, and what is set aside with it.
    held: u64,
    room: Room,
}

impl Space {
    pub(super) fn new(folder: &Path) -> io::Result<Self> {
        let log = File::options().write(true).open(folder.join(LOG))?;
        let folder = folder.to_owned();
        // A larger file than any: what is set aside is not known yet.
        Ok(Self { log, folder, reserved: 0, held: u64::MAX, room: Room::Enough })
    }

    /// What there is room for, once all that can be is set aside.
    pub(super) fn room(&mut self) -> Room {
        let room = self.look().unwrap_or_else(|error| {
            // A full disk then ends the process, and loses nothing.
            tracing::error!(%error, "it is not known how much room the disk has");
            Room::Enough
        });
        if room != self.room {
            match room {
                Room::Enough => tracing::warn!("there is room on the disk again"),
                Room::Low => tracing::warn!(
                    "the disk is nearly full: no new jobs are taken, what was accepted goes on"
                ),
                Room::None => tracing::error!("the disk is full: nothing is changed until there is room"),
            }
            self.room = room;
        }
        room
    }

    fn look(&mut self) -> io::Result<Room> {
        let end = self.log.metadata()?.len().next_multiple_of(SEGMENT);
        let ahead = match self.reserve(end) {
            // Where a file system sets nothing aside, it is what is free just now.
            Err(error) if error.kind() == ErrorKind::Unsupported => fs4::available_space(&self.folder)?,
            reserved => reserved?.saturating_sub(end),
        };
        Ok(match ahead {
            ENOUGH.. => Room::Enough,
            COMMIT.. => Room::Low,
            _ => Room::None,
        })
    }

    /// Sets aside what is wanted behind the last segment's `end`, as far as there is room.
    fn reserve(&mut self, end: u64) -> io::Result<u64> {
        let is_cut = self.log.allocated_size()? < self.held;
        let mut reserved = if is_cut { 0 } else { self.reserved }.max(end.saturating_sub(SEGMENT));
        if reserved >= end + ENOUGH {
            return Ok(reserved);
        }
        while reserved < end + ENOUGH {
            // What is not known yet may be set aside already, and then needs no room.
            if !is_cut && fs4::available_space(&self.folder)? < SEGMENT {
                break;
            }
            match set_aside(&self.log, reserved, SEGMENT) {
                Ok(()) => reserved += SEGMENT,
                Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        (self.reserved, self.held) = (reserved, self.log.allocated_size()?);
        Ok(reserved)
    }
}

/// Opening writes, too: a snapshot, and over the end of the last segment. When there is no room for that, what is
/// set aside goes to it.
pub(super) fn give_way(folder: &Path) -> io::Result<()> {
    let log = match File::options().write(true).open(folder.join(LOG)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        log => log?,
    };
    // Nothing is cut off a file that another process writes.
    if fs4::available_space(folder)? < ENOUGH && log.try_lock().is_ok() {
        log.set_len(log.metadata()?.len())?;
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn set_aside(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::retry_on_intr;

    Ok(retry_on_intr(|| fallocate(file, FallocateFlags::KEEP_SIZE, from, bytes))?)
}

#[cfg(not(target_os = "linux"))]
fn set_aside(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_log_owns_the_room_of_the_next_commits() {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join(LOG)).unwrap();
        let mut space = Space::new(folder.path()).unwrap();
        let held = || log.allocated_size().unwrap();
        assert_eq!(space.room(), Room::Enough);
        assert!(held() >= ENOUGH && log.metadata().unwrap().len() == 0);
        // It goes on with the log.
        log.set_len(SEGMENT + 1).unwrap();
        assert_eq!(space.room(), Room::Enough);
        assert!(held() >= 2 * SEGMENT + ENOUGH);
        // Cut off, and set aside again.
        log.set_len(SEGMENT).unwrap();
        assert!(held() <= SEGMENT);
        assert_eq!(space.room(), Room::Enough);
        assert!(held() >= SEGMENT + ENOUGH);
        // Nothing of it is taken from a process that has the log open, or when there is room.
        give_way(folder.path()).unwrap();
        assert!(held() >= SEGMENT + ENOUGH);
    }
}
