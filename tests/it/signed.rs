//! Links to pictures for those who have no API key.

use darkroom::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::links::World;
use crate::support::receiver::Receiver;
use crate::support::{picture, text};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn start() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

async fn sign(world: &World, job: &Value, body: Value) -> Response {
    world.client.post(text(job, "/_links/links/href")).json(&body).send().await.unwrap()
}

async fn signed(world: &World, job: &Value, body: Value) -> Value {
    let response = sign(world, job, body).await;
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

async fn fetch(world: &World, url: &str) -> Response {
    world.anonymous.get(url).send().await.unwrap()
}

async fn refused(world: &World, url: &str) -> (u16, String) {
    let response = fetch(world, url).await;
    let status = response.status().as_u16();
    (status, text(&response.json().await.unwrap(), "/code").to_owned())
}

#[tokio::test]
async fn whoever_has_the_link_has_the_picture_until_its_time_is_up() {
    let clock = Clock::manual(start());
    let world = World::start(&[], clock.clone()).await;
    let job = world.completed().await;
    let bare = text(&job, "/artifacts/0/url");
    assert_eq!(refused(&world, bare).await, (401, "unauthenticated".to_owned()));

    let links = signed(&world, &job, json!({"expires_in_ms": 60_000})).await;
    assert_eq!(text(&links, "/expires_at"), "2026-11-21T09:01:00.000Z");
    let all = links["artifacts"].as_array().unwrap();
    assert_eq!(all.len(), 1 + job["artifacts"].as_array().unwrap().len());
    for picture in all {
        let url = text(picture, "/url");
        let whole = fetch(&world, url).await;
        assert_eq!(whole.status(), StatusCode::OK, "{url}");
        assert_eq!(whole.headers()["cache-control"], "private, max-age=60, immutable");
        let etag = whole.headers()["etag"].to_str().unwrap().to_owned();
        assert_eq!(whole.headers()["content-type"], text(picture, "/media_type"));
        let whole = whole.bytes().await.unwrap();
        let part = world.anonymous.get(url).header("range", "bytes=0-9").send().await.unwrap();
        assert_eq!(
            (part.status(), part.bytes().await.unwrap()),
            (StatusCode::PARTIAL_CONTENT, whole.slice(..10))
        );
        let same = world.anonymous.get(url).header("if-none-match", etag).send().await.unwrap();
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(world.anonymous.head(url).send().await.unwrap().status(), StatusCode::OK);
    }
    let url = text(&links, "/artifacts/0/url");
    clock.set(start() + SignedDuration::from_millis(59_999));
    assert_eq!(fetch(&world, url).await.status(), StatusCode::OK);
    clock.set(start() + SignedDuration::from_secs(60));
    assert_eq!(refused(&world, url).await, (410, "link-expired".to_owned()));
}

#[tokio::test]
async fn a_link_that_was_changed_is_none() {
    let world = World::start(&[], Clock::manual(start())).await;
    let (job, other) = (world.completed().await, world.completed().await);
    let links = signed(&world, &job, json!({"artifacts": ["thumbnail"]})).await;
    assert_eq!(links["artifacts"].as_array().unwrap().len(), 1);
    let url = text(&links, "/artifacts/0/url");
    let (path, query) = url.split_once('?').unwrap();
    let (expires, signature) = query.split_once('&').unwrap();
    let later = format!("expires={}", 1 + expires.strip_prefix("expires=").unwrap().parse::<u64>().unwrap());
    let swapped = if signature.ends_with('A') { "B" } else { "A" };
    for changed in [
        url.replace("thumbnail", "preview"),
        url.replace(text(&job, "/id"), text(&other, "/id")),
        format!("{path}?{later}&{signature}"),
        format!("{path}?{expires}"),
        format!("{path}?{signature}"),
        format!("{path}?{expires}&signature="),
        format!("{path}?{expires}&{}{swapped}{swapped}", &signature[..signature.len() - 2]),
    ] {
        assert_eq!(refused(&world, &changed).await, (403, "link-invalid".to_owned()), "{changed}");
    }
    assert_eq!(refused(&world, &format!("{path}?colour=red")).await.0, 400);
    assert_eq!(fetch(&world, url).await.status(), StatusCode::OK);
    for (body, status) in [
        (json!({"expires_in_ms": 999}), 422),
        (json!({"expires_in_ms": 7 * DAY_MS + 1}), 422),
        (json!({"artifacts": ["huge"]}), 422),
        (json!({"expires": 1}), 400),
    ] {
        assert_eq!(sign(&world, &job, body.clone()).await.status().as_u16(), status, "{body}");
    }
    let path = text(&job, "/_links/links/href");
    assert_eq!(world.stranger.post(path).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(world.anonymous.post(path).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn links_outlive_a_restart_and_end_with_their_job() {
    let world = World::start(&[], Clock::system()).await;
    let job = world.completed().await;
    let links = signed(&world, &job, json!({"expires_in_ms": 7 * DAY_MS})).await;
    let path = text(&links, "/artifacts/0/url").strip_prefix(world.running.base_url()).unwrap().to_owned();
    let world = world.restarted().await;
    let url = format!("{}{path}", world.running.base_url());
    assert_eq!(fetch(&world, &url).await.status(), StatusCode::OK);
    let href = format!("{}/v1/jobs/{}", world.running.base_url(), text(&job, "/id"));
    assert_eq!(world.client.delete(&href).send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(refused(&world, &url).await, (410, "link-expired".to_owned()));
}

#[tokio::test]
async fn a_receiver_follows_the_links_of_its_callback_without_a_key() {
    let world = World::start(&[("callbacks.retry_initial_ms", "1")], Clock::system()).await;
    let receiver = Receiver::start(&[500]).await;
    world.submitted(picture::jpeg(60, 40), &[("callback_url", &receiver.url)]).await;
    let first = receiver.nth(1).await;
    assert_eq!(receiver.nth(2).await.body, first.body, "each attempt says the same");
    let event = first.json();
    let mut urls = vec![text(&event, "/data/_links/original/href")];
    for artifact in event["data"]["artifacts"].as_array().unwrap() {
        urls.push(text(artifact, "/url"));
        urls.push(text(&event["data"]["_links"][text(artifact, "/name")], "/href"));
    }
    assert_eq!(urls.len(), 7);
    for url in urls {
        assert_eq!(fetch(&world, url).await.status(), StatusCode::OK, "{url}");
    }
    // Who reads the feed has a key.
    let feed = world.client.get(format!("{}/v1/events", world.running.base_url())).send().await.unwrap();
    assert!(!feed.text().await.unwrap().contains("signature="));

    let world = World::start(&[("callbacks.artifact_links_ms", "0")], Clock::system()).await;
    let receiver = Receiver::start(&[]).await;
    world.submitted(picture::jpeg(60, 40), &[("callback_url", &receiver.url)]).await;
    let bare = receiver.nth(1).await.json();
    assert_eq!(refused(&world, text(&bare, "/data/artifacts/0/url")).await.0, 401);
}
