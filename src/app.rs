//! The composition root: the one place that knows what starts when, and drains how.
//!
//! ```text
//! start:  listener ─► store ─► blobs ─► imaging, sender ─► service ─► workers ─► server
//! drain:  server stops accepting, workers stop claiming ─► requests, steps and attempts end, or are
//!         given back at the deadline ─► the store commits what waits, and closes
//! ```

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::blobs::Blobs;
use crate::clock::{Clock, entropy};
use crate::config::Config;
use crate::domain::secret::SigningSecret;
use crate::http::server::{Bounds, serve};
use crate::imaging::Pool;
use crate::notify::webhook::guard::{Guard, GuardPolicy};
use crate::notify::webhook::sender::{Sender, SenderConfig, SenderError};
use crate::service::{Parts, Service, Settings};
use crate::store::sled::{OpenError, Options, SledStore};
use crate::store::{Policy, Store};
use crate::worker::Workers;

/// What an attempt's lease exceeds its deadline by: the time to record it.
const SETTLE_MARGIN: Duration = Duration::from_secs(15);
/// What is left after the drain's deadline for what was cut off to be given back.
const GIVE_BACK_TIME: Duration = Duration::from_secs(2);

pub mod backup;

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
    /// An import was begun there and has not come to its end.
    #[error(
        "an import into {} was not finished (or still runs); empty that folder and import again",
        .0.display()
    )]
    Unfinished(PathBuf),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The threads for imaging did not start.
    #[error("cannot start the imaging threads")]
    Imaging(#[source] io::Error),
    /// The webhook sender cannot be set up.
    #[error("cannot set up the webhook sender")]
    Sender(#[from] SenderError),
}

/// A running service.
pub struct Running {
    local_url: String,
    base_url: String,
    service: Arc<Service>,
    store: Arc<dyn Store>,
    workers: Workers,
    server: JoinHandle<()>,
    stop: CancellationToken,
    drain_timeout: Duration,
}

/// Starts everything.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    let address = config.server.listen;
    let listen = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let local_url = format!("http://{}", listener.local_addr().map_err(listen)?);
    let base_url = match config.server.public_base_url.trim_end_matches('/') {
        "" => local_url.clone(),
        url => url.to_owned(),
    };
    let guard = Guard::new(GuardPolicy {
        allow_http: config.callbacks.allow_http,
        allow_networks: config.callbacks.allow_networks.clone(),
        allow_hosts: config.callbacks.allow_hosts.clone(),
    });
    let sender = Sender::new(guard.clone(), &sender_config(&config))?;
    let (opened, url, opening) = (config.clone(), base_url.clone(), clock.clone());
    let files = tokio::task::spawn_blocking(move || open_files(&opened, url, &opening));
    let Files { store, blobs, signing_secret } =
        files.await.map_err(|error| listen(io::Error::other(error)))??;
    let store: Arc<dyn Store> = Arc::new(store);
    let imaging = Pool::new(config.imaging.thread_count()).map_err(StartError::Imaging)?;
    let parts = Parts { store: Arc::clone(&store), blobs, imaging, guard, sender, clock, signing_secret };
    let service = Arc::new(Service::new(parts, settings(&config, &base_url)));
    let workers = Workers::start(&service, config.callbacks.concurrency);

    let stop = CancellationToken::new();
    let drain_timeout = Duration::from_millis(config.server.drain_timeout_ms);
    let bounds = Bounds {
        header_timeout: Duration::from_millis(config.server.header_timeout_ms),
        max_connections: config.server.max_connections,
        drain_timeout,
    };
    let server = tokio::spawn({
        let (service, stop) = (Arc::clone(&service), stop.clone());
        async move { serve(listener, &service, bounds, stop).await }
    });
    tracing::info!(base_url, data_dir = %config.storage.data_dir.display(), "started");
    Ok(Running { local_url, base_url, service, store, workers, server, stop, drain_timeout })
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

    /// Stops: takes nothing new, ends or gives back what is under way before the deadline, and closes the store.
    pub async fn shutdown(self) {
        tracing::info!("stopping");
        self.service.stop_intake();
        self.stop.cancel();
        self.workers.stop();
        let drained = async {
            // The server keeps to the same deadline by itself.
            let _ = self.server.await;
            self.workers.stopped().await;
        };
        if tokio::time::timeout(self.drain_timeout, drained).await.is_err() {
            tracing::warn!("the time to drain is up; attempts that are still under way are given back");
            self.workers.cut_off();
            let _ = tokio::time::timeout(GIVE_BACK_TIME, self.workers.stopped()).await;
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

fn sender_config(config: &Config) -> SenderConfig {
    SenderConfig {
        timeout: Duration::from_millis(config.callbacks.timeout_ms),
        connect_timeout: Duration::from_millis(config.callbacks.connect_timeout_ms),
        user_agent: format!("Darkroom/{}", env!("CARGO_PKG_VERSION")),
    }
}

fn settings(config: &Config, base_url: &str) -> Settings {
    Settings {
        base_url: base_url.to_owned(),
        signing_secret_file: config.storage.signing_secret_file(),
        limits: config.imaging.limits(),
        max_upload_bytes: config.server.max_upload_bytes,
        body_idle: Duration::from_millis(config.server.body_idle_timeout_ms),
        body_whole: Duration::from_millis(config.server.body_timeout_ms),
        queue_capacity: config.queue.capacity,
        lease: Duration::from_millis(config.queue.lease_ms),
        heartbeat: Duration::from_millis(config.queue.heartbeat_ms),
        attempt_lease: Duration::from_millis(config.callbacks.timeout_ms) + SETTLE_MARGIN,
        job_retry: config.queue.retry_policy(),
        delivery_retry: config.callbacks.retry_policy(),
    }
}

/// What lies in the data folder.
struct Files {
    store: SledStore,
    blobs: Blobs,
    signing_secret: SigningSecret,
}

fn open_files(config: &Config, source: String, clock: &Clock) -> Result<Files, StartError> {
    backup::refuse_unfinished(&config.storage)?;
    let (store, blobs) = open_store(config, source, clock)?;
    let signing_secret = signing_secret(config)?;
    Ok(Files { store, blobs, signing_secret })
}

/// The store goes first: its lock keeps a second process from everything else in the folder.
fn open_store(config: &Config, source: String, clock: &Clock) -> Result<(SledStore, Blobs), StartError> {
    let folder = &config.storage.data_dir;
    let failed = |source| StartError::Data { path: folder.clone(), source };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let policy = Policy {
        source,
        keep_finished: Duration::from_millis(config.retention.finished_ms),
        keep_deleted: Duration::from_millis(config.retention.deleted_ms),
    };
    let options = Options { cache_bytes: config.storage.cache_mib.saturating_mul(1024 * 1024), policy };
    let store = SledStore::open(&config.storage.store_dir(), options, clock.now())?;
    let blobs = Blobs::open(folder).map_err(failed)?;
    Ok((store, blobs))
}

/// The configured secret, or the one that the first start made and kept.
fn signing_secret(config: &Config) -> Result<SigningSecret, StartError> {
    let configured = &config.callbacks.signing_secret;
    let path = config.storage.signing_secret_file();
    let text = if configured.is_empty() {
        read_or_make_secret(&path).map_err(|source| StartError::Data { path: path.clone(), source })?
    } else {
        configured.clone()
    };
    text.trim().parse().map_err(|_| StartError::SigningSecret(path))
}

fn read_or_make_secret(path: &Path) -> io::Result<String> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = SigningSecret::from_entropy(entropy());
            write_secret(path, &secret)?;
            Ok(secret.expose_text())
        }
        other => other,
    }
}

fn write_secret(path: &Path, secret: &SigningSecret) -> io::Result<()> {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(format!("{}\n", secret.expose_text()).as_bytes())?;
    file.sync_all()
}
