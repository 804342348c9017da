//! What the service tells by itself, as AsyncAPI describes it: callbacks, and the event log.
//!
//! A channel of live events is one more entry of `channels` and `operations`, with the same messages.

use serde_json::{Map, Value, json};

use super::operation::{Schemas, refer};
use super::webhooks;
use crate::domain::event::EventKind;
use crate::domain::id::EventId;
use crate::service::view::{EventView, Link};

const VERSION: &str = "3.0.0";

/// The document of a service with this base URL.
pub(super) fn document(base_url: &url::Url) -> Value {
    let mut schemas = Schemas::new();
    refer::<EventView>(&mut schemas);
    refer::<Link>(&mut schemas);
    schemas.insert("Links".to_owned(), super::links());
    let event_id = refer::<EventId>(&mut schemas);
    super::finish(&mut schemas);
    let messages: Map<_, _> =
        EventKind::ALL.into_iter().map(|kind| (kind.as_str().to_owned(), message(kind))).collect();
    let all = refer_to("components/messages", &EventKind::ALL);
    let of_jobs = refer_to("components/messages", &EventKind::OF_JOBS);
    let authority = &base_url[url::Position::BeforeHost..url::Position::AfterPort];
    json!({
        "asyncapi": VERSION,
        "info": {
            "title": "Darkroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One durable event log feeds every channel. `seq` is increasing; an event may come more than once, with the same `id`.",
        },
        "defaultContentType": "application/json",
        "servers": {"service": {
            "host": authority, "protocol": base_url.scheme(), "pathname": base_url.path(),
            "security": [{"$ref": "#/components/securitySchemes/bearer"}],
        }},
        "channels": {
            "callbacks": {
                "title": "Callbacks",
                // Each job names its own.
                "address": null,
                "description": "POST requests to the `callback_url` of a job, signed as Standard Webhooks 1.0 has it, until one is answered with 2xx.",
                "servers": [],
                "messages": of_jobs,
            },
            "feed": {
                "title": "The event log",
                "address": "/v1/events",
                "description": "Asked for with `?after=SEQ`, in pages; `types` and `job_id` narrow it.",
                "messages": all,
            },
        },
        "operations": {
            "sendCallback": {
                "action": "send",
                "channel": {"$ref": "#/channels/callbacks"},
                "summary": "An event of a job is told to its callback.",
                "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
                "messages": refer_list("channels/callbacks/messages", &EventKind::OF_JOBS),
            },
            "readFeed": {
                "action": "send",
                "channel": {"$ref": "#/channels/feed"},
                "summary": "Events are read from the log.",
                "bindings": {"http": {"method": "GET", "bindingVersion": "0.3.0"}},
                "messages": refer_list("channels/feed/messages", &EventKind::ALL),
            },
        },
        "components": {
            "messages": messages,
            "messageTraits": {"signed": {"headers": signed(&event_id)}},
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "dk_…"}},
        },
    })
}

fn message(kind: EventKind) -> Value {
    let mut message = json!({
        "name": kind.as_str(),
        "contentType": "application/json",
        "payload": {"allOf": [
            {"$ref": "#/components/schemas/Event"},
            {"type": "object", "properties": {"type": {"const": kind.as_str()}}},
        ]},
    });
    if EventKind::OF_JOBS.contains(&kind) {
        message["traits"] = json!([{"$ref": "#/components/messageTraits/signed"}]);
    }
    message
}

/// The headers of callbacks. The feed has the same messages without them, so none is required.
fn signed(event_id: &Value) -> Value {
    let members = webhooks::headers(event_id).into_iter().map(|(name, schema, about)| {
        let mut schema = json!({"allOf": [schema]});
        schema["description"] = about.into();
        (name.to_owned(), schema)
    });
    json!({"type": "object", "properties": members.collect::<Map<_, _>>()})
}

fn refer_to(place: &str, kinds: &[EventKind]) -> Map<String, Value> {
    let reference = |kind: &EventKind| json!({"$ref": format!("#/{place}/{}", kind.as_str())});
    kinds.iter().map(|kind| (kind.as_str().to_owned(), reference(kind))).collect()
}

fn refer_list(place: &str, kinds: &[EventKind]) -> Vec<Value> {
    refer_to(place, kinds).into_iter().map(|(_, reference)| reference).collect()
}
