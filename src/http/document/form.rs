//! What `POST /v1/jobs` takes, in its three forms.

use serde_json::{Map, Value, json};

use crate::domain::event::EventKind;
use crate::domain::image::{MAX_SIDE, MAX_VARIANTS, MetadataPolicy};
use crate::domain::job::Priority;
use crate::http::batch::{IDEMPOTENCY_KEY, MAX_ITEMS, NDJSON};
use crate::http::upload::FIELDS;
use crate::service::submit::limits;

const JSON_FORM: &str = "JobFromUrl";
const MULTIPART: &str = "JobForm";
const BATCH: &str = "JobBatch";
const BATCH_JOB: &str = "BatchJob";
const VARIANT: &str = "Variant";
/// Pictures as the whole body.
const PICTURES: [&str; 5] =
    ["image/jpeg", "image/png", "image/webp", "image/gif", "application/octet-stream"];

pub(super) fn string(pattern: &str) -> Value {
    json!({"type": "string", "pattern": pattern})
}

pub(super) fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

pub(super) fn binary() -> Value {
    json!({"type": "string", "format": "binary"})
}

/// Names of events, separated by commas.
pub(super) fn event_types() -> Value {
    let names = EventKind::ALL.map(|kind| kind.as_str().replace('.', "\\."));
    separated(&names.join("|"))
}

fn separated(one: &str) -> Value {
    string(&format!("^({one})(,({one}))*$"))
}

/// A field as JSON has it, and what it says. `null` is as if it were not there.
fn field(name: &str) -> (Value, &'static str) {
    let events = EventKind::OF_JOBS.map(EventKind::short_name);
    let range = |range: &std::ops::RangeInclusive<u64>| json!({"type": "integer", "minimum": range.start(), "maximum": range.end()});
    match name {
        "callback_url" => (
            json!({"type": "string", "format": "uri", "maxLength": limits::MAX_CALLBACK_URL}),
            "Where to post events.",
        ),
        "callback_events" => (
            json!({"type": "array", "minItems": 1, "items": {"type": "string", "enum": events}}),
            "Which events; without it, how the job ended.",
        ),
        "callback_secret" => (
            string("^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"),
            "Signs them instead of the client's own: `whsec_` and the base64 of 24 to 64 bytes.",
        ),
        "callback_headers" => (
            json!({
                "type": "object",
                "maxProperties": limits::MAX_CALLBACK_HEADERS,
                "propertyNames": {"pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$"},
                "additionalProperties": {"type": "string", "minLength": 1, "maxLength": limits::MAX_CALLBACK_HEADER_VALUE},
            }),
            "Sent with them, such as `Authorization`. 4 KiB in all.",
        ),
        "callback_max_attempts" => (range(&limits::CALLBACK_ATTEMPTS), "How many attempts each may take."),
        "callback_retry_initial_ms" => {
            (range(&limits::CALLBACK_INITIAL_MS), "The delay after the first failed attempt.")
        }
        "callback_retry_max_ms" => (range(&limits::CALLBACK_MAX_MS), "The longest delay between attempts."),
        "preset" => (string("^[a-z0-9][a-z0-9_-]{0,39}$"), "A configured list of variants; `/` names them."),
        "variants" => (
            json!({
                "type": "array", "minItems": 1, "maxItems": MAX_VARIANTS,
                "items": {"$ref": format!("#/components/schemas/{VARIANT}")},
            }),
            "What to make of the picture; not with a preset.",
        ),
        "metadata_policy" => (
            json!({"type": "string", "enum": MetadataPolicy::ALL.map(MetadataPolicy::as_str)}),
            "What artifacts keep of the picture's metadata.",
        ),
        "allow_truncated" => (json!({"type": "boolean"}), "Whether a picture that is cut short is taken."),
        "priority" => (
            json!({"type": "string", "enum": Priority::ALL.map(Priority::as_str)}),
            "Among the client's own jobs.",
        ),
        "start_at" => (time(), "When to start at the earliest, within the next 30 days."),
        "deadline_ms" => (range(&limits::DEADLINES_MS), "How long the job may take in all."),
        "tags" => (
            json!({
                "type": "array", "maxItems": limits::MAX_TAGS,
                "items": {"type": "string", "pattern": "^[^,]*$", "maxLength": limits::MAX_TAG_BYTES},
            }),
            "Labels, by which jobs can be listed.",
        ),
        "metadata" => (json!({"type": "object"}), "The client's own; 4 KiB at most."),
        _ => (json!({}), ""),
    }
}

/// The same field as the text of a form.
fn as_text(name: &str) -> Value {
    let (schema, _) = field(name);
    match name {
        "callback_events" => {
            let both = EventKind::OF_JOBS.map(|kind| format!("(job\\.)?{}", kind.short_name()));
            separated(&both.join("|"))
        }
        "tags" => json!({"type": "string"}),
        // JSON as text.
        "callback_headers" | "metadata" | "variants" => {
            json!({"type": "string", "contentMediaType": "application/json", "contentSchema": schema})
        }
        _ => schema,
    }
}

/// The fields as parameters of the query, for a picture that is the whole body.
pub(super) fn query() -> impl Iterator<Item = (&'static str, Value, &'static str)> {
    FIELDS.into_iter().map(|name| (name, as_text(name), field(name).1))
}

fn described(schema: Value, about: &str) -> Value {
    let mut schema = schema;
    schema["description"] = about.into();
    schema
}

/// The request's body.
pub(super) fn body() -> Value {
    let form = json!({
        "schema": {"$ref": format!("#/components/schemas/{MULTIPART}")},
        "encoding": {"image": {"contentType": PICTURES.join(", ")}},
    });
    let by_url = json!({"schema": {"$ref": format!("#/components/schemas/{JSON_FORM}")}});
    let pictures = PICTURES.map(|media_type| (media_type.to_owned(), json!({"schema": binary()})));
    let others = [("multipart/form-data".to_owned(), form), ("application/json".to_owned(), by_url)];
    let content: Map<_, _> = pictures.into_iter().chain(others).collect();
    json!({"required": true, "content": content})
}

/// The schemas that the body refers to.
pub(super) fn schemas() -> [(&'static str, Value); 3] {
    let or_null = |mut schema: Value| {
        schema["type"] = json!([schema["type"], "null"]);
        if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
            values.push(Value::Null);
        }
        schema
    };
    let all = |read: &dyn Fn(&str) -> Value| -> Map<String, Value> {
        FIELDS.iter().map(|name| ((*name).to_owned(), described(read(name), field(name).1))).collect()
    };
    let mut members = all(&|name| or_null(field(name).0));
    members.insert(
        "source_url".to_owned(),
        json!({
            "type": "string", "format": "uri", "minLength": 1, "maxLength": limits::MAX_SOURCE_URL,
            "description": "Where the picture is fetched from: a public https URL.",
        }),
    );
    let by_url = json!({
        "type": "object", "description": "A job whose picture is fetched.",
        "properties": members, "required": ["source_url"], "additionalProperties": false,
    });
    let mut parts = all(&as_text);
    parts.insert("image".to_owned(), described(binary(), "The picture: JPEG, PNG, WebP or GIF."));
    let form = json!({
        "type": "object", "description": "A picture with its fields.",
        "properties": parts, "required": ["image"], "additionalProperties": false,
    });
    [(JSON_FORM, by_url), (MULTIPART, form), (VARIANT, variant())]
}

/// The body of a batch.
pub(super) fn batch() -> Value {
    let document = json!({"schema": {"$ref": format!("#/components/schemas/{BATCH}")}});
    let lines =
        json!({"schema": {"type": "string", "description": format!("A `{BATCH_JOB}` in each line.")}});
    let lines = NDJSON.map(|media_type| (media_type.to_owned(), lines.clone()));
    let content: Map<_, _> = lines.into_iter().chain([("application/json".to_owned(), document)]).collect();
    json!({"required": true, "content": content})
}

/// The schemas that a batch refers to.
pub(super) fn batch_schemas() -> [(&'static str, Value); 2] {
    let [(_, mut job), ..] = schemas();
    job["description"] = "A job of a batch.".into();
    job["properties"][IDEMPOTENCY_KEY] = json!({
        "type": "string", "pattern": "^[!#-~]{1,255}$",
        "description": "As the header of a job that is submitted alone.",
    });
    let jobs = json!({
        "type": "array", "minItems": 1, "maxItems": MAX_ITEMS,
        "items": {"$ref": format!("#/components/schemas/{BATCH_JOB}")},
    });
    let batch = json!({
        "type": "object", "description": "Jobs whose pictures are fetched.",
        "properties": {"jobs": jobs}, "required": ["jobs"], "additionalProperties": false,
    });
    [(BATCH_JOB, job), (BATCH, batch)]
}

fn variant() -> Value {
    let side = json!({"type": ["integer", "null"], "minimum": 1, "maximum": MAX_SIDE});
    let part = json!({"type": "number", "minimum": 0, "maximum": 1});
    json!({
        "type": "object",
        "description": "A picture to be made. A width and a height without `fit` are the most it may have.",
        "required": ["name"],
        "additionalProperties": false,
        "properties": {
            "name": string("^[a-z0-9][a-z0-9_-]{0,39}$"),
            "width": side,
            "height": side,
            "fit": {"type": ["string", "null"], "enum": ["inside", "cover", "contain", null]},
            "focus": {
                "description": "Where `cover` cuts.",
                "anyOf": [
                    {"type": "null"},
                    {"const": "entropy"},
                    {"type": "object", "required": ["x", "y"], "additionalProperties": false, "properties": {"x": part, "y": part}},
                ],
            },
            "format": {"type": ["string", "null"], "enum": ["auto", "jpeg", "png", "webp", "avif", null]},
            "quality": {"type": ["integer", "null"], "minimum": 1, "maximum": 100},
            "background": {"type": ["string", "null"], "pattern": "^#[0-9A-Fa-f]{6}$"},
            "enlarge": {"type": ["boolean", "null"]},
            "watermark": {"type": ["string", "null"], "description": "The name of a configured one."},
        },
    })
}
