//! What is told of requests: the log's lines, the metrics, and the trace that callbacks go on with.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use darkroom::clock::Clock;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{App, eventually, form, picture, raw, text};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What a server logs of some requests, line by line.
async fn logged(access: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.env("DARKROOM_LOG__FILTER", "info").env("DARKROOM_LOG__FORMAT", "json");
    command.env("DARKROOM_LOG__ACCESS", access).stderr(Stdio::piped());
    let mut server = Server::from(command, folder.path());
    let stderr = server.stderr();
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map(Result::unwrap) {
            kept.lock().unwrap().push_str(&(line + "\n"));
        }
    });
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("{}{path}", server.url);
    let found = http.get(url("/v1/jobs?limit=2&tag=hunter2")).header("x-request-id", "found");
    let found = found.header("traceparent", PARENT).send().await.unwrap().text().await.unwrap();
    let missing = url("/v1/jobs/hunter2/artifacts/hunter2?token=hunter2");
    let missing = http.get(missing).header("x-request-id", "missing");
    assert_eq!(missing.header("traceparent", "00-hunter2").send().await.unwrap().status(), 400);
    http.get(url("/hunter2")).header("x-request-id", "nowhere").send().await.unwrap();

    // One that does not wait for its answer: its job is there, and has not ended.
    let soon = Clock::system().now() + jiff::SignedDuration::from_hours(1);
    let mut gone = TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/jobs?start_at={soon} HTTP/1.1\nContent-Type: image/jpeg\nX-Request-Id: gone\nPrefer: wait=60"
    );
    raw::send(&mut gone, &head, &picture::jpeg(20, 20)).await;
    eventually(async || {
        let jobs: Value = http.get(url("/v1/jobs")).send().await.unwrap().json().await.unwrap();
        (!jobs["items"].as_array().unwrap().is_empty()).then_some(())
    })
    .await;
    drop(gone);
    if access == "true" {
        // It has hung up when that is told.
        eventually(async || log.lock().unwrap().contains("\"gone\"").then_some(())).await;
    }
    assert!(tokio::task::spawn_blocking(|| server.stop()).await.unwrap().success());
    tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
    let log = std::mem::take(&mut *log.lock().unwrap());
    assert!(!log.contains("hunter2"), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let lines = lines.into_iter().map(|mut line| line["fields"].take());
    let lines: Vec<_> = lines.filter(|line| line["message"] == "request").collect();
    if let Some(line) = lines.iter().find(|line| line["request_id"] == "found") {
        assert_eq!(line["bytes"], found.len());
    }
    lines
}

#[tokio::test]
async fn each_request_has_a_line_without_what_may_be_secret() {
    let lines = logged("true").await;
    let line = |id: &str| {
        let mut lines = lines.iter().filter(|line| line["request_id"] == id);
        let line = lines.next().unwrap_or_else(|| panic!("no line of {id} in {lines:?}"));
        assert!(lines.next().is_none(), "one line");
        assert!(
            line["ms"].as_f64().unwrap() >= 0.0 && text(line, "/peer").starts_with("127.0.0.1:"),
            "{line}"
        );
        line
    };
    let found = line("found");
    assert_eq!(
        (&found["method"], &found["route"], &found["status"]),
        (&"GET".into(), &"/v1/jobs".into(), &200.into())
    );
    assert_eq!(found["trace_id"], TRACE);
    let missing = line("missing");
    assert_eq!(missing["route"], "/v1/jobs/{id}/artifacts/{name}");
    assert_eq!((&missing["status"], &missing["trace_id"]), (&400.into(), &Value::Null));
    assert_eq!((&line("nowhere")["route"], &line("nowhere")["status"]), (&"none".into(), &404.into()));
    let gone = line("gone");
    assert_eq!(
        (&gone["route"], &gone["status"], &gone["bytes"]),
        (&"/v1/jobs".into(), &Value::Null, &0.into())
    );
}

#[tokio::test]
async fn the_lines_can_be_left_out() {
    assert_eq!(logged("false").await, [Value::Null; 0]);
}

#[tokio::test]
async fn answers_are_measured_by_route_method_and_status() {
    let app = App::start().await;
    app.get("/v1/jobs/one").await;
    app.get("/v1/jobs/two").await;
    let strange = app.http.request("BREW".parse().unwrap(), app.url("/v1/jobs/one"));
    assert_eq!(strange.send().await.unwrap().status(), 405);
    let metrics = app.get("/metrics").await.text().await.unwrap();
    for series in [
        r#"darkroom_http_request_seconds_bucket{route="/v1/jobs/{id}",method="GET",status="404",le="30"}"#,
        r#"darkroom_http_request_seconds_count{route="/v1/jobs/{id}",method="other",status="405"}"#,
    ] {
        assert!(metrics.contains(series), "{metrics}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_trace_goes_on_with_each_attempt_of_the_callbacks() {
    let receiver = Receiver::start(&[500]).await;
    let flags = [("callbacks.retry_initial_ms", "10")];
    let app = App::with(&flags, Clock::system()).await;
    let submit = async |parent: &str, key: &str| {
        let fields = [("callback_url", receiver.url.as_str())];
        let request = app.http.post(app.url("/v1/jobs")).multipart(form(picture::jpeg(20, 20), &fields));
        request.header("traceparent", parent).header("idempotency-key", key).send().await.unwrap()
    };
    assert_eq!(submit(PARENT, "a").await.status(), 202);
    let attempts = [receiver.nth(1).await, receiver.nth(2).await];
    let [first, second] = [0, 1].map(|n: usize| attempts[n].header("traceparent"));
    for parent in [first, second] {
        assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"), "{parent}");
    }
    assert!(first != second && first != PARENT && second != PARENT, "each is a step of its own");

    // It is no part of what is asked for: repeated within another trace, the request is the same.
    let again = submit(&PARENT.replace("4bf9", "5bf9"), "a").await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    // What is no trace starts none.
    assert_eq!(submit("00-nonsense", "b").await.status(), 202);
    let untraced = receiver.nth(3).await;
    assert!(!untraced.headers.contains_key("traceparent"), "{:?}", untraced.headers);
    app.stop().await;
}

#[tokio::test]
async fn the_root_says_where_the_description_is() {
    let app = App::start().await;
    let root = app.get("/").await;
    let expected = format!("<{}>; rel=\"service-desc\"", app.url("/openapi.json"));
    assert_eq!(root.headers()["link"], expected);
    let timing = root.headers()["server-timing"].to_str().unwrap();
    let millis = root.headers()["x-response-time-ms"].to_str().unwrap();
    assert_eq!(timing, format!("total;dur={millis}"));
    app.stop().await;
}
