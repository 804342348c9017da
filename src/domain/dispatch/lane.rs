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
    /// Attempts a minute that the receiver permits.
    pub(super) granted: Option<u32>,
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
        self.pace(policy).map_or(free, |pace| free.min(self.bucket.available(now, pace)))
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
        let free_at = || self.pace(policy).map_or(Timestamp::UNIX_EPOCH, |pace| self.bucket.next(pace));
        (self.in_flight < limit).then(free_at)
    }

    /// An attempt begins.
    pub(super) fn take(&mut self, now: Timestamp, policy: &DispatchPolicy) {
        self.in_flight += 1;
        if let Some(pace) = self.pace(policy) {
            self.bucket.take(now, pace);
        }
    }

    /// The slower of what the configuration and what the receiver allows.
    fn pace(&self, policy: &DispatchPolicy) -> Option<Pace> {
        let configured = Pace::per_minute(u64::from(policy.rate_per_second) * 60);
        let granted = self.granted.and_then(|rate| Pace::per_minute(u64::from(rate)));
        configured.into_iter().chain(granted).max_by_key(|pace| pace.interval_us)
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

/// How often an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pace {
    /// How long a token takes to come, in microseconds.
    interval_us: u32,
    /// Tokens that are saved: what one second brings, and one at least.
    burst: u32,
}

impl Pace {
    /// 0 is no bound.
    fn per_minute(rate: u64) -> Option<Self> {
        const MINUTE_US: u64 = 60_000_000;
        // At most a million a second and at least one a minute, so both fit.
        let rate = rate.clamp(u64::from(rate > 0), MINUTE_US);
        let interval_us = u32::try_from(MINUTE_US.checked_div(rate)?).unwrap_or(u32::MAX);
        Some(Self { interval_us, burst: u32::try_from(rate / 60).unwrap_or(u32::MAX).max(1) })
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When it is full again.
    full_at: Option<Timestamp>,
}

impl Bucket {
    pub(super) fn available(&self, now: Timestamp, pace: Pace) -> u32 {
        let missing = self.full_at.map_or(0, |at| at.duration_since(now).as_micros().max(0));
        // Whole tokens that are in it.
        let taken = missing.unsigned_abs().div_ceil(u128::from(pace.interval_us));
        pace.burst.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    pub(super) fn take(&mut self, now: Timestamp, pace: Pace) {
        let token = SignedDuration::from_micros(i64::from(pace.interval_us));
        let from = self.full_at.map_or(now, |at| at.max(now));
        self.full_at = Some(from.checked_add(token).unwrap_or(Timestamp::MAX));
    }

    /// When the next token is in it, if it is empty.
    pub(super) fn next(&self, pace: Pace) -> Timestamp {
        let full = self.full_at.unwrap_or(Timestamp::UNIX_EPOCH);
        let others = SignedDuration::from_micros(
            i64::from(pace.interval_us) * i64::from(pace.burst.saturating_sub(1)),
        );
        full.checked_sub(others).unwrap_or(full)
    }
}
