//! `Prefer: wait=N`: the client would rather wait for N seconds than ask again (RFC 7240).

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
const PREFER: HeaderName = HeaderName::from_static("prefer");
/// The longest wait, in seconds; who prefers a longer one waits so long.
const MAX_WAIT: u64 = 60;

/// How long the client prefers to wait. Preferences that are unknown or malformed are passed over, as the RFC has it.
pub(super) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let seconds = lines.flat_map(|line| line.split(',')).find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse::<u64>().ok())
    })?;
    Some(Duration::from_secs(seconds?.min(MAX_WAIT)))
}

/// The value of `Preference-Applied` after such a wait was granted.
pub(super) fn applied(wait: Duration) -> HeaderValue {
    HeaderValue::try_from(format!("wait={}", wait.as_secs())).unwrap_or(HeaderValue::from_static("wait"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(values: &[&'static str]) -> Option<u64> {
        let values = values.iter().map(|value| (PREFER, HeaderValue::from_static(value)));
        wait(&values.collect()).map(|wait| wait.as_secs())
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
        assert_eq!(applied(Duration::from_secs(5)), "wait=5");
    }
}
