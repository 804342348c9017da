//! One attempt to deliver: what is recorded of it.

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

/// What kind of failure an attempt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ErrorClass {
    /// The name did not resolve.
    Dns,
    /// No connection came about.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The attempt's deadline passed.
    Timeout,
    /// The connection broke.
    Reset,
    /// The receiver answered 3xx; redirects are not followed.
    Redirect,
    /// The address is not one that callbacks may reach.
    BlockedAddress,
    /// The receiver answered with another status than 2xx.
    Http,
    /// The answer exceeded its bounds.
    TooLarge,
    /// The answer was no HTTP.
    Protocol,
}

impl ErrorClass {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::Reset,
        Self::Redirect,
        Self::BlockedAddress,
        Self::Http,
        Self::TooLarge,
        Self::Protocol,
    ];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
            Self::Redirect => "redirect",
            Self::BlockedAddress => "blocked_address",
            Self::Http => "http",
            Self::TooLarge => "too_large",
            Self::Protocol => "protocol",
        }
    }
}

/// Who has to do something about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Fault {
    /// Whoever runs the receiver, its name or its certificate.
    #[default]
    Receiver,
    /// The egress proxy between here and there.
    Proxy,
    /// This service: its configuration forbids the address, or it cannot send.
    Service,
}

impl Fault {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Receiver => "receiver",
            Self::Proxy => "proxy",
            Self::Service => "service",
        }
    }
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The kind.
    pub class: ErrorClass,
    /// Whose it is.
    #[serde(default)]
    pub fault: Fault,
    /// What happened, in a sentence without secrets.
    pub detail: String,
}

impl Failure {
    /// A failure of this kind, laid to whoever mostly causes it.
    #[must_use]
    pub fn new(class: ErrorClass, detail: impl Into<String>) -> Self {
        let fault = if class == ErrorClass::BlockedAddress { Fault::Service } else { Fault::Receiver };
        Self { class, fault, detail: detail.into() }
    }
}

/// The head of the receiver's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseHead {
    /// The HTTP status code.
    pub status: u16,
    /// Header fields, at most 2 KiB.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, at most 4 KiB.
    pub body: String,
    /// Whether the body went on.
    pub truncated: bool,
}

/// Why an attempt was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Trigger {
    /// Its schedule said so.
    #[default]
    Scheduled,
    /// Somebody asked for this one delivery.
    Manual,
    /// A replay sent it again.
    Replay,
}

impl Trigger {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Manual => "manual",
            Self::Replay => "replay",
        }
    }
}

/// How long the parts of an attempt took, in microseconds; `None` for a part that was not reached, or not needed
/// because a connection was used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Looking the name up.
    pub dns_us: Option<u32>,
    /// Connecting, without the look-up.
    pub connect_us: Option<u32>,
    /// The TLS handshake.
    pub tls_us: Option<u32>,
    /// From then to the head of the answer (time to first byte).
    pub ttfb_us: Option<u32>,
    /// The answer's body.
    pub body_us: Option<u32>,
}

/// The record of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counted from 1.
    pub number: u32,
    /// Why it was made.
    #[serde(default)]
    pub trigger: Trigger,
    /// When it began.
    #[serde(with = "millisecond::required")]
    pub started_at: Timestamp,
    /// How long it took.
    pub duration_ms: u64,
    /// How long each part of it took.
    #[serde(default)]
    pub timings: Timings,
    /// The address it was connected to.
    pub remote_addr: Option<SocketAddr>,
    /// What the receiver answered.
    pub response: Option<ResponseHead>,
    /// Why it failed; `None` when it was delivered.
    pub error: Option<Failure>,
    /// When the next one is due, as decided then.
    #[serde(with = "millisecond::optional")]
    pub next_attempt_at: Option<Timestamp>,
}

impl Attempt {
    /// Whether the receiver answered `webhook-delivery: disable`: it wants nothing more (Standard Webhooks, pull request
    /// 291).
    #[must_use]
    pub fn asks_to_disable(&self) -> bool {
        self.steering("webhook-delivery").is_some_and(|value| value.eq_ignore_ascii_case("disable"))
    }

    /// Whether the receiver wants no further attempt of this delivery: it answered 410, or
    /// `webhook-delivery: abort-message`.
    #[must_use]
    pub fn asks_to_abort(&self) -> bool {
        let is_gone = self.response.as_ref().is_some_and(|response| response.status == 410);
        let value = self.steering("webhook-delivery");
        is_gone || value.is_some_and(|value| value.eq_ignore_ascii_case("abort-message"))
    }

    /// When the receiver wants the next attempt (RFC 9110, section 10.2.3): seconds or a date, with 429 or 503.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Timestamp> {
        let response = self.response.as_ref().filter(|response| matches!(response.status, 429 | 503))?;
        let text = response.header("retry-after")?;
        match text.parse::<u32>() {
            Ok(seconds) => now.checked_add(Duration::from_secs(seconds.into())).ok(),
            Err(_) => {
                let date = httpdate::parse_http_date(text).ok()?;
                Timestamp::try_from(date).ok()
            }
        }
    }

    fn steering(&self, name: &str) -> Option<&str> {
        self.response.as_ref()?.header(name)
    }
}

impl ResponseHead {
    /// A field's value, without the blanks around it.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.trim())
    }
}
