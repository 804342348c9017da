//! One attempt to deliver: what is recorded of it.

use std::net::SocketAddr;

use jiff::fmt::serde::timestamp::millisecond;
use jiff::{SignedDuration, Timestamp};
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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Receiver, Self::Proxy, Self::Service];

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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Scheduled, Self::Manual, Self::Replay];

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
        self.steers("disable")
    }

    /// Whether the receiver wants no further attempt of this delivery: it answered 410, or
    /// `webhook-delivery: abort-message`.
    #[must_use]
    pub fn asks_to_abort(&self) -> bool {
        let is_gone = self.response.as_ref().is_some_and(|response| response.status == 410);
        is_gone || self.steers("abort-message")
    }

    /// When the receiver wants the next attempt (RFC 9110, section 10.2.3): seconds or a date, with 429 or 503.
    #[must_use]
    pub fn retry_after(&self, now: Timestamp) -> Option<Timestamp> {
        let response = self.response.as_ref().filter(|response| matches!(response.status, 429 | 503))?;
        let text = response.header("retry-after")?;
        // However far off: whoever reads it sets the bound.
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = text.parse().map_or(SignedDuration::MAX, SignedDuration::from_secs);
            return Some(now.checked_add(seconds).unwrap_or(Timestamp::MAX));
        }
        let date = httpdate::parse_http_date(text).ok()?;
        Some(Timestamp::try_from(date).unwrap_or(Timestamp::MAX))
    }

    /// Whether a `webhook-delivery` says so; there may be several, and lists.
    fn steers(&self, wanted: &str) -> bool {
        let headers = self.response.iter().flat_map(|response| &response.headers);
        let values = headers.filter(|(name, _)| name == "webhook-delivery").map(|(_, value)| value);
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    }
}

impl ResponseHead {
    /// A field's value, without the blanks around it.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.trim())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, headers: &[(&str, &str)]) -> Attempt {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Attempt {
            number: 1,
            trigger: Trigger::Scheduled,
            started_at: Timestamp::UNIX_EPOCH,
            duration_ms: 1,
            timings: Timings::default(),
            remote_addr: None,
            response: Some(ResponseHead { status, headers, body: String::new(), truncated: false }),
            error: None,
            next_attempt_at: None,
        }
    }

    #[test]
    fn a_retry_after_beyond_all_bounds_is_late_and_not_nothing() {
        let asked = |value| answered(503, &[("retry-after", value)]).retry_after(Timestamp::UNIX_EPOCH);
        let second = |second| Some(Timestamp::from_second(second).unwrap());
        assert_eq!(asked(" 120 "), second(120));
        assert_eq!(asked("4294967296"), second(4_294_967_296));
        assert_eq!(asked("Thu, 01 Jan 1970 00:02:00 GMT"), second(120));
        for late in ["99999999999999999999", "9223372036854775807", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            assert_eq!(asked(late), Some(Timestamp::MAX), "{late}");
        }
        for nonsense in ["", "-1", "+1", "1.5", "soon"] {
            assert_eq!(asked(nonsense), None, "{nonsense}");
        }
        assert_eq!(answered(500, &[("retry-after", "120")]).retry_after(Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn a_receiver_steers_in_lists_and_repeated_headers_too() {
        let abort = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("webhook-delivery", *value)).collect();
            answered(500, &headers).asks_to_abort()
        };
        assert!(
            abort(&["abort-message"]) && abort(&["foo, Abort-Message"]) && abort(&["foo", "abort-message"])
        );
        assert!(!abort(&["abort-messages", "disable"]) && !abort(&[]));
        assert!(answered(410, &[]).asks_to_abort());
    }
}
