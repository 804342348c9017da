//! The worker loop, over parts that a test can hold still: the imaging thread, the disk.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use darkroom::blobs::{Blobs, ORIGINAL};
use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::{Caller, ClientLimits};
use darkroom::domain::id::JobId;
use darkroom::domain::image::{Limits, Presets};
use darkroom::domain::job::{Job, JobStatus};
use darkroom::domain::retry::RetryPolicy;
use darkroom::domain::secret::{EncryptionKey, SigningSecret};
use darkroom::imaging::{Budget, ImagingError, Pool};
use darkroom::notify::webhook::guard::{Guard, GuardPolicy};
use darkroom::notify::webhook::sender::{Sender, SenderConfig};
use darkroom::service::handshake::HandshakePolicy;
use darkroom::service::lifecycle::JobAction;
use darkroom::service::secrets::{Keys, Signing};
use darkroom::service::vault::Vault;
use darkroom::service::{Parts, Service, Settings};
use darkroom::store::sled::SledStore;
use darkroom::store::{Store, Submission};
use darkroom::worker::Workers;
use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::support::{bounded, eventually, new_job, picture, store_options};

const SECOND: Duration = Duration::from_secs(1);

/// A service without a server.
struct Bench {
    service: Arc<Service>,
    store: Arc<dyn Store>,
    blobs: Blobs,
    folder: TempDir,
}

impl Bench {
    async fn new(imaging: Pool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = store_options();
        let path = folder.path().join("store");
        let opened =
            tokio::task::spawn_blocking(move || SledStore::open(&path, options, Clock::system().now()));
        let store: Arc<dyn Store> = Arc::new(opened.await.unwrap().unwrap());
        let blobs = Blobs::open(folder.path(), 0).unwrap();
        let guard = Guard::new(GuardPolicy::default());
        let config = SenderConfig {
            timeout: SECOND,
            connect_timeout: SECOND,
            user_agent: "Darkroom".to_owned(),
            egress_proxy: None,
        };
        let parts = Parts {
            store: Arc::clone(&store),
            blobs: blobs.clone(),
            imaging,
            sender: Sender::new(guard.clone(), &config).unwrap(),
            guard,
            clock: Clock::system(),
            keys: Keys {
                vault: Vault::new(&EncryptionKey::from_entropy(entropy()), &[]),
                signing: Signing::Configured(SigningSecret::from_entropy(entropy())),
                ed25519: None,
            },
        };
        Self { service: Arc::new(Service::new(parts, settings())), store, blobs, folder }
    }

    async fn submit(&self) -> JobId {
        let now = Clock::system().now();
        let id = JobId::new(now, &entropy());
        self.blobs.put(id, ORIGINAL, &picture::jpeg(40, 30)).await.unwrap();
        self.store.submit(Submission { job: new_job(id), idempotency: None }, now).await.unwrap();
        id
    }

    async fn job(&self, id: JobId) -> Job {
        self.store.job(id).await.unwrap().unwrap()
    }

    fn uploads(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("uploads")).unwrap().count()
    }
}

fn settings() -> Settings {
    let retry = RetryPolicy { initial: SECOND, multiplier: 2.0, max_delay: 60 * SECOND, max_attempts: 3 };
    Settings {
        dev: true,
        limits_of_clients: ClientLimits::default(),
        keep_audit: Duration::from_secs(3600),
        signing_secret_file: "signing-secret".into(),
        encryption_key_file: "encryption-key".into(),
        base_url: String::new(),
        limits: Limits { max_pixels: 1_000_000, max_side: 2_000 },
        presets: Presets::default(),
        max_time: 120 * SECOND,
        max_upload_bytes: 1 << 20,
        body_idle: SECOND,
        body_whole: SECOND,
        max_uploads: 100,
        min_upload_rate: 0,
        upload_grace: SECOND,
        queue_capacity: 100,
        source_capacity: 100,
        lease: 30 * SECOND,
        heartbeat: Duration::from_millis(10),
        attempt_lease: 30 * SECOND,
        job_retry: retry.clone(),
        delivery_retry: retry,
        callback_links: None,
        handshake: HandshakePolicy::default(),
    }
}

fn pool() -> Pool {
    Pool::new(NonZeroUsize::MIN, Budget::new(64)).unwrap()
}

#[tokio::test]
async fn a_thread_that_overran_its_deadline_costs_no_other_job() {
    let pool = pool();
    let (release, gate) = channel::<()>();
    // What a job at its deadline leaves behind: work that nobody waits for, and that has not come to a step yet.
    let permit = Arc::new(Arc::clone(pool.room()).acquire_owned().await.unwrap());
    let (begun, begins) = oneshot::channel();
    {
        let overrun = pool.run(permit, move || {
            begun.send(()).unwrap();
            gate.recv().map_err(|_| ImagingError::Stopped)
        });
        tokio::select! {
            _ = overrun => panic!("ended before the gate was opened"),
            begun = begins => begun.unwrap(),
        }
    }

    let bench = Bench::new(pool).await;
    let mut workers = Workers::start(&bench.service, 1, SECOND);
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(bench.submit().await);
    }
    // Twenty commits later the loop has taken none of them: they are there for whoever has a thread free.
    for id in &ids {
        let job = bench.job(*id).await;
        assert_eq!((job.status, job.attempt), (JobStatus::Queued, 0));
    }
    release.send(()).unwrap();
    for id in &ids {
        let done =
            eventually(async || Some(bench.job(*id).await).filter(|job| job.status.is_terminal())).await;
        assert_eq!((done.status, done.attempt), (JobStatus::Completed, 1), "{:?}", done.error);
    }
    workers.stop();
    bounded(workers.stopped()).await;
    bench.store.close().await;
}

#[tokio::test]
async fn a_job_that_waits_for_memory_keeps_its_lease_and_can_be_called_off() {
    let pool = pool();
    let budget = pool.budget().clone();
    let (_, all) = budget.usage();
    let held = budget.take(u32::try_from(all >> 20).unwrap()).await.unwrap();
    let bench = Bench::new(pool).await;
    let mut workers = Workers::start(&bench.service, 1, SECOND);
    let (first, second) = (bench.submit().await, bench.submit().await);

    let lease = async || bench.job(first).await.lease.map(|lease| lease.until);
    for _ in 0..5 {
        let before = lease().await;
        eventually(async || (lease().await > before).then_some(())).await;
    }
    assert!(bench.job(first).await.artifacts.is_empty());
    bench.service.change_job(&Caller::dev(), first, JobAction::Cancel, None).await.unwrap();
    let ended = async |id| {
        eventually(async || Some(bench.job(id).await).filter(|job| job.status.is_terminal())).await.status
    };
    assert_eq!(ended(first).await, JobStatus::Cancelled);

    // The next has taken its place in the line, and a shutdown gives it back.
    eventually(async || (bench.job(second).await.status == JobStatus::Processing).then_some(())).await;
    workers.stop();
    bounded(workers.stopped()).await;
    let given_back = bench.job(second).await;
    assert_eq!((given_back.status, given_back.attempt), (JobStatus::Queued, 0));

    drop(held);
    let mut workers = Workers::start(&bench.service, 1, SECOND);
    assert_eq!(ended(second).await, JobStatus::Completed);
    workers.stop();
    bounded(workers.stopped()).await;
    assert_eq!(budget.usage().0, 0);
    bench.store.close().await;
}

/// The disk stands still for the runtime that the job runs on: its one thread for files is taken.
#[tokio::test]
async fn a_disk_that_stalls_costs_neither_the_lease_nor_the_shutdown() {
    let bench = Arc::new(Bench::new(pool()).await);
    let id = bench.submit().await;
    let job = bench.service.claim_jobs(1).await.unwrap().remove(0);
    let room = Arc::clone(bench.service.job_room());
    let thread = Arc::new(Arc::clone(&room).acquire_owned().await.unwrap());
    let shutdown = CancellationToken::new();
    let (release, gate) = channel::<()>();
    let (returned, returns) = oneshot::channel();

    let stalled = std::thread::spawn({
        let (bench, shutdown) = (Arc::clone(&bench), shutdown.clone());
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .max_blocking_threads(1)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut process = Box::pin(bench.service.process(job, thread, &shutdown));
                // The first step asks for the picture; what comes after it waits behind the gate.
                assert!(process.as_mut().now_or_never().is_none());
                let gate = tokio::task::spawn_blocking(move || gate.recv());
                process.await;
                returned.send(()).unwrap();
                gate.await.unwrap().unwrap();
                // Whatever waited behind the gate has been done when this is.
                tokio::task::spawn_blocking(|| ()).await.unwrap();
            });
        }
    });

    // Everything is made, and nothing can be stored.
    eventually(async || (room.available_permits() == 1).then_some(())).await;
    let lease = async || bench.job(id).await.lease.unwrap().until;
    for _ in 0..5 {
        let before = lease().await;
        eventually(async || (lease().await > before).then_some(())).await;
    }
    shutdown.cancel();
    bounded(returns).await.unwrap();
    let given_back = bench.job(id).await;
    assert_eq!((given_back.status, given_back.attempt), (JobStatus::Queued, 0));
    assert!(given_back.artifacts.is_empty());

    release.send(()).unwrap();
    tokio::task::spawn_blocking(|| stalled.join().unwrap()).await.unwrap();
    assert_eq!(bench.uploads(), 0);
    bench.store.close().await;
}
