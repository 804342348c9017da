//! What a job's callback has of its own: events, secret, headers, schedule.

use std::ops::RangeInclusive;

use http::HeaderName;
use serde_json::Value;
use url::Url;

use super::{Fields, list};
use crate::domain::event::EventKind;
use crate::domain::id::JobId;
use crate::domain::job::Callback;
use crate::domain::retry::RetryOverride;
use crate::domain::secret::SigningSecret;
use crate::domain::trace::TraceParent;
use crate::service::vault::{Context, Vault};

pub(crate) const MAX_HEADERS: usize = 10;
const MAX_NAME_BYTES: usize = 64;
pub(crate) const MAX_VALUE_BYTES: usize = 1024;
const MAX_HEADER_BYTES: usize = 4 * 1024;
pub(crate) const ATTEMPTS: RangeInclusive<u64> = 1..=25;
/// From a second to an hour.
pub(crate) const INITIAL_MS: RangeInclusive<u64> = 1000..=60 * 60 * 1000;
/// From a second to a day.
pub(crate) const MAX_MS: RangeInclusive<u64> = 1000..=24 * 60 * 60 * 1000;

/// Headers that are ours, or the connection's. `Authorization` is not among them: it is what most bring.
const RESERVED: [&str; 11] = [
    "connection",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "webhook",
];
const RESERVED_FAMILIES: [&str; 3] = ["content-", "proxy-", "webhook-"];

/// What is wrong with a field: a stable name, and a sentence that repeats no value of a header.
type Wrong = (&'static str, String);

/// A callback as the request wants it.
pub(super) struct Wanted {
    pub(super) url: Url,
    pub(super) events: Vec<EventKind>,
    pub(super) secret: Option<SigningSecret>,
    /// By name, in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) retry: RetryOverride,
    trace: Option<TraceParent>,
}

impl Wanted {
    /// The callback of this job, its secrets sealed.
    pub(super) fn sealed(self, vault: &Vault, job: JobId) -> Callback {
        let Self { url, events, secret, mut headers, retry, trace } = self;
        // Among the headers, which every version of the store has. The client's own goes first.
        let trace = trace.filter(|_| !headers.iter().any(|(name, _)| name == TraceParent::HEADER));
        headers.extend(trace.map(|trace| (TraceParent::HEADER.to_owned(), trace.to_string())));
        let secret = secret.map(|secret| vault.seal(secret.expose_bytes(), Context::OfJob(job)));
        let headers = headers.into_iter().map(|(name, value)| {
            let sealed = vault.seal(value.as_bytes(), Context::Header(job, &name));
            (name, sealed)
        });
        Callback { url, events, secret, headers: headers.collect(), retry, latest: None }
    }
}

/// Checks everything about the callback, and refuses each field that is wrong.
pub(super) fn check(
    fields: &Fields,
    url: Option<Url>,
    refuse: &mut impl FnMut(&str, &'static str, &str),
) -> Option<Wanted> {
    let mut or_refuse = |field: &str, wrong: Wrong| refuse(field, wrong.0, &wrong.1);
    let events = events(fields.callback_events.as_deref());
    let events = events.unwrap_or_else(|wrong| {
        or_refuse("callback_events", wrong);
        Vec::new()
    });
    let secret = fields.callback_secret.as_deref().map(str::parse::<SigningSecret>).transpose();
    let secret = secret.unwrap_or_else(|error| {
        or_refuse("callback_secret", ("not_a_secret", error.to_string()));
        None
    });
    let headers = fields.callback_headers.as_deref().map_or(Ok(Vec::new()), headers);
    let headers = headers.unwrap_or_else(|wrong| {
        or_refuse("callback_headers", wrong);
        Vec::new()
    });
    let mut number = |field, text: &Option<String>, bounds: RangeInclusive<u64>, unit| {
        let number = text.as_deref().map(str::parse).transpose().ok();
        let number = number.filter(|number| number.is_none_or(|number| bounds.contains(&number)));
        number.unwrap_or_else(|| {
            let detail = format!("{unit} from {} to {}", bounds.start(), bounds.end());
            or_refuse(field, ("out_of_range", detail));
            None
        })
    };
    let attempts = number("callback_max_attempts", &fields.callback_max_attempts, ATTEMPTS, "a number");
    let initial_ms =
        number("callback_retry_initial_ms", &fields.callback_retry_initial_ms, INITIAL_MS, "milliseconds");
    let max_delay_ms = number("callback_retry_max_ms", &fields.callback_retry_max_ms, MAX_MS, "milliseconds");
    if initial_ms.zip(max_delay_ms).is_some_and(|(initial, max)| max < initial) {
        or_refuse("callback_retry_max_ms", ("out_of_range", "at least callback_retry_initial_ms".to_owned()));
    }
    let names = own_fields(fields);
    if url.is_none() && !names.is_empty() {
        let (last, first) = names.split_last()?;
        let named = if first.is_empty() {
            format!("{last} needs")
        } else {
            format!("{} and {last} need", first.join(", "))
        };
        or_refuse("callback_url", ("required", format!("{named} a callback_url")));
    }
    let max_attempts = attempts.and_then(|attempts| u32::try_from(attempts).ok());
    let retry = RetryOverride { max_attempts, initial_ms, max_delay_ms };
    url.map(|url| Wanted { url, events, secret, headers, retry, trace: fields.trace })
}

/// The fields that are there and mean nothing without a callback.
fn own_fields(fields: &Fields) -> Vec<&'static str> {
    [
        ("callback_events", &fields.callback_events),
        ("callback_secret", &fields.callback_secret),
        ("callback_headers", &fields.callback_headers),
        ("callback_max_attempts", &fields.callback_max_attempts),
        ("callback_retry_initial_ms", &fields.callback_retry_initial_ms),
        ("callback_retry_max_ms", &fields.callback_retry_max_ms),
    ]
    .into_iter()
    .filter_map(|(name, field)| field.as_ref().map(|_| name))
    .collect()
}

/// Each kind once and in one order, so that what means the same is the same.
pub(super) fn events(text: Option<&str>) -> Result<Vec<EventKind>, Wrong> {
    if text.is_none() {
        return Ok(EventKind::TERMINAL.to_vec());
    }
    let known = EventKind::OF_JOBS.map(EventKind::short_name).join(", ");
    let mut wanted = Vec::new();
    for name in list(text) {
        let unknown = || ("unknown_event", format!("{name:?} is none of {known}"));
        wanted.push(EventKind::parse(&name).ok_or_else(unknown)?);
    }
    if wanted.is_empty() {
        return Err(("empty", format!("name at least one of {known}, or leave the field out")));
    }
    Ok(EventKind::OF_JOBS.into_iter().filter(|kind| wanted.contains(kind)).collect())
}

/// In one order, so that what means the same is the same.
fn headers(text: &str) -> Result<Vec<(String, String)>, Wrong> {
    let object = match serde_json::from_str(text) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return Err(("not_an_object", "must be a JSON object of strings".to_owned())),
        Err(error) => return Err(("not_json", error.to_string())),
    };
    if object.len() > MAX_HEADERS {
        return Err(("too_many", format!("at most {MAX_HEADERS} headers")));
    }
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in object {
        let name = header_name(&name)?;
        let Value::String(value) = value else {
            return Err(("not_a_string", format!("the value of {name} must be a string")));
        };
        check_header_value(&name, &value)?;
        if headers.iter().any(|(other, _)| *other == name) {
            return Err(("repeated", format!("{name} is given more than once")));
        }
        headers.push((name, value));
    }
    if headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_HEADER_BYTES {
        return Err(("too_long", format!("at most {MAX_HEADER_BYTES} bytes in all")));
    }
    headers.sort_unstable();
    Ok(headers)
}

fn header_name(text: &str) -> Result<String, Wrong> {
    let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| text.len() <= MAX_NAME_BYTES);
    let detail = || format!("a header's name is a token (RFC 9110) of at most {MAX_NAME_BYTES} bytes");
    let name = name.ok_or_else(|| ("invalid_name", detail()))?;
    let name = name.as_str();
    let is_reserved =
        RESERVED.contains(&name) || RESERVED_FAMILIES.iter().any(|family| name.starts_with(family));
    if is_reserved {
        return Err(("reserved", format!("{name} is set by the service, or by the connection")));
    }
    Ok(name.to_owned())
}

fn check_header_value(name: &str, value: &str) -> Result<(), Wrong> {
    if value.len() > MAX_VALUE_BYTES {
        return Err(("too_long", format!("the value of {name} may have at most {MAX_VALUE_BYTES} bytes")));
    }
    let is_visible = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if value.is_empty() || value.trim() != value || !is_visible {
        let detail = format!("the value of {name} must be visible ASCII, without spaces around it");
        return Err(("invalid_value", detail));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> &'static str {
        headers(text).map_or_else(|(code, _)| code, |_| "")
    }

    #[test]
    fn headers_are_named_in_one_way_and_order() {
        let read = headers(r#"{"X-Team":"a b","Authorization":"Bearer t0ken"}"#).unwrap();
        let expected = [("authorization", "Bearer t0ken"), ("x-team", "a b")];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn what_is_ours_or_the_connections_is_reserved() {
        let ours = ["Host", "Content-Type", "content-length", "webhook-id", "Webhook-Anything", "Connection"];
        let hops = ["keep-alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Proxy-Authorization"];
        for name in [&ours[..], &hops, &["User-Agent", "Expect"]].concat() {
            assert_eq!(code(&format!(r#"{{"{name}":"x"}}"#)), "reserved", "{name}");
        }
    }

    #[test]
    fn headers_have_limits() {
        let of = |count: usize, bytes: usize| {
            let pairs: Vec<_> = (0..count).map(|n| format!(r#""x-{n}":"{}""#, "v".repeat(bytes))).collect();
            format!("{{{}}}", pairs.join(","))
        };
        assert_eq!([code(&of(10, 1)), code(&of(11, 1))], ["", "too_many"]);
        assert_eq!([code(&of(1, 1024)), code(&of(1, 1025))], ["", "too_long"]);
        // A name of three bytes goes with each.
        assert_eq!([code(&of(4, 1021)), code(&of(4, 1022))], ["", "too_long"]);
        let name = |bytes: usize| format!(r#"{{"{}":"v"}}"#, "n".repeat(bytes));
        assert_eq!([code(&name(64)), code(&name(65)), code(&name(0))], ["", "invalid_name", "invalid_name"]);
    }

    #[test]
    fn what_is_wrong_is_named_and_no_value_repeated() {
        for (text, expected) in [
            ("hunter2", "not_json"),
            (r#"["hunter2"]"#, "not_an_object"),
            (r#"{"x":{"a":"hunter2"}}"#, "not_a_string"),
            (r#"{"x y":"hunter2"}"#, "invalid_name"),
            (r#"{"x:":"hunter2"}"#, "invalid_name"),
            (r#"{"x":"hunter2\r\nhost: a"}"#, "invalid_value"),
            (r#"{"x":"hunter2\u0000"}"#, "invalid_value"),
            (r#"{"x":"hunter2é"}"#, "invalid_value"),
            (r#"{"x":" hunter2"}"#, "invalid_value"),
            (r#"{"x":""}"#, "invalid_value"),
            (r#"{"x":"hunter2","X":"hunter2"}"#, "repeated"),
        ] {
            let (code, detail) = headers(text).unwrap_err();
            assert_eq!(code, expected, "{text}");
            assert!(!detail.contains("hunter2"), "{detail}");
        }
    }
}
