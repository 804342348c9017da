//! A destination: where one client's callbacks go, and whether it is well.
//!
//! It is a client's own, so that what one sends to a host that many share (a gateway, say) never slows another's.
//!
//! ```text
//! well ─► failing ─► open ⇄ (a probe fails)         what waits costs one probe now and then
//!  ▲         │         │
//!  └─────────┴─────────┤  an attempt succeeds
//!                      └─► suspended                it has failed for days; rarer probes
//! paused, disabled: nothing is sent until somebody resumes it
//! ```

use std::time::Duration;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::attempt::{Attempt, ErrorClass, Failure, Fault};
use super::client::ClientId;
use super::id::DestinationId;

/// When a destination that fails is left alone, and how it is tried again.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerPolicy {
    /// Over how long outcomes are counted.
    pub window: Duration,
    /// How many outcomes it takes at least.
    pub min_samples: u32,
    /// The share of failures that opens it, 0 to 1.
    pub failure_ratio: f64,
    /// How long it is open for the first time; each failed probe doubles that.
    pub open_for: Duration,
    /// The longest it is open.
    pub max_open_for: Duration,
    /// For how long it must have failed, without one success, to be suspended.
    pub suspend_after: Duration,
    /// How often a suspended one is probed.
    pub suspended_probe: Duration,
}

/// What the configuration has by default.
impl Default for BreakerPolicy {
    fn default() -> Self {
        const HOUR: u64 = 3600;
        Self {
            window: Duration::from_secs(60),
            min_samples: 10,
            failure_ratio: 0.5,
            open_for: Duration::from_secs(30),
            max_open_for: Duration::from_secs(600),
            suspend_after: Duration::from_secs(5 * 24 * HOUR),
            suspended_probe: Duration::from_secs(HOUR),
        }
    }
}

/// Why nothing is sent until somebody resumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldReason {
    /// An operator paused it.
    Paused,
    /// The receiver answered `webhook-delivery: disable`.
    Disabled,
}

/// Nothing is sent until somebody resumes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    #[serde(with = "millisecond::required")]
    pub since: Timestamp,
}

/// An open circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Until when nothing is sent; then one probe is.
    #[serde(with = "millisecond::required")]
    pub until: Timestamp,
    /// How often it has opened since the last success.
    pub times: u32,
}

/// What an attempt says about its destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It took the callback.
    Good,
    /// It is there, and refused this callback.
    Refusing,
    /// It is not there, or not well.
    Bad,
    /// Nothing: the attempt did not get to it.
    Unknown,
}

impl Health {
    /// What this attempt says.
    #[must_use]
    pub fn of(attempt: &Attempt) -> Self {
        let status = attempt.response.as_ref().map(|response| response.status);
        if attempt.error.as_ref().is_some_and(|failure| failure.fault == Fault::Service) {
            return Self::Unknown;
        }
        match (attempt.error.as_ref().map(|failure| failure.class), status) {
            (None, _) => Self::Good,
            // Too many requests is what an overloaded receiver says of itself.
            (Some(ErrorClass::Http | ErrorClass::Redirect), Some(300..=428 | 430..=499)) => Self::Refusing,
            _ => Self::Bad,
        }
    }
}

/// Something about a destination that others are told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is left alone for longer, or until somebody resumes it.
    Suspended,
    /// It is tried as others are again.
    Resumed,
}

/// How a destination stands, as the API says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// The latest attempt did not fail.
    Well,
    /// The latest attempts failed.
    Failing,
    /// Its circuit breaker is open: one attempt now and then.
    Open,
    /// It has failed for days: one attempt an hour.
    Suspended,
    /// The receiver wants no more.
    Disabled,
    /// Paused by hand.
    Paused,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Well, Self::Failing, Self::Open, Self::Suspended, Self::Disabled, Self::Paused];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Well => "well",
            Self::Failing => "failing",
            Self::Open => "open",
            Self::Suspended => "suspended",
            Self::Disabled => "disabled",
            Self::Paused => "paused",
        }
    }
}

/// Where callbacks of a client go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Its id, which follows from client and origin.
    pub id: DestinationId,
    /// Whose callbacks.
    pub client: ClientId,
    /// Scheme, host and port (RFC 6454, section 6.2).
    pub origin: String,
    /// When the first callback to it came to be.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// Nothing is sent.
    pub hold: Option<Hold>,
    /// Little is sent.
    pub open: Option<Open>,
    /// When it was suspended.
    #[serde(with = "millisecond::optional")]
    pub suspended_at: Option<Timestamp>,
    /// When the first attempt failed after the last success.
    #[serde(with = "millisecond::optional")]
    pub failing_since: Option<Timestamp>,
    /// How many attempts failed since, as of the latest change.
    pub failures: u32,
    /// Why the latest of them failed, as of the latest change.
    pub last_failure: Option<Failure>,
    /// The latest success, as of the latest change.
    #[serde(with = "millisecond::optional")]
    pub last_success_at: Option<Timestamp>,
}

impl Destination {
    /// The destination of a client's callbacks to `url`.
    #[must_use]
    pub fn of(client: &ClientId, url: &Url, now: Timestamp) -> Self {
        let origin = url.origin().ascii_serialization();
        Self {
            id: Self::id(client, url),
            client: client.clone(),
            origin,
            created_at: now,
            hold: None,
            open: None,
            suspended_at: None,
            failing_since: None,
            failures: 0,
            last_failure: None,
            last_success_at: None,
        }
    }

    /// The id: the first 128 bits of a SHA-256, so that the same place always has the same.
    #[must_use]
    pub fn id(client: &ClientId, url: &Url) -> DestinationId {
        // No client's name has a line feed.
        let text = format!("{}\n{}", client.as_str(), url.origin().ascii_serialization());
        let mut id = [0; 16];
        id.copy_from_slice(&Sha256::digest(text)[..16]);
        DestinationId::from_bytes(id)
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match (self.hold, self.suspended_at, self.open, self.failing_since) {
            (Some(Hold { reason: HoldReason::Paused, .. }), ..) => Standing::Paused,
            (Some(Hold { reason: HoldReason::Disabled, .. }), ..) => Standing::Disabled,
            (_, Some(_), ..) => Standing::Suspended,
            (_, _, Some(_), _) => Standing::Open,
            (.., Some(_)) => Standing::Failing,
            _ => Standing::Well,
        }
    }

    /// Whether it is left alone until somebody resumes it, or has been for days.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.hold.is_some() || self.suspended_at.is_some()
    }

    /// Nothing more is sent until [`Self::resume`].
    pub fn hold(&mut self, reason: HoldReason, now: Timestamp) -> Option<Change> {
        // A pause by hand stays one, whatever attempts that were under way answer.
        if self.hold.is_some_and(|hold| hold.reason == HoldReason::Paused) {
            return None;
        }
        let was = self.hold.replace(Hold { reason, since: now });
        (was.is_none() && reason == HoldReason::Disabled).then_some(Change::Suspended)
    }

    /// Somebody says that it is to be tried again, at once.
    pub fn resume(&mut self, now: Timestamp) -> Option<Change> {
        let was_left = self.suspended_at.take().is_some()
            || self.hold.is_some_and(|hold| hold.reason == HoldReason::Disabled);
        self.hold = None;
        if let Some(open) = &mut self.open {
            *open = Open { until: now, times: 1 };
        }
        // The days begin anew: whoever resumes it means to see.
        self.failing_since = self.failing_since.map(|_| now);
        was_left.then_some(Change::Resumed)
    }

    /// An attempt took place. Whether it must be written, and what is to be told.
    pub(super) fn attempted(
        &mut self,
        health: Health,
        failure: Option<&Failure>,
        now: Timestamp,
        policy: &BreakerPolicy,
    ) -> (bool, Option<Change>) {
        if health == Health::Unknown {
            return (false, None);
        }
        let mut is_new = false;
        // An answer closes it; to send more again to one that was suspended takes a success.
        let closes = match health {
            Health::Good => true,
            Health::Refusing => self.suspended_at.is_none(),
            Health::Bad | Health::Unknown => false,
        };
        if closes && self.open.take().is_some() {
            is_new = true;
        }
        if health == Health::Good {
            let was_suspended = self.suspended_at.take().is_some();
            // The first success, too: after a restart it is known to have been well.
            is_new |= self.failing_since.take().is_some() || self.last_success_at.is_none();
            (self.failures, self.last_failure, self.last_success_at) = (0, None, Some(now));
            return (is_new, was_suspended.then_some(Change::Resumed));
        }
        self.failures = self.failures.saturating_add(1);
        self.last_failure = failure.cloned();
        let since = *self.failing_since.get_or_insert_with(|| {
            is_new = true;
            now
        });
        let is_long = now.duration_since(since) >= signed(policy.suspend_after);
        // Days without one success, and not only one attempt now and another days later.
        if self.suspended_at.is_none() && is_long && self.failures >= policy.min_samples {
            self.suspended_at = Some(now);
            self.open(now, policy);
            return (true, Some(Change::Suspended));
        }
        (is_new, None)
    }

    /// The breaker opens, or stays open after a probe that failed.
    pub(super) fn open(&mut self, now: Timestamp, policy: &BreakerPolicy) {
        let times = self.open.map_or(0, |open| open.times).saturating_add(1);
        let pause = if self.suspended_at.is_some() {
            policy.suspended_probe
        } else {
            let doubled = policy.open_for.saturating_mul(1 << (times - 1).min(16));
            doubled.min(policy.max_open_for)
        };
        self.open = Some(Open { until: now.checked_add(pause).unwrap_or(Timestamp::MAX), times });
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
