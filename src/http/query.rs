//! Query strings: decoded, each parameter known and given once.

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::problem::{Code, Problem};

/// Limits of a page.
pub(super) const DEFAULT_LIMIT: usize = 50;
pub(super) const MAX_LIMIT: usize = 200;

/// The parameters of a query.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string that may have the parameters `known`; others, and repeated ones, are refused.
    pub(super) fn parse(text: &str, known: &[&str]) -> Result<Self, Problem> {
        // The parser would put a replacement character for each byte that is none of UTF-8.
        let is_text = |part: &&str| percent_decode_str(part).decode_utf8().is_ok();
        if let Some(damaged) = text.split('&').find(|part| !is_text(part)) {
            let name = damaged.split('=').next().unwrap_or_default();
            return Err(invalid(name, "not_utf8", "must be UTF-8, percent-encoded"));
        }
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if !known.contains(&name.as_ref()) {
                return Err(invalid(&name, "unknown", format!("known here: {}", known.join(", "))));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(invalid(&name, "repeated", "given more than once"));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// A point in time (RFC 3339).
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>, Problem> {
        let time = self.get(name).map(str::parse).transpose();
        time.map_err(|_| {
            invalid(name, "not_a_time", "a time as RFC 3339 has it, such as 2026-11-21T09:00:00Z")
        })
    }

    /// `true` or `false`; not given is `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        self.get(name).map_or(Ok(false), str::parse).map_err(|_| invalid(name, "not_a_flag", "true or false"))
    }

    pub(super) fn pairs(self) -> Vec<(String, String)> {
        self.0
    }

    /// `limit`: from 1; more than the maximum is the maximum (Google AIP-158).
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.get("limit").map(str::parse::<usize>) {
            None => Ok(DEFAULT_LIMIT),
            Some(Ok(limit)) if limit > 0 => Ok(limit.min(MAX_LIMIT)),
            Some(_) => Err(invalid("limit", "not_a_number", "must be a whole number from 1")),
        }
    }
}

/// A parameter that cannot be used.
pub(super) fn invalid(name: &str, error: &'static str, detail: impl Into<String>) -> Problem {
    Problem::field(Code::InvalidParameter, name, error, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_known_and_given_once() {
        let query = Query::parse("limit=7&cursor=a%2Bb", &["limit", "cursor"]).unwrap();
        assert_eq!((query.limit().unwrap(), query.get("cursor")), (7, Some("a+b")));
        assert!(Query::parse("page=1", &["limit"]).is_err());
        assert!(Query::parse("limit=%ff", &["limit"]).is_err());
        assert!(Query::parse("limit=1&limit=2", &["limit"]).is_err());
        let limit = |text| Query::parse(text, &["limit"]).unwrap().limit();
        assert_eq!((limit("").unwrap(), limit("limit=100000").unwrap()), (50, 200));
        for bad in ["limit=0", "limit=-1", "limit=NaN", "limit="] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
