//! The access log: one line for each request, when its answer is written or its client is gone. And how long answers take.
//!
//! It names the route instead of the path, and no query: in these are ids and secrets. Who is gone before the request is
//! looked at made none.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Buf as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use super::connection::Peer;
use super::envelope::CallerName;
use crate::clock::Stopwatch;
use crate::domain::trace::TraceParent;
use crate::telemetry;

/// What the layers within find out about a request.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The pattern that its path fits.
    pub(super) route: OnceLock<&'static str>,
    pub(super) request_id: OnceLock<String>,
}

/// What is found out goes here: an extension of the request.
pub(super) type Findings = Arc<Found>;

/// The layer around `inner`.
#[derive(Clone)]
pub(super) struct AccessLog<S> {
    inner: S,
    /// Whether there are lines.
    enabled: bool,
}

impl<S> AccessLog<S> {
    pub(super) fn new(inner: S, enabled: bool) -> Self {
        Self { inner, enabled }
    }
}

impl<S, B, R> Service<Request<B>> for AccessLog<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<Logged<R>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let found = Findings::default();
        let mut line = Line {
            enabled: self.enabled,
            stopwatch: Stopwatch::start(),
            found: Arc::clone(&found),
            method: method_name(request.method()),
            peer: request.extensions().get().map(|Peer(peer)| *peer),
            trace: trace_parent(request.headers()),
            client: None,
            status: None,
            bytes: 0,
        };
        request.extensions_mut().insert(found);
        let answer = self.inner.call(request);
        async move {
            let mut response = answer.await?;
            line.client = response.extensions_mut().remove::<CallerName>();
            line.answered(response.status());
            Ok(response.map(|body| Logged { body, line }))
        }
        .boxed()
    }
}

/// The trace that the caller says it belongs to.
pub(super) fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TraceParent::HEADER)?.to_str().ok()?.parse().ok()
}

/// A line in the making, written when it is dropped.
struct Line {
    enabled: bool,
    stopwatch: Stopwatch,
    found: Findings,
    method: &'static str,
    peer: Option<SocketAddr>,
    trace: Option<TraceParent>,
    client: Option<CallerName>,
    status: Option<StatusCode>,
    bytes: u64,
}

impl Line {
    fn route(&self) -> &'static str {
        self.found.route.get().copied().unwrap_or("none")
    }

    /// What is measured ends here: how long an answer is read, or a stream listened to, is up to the client.
    fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        let labels = [
            ("route", self.route().to_owned()),
            ("method", self.method.to_owned()),
            ("status", status.as_str().to_owned()),
        ];
        let seconds = self.stopwatch.elapsed().as_secs_f64();
        metrics::histogram!(telemetry::HTTP_REQUEST_SECONDS, &labels).record(seconds);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.enabled {
            return;
        }
        tracing::info!(
            request_id = self.found.request_id.get(),
            client = self.client.as_ref().map(|CallerName(name)| name.as_str()),
            method = self.method,
            route = self.route(),
            // None: the client hung up before there was an answer.
            status = self.status.map(|status| status.as_u16()),
            bytes = self.bytes,
            ms = self.stopwatch.elapsed().as_secs_f64() * 1000.0,
            peer = self.peer.map(tracing::field::display),
            trace_id = self.trace.as_ref().map(TraceParent::trace_id),
            "request"
        );
    }
}

/// A name of few, lest a client make up as many series as it likes.
fn method_name(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// The body of an answer, whose bytes are counted.
pub(super) struct Logged<B> {
    body: B,
    line: Line,
}

impl<B: Body + Unpin> Body for Logged<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.line.bytes += frame.data_ref().map_or(0, |data| data.remaining() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
