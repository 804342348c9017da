//! Section `[server]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

use super::{ConfigError, DAY_MS, require};

/// Section `[server]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Server {
    pub listen: SocketAddr,
    pub public_base_url: String,
    pub tls_cert: PathBuf,
    pub tls_key: PathBuf,
    pub tls_reload_ms: u64,
    pub tls_handshake_timeout_ms: u64,
    pub header_timeout_ms: u64,
    pub write_timeout_ms: u64,
    pub body_idle_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub max_uploads: u64,
    pub min_upload_bytes_per_second: u32,
    pub upload_grace_ms: u64,
    pub max_upload_bytes: u64,
    pub drain_timeout_ms: u64,
    pub cors_origins: Vec<String>,
    pub max_connections: usize,
    pub max_connections_per_ip: usize,
    pub max_uri_bytes: usize,
    pub max_headers: usize,
    pub max_header_bytes: usize,
    pub http2_max_streams: u32,
    pub http2_max_pending_resets: usize,
    pub http2_stream_window_bytes: u32,
    pub http2_connection_window_bytes: u32,
}

impl Server {
    /// The files of the certificate and its key, if it is to speak TLS.
    #[must_use]
    pub fn tls(&self) -> Option<(&Path, &Path)> {
        let is_given = !self.tls_cert.as_os_str().is_empty();
        is_given.then_some((&self.tls_cert, &self.tls_key))
    }

    /// The numbers that would stop the service, or make it useless, outside of these bounds.
    #[rustfmt::skip]
    pub(super) fn bounded(&self) -> [(&'static str, u64, RangeInclusive<u64>); 20] {
        [
            ("server.tls_reload_ms", self.tls_reload_ms, 10..=DAY_MS),
            ("server.tls_handshake_timeout_ms", self.tls_handshake_timeout_ms, 1..=DAY_MS),
            ("server.header_timeout_ms", self.header_timeout_ms, 1..=DAY_MS),
            ("server.write_timeout_ms", self.write_timeout_ms, 1..=DAY_MS),
            ("server.body_idle_timeout_ms", self.body_idle_timeout_ms, 1..=DAY_MS),
            ("server.body_timeout_ms", self.body_timeout_ms, 1..=DAY_MS),
            ("server.max_uploads", self.max_uploads, 1..=1_000_000),
            ("server.min_upload_bytes_per_second", self.min_upload_bytes_per_second.into(), 0..=1 << 30),
            ("server.upload_grace_ms", self.upload_grace_ms, 0..=DAY_MS),
            ("server.max_upload_bytes", self.max_upload_bytes, 1..=1 << 40),
            ("server.drain_timeout_ms", self.drain_timeout_ms, 0..=DAY_MS),
            ("server.max_connections", self.max_connections as u64, 1..=1_000_000),
            ("server.max_connections_per_ip", self.max_connections_per_ip as u64, 0..=1_000_000),
            // hyper takes 65 534 bytes at most.
            ("server.max_uri_bytes", self.max_uri_bytes as u64, 256..=60_000),
            ("server.max_headers", self.max_headers as u64, 16..=1000),
            ("server.max_header_bytes", self.max_header_bytes as u64, 1024..=1 << 20),
            ("server.http2_max_streams", self.http2_max_streams.into(), 1..=10_000),
            ("server.http2_max_pending_resets", self.http2_max_pending_resets as u64, 1..=10_000),
            ("server.http2_stream_window_bytes", self.http2_stream_window_bytes.into(), 65_535..=1 << 30),
            ("server.http2_connection_window_bytes", self.http2_connection_window_bytes.into(), 65_535..=1 << 30),
        ]
    }

    /// What no type says of the values.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let base = self.public_base_url.as_str();
        let base_ok = base.is_empty()
            || Url::parse(base)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
        require(base_ok, "server.public_base_url", || {
            "must be an http or https URL without a query".to_owned()
        })?;
        for origin in &self.cors_origins {
            require(origin == "*" || is_origin(origin), "server.cors_origins", || {
                format!("{origin:?} is no origin, such as https://app.example, nor *")
            })?;
        }
        let both = self.tls_cert.as_os_str().is_empty() == self.tls_key.as_os_str().is_empty();
        require(both, "server.tls_cert", || "and server.tls_key go together: give both, or none".to_owned())
    }
}

/// Whether a browser would send it so: scheme, host and port, and no slash at the end.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.origin().ascii_serialization() == text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_as_browsers_send_it() {
        for right in ["https://app.example", "http://localhost:3000", "https://xn--bcher-kva.example"] {
            assert!(is_origin(right), "{right}");
        }
        for wrong in [
            "https://app.example/",
            "https://app.example:443",
            "https://App.example",
            "app.example",
            "null",
            "ftp://app.example",
            "https://*.example.org/x",
            "https://user@app.example",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }
}
