//! A service without a server, and those it delivers to.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use darkroom::blobs::Blobs;
use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::{Caller, ClientId, ClientLimits};
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::JobId;
use darkroom::domain::image::{Format, Handling, Limits, Presets, Variant};
use darkroom::domain::job::{Callback, Input, NewJob, Priority};
use darkroom::domain::retry::{RetryOverride, RetryPolicy};
use darkroom::domain::secret::{EncryptionKey, SigningSecret};
use darkroom::imaging::{Budget, Pool};
use darkroom::notify::webhook::guard::{Guard, GuardPolicy};
use darkroom::notify::webhook::sender::{Sender, SenderConfig};
use darkroom::service::handshake::HandshakePolicy;
use darkroom::service::read::EventQuery;
use darkroom::service::secrets::{Keys, Signing};
use darkroom::service::vault::Vault;
use darkroom::service::{Parts, Service, Settings};
use darkroom::store::sled::{Options, SledStore};
use darkroom::store::{Paused, Policy, Store, Submission};
use darkroom::worker::Workers;
use tempfile::TempDir;
use tokio::net::TcpListener;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// As in `config/default.toml`.
const CONCURRENCY: usize = 256;
const TIMEOUT: Duration = Duration::from_secs(15);

/// Receivers in a process of their own.
pub(crate) struct Receivers {
    pub(crate) urls: Vec<String>,
    arrivals: Arc<Mutex<HashMap<String, u128>>>,
    child: Child,
}

impl Receivers {
    pub(crate) async fn start(ports: usize) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--receiver", &ports.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ports = lines.next().unwrap().unwrap();
        let urls = ports.split(' ').map(|port| format!("http://127.0.0.1:{port}/hook")).collect();
        let arrivals = Arc::new(Mutex::new(HashMap::new()));
        let into = Arc::clone(&arrivals);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let (id, at) = line.split_once(' ').unwrap();
                into.lock().unwrap().entry(id.to_owned()).or_insert_with(|| at.parse().unwrap());
            }
        });
        Self { urls, arrivals, child }
    }
}

impl Drop for Receivers {
    fn drop(&mut self) {
        let _ = self.child.stdin.take().map(|mut stdin| stdin.write_all(b"\n"));
        let _ = self.child.wait();
    }
}

/// Receivers that accept and never answer.
pub(crate) struct Hung {
    pub(crate) urls: Vec<String>,
}

impl Hung {
    pub(crate) async fn start(count: usize) -> Self {
        let mut urls = Vec::new();
        for _ in 0..count {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}/hook", listener.local_addr().unwrap()));
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Ok((stream, _)) = listener.accept().await {
                    held.push(stream);
                }
            });
        }
        Self { urls }
    }
}

pub(crate) struct Rig {
    service: Arc<Service>,
    store: Arc<dyn Store>,
    folder: TempDir,
}

impl Rig {
    pub(crate) async fn open() -> Self {
        let base = std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned());
        let folder = tempfile::tempdir_in(base).unwrap();
        let policy = Policy {
            source: "http://127.0.0.1:8080".to_owned(),
            keep_finished: DAY,
            keep_deleted: DAY,
            keep_undelivered: DAY,
            dispatch: DispatchPolicy::default(),
        };
        let options = Options { cache_bytes: 64 * 1024 * 1024, policy };
        let path = folder.path().join("store");
        let opened = move || SledStore::open(&path, options, Clock::system().now()).unwrap();
        let store: Arc<dyn Store> = Arc::new(tokio::task::spawn_blocking(opened).await.unwrap());
        // Only deliveries are looked at.
        store.set_paused(Paused { intake: false, work: true }).await.unwrap();
        let guard = Guard::new(GuardPolicy {
            allow_http: true,
            allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
            allow_hosts: Vec::new(),
        });
        let config = SenderConfig {
            timeout: TIMEOUT,
            connect_timeout: 5 * SECOND,
            user_agent: "Darkroom".to_owned(),
            egress_proxy: None,
        };
        let parts = Parts {
            store: Arc::clone(&store),
            blobs: Blobs::open(folder.path(), 0).unwrap(),
            imaging: Pool::new(NonZeroUsize::MIN, Budget::new(64)).unwrap(),
            sender: Sender::new(guard.clone(), &config).unwrap(),
            guard,
            clock: Clock::system(),
            keys: Keys {
                vault: Vault::new(&EncryptionKey::from_entropy(entropy()), &[]),
                signing: Signing::Configured(SigningSecret::from_entropy(entropy())),
                ed25519: None,
            },
        };
        Self { service: Arc::new(Service::new(parts, settings())), store, folder }
    }

    async fn submit(&self, url: &str) -> JobId {
        let now = Clock::system().now();
        let job = new_job(JobId::new(now, &entropy()), url);
        let id = job.id;
        self.store.submit(Submission { job, idempotency: None }, now).await.unwrap();
        id
    }

    /// As many jobs, whose first event is to be told; the length of such an event.
    pub(crate) async fn fill(&self, receivers: &Receivers, count: usize) -> usize {
        self.fill_urls(&receivers.urls, count).await;
        let first = EventQuery { client: None, after: 0, limit: 1, kinds: None, job: None };
        let event = self.service.events(&Caller::dev(), first).await.unwrap().events.remove(0);
        darkroom::service::view::event_body(&event).unwrap().len()
    }

    /// As many to a port where nobody listens.
    pub(crate) async fn fill_dead(&self, count: usize) {
        self.fill_urls(&["http://127.0.0.1:9/hook".to_owned()], count).await;
    }

    async fn fill_urls(&self, urls: &[String], count: usize) {
        let tasks = (0..64).map(|task| async move {
            for n in (task..count).step_by(64) {
                self.submit(&urls[n % urls.len()]).await;
            }
        });
        futures_util::future::join_all(tasks).await;
    }

    /// Deliveries a second until as many have arrived, and the CPU seconds that this process took for it.
    pub(crate) async fn drain(&self, count: usize) -> (f64, f64) {
        let (before, start) = (self.store.ledger().delivered, Instant::now());
        let cpu = cpu_seconds();
        let mut workers = Workers::start(&self.service, CONCURRENCY, DAY);
        while self.store.ledger().delivered - before < count as u64 {
            assert!(start.elapsed() < Duration::from_secs(300), "{:?}", self.store.ledger());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (elapsed, cpu) = (start.elapsed(), cpu_seconds() - cpu);
        workers.stop();
        workers.cut_off();
        workers.stopped().await;
        (count as f64 / elapsed.as_secs_f64(), cpu)
    }

    /// What is told of so many jobs a second, each at the URL that `target` names; milliseconds from the commit to the
    /// arrival of those that go to `receivers`.
    pub(crate) async fn paced(
        &self,
        receivers: &Receivers,
        target: impl Fn(usize) -> (String, bool),
        per_second: u32,
        during: Duration,
    ) -> Vec<f64> {
        let mut workers = Workers::start(&self.service, CONCURRENCY, DAY);
        let mut ticks = tokio::time::interval(SECOND / per_second);
        let (start, mut number, mut sent) = (Instant::now(), 0, Vec::new());
        while start.elapsed() < during {
            ticks.tick().await;
            let (url, is_healthy) = target(number);
            number += 1;
            let id = self.submit(&url).await;
            if is_healthy {
                sent.push((id, micros()));
            }
        }
        // The last are on their way.
        let end = Instant::now() + SECOND;
        let mut times = Vec::new();
        for (job, committed) in sent {
            let event = self.store.events_of(job, 0, 1).await.unwrap().remove(0).id.to_string();
            let arrival = || receivers.arrivals.lock().unwrap().get(&event).copied();
            while arrival().is_none() && Instant::now() < end {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (arrived, late) = (arrival(), || during.as_micros());
            times.push(arrived.map_or_else(late, |at| at.saturating_sub(committed)) as f64 / 1000.0);
        }
        workers.stop();
        workers.cut_off();
        workers.stopped().await;
        times
    }

    /// How long a sync of the disk takes after a small write, in milliseconds.
    pub(crate) fn sync_times(&self, count: usize) -> Vec<f64> {
        let mut file = std::fs::File::create(self.folder.path().join("sync")).unwrap();
        (0..count)
            .map(|_| {
                file.write_all(&[7; 4096]).unwrap();
                let start = Instant::now();
                file.sync_data().unwrap();
                start.elapsed().as_secs_f64() * 1000.0
            })
            .collect()
    }

    pub(crate) async fn close(self) {
        self.store.close().await;
    }
}

/// Posts a second of a bare client with so many connections.
pub(crate) async fn bare(receivers: &Receivers, count: usize, connections: usize, bytes: usize) -> f64 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let body = bytes::Bytes::from(vec![b'x'; bytes]);
    let start = Instant::now();
    let tasks = (0..connections).map(|task| {
        let (client, body, urls) = (client.clone(), body.clone(), receivers.urls.clone());
        tokio::spawn(async move {
            for n in (task..count).step_by(connections) {
                let response = client.post(&urls[n % urls.len()]).body(body.clone()).send().await.unwrap();
                response.bytes().await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    count as f64 / start.elapsed().as_secs_f64()
}

fn new_job(id: JobId, url: &str) -> NewJob {
    NewJob {
        id,
        client: ClientId::dev(),
        input: Input {
            filename: None,
            format: Format::Jpeg,
            bytes: 3_753_621,
            width: 4032,
            height: 3024,
            sha256: [7; 32],
        },
        variants: Variant::defaults(),
        preset: None,
        handling: Handling::default(),
        callback: Some(Callback {
            url: url.parse().unwrap(),
            events: vec![EventKind::JobQueued],
            secret: None,
            headers: Vec::new(),
            retry: RetryOverride::default(),
            latest: None,
        }),
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: Vec::new(),
        metadata: None,
    }
}

fn settings() -> Settings {
    let retry = |attempts| RetryPolicy {
        initial: 5 * SECOND,
        multiplier: 5.0,
        max_delay: DAY,
        max_attempts: attempts,
    };
    Settings {
        dev: true,
        limits_of_clients: ClientLimits::default(),
        keep_audit: Duration::from_secs(3600),
        signing_secret_file: "signing-secret".into(),
        encryption_key_file: "encryption-key".into(),
        base_url: "http://127.0.0.1:8080".to_owned(),
        limits: Limits { max_pixels: 1_000_000, max_side: 2_000 },
        presets: Presets::default(),
        max_time: 120 * SECOND,
        max_upload_bytes: 1 << 20,
        body_idle: SECOND,
        body_whole: SECOND,
        max_uploads: 100,
        min_upload_rate: 0,
        upload_grace: SECOND,
        queue_capacity: 10_000_000,
        source_capacity: 1,
        lease: 30 * SECOND,
        heartbeat: 10 * SECOND,
        attempt_lease: 30 * SECOND,
        job_retry: retry(3),
        delivery_retry: retry(10),
        callback_links: None,
        handshake: HandshakePolicy::default(),
    }
}

/// User and system time of this process, in seconds (proc(5): fields 14 and 15, in hundredths).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|field| field.parse::<f64>().unwrap()).sum();
    ticks / 100.0
}

/// MiB of this process.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

pub(crate) fn percentile(times: &[f64], percent: usize) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.get((times.len() * percent / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Now, as receivers write it.
fn micros() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()
}
