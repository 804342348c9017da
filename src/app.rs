//! The composition root: the one place that knows what starts when, and drains how.
//!
//! ```text
//! start:  listener ─► store ─► blobs ─► imaging, sender ─► service ─► workers ─► server
//! drain:  server stops accepting, workers stop claiming ─► requests, steps and attempts end, or are
//!         given back at the deadline ─► the store commits what waits, and closes
//! ```

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::files::Files;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::secret::KeyId;
use crate::http::server::serve;
use crate::http::tls::{Tls, TlsError};
use crate::imaging::ImagingError;
use crate::notify::webhook::guard::{Guard, GuardPolicy};
use crate::notify::webhook::sender::{EgressProxy, Sender, SenderConfig, SenderError};
use crate::service::fetch::Fetching;
use crate::service::handshake::HandshakePolicy;
use crate::service::secrets::SecretsError;
use crate::service::{Parts, Service, Settings};
use crate::store::sled::OpenError;
use crate::store::{Store, StoreError};
use crate::worker::{Supervised, Workers};

mod files;
pub mod imaging;
mod keys;

/// What an attempt's lease exceeds its deadline by: the time to record it.
const SETTLE_MARGIN: Duration = Duration::from_secs(15);
/// What is left after the drain's deadline for what was cut off to be given back.
const GIVE_BACK_TIME: Duration = Duration::from_secs(2);
/// For the store to sync and close: an acknowledged change is on disk already, so a disk that hangs here costs nothing.
const CLOSE_TIME: Duration = Duration::from_secs(10);
/// For the store to let go of its files: 4 s for a million new jobs, on a quick disk. Without that, the next start does it.
const RELEASE_TIME: Duration = Duration::from_secs(30);

pub mod backup;
pub mod clients;

pub use crate::http::document;

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error("cannot use {}", path.display())]
    Data {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file with the signing secret holds none.
    #[error("{} does not hold a signing secret (whsec_…)", .0.display())]
    SigningSecret(PathBuf),
    /// The file with the encryption key holds none.
    #[error("{} does not hold an encryption key, the base64 of 32 bytes", .0.display())]
    EncryptionKey(PathBuf),
    /// The key that sealed the store's secrets is not here.
    #[error(
        "the store holds secrets that were sealed with the encryption key {id}, which is neither in {} nor \
         configured; put it there, into storage.encryption_key or into storage.previous_encryption_keys",
        file.display()
    )]
    SealedElsewhere {
        /// What that key is known by.
        id: KeyId,
        /// Where it was looked for.
        file: PathBuf,
    },
    /// The signing secrets cannot be used.
    #[error("the signing secrets cannot be used")]
    Secrets(#[source] SecretsError),
    /// The store failed at the start.
    #[error("the store failed at the start")]
    Unusable(#[from] StoreError),
    /// A fault of ours.
    #[error("the data folder could not be opened")]
    Opening(#[source] JoinError),
    /// An import was begun there and has not come to its end.
    #[error(
        "an import into {} was not finished (or still runs); empty that folder and import again",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Nobody could call the service.
    #[error("no client has a key; create one with `darkroom clients create NAME --data-dir {}`", .0.display())]
    NoClients(PathBuf),
    /// The certificate or its key cannot be used.
    #[error("TLS cannot be served")]
    Tls(#[from] TlsError),
    /// What works on pictures did not start.
    #[error("cannot start imaging")]
    Imaging(#[source] ImagingError),
    /// The webhook sender cannot be set up.
    #[error("cannot set up the webhook sender")]
    Sender(#[from] SenderError),
}

/// A running service.
pub struct Running {
    local_url: String,
    base_url: String,
    tls: Option<Arc<Tls>>,
    service: Arc<Service>,
    store: Arc<dyn Store>,
    workers: Workers,
    server: Supervised,
    stop: CancellationToken,
    drain_timeout: Duration,
}

/// Starts everything.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    // Counting begins before there is anything to count.
    let _ = crate::telemetry::metrics();
    let tls = Tls::of(&config.server, &clock)?.map(Arc::new);
    let address = config.server.listen;
    let listen = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let local_url = format!("{scheme}://{}", listener.local_addr().map_err(listen)?);
    let base_url = match config.server.public_base_url.trim_end_matches('/') {
        "" => local_url.clone(),
        url => url.to_owned(),
    };
    let guard = Guard::new(GuardPolicy {
        allow_http: config.callbacks.allow_http,
        allow_networks: config.callbacks.allow_networks.clone(),
        allow_hosts: config.callbacks.allow_hosts(),
    });
    let sender = Sender::new(guard.clone(), &sender_config(&config))?;
    let fetching = fetching(&config)?;
    let (opened, url, opening) = (config.clone(), base_url.clone(), clock.clone());
    let files = tokio::task::spawn_blocking(move || files::open(&opened, url, &opening));
    let Files { store, blobs, keys } = files.await.map_err(StartError::Opening)??;
    let store: Arc<dyn Store> = Arc::new(store);
    if !config.dev && !crate::service::clients::any_can_call(&*store) {
        store.close().await;
        return Err(StartError::NoClients(config.storage.data_dir));
    }
    let imaging = imaging::pool(&config.imaging).await.map_err(StartError::Imaging)?;
    let parts = Parts { store: Arc::clone(&store), blobs, imaging, guard, sender, clock, keys };
    let service = Arc::new(Service::new(parts, settings(&config, &base_url)).with_fetching(fetching));
    let workers = Workers::start(
        &service,
        config.callbacks.concurrency,
        Duration::from_millis(config.retention.interval_ms),
    );

    let stop = CancellationToken::new();
    let drain_timeout = Duration::from_millis(config.server.drain_timeout_ms);
    let server = serve(
        listener,
        tls.clone(),
        Arc::clone(&service),
        config.server,
        config.dev,
        config.log.access,
        stop.clone(),
    );
    let server = Supervised::spawn("the HTTP server", server);
    tracing::info!(base_url, data_dir = %config.storage.data_dir.display(), "started");
    Ok(Running { local_url, base_url, tls, service, store, workers, server, stop, drain_timeout })
}

impl Running {
    /// The address that was bound, as a URL without a slash at the end.
    #[must_use]
    pub fn local_url(&self) -> &str {
        &self.local_url
    }

    /// What links begin with, without a slash at the end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Looks soon whether there is a new certificate.
    pub fn reload_certificate(&self) {
        if let Some(tls) = &self.tls {
            tls.reload();
        }
    }

    /// Returns when a part that should run until [`Running::shutdown`] has ended before it, and which; only a
    /// fault of ours brings that about. What is left is half a service, and should be shut down.
    pub async fn failed(&mut self) -> &'static str {
        tokio::select! {
            name = self.server.failed() => name,
            name = self.workers.failed() => name,
        }
    }

    /// Stops: takes nothing new, ends or gives back what is under way before the deadline, and closes the store.
    pub async fn shutdown(mut self) {
        tracing::info!("stopping");
        self.service.stop();
        self.stop.cancel();
        self.workers.stop();
        // The server keeps to the drain's deadline by itself; what it then cuts off needs a moment to end.
        let served = timeout(self.drain_timeout + GIVE_BACK_TIME, self.server.stopped());
        let worked = async {
            if timeout(self.drain_timeout, self.workers.stopped()).await.is_err() {
                tracing::warn!("the time to drain is up; attempts that are still under way are given back");
                self.workers.cut_off();
                let _ = timeout(GIVE_BACK_TIME, self.workers.stopped()).await;
            }
        };
        let _ = tokio::join!(served, worked);
        within(CLOSE_TIME, self.store.close()).await;
        // The last who has the store closes its files, after much work with a note of where everything lies.
        let released = tokio::task::spawn_blocking(move || drop(self));
        if timeout(RELEASE_TIME, released).await.is_err() {
            tracing::info!("the next start will take longer");
        }
        tracing::info!("stopped");
    }
}

async fn within(limit: Duration, closing: impl Future<Output = ()>) {
    if timeout(limit, closing).await.is_err() {
        tracing::error!("the store does not close in time; the process ends without it");
    }
}

fn sender_config(config: &Config) -> SenderConfig {
    SenderConfig {
        timeout: Duration::from_millis(config.callbacks.timeout_ms),
        connect_timeout: Duration::from_millis(config.callbacks.connect_timeout_ms),
        user_agent: format!("Darkroom/{}", env!("CARGO_PKG_VERSION")),
        egress_proxy: config.callbacks.egress_proxy().map(EgressProxy::from),
    }
}

/// Pictures come in as callbacks go out, through the same proxy; but where callbacks may go, not everything may be read.
fn fetching(config: &Config) -> Result<Fetching, SenderError> {
    let own = &config.source;
    let guard = Guard::for_sources(GuardPolicy {
        allow_http: own.allow_http,
        allow_networks: own.allow_networks.clone(),
        allow_hosts: own.allow_hosts(),
    });
    let asking = SenderConfig {
        timeout: Duration::from_millis(own.timeout_ms),
        connect_timeout: Duration::from_millis(own.connect_timeout_ms),
        ..sender_config(config)
    };
    Ok(Fetching {
        sender: Sender::for_pictures(guard, &asking)?,
        enabled: own.enabled,
        first_byte: Duration::from_millis(own.first_byte_timeout_ms),
        concurrency: own.concurrency,
        per_source: own.per_origin,
        retry: own.retry_policy(),
    })
}

fn settings(config: &Config, base_url: &str) -> Settings {
    let timeout = Duration::from_millis(config.callbacks.timeout_ms);
    Settings {
        dev: config.dev,
        limits_of_clients: config.limits.defaults(),
        keep_audit: Duration::from_millis(config.retention.audit_ms),
        base_url: base_url.to_owned(),
        signing_secret_file: config.storage.signing_secret_file(),
        encryption_key_file: config.storage.encryption_key_file(),
        limits: config.imaging.limits(),
        // Checked when the configuration was read.
        presets: config.presets().unwrap_or_default(),
        max_time: Duration::from_millis(config.imaging.max_time_ms),
        max_upload_bytes: config.server.max_upload_bytes,
        body_idle: Duration::from_millis(config.server.body_idle_timeout_ms),
        body_whole: Duration::from_millis(config.server.body_timeout_ms),
        max_uploads: config.server.max_uploads,
        min_upload_rate: config.server.min_upload_bytes_per_second,
        upload_grace: Duration::from_millis(config.server.upload_grace_ms),
        queue_capacity: config.queue.capacity,
        source_capacity: config.source.capacity,
        lease: Duration::from_millis(config.queue.lease_ms),
        heartbeat: Duration::from_millis(config.queue.heartbeat_ms),
        attempt_lease: if config.callbacks.handshake_hosts().is_empty() { timeout } else { 2 * timeout }
            + SETTLE_MARGIN,
        job_retry: config.queue.retry_policy(),
        delivery_retry: config.callbacks.retry_policy(),
        callback_links: config.callbacks.artifact_links(),
        handshake: handshake(config, base_url),
    }
}

fn handshake(config: &Config, base_url: &str) -> HandshakePolicy {
    let own = Url::parse(base_url).ok().and_then(|url| url.host_str().map(str::to_owned));
    let configured = Some(&config.callbacks.handshake_origin).filter(|origin| !origin.is_empty());
    HandshakePolicy {
        hosts: config.callbacks.handshake_hosts(),
        origin: configured.cloned().or(own).unwrap_or_default(),
        timeout: Duration::from_millis(config.callbacks.timeout_ms),
        rate_per_second: config.destinations.rate_per_second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    async fn running(folder: &std::path::Path) -> Running {
        let flags = vec![
            ("server.listen", "127.0.0.1:0".to_owned()),
            ("storage.data_dir", folder.display().to_string()),
            // This program is a test, and cannot be an imaging process.
            ("imaging.isolation", "thread".to_owned()),
        ];
        let config = Config::load(Sources { dev: true, flags, ..Sources::default() }).unwrap();
        start(config, Clock::system()).await.unwrap()
    }

    #[tokio::test]
    async fn a_store_that_does_not_close_is_not_waited_for() {
        within(Duration::from_millis(1), std::future::pending()).await;
    }

    #[tokio::test]
    async fn a_server_that_panics_is_noticed_and_the_rest_shuts_down() {
        let folder = tempfile::tempdir().unwrap();
        let mut half = running(folder.path()).await;
        let panicking = Supervised::spawn("a server with a bug", async { panic!("a bug of ours") });
        let mut server = std::mem::replace(&mut half.server, panicking);
        assert_eq!(half.failed().await, "a server with a bug");
        half.shutdown().await;
        server.stopped().await;
        // The store was closed: the folder is free.
        running(folder.path()).await.shutdown().await;
    }
}
