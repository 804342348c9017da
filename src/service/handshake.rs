//! Asking receivers for their permission first, where that is configured (CloudEvents 1.0, HTTP 1.1 Web Hooks, section 4).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use url::Url;

use super::Service;
use crate::domain::client::ClientId;
use crate::domain::delivery::Failure;
use crate::domain::destination::Destination;
use crate::domain::id::DestinationId;

/// How long a permission is relied on.
const LASTS: SignedDuration = SignedDuration::from_hours(24);
/// Permissions that are remembered; beyond that, receivers are asked again.
const MOST: usize = 10_000;
const SECONDS_PER_MINUTE: u32 = 60;

/// Who is asked, and by whom.
#[derive(Debug, Clone, Default)]
pub struct HandshakePolicy {
    /// The hosts that are asked; `*` stands for all.
    pub hosts: Vec<String>,
    /// This service's DNS name.
    pub origin: String,
    /// For the whole of an answer.
    pub timeout: Duration,
    /// Attempts a second to one destination; 0: no bound, and none is asked for.
    pub rate_per_second: u32,
}

impl HandshakePolicy {
    fn asks(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_suffix('.').unwrap_or(host);
        self.hosts.iter().any(|asked| asked == "*" || asked == host)
    }
}

/// Who has permitted callbacks. It is asked for again after a restart.
#[derive(Debug, Default)]
pub(super) struct Permissions(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    destinations: HashMap<DestinationId, Grants>,
    count: usize,
}

/// What the receivers of one destination permit.
#[derive(Debug, Default)]
struct Grants {
    /// By path, as a query may hold a token and does not make it another receiver; until when each is relied on.
    paths: HashMap<String, Timestamp>,
    /// Callbacks a minute: the least that one of them takes, as they share the destination's pace.
    rate_per_minute: Option<u32>,
}

impl Permissions {
    /// The pace of a receiver that has permitted callbacks.
    fn pace(&self, destination: DestinationId, path: &str, now: Timestamp) -> Option<Option<u32>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let grants = known.destinations.get(&destination)?;
        grants.paths.get(path).filter(|until| **until > now).map(|_| grants.rate_per_minute)
    }

    fn put(&self, destination: DestinationId, path: &str, rate: Option<u32>, now: Timestamp) -> Option<u32> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.count >= MOST {
            *known = Known::default();
        }
        known.count += 1;
        let grants = known.destinations.entry(destination).or_default();
        grants.paths.insert(path.to_owned(), now.checked_add(LASTS).unwrap_or(Timestamp::MAX));
        grants.rate_per_minute = grants.rate_per_minute.into_iter().chain(rate).min();
        grants.rate_per_minute
    }
}

impl Service {
    /// Who calls, if the receiver is one that is asked and permits it; `None` if it is not asked. The rate that it
    /// permits is kept to.
    pub(super) async fn permission(&self, client: &ClientId, url: &Url) -> Result<Option<&str>, Failure> {
        let policy = &self.settings.handshake;
        if !policy.asks(url) {
            return Ok(None);
        }
        let (destination, now) = (Destination::id(client, url), self.clock.now());
        let pace = match self.permissions.pace(destination, url.path(), now) {
            Some(pace) => pace,
            None => {
                let rate = policy.rate_per_second.saturating_mul(SECONDS_PER_MINUTE);
                let rate = Some(rate).filter(|rate| *rate > 0);
                let grant = self.sender.handshake(url, &policy.origin, rate, policy.timeout).await?;
                // Without the path, which may be all that keeps others from sending there.
                let origin = url.origin().ascii_serialization();
                tracing::info!(origin, rate_per_minute = grant.rate_per_minute, "callbacks are permitted");
                self.permissions.put(destination, url.path(), grant.rate_per_minute, now)
            }
        };
        // Each time, as the destination may have been forgotten since.
        self.store.pace_destination(destination, pace);
        Ok(Some(&policy.origin))
    }
}
