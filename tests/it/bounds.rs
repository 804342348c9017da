//! What one client may take: bytes of a header, connections, streams.

use std::fmt::Write as _;

use darkroom::clock::Clock;
use http::HeaderMap;
use reqwest::Client;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{App, BOUND, announce, bounded, picture};

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(app.address()).await.unwrap()
}

/// Everything until the server closes the connection; a reset is a close too.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let _ = bounded(stream.read_to_end(&mut answer)).await;
    answer
}

async fn text_until_closed(stream: &mut TcpStream) -> String {
    String::from_utf8_lossy(&until_closed(stream).await).into_owned()
}

#[tokio::test]
async fn a_url_or_a_header_that_is_too_large_is_refused_with_a_problem_in_both_versions() {
    let flags =
        [("server.max_uri_bytes", "300"), ("server.max_headers", "20"), ("server.max_header_bytes", "2000")];
    let app = App::with(&flags, Clock::system()).await;
    let many = (0..21).map(|n| (format!("x-{n}").parse().unwrap(), "a".parse().unwrap()));
    let many: HeaderMap = many.collect();
    let large = HeaderMap::from_iter([("x-large".parse().unwrap(), "a".repeat(2000).parse().unwrap())]);
    let http2 = Client::builder().no_proxy().timeout(BOUND).http2_prior_knowledge().build().unwrap();
    for client in [&app.http, &http2] {
        for (path, headers, status, code, limit) in [
            (format!("/?{}", "a".repeat(300)), HeaderMap::new(), 414, "uri-too-long", 300),
            ("/".to_owned(), many.clone(), 431, "header-too-large", 20),
            ("/".to_owned(), large.clone(), 431, "header-too-large", 2000),
        ] {
            let response = client.get(app.url(&path)).headers(headers).send().await.unwrap();
            assert_eq!(response.status(), status);
            assert!(response.headers().contains_key("x-request-id"));
            let problem: Value = response.json().await.unwrap();
            assert_eq!((&problem["code"], &problem["limit"]), (&code.into(), &limit.into()), "{problem}");
        }
        let close = format!("/?{}", "a".repeat(290));
        // Within the bounds, and no parameter of the root.
        assert_ne!(client.get(app.url(&close)).send().await.unwrap().status(), 414);
    }
    app.stop().await;
}

#[tokio::test]
async fn an_endless_header_is_cut_off_by_the_library_without_a_document() {
    let app = App::start().await;
    let mut stream = connect(&app).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ").await.unwrap();
    let (mut read, mut write) = stream.split();
    let flood = async {
        // Far more than is read; the server closes before its end.
        for _ in 0..1000 {
            if write.write_all(&[b'a'; 4096]).await.is_err() {
                return;
            }
        }
    };
    let mut answer = [0; 12];
    let (_, read) = bounded(async { tokio::join!(flood, read.read_exact(&mut answer)) }).await;
    if read.is_ok() {
        assert_eq!(&answer, b"HTTP/1.1 431");
    }
    assert_eq!(app.get("/health/live").await.status(), 200);
    app.stop().await;
}

#[tokio::test]
async fn one_address_has_no_more_connections_than_configured() {
    let flags = [("server.max_connections_per_ip", "2"), ("server.header_timeout_ms", "86400000")];
    let app = App::with_fresh_connections(&flags).await;
    let first = connect(&app).await;
    let _second = connect(&app).await;
    // Accepted in order: the two are in before it.
    assert_eq!(until_closed(&mut connect(&app).await).await, b"");
    drop(first);
    crate::support::eventually(async || {
        app.http.get(app.url("/health/live")).send().await.ok().filter(|response| response.status() == 200)
    })
    .await;
    app.stop().await;
}

#[tokio::test]
async fn idle_connections_make_room_for_new_ones_and_a_busy_one_stays() {
    let flags = [("server.max_connections", "3"), ("server.header_timeout_ms", "86400000")];
    let app = App::with_fresh_connections(&flags).await;
    let picture = picture::jpeg(20, 20);
    let length = format!("Connection: close\r\nContent-Length: {}\r\n", picture.len());
    let mut upload = announce(&app, "image/jpeg", &length).await;
    upload.write_all(&picture[..10]).await.unwrap();
    crate::support::eventually(async || (!app.files().is_empty()).then_some(())).await;

    let mut idle = Vec::new();
    for begin in ["", "G", "GET / HTTP/1.1\r\nHost: localhost\r\n", "PRI * HT", ""] {
        let mut stream = connect(&app).await;
        stream.write_all(begin.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    for _ in 0..3 {
        assert_eq!(app.get("/health/live").await.status(), 200);
    }
    // Those that came first went first.
    for stream in idle.iter_mut().take(3) {
        until_closed(stream).await;
    }
    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("darkroom_http_connections_evicted_total"), "{metrics}");

    upload.write_all(&picture[10..]).await.unwrap();
    let answer = text_until_closed(&mut upload).await;
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    app.stop().await;
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The frames in what a server sent: kind and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = bytes.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        frames.push((head[3], payload.to_vec()));
        bytes = rest;
    }
    frames
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[tokio::test]
async fn what_is_called_off_at_once_too_often_ends_the_connection() {
    let app = App::with(&[("server.header_timeout_ms", "86400000")], Clock::system()).await;
    let mut stream = connect(&app).await;
    let mut attack = [PREFACE, &frame(4, 0, 0, &[])].concat();
    // :method GET, :scheme http, :path /, :authority localhost.
    let request = [&[0x82, 0x86, 0x84, 0x41, 9], &b"localhost"[..]].concat();
    for stream in (1..2000).step_by(2) {
        attack.extend(frame(1, 5, stream, &request));
        attack.extend(frame(3, 0, stream, &8_u32.to_be_bytes()));
    }
    // The server may close before it has all of it.
    let _ = stream.write_all(&attack).await;
    let answer = until_closed(&mut stream).await;
    if let Some((_, goaway)) = frames(&answer).iter().find(|(kind, _)| *kind == 7) {
        assert_eq!(goaway[4..8], 11_u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
    }
    assert_eq!(app.get("/health/live").await.status(), 200);
    app.stop().await;
}

#[tokio::test]
async fn the_bounds_of_http2_are_told_to_the_client() {
    let flags = [
        ("server.http2_max_streams", "7"),
        ("server.http2_stream_window_bytes", "70000"),
        ("server.max_uri_bytes", "1000"),
        ("server.max_header_bytes", "2000"),
    ];
    let app = App::with(&flags, Clock::system()).await;
    let mut stream = connect(&app).await;
    stream.write_all(&[PREFACE, &frame(4, 0, 0, &[])].concat()).await.unwrap();
    let mut answer = Vec::new();
    let settings = loop {
        bounded(stream.read_buf(&mut answer)).await.unwrap();
        if let Some((_, settings)) = frames(&answer).into_iter().find(|(kind, _)| *kind == 4) {
            break settings;
        }
    };
    let mut told = String::new();
    for setting in settings.chunks(6) {
        let value = u32::from_be_bytes(setting[2..].try_into().unwrap());
        write!(told, "{}={value} ", setting[1]).unwrap();
    }
    for expected in ["3=7 ", "4=70000 ", &format!("6={} ", 1000 + 2000 + 16 * 1024)] {
        assert!(told.contains(expected), "{told}");
    }
    app.stop().await;
}
