//! `Prefer: respond-async, wait=N`: the client would rather wait for N seconds than ask again (RFC 7240).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// What `Vary` says where a preference makes an answer another one.
pub(super) const VARY_BY: HeaderValue = HeaderValue::from_static("Prefer");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The longest wait, in seconds; who prefers a longer one waits so long.
const MAX_WAIT: u64 = 60;

/// What the client prefers. Preferences that are unknown or malformed are passed over, as the RFC has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Preferences {
    /// An answer before the work is done.
    pub(super) respond_async: bool,
    /// How long it would wait for the work before that.
    pub(super) wait: Option<Duration>,
}

impl Preferences {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let lines = || headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
        let preferences =
            || lines().flat_map(|line| line.split(',')).filter_map(|text| text.split(';').next());
        let respond_async = preferences().any(|text| text.trim().eq_ignore_ascii_case("respond-async"));
        let seconds = preferences().find_map(|text| {
            let (name, value) = text.split_once('=')?;
            let is_wait = name.trim().eq_ignore_ascii_case("wait");
            is_wait.then(|| value.trim().trim_matches('"').parse::<u64>().ok())
        });
        let wait = seconds.flatten().map(|seconds| Duration::from_secs(seconds.min(MAX_WAIT)));
        Self { respond_async, wait }
    }

    /// The value of `Preference-Applied` after these were granted.
    pub(super) fn applied(self) -> Option<HeaderValue> {
        let wait = self.wait.map(|wait| format!("wait={}", wait.as_secs()));
        let granted: Vec<_> =
            self.respond_async.then(|| "respond-async".to_owned()).into_iter().chain(wait).collect();
        HeaderValue::try_from(granted.join(", ")).ok().filter(|_| !granted.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Preferences {
        Preferences::read(&values.iter().map(|value| (PREFER, HeaderValue::from_static(value))).collect())
    }

    fn seconds(values: &[&'static str]) -> Option<u64> {
        read(values).wait.map(|wait| wait.as_secs())
    }

    #[test]
    fn the_first_wait_counts_up_to_a_minute() {
        assert_eq!(seconds(&[]), None);
        assert_eq!(seconds(&["wait=10"]), Some(10));
        assert_eq!(seconds(&["respond-async, Wait = \"7\"; x=1, wait=3"]), Some(7));
        assert_eq!(seconds(&["return=minimal", "wait=0"]), Some(0));
        assert_eq!(seconds(&["wait=86400"]), Some(60));
        for other in ["wait", "wait=", "wait=-1", "wait=1.5", "wait=soon", "waiting=1", "respond-async"] {
            assert_eq!(seconds(&[other]), None, "{other}");
        }
    }

    #[test]
    fn what_is_granted_is_named() {
        let applied = |values: &[&'static str]| read(values).applied();
        assert_eq!(applied(&["respond-async, wait=5"]).unwrap(), "respond-async, wait=5");
        assert_eq!(applied(&["wait=99", "Respond-Async"]).unwrap(), "respond-async, wait=60");
        assert_eq!(applied(&["wait=5"]).unwrap(), "wait=5");
        assert_eq!(applied(&["respond-async"]).unwrap(), "respond-async");
        assert_eq!(applied(&["return=minimal", "respond-async=x"]), None);
    }
}
