//! How clients wait, poll and change: `Prefer`, `If-None-Match`, `If-Match`, `Retry-After`.

use darkroom::clock::Clock;
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::support::receiver::Receiver;
use crate::support::{App, bounded, eventually, form, picture, text};

/// Nothing is taken up until it is resumed.
async fn paused() -> App {
    let app = App::start().await;
    work(&app, "pause").await;
    app
}

async fn work(app: &App, what: &str) {
    let response = app.http.post(app.url(&format!("/v1/queue/{what}?what=work"))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

async fn ask(app: &App, method: Method, path: &str, headers: &[(&str, &str)]) -> Response {
    let request = app.http.request(method, app.url(path));
    headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)).send().await.unwrap()
}

async fn submitted(app: &App) -> (String, String) {
    let response = app.submit(picture::jpeg(40, 30), &[]).await;
    let etag = header(&response, "etag").to_owned();
    let job: Value = response.json().await.unwrap();
    (format!("/v1/jobs/{}", text(&job, "/id")), etag)
}

#[tokio::test]
async fn what_is_granted_of_a_preference_is_said() {
    let app = paused().await;
    for (prefer, applied) in [
        ("respond-async, wait=0", "respond-async, wait=0"),
        ("respond-async", "respond-async"),
        ("wait=0", "wait=0"),
        ("return=minimal", ""),
    ] {
        let request = app.http.post(app.url("/v1/jobs")).header("prefer", prefer);
        let response = request.multipart(form(picture::jpeg(20, 20), &[])).send().await.unwrap();
        assert_eq!(
            (response.status(), header(&response, "preference-applied")),
            (StatusCode::ACCEPTED, applied)
        );
        assert_eq!(header(&response, "vary"), "Prefer", "{prefer}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_long_poll_is_answered_by_the_first_change_or_the_end_of_its_time() {
    let app = paused().await;
    let (path, etag) = submitted(&app).await;
    let same = ask(&app, Method::GET, &path, &[("if-none-match", &etag), ("prefer", "wait=0")]).await;
    assert_eq!((same.status(), header(&same, "preference-applied")), (StatusCode::NOT_MODIFIED, "wait=0"));
    let told = (header(&same, "etag"), header(&same, "vary"), header(&same, "cache-control"));
    assert_eq!(told, (&*etag, "Prefer", "private, no-cache"));

    // Another revision than the client's is there already.
    let now = ask(&app, Method::GET, &path, &[("if-none-match", "\"x\""), ("prefer", "wait=60")]).await;
    assert_eq!((now.status(), header(&now, "preference-applied")), (StatusCode::OK, "wait=60"));

    let url = app.url(&path);
    let poll = app.http.get(url).header("if-none-match", &etag).header("prefer", "wait=60").send();
    let poll = tokio::spawn(poll);
    assert_eq!(ask(&app, Method::POST, &format!("{path}/cancel"), &[]).await.status(), StatusCode::ACCEPTED);
    let changed = bounded(poll).await.unwrap().unwrap();
    assert_eq!(changed.status(), StatusCode::OK);
    assert_ne!(header(&changed, "etag"), etag);
    assert_eq!(changed.json::<Value>().await.unwrap()["status"], "cancelled");
    app.stop().await;
}

#[tokio::test]
async fn a_poll_sees_what_no_event_tells() {
    // The receiver refuses: only the attempt changes the job, which no event tells.
    let app = App::with(&[("callbacks.retry_initial_ms", "3600000")], Clock::system()).await;
    let receiver = Receiver::start(&[500; 20]).await;
    work(&app, "pause").await;
    let job = app.accepted(picture::jpeg(20, 20), &[("callback_url", &receiver.url)]).await;
    let path = format!("/v1/jobs/{}", text(&job, "/id"));
    work(&app, "resume").await;
    let mut etag = String::new();
    let job = bounded(async {
        loop {
            let headers = [("if-none-match", &*etag), ("prefer", "wait=60")];
            let response = ask(&app, Method::GET, &path, &headers).await;
            assert_eq!(response.status(), StatusCode::OK, "it was woken by something");
            etag = header(&response, "etag").to_owned();
            let job: Value = response.json().await.unwrap();
            if job["callback"]["attempts"] == 1 {
                return job;
            }
        }
    })
    .await;
    assert_eq!(text(&job, "/callback/status"), "pending");
    app.stop().await;
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_not_changed_again() {
    let app = paused().await;
    let (path, etag) = submitted(&app).await;
    let other = submitted(&app).await.1;
    for (method, action) in [
        (Method::POST, "/cancel"),
        (Method::POST, "/retry"),
        (Method::POST, "/restore"),
        (Method::DELETE, ""),
    ] {
        for stale in ["\"nonsense\"", &other, &format!("W/{etag}"), "nonsense"] {
            let refused = ask(&app, method.clone(), &format!("{path}{action}"), &[("if-match", stale)]).await;
            assert_eq!(refused.status(), StatusCode::PRECONDITION_FAILED, "{method} {action} {stale}");
            assert_eq!(header(&refused, "etag"), etag);
            assert_eq!(refused.json::<Value>().await.unwrap()["code"], "precondition-failed");
        }
    }
    assert_eq!(app.get_json(&path).await["status"], "queued");
    let cancelled = ask(&app, Method::POST, &format!("{path}/cancel"), &[("if-match", &etag)]).await;
    assert_eq!(cancelled.status(), StatusCode::ACCEPTED);
    let after = header(&cancelled, "etag").to_owned();
    let late = ask(&app, Method::DELETE, &path, &[("if-match", &etag)]).await;
    assert_eq!((late.status(), header(&late, "etag")), (StatusCode::PRECONDITION_FAILED, &*after));
    let deleted = ask(&app, Method::DELETE, &path, &[("if-match", &format!("{etag}, {after}"))]).await;
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    assert_eq!(
        ask(&app, Method::POST, &format!("{path}/restore"), &[("if-match", "*")]).await.status(),
        StatusCode::OK
    );
    app.stop().await;
}

#[tokio::test]
async fn of_two_who_saw_the_same_one_changes_it() {
    let app = paused().await;
    let (path, etag) = submitted(&app).await;
    let cancel = format!("{path}/cancel");
    let condition = [("if-match", &*etag)];
    let (cancel, delete) = tokio::join!(
        ask(&app, Method::POST, &cancel, &condition),
        ask(&app, Method::DELETE, &path, &condition),
    );
    let refused =
        [&cancel, &delete].iter().filter(|it| it.status() == StatusCode::PRECONDITION_FAILED).count();
    assert_eq!(refused, 1, "{} {}", cancel.status(), delete.status());
    app.stop().await;
}

#[tokio::test]
async fn retry_after_grows_with_the_place_in_the_queue() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[("imaging.threads", "1"), ("queue.capacity", "5")], clock.clone()).await;
    let after = async |path: &str| header(&app.get(path).await, "retry-after").to_owned();
    work(&app, "pause").await;
    // Of the same millisecond, chance would decide who is first.
    let tick = || clock.set(clock.now().checked_add(jiff::SignedDuration::from_millis(1)).unwrap());
    let small = async || {
        tick();
        submitted(&app).await.0
    };
    let quick = [small().await, small().await];
    // Keeps the one thread busy until the end.
    let noise = picture::encode(&picture::noise(1600, 1500).into(), image::ImageFormat::Png);
    tick();
    let slow = format!("/v1/jobs/{}", text(&app.accepted(noise, &[]).await, "/id"));
    let waiting = [small().await, small().await];
    assert_eq!(after(&waiting[0]).await, "30", "while work is paused");
    let full = async || header(&app.submit(picture::jpeg(20, 20), &[]).await, "retry-after").to_owned();
    assert_eq!(full().await, "5", "before anything was measured");

    work(&app, "resume").await;
    for (job, status) in [(&quick[0], "completed"), (&quick[1], "completed"), (&slow, "processing")] {
        eventually(async || Some(app.get_json(job).await).filter(|job| job["status"] == status)).await;
    }
    let last = [small().await, small().await, small().await];
    clock.set(clock.now().checked_add(jiff::SignedDuration::from_millis(6900)).unwrap());
    // Nothing has ended for that long.
    assert_eq!((after(&waiting[0]).await, after(&waiting[1]).await), ("7".to_owned(), "14".to_owned()));
    assert_eq!((after(&last[2]).await, full().await), ("35".to_owned(), "7".to_owned()));
    assert_eq!((after(&slow).await, after(&quick[0]).await), ("1".to_owned(), String::new()));
    app.stop().await;
}
