//! The bound of the queue: refused before the body is read.

use darkroom::clock::Clock;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{App, bounded, picture};

/// What comes first when a client announces a large picture and waits for `100 Continue`.
async fn answer_to_expect(app: &App) -> String {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 5000000\r\n\
                Expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = vec![0; 4096];
    let n = bounded(stream.read(&mut buffer)).await.unwrap();
    String::from_utf8_lossy(&buffer[..n]).into_owned()
}

#[tokio::test]
async fn a_full_queue_refuses_before_the_upload_and_takes_again_when_there_is_room() {
    // The clock stands before the jobs' due time only for the worker: nothing is claimed while imaging is busy,
    // so the queue is filled by uploads that hold their slots.
    let app = App::with(&[("queue.capacity", "2")], Clock::system()).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 50\r\n\
                    Expect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut buffer = [0; 64];
        let n = bounded(stream.read(&mut buffer)).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 100"), "the slot is held once the body is asked for");
        held.push(stream);
    }

    let refused = app.submit(picture::jpeg(20, 20), &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "queue-full");
    let never_uploads = answer_to_expect(&app).await;
    assert!(never_uploads.starts_with("HTTP/1.1 503"), "{never_uploads}");

    // An upload that is given up gives its slot back, and its file goes.
    held.clear();
    crate::support::eventually(async || {
        let response = app.submit(picture::jpeg(20, 20), &[]).await;
        (response.status() == StatusCode::ACCEPTED).then_some(())
    })
    .await;
    crate::support::eventually(async || {
        app.files().iter().all(|file| !file.contains("uploads")).then_some(())
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn what_the_headers_tell_is_refused_before_the_upload_too() {
    let app = App::with(&[("server.max_upload_bytes", "1000")], Clock::system()).await;
    let refused = answer_to_expect(&app).await;
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    app.stop().await;
}
