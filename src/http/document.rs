//! The API's own description: OpenAPI for what is asked, AsyncAPI for what is told, and both as a page.
//!
//! Schemas come from the types that are read and written, names from the domain's lists, problems from the
//! catalogue. What an operation answers is written here; in debug builds each answer is held against it.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};
use url::Url;
use utoipa::openapi::schema::{Object, Type};
use warp::reply::Response;

use self::operation::{Operation, Schemas, refer};
use super::problem::{CATALOGUE, Code, Document, Problem, Row};
use super::resource::{Call, Resource};
use crate::domain::delivery::DeliveryState;
use crate::domain::event::EventKind;
use crate::domain::id::EventId;
use crate::service::view::schema::one_of;
use crate::service::view::{EventView, Link};

mod access;
mod asyncapi;
mod callbacks;
mod examples;
mod form;
mod html;
mod jobs;
mod operating;
mod operation;
mod reference;
mod webhooks;

const ABOUT: &str = "Pictures in, artifacts and signed callbacks out.

Follow `_links`: they show what is possible now. A member that can be `null` is always there; one that is left out is \
never `null`. New members may be added to answers at any time; unknown ones in requests are refused.

Errors are problem documents (RFC 9457): programs go by `code`, people by `title` and `detail`.";

fn operations() -> Vec<(&'static str, Vec<Operation>)> {
    let table = super::table();
    let mut all = vec![
        ("Jobs", jobs::operations()),
        ("Deliveries", callbacks::deliveries()),
        ("Replays", callbacks::replays()),
        ("Destinations", callbacks::destinations()),
        ("Callbacks", callbacks::secrets()),
        ("Operating", operating::operating()),
        ("Access", access::operations()),
        ("Service", operating::service()),
    ];
    for operation in all.iter_mut().flat_map(|(_, operations)| operations) {
        let mut routes = table.iter().flat_map(Resource::routes);
        let route = routes.find(|it| it.path == operation.path && *it.method == operation.method);
        route.inspect(|route| operation.declare(route));
    }
    all
}

/// The document, but for where the service is.
static OPENAPI: LazyLock<Value> = LazyLock::new(openapi_anywhere);

/// The AsyncAPI document of a service with this base URL.
#[must_use]
pub fn asyncapi(base_url: &str) -> Value {
    // The configuration has seen to it that it is a URL.
    Url::parse(base_url).map_or(Value::Null, |url| asyncapi::document(&url))
}

/// The three of them as they are sent.
struct Rendered {
    base_url: String,
    openapi: Bytes,
    asyncapi: Bytes,
    docs: Bytes,
}

/// Made once for a service: they are long, and open to everybody.
fn rendered(base_url: &str) -> Arc<Rendered> {
    static LATEST: Mutex<Option<Arc<Rendered>>> = Mutex::new(None);
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(rendered) = latest.as_ref().filter(|rendered| rendered.base_url == base_url) {
        return Arc::clone(rendered);
    }
    let openapi = openapi(base_url);
    let rendered = Arc::new(Rendered {
        base_url: base_url.to_owned(),
        docs: html::document("Darkroom API", &reference::body(&openapi)).into(),
        openapi: openapi.to_string().into(),
        asyncapi: asyncapi(base_url).to_string().into(),
    });
    *latest = Some(Arc::clone(&rendered));
    rendered
}

/// `GET /openapi.json`
pub(super) async fn show_openapi(call: Call) -> Result<Response, Problem> {
    Ok(as_json(rendered(&call.service.settings().base_url).openapi.clone()))
}

/// `GET /asyncapi.json`
pub(super) async fn show_asyncapi(call: Call) -> Result<Response, Problem> {
    Ok(as_json(rendered(&call.service.settings().base_url).asyncapi.clone()))
}

/// `GET /docs`: the OpenAPI document, for people.
pub(super) async fn show_docs(call: Call) -> Result<Response, Problem> {
    Ok(cached(html::response(rendered(&call.service.settings().base_url).docs.clone())))
}

/// A page that says what a problem means.
pub(super) fn problem_page(row: &Row) -> Response {
    let Row { status, slug, title, advice, .. } = row;
    let body = format!(
        "<h1>{}</h1>\n<p><code>{}</code>, status {}</p>\n<h2>What to do</h2>\n<p>{}</p>\n<p><a href=\"../docs\">The API</a></p>\n",
        html::escape(title),
        html::escape(slug),
        html::escape(&status.to_string()),
        html::escape(advice),
    );
    html::page(title, &body)
}

fn as_json(body: Bytes) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    cached(response)
}

fn cached(mut response: Response) -> Response {
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// The OpenAPI document of a service with this base URL.
#[must_use]
pub fn openapi(base_url: &str) -> Value {
    let mut document = OPENAPI.clone();
    document["servers"] = json!([{"url": base_url}]);
    document
}

/// Whether an operation's answer is described.
pub(super) fn tells(method: &Method, path: &str, status: StatusCode, code: Option<Code>) -> bool {
    static ALL: LazyLock<Vec<Operation>> =
        LazyLock::new(|| operations().into_iter().flat_map(|(_, operations)| operations).collect());
    let mut of_this = ALL.iter().filter(|operation| operation.method == *method && operation.path == path);
    of_this.next().is_some_and(|operation| operation.tells(status, code))
}

/// Path and method of all that is described.
#[cfg(test)]
pub(super) fn routes() -> impl Iterator<Item = (&'static str, Method)> {
    operations().into_iter().flat_map(|(_, all)| all).map(|operation| (operation.path, operation.method))
}

fn openapi_anywhere() -> Value {
    let mut schemas = Schemas::new();
    let mut responses = BTreeMap::new();
    let mut paths = BTreeMap::<&str, Map<String, Value>>::new();
    let mut tags = Vec::new();
    for (tag, operations) in operations() {
        tags.push(json!({"name": tag}));
        for mut operation in operations {
            schemas.append(&mut operation.schemas);
            let (path, method) = (operation.path, operation.method.as_str().to_ascii_lowercase());
            paths.entry(path).or_default().insert(method, operation.into_json(tag, &mut responses));
        }
    }
    let event_id = refer::<EventId>(&mut schemas);
    refer::<EventView>(&mut schemas);
    refer::<Link>(&mut schemas);
    schemas.insert("Links".to_owned(), links());
    refer::<Document<'static>>(&mut schemas);
    finish(&mut schemas);
    if let Some(problem) = schemas.get_mut("Problem") {
        // Members that only some problems have.
        problem["properties"]["limit"] = json!({"type": "integer", "minimum": 0});
        problem["properties"]["reason"] = json!({"type": "string"});
        problem["properties"]["detected"] = json!({"type": "string"});
        problem["properties"]["violated-policies"] = json!({"type": "array", "items": {"type": "string"}});
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Darkroom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "tags": tags,
        "security": [{"bearer": []}],
        "paths": paths,
        "webhooks": webhooks::all(&event_id),
        "components": {
            "schemas": schemas,
            "responses": responses,
            "headers": headers(),
            "securitySchemes": {
                "bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "dk_…",
                "description": "An API key. `darkroom serve --dev` asks for none.",
                },
                "ticket": {
                    "type": "apiKey", "in": "query", "name": "ticket",
                    "description": "Good for one request: `POST /v1/tickets` gives it out, for pages in browsers.",
                },
            },
        },
    })
}

/// Requests, whose members may be left out; of others a member that can be `null` is always there.
const REQUESTS: [&str; 11] = [
    "NewReplay",
    "DeliveryFilter",
    "CallbackTrial",
    "JobFromUrl",
    "JobForm",
    "Variant",
    "BatchJob",
    "JobBatch",
    "NewClient",
    "ClientLimits",
    "NewLinks",
];

/// What the derive cannot know.
fn finish(schemas: &mut Schemas) {
    let all = schemas.clone();
    for (_, schema) in schemas.iter_mut().filter(|(name, _)| !REQUESTS.contains(&name.as_str())) {
        if schema.get("allOf").is_some() {
            flatten(schema, &all);
        } else {
            require_nullable(schema);
        }
    }
}

fn require_nullable(schema: &mut Value) {
    let Some(members) = schema["properties"].as_object() else { return };
    let nullable = members.iter().filter(|(_, member)| is_nullable(member)).map(|(name, _)| json!(name));
    let mut required = schema["required"].as_array().cloned().unwrap_or_default();
    required.extend(nullable);
    required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    required.dedup();
    schema["required"] = required.into();
}

fn is_nullable(schema: &Value) -> bool {
    let null = |value: &Value| value == "null";
    let types = schema["type"].as_array().is_some_and(|types| types.iter().any(null));
    types || schema["oneOf"].as_array().is_some_and(|any| any.iter().any(|one| null(&one["type"])))
}

/// Flattened parts become members of the whole: so it is in JSON, and generators of clients read nothing else.
fn flatten(schema: &mut Value, all: &Schemas) {
    let Some(parts) = schema.get("allOf").and_then(Value::as_array) else { return };
    let (mut members, mut required) = (Map::new(), Vec::new());
    for part in parts {
        // One that may be absent is `null` for the derive.
        let is_optional = is_nullable(part);
        let part = if is_optional { &part["oneOf"][0] } else { part };
        let name = part["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        let part = name.and_then(|name| all.get(name)).unwrap_or(part);
        members.extend(part["properties"].as_object().cloned().unwrap_or_default());
        let names = part["required"].as_array().filter(|_| !is_optional);
        required.extend(names.cloned().unwrap_or_default());
        if is_optional {
            continue;
        }
        let nullable = part["properties"].as_object().into_iter().flatten();
        required.extend(nullable.filter(|(_, it)| is_nullable(it)).map(|(name, _)| json!(name)));
    }
    required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    required.dedup();
    let about = schema.get("description").cloned();
    *schema = json!({"type": "object", "properties": members, "required": required});
    if let Some(about) = about {
        schema["description"] = about;
    }
}

/// What is possible now, by relation.
fn links() -> Value {
    json!({
        "type": "object",
        "description": "What is possible now, for this caller, by relation. Follow these rather than to build URLs.",
        "additionalProperties": {"$ref": "#/components/schemas/Link"},
    })
}

/// Headers of answers.
fn headers() -> Value {
    let header = |schema: Value, about: &str, required: bool| json!({"schema": schema, "description": about, "required": required});
    let text = || json!({"type": "string"});
    let entries = [
        (
            "X-Request-Id",
            header(
                form::string("^[A-Za-z0-9._-]{1,64}$"),
                "By which the request is found in the log; the client may bring its own.",
                true,
            ),
        ),
        (
            "X-Response-Time-ms",
            header(form::string("^[0-9]+\\.[0-9]{3}$"), "How long the answer took, in milliseconds.", true),
        ),
        ("Location", header(json!({"type": "string", "format": "uri"}), "Where it is.", true)),
        ("ETag", header(form::string("^\"[!#-~]+\"$"), "What `If-None-Match` compares.", true)),
        (
            "Retry-After",
            header(json!({"type": "integer", "minimum": 0}), "When to come again, in seconds.", false),
        ),
        (
            "Preference-Applied",
            header(
                form::string("^(respond-async|(respond-async, )?wait=[0-9]+)$"),
                "Which preferences were granted.",
                false,
            ),
        ),
        ("Vary", header(text(), "Which headers of requests make it another answer.", true)),
        ("Server-Timing", header(text(), "How long the answer took, for browsers.", true)),
        (
            "RateLimit",
            header(text(), "What is left of the client's quotas, and when they are full again.", false),
        ),
        ("RateLimit-Policy", header(text(), "The client's quotas, and their windows.", false)),
        (
            "Idempotency-Replayed",
            header(
                json!({"type": "string", "enum": ["true", "false"]}),
                "Whether an earlier request with this key made it.",
                false,
            ),
        ),
        ("Cache-Control", header(text(), "Who may keep it, and for how long.", true)),
        ("Accept-Ranges", header(json!({"const": "bytes"}), "Parts can be asked for.", true)),
        ("Content-Range", header(form::string("^bytes [0-9]+-[0-9]+/[0-9]+$"), "Which part it is.", true)),
        ("Content-Disposition", header(text(), "A name for a file.", true)),
        ("WWW-Authenticate", header(text(), "How to authenticate.", false)),
    ];
    entries.into_iter().map(|(name, header)| (name.to_owned(), header)).collect::<Map<_, _>>().into()
}

/// The codes of problems.
pub(super) fn code() -> Object {
    one_of(CATALOGUE.iter().map(|row| row.slug))
}

/// The events of jobs.
pub(super) fn job_event() -> Object {
    let names = EventKind::OF_JOBS.iter().flat_map(|kind| [kind.as_str(), kind.short_name()]);
    one_of(names)
}

/// What lists of deliveries can be asked for.
pub(super) fn delivery_state() -> Object {
    one_of(DeliveryState::ALL.map(DeliveryState::as_str).into_iter().chain(["undelivered"]))
}

/// What a replay can be asked for: not what is being sent.
pub(super) fn filter_state() -> Object {
    let states = DeliveryState::ALL.into_iter().filter(|state| *state != DeliveryState::Sending);
    or_null(one_of(states.map(DeliveryState::as_str).chain(["undelivered"])))
}

/// Of which event a replay can be asked to send deliveries again.
pub(super) fn filter_event() -> Object {
    or_null(job_event())
}

fn or_null(mut schema: Object) -> Object {
    schema.schema_type = [Type::String, Type::Null].into_iter().collect();
    schema.enum_values.iter_mut().for_each(|values| values.push(Value::Null));
    schema
}

pub(super) fn client_state() -> Object {
    one_of(["active", "revoked"])
}

pub(super) fn isolation() -> Object {
    one_of(["process", "thread"])
}

pub(super) fn secret_state() -> Object {
    one_of(["current", "overlap"])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_has_an_id_of_its_own_and_every_code_its_operation() {
        let all: Vec<_> = operations().into_iter().flat_map(|(_, all)| all).collect();
        let ids: BTreeSet<_> = all.iter().map(|operation| operation.id).collect();
        assert_eq!(ids.len(), all.len());
        // What comes before there is an operation.
        let elsewhere = [Code::RouteNotFound, Code::MethodNotAllowed];
        for row in CATALOGUE.iter().filter(|row| !elsewhere.contains(&row.code)) {
            assert!(all.iter().any(|operation| operation.tells(row.status, Some(row.code))), "{}", row.slug);
        }
    }

    #[test]
    fn what_can_be_null_is_always_there() {
        let document = openapi("https://img.example");
        let required = document["components"]["schemas"]["Job"]["required"].as_array().unwrap();
        assert!(required.contains(&json!("finished_at")) && required.contains(&json!("id")));
        assert!(!required.contains(&json!("preset")));
        // A flattened part that may be absent.
        let input = &document["components"]["schemas"]["Input"];
        assert!(input["properties"]["width"].is_object());
        assert_eq!(input["required"], json!(["filename"]));
    }

    #[test]
    fn the_form_has_the_fields_that_are_read() {
        let document = openapi("https://img.example");
        for (schema, other) in [("JobForm", "image"), ("JobFromUrl", "source_url")] {
            let members = document["components"]["schemas"][schema]["properties"].as_object().unwrap();
            let members: BTreeSet<_> = members.keys().map(String::as_str).collect();
            assert_eq!(members, crate::http::upload::FIELDS.into_iter().chain([other]).collect(), "{schema}");
            let all = &document["components"]["schemas"][schema]["properties"];
            assert!(members.iter().all(|name| all[name]["type"] != Value::Null), "{schema}");
        }
    }
}
