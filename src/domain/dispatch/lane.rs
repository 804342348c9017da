//! One destination's lane: what it may do now, and when more.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::DispatchPolicy;
use crate::domain::destination::{BreakerPolicy, Destination, Health};

/// Where a lane waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing is to be sent.
    Idle,
    /// For this time.
    Timer(Timestamp),
    /// For its turn.
    Turn,
    /// Something is to be sent, when an attempt ends or somebody resumes it.
    Full,
}

/// A destination's turns and bounds.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) destination: Destination,
    pub(super) in_flight: u32,
    pub(super) limit: u32,
    pub(super) is_proven: bool,
    pub(super) window: Window,
    pub(super) bucket: Bucket,
    pub(super) place: Place,
    pub(super) turns: u32,
}

impl Lane {
    /// How many attempts may begin now.
    pub(super) fn quota(&self, now: Timestamp, policy: &DispatchPolicy) -> u32 {
        if self.destination.hold.is_some() {
            return 0;
        }
        let free = match self.destination.open {
            Some(open) if open.until > now => 0,
            Some(_) => 1_u32.saturating_sub(self.in_flight),
            None => self.limit.saturating_sub(self.in_flight),
        };
        free.min(self.bucket.available(now, policy.rate_per_second))
    }

    /// When more may begin by time alone.
    pub(super) fn opens_at(&self, now: Timestamp, policy: &DispatchPolicy) -> Option<Timestamp> {
        if self.destination.hold.is_some() {
            return None;
        }
        let limit = match self.destination.open {
            Some(open) if open.until > now => return Some(open.until),
            Some(_) => 1,
            None => self.limit,
        };
        (self.in_flight < limit).then(|| self.bucket.next(policy.rate_per_second))
    }
}

/// Outcomes of the latest time, in two halves, so that they are forgotten bit by bit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    since: Option<Timestamp>,
    latest: Counts,
    before: Counts,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    all: u32,
    bad: u32,
}

impl Window {
    /// Counts an outcome; whether it is one too many.
    pub(super) fn opens(&mut self, health: Health, now: Timestamp, policy: &BreakerPolicy) -> bool {
        if health == Health::Unknown {
            return false;
        }
        let half = policy.window / 2;
        let age = self
            .since
            .map_or(Duration::MAX, |since| Duration::try_from(now.duration_since(since)).unwrap_or_default());
        if age >= half {
            self.before = if age >= policy.window { Counts::default() } else { self.latest };
            (self.latest, self.since) = (Counts::default(), Some(now));
        }
        self.latest.all += 1;
        self.latest.bad += u32::from(health == Health::Bad);
        let (all, bad) = (self.latest.all + self.before.all, self.latest.bad + self.before.bad);
        health == Health::Bad
            && all >= policy.min_samples
            && f64::from(bad) >= policy.failure_ratio * f64::from(all)
    }
}

/// A token bucket that holds what one second brings, and one at least.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: Option<Timestamp>,
}

impl Bucket {
    pub(super) fn available(&self, now: Timestamp, rate: u32) -> u32 {
        if rate == 0 {
            return u32::MAX;
        }
        let missing = self.full_at.map_or(0, |at| at.duration_since(now).as_micros().max(0));
        // Whole tokens that are in it: each takes 1 s / rate to come.
        let taken = missing.unsigned_abs().div_ceil(u128::from(1_000_000 / rate.min(1_000_000)));
        rate.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    pub(super) fn take(&mut self, now: Timestamp, rate: u32) {
        if rate > 0 {
            let token = SignedDuration::from_micros(i64::from(1_000_000 / rate.min(1_000_000)));
            let from = self.full_at.map_or(now, |at| at.max(now));
            self.full_at = Some(from.checked_add(token).unwrap_or(Timestamp::MAX));
        }
    }

    /// When the next token is in it, if it is empty.
    pub(super) fn next(&self, rate: u32) -> Timestamp {
        let full = self.full_at.unwrap_or(Timestamp::UNIX_EPOCH);
        let others = SignedDuration::from_micros(
            i64::from(1_000_000 / rate.clamp(1, 1_000_000)) * i64::from(rate.saturating_sub(1)),
        );
        full.checked_sub(others).unwrap_or(full)
    }
}
