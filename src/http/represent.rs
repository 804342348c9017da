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

/// Sets a header, unless its value is none that a header can have.
pub(super) fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
