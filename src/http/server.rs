//! The accept loop: warp's filters behind hyper, with the bounds that warp's own server does not have.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::connection::{self, Lifetime};
use super::cors::Cors;
use super::envelope::Envelope;
use super::head::HeadBounds;
use super::local::LocalOnly;
use super::log::AccessLog;
use super::room::Room;
use super::tls::Tls;
use crate::{config, service, telemetry};

/// How long to wait after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How often what was measured is added up.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// The server's bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// For a request's header to come in, and for a connection to be open without a request.
    pub(super) header_timeout: Duration,
    /// For a client to read the next part of an answer.
    pub(super) write_timeout: Duration,
    /// Of what comes before a request's body.
    pub(super) head: HeadBounds,
    /// What one HTTP/2 connection may take.
    pub(super) http2: Http2Bounds,
    max_connections: usize,
    max_connections_per_ip: usize,
    drain_timeout: Duration,
}

/// What one HTTP/2 connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Http2Bounds {
    pub(super) max_streams: u32,
    pub(super) max_pending_resets: usize,
    pub(super) stream_window_bytes: u32,
    pub(super) connection_window_bytes: u32,
}

impl Bounds {
    fn of(config: &config::Server) -> Self {
        Self {
            header_timeout: Duration::from_millis(config.header_timeout_ms),
            write_timeout: Duration::from_millis(config.write_timeout_ms),
            head: HeadBounds {
                max_uri_bytes: config.max_uri_bytes,
                max_headers: config.max_headers,
                max_header_bytes: config.max_header_bytes,
            },
            http2: Http2Bounds {
                max_streams: config.http2_max_streams,
                max_pending_resets: config.http2_max_pending_resets,
                stream_window_bytes: config.http2_stream_window_bytes,
                connection_window_bytes: config.http2_connection_window_bytes,
            },
            max_connections: config.max_connections,
            max_connections_per_ip: config.max_connections_per_ip,
            drain_timeout: Duration::from_millis(config.drain_timeout_ms),
        }
    }
}

/// Serves until `stop`; then accepts no more, lets requests end, and returns at the latest when the drain's time is up. With
/// `local_only`, requests that name another host, or come from another host's page, are refused.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    service: Arc<service::Service>,
    config: config::Server,
    local_only: bool,
    access_log: bool,
    stop: CancellationToken,
) {
    let bounds = Bounds::of(&config);
    let base_url = &service.settings().base_url;
    let routes = LocalOnly::new(warp::service(super::routes(&service)), local_only.then_some(base_url));
    let app = Envelope::new(routes, service.clock().clone(), base_url, bounds.head);
    // Around what refuses a head and what catches panics: pages are to read these answers, too.
    let app = Cors::new(app, &config.cors_origins);
    let app = AccessLog::new(app, access_log);
    let lifetime = Lifetime { stop, ..Lifetime::default() };
    tokio::select! {
        () = accept_all(&listener, tls.as_ref(), &app, bounds, &lifetime) => {}
        () = follow_files(tls.as_deref()) => {}
        () = keep_metrics() => {}
    }
    drop(listener);
    lifetime.tasks.close();
    if tokio::time::timeout(bounds.drain_timeout, lifetime.tasks.wait()).await.is_err() {
        tracing::warn!("the time to drain is up; connections that are still open are cut off");
        lifetime.cut_off.cancel();
        lifetime.tasks.wait().await;
    }
    service.tasks().close();
    if tokio::time::timeout(bounds.drain_timeout, service.tasks().wait()).await.is_err() {
        tracing::warn!("a change whose client has hung up does not end in time");
    }
}

async fn follow_files(tls: Option<&Tls>) {
    match tls {
        Some(tls) => tls.follow_files().await,
        None => std::future::pending().await,
    }
}

/// What is measured is kept one by one until somebody looks: with each request, for ever, if nobody did. Never ends.
async fn keep_metrics() {
    loop {
        tokio::time::sleep(METRICS_UPKEEP).await;
        if let Some(handle) = telemetry::metrics() {
            handle.run_upkeep();
        }
    }
}

/// Accepts until the stop. A handshake is its connection's own business, and holds up no other.
async fn accept_all<S, B>(
    listener: &TcpListener,
    tls: Option<&Arc<Tls>>,
    app: &S,
    bounds: Bounds,
    lifetime: &Lifetime,
) where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<connection::Error>,
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<connection::Error>,
{
    let room = Arc::new(Room::new(bounds.max_connections, bounds.max_connections_per_ip));
    while let Some(accepted) = lifetime.stop.run_until_cancelled(listener.accept()).await {
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // The usual cause is that no file descriptor is left.
                room.evict();
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // It fails where the client is gone already, which its connection finds out.
        let _ = stream.set_nodelay(true);
        let admitted = room.admit(peer, lifetime.cut_off.child_token());
        let Some(admitted) = lifetime.stop.run_until_cancelled(admitted).await else { break };
        let Some(place) = admitted.map(Arc::new) else {
            tracing::debug!(%peer, "a connection too many from its address");
            continue;
        };
        let cut_off = place.cut_off().clone();
        let (app, tls, tasks, stop) =
            (app.clone(), tls.cloned(), lifetime.tasks.clone(), lifetime.stop.clone());
        let connection = async move {
            match tls {
                None => connection::serve(stream, app, bounds, tasks, stop, place).await,
                Some(tls) => {
                    let shaken = stop.run_until_cancelled(tls.accept(stream)).await;
                    let Some(stream) = shaken.transpose()? else { return Ok(()) };
                    connection::serve(stream, app, bounds, tasks, stop, place).await
                }
            }
        };
        lifetime.tasks.spawn(async move {
            // Clients hang up, time out and talk nonsense; it is no fault of ours.
            if let Some(Err(error)) = cut_off.run_until_cancelled(connection).await {
                tracing::debug!(%peer, error, "a connection ended early");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;
    use crate::clock::Clock;
    use crate::config::{Config, Sources};

    #[tokio::test]
    async fn a_panic_is_answered_over_the_socket_and_the_connection_goes_on() {
        let bounds = Bounds::of(&Config::load(Sources::default()).unwrap().server);
        let panicking = tower::service_fn(|_: Request<Incoming>| async { panic!("a handler's bug") });
        let app = Envelope::new(panicking, Clock::system(), "http://h", bounds.head);
        let app = AccessLog::new(app, true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let client = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            for connection in ["keep-alive", "close"] {
                let request = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n");
                stream.write_all(request.as_bytes()).await.unwrap();
            }
            let mut answers = String::new();
            stream.read_to_string(&mut answers).await.unwrap();
            answers
        };
        let lifetime = Lifetime::default();
        let answers = tokio::select! {
            () = accept_all(&listener, None, &app, bounds, &lifetime) => String::new(),
            answers = client => answers,
        };
        for told in ["HTTP/1.1 500", "x-response-time-ms: ", "x-request-id: ", "\"code\":\"internal\""] {
            assert_eq!(answers.matches(told).count(), 2, "{told} in {answers}");
        }
    }
}
