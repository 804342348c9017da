//! What a durable step costs, beside what the disk itself allows in the same run: `cargo bench --bench store`.
//!
//! The yardstick is a single thread that appends 4 KiB and calls `fdatasync`, again and again.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a bench reads the clock, prints its figures, and stops on the spot when something fails"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::ClientId;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::{JobId, WorkerId};
use darkroom::domain::image::{Format, Variant};
use darkroom::domain::job::{Callback, Input, NewJob, Priority};
use darkroom::store::sled::{Options, SledStore};
use darkroom::store::{Ending, Policy, Store, Submission};

const PRODUCERS: usize = 64;
const JOBS: usize = 20_000;
const CLAIM: usize = 16;

fn main() {
    let folder = tempfile::tempdir_in(std::env::var("BENCH_DIR").unwrap_or_else(|_| ".".to_owned())).unwrap();
    let disk = appends_per_second(folder.path());
    let day = Duration::from_secs(24 * 60 * 60);
    let policy =
        Policy { source: "http://127.0.0.1:8080".to_owned(), keep_finished: 30 * day, keep_deleted: 7 * day };
    let options = Options { cache_bytes: 64 * 1024 * 1024, policy };
    let store: Arc<dyn Store> =
        Arc::new(SledStore::open(&folder.path().join("store"), options, Clock::system().now()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let submits = runtime.block_on(rate(Arc::clone(&store), submit));
    let finishes = runtime.block_on(claim_and_finish(Arc::clone(&store)));
    runtime.block_on(store.close());

    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores; {JOBS} jobs, {PRODUCERS} at once");
    println!("{:<44} {:>9} {:>7}", "", "per s", "ratio");
    for (what, rate) in [
        ("append 4 KiB + fdatasync, one thread", disk),
        ("submit (job, key index, event), durable", submits),
        ("claim 16 at once, then finish each, durable", finishes),
    ] {
        println!("{what:<44} {rate:>9.0} {:>7.2}", rate / disk);
    }
}

/// Appends and syncs for two seconds.
fn appends_per_second(folder: &Path) -> f64 {
    let mut file = File::create(folder.join("appends")).unwrap();
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < Duration::from_secs(2) {
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// How often `step` is done per second, with all producers at work.
async fn rate<R: Future<Output = ()> + Send + 'static>(
    store: Arc<dyn Store>,
    step: fn(Arc<dyn Store>) -> R,
) -> f64 {
    let (start, left) = (Instant::now(), Arc::new(AtomicUsize::new(JOBS)));
    let producers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let (store, left) = (Arc::clone(&store), Arc::clone(&left));
            tokio::spawn(async move {
                while left
                    .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    step(Arc::clone(&store)).await;
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    JOBS as f64 / start.elapsed().as_secs_f64()
}

async fn submit(store: Arc<dyn Store>) {
    let now = Clock::system().now();
    let job = NewJob {
        id: JobId::new(now, &entropy()),
        client: ClientId::dev(),
        input: Input {
            filename: Some("IMG_20261121_090000.jpg".to_owned()),
            format: Format::Jpeg,
            bytes: 3_753_621,
            width: 4032,
            height: 3024,
            sha256: [7; 32],
        },
        variants: Variant::defaults(),
        callback: Some(Callback {
            url: "https://hooks.example/darkroom/completed".parse().unwrap(),
            events: EventKind::TERMINAL.to_vec(),
            secret: None,
            latest: None,
        }),
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: Vec::new(),
        metadata: Some(r#"{"order":"A-10087","customer":{"id":4711}}"#.to_owned()),
    };
    store.submit(Submission { job, idempotency: None }, now).await.unwrap();
}

/// Takes all jobs and ends them; each end is an event and a delivery too.
async fn claim_and_finish(store: Arc<dyn Store>) -> f64 {
    let start = Instant::now();
    let worker = WorkerId::new(Clock::system().now(), &entropy());
    let workers: Vec<_> = (0..PRODUCERS)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                loop {
                    let now = Clock::system().now();
                    let jobs = store.claim_jobs(worker, CLAIM, Duration::from_secs(60), now).await.unwrap();
                    if jobs.is_empty() {
                        return;
                    }
                    for job in jobs {
                        store.finish_job(job.id, job.lease_token, Ending::Completed, now).await.unwrap();
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    JOBS as f64 / start.elapsed().as_secs_f64()
}
