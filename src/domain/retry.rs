//! When a failed attempt is tried again: exponential, with jitter that is never early.
//!
//! The policy is the `backoff` crate's; the schedule is durable, because what it yields is stored
//! as a due time. So no state but the attempt's number is needed, and restarts lose nothing.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The jitter's share of a delay: it spreads retries without doubling anyone's wait.
const JITTER: f64 = 0.1;

/// An exponential schedule with an end.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// The delay after the first failed attempt.
    pub initial: Duration,
    /// By how much each delay exceeds the one before it.
    pub multiplier: f64,
    /// The longest delay, before jitter.
    pub max_delay: Duration,
    /// How many attempts are made in all.
    pub max_attempts: u32,
}

/// What a job's callback has of its own instead of the configured schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RetryOverride {
    /// How many attempts are made in all.
    pub max_attempts: Option<u32>,
    /// The delay after the first failed attempt, in milliseconds.
    pub initial_ms: Option<u64>,
    /// The longest delay, in milliseconds.
    pub max_delay_ms: Option<u64>,
}

impl RetryPolicy {
    /// The policy with what a callback has of its own.
    #[must_use]
    pub fn with(&self, own: RetryOverride) -> Self {
        let max_delay = own.max_delay_ms.map_or(self.max_delay, Duration::from_millis);
        Self {
            initial: own.initial_ms.map_or(self.initial, Duration::from_millis).min(max_delay),
            multiplier: self.multiplier,
            max_delay,
            max_attempts: own.max_attempts.unwrap_or(self.max_attempts),
        }
    }

    /// When to try again after `attempts` attempts have failed, the last of them at `now`;
    /// `None` when that was the last.
    ///
    /// `random` is a fraction in `0.0..1.0`: up to a tenth of the delay is added.
    #[must_use]
    pub fn next_attempt_at(&self, now: Timestamp, attempts: u32, random: f64) -> Option<Timestamp> {
        if attempts >= self.max_attempts {
            return None;
        }
        let delay = self.delay(attempts);
        let due = delay.saturating_add(delay.mul_f64(JITTER * random.clamp(0.0, 1.0)));
        now.checked_add(due).ok()
    }

    /// The delay after `attempts` failed attempts, before jitter: initial · multiplier^(attempts - 1), at most `max_delay`.
    fn delay(&self, attempts: u32) -> Duration {
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.initial.as_secs_f64() * self.multiplier.powi(exponent);
        // Not finite or too long for a Duration: far beyond the longest delay either way.
        let current = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
        let mut policy = ExponentialBackoff {
            current_interval: current.min(self.max_delay),
            initial_interval: self.initial,
            multiplier: self.multiplier,
            max_interval: self.max_delay,
            // The crate's own jitter may come early and exceed the maximum; ours is added above.
            randomization_factor: 0.0,
            // The end is a number of attempts; the crate's would be lost with the process.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        // Its arithmetic is in floating point and may end a nanosecond beyond the maximum.
        policy.next_backoff().unwrap_or(self.max_delay).min(self.max_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> RetryPolicy {
        RetryPolicy {
            initial: Duration::from_secs(5),
            multiplier: 5.0,
            max_delay: Duration::from_secs(72_000),
            max_attempts: 10,
        }
    }

    fn seconds_after(attempts: u32, random: f64) -> Option<f64> {
        let due = policy().next_attempt_at(Timestamp::UNIX_EPOCH, attempts, random)?;
        Some(due.as_millisecond() as f64 / 1000.0)
    }

    #[test]
    fn ten_attempts_over_three_days() {
        let delays: Vec<_> = (1..=10).map(|attempts| seconds_after(attempts, 0.0)).collect();
        let expected = [5.0, 25.0, 125.0, 625.0, 3125.0, 15_625.0, 72_000.0, 72_000.0, 72_000.0];
        assert_eq!(delays[..9], expected.map(Some));
        assert_eq!(delays[9], None);
        // 65.4 hours without jitter, 72.0 with all of it.
        assert!((2.7..=3.0).contains(&(expected.iter().sum::<f64>() * (1.0 + JITTER) / 86_400.0)));
    }

    #[test]
    fn jitter_is_late_by_a_tenth_at_most() {
        assert_eq!(seconds_after(2, 1.0), Some(27.5));
        for random in [0.0, 0.3, 0.999, 7.0, -1.0] {
            let delay = seconds_after(3, random);
            assert!(delay.is_some_and(|seconds| (125.0..=137.5).contains(&seconds)), "{random}: {delay:?}");
        }
    }

    #[test]
    fn absurd_policies_end_in_the_longest_delay() {
        let absurd = RetryPolicy { multiplier: f64::MAX, max_attempts: u32::MAX, ..policy() };
        assert_eq!(absurd.delay(u32::MAX - 1), Duration::from_secs(72_000));
    }
}
