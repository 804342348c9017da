//! One connection: served while it is of use, and closed when its client keeps it waiting.
//!
//! hyper bounds the time for an HTTP/1 header, and nothing else: neither the first bytes, nor how long an
//! HTTP/2 connection stays open without a request, nor how long a client may leave an answer unread.
//! The bounds here look at requests and answers instead of bytes. So they hold for both versions, for a closed
//! flow-control window of HTTP/2 as well as for a full socket, and a byte now and then does not
//! outwit them. An upload has its own bounds, and an answer that has nothing to send yet is no one's delay.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use super::room::Place;
use super::server::Bounds;

/// By how much hyper's own bounds of a header exceed ours, so that it is we who refuse, with a problem document. What is
/// far beyond is refused by hyper.
const HEADER_SLACK: usize = 16 * 1024;
/// What is kept of an HTTP/2 answer that is not written yet.
const SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Streams that are remembered after a client broke the protocol on them; then its connection is closed.
const MAX_LOCAL_RESETS: usize = 100;

pub(super) type Error = Box<dyn std::error::Error + Send + Sync>;

/// How connections end with the server.
#[derive(Clone, Default)]
pub(super) struct Lifetime {
    /// Everything that runs.
    pub(super) tasks: TaskTracker,
    /// Answer what is under way, and no more.
    pub(super) stop: CancellationToken,
    /// End at once.
    pub(super) cut_off: CancellationToken,
}

/// Serves one connection until it ends, or its client keeps it waiting. Whoever runs it ends it with its place's token.
pub(super) async fn serve<IO, S, B>(
    stream: IO,
    app: S,
    bounds: Bounds,
    tasks: TaskTracker,
    stop: CancellationToken,
    place: Arc<Place>,
) -> Result<(), Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Error>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Error>,
{
    let cut_off = place.cut_off().clone();
    let builder = builder(bounds, Executor { tasks, cut_off: cut_off.clone() });
    let requests = Arc::new(Requests { under_way: watch::Sender::new(0), place });
    let idle = |limit| overdue(requests.under_way.subscribe(), |requests| *requests == 0, limit);
    let handler =
        Watched { inner: app, requests: Arc::clone(&requests), limit: bounds.write_timeout, cut_off };
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(handler)));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => {}
        _ = idle(bounds.header_timeout) => {}
    }
    connection.as_mut().graceful_shutdown();
    // A request that came in at the last moment is answered, and the end of the last answer is written.
    tokio::select! {
        ended = connection => ended,
        _ = idle(bounds.write_timeout) => Ok(()),
    }
}

fn builder(bounds: Bounds, executor: Executor) -> Builder<Executor> {
    let head = bounds.head;
    let header_bytes = head.max_header_bytes + HEADER_SLACK;
    let mut builder = Builder::new(executor);
    builder
        .http1()
        // Without a timer hyper's own time-out is silently off.
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(head.max_uri_bytes + header_bytes)
        .max_headers(2 * head.max_headers)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(bounds.header_timeout))
        .keep_alive_timeout(bounds.header_timeout)
        .max_concurrent_streams(bounds.http2.max_streams)
        .max_pending_accept_reset_streams(bounds.http2.max_pending_resets)
        .max_local_error_reset_streams(MAX_LOCAL_RESETS)
        .initial_stream_window_size(bounds.http2.stream_window_bytes)
        .initial_connection_window_size(bounds.http2.connection_window_bytes)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(u32::try_from(head.max_uri_bytes + header_bytes).unwrap_or(u32::MAX));
    builder
}

/// Whether `state` has been `waiting` for `limit` without a change; `false` when it is gone.
async fn overdue<T>(mut state: watch::Receiver<T>, waiting: impl Fn(&T) -> bool, limit: Duration) -> bool {
    loop {
        let limit = if waiting(&state.borrow_and_update()) { limit } else { Duration::MAX };
        match timeout(limit, state.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return false,
            Err(_) => return true,
        }
    }
}

/// Notes which requests are under way, and whose answers are not read.
#[derive(Clone)]
struct Watched<S> {
    inner: S,
    requests: Arc<Requests>,
    limit: Duration,
    cut_off: CancellationToken,
}

impl<S, B> Service<Request<Incoming>> for Watched<S>
where
    S: Service<Request<Incoming>, Response = Response<B>>,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
{
    type Response = Response<Answer<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        let under_way = UnderWay::new(&self.requests);
        request.extensions_mut().insert(Peer(self.requests.place.peer()));
        let (answer, limit, cut_off) = (self.inner.call(request), self.limit, self.cut_off.clone());
        async move {
            let response = answer.await?;
            let unread = watch::Sender::new(true);
            let overdue = overdue(unread.subscribe(), |unread| *unread, limit);
            tokio::spawn(async move {
                if overdue.await {
                    cut_off.cancel();
                }
            });
            Ok(response.map(|body| Answer { body, unread, _under_way: under_way }))
        }
        .boxed()
    }
}

/// Who is at the other end of the connection: the client, or a proxy of its.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// The requests of a connection, which is idle without.
struct Requests {
    under_way: watch::Sender<usize>,
    place: Arc<Place>,
}

/// A request, until its answer is written.
struct UnderWay(Arc<Requests>);

impl UnderWay {
    fn new(requests: &Arc<Requests>) -> Self {
        requests.under_way.send_modify(|under_way| {
            *under_way += 1;
            requests.place.is_busy();
        });
        Self(Arc::clone(requests))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|under_way| {
            *under_way -= 1;
            if *under_way == 0 {
                self.0.place.is_idle();
            }
        });
    }
}

/// The body of an answer. hyper asks for its next part when the client has read enough of those before.
struct Answer<B> {
    body: B,
    unread: watch::Sender<bool>,
    _under_way: UnderWay,
}

impl<B: Body + Unpin> Body for Answer<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        // While there is nothing to send, nobody waits for the client.
        self.unread.send_replace(polled.is_ready());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs what hyper does beside a connection, the requests of HTTP/2, no longer than the connection.
#[derive(Clone)]
struct Executor {
    tasks: TaskTracker,
    cut_off: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        self.tasks.spawn(self.cut_off.clone().run_until_cancelled_owned(task));
    }
}
