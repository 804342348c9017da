use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

use jiff::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use super::response::KEPT_HEADERS;
use super::*;
use crate::domain::attempt::Fault;
use crate::notify::webhook::guard::GuardPolicy;

mod fetch;
mod handshake;
mod hostile;
mod phases;
mod proxy;
mod reach;
mod reuse;
mod tls;

const BODY: &[u8] = br#"{"type":"job.completed"}"#;
const TIMESTAMP: i64 = 1_614_265_330;
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

/// What a receiver does after it has read the request and written its answer.
#[derive(Clone, Copy)]
enum Then {
    Close,
    Hold,
    Reset,
    Flood,
    Drip,
}

async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(2 * LONG, future).await.expect("the test hangs")
}

fn secrets() -> [SigningSecret; 2] {
    [SigningSecret::from_entropy([1; 32]), SigningSecret::from_entropy([2; 32])]
}

fn config(timeout: Duration) -> SenderConfig {
    SenderConfig {
        timeout,
        connect_timeout: timeout,
        user_agent: "Darkroom/test".to_owned(),
        egress_proxy: None,
    }
}

fn sender(policy: GuardPolicy, timeout: Duration) -> Sender {
    Sender::new(Guard::new(policy), &config(timeout)).unwrap()
}

fn request<'a>(url: &'a Url, secrets: &'a [SigningSecret]) -> Request<'a> {
    static NO_HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
    Request {
        url,
        id: "evt_1",
        timestamp: TIMESTAMP,
        attempt: 3,
        secrets,
        key: None,
        origin: None,
        headers: &NO_HEADERS,
        body: Bytes::from_static(BODY),
    }
}

async fn attempt(sender: &Sender, url: &str) -> Outcome {
    let url = Url::parse(url).unwrap();
    bounded(sender.attempt(&request(&url, &secrets()))).await
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// A listener whose queue is full, so that the system leaves further connections unanswered; and its port.
async fn full_listener() -> (TcpListener, u16, Vec<TcpStream>) {
    let listener = short_listener();
    let queue = fill(&listener).await;
    let port = listener.local_addr().unwrap().port();
    (listener, port, queue)
}

/// A listener with a queue that is soon full.
fn short_listener() -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    socket.listen(1).unwrap()
}

async fn fill(listener: &TcpListener) -> Vec<TcpStream> {
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = tokio::time::timeout(SHORT, TcpStream::connect(address)).await {
        queue.push(stream.unwrap());
    }
    queue
}

/// Lets all that is ready happen: the tasks of a test run on one thread in turn.
async fn settle() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// Whether nobody has connected; a connection that was made waits in the listener's queue.
fn is_untouched(listener: TcpListener) -> bool {
    let listener = listener.into_std().unwrap();
    matches!(listener.accept(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let is_whole =
        |request: &[u8]| request.ends_with(if request.starts_with(b"OPTIONS") { b"\r\n\r\n" } else { BODY });
    while !is_whole(&request) {
        assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0, "the request breaks off");
    }
    request
}

/// A receiver for one request, and its URL; the task gives back what it read.
async fn receiver(answer: impl Into<Vec<u8>>, then: Then) -> (String, JoinHandle<Vec<u8>>) {
    let answer = answer.into();
    let (listener, port) = listener().await;
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        stream.write_all(&answer).await.unwrap();
        match then {
            Then::Close => {}
            Then::Hold => while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {},
            Then::Reset => {
                // Let the answer arrive before the reset overtakes it.
                tokio::time::sleep(Duration::from_millis(50)).await;
                stream.set_zero_linger().unwrap();
            }
            Then::Drip => {
                while stream.write_all(b"x").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            }
            Then::Flood => while stream.write_all(&[b'x'; 8192]).await.is_ok() {},
        }
        request
    });
    (format!("http://127.0.0.1:{port}/hook?token=t0ken"), task)
}

/// One attempt at a receiver that answers so.
async fn outcome(answer: impl Into<Vec<u8>>, then: Then, timeout: Duration) -> Outcome {
    let (url, receiver) = receiver(answer, then).await;
    let outcome = attempt(&sender(GuardPolicy::dev(), timeout), &url).await;
    bounded(receiver).await.unwrap();
    outcome
}

fn class(outcome: &Outcome) -> Option<ErrorClass> {
    outcome.error.as_ref().map(|failure| failure.class)
}

fn head(outcome: &Outcome) -> (u16, &str, bool) {
    let response = outcome.response.as_ref().expect("a response");
    (response.status, &response.body, response.truncated)
}

fn parse_request(request: &[u8]) -> (String, HeaderMap, Vec<u8>) {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let text = std::str::from_utf8(&request[..end]).unwrap();
    let (line, lines) = text.split_once("\r\n").unwrap();
    let headers = lines.split("\r\n").map(|line| line.split_once(": ").unwrap());
    let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    (
        line.to_owned(),
        headers.collect::<Vec<(header::HeaderName, HeaderValue)>>().into_iter().collect(),
        request[end + 4..].to_vec(),
    )
}

#[tokio::test]
async fn a_callback_arrives_and_verifies() {
    let (url, receiver) = receiver("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Then::Close).await;
    let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
    assert_eq!(outcome.error, None);
    assert_eq!(head(&outcome), (200, "ok", false));
    assert_eq!(outcome.remote_addr.unwrap().ip(), Ipv4Addr::LOCALHOST);

    let (line, headers, body) = parse_request(&bounded(receiver).await.unwrap());
    assert_eq!(line, "POST /hook?token=t0ken HTTP/1.1");
    assert_eq!(body, BODY);
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", "Darkroom/test"),
        (HEADER_ID, "evt_1"),
        (HEADER_ATTEMPT, "3"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert!(!headers.contains_key("accept-encoding"));
    for secret in &secrets() {
        let now = Timestamp::from_second(TIMESTAMP).unwrap();
        assert_eq!(signature::verify(secret, &headers, &body, now), Ok(()));
    }
}

#[tokio::test]
async fn an_empty_answer_is_as_good() {
    let outcome = outcome("HTTP/1.1 204 No Content\r\n\r\n", Then::Hold, LONG).await;
    assert_eq!(outcome.error, None);
    assert_eq!(head(&outcome), (204, "", false));
}

#[tokio::test]
async fn other_statuses_fail_and_their_answer_is_kept() {
    for (status, expected) in [
        (300, ErrorClass::Redirect),
        (304, ErrorClass::Redirect),
        (400, ErrorClass::Http),
        (410, ErrorClass::Http),
        (500, ErrorClass::Http),
        (999, ErrorClass::Http),
    ] {
        let answer = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nRetry-After: 7\r\n\r\n");
        let outcome = outcome(answer, Then::Close, LONG).await;
        assert_eq!(class(&outcome), Some(expected), "{status}");
        let response = outcome.response.unwrap();
        assert_eq!(response.status, status);
        assert_eq!(response.headers[0], ("retry-after".to_owned(), "7".to_owned()));
    }
}

#[tokio::test]
async fn headers_are_kept_within_bounds_and_without_credentials() {
    let padding: String = (0..50).map(|n| format!("X-Padding-{n}: {}\r\n", "p".repeat(100))).collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nSet-Cookie: s3ssion\r\n{padding}Webhook-Delivery: disable\r\n\
         Retry-After: 9\r\nX-Huge: {}\r\nContent-Length: 0\r\n\r\n",
        "h".repeat(KEPT_HEADERS)
    );
    let outcome = outcome(answer, Then::Close, LONG).await;
    assert!(!format!("{outcome:?}").contains("s3ssion"));
    let headers = outcome.response.unwrap().headers;
    assert!(headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() <= KEPT_HEADERS);
    let find = |name| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    assert_eq!(find("webhook-delivery"), Some("disable"));
    assert_eq!(find("retry-after"), Some("9"));
    assert_eq!(find("set-cookie"), Some("[redacted]"));
    assert_eq!(find("x-huge"), None);
}

#[test]
fn a_user_agent_that_is_no_header_is_an_error() {
    let config = SenderConfig { user_agent: "a\nb".to_owned(), ..config(LONG) };
    let refused = Sender::new(Guard::new(GuardPolicy::dev()), &config);
    assert!(matches!(refused, Err(SenderError::UserAgent(_))));
}

#[tokio::test]
async fn custom_headers_go_along_and_ours_win() {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer t0ken"),
        ("x-tenant", "a"),
        ("x-tenant", "b"),
        ("content-type", "text/plain"),
        ("user-agent", "someone else"),
        ("webhook-id", "evt_other"),
        ("webhook-signature", "v1,forged"),
        ("host", "elsewhere.example"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("expect", "100-continue"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    let (url, receiver) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
    let sender = sender(GuardPolicy::dev(), LONG);
    let url = Url::parse(&url).unwrap();
    let outcome = bounded(sender.attempt(&Request { headers: &headers, ..request(&url, &secrets()) })).await;
    assert_eq!(outcome.error, None);
    let (_, received, body) = parse_request(&bounded(receiver).await.unwrap());
    assert_eq!(body, BODY);
    let all = |name| received.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(all("authorization"), ["Bearer t0ken"]);
    assert_eq!(all("x-tenant"), ["a", "b"]);
    assert_eq!(all("content-type"), ["application/json"]);
    assert_eq!(all("user-agent"), ["Darkroom/test"]);
    assert_eq!(all("webhook-id"), ["evt_1"]);
    assert_eq!(all("webhook-signature").len(), 1);
    assert_eq!(all("host"), [url.authority()]);
    assert_eq!(all("content-length"), [BODY.len().to_string()]);
    for name in ["transfer-encoding", "connection", "upgrade", "expect"] {
        assert!(!received.contains_key(name), "{name}");
    }
}

#[tokio::test]
async fn a_key_signs_besides_the_secrets() {
    let key = PrivateKey::from_entropy([3; 32]);
    let (url, receiver) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
    let url = Url::parse(&url).unwrap();
    let sender = sender(GuardPolicy::dev(), LONG);
    let outcome = bounded(sender.attempt(&Request { key: Some(&key), ..request(&url, &secrets()) })).await;
    assert_eq!(outcome.error, None);
    let (_, headers, body) = parse_request(&bounded(receiver).await.unwrap());
    let now = Timestamp::from_second(TIMESTAMP).unwrap();
    assert_eq!(signature::verify_with_key(&key.public(), &headers, &body, now), Ok(()));
    assert_eq!(signature::verify(&secrets()[1], &headers, &body, now), Ok(()));
}
