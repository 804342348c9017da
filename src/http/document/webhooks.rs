//! What receivers of callbacks get.

use serde_json::{Map, Value, json};

use crate::domain::event::EventKind;

/// Out of band: one for each type of event that a callback can ask for.
pub(super) fn all(event_id: &Value) -> Map<String, Value> {
    let kinds = EventKind::OF_JOBS.into_iter();
    kinds.map(|kind| (kind.as_str().to_owned(), item(event_id, kind.as_str(), &[kind]))).collect()
}

/// Of the job that is submitted.
pub(super) fn callbacks(event_id: &Value) -> Value {
    json!({"event": {"{$request.body#/callback_url}": item(event_id, "callback", &EventKind::OF_JOBS)}})
}

fn item(event_id: &Value, name: &str, kinds: &[EventKind]) -> Value {
    let kinds: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
    let parameters: Vec<_> = headers(event_id)
        .into_iter()
        .map(|(name, schema, about)| {
            json!({"in": "header", "name": name, "required": true, "schema": schema, "description": about})
        })
        .collect();
    json!({"post": {
        "operationId": format!("receive.{name}"),
        "summary": "An event of a job, signed as Standard Webhooks 1.0 has it",
        "description": "`webhook-id.webhook-timestamp.body` is what is signed. It may come more than once, \
            with the same `webhook-id`, and events may come out of their order: `data.revision` tells which is newer.",
        "tags": ["Callbacks"],
        "security": [],
        "parameters": parameters,
        "requestBody": {"required": true, "content": {"application/json": {"schema": {"allOf": [
            {"$ref": "#/components/schemas/Event"},
            {"type": "object", "properties": {"type": {"enum": kinds}}},
        ]}}}},
        "responses": {
            "2XX": {"description": "It has arrived."},
            "410": {"description": "The receiver wants no more: its destination is disabled."},
            "429": {"description": "Too much; `Retry-After` is kept to."},
            "default": {"description": "It has not arrived, and is tried again. Redirects are not followed."},
        },
    }})
}

/// The headers of each attempt.
pub(super) fn headers(event_id: &Value) -> [(&'static str, Value, &'static str); 5] {
    let text = || json!({"type": "string"});
    [
        ("webhook-id", event_id.clone(), "The event's id: the same at each attempt."),
        (
            "webhook-timestamp",
            json!({"type": "integer", "format": "int64"}),
            "When this attempt was made, in seconds since 1970.",
        ),
        (
            "webhook-signature",
            text(),
            "A signature for each secret, separated by spaces: `v1,` HMAC-SHA256 or `v1a,` Ed25519, in base64.",
        ),
        ("webhook-attempt", json!({"type": "integer", "minimum": 1}), "Which attempt this is."),
        ("User-Agent", text(), "`Darkroom/` and its version."),
    ]
}
