//! Pictures that are fetched: from sources that are well, and from sources that mean no good.

use std::path::Path;
use std::process::Command;

use darkroom::clock::Clock;
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

use crate::cli::{run, stderr, stdout};
use crate::support::origin::{Answer, Origin};
use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{App, BOUND, eventually, picture, text};

/// A day: whatever ends before it was not ended by it.
const LONG_MS: &str = "86400000";

async fn post(app: &App, body: &Value) -> Response {
    app.http.post(app.url("/v1/jobs")).json(body).send().await.unwrap()
}

async fn accepted(app: &App, body: Value) -> Value {
    let response = post(app, &body).await;
    let (status, body) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Whose callbacks may be on this machine, and whose sources may not.
async fn without_loopback(lines: &str) -> App {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("darkroom.toml");
    let config = format!("[source]\nallow_networks = [\"198.51.100.7/32\"]\n{lines}");
    std::fs::write(&file, config).unwrap();
    App::start_with_file(&file).await
}

async fn refused(response: Response, code: &str) -> Value {
    let status = response.status();
    let problem: Value = response.json().await.unwrap();
    assert_eq!((status, &problem["code"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!(code)), "{problem}");
    problem
}

fn faults(problem: &Value) -> Vec<(&str, &str)> {
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|error| (text(error, "/field"), text(error, "/code"))).collect()
}

#[tokio::test]
async fn a_picture_is_fetched_and_made_of_like_any_other() {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    let bytes = picture::jpeg(400, 300);
    let origin = Origin::start(vec![Answer::picture(&bytes)]).await;
    let body = json!({
        "source_url": origin.url("/cats/my%20cat.jpg?signature=s3cr3t#top"),
        "callback_url": receiver.url, "tags": ["a", "b"], "metadata": {"order": 7}, "priority": "high",
        "variants": [{"name": "small", "width": 40}],
    });
    let job = accepted(&app, body).await;
    let source = origin.url("/cats/my%20cat.jpg");
    assert_eq!(job["input"], json!({"filename": "my cat.jpg", "source_url": source}));
    assert!(job["_links"].get("original").is_none(), "{job}");

    let told = receiver.nth(1).await.json();
    assert_eq!(text(&told, "/type"), "job.completed");
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    let input = &job["input"];
    assert_eq!((&input["source_url"], &input["bytes"]), (&json!(source), &json!(bytes.len())));
    assert_eq!((&input["width"], &input["media_type"]), (&json!(400), &json!("image/jpeg")));
    assert_eq!((&job["tags"], &job["metadata"]), (&json!(["a", "b"]), &json!({"order": 7})));
    let original = app.http.get(text(&job, "/_links/original/href")).send().await.unwrap();
    assert_eq!(original.bytes().await.unwrap(), bytes);

    let requests = origin.requests();
    assert_eq!(requests.len(), 1);
    let head = requests[0].to_ascii_lowercase();
    assert!(head.starts_with("get /cats/my%20cat.jpg?signature=s3cr3t http/1.1\r\n"), "{head}");
    assert!(head.contains("accept-encoding: identity\r\n"), "{head}");

    // The query is nowhere to be seen, and not on disk as it is.
    let id = text(&job, "/id").to_owned();
    let mut seen = told.to_string();
    for path in [format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/events"), "/v1/jobs".to_owned()] {
        seen += &app.get(&path).await.text().await.unwrap();
    }
    assert!(!seen.contains("s3cr3t") && seen.contains("my%20cat.jpg"), "{seen}");
    assert!(!holds(&app.stop().await.path().join("store"), b"s3cr3t"));
}

fn holds(folder: &Path, secret: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() {
            return holds(&path, secret);
        }
        std::fs::read(path).unwrap().windows(secret.len()).any(|part| part == secret)
    })
}

#[tokio::test]
async fn all_that_is_wrong_with_a_request_is_named_at_once_and_nothing_is_asked() {
    let app = App::start().await;
    let problem = refused(post(&app, &json!({})).await, "validation").await;
    assert_eq!(faults(&problem), [("source_url", "required")]);
    let body = json!({
        "source_url": 7, "deadline_ms": "5000", "colour": "red", "priority": "urgent",
        "callback_events": ["exploded"], "callback_url": "http://10.0.0.1/", "metadata": [1],
        "variants": [{"name": "a", "width": 0}], "image": "x",
    });
    let problem = refused(post(&app, &body).await, "validation").await;
    let mut named = faults(&problem);
    named.sort_unstable();
    let expected = [
        ("callback_events", "unknown_event"),
        ("colour", "unknown"),
        ("deadline_ms", "not_a_number"),
        ("image", "unknown"),
        ("metadata", "not_an_object"),
        ("priority", "unknown"),
        ("source_url", "not_a_string"),
        ("variants[0].width", "out_of_range"),
    ];
    assert_eq!(named, expected, "{problem}");

    let origin = Origin::start(vec![Answer::nothing()]).await;
    let callback = json!({"source_url": origin.url("/a.jpg"), "callback_url": "http://10.0.0.1/"});
    refused(post(&app, &callback).await, "callback-url-rejected").await;
    for (body, status, code) in [
        ("[]".to_owned(), 400, "malformed-json"),
        ("{".to_owned(), 400, "malformed-json"),
        (format!("{{\"metadata\":{{\"a\":\"{}\"}}}}", "x".repeat(70_000)), 413, "payload-too-large"),
    ] {
        let request = app.http.post(app.url("/v1/jobs")).header("content-type", "application/json");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.json::<Value>().await.unwrap()["code"], code);
    }
    let form = app.submit(picture::jpeg(8, 8), &[("source_url", "https://a.example/")]).await;
    assert_eq!(faults(&refused(form, "validation").await), [("source_url", "not_with_image")]);
    assert_eq!(origin.requests().len(), 0);
    assert_eq!(app.get_json("/v1/jobs").await["items"], json!([]));
    app.stop().await;
}

#[tokio::test]
async fn a_source_that_may_not_be_read_is_refused_although_callbacks_may_go_there() {
    let app = without_loopback("").await;
    // Where its callback arrives, nothing is read.
    let receiver = Receiver::start(&[]).await;
    app.accepted(picture::jpeg(8, 8), &[("callback_url", &receiver.url)]).await;
    receiver.nth(1).await;
    for (url, reason) in [
        ("http://127.0.0.1/a.jpg", "loopback"),
        ("http://2130706433/", "loopback"),
        ("http://0x7f.1/", "loopback"),
        ("http://0177.0.0.1/", "loopback"),
        ("http://[::1]/", "loopback"),
        ("http://[::ffff:10.0.0.1]/", "embedded_ipv4"),
        ("http://10.0.0.1/", "private"),
        ("http://169.254.169.254/latest/meta-data", "metadata"),
        ("http://user:hunter2@a.example/", "userinfo"),
        ("ftp://a.example/a.jpg", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("a.jpg", "syntax"),
    ] {
        let problem = refused(post(&app, &json!({"source_url": url})).await, "source-url-rejected").await;
        assert_eq!(problem["reason"], reason, "{url}");
        assert!(!problem.to_string().contains("hunter2"));
    }
    // What a name leads to is known when it is looked up.
    let origin = Origin::start(vec![Answer::picture(&picture::jpeg(8, 8))]).await;
    let url = origin.url("/a.jpg").replace("127.0.0.1", "localhost");
    let job = accepted(&app, json!({"source_url": url})).await;
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((text(&job, "/error/code"), &job["attempt"]), ("source-blocked", &json!(1)), "{job}");
    assert_eq!(origin.requests().len(), 0);
    app.stop().await;

    let app = without_loopback("enabled = false\n").await;
    let problem = refused(post(&app, &json!({"source_url": "http://a.example/"})).await, "validation").await;
    assert_eq!(faults(&problem), [("source_url", "disabled")]);
    app.stop().await;
}

fn head(headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn each_way_to_fail_has_its_code() {
    const LIMIT: usize = 100_000;
    let limit = LIMIT.to_string();
    let flags = [
        ("server.max_upload_bytes", &*limit),
        ("source.timeout_ms", "1500"),
        ("source.max_tries", "1"),
        ("imaging.max_pixels", "100000"),
    ];
    let app = App::with(&flags, Clock::system()).await;
    let receiver = Receiver::start(&[]).await;
    let jpeg = picture::jpeg(300, 200);
    let cut = [head("Content-Length: 9999\r\n"), jpeg[..100].to_vec()].concat();
    let cut_chunk = [head("Transfer-Encoding: chunked\r\n"), b"fff\r\nabc".to_vec()].concat();
    let redirect = "Location: http://169.254.169.254/latest/meta-data\r\n";
    let large = head(&format!("Content-Length: {}\r\n", LIMIT + 1));
    // Of its own picture this claims the length of another.
    let longer = [head("Content-Length: 100\r\n"), jpeg.clone()].concat();
    let cases = [
        ("source-redirected", false, Answer::whole("302 Found", redirect, b"")),
        ("source-refused", false, Answer::whole("404 Not Found", "", b"gone")),
        ("source-refused", false, Answer::whole("206 Partial Content", "", &jpeg)),
        ("source-unavailable", true, Answer::whole("503 Service Unavailable", "", b"")),
        ("source-unavailable", true, Answer::whole("429 Too Many Requests", "Retry-After: 9\r\n", b"")),
        ("source-encoded", false, Answer::whole("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b\x08")),
        ("source-too-large", false, Answer::Silence(large)),
        ("source-too-large", false, Answer::Endless(head("Connection: close\r\n"))),
        ("source-timeout", true, Answer::nothing()),
        ("source-timeout", true, Answer::Drip(head("Connection: close\r\n"))),
        ("source-interrupted", true, Answer::Bytes(cut)),
        ("source-interrupted", true, Answer::Bytes(cut_chunk)),
        ("source-unreachable", true, Answer::Bytes(b"SSH-2.0-x\r\n".to_vec())),
        ("unsupported-media-type", false, Answer::picture(b"<html>this is no picture</html>")),
        ("validation", false, Answer::picture(b"")),
        ("image-undecodable", false, Answer::Bytes(longer)),
        ("image-too-large", false, Answer::picture(&picture::jpeg(500, 300))),
    ];
    for (n, (code, retryable, answer)) in cases.into_iter().enumerate() {
        let origin = Origin::start(vec![answer]).await;
        let body = json!({"source_url": origin.url("/a.jpg?s3cr3t"), "callback_url": receiver.url});
        let job = accepted(&app, body).await;
        let job = app.finished(text(&job, "/id")).await;
        assert_eq!((&job["status"], text(&job, "/error/code")), (&json!("failed"), code), "case {n}: {job}");
        assert_eq!(job["error"]["retryable"], retryable, "{job}");
        assert!(!job.to_string().contains("s3cr3t"), "{job}");
        // It is told as every other failure.
        let told = receiver.nth(n + 1).await.json();
        assert_eq!((text(&told, "/type"), text(&told, "/data/error/code")), ("job.failed", code));
        origin.left(1).await;
        assert_eq!(origin.requests().len(), 1, "{code}");
        let original = app.get(&format!("/v1/jobs/{}/artifacts/original", text(&job, "/id"))).await;
        assert_eq!(original.status(), StatusCode::NOT_FOUND);
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let job = accepted(&app, json!({"source_url": format!("http://127.0.0.1:{port}/")})).await;
    assert_eq!(text(&app.finished(text(&job, "/id")).await, "/error/code"), "source-unreachable");
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn what_fails_for_now_is_tried_again_and_what_is_here_is_not_fetched_again() {
    let flags = [
        ("source.max_tries", "3"),
        ("source.retry_initial_ms", "1"),
        ("queue.max_tries", "1"),
        ("imaging.max_time_ms", "1"),
    ];
    let app = App::with(&flags, Clock::system()).await;
    let unavailable = || Answer::whole("503 Service Unavailable", "", b"");
    let large = Answer::picture(&picture::jpeg(2000, 1500));
    let origin = Origin::start(vec![unavailable(), unavailable(), large]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    let job = app.finished(text(&job, "/id")).await;
    // What came with the last try to fetch it has its own tries.
    assert_eq!((text(&job, "/error/code"), &job["attempt"]), ("processing-timeout", &json!(1)), "{job}");
    let retry = app.http.post(text(&job, "/_links/retry/href")).send().await.unwrap();
    assert_eq!(retry.status(), StatusCode::ACCEPTED);
    app.job_when(text(&job, "/id"), |job| !job["finished_at"].is_null()).await;
    assert_eq!(origin.requests().len(), 3);

    // One that was never fetched is, with another go.
    let gone = Answer::whole("410 Gone", "", b"");
    let origin = Origin::start(vec![gone, Answer::picture(&picture::jpeg(8, 8))]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!(text(&job, "/error/code"), "source-refused");
    app.http.post(text(&job, "/_links/retry/href")).send().await.unwrap();
    app.job_when(text(&job, "/id"), |job| job["input"]["bytes"].is_u64()).await;
    assert_eq!(origin.requests().len(), 2);
    app.stop().await;
}

#[tokio::test]
async fn one_that_does_not_begin_is_not_waited_for_as_long_as_one_that_is_slow() {
    let flags =
        [("source.first_byte_timeout_ms", "300"), ("source.timeout_ms", LONG_MS), ("source.max_tries", "1")];
    let app = App::with(&flags, Clock::system()).await;
    let origin = Origin::start(vec![Answer::nothing()]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    assert_eq!(text(&app.finished(text(&job, "/id")).await, "/error/code"), "source-timeout");
    app.stop().await;
}

#[tokio::test]
async fn a_signed_url_may_be_long() {
    let app = App::start().await;
    let origin = Origin::start(vec![Answer::picture(&picture::jpeg(8, 8))]).await;
    let url = |length| origin.url(&format!("/a.jpg?token={}", "x".repeat(length)));
    let job = accepted(&app, json!({"source_url": url(8100)})).await;
    assert_eq!(app.finished(text(&job, "/id")).await["status"], "completed");
    let problem = refused(post(&app, &json!({"source_url": url(8200)})).await, "source-url-rejected").await;
    assert_eq!(problem["reason"], "too_long");
    app.stop().await;
}

#[tokio::test]
async fn what_there_is_no_room_for_is_not_begun() {
    let flags = [("server.max_upload_bytes", "1099511627776"), ("source.timeout_ms", LONG_MS)];
    let app = App::with(&flags, Clock::system()).await;
    if fs4::available_space(app.folder.path()).unwrap() > 1 << 40 {
        return;
    }
    // Whether the source says how much it will be or not.
    for headers in ["Content-Length: 1099511627776\r\n", "Transfer-Encoding: chunked\r\n"] {
        let origin = Origin::start(vec![Answer::Silence(head(headers))]).await;
        let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
        let waiting = app.job_when(text(&job, "/id"), |job| job["start_at"].is_string()).await;
        assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("queued"), &json!(0)), "{waiting}");
        origin.left(1).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a_source_is_left_alone_for_as_long_as_it_says() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[], clock.clone()).await;
    let busy = Answer::whole("503 Service Unavailable", "Retry-After: 120\r\n", b"");
    let origin = Origin::start(vec![busy, Answer::picture(&picture::jpeg(8, 8))]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    let waiting = app.job_when(text(&job, "/id"), |job| !job["start_at"].is_null()).await;
    assert_eq!(text(&waiting, "/error/code"), "source-unavailable");
    let due: jiff::Timestamp = text(&waiting, "/start_at").parse().unwrap();
    assert_eq!(due.duration_since(clock.now()).as_secs(), 120);
    // By its other jobs, too: one that came later for another source is done, and this is not begun.
    let held = accepted(&app, json!({"source_url": origin.url("/b.jpg")})).await;
    let other = Origin::start(vec![Answer::picture(&picture::jpeg(8, 8))]).await;
    let done = accepted(&app, json!({"source_url": other.url("/c.jpg")})).await;
    assert_eq!(app.finished(text(&done, "/id")).await["status"], "completed");
    let held = app.get_json(&format!("/v1/jobs/{}", text(&held, "/id"))).await;
    assert_eq!((&held["status"], &held["attempt"]), (&json!("queued"), &json!(0)), "{held}");
    clock.set(due);
    for job in [job, held] {
        assert_eq!(app.finished(text(&job, "/id")).await["status"], "completed");
    }
    app.stop().await;
}

#[tokio::test]
async fn sources_that_hang_hold_up_no_picture_that_is_here_nor_another_source() {
    let app = App::with(
        &[("source.timeout_ms", LONG_MS), ("source.first_byte_timeout_ms", LONG_MS)],
        Clock::system(),
    )
    .await;
    let silent = Origin::start(vec![Answer::nothing()]).await;
    for n in 0..20 {
        accepted(&app, json!({"source_url": silent.url(&format!("/{n}.jpg"))})).await;
    }
    // As many as one source may have, of the 16 places that there are.
    silent.asked(8).await;
    let here = app.accepted(picture::jpeg(40, 30), &[]).await;
    assert_eq!(app.finished(text(&here, "/id")).await["status"], "completed");
    let well = Origin::start(vec![Answer::picture(&picture::jpeg(40, 30))]).await;
    let fetched = accepted(&app, json!({"source_url": well.url("/a.jpg")})).await;
    assert_eq!(app.finished(text(&fetched, "/id")).await["status"], "completed");
    assert_eq!(silent.requests().len(), 8);

    // Two that hang take all the places; a third source waits, and pictures that are here do not.
    let second = Origin::start(vec![Answer::nothing()]).await;
    for n in 0..9 {
        accepted(&app, json!({"source_url": second.url(&format!("/{n}.jpg"))})).await;
    }
    second.asked(8).await;
    let here = app.accepted(picture::jpeg(40, 30), &[]).await;
    assert_eq!(app.finished(text(&here, "/id")).await["status"], "completed");
    let processing = app.get_json("/v1/jobs?status=processing&limit=100").await;
    assert_eq!(processing["items"].as_array().unwrap().len(), 16);
    assert_eq!(processing["items"][0]["progress"], json!({"percent": 0, "stage": "fetch"}));
    app.stop().await;
}

#[tokio::test]
async fn sources_that_hang_keep_nobody_from_uploading() {
    let flags = [
        ("source.timeout_ms", LONG_MS),
        ("source.first_byte_timeout_ms", LONG_MS),
        ("source.concurrency", "2"),
        ("source.per_origin", "1"),
        ("source.capacity", "3"),
        ("queue.capacity", "1"),
    ];
    let app = App::with(&flags, Clock::system()).await;
    let silent = Origin::start(vec![Answer::nothing()]).await;
    let body = |n: u8| json!({"source_url": silent.url(&format!("/{n}.jpg"))});
    accepted(&app, body(0)).await;
    silent.asked(1).await;
    // One of these is due later, and counts as well.
    let later = Clock::system().now() + jiff::SignedDuration::from_hours(1);
    let mut scheduled = body(1);
    scheduled["start_at"] = json!(later.to_string());
    accepted(&app, scheduled).await;
    for n in 2..4 {
        accepted(&app, body(n)).await;
    }
    let response = post(&app, &body(4)).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.unwrap();
    assert_eq!(text(&problem, "/code"), "queue-full");
    let queue = app.get_json("/v1/queue").await;
    assert_eq!((&queue["waiting"], &queue["fetches"]["waiting"]), (&json!(0), &json!(3)), "{queue}");
    let here = app.accepted(picture::jpeg(8, 8), &[]).await;
    assert_eq!(app.finished(text(&here, "/id")).await["status"], "completed");

    // Nor do uploads that wait keep a source out.
    app.http.post(app.url("/v1/queue/pause?what=work")).send().await.unwrap();
    app.accepted(picture::jpeg(8, 8), &[]).await;
    let refused = app.submit(picture::jpeg(8, 8), &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    let waiting = app.get_json("/v1/jobs?status=queued").await;
    let of_source = |job: &&Value| job["input"]["source_url"].is_string();
    let one = waiting["items"].as_array().unwrap().iter().find(of_source).unwrap();
    app.http.post(app.url(&format!("/v1/jobs/{}/cancel", text(one, "/id")))).send().await.unwrap();
    accepted(&app, body(5)).await;
    app.stop().await;
}

#[tokio::test]
async fn calling_it_off_and_its_deadline_end_a_fetch_at_once() {
    // No heartbeat notices it in time.
    let flags = [
        ("source.timeout_ms", LONG_MS),
        ("source.first_byte_timeout_ms", LONG_MS),
        ("queue.heartbeat_ms", "40000000"),
        ("queue.lease_ms", LONG_MS),
    ];
    let app = App::with(&flags, Clock::system()).await;
    for first in [Answer::nothing(), Answer::Drip(head("Connection: close\r\n"))] {
        let origin = Origin::start(vec![first]).await;
        let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
        origin.asked(1).await;
        let cancel = app.http.post(text(&job, "/_links/cancel/href")).send().await.unwrap();
        assert_eq!(cancel.status(), StatusCode::ACCEPTED);
        assert_eq!(app.finished(text(&job, "/id")).await["status"], "cancelled");
        origin.left(1).await;

        let job = accepted(&app, json!({"source_url": origin.url("/a.jpg"), "deadline_ms": 1000})).await;
        let job = app.finished(text(&job, "/id")).await;
        assert_eq!(text(&job, "/error/code"), "deadline-exceeded");
        origin.left(2).await;
    }
    eventually(async || app.files().is_empty().then_some(())).await;
    app.stop().await;
}

#[tokio::test]
async fn a_shutdown_gives_it_back_and_the_next_process_fetches_it() {
    let flags = [("source.timeout_ms", LONG_MS), ("source.first_byte_timeout_ms", LONG_MS)];
    let app = App::with(&flags, Clock::system()).await;
    let origin = Origin::start(vec![Answer::nothing(), Answer::picture(&picture::jpeg(40, 30))]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    origin.asked(1).await;
    let app = App::on(app.stop().await, &flags, Clock::system()).await;
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    app.stop().await;
}

#[tokio::test]
async fn a_source_has_ten_minutes_to_be_well_again() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[], clock.clone()).await;
    let origin = Origin::start(vec![Answer::whole("503 Service Unavailable", "", b"")]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    let (id, began) = (text(&job, "/id").to_owned(), clock.now());
    for tried in 1..8 {
        let waits = |job: &Value| job["attempt"] == tried && !job["start_at"].is_null();
        let waiting = app.job_when(&id, waits).await;
        clock.set(text(&waiting, "/start_at").parse().unwrap());
    }
    let job = app.finished(&id).await;
    assert_eq!((text(&job, "/error/code"), &job["attempt"]), ("source-unavailable", &json!(8)), "{job}");
    let took = clock.now().duration_since(began).as_secs();
    assert!((620..690).contains(&took), "{took} s");
    app.stop().await;
}

#[tokio::test]
async fn what_lies_on_the_way_to_the_source_costs_no_try_for_a_day() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let unpaid = || Answer::whole("407 Proxy Authentication Required", "", b"");
    let proxy =
        Origin::start(vec![unpaid(), unpaid(), Answer::picture(&picture::jpeg(8, 8)), unpaid()]).await;
    let flags = [("callbacks.egress_proxy", &*proxy.url), ("source.max_tries", "1")];
    let app = App::with(&flags, clock.clone()).await;
    let body = json!({"source_url": "http://127.0.0.1:9/a.jpg"});
    let job = accepted(&app, body.clone()).await;
    for _ in 0..2 {
        let now = clock.now();
        let starts = |job: &Value| text(job, "/start_at").parse::<jiff::Timestamp>().unwrap();
        let waits = |job: &Value| job["start_at"].is_string() && starts(job) > now;
        let waiting = app.job_when(text(&job, "/id"), waits).await;
        assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("queued"), &json!(0)), "{waiting}");
        clock.set(starts(&waiting));
    }
    assert_eq!(app.finished(text(&job, "/id")).await["status"], "completed");

    let job = accepted(&app, body).await;
    app.job_when(text(&job, "/id"), |job| job["start_at"].is_string()).await;
    clock.set(clock.now() + jiff::SignedDuration::from_hours(24));
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((text(&job, "/error/code"), &job["attempt"]), ("source-unreachable", &json!(1)), "{job}");
    assert_eq!(proxy.requests().len(), 5);
    app.stop().await;

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    let flags = [("callbacks.egress_proxy", &*closed), ("source.max_tries", "1")];
    let app = App::with(&flags, Clock::system()).await;
    let job = accepted(&app, json!({"source_url": "http://127.0.0.1:9/a.jpg"})).await;
    let waiting = app.job_when(text(&job, "/id"), |job| job["start_at"].is_string()).await;
    assert_eq!((&waiting["status"], &waiting["attempt"]), (&json!("queued"), &json!(0)), "{waiting}");
    app.stop().await;
}

#[tokio::test]
async fn one_that_ends_its_worker_fails_and_is_not_shown_as_under_way() {
    let origin = Origin::start(vec![Answer::nothing()]).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = async || {
        let folder = folder.path().to_owned();
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        command.env("DARKROOM_SOURCE__MAX_TRIES", "1");
        tokio::task::spawn_blocking(move || Server::from(command, &folder)).await.unwrap()
    };
    let server = serve().await;
    let http = Client::builder().no_proxy().timeout(BOUND).build().unwrap();
    let body = json!({"source_url": origin.url("/a.jpg")});
    let job = http.post(format!("{}/v1/jobs", server.url)).json(&body).send().await.unwrap();
    let job: Value = job.json().await.unwrap();
    origin.asked(1).await;
    server.kill();
    let server = serve().await;
    let url = format!("{}/v1/jobs/{}", server.url, text(&job, "/id"));
    let job = eventually(async || {
        let job: Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        (!job["finished_at"].is_null()).then_some(job)
    })
    .await;
    assert_eq!(text(&job, "/error/code"), "worker-lost");
    assert_eq!(text(&job, "/error/detail"), "the worker died during the last of 1 tries");
    assert_eq!(job["progress"], json!({"percent": 0, "stage": null}));
    assert!(server.stop().success());
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_fetch_loses_nothing() {
    let half = [head("Content-Length: 100000\r\n"), vec![0xff; 300]].concat();
    let origin = Origin::start(vec![Answer::Silence(half), Answer::picture(&picture::jpeg(40, 30))]).await;
    let folder = tempfile::tempdir().unwrap();
    let serve = async || {
        let folder = folder.path().to_owned();
        let start = move || Server::from(Command::new(env!("CARGO_BIN_EXE_darkroom")), &folder);
        tokio::task::spawn_blocking(start).await.unwrap()
    };
    let server = serve().await;
    let http = Client::builder().no_proxy().timeout(BOUND).build().unwrap();
    let body = json!({"source_url": origin.url("/a.jpg")});
    let job = http.post(format!("{}/v1/jobs", server.url)).json(&body).send().await.unwrap();
    let job: Value = job.json().await.unwrap();
    origin.asked(1).await;
    server.kill();
    let server = serve().await;
    let url = format!("{}/v1/jobs/{}", server.url, text(&job, "/id"));
    let job = eventually(async || {
        let job: Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        (!job["finished_at"].is_null()).then_some(job)
    })
    .await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    assert_eq!(origin.requests().len(), 2);
    let ledger = http.get(format!("{}/v1/ledger?recount=true", server.url)).send().await.unwrap();
    assert_eq!(ledger.json::<Value>().await.unwrap()["recount"]["faults"], json!([]));
    assert!(server.stop().success());
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_repeated_request_finds_its_job() {
    let app = App::start().await;
    let origin = Origin::start(vec![Answer::picture(&picture::jpeg(8, 8))]).await;
    let submit = async |path: &str, tag: &str| {
        let body = json!({"source_url": origin.url(path), "tags": [tag]});
        let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", "k");
        request.json(&body).send().await.unwrap()
    };
    let first: Value = submit("/a.jpg?v=1", "a").await.json().await.unwrap();
    app.finished(text(&first, "/id")).await;
    let again = submit("/a.jpg?v=1", "a").await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let again: Value = again.json().await.unwrap();
    assert_eq!((&again["id"], &again["status"]), (&first["id"], &json!("completed")));
    for (path, tag) in [("/a.jpg?v=2", "a"), ("/a.jpg?v=1", "b")] {
        refused(submit(path, tag).await, "idempotency-key-reused").await;
    }
    let key = app.http.post(app.url("/v1/jobs")).header("idempotency-key", "k");
    let form = crate::support::form(picture::jpeg(8, 8), &[("tags", "a")]);
    refused(key.multipart(form).send().await.unwrap(), "idempotency-key-reused").await;
    assert_eq!(origin.requests().len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn pictures_come_through_the_proxy_that_callbacks_leave_by() {
    let proxy = Origin::start(vec![Answer::picture(&picture::jpeg(8, 8))]).await;
    let app = App::with(&[("callbacks.egress_proxy", &*proxy.url)], Clock::system()).await;
    let origin = Origin::start(vec![Answer::nothing()]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg")})).await;
    assert_eq!(app.finished(text(&job, "/id")).await["status"], "completed");
    assert!(proxy.requests()[0].starts_with(&format!("GET {} HTTP", origin.url("/a.jpg"))));
    assert_eq!(origin.requests().len(), 0);
    app.stop().await;
}

#[tokio::test]
async fn the_command_line_names_a_source() {
    let app = App::start().await;
    let origin = Origin::start(vec![Answer::picture(&picture::jpeg(60, 40))]).await;
    let url = origin.url("/a.jpg?s3cr3t");
    let args =
        ["submit", "--source-url", &url, "--tag", "x,y", "--metadata", "{\"a\":1}", "--wait", "--json"];
    let output = run(&args, app.running.base_url()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let job: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((&job["status"], &job["tags"]), (&json!("completed"), &json!(["x", "y"])));
    let shown = stdout(&run(&["jobs", "get", text(&job, "/id")], app.running.base_url()).await);
    assert!(
        shown.contains("a.jpg, image/jpeg, 60 x 40") && shown.contains("from http://127.0.0.1"),
        "{shown}"
    );
    let hanging = Origin::start(vec![Answer::nothing()]).await;
    let output = run(&["submit", "--source-url", &hanging.url("/b.jpg")], app.running.base_url()).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let shown = stdout(&run(&["jobs", "list"], app.running.base_url()).await);
    assert!(shown.contains("b.jpg") && !shown.contains("0 x 0"), "{shown}");
    app.stop().await;
}

#[tokio::test]
async fn what_is_still_to_be_fetched_is_in_a_backup() {
    let app = App::start().await;
    let pause = app.http.post(app.url("/v1/queue/pause?what=work")).send().await.unwrap();
    assert!(pause.status().is_success());
    let origin = Origin::start(vec![Answer::picture(&picture::jpeg(60, 40))]).await;
    let job = accepted(&app, json!({"source_url": origin.url("/a.jpg?s3cr3t")})).await;
    let backup = app.get("/v1/backup").await.bytes().await.unwrap();
    assert!(!backup.windows(6).any(|part| part == b"s3cr3t"));
    let file = app.folder.path().join("backup.tar");
    std::fs::write(&file, &backup).unwrap();
    let copy = tempfile::tempdir().unwrap();
    let (file, folder) = (file.display().to_string(), copy.path().join("data").display().to_string());
    let output = run(&["import", &file, "--data-dir", &folder], "").await;
    assert!(output.status.success(), "{}", stderr(&output));
    let copied = tempfile::tempdir().unwrap();
    std::fs::remove_dir(copied.path()).unwrap();
    std::fs::rename(&folder, copied.path()).unwrap();
    let copied = App::on(copied, &[], Clock::system()).await;
    let resume = copied.http.post(copied.url("/v1/queue/resume?what=work")).send().await.unwrap();
    assert!(resume.status().is_success());
    assert_eq!(copied.finished(text(&job, "/id")).await["status"], "completed");
    copied.stop().await;
    app.stop().await;
}
