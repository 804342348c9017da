//! A job's picture, as far as it is known: of one that is to be fetched there is only where from, at first.

use serde::Serialize;
use utoipa::ToSchema;

use super::schema;
use crate::domain::hex::hex;
use crate::domain::job::{Job, Source};

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Input)]
pub(super) struct InputView {
    filename: Option<String>,
    /// Without its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(format = "uri", nullable = false)]
    source_url: Option<String>,
    #[serde(flatten)]
    picture: Option<PictureView>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Picture)]
struct PictureView {
    #[schema(schema_with = schema::picture_type)]
    media_type: &'static str,
    bytes: u64,
    width: u32,
    height: u32,
    #[schema(schema_with = schema::sha256)]
    sha256: String,
}

impl InputView {
    pub(super) fn of(job: &Job) -> Self {
        let picture = job.input.as_ref();
        Self {
            filename: match picture {
                Some(input) => input.filename.clone(),
                None => job.source.as_ref().and_then(Source::filename),
            },
            source_url: job.source.as_ref().map(|source| source.url.to_string()),
            picture: picture.map(|input| PictureView {
                media_type: input.format.media_type(),
                bytes: input.bytes,
                width: input.width,
                height: input.height,
                sha256: hex(&input.sha256),
            }),
        }
    }
}
