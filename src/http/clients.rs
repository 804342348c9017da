//! Clients and their keys, for operators.

use http::StatusCode;
use http::header::LOCATION;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;
use warp::reply::Response;

use super::document;
use super::page::Page;
use super::problem::{Code, Problem};
use super::query::Query;
use super::represent::{insert, json};
use super::resource::Call;
use crate::domain::client::{Client, ClientId, ClientLimits, Role};
use crate::service::clients::{ApiKeyId, KeyRecord, NewKey};
use crate::service::view::{LinkBuilder, Links, Reader, time};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewClient)]
pub(super) struct Request {
    #[schema(value_type = ClientId)]
    name: String,
    /// Without it, `client`.
    #[schema(value_type = Option<Role>)]
    role: Option<String>,
    #[serde(default, deserialize_with = "object")]
    limits: Limits,
}

/// By its members alone: serde would take a list for them, too.
fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Limits, D::Error> {
    let members = Map::deserialize(deserializer)?;
    Limits::deserialize(Value::Object(members)).map_err(D::Error::custom)
}

/// Those that are not named are as the configuration has them; 0 is no limit.
#[derive(Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ClientLimits)]
struct Limits {
    requests_per_minute: Option<u32>,
    waiting_jobs: Option<u32>,
    upload_bytes_per_minute: Option<u64>,
}

/// Who may call, and how often.
#[derive(Serialize, ToSchema)]
#[schema(as = Client)]
pub(super) struct ClientView {
    #[schema(value_type = ClientId)]
    name: String,
    #[schema(value_type = Role)]
    role: &'static str,
    #[schema(schema_with = document::client_state)]
    state: &'static str,
    #[schema(format = "date-time")]
    created_at: String,
    #[schema(format = "date-time")]
    revoked_at: Option<String>,
    limits: Limits,
    keys: Vec<KeyView>,
    #[serde(rename = "_links")]
    links: Links,
}

/// What is told of a key.
#[derive(Serialize, ToSchema)]
#[schema(as = ApiKey)]
struct KeyView {
    #[schema(value_type = ApiKeyId)]
    id: String,
    /// Its last characters.
    ends_with: String,
    #[schema(format = "date-time")]
    created_at: String,
    #[serde(rename = "_links")]
    links: Links,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = NewApiKey)]
pub(super) struct NewKeyView {
    /// Here, and nowhere else afterwards.
    key: String,
    #[schema(value_type = ApiKeyId)]
    key_id: String,
    client: ClientView,
}

impl ClientView {
    fn new(client: &Client, reader: Reader<'_>) -> Self {
        let ClientLimits { requests_per_minute, waiting_jobs, upload_bytes_per_minute } = client.limits;
        let path = path(&client.name);
        let mut links = LinkBuilder::new(reader)
            .get("self", &path)
            .get("collection", "/v1/clients")
            .get("jobs", &format!("/v1/jobs?client={}", client.name.as_str()));
        if client.revoked_at.is_none() {
            links = links.post("revoke", &format!("{path}/revoke"));
            if client.keys.len() < Client::MAX_KEYS {
                links = links.post("add_key", &format!("{path}/keys"));
            }
        }
        Self {
            name: client.name.as_str().to_owned(),
            role: client.role.as_str(),
            state: if client.revoked_at.is_some() { "revoked" } else { "active" },
            created_at: time(client.created_at),
            revoked_at: client.revoked_at.map(time),
            limits: Limits { requests_per_minute, waiting_jobs, upload_bytes_per_minute },
            keys: client.keys.iter().map(|key| KeyView::new(&path, key, reader)).collect(),
            links: links.build(),
        }
    }
}

impl KeyView {
    fn new(client: &str, key: &KeyRecord, reader: Reader<'_>) -> Self {
        Self {
            id: key.id.to_string(),
            ends_with: key.hint.clone(),
            created_at: time(key.created_at),
            links: LinkBuilder::new(reader).delete("revoke", &format!("{client}/keys/{}", key.id)).build(),
        }
    }
}

fn path(name: &ClientId) -> String {
    format!("/v1/clients/{}", name.as_str())
}

/// `GET /v1/clients`: by name, those that were revoked included.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["limit", "cursor"])?;
    let page = Page::of("/v1/clients", &query, &[])?;
    let after = page.place()?.and_then(|place| String::from_utf8(place).ok()?.parse().ok());
    let mut found = call.service.clients(after.as_ref(), page.limit.saturating_add(1));
    let has_more = found.len() > page.limit;
    found.truncate(page.limit);
    let next = found.last().filter(|_| has_more).map(|last| last.name.as_str().as_bytes());
    let items = found.iter().map(|client| ClientView::new(client, call.reader())).collect();
    Ok(page.answer(items, next, LinkBuilder::new(call.reader()).post("create", "/v1/clients")))
}

/// `POST /v1/clients`: the answer has the client's first key.
pub(super) async fn create(mut call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let Request { name, role, limits } = call.body.json().await?;
    let wrong =
        |field, error: &'static str, detail: String| Problem::field(Code::Validation, field, error, detail);
    let name: ClientId = name.parse().map_err(|error| wrong("name", "not_a_name", format!("{error}")))?;
    let role = role.as_deref().map_or(Some(Role::Client), Role::parse);
    let role = role.ok_or_else(|| wrong("role", "unknown", "client or operator".to_owned()))?;
    let Limits { requests_per_minute, waiting_jobs, upload_bytes_per_minute } = limits;
    for (field, value, most) in [
        ("limits.requests_per_minute", requests_per_minute.map(u64::from), ClientLimits::MOST.into()),
        ("limits.waiting_jobs", waiting_jobs.map(u64::from), ClientLimits::MOST.into()),
        ("limits.upload_bytes_per_minute", upload_bytes_per_minute, ClientLimits::MOST_BYTES),
    ] {
        if value.is_some_and(|value| value > most) {
            return Err(wrong(field, "out_of_range", format!("from 0 to {most}")));
        }
    }
    let limits = ClientLimits { requests_per_minute, waiting_jobs, upload_bytes_per_minute };
    let new = call.service.create_client(name, role, limits).await?;
    let mut response = created(&call, &new);
    let href = format!("{}{}", call.reader().base(), path(&new.client.name));
    insert(response.headers_mut(), LOCATION, &href);
    Ok(response)
}

/// `GET /v1/clients/{name}`
pub(super) async fn show(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let client = call.service.client(&name(&call)?)?;
    Ok(json(&ClientView::new(&client, call.reader())))
}

/// `POST /v1/clients/{name}/revoke`: for good, and at once.
pub(super) async fn revoke(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let client = call.service.revoke_client(&name(&call)?).await?;
    Ok(json(&ClientView::new(&client, call.reader())))
}

/// `POST /v1/clients/{name}/keys`
pub(super) async fn add_key(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let new = call.service.add_key(&name(&call)?).await?;
    Ok(created(&call, &new))
}

/// `DELETE /v1/clients/{name}/keys/{id}`
pub(super) async fn revoke_key(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let no_key = |_| Problem::of(Code::NotFound).with_detail("the client has no such key");
    let id: ApiKeyId = call.param(1).parse().map_err(no_key)?;
    call.service.revoke_key(&name(&call)?, id).await?;
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

fn created(call: &Call, new: &NewKey) -> Response {
    let mut response = json(&NewKeyView {
        key: new.key.expose_text().to_owned(),
        key_id: new.record.id.to_string(),
        client: ClientView::new(&new.client, call.reader()),
    });
    *response.status_mut() = StatusCode::CREATED;
    response
}

fn name(call: &Call) -> Result<ClientId, Problem> {
    call.param(0).parse().map_err(|_| Problem::of(Code::NotFound).with_detail("there is no such client"))
}
