//! What lies around every response: an id, the time it took, and a problem document where it failed.
//!
//! It is a tower layer outside warp, so it sees 404, 405 and panics too. Only what hyper answers by
//! itself, to bytes that are no HTTP, has none of this.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tower::Service;
use warp::reply::Response;

use super::head::HeadBounds;
use super::log::Findings;
use super::problem::{Code, Problem};
use crate::clock::{Clock, Stopwatch, entropy};
use crate::domain::id::RequestId;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RESPONSE_TIME: HeaderName = HeaderName::from_static("x-response-time-ms");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Who asks, for the access log: an extension of a response.
#[derive(Debug, Clone)]
pub(super) struct CallerName(pub(super) String);

/// The layer around `inner`.
#[derive(Clone)]
pub(super) struct Envelope<S> {
    inner: S,
    clock: Clock,
    base_url: Arc<str>,
    head: HeadBounds,
}

impl<S> Envelope<S> {
    pub(super) fn new(inner: S, clock: Clock, base_url: &str, head: HeadBounds) -> Self {
        Self { inner, clock, base_url: base_url.into(), head }
    }
}

impl<S, B> Service<Request<B>> for Envelope<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let stopwatch = Stopwatch::start();
        let id = request_id(request.headers(), &self.clock);
        if let Some(found) = request.extensions().get::<Findings>() {
            // Set once, here.
            let _ = found.request_id.set(id.clone());
        }
        // The query may hold secrets: it is not repeated.
        let path = request.uri().path().to_owned();
        let base_url = Arc::clone(&self.base_url);
        // Before a field is added, which would count.
        let checked = self.head.check(request.uri(), request.headers());
        // What handlers note of a request can be found in the log by it.
        if let Ok(value) = HeaderValue::try_from(id.as_str()) {
            request.headers_mut().insert(REQUEST_ID, value);
        }
        let answer = match checked {
            Ok(()) => self.inner.call(request).left_future(),
            Err(problem) => ready(Ok(problem.into())).right_future(),
        };
        let answer = AssertUnwindSafe(answer).catch_unwind();
        async move {
            let mut response = match answer.await {
                Ok(Ok(response)) => response,
                Err(_) => Problem::of(Code::Internal).into(),
            };
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                write(&mut response, &problem.document(&base_url, &path, &id));
            }
            let millis = stopwatch.elapsed().as_secs_f64() * 1000.0;
            let headers = response.headers_mut();
            if let Ok(value) = HeaderValue::try_from(format!("{millis:.3}")) {
                headers.insert(RESPONSE_TIME, value);
            }
            if let Ok(value) = HeaderValue::try_from(format!("total;dur={millis:.3}")) {
                headers.append(SERVER_TIMING, value);
            }
            if let Ok(value) = HeaderValue::try_from(id.as_str()) {
                headers.insert(REQUEST_ID, value);
            }
            Ok(response)
        }
        .boxed()
    }
}

fn write(response: &mut Response, document: &[u8]) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(document.len()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = document.to_vec().into();
}

/// The client's own id where it is short and harmless in a log, else a new one.
fn request_id(headers: &HeaderMap, clock: &Clock) -> String {
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let brought = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(harmless);
    brought.map_or_else(|| RequestId::new(clock.now(), &entropy()).to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_panic_is_a_problem_with_both_headers() {
        let head = HeadBounds { max_uri_bytes: 100, max_headers: 100, max_header_bytes: 100 };
        let inner = tower::service_fn(|_: Request<()>| async { panic!("a handler's bug") });
        let envelope = Envelope::new(inner, Clock::system(), "http://h", head);
        let response = envelope.oneshot(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert!(
            response.headers().contains_key(REQUEST_ID) && response.headers().contains_key(RESPONSE_TIME)
        );
    }

    #[test]
    fn only_harmless_ids_are_taken_over() {
        let id = |text: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(text).unwrap())]);
            request_id(&headers, &Clock::system())
        };
        assert_eq!(id("trace-1.a_B"), "trace-1.a_B");
        for harmful in ["", "a b", "a\"b", &"x".repeat(65)] {
            assert!(id(harmful).starts_with("req_"), "{harmful}");
        }
    }
}
