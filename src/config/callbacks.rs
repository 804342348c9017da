//! Section `[callbacks]`.

use std::net::Ipv6Addr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use url::{Host, Url};

use super::{ConfigError, DAY_MS, require};

/// Section `[callbacks]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Callbacks {
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub concurrency: usize,
    pub max_attempts: u32,
    pub retry_initial_ms: u64,
    pub retry_multiplier: f64,
    pub retry_max_ms: u64,
    pub allow_http: bool,
    pub allow_networks: Vec<IpNet>,
    pub allow_hosts: Vec<String>,
    pub egress_proxy: String,
    pub signing_secret: String,
    pub ed25519: bool,
    pub handshake_hosts: Vec<String>,
    pub handshake_origin: String,
    pub artifact_links_ms: u64,
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            egress_proxy: _,
            signing_secret: _,
            allow_http,
            allow_networks,
            allow_hosts,
            max_attempts,
            ..
        } = self;
        f.debug_struct("Callbacks")
            .field("allow_http", allow_http)
            .field("allow_networks", allow_networks)
            .field("allow_hosts", allow_hosts)
            .field("max_attempts", max_attempts)
            .finish_non_exhaustive()
    }
}

impl Callbacks {
    /// The proxy through which callbacks leave, if there is one.
    #[must_use]
    pub fn egress_proxy(&self) -> Option<Url> {
        let url = Url::parse(&self.egress_proxy).ok()?;
        let is_proxy = matches!(url.scheme(), "http" | "https") && url.port() != Some(0);
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        // The HTTP client leaves a proxy out, without a word, whose URL is none to this parser.
        let is_usable = http::Uri::try_from(url.as_str()).is_ok();
        (is_proxy && is_bare && is_usable).then_some(url)
    }

    /// The schedule of attempts.
    #[must_use]
    pub fn retry_policy(&self) -> crate::domain::retry::RetryPolicy {
        crate::domain::retry::RetryPolicy {
            initial: Duration::from_millis(self.retry_initial_ms),
            multiplier: self.retry_multiplier,
            max_delay: Duration::from_millis(self.retry_max_ms),
            max_attempts: self.max_attempts,
        }
    }

    /// The hosts that callbacks may reach whatever their addresses, as a URL has them.
    #[must_use]
    pub fn allow_hosts(&self) -> Vec<String> {
        as_in_urls(&self.allow_hosts)
    }

    /// How long the links in callbacks are good for those who have no key.
    #[must_use]
    pub fn artifact_links(&self) -> Option<Duration> {
        Some(Duration::from_millis(self.artifact_links_ms)).filter(|lasts| !lasts.is_zero())
    }

    /// The hosts that are asked for their permission, as a URL has them; `*` for all.
    #[must_use]
    pub fn handshake_hosts(&self) -> Vec<String> {
        let hosts = self.handshake_hosts.iter();
        hosts.filter_map(|host| if host == "*" { Some(host.clone()) } else { as_in_url(host) }).collect()
    }

    /// What no type says of the values.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let proxy_ok = self.egress_proxy.is_empty() || self.egress_proxy().is_some();
        require(proxy_ok, "callbacks.egress_proxy", || {
            "must be the http or https URL of a proxy, without a path".to_owned()
        })?;
        require_hosts("callbacks.allow_hosts", self.allow_hosts.iter())?;
        require_hosts("callbacks.handshake_hosts", self.handshake_hosts.iter().filter(|host| *host != "*"))?;
        require(self.artifact_links_ms <= 7 * DAY_MS, "callbacks.artifact_links_ms", || {
            format!("must be from 0 to {}", 7 * DAY_MS)
        })?;
        let origin = &self.handshake_origin;
        require(
            origin.is_empty() || matches!(Host::parse(origin), Ok(Host::Domain(name)) if name == *origin),
            "callbacks.handshake_origin",
            || "must be a DNS name, in lower case".to_owned(),
        )?;
        let secret = self.signing_secret.as_str();
        let secret_ok = secret.is_empty() || secret.parse::<crate::domain::secret::SigningSecret>().is_ok();
        require(secret_ok, "callbacks.signing_secret", || crate::domain::secret::SecretError.to_string())
    }
}

/// What no type says of a list of hosts.
pub(super) fn require_hosts<'a>(
    key: &'static str,
    hosts: impl Iterator<Item = &'a String>,
) -> Result<(), ConfigError> {
    let hosts: Vec<_> = hosts.map(String::as_str).collect();
    // A variable that is empty has one empty name.
    let is_empty = hosts.iter().all(|host| host.is_empty());
    let wrong = hosts.into_iter().find(|host| as_in_url(host).is_none() && !is_empty);
    require(wrong.is_none(), key, || {
        let host = wrong.unwrap_or_default();
        format!("must be hosts, without scheme and port, which {host:?} is not; in the environment as a,b")
    })
}

/// Hosts as URLs have them.
pub(super) fn as_in_urls(hosts: &[String]) -> Vec<String> {
    hosts.iter().filter_map(|host| as_in_url(host)).collect()
}

/// A host as the URLs that name it have it: in lower case and ASCII, an IPv6 address in brackets and its shortest form.
fn as_in_url(host: &str) -> Option<String> {
    if let Ok(address) = host.parse::<Ipv6Addr>() {
        return Some(format!("[{address}]"));
    }
    // To a URL an asterisk is a letter like others.
    let host = Host::parse(host.strip_suffix('.').unwrap_or(host)).ok().filter(|_| !host.contains('*'));
    host.map(|host| host.to_string())
}
