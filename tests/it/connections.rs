//! Connections that clients keep without using them: none of them holds its place.

use h2::client::{Builder, SendRequest};
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{App, bounded, eventually, picture, text};

/// One connection at a time, so that a second one is served when the first has been let go.
const ONE: (&str, &str) = ("server.max_connections", "1");
const SHORT_HEADER: (&str, &str) = ("server.header_timeout_ms", "200");
const SHORT_WRITE: (&str, &str) = ("server.write_timeout_ms", "200");

async fn until_closed(stream: &mut TcpStream) {
    // A reset is a close too.
    let _ = bounded(stream.read_to_end(&mut Vec::new())).await;
}

/// A picture of 7 MiB: more than the sockets of a connection hold.
async fn large_artifact(app: &App) -> String {
    let picture = picture::encode(&picture::noise(1600, 1500).into(), image::ImageFormat::Png);
    let job = app.accepted(picture, &[]).await;
    assert!(job["input"]["bytes"].as_u64().unwrap() > 6_000_000, "{job}");
    format!("/v1/jobs/{}/artifacts/original", text(&job, "/id"))
}

/// An HTTP/2 client; the task ends with the connection, and answers pings until then.
async fn http2(app: &App, builder: &mut Builder) -> (SendRequest<bytes::Bytes>, JoinHandle<()>) {
    let stream = TcpStream::connect(app.address()).await.unwrap();
    let (client, connection) = bounded(builder.handshake(stream)).await.unwrap();
    (client, tokio::spawn(async move { drop(connection.await) }))
}

#[tokio::test]
async fn a_connection_that_never_asks_for_anything_is_closed() {
    let app = App::with_fresh_connections(&[SHORT_HEADER]).await;
    for begin in
        ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "G", "GET / HTTP/1.1\r\nHost: localhost\r\n"]
    {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        stream.write_all(begin.as_bytes()).await.unwrap();
        until_closed(&mut stream).await;
    }
    app.stop().await;
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_more_is_closed() {
    let app = App::with_fresh_connections(&[SHORT_HEADER]).await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    until_closed(&mut stream).await;

    let (mut client, connection) = http2(&app, &mut Builder::new()).await;
    let request = Request::get(app.url("/")).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    assert_eq!(bounded(answer).await.unwrap().status(), 200);
    bounded(connection).await.unwrap();
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_cut_off() {
    let app = App::with_fresh_connections(&[ONE, SHORT_HEADER, SHORT_WRITE]).await;
    let path = large_artifact(&app).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = bounded(socket.connect(app.address().parse().unwrap())).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut begin = [0; 15];
    bounded(stream.read_exact(&mut begin)).await.unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    assert_eq!(app.get("/health/live").await.status(), 200);
    app.stop().await;
}

#[tokio::test]
async fn an_http2_client_that_opens_no_window_is_cut_off() {
    let app = App::with_fresh_connections(&[SHORT_WRITE]).await;
    let path = large_artifact(&app).await;
    let (mut client, connection) = http2(&app, Builder::new().initial_window_size(0)).await;
    let request = Request::get(app.url(&path)).body(()).unwrap();
    let (answer, _) = client.send_request(request, true).unwrap();
    let _answer = bounded(answer).await.unwrap();
    bounded(connection).await.unwrap();
    app.stop().await;
}

#[tokio::test]
async fn an_upload_may_take_longer_than_a_client_may_idle() {
    let app = App::with_fresh_connections(&[SHORT_HEADER, SHORT_WRITE]).await;
    let picture = picture::jpeg(20, 20);
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n",
        picture.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&picture[..10]).await.unwrap();
    eventually(async || (!app.files().is_empty()).then_some(())).await;
    // Two that came later and idle are closed, one after the other: so much time has passed.
    for _ in 0..2 {
        until_closed(&mut TcpStream::connect(app.address()).await.unwrap()).await;
    }
    stream.write_all(&picture[10..]).await.unwrap();
    let mut answer = Vec::new();
    bounded(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 202"), "{}", String::from_utf8_lossy(&answer));
    app.stop().await;
}
