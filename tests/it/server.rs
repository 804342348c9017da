//! The server itself: headers on every answer, slow clients, HEAD and OPTIONS, readiness.

use std::time::Duration;

use darkroom::clock::Clock;
use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::bad_input::assert_both_headers;
use crate::support::raw;
use crate::support::{App, bounded, picture, text};

#[tokio::test]
async fn every_answer_has_its_time_and_its_id() {
    let app = App::start().await;
    let job = app.accepted(picture::jpeg(20, 20), &[]).await;
    let thumbnail = format!("/v1/jobs/{}/artifacts/original", text(&job, "/id"));
    for (method, path) in [
        (Method::GET, "/"),
        (Method::GET, "/health/live"),
        (Method::GET, "/health/ready"),
        (Method::GET, "/nothing"),
        (Method::PATCH, "/v1/jobs"),
        (Method::OPTIONS, "/v1/jobs"),
        (Method::HEAD, "/v1/jobs"),
        (Method::GET, "/problems/validation"),
        (Method::GET, &thumbnail),
    ] {
        let response = app.http.request(method, app.url(path)).send().await.unwrap();
        assert_both_headers(response.headers());
    }
    let own = app.http.get(app.url("/")).header("x-request-id", "trace-1").send().await.unwrap();
    assert_eq!(own.headers()["x-request-id"], "trace-1");
    app.stop().await;
}

#[tokio::test]
async fn each_kind_of_answer_has_both_headers_on_the_wire() {
    let app = App::start().await;
    let picture = picture::jpeg(20, 20);
    let ask = async |head: &str, body: &[u8], status: u16| {
        let answer = raw::exchange(&app.address(), head, body).await;
        assert_eq!(answer.status, status, "{head}");
        assert_both_headers(&answer.headers);
        answer
    };
    let accepted = ask("POST /v1/jobs HTTP/1.1\nContent-Type: image/jpeg", &picture, 202).await;
    let job: serde_json::Value = serde_json::from_slice(&accepted.body).unwrap();
    let job = format!("/v1/jobs/{}", text(&job, "/id"));
    let original = format!("GET {job}/artifacts/original HTTP/1.1");
    let etag = ask(&original, b"", 200).await.headers["etag"].to_str().unwrap().to_owned();
    assert_eq!(ask(&format!("{original}\nRange: bytes=0-9"), b"", 206).await.body.len(), 10);
    assert_eq!(ask(&format!("{original}\nIf-None-Match: {etag}"), b"", 304).await.body, b"");
    assert_eq!(ask(&format!("HEAD {job} HTTP/1.1"), b"", 200).await.body, b"");
    assert_eq!(ask(&format!("HEAD {job}/nothing HTTP/1.1"), b"", 404).await.body, b"");
    ask(&format!("OPTIONS {job} HTTP/1.1"), b"", 204).await;
    ask(&format!("DELETE {job} HTTP/1.1"), b"", 204).await;
    app.stop().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let app = App::start().await;
    // From the socket: a client's library expects no body, and would hide one.
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = "HEAD /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    bounded(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n"), "{answer}");
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1, "");
    let options = app.http.request(Method::OPTIONS, app.url("/v1/jobs")).send().await.unwrap();
    assert_eq!(
        (options.status().as_u16(), &options.headers()["allow"]),
        (204, &"GET, POST, HEAD, OPTIONS".parse().unwrap())
    );
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_header_is_cut_off() {
    let app = App::with(&[("server.header_timeout_ms", "200")], Clock::system()).await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n").await.unwrap();
    let mut rest = Vec::new();
    // Ends when the server closes the connection.
    let _ = bounded(stream.read_to_end(&mut rest)).await;
    app.stop().await;
}

#[tokio::test]
async fn an_upload_that_stands_still_is_cut_off_and_leaves_nothing() {
    let app = App::with(&[("server.body_idle_timeout_ms", "200")], Clock::system()).await;
    for (media_type, begin) in [
        ("image/jpeg", ""),
        (
            "multipart/form-data; boundary=X",
            "--X\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nabc",
        ),
    ] {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        let head = format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {media_type}\r\nContent-Length: 9000\r\n\r\n{begin}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let n = bounded(stream.read(&mut answer)).await.unwrap();
        assert!(answer[..n].starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer[..n]));
    }
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn a_request_under_way_is_answered_while_the_server_stops() {
    let app = App::start().await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let picture = picture::jpeg(20, 20);
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        picture.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&picture[..10]).await.unwrap();
    // The slot is held once the request is being served.
    crate::support::eventually(async || {
        app.files().iter().any(|file| file.contains("uploads")).then_some(())
    })
    .await;
    let stopping = tokio::spawn(app.stop());
    stream.write_all(&picture[10..]).await.unwrap();
    let mut answer = Vec::new();
    bounded(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer));
    bounded(stopping).await.unwrap();
}

#[tokio::test]
async fn a_client_that_hangs_on_does_not_hold_up_the_stop_beyond_its_deadline() {
    let app = App::with(&[("server.drain_timeout_ms", "300")], Clock::system()).await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 9000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    crate::support::eventually(async || {
        app.files().iter().any(|file| file.contains("uploads")).then_some(())
    })
    .await;
    // Far less than the body's own time-out of 30 s; the bound is for a busy machine.
    let folder =
        tokio::time::timeout(Duration::from_secs(20), app.stop()).await.expect("stopped by its deadline");
    // Its request did not run on behind the server's back: what it had received is gone with it.
    assert_eq!(std::fs::read_dir(folder.path().join("uploads")).unwrap().count(), 0);
}
