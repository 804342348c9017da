//! Room on the disk. A commit that met a full disk would end the process, so each is preceded by a look, and a
//! ballast of a known size is kept to be let go: with it, what was accepted is still finished, told and deleted
//! while nothing new is taken.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use fs4::FileExt as _;

/// What one commit may take: a batch (4 MiB) and the segment that it begins (8 MiB).
const MARGIN: u64 = 12 * 1024 * 1024;
/// Several thousand finishes, attempts or deletions.
const BALLAST: u64 = 16 * 1024 * 1024;

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

/// The room on the disk that the store lies on.
pub(super) struct Space {
    ballast: PathBuf,
    is_held: bool,
    /// How much is free, in bytes; a test says what it likes.
    free: Box<dyn Fn() -> io::Result<u64> + Send>,
}

impl Space {
    pub(super) fn new(folder: PathBuf) -> Self {
        let ballast = folder.join("ballast");
        // A process may have died between making the file and setting its room aside.
        let is_held = ballast.metadata().is_ok_and(|file| file.len() >= BALLAST);
        Self { is_held, ballast, free: Box::new(move || fs4::available_space(&folder)) }
    }

    /// Looks, lets the ballast go if that is needed, and takes it back when there is room again.
    pub(super) fn room(&mut self) -> Room {
        // A system that cannot say is taken at its best; a full disk then ends the process, and loses nothing.
        let free = (self.free)().unwrap_or(u64::MAX);
        if !self.is_held && free >= BALLAST + 2 * MARGIN {
            self.take_ballast();
        } else if self.is_held && free < MARGIN {
            self.release_ballast();
            return self.room();
        }
        match free {
            _ if self.is_held => Room::Enough,
            MARGIN.. => Room::Low,
            _ => Room::None,
        }
    }

    fn take_ballast(&mut self) {
        let made = File::create(&self.ballast).and_then(|file| file.allocate(BALLAST));
        match made {
            Ok(()) => self.is_held = true,
            // It is tried again before the next commit; until then, nothing new is taken.
            Err(error) => tracing::warn!(%error, "room for the store cannot be set aside"),
        }
    }

    fn release_ballast(&mut self) {
        self.is_held = false;
        match std::fs::remove_file(&self.ballast) {
            Ok(()) => {
                tracing::warn!("the disk is nearly full: no new jobs are taken, what was accepted goes on");
            }
            Err(error) => tracing::error!(%error, "the room set aside for the store cannot be let go"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_ballast_goes_when_room_runs_out_and_comes_back_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let ballast = folder.path().join("ballast");
        // What others have left on the disk; the ballast lies on it too.
        let others = Arc::new(AtomicU64::new(0));
        let (left, file) = (Arc::clone(&others), ballast.clone());
        let free = move || {
            let held = file.metadata().map_or(0, |file| file.len());
            Ok(left.load(Ordering::Relaxed).saturating_sub(held))
        };
        let mut space = Space { free: Box::new(free), ..Space::new(folder.path().to_owned()) };
        let mut room_with = |mebibytes: u64| {
            others.store(mebibytes << 20, Ordering::Relaxed);
            (space.room(), ballast.exists())
        };
        assert_eq!(room_with(100), (Room::Enough, true));
        assert_eq!(room_with(28), (Room::Enough, true));
        assert_eq!(room_with(27), (Room::Low, false));
        assert_eq!(room_with(12), (Room::Low, false));
        assert_eq!(room_with(11), (Room::None, false));
        assert_eq!(room_with(39), (Room::Low, false));
        assert_eq!(room_with(40), (Room::Enough, true));
    }
}
