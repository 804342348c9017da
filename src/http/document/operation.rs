//! One operation, as the document describes it.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;

use super::examples;
use crate::domain::client::{ClientId, Role};
use crate::http::problem::{CATALOGUE, Code, Problem};
use crate::http::query::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::http::resource::Route;
use crate::service::view::Access;

/// Schemas by their names.
pub(super) type Schemas = BTreeMap<String, Value>;

const SCHEMAS: &str = "#/components/schemas/";
const MAP: &str = "BTreeMap";

/// What every operation can meet. A key that is given has to be good, also where none is needed.
const EVERYWHERE: [Code; 6] = [
    Code::NotLocal,
    Code::UriTooLong,
    Code::HeaderTooLarge,
    Code::Unauthenticated,
    Code::QuotaExceeded,
    Code::Internal,
];

/// Headers that every answer can have.
const ON_EVERY_ANSWER: [&str; 5] =
    ["X-Request-Id", "X-Response-Time-ms", "Server-Timing", "RateLimit", "RateLimit-Policy"];

/// Codes whose answers say when to come again.
const WITH_RETRY_AFTER: [Code; 7] = [
    Code::QuotaExceeded,
    Code::QueueFull,
    Code::TooManyUploads,
    Code::TooManyTrials,
    Code::Stopping,
    Code::Paused,
    Code::StorageFull,
];

/// A method of a path.
pub(in crate::http) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    pub(super) schemas: Schemas,
    access: Access,
    takes_tickets: bool,
    codes: Vec<Code>,
    responses: BTreeMap<u16, Value>,
    last: u16,
    rest: Map<String, Value>,
}

/// A reference to a type's schema; it and what it refers to are added.
pub(super) fn refer<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let name = T::name();
    add::<T>(&name, schemas);
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn add<T: ToSchema>(name: &str, schemas: &mut Schemas) {
    let mut all = vec![(name.to_owned(), T::schema())];
    T::schemas(&mut all);
    // Every map of ours is one of links; the derive names it after its Rust type.
    all.retain(|(name, _)| name != MAP);
    schemas.extend(all.into_iter().map(|(name, schema)| (name, value(&schema))));
}

fn value(schema: &RefOr<Schema>) -> Value {
    // A tree of strings, numbers and lists: nothing in it that JSON cannot say.
    let mut value = serde_json::to_value(schema).unwrap_or_default();
    rename(&mut value);
    value
}

fn rename(value: &mut Value) {
    match value {
        Value::String(text) if text.strip_prefix(SCHEMAS) == Some(MAP) => *text = format!("{SCHEMAS}Links"),
        Value::Array(items) => items.iter_mut().for_each(rename),
        Value::Object(members) => members.values_mut().for_each(rename),
        _ => {}
    }
}

impl Operation {
    fn new(method: Method, path: &'static str, id: &'static str, summary: &str) -> Self {
        let rest = json!({"operationId": id, "summary": summary, "parameters": []});
        Self {
            method,
            path,
            id,
            schemas: Schemas::new(),
            access: Access::Clients,
            takes_tickets: false,
            // A query is read strictly, unless it is not read at all.
            codes: [&EVERYWHERE[..], &[Code::InvalidParameter]].concat(),
            responses: BTreeMap::new(),
            last: 0,
            rest: rest.as_object().cloned().unwrap_or_default(),
        }
    }

    pub(super) fn get(path: &'static str, id: &'static str, summary: &str) -> Self {
        Self::new(Method::GET, path, id, summary)
    }

    pub(super) fn post(path: &'static str, id: &'static str, summary: &str) -> Self {
        // Every change is written, and a disk can be full.
        Self::new(Method::POST, path, id, summary).problems(&[Code::StorageFull])
    }

    pub(super) fn delete(path: &'static str, id: &'static str, summary: &str) -> Self {
        Self::new(Method::DELETE, path, id, summary).problems(&[Code::StorageFull])
    }

    /// More than the summary says.
    pub(super) fn about(self, description: &str) -> Self {
        self.with("description", json!(description))
    }

    /// Who may call it, as the table of routes says.
    pub(super) fn declare(&mut self, route: &Route<'_>) {
        (self.access, self.takes_tickets) = (route.access, route.takes_tickets);
        if self.access == Access::Operators {
            self.codes.push(Code::Forbidden);
        }
    }

    /// The query is not looked at.
    pub(super) fn without_query(mut self) -> Self {
        self.codes.retain(|code| *code != Code::InvalidParameter);
        self
    }

    pub(super) fn with(mut self, key: &str, value: Value) -> Self {
        self.rest.insert(key.to_owned(), value);
        self
    }

    pub(super) fn problems(mut self, codes: &[Code]) -> Self {
        self.codes.extend(codes);
        self
    }

    /// A parameter of the path; without it there is nothing.
    pub(super) fn path_param(self, name: &str, schema: Value, about: &str) -> Self {
        self.problems(&[Code::NotFound]).param("path", name, schema, about, true)
    }

    /// The id in the path.
    pub(super) fn id<T: ToSchema>(mut self) -> Self {
        let schema = refer::<T>(&mut self.schemas);
        self.path_param("id", schema, "The id, as answers have it.")
    }

    pub(super) fn query(self, name: &str, schema: Value, about: &str) -> Self {
        self.param("query", name, schema, about, false)
    }

    pub(super) fn query_of<T: ToSchema>(mut self, name: &str, about: &str) -> Self {
        let schema = refer::<T>(&mut self.schemas);
        self.query(name, schema, about)
    }

    pub(super) fn header_param(self, name: &str, schema: Value, about: &str) -> Self {
        self.param("header", name, schema, about, false)
    }

    fn param(mut self, place: &str, name: &str, schema: Value, about: &str, required: bool) -> Self {
        let mut param = json!({"in": place, "name": name, "required": required, "description": about});
        param["schema"] = schema;
        if let Some(params) = self.rest.get_mut("parameters").and_then(Value::as_array_mut) {
            params.push(param);
        }
        self
    }

    /// Whose things are meant.
    pub(super) fn of_client(self) -> Self {
        self.query_of::<ClientId>("client", "Of this client; for operators, who see those of all.")
            .problems(&[Code::Forbidden])
    }

    /// The header by which nobody changes what is not as they know it.
    pub(super) fn if_match(self) -> Self {
        let about = "The `ETag` that it has to have still, or `*`.";
        self.header_param("If-Match", json!({"type": "string"}), about).problems(&[Code::PreconditionFailed])
    }

    /// How many there are on a page.
    pub(super) fn limit(self) -> Self {
        let schema = json!({"type": "integer", "minimum": 1, "maximum": u64::MAX, "default": DEFAULT_LIMIT});
        self.query("limit", schema, &format!("How many at most; more than {MAX_LIMIT} is {MAX_LIMIT}."))
    }

    pub(super) fn cursor(self) -> Self {
        let schema = json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{8,}$"});
        self.query(
            "cursor",
            schema,
            "Where to go on: `page.next_cursor` of the page before, with the same filters.",
        )
    }

    /// A list in pages.
    pub(super) fn paged(self) -> Self {
        self.limit().cursor()
    }

    /// The header by which a repeated request is known.
    pub(super) fn idempotency_key(self) -> Self {
        let token = "[!#-~]{1,255}";
        let schema = json!({"type": "string", "pattern": format!("^({token}|\"{token}\")$")});
        let about = "The same for each try of one request, and another for every other request.";
        self.header_param("Idempotency-Key", schema, about)
            .problems(&[Code::InvalidIdempotencyKey, Code::IdempotencyKeyReused])
    }

    /// The header by which a client waits for a job's end.
    pub(super) fn prefer(self) -> Self {
        let about = "`wait=N` waits for the job's end, for N seconds at most (60 is the most). `respond-async` is what a submission does anyway. What is not known is ignored.";
        let schema = json!({"type": "string", "examples": ["wait=1"]});
        self.header_param("Prefer", schema, about)
    }

    /// A body of JSON.
    pub(super) fn takes<T: ToSchema>(mut self, required: bool) -> Self {
        let schema = refer::<T>(&mut self.schemas);
        let body = json!({"required": required, "content": {"application/json": {"schema": schema}}});
        self.problems(&[Code::MalformedJson, Code::PayloadTooLarge, Code::RequestTimeout])
            .with("requestBody", body)
    }

    /// An answer of JSON.
    pub(super) fn answers<T: ToSchema>(mut self, status: u16, about: &str) -> Self {
        let schema = refer::<T>(&mut self.schemas);
        self.answer(status, about, Some(("application/json", schema)))
    }

    /// An answer of JSON whose schema, of a generic type, gets this name.
    pub(super) fn lists<L: ToSchema, T: ToSchema>(mut self, name: &str, about: &str) -> Self {
        add::<L>(name, &mut self.schemas);
        refer::<T>(&mut self.schemas);
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        self.answer(200, about, Some(("application/json", schema)))
    }

    pub(super) fn answer(mut self, status: u16, about: &str, content: Option<(&str, Value)>) -> Self {
        let response = self.responses.entry(status).or_insert_with(|| response(about));
        if let Some((media_type, schema)) = content {
            response["content"][media_type] = json!({"schema": schema});
        }
        self.last = status;
        self
    }

    /// A header of the answer that was described last.
    pub(super) fn header(mut self, name: &str) -> Self {
        if let Some(response) = self.responses.get_mut(&self.last) {
            response["headers"][name] = header(name);
        }
        self
    }

    /// Whether an answer of this status is described; if it is a problem, also its code.
    pub(super) fn tells(&self, status: StatusCode, code: Option<Code>) -> bool {
        match code {
            Some(code) => self.codes.contains(&code),
            None => self.responses.contains_key(&status.as_u16()),
        }
    }

    /// The operation object. Responses that others have, too, are added to `shared`.
    pub(super) fn into_json(mut self, tag: &str, shared: &mut BTreeMap<String, Value>) -> Value {
        let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
        for row in CATALOGUE.iter().filter(|row| self.codes.contains(&row.code)) {
            by_status.entry(row.status.as_u16()).or_default().push(row.code);
        }
        let mut share = |name: String, response: Value| {
            let reference = json!({"$ref": format!("#/components/responses/{name}")});
            shared.insert(name, response);
            reference
        };
        for (status, codes) in by_status {
            let slugs: Vec<_> = codes.iter().map(|code| code.row().slug).collect();
            self.responses.insert(status, share(slugs.join("."), problem(status, &codes)));
        }
        if let Some(example) = examples::of(self.id) {
            for response in self.responses.values_mut() {
                if let Some(json) = response.pointer_mut("/content/application~1json") {
                    json["example"] = example.clone();
                }
            }
        }
        let responses: Map<_, _> =
            self.responses.into_iter().map(|(status, response)| (status.to_string(), response)).collect();
        self.rest.insert("responses".to_owned(), responses.into());
        self.rest.insert("tags".to_owned(), json!([tag]));
        self.rest.insert("security".to_owned(), security(self.access, self.takes_tickets));
        self.rest.into()
    }
}

/// The ways to be let in, each of which will do.
fn security(access: Access, takes_tickets: bool) -> Value {
    if access == Access::Open && !takes_tickets {
        return json!([]);
    }
    let role = (access == Access::Operators).then(|| Role::Operator.as_str());
    let key = json!({"bearer": role.into_iter().collect::<Vec<_>>()});
    let ticket = takes_tickets.then(|| json!({"ticket": []}));
    let nothing = (access == Access::Open).then(|| json!({}));
    [Some(key), ticket, nothing].into_iter().flatten().collect()
}

fn response(about: &str) -> Value {
    json!({
        "description": about,
        "headers": ON_EVERY_ANSWER.map(|name| (name, header(name))).into_iter().collect::<BTreeMap<_, _>>(),
    })
}

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// Problem documents of one status.
fn problem(status: u16, codes: &[Code]) -> Value {
    let rows: Vec<_> = codes.iter().map(|code| code.row()).collect();
    let about: Vec<_> = rows.iter().map(|row| format!("`{}`: {}.", row.slug, row.title)).collect();
    let slugs: Vec<_> = rows.iter().map(|row| row.slug).collect();
    let schema = json!({"allOf": [
        {"$ref": format!("{SCHEMAS}Problem")},
        {"type": "object", "properties": {"status": {"type": "integer", "minimum": status, "maximum": status}, "code": {"enum": slugs}}},
    ]});
    let examples: Map<_, _> = codes.iter().map(|code| (code.row().slug.to_owned(), example(*code))).collect();
    let mut response = response(&about.join(" "));
    response["content"]["application/problem+json"] = json!({"schema": schema, "examples": examples});
    let told = [
        ("Retry-After", &WITH_RETRY_AFTER[..]),
        ("WWW-Authenticate", &[Code::Unauthenticated]),
        ("ETag", &[Code::PreconditionFailed]),
    ];
    for (name, _) in told.into_iter().filter(|(_, with)| codes.iter().all(|code| with.contains(code))) {
        response["headers"][name] = header(name);
    }
    response
}

/// As such a problem is written, but for what depends on the request.
fn example(code: Code) -> Value {
    let document = Problem::of(code).document(examples::BASE_URL, "/", examples::REQUEST_ID);
    json!({"value": serde_json::from_slice::<Value>(&document).unwrap_or_default()})
}
