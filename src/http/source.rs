//! Reading a request whose picture is to be fetched: the fields of the form as JSON, each of its own type.
//!
//! All that is wrong is collected, so that it can be named at once with what the service finds.

use std::fmt;

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::body::{Body, SMALL_BYTES};
use super::problem::Problem;
use super::query::Query;
use super::upload::{FIELDS, LATER, field};
use crate::service::error::FieldError;
use crate::service::submit::Fields;

const SOURCE_URL: &str = "source_url";
/// How much of what is wrong is named: a small body has room for thousands of members that are unknown.
const MAX_FAULTS: usize = 32;
/// As many characters of a member's name are repeated.
const MAX_NAME_CHARS: usize = 64;

/// What came in.
pub(super) struct Incoming {
    pub(super) source_url: Option<String>,
    pub(super) fields: Fields,
    pub(super) faults: Vec<FieldError>,
}

/// What is wrong with a member: a stable name, and a sentence that repeats no value.
type Wrong = (&'static str, String);

/// How a field is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Number,
    Flag,
    /// Texts, none of which has a comma: the form joins them by commas.
    Texts,
    /// As it comes.
    Object,
    Array,
}

/// Whether a request says that it is one.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    has_type(headers, "application/json")
}

pub(super) fn has_type(headers: &HeaderMap, essence: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(essence)
}

/// What can be said before the body is read.
pub(super) fn check_head(headers: &HeaderMap, query: &str) -> Result<(), Problem> {
    Query::parse(query, &[])?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length > SMALL_BYTES => Err(Problem::payload_too_large(SMALL_BYTES as u64)),
        _ => Ok(()),
    }
}

/// Reads the body to its end.
pub(super) async fn receive(body: &mut Body) -> Result<Incoming, Problem> {
    let Members(members) = body.json().await?;
    Ok(read(&members))
}

pub(super) fn read(members: &[(String, Box<RawValue>)]) -> Incoming {
    let mut incoming = Incoming { source_url: None, fields: Fields::default(), faults: Vec::new() };
    let mut seen = Vec::new();
    for (name, value) in members {
        if let Err((code, detail)) = set(&mut incoming, &mut seen, name, value) {
            let field = name.chars().take(MAX_NAME_CHARS).collect();
            incoming.faults.push(FieldError { field, code, detail });
        }
    }
    // Whether the source itself is named is asked for later.
    incoming.faults.sort_by_key(|fault| fault.field != SOURCE_URL);
    incoming.faults.truncate(MAX_FAULTS);
    incoming
}

fn set<'a>(
    incoming: &mut Incoming,
    seen: &mut Vec<&'a str>,
    name: &'a str,
    value: &RawValue,
) -> Result<(), Wrong> {
    let place = match name {
        SOURCE_URL => &mut incoming.source_url,
        _ if LATER.contains(&name) => {
            return Err(("not_supported", "this version does not support it yet".to_owned()));
        }
        _ => field(&mut incoming.fields, name)
            .ok_or_else(|| ("unknown", format!("known: {SOURCE_URL}, {}", FIELDS.join(", "))))?,
    };
    if seen.contains(&name) {
        return Err(("repeated", "given more than once".to_owned()));
    }
    seen.push(name);
    // As in the form, what is empty counts as not given; but a list that is empty is one.
    *place = text(kind(name), value.get())?;
    Ok(())
}

fn kind(name: &str) -> Kind {
    match name {
        "callback_max_attempts" | "callback_retry_initial_ms" | "callback_retry_max_ms" | "deadline_ms" => {
            Kind::Number
        }
        "allow_truncated" => Kind::Flag,
        "callback_events" | "tags" => Kind::Texts,
        "callback_headers" | "metadata" => Kind::Object,
        "variants" => Kind::Array,
        _ => Kind::Text,
    }
}

/// A value as the form has it.
fn text(kind: Kind, json: &str) -> Result<Option<String>, Wrong> {
    if json == "null" {
        return Ok(None);
    }
    let begins = |with: char| json.starts_with(with).then(|| Some(json.to_owned()));
    match kind {
        Kind::Text => serde_json::from_str::<String>(json)
            .map(|text| Some(text).filter(|text| !text.is_empty()))
            .map_err(|_| ("not_a_string", "must be a string".to_owned())),
        Kind::Number => {
            let is_number = json.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            let number = is_number.then(|| Some(json.to_owned()));
            number.ok_or_else(|| ("not_a_number", "must be a whole number".to_owned()))
        }
        Kind::Flag => {
            let flag = matches!(json, "true" | "false").then(|| Some(json.to_owned()));
            flag.ok_or_else(|| ("not_a_boolean", "true or false".to_owned()))
        }
        Kind::Texts => {
            let texts = serde_json::from_str::<Vec<String>>(json)
                .map_err(|_| ("not_a_list", "must be an array of strings".to_owned()))?;
            if texts.iter().any(|text| text.contains(',')) {
                return Err(("comma", "none of them may have a comma".to_owned()));
            }
            Ok(Some(texts.join(",")))
        }
        Kind::Object => begins('{').ok_or_else(|| ("not_an_object", "must be an object".to_owned())),
        Kind::Array => begins('[').ok_or_else(|| ("not_a_list", "must be an array".to_owned())),
    }
}

/// The members in their order; of one that is repeated, each.
pub(super) struct Members(pub(super) Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'de> Visitor<'de> for All {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Incoming {
        let Members(members) = serde_json::from_str(json).unwrap();
        super::read(&members)
    }

    #[test]
    fn each_field_has_its_type_and_reads_as_in_the_form() {
        let Incoming { source_url, fields, faults } = read(
            r#"{"source_url": "https://a.example/c.jpg", "callback_url": "https://b.example/",
                "callback_events": ["completed", "failed"], "callback_headers": {"X-Team":"cats"},
                "callback_max_attempts": 3, "variants": [{"name": "a", "width": 9}], "priority": "high",
                "tags": ["a b", "c"], "metadata": {"b":1, "a":2.50}, "deadline_ms": 5000,
                "allow_truncated": true, "start_at": null, "preset": ""}"#,
        );
        assert_eq!(faults, []);
        assert_eq!(source_url.as_deref(), Some("https://a.example/c.jpg"));
        let expected = Fields {
            callback_url: Some("https://b.example/".to_owned()),
            callback_events: Some("completed,failed".to_owned()),
            callback_headers: Some(r#"{"X-Team":"cats"}"#.to_owned()),
            callback_max_attempts: Some("3".to_owned()),
            variants: Some(r#"[{"name": "a", "width": 9}]"#.to_owned()),
            priority: Some("high".to_owned()),
            tags: Some("a b,c".to_owned()),
            metadata: Some(r#"{"b":1, "a":2.50}"#.to_owned()),
            deadline_ms: Some("5000".to_owned()),
            allow_truncated: Some("true".to_owned()),
            ..Fields::default()
        };
        assert!(fields == expected, "{fields:?}");
    }

    #[test]
    fn all_that_is_wrong_is_named_and_no_value_repeated() {
        let faults = read(
            r#"{"source_url": 7, "deadline_ms": "hunter2", "tags": "hunter2", "variants": {}, "metadata": [],
                "allow_truncated": "true", "callback_secret": ["hunter2"], "priority": "low", "priority": "low",
                "callback_events": ["completed,failed"], "colour": "hunter2", "notify_email": "a@b.example"}"#,
        )
        .faults;
        let named: Vec<_> = faults.iter().map(|fault| (fault.field.as_str(), fault.code)).collect();
        let expected = [
            ("source_url", "not_a_string"),
            ("deadline_ms", "not_a_number"),
            ("tags", "not_a_list"),
            ("variants", "not_a_list"),
            ("metadata", "not_an_object"),
            ("allow_truncated", "not_a_boolean"),
            ("callback_secret", "not_a_string"),
            ("priority", "repeated"),
            ("callback_events", "comma"),
            ("colour", "unknown"),
            ("notify_email", "not_supported"),
        ];
        assert_eq!(named, expected);
        assert!(!format!("{faults:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_named_has_a_bound() {
        let members: Vec<_> = (0..500).map(|n| format!("\"{}{n}\":0", "x".repeat(90))).collect();
        let faults = read(&format!("{{{},\"source_url\":0}}", members.join(","))).faults;
        assert_eq!((faults.len(), faults[0].field.as_str()), (32, "source_url"));
        assert!(faults[1..].iter().all(|fault| fault.field == "x".repeat(64)));
    }

    #[test]
    fn the_type_is_told_by_its_essence() {
        let is = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(value))]))
        };
        assert!(is("application/json") && is("Application/JSON; charset=utf-8"));
        assert!(!is("application/json+x") && !is("text/json") && !is_json(&HeaderMap::new()));
    }
}
