//! The accept loop: warp's filters behind hyper, with the bounds that warp's own server does not have.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::connection::{self, Lifetime};
use super::envelope::Envelope;
use super::local::LocalOnly;
use super::tls::Tls;
use crate::service;

/// How long to wait after a failed accept: the usual cause is that no file descriptor is left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The server's bounds.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// For a request's header to come in, and for a connection to be open without a request.
    pub header_timeout: Duration,
    /// For a client to read the next part of an answer.
    pub write_timeout: Duration,
    /// Connections open at once; further ones wait to be accepted.
    pub max_connections: usize,
    /// For connections to end after the stop.
    pub drain_timeout: Duration,
    /// Whether to refuse requests that name another host, or come from another host's page.
    pub local_only: bool,
}

/// Serves until `stop`; then accepts no more, lets requests end, and returns at the latest when the drain's time is up.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    service: Arc<service::Service>,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let base_url = &service.settings().base_url;
    let routes =
        LocalOnly::new(warp::service(super::routes(&service)), bounds.local_only.then_some(base_url));
    let app = Envelope::new(routes, service.clock().clone(), base_url);
    let lifetime = Lifetime { stop, ..Lifetime::default() };
    tokio::select! {
        () = accept_all(&listener, tls.as_ref(), &app, bounds, &lifetime) => {}
        () = follow_files(tls.as_deref()) => {}
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
    let room = Arc::new(Semaphore::new(bounds.max_connections));
    loop {
        let accepted = tokio::select! {
            () = lifetime.stop.cancelled() => break,
            accepted = accept(listener, &room) => accepted,
        };
        let (stream, peer, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let (app, tls, own) = (app.clone(), tls.cloned(), lifetime.clone());
        let connection = async move {
            match tls {
                None => connection::serve(stream, app, bounds, own).await,
                Some(tls) => {
                    let shaken = own.stop.run_until_cancelled(tls.accept(stream)).await;
                    let Some(stream) = shaken.transpose()? else { return Ok(()) };
                    connection::serve(stream, app, bounds, own).await
                }
            }
        };
        lifetime.tasks.spawn(async move {
            // Clients hang up, time out and talk nonsense; it is no fault of ours.
            if let Err(error) = connection.await {
                tracing::debug!(%peer, error, "a connection ended early");
            }
            drop(permit);
        });
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> io::Result<Accepted> {
    let permit = Arc::clone(room).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // It fails where the client is gone already, which its connection finds out.
    let _ = stream.set_nodelay(true);
    Ok((stream, peer, permit))
}
