//! The whole store as a file.

use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use warp::Reply as _;
use warp::reply::Response;

use super::problem::Problem;
use super::query::Query;
use super::resource::Call;

/// `GET /v1/backup`: for operators, since it holds every client's pictures and secrets.
pub(super) async fn download(call: Call) -> Result<Response, Problem> {
    Query::parse(&call.query, &[])?;
    let mut response = warp::reply::stream(call.service.backup().await?).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(
        CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"darkroom-export.tar\""),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
