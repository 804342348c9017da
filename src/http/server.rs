//! The accept loop: warp's filters behind hyper, with the bounds that warp's own server does not have.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::envelope::Envelope;
use crate::service::Service;

/// How long to wait after a failed accept: the usual cause is that no file descriptor is left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Streams that one HTTP/2 connection may have open at once.
const MAX_STREAMS: u32 = 100;
/// The longest header section that is read.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The server's bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For a request's header to come in.
    pub header_timeout: Duration,
    /// Connections open at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// For connections to end after the stop.
    pub drain_timeout: Duration,
}

/// Serves until `stop`; then accepts no more, lets requests end, and returns at the latest when the drain's time is up.
pub async fn serve(listener: TcpListener, service: &Arc<Service>, bounds: Bounds, stop: CancellationToken) {
    let app = Envelope::new(
        warp::service(super::routes(service)),
        service.clock().clone(),
        &service.settings().base_url,
    );
    let builder = connection_builder(bounds);
    let connections = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(bounds.max_connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let handler = TowerToHyperService::new(app.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), handler).into_owned();
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            // Clients hang up, time out and talk nonsense; it is no fault of ours.
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(bounds.drain_timeout, connections.shutdown()).await.is_err() {
        tracing::warn!("the time to drain is up; connections that are still open are cut off");
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}

fn connection_builder(bounds: Bounds) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Without a timer hyper's own time-out is silently off.
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header_timeout)
        .max_buf_size(MAX_HEADER_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(bounds.header_timeout))
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX));
    builder
}
