//! Looking at jobs: one, a page, their links.

use std::collections::HashSet;

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::receiver::Receiver;
use crate::support::{App, eventually, picture, text};

/// Follows every link that says GET and is no template, from `value` on, each once.
async fn walk(app: &App, value: Value, seen: &mut HashSet<String>) {
    let mut found = Vec::new();
    collect_links(&value, &mut found);
    for href in found {
        if !seen.insert(href.clone()) {
            continue;
        }
        let response = app.http.get(&href).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "GET {href}");
        let is_json = response.headers()["content-type"] == "application/json";
        if is_json {
            Box::pin(walk(app, response.json().await.unwrap(), seen)).await;
        }
    }
}

fn collect_links(value: &Value, found: &mut Vec<String>) {
    if let Some(links) = value.get("_links").and_then(Value::as_object) {
        for (rel, link) in links {
            assert_eq!(link["rel"], rel.as_str());
            if link["method"] == "GET" && link["templated"] != true {
                found.push(text(link, "/href").to_owned());
            }
        }
    }
    for item in value.get("items").and_then(Value::as_array).into_iter().flatten() {
        collect_links(item, found);
    }
}

#[tokio::test]
async fn every_link_leads_somewhere() {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    let job = app.accepted(picture::jpeg(60, 40), &[("callback_url", &receiver.url)]).await;
    app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;
    app.accepted(picture::jpeg(30, 20), &[]).await;
    let mut seen = HashSet::new();
    walk(&app, app.get_json("/").await, &mut seen).await;
    for part in [
        "/artifacts/thumbnail",
        "/artifacts/original",
        "/deliveries",
        "/attempts",
        "/v1/events",
        "/health/ready",
    ] {
        assert!(seen.iter().any(|href| href.contains(part)), "no link to {part}");
    }
    app.stop().await;
}

#[tokio::test]
async fn pages_hold_every_job_once_newest_first() {
    let app = App::start().await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        let job = app.accepted(picture::jpeg(20, 20), &[]).await;
        ids.push(text(&job, "/id").to_owned());
        app.finished(ids.last().unwrap()).await;
    }
    let mut listed = Vec::new();
    let mut next = Some(app.url("/v1/jobs?limit=3&status=completed"));
    while let Some(href) = next {
        let page: Value = app.http.get(href).send().await.unwrap().json().await.unwrap();
        assert!(page["items"].as_array().unwrap().len() <= 3);
        listed.extend(page["items"].as_array().unwrap().iter().map(|job| text(job, "/id").to_owned()));
        assert_eq!(page["page"]["has_more"].as_bool().unwrap(), page["_links"].get("next").is_some());
        next = page.pointer("/_links/next/href").and_then(Value::as_str).map(str::to_owned);
    }
    let mut sorted = listed.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(listed, sorted);
    assert_eq!(listed.iter().collect::<HashSet<_>>(), ids.iter().collect::<HashSet<_>>());
    let failed = app.get_json("/v1/jobs?status=failed").await;
    assert!(failed["items"].as_array().unwrap().is_empty());
    app.stop().await;
}

#[tokio::test]
async fn the_event_log_tells_each_jobs_story_once() {
    let app = App::start().await;
    let job = app.accepted(picture::jpeg(20, 20), &[]).await;
    app.finished(text(&job, "/id")).await;
    // The feed tells what is synced, which may be a moment later than what the job shows.
    let feed = eventually(async || {
        Some(app.get_json("/v1/events").await).filter(|feed| feed["items"].as_array().unwrap().len() >= 3)
    })
    .await;
    let kinds: Vec<_> = feed["items"].as_array().unwrap().iter().map(|event| text(event, "/type")).collect();
    assert_eq!(kinds, ["job.queued", "job.started", "job.completed"]);
    let rest = app.get_json("/v1/events?after=2").await;
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(rest["items"][0]["seq"], 3);
    app.stop().await;
}
