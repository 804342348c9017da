//! What answers are made of.

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use warp::Reply as _;
use warp::reply::Response;

/// A body of JSON.
pub(super) fn json<T: Serialize>(body: &T) -> Response {
    let mut response = warp::reply::json(body).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a list says of its page.
#[derive(Serialize)]
pub(super) struct PageInfo {
    limit: usize,
    next_cursor: Option<String>,
    has_more: bool,
}

impl PageInfo {
    pub(super) fn new(limit: usize, next_cursor: Option<String>) -> Self {
        Self { limit, has_more: next_cursor.is_some(), next_cursor }
    }
}

/// Sets a header, unless its value is none that a header can have.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
