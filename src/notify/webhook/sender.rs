//! One attempt to deliver a callback, bounded in time and memory whatever the receiver does.

use std::error::Error;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use url::Url;

use super::guard::{Guard, Refused, ResolveError};
use super::signature::{self, HEADER_ATTEMPT, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP};
use crate::clock::Stopwatch;
pub use crate::domain::delivery::{ErrorClass, Failure, ResponseHead};
use crate::domain::secret::SigningSecret;

/// How much of a response's body is kept.
const KEPT_BODY: usize = 4 * 1024;
/// How much of a response's body is read before the connection is closed.
const MAX_BODY: usize = 64 * 1024;
/// How much of a response's headers is kept, names and values together.
const KEPT_HEADERS: usize = 2 * 1024;
/// How many headers a response may have over HTTP/1; there they also share a buffer of about 400 KiB.
const MAX_HEADERS: usize = 100;
/// How large a response's headers may be over HTTP/2.
const MAX_HEADER_LIST: u32 = 16 * 1024;
/// How much a receiver may send ahead over HTTP/2; the smallest window the protocol has.
const H2_WINDOW: u32 = 65_535;
/// How long the explanation of a failure may be, in characters.
const MAX_DETAIL: usize = 200;

/// The headers by which a receiver steers the schedule.
const STEERING: [&str; 2] = ["retry-after", "webhook-delivery"];
/// The headers whose values are credentials.
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

/// How attempts are made.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// For a whole attempt: look-up, connection, TLS, headers and body.
    pub timeout: Duration,
    /// For the look-up, the connection and TLS alone.
    pub connect_timeout: Duration,
    /// The `User-Agent`.
    pub user_agent: String,
}

/// The sender cannot work on this machine or with this configuration.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The user agent cannot be a header's value.
    #[error("the user agent contains characters that no header may have")]
    UserAgent(#[from] header::InvalidHeaderValue),
    /// The HTTP client found no trust anchors, or its settings are contradictory.
    #[error(
        "the HTTP client cannot be set up; if no CA certificates were found, install those of the system \
         (mostly a package named ca-certificates), or name a file of them in SSL_CERT_FILE"
    )]
    Client(#[source] reqwest::Error),
}

/// What is sent. The URL may hold a token in its query, so there is no `Debug`.
pub struct Request<'a> {
    /// Where to.
    pub url: &'a Url,
    /// The event's id, the same at every attempt.
    pub id: &'a str,
    /// When this attempt is signed, in Unix seconds.
    pub timestamp: i64,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// The active secrets; each adds a signature, so without one the callback does not verify.
    pub secrets: &'a [SigningSecret],
    /// The JSON that is signed and sent, byte for byte.
    pub body: Bytes,
}

/// What became of an attempt. It succeeded if there is no error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How long it took.
    pub duration: Duration,
    /// Who answered.
    pub remote_addr: Option<SocketAddr>,
    /// What was answered, also when the attempt failed. Of the headers 2 KiB, those that steer the schedule
    /// first and credentials struck out; of the body 4 KiB, as text.
    pub response: Option<ResponseHead>,
    /// Why it failed.
    pub error: Option<Failure>,
}

/// Makes attempts. Clones share everything.
#[derive(Clone)]
pub struct Sender {
    client: Client,
    guard: Guard,
    timeout: Duration,
}

impl Sender {
    /// A sender that goes where `guard` lets it.
    ///
    /// On a machine without CA certificates no receiver can be authenticated. That is an error, except where
    /// the policy allows plain HTTP: there the sender works, and over HTTPS attempts fail as
    /// [`ErrorClass::Tls`].
    ///
    /// # Errors
    ///
    /// The user agent is unusable, or there are no CA certificates.
    pub fn new(guard: Guard, config: &SenderConfig) -> Result<Self, SenderError> {
        let user_agent = HeaderValue::from_str(&config.user_agent)?;
        let builder = || client(&guard, config.connect_timeout, &user_agent);
        let client = match builder().build() {
            Err(error) if guard.allows_http() => {
                tracing::warn!(
                    error = &error as &dyn Error,
                    "no CA certificates: callbacks over HTTPS will fail"
                );
                builder().tls_certs_only([]).build()
            }
            result => result,
        };
        Ok(Self { client: client.map_err(SenderError::Client)?, guard, timeout: config.timeout })
    }

    /// Makes one attempt. It cannot fail as a function: the outcome says what happened.
    ///
    /// Only a 2xx whose body came to its end within the deadline, or grew past what is read, is a success.
    /// A 2xx whose body stalls or breaks off is not: the receiver was still at work, and may have failed at
    /// it. To repeat does no harm, for receivers know repetitions by their `webhook-id`. Any other status is
    /// final when it comes, whatever happens to the body after it.
    pub async fn attempt(&self, request: &Request<'_>) -> Outcome {
        let stopwatch = Stopwatch::start();
        let mut seen = Seen::default();
        let exchange = tokio::time::timeout(self.timeout, self.exchange(request, &mut seen)).await;
        let exchange = exchange.unwrap_or_else(|_| Err(seen.timed_out(self.timeout)));
        let refused = seen.response.as_ref().and_then(|received| status_failure(received.status));
        Outcome {
            duration: stopwatch.elapsed(),
            remote_addr: seen.remote_addr,
            response: seen.response.map(ResponseHead::from),
            error: refused.or(exchange.err()),
        }
    }

    async fn exchange(&self, request: &Request<'_>, seen: &mut Seen) -> Result<(), Failure> {
        self.guard.check_url(request.url)?;
        let mut response = self.send(request).await?;
        seen.remote_addr = response.remote_addr();
        self.check_peer(request.url, seen.remote_addr)?;
        let received = seen.response.insert(Received::head(&response));
        received.read_body(&mut response).await
    }

    async fn send(&self, request: &Request<'_>) -> reqwest::Result<Response> {
        let signatures = signature::header(request.secrets, request.id, request.timestamp, &request.body);
        self.client
            .post(request.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(HEADER_ID, request.id)
            .header(HEADER_TIMESTAMP, request.timestamp)
            .header(HEADER_SIGNATURE, signatures)
            .header(HEADER_ATTEMPT, request.attempt)
            .body(request.body.clone())
            .send()
            .await
    }

    /// The last line: should the client ever connect to what was not checked, nothing of the answer is shown.
    fn check_peer(&self, url: &Url, peer: Option<SocketAddr>) -> Result<(), Refused> {
        match (url.host_str(), peer) {
            (Some(host), Some(peer)) => self.guard.check_peer(host, peer.ip()),
            _ => Ok(()),
        }
    }
}

/// Every attempt is one request on one connection of its own: no proxy from the environment, which would
/// connect without asking the guard; no redirects, for the same reason; no silent second try, which no record
/// would show; and no idle connections, so that each attempt resolves anew.
fn client(guard: &Guard, connect_timeout: Duration, user_agent: &HeaderValue) -> ClientBuilder {
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .pool_max_idle_per_host(0)
        .dns_resolver(GuardedResolver(guard.clone()))
        .connect_timeout(connect_timeout)
        .user_agent(user_agent)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HEADER_LIST)
        .http2_initial_stream_window_size(H2_WINDOW)
        .http2_initial_connection_window_size(H2_WINDOW)
}

/// The client's resolver: what the guard refuses is never connected to.
struct GuardedResolver(Guard);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            // The client puts the URL's port in place of 0.
            let addresses = guard.resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// What is known of the receiver so far. It outlives an exchange that is cut off at the deadline.
#[derive(Default)]
struct Seen {
    remote_addr: Option<SocketAddr>,
    response: Option<Received>,
}

impl Seen {
    fn timed_out(&self, timeout: Duration) -> Failure {
        let what = if self.response.is_some() { "the response did not end" } else { "no response" };
        failure(ErrorClass::Timeout, &format!("{what} within {timeout:?}"))
    }
}

struct Received {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    complete: bool,
}

impl Received {
    fn head(response: &Response) -> Self {
        Self {
            status: response.status().as_u16(),
            headers: kept_headers(response.headers()),
            body: Vec::new(),
            complete: false,
        }
    }

    /// Reads the body to its end, or until it is larger than anyone will look at. That is no error:
    /// the receiver has answered, and only talks too much.
    async fn read_body(&mut self, response: &mut Response) -> Result<(), Failure> {
        let mut read = 0;
        while let Some(chunk) = response.chunk().await? {
            read += chunk.len();
            let room = KEPT_BODY - self.body.len();
            self.body.extend(chunk.iter().take(room));
            if read > MAX_BODY {
                return Ok(());
            }
        }
        self.complete = read <= KEPT_BODY;
        Ok(())
    }
}

impl From<Received> for ResponseHead {
    fn from(received: Received) -> Self {
        Self {
            status: received.status,
            headers: received.headers,
            body: String::from_utf8_lossy(&received.body).into_owned(),
            truncated: !received.complete,
        }
    }
}

/// What steers the schedule goes first, so that no amount of other headers crowds it out.
fn kept_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut all: Vec<_> = headers.iter().collect();
    all.sort_by_key(|(name, _)| !STEERING.contains(&name.as_str()));
    let mut room = KEPT_HEADERS;
    let mut kept = Vec::new();
    for (name, value) in all {
        let value = shown(name.as_str(), value);
        if let Some(left) = room.checked_sub(name.as_str().len() + value.len()) {
            room = left;
            kept.push((name.to_string(), value));
        }
    }
    kept
}

fn shown(name: &str, value: &HeaderValue) -> String {
    if CREDENTIALS.contains(&name) {
        return "[redacted]".to_owned();
    }
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

fn status_failure(status: u16) -> Option<Failure> {
    match status {
        200..300 => None,
        300..400 => Some(failure(
            ErrorClass::Redirect,
            &format!("the receiver answered {status}, and redirects are not followed"),
        )),
        _ => Some(failure(ErrorClass::Http, &format!("the receiver answered {status}"))),
    }
}

fn failure(class: ErrorClass, detail: &str) -> Failure {
    // A peer may have had a say in the text: a certificate's names, for example.
    let detail = detail.chars().filter(|c| !c.is_control()).take(MAX_DETAIL).collect();
    Failure { class, detail }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        failure(ErrorClass::BlockedAddress, &refused.to_string())
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let class = classify(&error);
        if class == ErrorClass::Timeout && error.is_connect() {
            return failure(class, "no connection was made in time");
        }
        let cause = causes(&error).last().map(ToString::to_string).unwrap_or_default();
        failure(class, &cause)
    }
}

/// The error and everything beneath it. An `io::Error` leaves the error it wraps out of its sources.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    iter::successors(Some(error as &(dyn Error + 'static)), |&error| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn find<E: Error + 'static>(error: &reqwest::Error) -> impl Iterator<Item = &E> {
    causes(error).filter_map(|cause| cause.downcast_ref())
}

fn classify(error: &reqwest::Error) -> ErrorClass {
    if let Some(unresolved) = find::<ResolveError>(error).next() {
        return match unresolved {
            ResolveError::Refused(_) => ErrorClass::BlockedAddress,
            ResolveError::Lookup(_) | ResolveError::Empty => ErrorClass::Dns,
        };
    }
    if error.is_timeout() {
        return ErrorClass::Timeout;
    }
    find::<hyper::Error>(error)
        .find_map(classify_http)
        .or_else(|| find::<io::Error>(error).last().and_then(|io| classify_io(io.kind(), error)))
        .unwrap_or_else(|| unexplained(error))
}

fn classify_http(error: &hyper::Error) -> Option<ErrorClass> {
    if error.is_parse_too_large() {
        Some(ErrorClass::TooLarge)
    } else if error.is_parse() {
        Some(ErrorClass::Protocol)
    } else if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        Some(ErrorClass::Reset)
    } else {
        None
    }
}

/// TLS reports what it cannot accept as invalid data, and an end in the middle of its handshake as an
/// unexpected end; a TCP connection attempt knows neither. In a body they speak of its framing.
fn classify_io(kind: io::ErrorKind, error: &reqwest::Error) -> Option<ErrorClass> {
    use io::ErrorKind as Kind;
    match kind {
        Kind::ConnectionReset | Kind::ConnectionAborted | Kind::BrokenPipe => Some(ErrorClass::Reset),
        Kind::InvalidData if error.is_request() => Some(ErrorClass::Tls),
        Kind::UnexpectedEof if error.is_connect() => Some(ErrorClass::Tls),
        Kind::UnexpectedEof => Some(ErrorClass::Reset),
        Kind::InvalidData | Kind::InvalidInput => Some(ErrorClass::Protocol),
        _ => None,
    }
}

/// Without a known cause the phase decides; over HTTP/2 a body ends this way when its stream is reset.
fn unexplained(error: &reqwest::Error) -> ErrorClass {
    if error.is_connect() {
        ErrorClass::Connect
    } else if error.is_decode() {
        ErrorClass::Reset
    } else {
        ErrorClass::Protocol
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::Ipv4Addr;

    use jiff::Timestamp;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::super::guard::GuardPolicy;
    use super::*;

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
    }

    async fn bounded<F: Future>(future: F) -> F::Output {
        tokio::time::timeout(2 * LONG, future).await.expect("the test hangs")
    }

    fn secrets() -> [SigningSecret; 2] {
        [SigningSecret::from_entropy([1; 32]), SigningSecret::from_entropy([2; 32])]
    }

    fn sender(policy: GuardPolicy, timeout: Duration) -> Sender {
        let config =
            SenderConfig { timeout, connect_timeout: timeout, user_agent: "Darkroom/test".to_owned() };
        Sender::new(Guard::new(policy), &config).unwrap()
    }

    async fn attempt(sender: &Sender, url: &str) -> Outcome {
        let url = Url::parse(url).unwrap();
        let body = Bytes::from_static(BODY);
        let secrets = secrets();
        let request =
            Request { url: &url, id: "evt_1", timestamp: TIMESTAMP, attempt: 3, secrets: &secrets, body };
        bounded(sender.attempt(&request)).await
    }

    async fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    /// Whether nobody has connected; a connection that was made waits in the listener's queue.
    fn is_untouched(listener: TcpListener) -> bool {
        let listener = listener.into_std().unwrap();
        matches!(listener.accept(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn read_request(stream: &mut TcpStream) -> Vec<u8> {
        let mut request = Vec::new();
        while !request.ends_with(BODY) {
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
    async fn redirects_are_not_followed() {
        let (elsewhere, port) = listener().await;
        for status in [301, 302, 303, 307, 308] {
            let location = format!("http://127.0.0.1:{port}/");
            let answer = format!("HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
            let outcome = outcome(answer, Then::Hold, LONG).await;
            assert_eq!(class(&outcome), Some(ErrorClass::Redirect), "{status}");
        }
        assert!(is_untouched(elsewhere));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_connect_failure_that_does_not_repeat_the_url() {
        let (closed, port) = listener().await;
        drop(closed);
        let url = format!("http://127.0.0.1:{port}/hook?token=t0ken");
        let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Connect));
        assert_eq!((outcome.remote_addr, &outcome.response), (None, &None));
        assert!(!format!("{outcome:?}").contains("t0ken"));
    }

    #[tokio::test]
    async fn the_deadline_covers_the_head_and_the_body() {
        for answer in ["", "HTTP/1.1 200 OK\r\nX-Slow: "] {
            let outcome = outcome(answer, Then::Hold, SHORT).await;
            assert_eq!(class(&outcome), Some(ErrorClass::Timeout), "{answer}");
            assert_eq!(outcome.response, None);
        }
        let stalled = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        let outcome = outcome(stalled, Then::Hold, SHORT).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Timeout));
        assert_eq!(head(&outcome), (200, "half", true));
    }

    #[tokio::test]
    async fn a_refusal_stays_one_when_its_body_stalls_or_breaks_off() {
        let stalled = "HTTP/1.1 503 Busy\r\nContent-Length: 10\r\n\r\nhalf";
        for then in [Then::Hold, Then::Close] {
            let outcome = outcome(stalled, then, SHORT).await;
            assert_eq!(class(&outcome), Some(ErrorClass::Http));
            assert_eq!(head(&outcome), (503, "half", true));
        }
    }

    #[tokio::test]
    async fn an_endless_body_is_cut_off() {
        for (status, expected) in [(200, None), (500, Some(ErrorClass::Http))] {
            let answer = format!("HTTP/1.1 {status} X\r\n\r\n");
            let outcome = outcome(answer, Then::Flood, LONG).await;
            assert_eq!(class(&outcome), expected);
            assert_eq!(head(&outcome), (status, "x".repeat(KEPT_BODY).as_str(), true));
        }
    }

    #[tokio::test]
    async fn a_body_is_whole_up_to_what_is_kept() {
        for (length, truncated) in [(KEPT_BODY, false), (KEPT_BODY + 1, true), (MAX_BODY, true)] {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{}", "y".repeat(length));
            let outcome = outcome(answer, Then::Close, LONG).await;
            assert_eq!(outcome.error, None);
            assert_eq!(head(&outcome), (200, "y".repeat(KEPT_BODY).as_str(), truncated), "{length}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_a_reset() {
        let half = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
        for answer in ["", "HTTP/1.1 2", half, chunk] {
            for then in [Then::Close, Then::Reset] {
                let outcome = outcome(answer, then, LONG).await;
                assert_eq!(class(&outcome), Some(ErrorClass::Reset), "{answer}");
                assert_eq!(outcome.response.is_some(), answer.ends_with("half") || answer == chunk);
            }
        }
    }

    #[tokio::test]
    async fn what_is_not_http_is_a_protocol_failure() {
        let bad_chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n";
        for answer in ["SSH-2.0-OpenSSH_9.2\r\n\r\n", "HTTP/1.1 200 OK\r\nno header\r\n\r\n", bad_chunk] {
            let outcome = outcome(answer, Then::Hold, LONG).await;
            assert_eq!(class(&outcome), Some(ErrorClass::Protocol), "{answer}");
        }
    }

    #[tokio::test]
    async fn a_head_without_bounds_is_too_large() {
        let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
        let outcome = outcome(format!("HTTP/1.1 200 OK\r\n{many}\r\n"), Then::Hold, LONG).await;
        assert_eq!(class(&outcome), Some(ErrorClass::TooLarge));

        let (url, receiver) = receiver("HTTP/1.1 200 OK\r\nA: ", Then::Flood).await;
        let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::TooLarge));
        bounded(receiver).await.unwrap();
    }

    #[tokio::test]
    async fn tls_with_a_receiver_that_has_none_is_a_tls_failure() {
        for answer in ["HTTP/1.1 400 Bad Request\r\n\r\n", ""] {
            let (listener, port) = listener().await;
            let receiver = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                // The whole hello, lest the close become a reset.
                let _ = stream.read(&mut [0; 16 * 1024]).await.unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            let url = format!("https://127.0.0.1:{port}/");
            let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
            assert_eq!(class(&outcome), Some(ErrorClass::Tls), "{answer} {outcome:?}");
            bounded(receiver).await.unwrap();
        }
    }

    #[tokio::test]
    async fn blocked_literals_are_never_connected_to() {
        let (listener, port) = listener().await;
        let sender = sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG);
        for host in ["127.0.0.1", "0x7f.1", "2130706433", "127.1.", "0", "１２７.0.0.1", "[::ffff:127.0.0.1]"]
        {
            let outcome = attempt(&sender, &format!("http://{host}:{port}/")).await;
            assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress), "{host}");
        }
        assert!(is_untouched(listener));
    }

    #[tokio::test]
    async fn blocked_names_are_never_connected_to() {
        let (listener, port) = listener().await;
        let sender = sender(GuardPolicy { allow_http: true, ..GuardPolicy::default() }, LONG);
        let outcome = attempt(&sender, &format!("http://localhost:{port}/")).await;
        assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress));
        assert!(is_untouched(listener));
    }

    #[tokio::test]
    async fn an_allowed_name_is_called_whatever_its_address() {
        let (url, receiver) = receiver("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
        let allow_hosts = vec!["localhost".to_owned()];
        let sender = sender(GuardPolicy { allow_http: true, allow_hosts, ..GuardPolicy::default() }, LONG);
        let outcome = attempt(&sender, &url.replace("127.0.0.1", "localhost")).await;
        assert_eq!(outcome.error, None);
        bounded(receiver).await.unwrap();
    }

    #[tokio::test]
    async fn plain_http_is_refused_at_the_attempt_too() {
        let (listener, port) = listener().await;
        // Accepted under one policy, attempted under a stricter one.
        let mut sender = sender(GuardPolicy::dev(), LONG);
        sender.guard = Guard::new(GuardPolicy { allow_http: false, ..GuardPolicy::dev() });
        let outcome = attempt(&sender, &format!("http://127.0.0.1:{port}/")).await;
        assert_eq!(class(&outcome), Some(ErrorClass::BlockedAddress));
        assert!(is_untouched(listener));
    }

    #[tokio::test]
    async fn a_name_without_address_is_a_dns_failure() {
        let url = format!("http://{}.invalid/", "x".repeat(64));
        let outcome = attempt(&sender(GuardPolicy::dev(), LONG), &url).await;
        assert_eq!(class(&outcome), Some(ErrorClass::Dns));
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
        let config = SenderConfig { timeout: LONG, connect_timeout: LONG, user_agent: "a\nb".to_owned() };
        let refused = Sender::new(Guard::new(GuardPolicy::dev()), &config);
        assert!(matches!(refused, Err(SenderError::UserAgent(_))));
    }
}
