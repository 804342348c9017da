//! Whether the service answers while all cores decode.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::Value;

use crate::Bench;
use crate::figures::percentile;

const DURING: Duration = Duration::from_secs(20);
const PER_SECOND: u32 = 20;
/// Jobs that are not done at any time: both cores are at work, and as many wait.
const JOBS: usize = 4;
/// What an answer may take for 99 of 100, in milliseconds.
const MOST: f64 = 50.0;

pub(crate) fn measure(bench: &Bench) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("\n## Latency\n");
        println!(
            "`GET /v1/jobs/{{id}}`, {PER_SECOND} a second for {DURING:?}, from when it was due to the whole answer; the \
             service in a process of its own, as it is by default. p99 at most {MOST} ms.\n"
        );
        println!("| meanwhile | jobs/s | p50 ms | p99 ms | most | |\n|---|---|---|---|---|---|");
        for jobs in [0, JOBS] {
            let server = Server::start(&bench.folder.path().join(format!("server-{jobs}")));
            let (mut times, done) = under_load(bench, &server, jobs).await;
            let [p50, p99, most] = [50, 99, 100].map(|percent| percentile(&mut times, percent));
            let what = if jobs == 0 { "nothing".to_owned() } else { format!("{jobs} full jobs, always") };
            let mark = if p99 > MOST { "**too slow**" } else { "" };
            let rate = done as f64 / DURING.as_secs_f64();
            println!("| {what} | {rate:.1} | {p50:.2} | {p99:.2} | {most:.2} | {mark} |");
        }
    });
}

/// Milliseconds of each answer, and the jobs that came to their end.
async fn under_load(bench: &Bench, server: &Server, jobs: usize) -> (Vec<f64>, usize) {
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(120)).build().unwrap();
    let photos: Arc<Vec<Vec<u8>>> =
        Arc::new(bench.photos.iter().map(|photo| std::fs::read(&photo.path).unwrap()).collect());
    let first = submit(&http, &server.url, photos[0].clone()).await;
    finished(&http, &first).await;
    let latest = Arc::new(Mutex::new(first));
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..jobs)
        .map(|client| {
            let (http, url, photos) = (http.clone(), server.url.clone(), Arc::clone(&photos));
            let (latest, over, done) = (Arc::clone(&latest), Arc::clone(&over), Arc::clone(&done));
            tokio::spawn(async move {
                let mut number = client;
                while !over.load(Ordering::Relaxed) {
                    let job = submit(&http, &url, photos[number % photos.len()].clone()).await;
                    latest.lock().unwrap().clone_from(&job);
                    finished(&http, &job).await;
                    if !over.load(Ordering::Relaxed) {
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    number += 1;
                }
            })
        })
        .collect();
    let times = answers(&http, &latest).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    (times, done.load(Ordering::Relaxed))
}

/// Each asked when it is due, however long those before it take.
async fn answers(http: &Client, latest: &Mutex<String>) -> Vec<f64> {
    let start = tokio::time::Instant::now();
    let asked: Vec<_> = (1..=PER_SECOND * u32::try_from(DURING.as_secs()).unwrap())
        .map(|number| start + Duration::from_secs(1) / PER_SECOND * number)
        .collect();
    let mut under_way = Vec::new();
    for due in asked {
        tokio::time::sleep_until(due).await;
        let request = http.get(latest.lock().unwrap().as_str());
        under_way.push(tokio::spawn(async move {
            let response = request.send().await.unwrap();
            assert!(response.status().is_success(), "{}", response.status());
            response.bytes().await.unwrap();
            due.elapsed().as_secs_f64() * 1000.0
        }));
    }
    let mut times = Vec::new();
    for answer in under_way {
        times.push(answer.await.unwrap());
    }
    times
}

/// The job's URL.
async fn submit(http: &Client, url: &str, photo: Vec<u8>) -> String {
    let request = http.post(format!("{url}/v1/jobs")).header("content-type", "image/jpeg").body(photo);
    let response = request.send().await.unwrap();
    let location = response.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
    let body = response.text().await.unwrap();
    let location = location.unwrap_or_else(|| panic!("not accepted: {body}"));
    if location.starts_with('/') { format!("{url}{location}") } else { location }
}

async fn finished(http: &Client, job: &str) {
    let start = Instant::now();
    loop {
        let response = http.get(job).header("prefer", "wait=30").send().await.unwrap();
        let job: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        match job["status"].as_str() {
            Some("completed") => return,
            Some("queued" | "processing") => {}
            _ => panic!("{job}"),
        }
        assert!(start.elapsed() < Duration::from_secs(300), "{job}");
    }
}

/// The service as users start it.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_darkroom"))
            .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .env("DARKROOM_LOG__FILTER", "warn")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("said {line:?}"));
        Self { url: url.to_owned(), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
