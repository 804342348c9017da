//! Which web pages may use this service from a browser: cross-origin resource sharing, as the Fetch standard has it.
//!
//! Ours instead of tower-http's, which answers every OPTIONS by itself with one list of methods: here a preflight goes on to
//! its resource, and is answered with the methods that this one has. Credentials (cookies) are never allowed, so a wildcard
//! gives away nothing: a page has to know a key to see more than anyone may.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, Request};
use tower::Service;
use warp::reply::Response;

/// What a preflight's answer is good for, in seconds: browsers take ten minutes to two hours at most.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
/// Without credentials it stands for all.
const ANY: HeaderValue = HeaderValue::from_static("*");
/// What the answer depends on, for caches.
const VARIES: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// Whose pages may.
#[derive(Clone)]
enum Origins {
    Any,
    These(Arc<[String]>),
}

/// The layer around `inner`.
#[derive(Clone)]
pub(super) struct Cors<S> {
    inner: S,
    origins: Origins,
}

impl<S> Cors<S> {
    /// Without origins it changes nothing.
    pub(super) fn new(inner: S, origins: &[String]) -> Self {
        let origins = if origins.iter().any(|origin| origin == "*") {
            Origins::Any
        } else {
            Origins::These(origins.into())
        };
        Self { inner, origins }
    }
}

impl<S, B> Service<Request<B>> for Cors<S>
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let granted = self.origins.grant(request.method(), request.headers());
        let varies = matches!(&self.origins, Origins::These(origins) if !origins.is_empty());
        let answer = self.inner.call(request);
        async move {
            let mut response = answer.await?;
            let headers = response.headers_mut();
            if varies {
                headers.append(VARY, VARIES);
            }
            if let Some(granted) = granted {
                granted.write(headers);
            }
            Ok(response)
        }
        .boxed()
    }
}

impl Origins {
    fn grant(&self, method: &Method, headers: &HeaderMap) -> Option<Granted> {
        let origin = headers.get(ORIGIN)?;
        let origin = match self {
            Self::Any => ANY,
            Self::These(origins) => {
                origins.iter().any(|known| known.as_bytes() == origin.as_bytes()).then(|| origin.clone())?
            }
        };
        let is_preflight = method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        let wanted = || headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
        Some(Granted { origin, preflight: is_preflight.then(wanted) })
    }
}

/// What a page may.
struct Granted {
    origin: HeaderValue,
    /// Of a preflight: the headers that it asks for, all of which it may send.
    preflight: Option<Option<HeaderValue>>,
}

impl Granted {
    fn write(self, headers: &mut HeaderMap) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        let Some(wanted) = self.preflight else {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, ANY);
            return;
        };
        if let Some(methods) = headers.get(ALLOW).cloned() {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
            headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        }
        if let Some(wanted) = wanted {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted);
        }
    }
}
