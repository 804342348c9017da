//! Links to pictures that need no key.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use warp::reply::Response;

use super::jobs::job_id;
use super::problem::{Code, Problem};
use super::query::Query;
use super::represent::json;
use super::resource::Call;
use crate::domain::id::JobId;
use crate::service::view::{LinkBuilder, Links, schema, time};

/// From a second to seven days.
const LASTS_MS: RangeInclusive<u64> = 1000..=7 * 24 * 60 * 60 * 1000;
/// An hour.
const DEFAULT_MS: u64 = 60 * 60 * 1000;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewLinks)]
pub(super) struct Request {
    /// How long they are good; an hour, unless it is said.
    #[schema(minimum = 1000, maximum = 604_800_000)]
    expires_in_ms: Option<u64>,
    /// Of which pictures, by their names; all, unless it is said.
    artifacts: Option<Vec<String>>,
}

/// Links that need no API key.
#[derive(Serialize, ToSchema)]
#[schema(as = SignedLinks)]
pub(super) struct SignedView {
    #[schema(value_type = JobId)]
    job_id: String,
    #[schema(format = "date-time")]
    expires_at: String,
    artifacts: Vec<Picture>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SignedLink)]
struct Picture {
    name: String,
    #[schema(schema_with = schema::picture_type)]
    media_type: &'static str,
    #[schema(format = "uri")]
    url: String,
}

/// `POST /v1/jobs/{id}/links`: nothing is kept of them, so each call makes others.
pub(super) async fn create(mut call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let id = job_id(&call)?;
    let Request { expires_in_ms, artifacts } = call.body.json().await?;
    let lasts = expires_in_ms.unwrap_or(DEFAULT_MS);
    if !LASTS_MS.contains(&lasts) {
        let detail = format!("milliseconds from {} to {}", LASTS_MS.start(), LASTS_MS.end());
        return Err(Problem::field(Code::Validation, "expires_in_ms", "out_of_range", detail));
    }
    let lasts = Duration::from_millis(lasts);
    let signed = call.service.sign_links(call.caller()?, id, artifacts.as_deref(), lasts).await?;
    let base = call.reader().base();
    let mut links = LinkBuilder::new(call.reader()).get("job", &format!("/v1/jobs/{id}"));
    for (name, format, path) in &signed.pictures {
        links = links.get_typed(name, path, format.media_type());
    }
    let pictures = signed.pictures.iter().map(|(name, format, path)| Picture {
        name: name.clone(),
        media_type: format.media_type(),
        url: format!("{base}{path}"),
    });
    Ok(json(&SignedView {
        job_id: signed.job.to_string(),
        expires_at: time(signed.until),
        artifacts: pictures.collect(),
        links: links.build(),
    }))
}
