//! What each client may use: requests and uploaded bytes in a minute, and jobs that wait.
//!
//! A quota of a minute is a bucket that fills evenly (a token bucket): who used nothing for a minute may use all of it at
//! once. It is kept in memory, for as many clients as there are, and full again after a restart. What the service as a
//! whole can take is [`super::intake`]'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::{Service, ServiceError};
use crate::domain::client::{Caller, ClientId, ClientLimits};

/// What quotas are counted over.
pub const WINDOW: Duration = Duration::from_secs(60);
const WINDOW_MS: i128 = 60_000;
/// When a client that has as many jobs waiting as may wait looks again.
const RETRY_WHEN_WAITING: Duration = Duration::from_secs(5);
/// When one that has as many tickets as it may asks for another.
pub(super) const RETRY_TICKETS: Duration = super::tickets::LIFETIME;
/// Requests in a minute with keys that are good for nothing, from all who have none that is good.
const BAD_KEYS: u64 = 600;

/// A quota, as answers tell of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Which.
    pub policy: &'static str,
    /// How much in [`WINDOW`].
    pub quota: u64,
    /// How much of it is left.
    pub remaining: u64,
    /// When all of it is there again.
    pub full_in: Duration,
}

/// A quota is used up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Exceeded {
    /// Which.
    pub policy: &'static str,
    /// When to come again.
    pub retry_after: Duration,
    detail: String,
}

impl Exceeded {
    pub(super) fn new(policy: &'static str, retry_after: Duration, detail: String) -> Self {
        Self { policy, retry_after, detail }
    }
}

/// The policies' names.
const REQUESTS: &str = "requests";
const UPLOADS: &str = "upload-bytes";
const WAITING: &str = "waiting-jobs";

/// A bucket in units that come in whole each millisecond: a token is [`WINDOW_MS`] of them, and a millisecond brings as
/// many as the quota has tokens.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: i128,
    at: Timestamp,
}

impl Bucket {
    fn full(quota: u64, now: Timestamp) -> Self {
        Self { level: i128::from(quota) * WINDOW_MS, at: now }
    }

    fn fill(&mut self, quota: u64, now: Timestamp) {
        let elapsed = now.duration_since(self.at).as_millis().max(0);
        self.level = (self.level + elapsed * i128::from(quota)).min(i128::from(quota) * WINDOW_MS);
        self.at = now;
    }

    /// Takes so much, or says how long it takes until that is there. More than the whole is there when all is; what is
    /// taken beyond it is waited for afterwards.
    fn take(&mut self, amount: u64, quota: u64, now: Timestamp) -> Result<(), Duration> {
        self.fill(quota, now);
        let needed = i128::from(amount.min(quota)) * WINDOW_MS;
        if self.level < needed {
            return Err(time(needed - self.level, quota));
        }
        self.level -= i128::from(amount) * WINDOW_MS;
        Ok(())
    }

    fn told(mut self, policy: &'static str, quota: u64, now: Timestamp) -> Allowance {
        self.fill(quota, now);
        let remaining = u64::try_from(self.level / WINDOW_MS).unwrap_or(0);
        let full_in = time(i128::from(quota) * WINDOW_MS - self.level, quota);
        Allowance { policy, quota, remaining, full_in }
    }
}

/// How long it takes for so many units to come in.
fn time(units: i128, quota: u64) -> Duration {
    let quota = i128::from(quota.max(1));
    Duration::from_millis(u64::try_from((units + quota - 1) / quota).unwrap_or(0))
}

struct Usage {
    requests: Bucket,
    uploads: Bucket,
    /// Jobs that are being received.
    receiving: u64,
}

type Used = Arc<Mutex<HashMap<ClientId, Usage>>>;

/// How much clients have used of late.
pub(super) struct Quotas {
    defaults: ClientLimits,
    used: Used,
    bad_keys: Mutex<Bucket>,
}

impl Quotas {
    /// Those that a client's own limits say nothing of are these.
    pub(super) fn new(defaults: ClientLimits, now: Timestamp) -> Self {
        Self { defaults, used: Arc::default(), bad_keys: Mutex::new(Bucket::full(BAD_KEYS, now)) }
    }

    fn used(&self) -> MutexGuard<'_, HashMap<ClientId, Usage>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        client: &ClientId,
        limits: Limits,
        now: Timestamp,
        of: impl FnOnce(&mut Usage) -> T,
    ) -> T {
        let mut used = self.used();
        let new = || Usage {
            requests: Bucket::full(limits.requests, now),
            uploads: Bucket::full(limits.uploads, now),
            receiving: 0,
        };
        of(used.entry(client.clone()).or_insert_with(new))
    }
}

/// The limits that hold; 0 is none.
#[derive(Debug, Clone, Copy)]
struct Limits {
    requests: u64,
    waiting: u64,
    uploads: u64,
}

/// The place of a job that is being received among those that its client may have waiting.
pub struct Place(Option<(Used, ClientId)>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((used, client)) = self.0.take()
            && let Some(usage) = used.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&client)
        {
            usage.receiving = usage.receiving.saturating_sub(1);
        }
    }
}

/// Counts the bytes of an upload.
pub struct Meter<'a> {
    service: &'a Service,
    client: &'a ClientId,
    limits: Option<Limits>,
    /// What was taken from the quota already.
    paid: u64,
    counted: u64,
}

impl Meter<'_> {
    /// So many bytes came in.
    pub fn count(&mut self, bytes: u64) -> Result<(), Exceeded> {
        self.counted += bytes;
        let due = self.counted.saturating_sub(self.paid);
        let Some(limits) = self.limits.filter(|_| due > 0) else { return Ok(()) };
        self.service.take_bytes(self.client, limits, due)?;
        self.paid = self.counted;
        Ok(())
    }
}

impl Service {
    /// `None` for who asks without a key, under `serve --dev`.
    fn limits_of(&self, client: &ClientId) -> Option<Limits> {
        let own = self.store.client(client)?.limits;
        let defaults = self.quotas.defaults;
        let either = |own: Option<u32>, default: Option<u32>| own.or(default).map_or(0, u64::from);
        Some(Limits {
            requests: either(own.requests_per_minute, defaults.requests_per_minute),
            waiting: either(own.waiting_jobs, defaults.waiting_jobs),
            uploads: own.upload_bytes_per_minute.or(defaults.upload_bytes_per_minute).unwrap_or(0),
        })
    }

    /// Counts a request.
    pub fn count_request(&self, caller: &Caller) -> Result<(), ServiceError> {
        let Some(limits) = self.limits_of(&caller.client).filter(|limits| limits.requests > 0) else {
            return Ok(());
        };
        let now = self.clock.now();
        let taken = self
            .quotas
            .with(&caller.client, limits, now, |usage| usage.requests.take(1, limits.requests, now));
        taken.map_err(|retry_after| {
            let detail = format!("{} requests a minute are allowed", limits.requests);
            ServiceError::QuotaExceeded(Exceeded::new(REQUESTS, retry_after, detail))
        })
    }

    /// What is left to a client.
    #[must_use]
    pub fn allowances(&self, caller: &Caller) -> Vec<Allowance> {
        let Some(limits) = self.limits_of(&caller.client) else { return Vec::new() };
        let now = self.clock.now();
        let told = self.quotas.with(&caller.client, limits, now, |usage| {
            [
                usage.requests.told(REQUESTS, limits.requests, now),
                usage.uploads.told(UPLOADS, limits.uploads, now),
            ]
        });
        told.into_iter().filter(|allowance| allowance.quota > 0).collect()
    }

    /// Counts a request with a key that is good for nothing. One with a good key is never held up by these.
    pub fn count_bad_key(&self) -> Result<(), ServiceError> {
        let mut bucket = self.quotas.bad_keys.lock().unwrap_or_else(PoisonError::into_inner);
        bucket.take(1, BAD_KEYS, self.clock.now()).map_err(|retry_after| {
            let detail = "too many requests came with keys that are unknown or were revoked".to_owned();
            ServiceError::QuotaExceeded(Exceeded::new("bad-keys", retry_after, detail))
        })
    }

    /// A place for one more job of the client's, if it may have one more waiting.
    pub async fn place(&self, caller: &Caller) -> Result<Place, ServiceError> {
        let client = &caller.client;
        let Some(limits) = self.limits_of(client).filter(|limits| limits.waiting > 0) else {
            return Ok(Place(None));
        };
        // Counted as being received until after it counts as waiting: it may be seen twice for a moment, never not at all.
        let now = self.clock.now();
        let receiving = self.quotas.with(client, limits, now, |usage| {
            usage.receiving += 1;
            usage.receiving
        });
        let place = Place(Some((Arc::clone(&self.quotas.used), client.clone())));
        // Only a service that has that many waiting is worth a look at whose they are.
        let all = self.store.waiting_jobs();
        let waiting = if all.saturating_add(receiving) <= limits.waiting {
            0
        } else {
            self.store.waiting_of(client, limits.waiting).await?
        };
        if waiting.saturating_add(receiving) <= limits.waiting {
            return Ok(place);
        }
        let detail = format!("{} jobs of a client may wait at once", limits.waiting);
        Err(ServiceError::QuotaExceeded(Exceeded::new(WAITING, RETRY_WHEN_WAITING, detail)))
    }

    /// What counts the bytes of an upload, of which the client has announced so many.
    pub fn meter<'a>(
        &'a self,
        caller: &'a Caller,
        announced: Option<u64>,
    ) -> Result<Meter<'a>, ServiceError> {
        let client = &caller.client;
        let limits = self.limits_of(client).filter(|limits| limits.uploads > 0);
        let paid = announced.unwrap_or(0);
        if let Some(limits) = limits {
            // Who announces nothing needs something left.
            self.take_bytes(client, limits, paid.max(1)).map_err(ServiceError::QuotaExceeded)?;
        }
        Ok(Meter { service: self, client, limits, paid: paid.max(1), counted: 0 })
    }

    fn take_bytes(&self, client: &ClientId, limits: Limits, bytes: u64) -> Result<(), Exceeded> {
        let now = self.clock.now();
        let take = |usage: &mut Usage| usage.uploads.take(bytes, limits.uploads, now);
        self.quotas.with(client, limits, now, take).map_err(|retry_after| Exceeded {
            policy: UPLOADS,
            retry_after,
            detail: format!("{} bytes of uploads a minute are allowed", limits.uploads),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::at;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn a_quota_comes_back_evenly_and_says_when() {
        let mut bucket = Bucket::full(60, at(0));
        assert_eq!(bucket.take(60, 60, at(0)), Ok(()));
        assert_eq!(bucket.take(1, 60, at(0)), Err(secs(1)));
        assert_eq!(bucket.take(5, 60, at(2)), Err(secs(3)));
        assert_eq!(bucket.told("p", 60, at(2)).remaining, 2);
        assert_eq!(bucket.told("p", 60, at(2)).full_in, secs(58));
        assert_eq!(bucket.take(2, 60, at(2)), Ok(()));
        assert_eq!(bucket.take(60, 60, at(1000)), Ok(()));
        assert_eq!(bucket.take(1, 60, at(1000)), Err(secs(1)), "it never holds more than the quota");
    }

    #[test]
    fn what_exceeds_the_whole_passes_alone_and_is_waited_for_afterwards() {
        let mut bucket = Bucket::full(10, at(0));
        assert_eq!(bucket.take(25, 10, at(0)), Ok(()));
        assert_eq!(bucket.take(1, 10, at(0)), Err(secs(96)));
        assert_eq!(bucket.told("p", 10, at(0)).remaining, 0);
        assert_eq!(bucket.take(10, 10, at(149)), Err(secs(1)));
        assert_eq!(bucket.take(10, 10, at(150)), Ok(()));
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_away() {
        let mut bucket = Bucket::full(60, at(100));
        assert_eq!(bucket.take(1, 60, at(50)), Ok(()));
        assert_eq!(bucket.take(59, 60, at(50)), Ok(()));
        assert_eq!(bucket.take(1, 60, at(51)), Ok(()));
    }
}
