//! Section `[limits]`.

use std::ops::RangeInclusive;

use serde::Deserialize;

use crate::domain::client::ClientLimits;

/// Section `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Limits {
    pub requests_per_minute: u32,
    pub waiting_jobs: u32,
    pub upload_bytes_per_minute: u64,
}

impl Limits {
    /// What holds for clients whose own limits say nothing.
    #[must_use]
    pub fn defaults(&self) -> ClientLimits {
        ClientLimits {
            requests_per_minute: Some(self.requests_per_minute),
            waiting_jobs: Some(self.waiting_jobs),
            upload_bytes_per_minute: Some(self.upload_bytes_per_minute),
        }
    }

    pub(super) fn bounded(&self) -> [(&'static str, u64, RangeInclusive<u64>); 3] {
        [
            ("limits.requests_per_minute", self.requests_per_minute.into(), 0..=ClientLimits::MOST.into()),
            ("limits.waiting_jobs", self.waiting_jobs.into(), 0..=ClientLimits::MOST.into()),
            ("limits.upload_bytes_per_minute", self.upload_bytes_per_minute, 0..=ClientLimits::MOST_BYTES),
        ]
    }
}
