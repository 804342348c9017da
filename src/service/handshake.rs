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
        self.hosts.iter().any(|asked| asked == "*" || asked.eq_ignore_ascii_case(host))
    }
}

/// Who has permitted callbacks, and until when that is relied on. It is asked for again after a restart.
#[derive(Debug, Default)]
pub(super) struct Permissions(Mutex<HashMap<String, Timestamp>>);

impl Permissions {
    fn has(&self, receiver: &str, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(receiver).is_some_and(|until| *until > now)
    }

    fn put(&self, receiver: String, now: Timestamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(receiver, now.checked_add(LASTS).unwrap_or(Timestamp::MAX));
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
        // A query may hold a token, and does not make it another receiver.
        let receiver = format!("{}{}", url.origin().ascii_serialization(), url.path());
        let now = self.clock.now();
        if !self.permissions.has(&receiver, now) {
            let rate = policy.rate_per_second.saturating_mul(SECONDS_PER_MINUTE);
            let rate = Some(rate).filter(|rate| *rate > 0);
            let grant = self.sender.handshake(url, &policy.origin, rate, policy.timeout).await?;
            tracing::info!(receiver, rate_per_minute = grant.rate_per_minute, "callbacks are permitted");
            self.store.pace_destination(Destination::id(client, url), grant.rate_per_minute);
            self.permissions.put(receiver, now);
        }
        Ok(Some(&policy.origin))
    }
}
