//! Many callbacks on their way when the service is killed.
//!
//! `DARKROOM_TEST_WAITING=10000 cargo test --release --test it killed -- --nocapture` tells how long it took.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use darkroom::clock::Stopwatch;
use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{eventually, form, picture, text};

const WAITING: usize = 1000;
/// What one destination may have in flight, by default.
const IN_FLIGHT: usize = 64;

async fn serve(folder: &Path) -> Server {
    let folder = folder.to_owned();
    let start = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        command.env("DARKROOM_QUEUE__CAPACITY", "1000000");
        Server::from(command, &folder)
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

async fn post(http: &Client, url: &str) {
    assert!(http.post(url).send().await.unwrap().status().is_success(), "{url}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_loses_nothing_and_doubles_only_what_was_in_flight() {
    let waiting = std::env::var("DARKROOM_TEST_WAITING").map_or(WAITING, |count| count.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let receiver = Arc::new(Receiver::start(&[]).await);
    let http = Client::builder().no_proxy().build().unwrap();
    let server = serve(folder.path()).await;
    // The destination is held until all of them wait.
    post(&http, &format!("{}/v1/queue/pause?what=work", server.url)).await;
    let submit = async || {
        let fields = [("callback_url", &*receiver.url), ("callback_events", "queued")];
        let form = form(picture::jpeg(8, 6), &fields);
        let request = http.post(format!("{}/v1/jobs", server.url)).multipart(form);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    };
    submit().await;
    let read = async |url: String| http.get(url).send().await.unwrap().json::<Value>().await.unwrap();
    let destinations = read(format!("{}/v1/destinations", server.url)).await;
    let path = format!("/v1/destinations/{}", text(&destinations, "/items/0/id"));
    post(&http, &format!("{}{path}/pause", server.url)).await;
    futures_util::future::join_all((0..16).map(|task| async move {
        for _ in (1 + task..waiting).step_by(16) {
            submit().await;
        }
    }))
    .await;

    post(&http, &format!("{}{path}/resume", server.url)).await;
    let watch = Stopwatch::start();
    eventually(async || (receiver.count() >= waiting / 3).then_some(())).await;
    server.kill();
    let (before, killed) = (receiver.count(), watch.elapsed());
    let server = serve(folder.path()).await;
    let started = watch.elapsed();
    let ledger = format!("{}/v1/ledger?recount=true", server.url);
    eventually(async || {
        let now = read(ledger.replace("?recount=true", "")).await;
        (now["waiting"] == 0).then_some(())
    })
    .await;
    let ended = watch.elapsed();

    let mut came = BTreeMap::<_, usize>::new();
    for callback in receiver.all() {
        *came.entry(callback.header("webhook-id").to_owned()).or_default() += 1;
    }
    let doubled: usize = came.values().map(|times| times - 1).sum();
    let rate = before as f64 / killed.as_secs_f64();
    let without = (waiting - before) as f64 / rate;
    println!(
        "{waiting} waiting, killed after {before}: {} lost, {doubled} doubled; restart {:.2} s, the rest {:.2} s, at the rate of before {without:.2} s",
        waiting - came.len(),
        (started - killed).as_secs_f64(),
        (ended - started).as_secs_f64(),
    );
    assert_eq!(came.len(), waiting, "nothing is lost");
    assert!(doubled <= IN_FLIGHT, "{doubled} were doubled");
    let ledger = read(ledger).await;
    assert_eq!((&ledger["delivered"], &ledger["balanced"]), (&waiting.into(), &true.into()), "{ledger}");
    assert_eq!(ledger["recount"]["faults"], serde_json::json!([]));
}
