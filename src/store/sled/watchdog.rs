//! Ends the process when a step or a commit hangs. sled can lose the wake-up of a thread that waits for a write which has
//! failed; then nobody would ever be answered, and nobody would know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Stopwatch;

/// Longer than a busy disk takes for a sync, and than a storage network that fails over.
const LONGEST: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Nothing is under way.
const IDLE: u64 = 0;

/// What the writer tells of itself.
pub(super) struct Watchdog {
    state: Arc<State>,
}

struct State {
    started: Stopwatch,
    /// When what is under way began, in milliseconds since `started`, and at least 1.
    since: AtomicU64,
    is_over: AtomicBool,
}

impl Watchdog {
    /// Watches from a thread of its own, which ends when this is dropped.
    pub(super) fn start() -> std::io::Result<Self> {
        let state = Arc::new(State {
            started: Stopwatch::start(),
            since: AtomicU64::new(IDLE),
            is_over: AtomicBool::new(false),
        });
        let watched = Arc::clone(&state);
        std::thread::Builder::new().name("store-watchdog".to_owned()).spawn(move || {
            while !watched.is_over.load(Ordering::Acquire) {
                std::thread::park_timeout(LOOK_EVERY);
                if watched.is_stuck() {
                    super::writer::abort(
                        "finish a step or a commit in time",
                        &std::io::Error::from(std::io::ErrorKind::TimedOut),
                    );
                }
            }
        })?;
        Ok(Self { state })
    }

    /// Runs a step or a commit.
    pub(super) fn watch<T>(&self, part: impl FnOnce() -> T) -> T {
        self.state.since.store(self.state.now().max(1), Ordering::Release);
        let result = part();
        self.state.since.store(IDLE, Ordering::Release);
        result
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.state.is_over.store(true, Ordering::Release);
    }
}

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_stuck(&self) -> bool {
        let since = self.since.load(Ordering::Acquire);
        since != IDLE && Duration::from_millis(self.now().saturating_sub(since)) > LONGEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_stuck_when_it_takes_too_long() {
        let watchdog = Watchdog::start().unwrap();
        assert!(!watchdog.state.is_stuck());
        watchdog.watch(|| {
            assert!(!watchdog.state.is_stuck());
            // As if it had begun that much earlier.
            let state = State {
                started: Stopwatch::started_before(LONGEST + LOOK_EVERY),
                since: AtomicU64::new(1),
                is_over: AtomicBool::new(false),
            };
            assert!(state.is_stuck());
        });
        assert!(!watchdog.state.is_stuck());
    }
}
