//! A power cut takes back nothing that was acknowledged.
//!
//! A process writes real records into a store and its blobs, on an ext4 of their own, and says aloud what was
//! acknowledged. At a random moment the file system is shut off: nothing more reaches its block device, and
//! what its journal had not committed is gone. Then it is mounted again, and all that was said must be there,
//! whole. The same with the `fdatasync` taken out must find a loss, or the cuts would prove nothing.
//!
//! A cut is the ioctl `EXT4_IOC_SHUTDOWN` with `NOLOGFLUSH`, on a loop device. In one way it is kinder than the
//! real thing: what the file system has handed to its device is never lost, as if disks had no cache.
//!
//! `DARKROOM_POWER_CUTS=100 cargo test --test power_cut -- --nocapture` makes a long round. It needs root on
//! Linux, loop devices, e2fsprogs, util-linux and a C compiler. A missing tool fails the test under `CI=true`;
//! a kernel or a sandbox that refuses is reported and no more, as a machine may have no remedy for that.

#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test that meets the unexpected fails on the spot, and nothing here is anyone's interface"
)]

use self::cuts::{Fdatasync, Tally};

mod cuts;
mod disk;
mod parts;
mod records;
mod system;
mod verifier;
mod writer;

#[test]
fn a_power_cut_takes_back_nothing_that_was_acknowledged() {
    if let Some(tally) = play(Fdatasync::Made) {
        assert_eq!(tally.found(), 0, "{tally}");
        assert!(tally.steps > 0, "nothing was acknowledged before any cut");
        assert_eq!(tally.stuck, 0, "the process must end when it cannot commit: {tally}");
    }
}

#[test]
fn without_the_fdatasync_the_loss_is_found() {
    if let Some(tally) = play(Fdatasync::TakenOut) {
        assert_ne!(tally.found(), 0, "nothing was found: {tally}");
    }
}

/// Not a test: what the two above start, each time as a process of its own.
#[test]
#[ignore = "a part of the other tests"]
fn part() {
    parts::run();
}

/// Makes the cuts and says what they found; `None` where they cannot be made.
fn play(fdatasync: Fdatasync) -> Option<Tally> {
    match cuts::play(fdatasync) {
        Ok(tally) => {
            let what = match fdatasync {
                Fdatasync::Made => "power cuts",
                Fdatasync::TakenOut => "power cuts without fdatasync",
            };
            system::say(&format!("{what}: {tally}"));
            Some(tally)
        }
        Err(unable) => {
            unable.skip("power cuts");
            None
        }
    }
}
