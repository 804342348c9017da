//! Section `[source]`.

use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use super::callbacks::{as_in_urls, require_hosts};
use super::{ConfigError, require};
use crate::domain::retry::RetryPolicy;

/// By how much each delay exceeds the one before it: config/default.toml says what that comes to.
const RETRY_MULTIPLIER: f64 = 2.5;

/// Section `[source]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Source {
    pub enabled: bool,
    pub capacity: u64,
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub first_byte_timeout_ms: u64,
    pub concurrency: usize,
    pub per_origin: usize,
    pub max_tries: u32,
    pub retry_initial_ms: u64,
    pub retry_max_ms: u64,
    pub allow_http: bool,
    pub allow_networks: Vec<IpNet>,
    pub allow_hosts: Vec<String>,
}

impl Source {
    /// The hosts that pictures may be fetched from whatever their addresses, as a URL has them.
    #[must_use]
    pub fn allow_hosts(&self) -> Vec<String> {
        as_in_urls(&self.allow_hosts)
    }

    /// The schedule of tries to fetch a picture.
    #[must_use]
    pub fn retry_policy(&self) -> RetryPolicy {
        RetryPolicy {
            initial: Duration::from_millis(self.retry_initial_ms),
            multiplier: RETRY_MULTIPLIER,
            max_delay: Duration::from_millis(self.retry_max_ms),
            max_attempts: self.max_tries,
        }
    }

    /// What no type says of the values.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let leaves_places = self.per_origin < self.concurrency || self.per_origin == 1;
        require(leaves_places, "source.per_origin", || {
            "must be less than source.concurrency, or 1".to_owned()
        })?;
        require_hosts("source.allow_hosts", self.allow_hosts.iter())
    }
}
