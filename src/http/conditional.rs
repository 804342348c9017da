//! Conditional requests, and requests for a part (RFC 9110, sections 13 and 14).

use std::ops::RangeInclusive;

use headers::{ETag, HeaderMapExt as _, IfNoneMatch, IfRange};
use http::HeaderMap;
use http::header::{IF_MATCH, IF_RANGE, RANGE};

use crate::domain::id::JobId;

/// What a request asks for of a representation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Bytes(RangeInclusive<u64>),
    /// Bytes that it does not have.
    Unsatisfiable,
}

/// Whether the client has what this entity tag stands for.
pub(super) fn not_modified(request: &HeaderMap, etag: &str) -> bool {
    let condition = request.typed_get::<IfNoneMatch>();
    etag.parse::<ETag>()
        .is_ok_and(|etag| condition.is_some_and(|condition| !condition.precondition_passes(&etag)))
}

/// The revisions of a job at which `If-Match` lets it be changed; `None`: any. Its entity tag may say more, such as
/// the live progress, which is no change that could be lost.
pub(super) fn expected_revisions(request: &HeaderMap, job: JobId) -> Option<Vec<u64>> {
    let lines: Vec<_> = request.get_all(IF_MATCH).iter().collect();
    if lines.is_empty() {
        return None;
    }
    let (prefix, mut revisions) = (format!("\"{job}-"), Vec::new());
    for line in lines {
        // No entity tag of ours has a comma.
        for tag in line.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return None;
            }
            let rest = tag.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix('"'));
            revisions.extend(rest.and_then(|rest| number(rest.split('-').next().unwrap_or_default())));
        }
    }
    Some(revisions)
}

/// The part that is asked for of so many bytes. Several ranges at once are answered with the whole, as is
/// what is no range and one of another version: the RFC leaves a server free to.
pub(super) fn part(request: &HeaderMap, etag: &str, bytes: u64) -> Part {
    let mut values = request.get_all(RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Part::Whole };
    let same_version = !request.contains_key(IF_RANGE)
        || etag.parse::<ETag>().is_ok_and(|etag| {
            request.typed_get::<IfRange>().is_some_and(|range| !range.is_modified(Some(&etag), None))
        });
    match value.to_str().ok().and_then(|text| range(text, bytes)) {
        Some(part) if same_version => part,
        _ => Part::Whole,
    }
}

// The parsers of the crates `headers` and `http-range-header` refuse a suffix that is longer than the whole,
// which stands for the whole.
fn range(text: &str, bytes: u64) -> Option<Part> {
    let (unit, spec) = text.split_once('=')?;
    let (first, last) = spec.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let end = bytes.checked_sub(1);
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (None, Some(suffix)) if first.is_empty() => (bytes.saturating_sub(suffix), u64::MAX),
        _ => return None,
    };
    Some(match end {
        Some(end) if first <= end => Part::Bytes(first..=last.min(end)),
        _ => Part::Unsatisfiable,
    })
}

/// Digits alone: `u64::from_str` takes a sign too.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use http::header::IF_NONE_MATCH;
    use http::{HeaderName, HeaderValue};

    use super::*;

    const TAG: &str = "\"abc\"";

    fn request(headers: &[(HeaderName, &str)]) -> HeaderMap {
        headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn of_ten(range: &str) -> Part {
        part(&request(&[(RANGE, range)]), TAG, 10)
    }

    #[test]
    fn a_range_is_cut_to_what_there_is() {
        for (text, bytes) in [
            ("bytes=0-0", 0..=0),
            ("bytes=2-5", 2..=5),
            ("Bytes= 2-5 ", 2..=5),
            ("bytes=9-9", 9..=9),
            ("bytes=9-10", 9..=9),
            ("bytes=4-", 4..=9),
            ("bytes=-3", 7..=9),
            ("bytes=-10", 0..=9),
            ("bytes=-11", 0..=9),
            ("bytes=0-18446744073709551615", 0..=9),
        ] {
            assert_eq!(of_ten(text), Part::Bytes(bytes), "{text}");
        }
    }

    #[test]
    fn what_lies_beyond_the_end_is_not_there() {
        for text in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=18446744073709551615-"] {
            assert_eq!(of_ten(text), Part::Unsatisfiable, "{text}");
        }
        for text in ["bytes=0-", "bytes=0-0", "bytes=-1"] {
            assert_eq!(part(&request(&[(RANGE, text)]), TAG, 0), Part::Unsatisfiable, "{text}");
        }
    }

    #[test]
    fn what_is_no_single_range_is_passed_over() {
        for text in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=--1",
            "bytes=1-2-3",
            "bytes=0-1,3-4",
            "lines=0-1",
            "bytes=99999999999999999999-",
            "bytes=1 -2",
        ] {
            assert_eq!(of_ten(text), Part::Whole, "{text}");
        }
        assert_eq!(part(&request(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=2-3")]), TAG, 10), Part::Whole);
    }

    #[test]
    fn if_range_asks_for_the_same_version() {
        let with = |condition| part(&request(&[(RANGE, "bytes=2-5"), (IF_RANGE, condition)]), TAG, 10);
        assert_eq!(with("\"abc\""), Part::Bytes(2..=5));
        for other in ["\"abd\"", "W/\"abc\"", "Sat, 21 Nov 2026 09:00:00 GMT", "abc", ""] {
            assert_eq!(with(other), Part::Whole, "{other}");
        }
    }

    #[test]
    fn if_match_names_revisions_of_this_job_alone() {
        let (job, other) = (JobId::from_bytes([1; 16]), JobId::from_bytes([2; 16]));
        let expected = |value: &str| expected_revisions(&request(&[(IF_MATCH, value)]), job);
        assert_eq!(expected_revisions(&HeaderMap::new(), job), None);
        assert_eq!(expected("*"), None);
        let several = format!("\"{job}-3\", \"{job}-4-66resize\", \"{job}-5-sending\", \"{other}-6\"");
        assert_eq!(expected(&several), Some(vec![3, 4, 5]));
        for none in ["", "x", &format!("W/\"{job}-3\""), &format!("\"{job}-\""), &format!("{job}-3")] {
            assert_eq!(expected(none), Some(Vec::new()), "{none}");
        }
    }

    #[test]
    fn if_none_match_names_what_the_client_has() {
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(not_modified(&request(&[(IF_NONE_MATCH, known)]), TAG), "{known}");
        }
        for other in ["\"ab\"", "abc", "", "\"x\""] {
            assert!(!not_modified(&request(&[(IF_NONE_MATCH, other)]), TAG), "{other}");
        }
        assert!(!not_modified(&HeaderMap::new(), TAG));
    }
}
