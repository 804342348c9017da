//! What was acknowledged survives SIGKILL: 200 jobs, ten kills at random moments, and then the books must balance.
//!
//! The server is the real binary in a process of its own. A receiver here notes every callback. At the end:
//! each accepted job is completed, each has at least one callback, no `webhook-id` stands for two
//! different bodies, and no job has two terminal events.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde_json::Value;

use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{eventually, picture};

const JOBS: usize = 200;
const KILLS: usize = 10;

/// A number below `bound`, from the operating system.
fn random_below(bound: u64) -> u64 {
    u64::from_le_bytes(darkroom::clock::entropy()) % bound
}

async fn submit(http: Client, url: String, picture: Vec<u8>) -> Option<String> {
    let response = http.post(url).header("content-type", "image/jpeg").body(picture).send().await.ok()?;
    if response.status() != StatusCode::ACCEPTED {
        return None;
    }
    // The answer may be cut off behind its head: then the job is accepted, but we do not know which.
    let job: Value = response.json().await.ok()?;
    Some(job["id"].as_str()?.to_owned())
}

async fn page(http: &Client, url: &str) -> Value {
    http.get(url).send().await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_and_tell_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let http = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
    let mut server = Server::start(folder.path());
    let mut accepted = HashSet::new();

    for round in 0..=KILLS {
        let wanted = JOBS * (round + 1) / (KILLS + 1);
        // The kill falls somewhere within the submissions of this round.
        let kill_at =
            accepted.len() + usize::try_from(random_below((wanted - accepted.len()) as u64)).unwrap();
        let mut killed = round == KILLS;
        while accepted.len() < wanted {
            let picture = picture::jpeg(120 + u32::try_from(accepted.len()).unwrap(), 90);
            // The callback's URL needs no escaping within a query.
            let url = format!("{}/v1/jobs?callback_url={}", server.url, receiver.url);
            let request = tokio::spawn(submit(http.clone(), url, picture));
            if !killed && accepted.len() >= kill_at {
                killed = true;
                // While this very request is under way, at a moment that nobody chose.
                tokio::time::sleep(Duration::from_micros(random_below(30_000))).await;
                server.kill();
                accepted.extend(request.await.unwrap());
                server = Server::start(folder.path());
            } else {
                accepted.extend(request.await.unwrap());
            }
        }
    }

    // Jobs that were accepted by an answer we did not get may be there too.
    let mut known = HashMap::new();
    let mut next = Some(format!("{}/v1/jobs?limit=200", server.url));
    while let Some(url) = next {
        let list = page(&http, &url).await;
        for job in list["items"].as_array().unwrap() {
            known.insert(
                job["id"].as_str().unwrap().to_owned(),
                job["_links"]["self"]["href"].as_str().unwrap().to_owned(),
            );
        }
        next = list.pointer("/_links/next/href").and_then(Value::as_str).map(str::to_owned);
    }
    let lost: Vec<_> = accepted.iter().filter(|id| !known.contains_key(*id)).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");

    for (id, href) in &known {
        let job = eventually(async || {
            Some(page(&http, href).await).filter(|job| job["callback"]["status"] == "delivered")
        })
        .await;
        assert_eq!(job["status"], "completed", "{job}");
        assert_eq!(job["artifacts"].as_array().unwrap().len(), 3, "{id}");
    }

    let mut bodies: HashMap<String, bytes::Bytes> = HashMap::new();
    let mut told: HashMap<String, HashSet<String>> = HashMap::new();
    for callback in receiver.all() {
        let id = callback.header("webhook-id").to_owned();
        let event = callback.json();
        told.entry(event["subject"].as_str().unwrap().to_owned()).or_default().insert(id.clone());
        let body = bodies.entry(id.clone()).or_insert_with(|| callback.body.clone());
        assert_eq!(*body, callback.body, "{id} stands for two bodies");
    }
    for id in known.keys() {
        assert_eq!(told.get(id).map(HashSet::len), Some(1), "{id}: one terminal event, told at least once");
    }
    println!(
        "{} accepted, {} known, {KILLS} kills, {} callbacks for {} events",
        accepted.len(),
        known.len(),
        receiver.all().len(),
        bodies.len()
    );

    let mut terminal: HashMap<String, usize> = HashMap::new();
    let mut seqs = Vec::new();
    let mut url = format!("{}/v1/events?limit=200", server.url);
    loop {
        let feed = page(&http, &url).await;
        let items = feed["items"].as_array().unwrap();
        if items.is_empty() {
            break;
        }
        for event in items {
            seqs.push(event["seq"].as_u64().unwrap());
            if matches!(event["type"].as_str().unwrap(), "job.completed" | "job.failed") {
                *terminal.entry(event["subject"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
        url = feed["_links"]["next"]["href"].as_str().unwrap().to_owned();
    }
    assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "seq increases");
    assert!(known.keys().all(|id| terminal.get(id) == Some(&1)), "one terminal event for each job");
}
