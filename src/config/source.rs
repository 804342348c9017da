//! Section `[source]`.

use ipnet::IpNet;
use serde::Deserialize;

use super::ConfigError;
use super::callbacks::{as_in_urls, require_hosts};

/// Section `[source]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Source {
    pub enabled: bool,
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub concurrency: usize,
    pub per_origin: usize,
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

    /// What no type says of the values.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        require_hosts("source.allow_hosts", self.allow_hosts.iter())
    }
}
