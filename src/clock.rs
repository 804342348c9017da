//! Time and chance, the two things that come from outside.
//!
//! Nothing else reads a clock: what is decided by time gets `now` passed in, and a test sets it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;

/// The longest a single timer runs before the clock is looked at again, so that a wall clock
/// that was set forward (or a machine that slept) delays due work by a minute at most.
const LONGEST_TIMER: Duration = Duration::from_secs(60);

/// The wall clock, or one that a test sets. Times have millisecond resolution.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::set`] moves it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(start))))
    }

    /// The time, in whole milliseconds: what is stored and shown is exactly what was decided on.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the one place")]
            Source::System => {
                let millis = Timestamp::now().as_millisecond();
                Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
            }
            Source::Manual(time) => *time.borrow(),
        }
    }

    /// Moves a manual clock and wakes who waits for that time; the system's clock stays as it is.
    pub fn set(&self, to: Timestamp) {
        if let Source::Manual(time) = &self.0 {
            time.send_replace(to);
        }
    }

    /// Returns when the clock reads `due` or later.
    pub async fn sleep_until(&self, due: Timestamp) {
        match &self.0 {
            Source::System => {
                while let Some(left) = until(self.now(), due) {
                    tokio::time::sleep(left.min(LONGEST_TIMER)).await;
                }
            }
            Source::Manual(time) => {
                // The sender lives in `self`, so waiting cannot fail.
                let _ = time.subscribe().wait_for(|now| *now >= due).await;
            }
        }
    }
}

/// How long from `now` to `due`; `None` when it is due.
fn until(now: Timestamp, due: Timestamp) -> Option<Duration> {
    Duration::try_from(due.duration_since(now)).ok().filter(|left| !left.is_zero())
}

/// Measures a duration on the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// A watch that was started so long ago.
    #[cfg(test)]
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place; a machine that was just started has no such past"
    )]
    pub(crate) fn started_before(ago: Duration) -> Self {
        Self(Instant::now().checked_sub(ago).unwrap())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// `N` random bytes from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give: ids and secrets made without it would be guessable.
#[must_use]
#[expect(clippy::expect_used, reason = "there is no safe way to go on")]
pub fn entropy<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A random fraction in `0.0..1.0`, for jitter.
#[must_use]
pub fn random_fraction() -> f64 {
    f64::from(u32::from_le_bytes(entropy())) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manual_clock_wakes_who_waits_for_it() {
        let clock = Clock::manual(Timestamp::UNIX_EPOCH);
        let due = Timestamp::from_second(3600).unwrap();
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep_until(due).await;
                clock.now()
            }
        });
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        clock.set(due);
        let woken_at = tokio::time::timeout(Duration::from_secs(10), sleeper).await.unwrap().unwrap();
        assert_eq!(woken_at, due);
    }

    #[tokio::test]
    async fn what_is_due_does_not_wait() {
        let clock = Clock::system();
        clock.sleep_until(clock.now()).await;
        clock.sleep_until(Timestamp::UNIX_EPOCH).await;
    }

    #[test]
    fn fractions_stay_below_one() {
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random_fraction())));
    }
}
