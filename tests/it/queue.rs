//! The bounds of the queue and of the uploads under way: refused before the body is read.

use darkroom::clock::Clock;
use reqwest::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{App, announce, answer, eventually, picture};

/// What comes first when a client announces a large picture and waits for `100 Continue`.
async fn answer_to_expect(app: &App) -> String {
    answer(&mut announce(app, "image/jpeg", "Content-Length: 5000000\r\nExpect: 100-continue\r\n").await)
        .await
}

/// An upload that is under way for as long as the connection is open.
async fn hold_upload(app: &App) -> TcpStream {
    let mut stream = announce(app, "image/jpeg", "Content-Length: 50\r\nExpect: 100-continue\r\n").await;
    let answer = answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 100"), "the slot is held once the body is asked for: {answer}");
    stream
}

async fn refused_with(app: &App, code: &str) {
    let refused = app.submit(picture::jpeg(20, 20), &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["code"], code);
    let never_uploads = answer_to_expect(app).await;
    assert!(never_uploads.starts_with("HTTP/1.1 503"), "{never_uploads}");
}

/// What was given up frees its place, and leaves no file.
async fn recovers(app: &App) {
    eventually(async || {
        let response = app.submit(picture::jpeg(20, 20), &[]).await;
        (response.status() == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    eventually(async || app.files().iter().all(|file| !file.contains("uploads")).then_some(())).await;
}

#[tokio::test]
async fn a_full_queue_refuses_before_the_upload_and_takes_again_when_there_is_room() {
    let app = App::with(&[("queue.capacity", "2")], Clock::system()).await;
    let held = [hold_upload(&app).await, hold_upload(&app).await];
    refused_with(&app, "queue-full").await;
    drop(held);
    recovers(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn uploads_under_way_have_a_bound_of_their_own() {
    let app = App::with(&[("server.max_uploads", "1")], Clock::system()).await;
    let held = hold_upload(&app).await;
    refused_with(&app, "too-many-uploads").await;
    drop(held);
    recovers(&app).await;
    app.stop().await;
}

#[tokio::test]
async fn a_trickle_is_cut_off_although_it_never_stands_still_for_long() {
    let flags = [
        ("server.min_upload_bytes_per_second", "1000000"),
        ("server.upload_grace_ms", "1"),
        ("server.body_idle_timeout_ms", "600000"),
    ];
    let app = App::with(&flags, Clock::system()).await;
    let part = "--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\nabc";
    for (media_type, begin) in [("image/jpeg", "abc"), ("multipart/form-data; boundary=X", part)] {
        let mut stream = announce(&app, media_type, "Content-Length: 5000\r\n").await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        let answer = answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{media_type}: {answer}");
    }
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn what_the_headers_tell_is_refused_before_the_upload_too() {
    let app = App::with(&[("server.max_upload_bytes", "1000")], Clock::system()).await;
    let refused = answer_to_expect(&app).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    app.stop().await;
}
