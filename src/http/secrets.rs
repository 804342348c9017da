//! The secrets that sign callbacks, and the public key of the other signature.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use http::header::CACHE_CONTROL;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::document;
use super::problem::Problem;
use super::query::{Query, invalid};
use super::represent::{insert, json};
use super::resource::Call;
use crate::domain::hex::hex;
use crate::domain::id::SecretId;
use crate::service::secrets::OpenSecret;
use crate::service::view::{LinkBuilder, Links, time};

const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);
/// A week.
const MAX_OVERLAP_SECONDS: u64 = 7 * 24 * 60 * 60;
/// How long a published key may be kept, in seconds: a new one is there long before the old one goes.
const KEYS_MAX_AGE: &str = "public, max-age=300";

#[derive(Serialize, ToSchema)]
#[schema(as = SecretList)]
pub(super) struct List {
    items: Vec<Item>,
    #[serde(rename = "_links")]
    links: Links,
}

/// What is told of a secret.
#[derive(Serialize, ToSchema)]
#[schema(as = Secret)]
struct Item {
    #[schema(value_type = Option<SecretId>)]
    id: Option<String>,
    #[schema(schema_with = document::secret_state)]
    state: &'static str,
    fingerprint: String,
    #[schema(format = DateTime)]
    #[schema(format = DateTime)]
    created_at: Option<String>,
    #[schema(format = DateTime)]
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

impl Item {
    fn new(open: &OpenSecret) -> Self {
        Self {
            id: open.made.map(|(id, _)| id.to_string()),
            state: if open.expires_at.is_none() { "current" } else { "overlap" },
            fingerprint: open.fingerprint(),
            created_at: open.made.map(|(_, at)| time(at)),
            expires_at: open.expires_at.map(time),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = NewSecret)]
pub(super) struct New {
    /// Here, and nowhere else afterwards.
    secret: String,
    #[serde(flatten)]
    item: Item,
    #[serde(rename = "_links")]
    links: Links,
}

fn links(call: &Call) -> LinkBuilder<'_> {
    LinkBuilder::new(call.reader()).get("collection", "/v1/secrets")
}

/// `GET /v1/secrets`: those that sign at the moment, newest first.
pub(super) async fn list(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let secrets = call.service.signing_secrets(&call.caller()?.client).await?;
    let mut links = LinkBuilder::new(call.reader()).get("self", "/v1/secrets");
    if call.service.keeps_secrets() {
        links = links.post("rotate", "/v1/secrets/rotate");
    }
    Ok(json(&List { items: secrets.iter().map(Item::new).collect(), links: links.build() }))
}

/// `POST /v1/secrets/rotate?overlap_seconds=`
pub(super) async fn rotate(call: Call) -> Result<Response, Problem> {
    let query = Query::parse(&call.query, &["overlap_seconds"])?;
    let overlap = query.get("overlap_seconds").map(|text| {
        let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_OVERLAP_SECONDS);
        let detail = format!("seconds from 0 to {MAX_OVERLAP_SECONDS}");
        seconds.map(Duration::from_secs).ok_or_else(|| invalid("overlap_seconds", "out_of_range", detail))
    });
    let overlap = overlap.transpose()?.unwrap_or(DEFAULT_OVERLAP);
    let new = call.service.rotate_secret(&call.caller()?.client, overlap).await?;
    let mut response =
        json(&New { secret: new.secret.expose_text(), item: Item::new(&new), links: links(&call).build() });
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

#[derive(Serialize, ToSchema)]
#[schema(as = WebhookKeys)]
pub(super) struct Keys {
    keys: Vec<Key>,
}

/// A JSON Web Key (RFC 8037), and the same key as Standard Webhooks writes it.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookKey)]
struct Key {
    kid: String,
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    r#use: &'static str,
    x: String,
    public_key: String,
}

/// `GET /.well-known/webhook-keys`
pub(super) async fn public_keys(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let keys = call.service.public_key().map(|key| Key {
        kid: hex(&key.as_bytes()[..8]),
        kty: "OKP",
        crv: "Ed25519",
        alg: "Ed25519",
        r#use: "sig",
        x: URL_SAFE_NO_PAD.encode(key.as_bytes()),
        public_key: key.to_string(),
    });
    let mut response = json(&Keys { keys: keys.into_iter().collect() });
    insert(response.headers_mut(), CACHE_CONTROL, KEYS_MAX_AGE);
    Ok(response)
}
