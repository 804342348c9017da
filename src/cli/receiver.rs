//! A small receiver of callbacks: reads one, verifies it, answers as it is told to, and tells what it got.
//!
//! A connection is kept for further requests. Each point it can be at has a bound of its own.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, HeaderMap, HeaderValue};
use http::{HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::forward::Forward;
use super::misbehave::{LONGEST, Misbehaviour};
use super::script::{Answer, Script, Step};
use super::seen::Seen;
use crate::clock::Clock;
use crate::domain::secret::SigningSecret;
use crate::notify::webhook::signature::{self, HEADER_ATTEMPT, HEADER_ID, VerifyError};

const MAX_BODY_BYTES: usize = 1 << 20;
const MAX_CONNECTIONS: usize = 64;
/// For a request to come in and to be answered, delays by a script aside.
const DEADLINE: Duration = Duration::from_secs(15);
/// Who asks to send callbacks.
const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// For an answer to be read and the next request to begin, the usual time of Node's servers.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// How long answers under way may take when the receiver stops.
const DRAIN: Duration = Duration::from_secs(2);
/// With a script they may take as long as it says: a delay, and then a misbehaviour.
const SCRIPTED_DRAIN: Duration = DEADLINE.saturating_add(LONGEST).saturating_add(LONGEST);
/// When no connection can be accepted, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Callbacks that wait to be looked at; more of them wait in their connections.
const WAITING: usize = 64;

/// How callbacks are judged and answered.
pub(super) struct Policy {
    pub(super) secret: Option<SigningSecret>,
    pub(super) forward: Option<Forward>,
    /// What is answered to callbacks that are not rejected.
    pub(super) script: Option<Play>,
    pub(super) clock: Clock,
}

/// A script, and what counts its steps.
pub(super) struct Play {
    pub(super) script: Script,
    /// Each event sees the script from its start.
    pub(super) per_event: bool,
}

/// What a callback's signature is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Verified,
    /// There is no secret to verify it with.
    Unchecked,
    Rejected(VerifyError),
}

/// A callback that was received and answered.
#[derive(Debug)]
pub(super) struct Callback {
    pub(super) received_at: Timestamp,
    pub(super) id: Option<String>,
    pub(super) attempt: Option<String>,
    pub(super) verdict: Verdict,
    /// How often this id came in and was not rejected, this time included.
    pub(super) seen: Option<u64>,
    /// The status that is answered, if the answer has one.
    pub(super) status: Option<StatusCode>,
    /// The script's step, which says more than the status.
    pub(super) step: Option<Step>,
    /// What was answered where it was forwarded to.
    pub(super) forwarded: Option<StatusCode>,
    /// The event, or null when the body is no JSON.
    pub(super) event: Value,
}

/// A receiver that listens; it stops when dropped.
pub(super) struct Receiver {
    address: SocketAddr,
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Receiver {
    /// Listens, and passes on what is received.
    pub(super) async fn start(
        listen: SocketAddr,
        policy: Policy,
    ) -> io::Result<(Self, mpsc::Receiver<Callback>)> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let (callbacks, received) = mpsc::channel(WAITING);
        let stop = CancellationToken::new();
        let handler = Handler { policy, callbacks, turns: Mutex::default() };
        let accepting = accept(listener, Arc::new(handler), stop.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(accepting));
        Ok((Self { address, stop, task }, received))
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops when the answers under way are sent.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        // An error is the task's panic, which has been reported already.
        let _ = self.task.await;
    }
}

async fn accept(listener: TcpListener, handler: Arc<Handler>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    while let Some(accepted) = stop.run_until_cancelled(next(&listener, &places)).await {
        let Ok((stream, place)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = serve(stream, Arc::clone(&handler), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    // Who comes now is told so at once.
    drop(listener);
    connections.close();
    let drain = if handler.policy.script.is_some() { SCRIPTED_DRAIN } else { DRAIN };
    let _ = timeout(drain, connections.wait()).await;
}

/// Serves one connection. One that breaks or is late concerns its sender, who tries again.
async fn serve(stream: TcpStream, handler: Arc<Handler>, stop: CancellationToken) {
    let (misbehave, mut misbehaviour) = mpsc::channel(1);
    let exchange = Arc::new(Exchange { bound: watch::Sender::new(DEADLINE), misbehave });
    let mut overdue = pin!(overdue(exchange.bound.subscribe()));
    let service = service_fn(move |request| {
        let (handler, exchange) = (Arc::clone(&handler), Arc::clone(&exchange));
        async move { Ok::<_, Infallible>(handler.handle(request, &exchange).await) }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    let misbehaviour = loop {
        tokio::select! {
            Some(misbehaviour) = misbehaviour.recv() => break misbehaviour,
            _ = &mut connection => return,
            () = &mut overdue => return,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    misbehaviour.perform(connection.into_parts().io.into_inner()).await;
}

/// Returns when a connection has been at one point for longer than it may.
async fn overdue(mut bound: watch::Receiver<Duration>) {
    loop {
        let limit = *bound.borrow_and_update();
        if !matches!(timeout(limit, bound.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// What a request tells its connection.
struct Exchange {
    /// How long the connection may stay where it is now.
    bound: watch::Sender<Duration>,
    /// Takes the connection away from hyper.
    misbehave: mpsc::Sender<Misbehaviour>,
}

async fn next(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

struct Handler {
    policy: Policy,
    callbacks: mpsc::Sender<Callback>,
    turns: Mutex<Turns>,
}

/// What came in so far, rejected callbacks aside.
#[derive(Default)]
struct Turns {
    callbacks: u64,
    seen: Seen,
}

/// Lets whoever asks send callbacks, as many as there are (CloudEvents 1.0, HTTP 1.1 Web Hooks, section 4.2).
fn permit(origin: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::OK, "callbacks are welcome");
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("webhook-allowed-origin"), origin);
    headers.insert(HeaderName::from_static("webhook-allowed-rate"), HeaderValue::from_static("*"));
    headers.insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

impl Handler {
    async fn handle(&self, request: Request<Incoming>, exchange: &Exchange) -> Response<Full<Bytes>> {
        exchange.bound.send_replace(DEADLINE);
        let response = self.respond(request, exchange).await;
        exchange.bound.send_replace(KEEP_ALIVE);
        response
    }

    async fn respond(&self, request: Request<Incoming>, exchange: &Exchange) -> Response<Full<Bytes>> {
        if request.method() == Method::OPTIONS
            && let Some(origin) = request.headers().get(REQUEST_ORIGIN)
        {
            return permit(origin.clone());
        }
        if request.method() != Method::POST {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, "callbacks come by POST");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let (head, body) = request.into_parts();
        let body = match Limited::new(body, MAX_BODY_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => {
                return answer(StatusCode::PAYLOAD_TOO_LARGE, "callbacks have at most 1 MiB");
            }
            Err(_) => return answer(StatusCode::BAD_REQUEST, "the body did not arrive whole"),
        };
        let callback = self.receive(&head.headers, body).await;
        let (status, text, step) = (callback.status, callback.verdict.to_string(), callback.step.clone());
        // Nobody looks any more: it must not count as received.
        if self.callbacks.send(callback).await.is_err() {
            return answer(StatusCode::SERVICE_UNAVAILABLE, "the receiver is stopping");
        }
        if let Some(step) = &step {
            exchange.bound.send_replace(DEADLINE + step.delay);
            sleep(step.delay).await;
        }
        let mut response = answer(status.unwrap_or_default(), &text);
        match step.map(|step| step.answer) {
            Some(Answer::Misbehave(misbehaviour)) => {
                // The connection's end is waited for there, and this request goes with it.
                let _ = exchange.misbehave.send(misbehaviour).await;
                pending().await
            }
            Some(Answer::Status(status)) => {
                response.headers_mut().extend(status.headers(self.policy.clock.now()));
                response
            }
            Some(Answer::Pass) | None => response,
        }
    }

    async fn receive(&self, headers: &HeaderMap, body: Bytes) -> Callback {
        let received_at = self.policy.clock.now();
        let verdict = self.judge(headers, &body, received_at);
        let event = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (id, attempt) = (text(HEADER_ID), text(HEADER_ATTEMPT));
        let mut callback = Callback {
            received_at,
            id,
            attempt,
            verdict,
            seen: None,
            status: Some(StatusCode::BAD_REQUEST),
            step: None,
            forwarded: None,
            event,
        };
        // What may be forged goes no further, and takes no one's turn.
        if matches!(callback.verdict, Verdict::Rejected(_)) {
            return callback;
        }
        (callback.seen, callback.step) = self.take_turn(callback.id.as_deref());
        if let Some(forward) = &self.policy.forward {
            callback.forwarded = Some(forward.send(headers, body).await);
        }
        callback.status = match callback.step.as_ref().map(|step| &step.answer) {
            Some(Answer::Status(status)) => Some(status.code),
            Some(Answer::Misbehave(misbehaviour)) => misbehaviour.status(),
            Some(Answer::Pass) | None => Some(callback.forwarded.unwrap_or(StatusCode::OK)),
        };
        callback
    }

    /// How often this id came in, and what the script has for this callback.
    fn take_turn(&self, id: Option<&str>) -> (Option<u64>, Option<Step>) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = id.map(|id| turns.seen.count(id));
        turns.callbacks += 1;
        let step = self.policy.script.as_ref().and_then(|play| {
            let nth = if play.per_event { seen.unwrap_or(1) } else { turns.callbacks };
            play.script.step(nth - 1).cloned()
        });
        (seen, step)
    }

    fn judge(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Verdict {
        match &self.policy.secret {
            None => Verdict::Unchecked,
            Some(secret) => match signature::verify(secret, headers, body, now) {
                Ok(()) => Verdict::Verified,
                Err(error) => Verdict::Rejected(error),
            },
        }
    }
}

fn answer(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{text}\n")));
    *response.status_mut() = status;
    response
}

impl Callback {
    pub(super) fn event_type(&self) -> Option<&str> {
        self.event.get("type")?.as_str()
    }

    /// The job that the event is about.
    pub(super) fn job_id(&self) -> Option<&str> {
        self.event.get("subject")?.as_str()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("verified"),
            Self::Unchecked => f.write_str("not verified: no secret given"),
            Self::Rejected(error) => write!(f, "not verified: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Client;

    use super::*;
    use crate::notify::webhook::signature::{HEADER_SIGNATURE, HEADER_TIMESTAMP};

    const BODY: &str = r#"{"type":"job.completed","subject":"job_1"}"#;
    const LOOPBACK: &str = "127.0.0.1:0";

    fn secret(n: u8) -> SigningSecret {
        SigningSecret::from_entropy([n; 32])
    }

    async fn start(
        secret: Option<SigningSecret>,
        forward: Option<Forward>,
    ) -> (Receiver, mpsc::Receiver<Callback>) {
        let policy = Policy { secret, forward, script: None, clock: Clock::system() };
        Receiver::start(LOOPBACK.parse().unwrap(), policy).await.unwrap()
    }

    /// A callback as the service signs it.
    async fn post(url: &str, secret: &SigningSecret, body: &'static str) -> StatusCode {
        let timestamp = Clock::system().now().as_second();
        let signature = signature::header(std::slice::from_ref(secret), "evt_1", timestamp, BODY.as_bytes());
        let request = Client::new()
            .post(url)
            .header(HEADER_ID, "evt_1")
            .header(HEADER_TIMESTAMP, timestamp)
            .header(HEADER_SIGNATURE, signature)
            .header(HEADER_ATTEMPT, 1)
            .body(body);
        request.send().await.unwrap().status()
    }

    async fn received(callbacks: &mut mpsc::Receiver<Callback>) -> Callback {
        timeout(Duration::from_secs(10), callbacks.recv()).await.unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_signed_callback_verifies_and_a_changed_one_does_not() {
        let (receiver, mut callbacks) = start(Some(secret(1)), None).await;

        assert_eq!(post(&receiver.url(), &secret(1), BODY).await, StatusCode::OK);
        let callback = received(&mut callbacks).await;
        assert_eq!(callback.verdict, Verdict::Verified);
        assert_eq!((callback.event_type(), callback.job_id()), (Some("job.completed"), Some("job_1")));
        assert_eq!((callback.id.as_deref(), callback.attempt.as_deref()), (Some("evt_1"), Some("1")));

        assert_eq!(post(&receiver.url(), &secret(2), BODY).await, StatusCode::BAD_REQUEST);
        assert_eq!(received(&mut callbacks).await.verdict, Verdict::Rejected(VerifyError::NoMatch));

        assert_eq!(post(&receiver.url(), &secret(1), "no JSON").await, StatusCode::BAD_REQUEST);
        let changed = received(&mut callbacks).await;
        assert_eq!((changed.verdict, changed.event), (Verdict::Rejected(VerifyError::NoMatch), Value::Null));
        receiver.stop().await;
    }

    #[tokio::test]
    async fn without_a_secret_everything_is_taken_and_nothing_verified() {
        let (receiver, mut callbacks) = start(None, None).await;
        let status = Client::new().post(receiver.url()).body("{}").send().await.unwrap().status();
        assert_eq!(status, StatusCode::OK);
        assert_eq!(received(&mut callbacks).await.verdict, Verdict::Unchecked);
    }

    #[tokio::test]
    async fn what_is_forwarded_still_verifies_there_and_its_status_is_relayed() {
        let (strict, mut strict_callbacks) = start(Some(secret(1)), None).await;
        let forward = Forward::to(strict.url().parse().unwrap()).unwrap();
        let (receiver, mut callbacks) = start(None, Some(forward)).await;

        assert_eq!(post(&receiver.url(), &secret(1), BODY).await, StatusCode::OK);
        assert_eq!(received(&mut strict_callbacks).await.verdict, Verdict::Verified);
        assert_eq!(received(&mut callbacks).await.forwarded, Some(StatusCode::OK));

        assert_eq!(post(&receiver.url(), &secret(2), BODY).await, StatusCode::BAD_REQUEST);
        strict.stop().await;
        assert_eq!(post(&receiver.url(), &secret(1), BODY).await, StatusCode::BAD_GATEWAY);
    }

    #[tokio::test]
    async fn what_is_forged_is_not_forwarded() {
        let (behind, mut behind_callbacks) = start(None, None).await;
        let forward = Forward::to(behind.url().parse().unwrap()).unwrap();
        let (receiver, _callbacks) = start(Some(secret(1)), Some(forward)).await;
        assert_eq!(post(&receiver.url(), &secret(2), BODY).await, StatusCode::BAD_REQUEST);
        assert!(behind_callbacks.try_recv().is_err());
    }

    #[tokio::test]
    async fn whoever_asks_may_send_callbacks() {
        let (receiver, mut callbacks) = start(None, None).await;
        let ask = Client::new().request(Method::OPTIONS, receiver.url());
        assert_eq!(ask.try_clone().unwrap().send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED);
        let granted = ask.header(REQUEST_ORIGIN, "hooks.example").send().await.unwrap();
        assert_eq!(granted.status(), StatusCode::OK);
        assert_eq!(granted.headers()["webhook-allowed-origin"], "hooks.example");
        assert_eq!(granted.headers()["webhook-allowed-rate"], "*");
        assert!(callbacks.try_recv().is_err());
    }

    #[tokio::test]
    async fn other_methods_and_long_bodies_are_refused() {
        let (receiver, mut callbacks) = start(None, None).await;
        let got = Client::new().get(receiver.url()).send().await.unwrap();
        assert_eq!(got.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(got.headers()[ALLOW], "POST");
        let long = Client::new().post(receiver.url()).body(vec![b' '; MAX_BODY_BYTES + 1]);
        assert_eq!(long.send().await.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert!(callbacks.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_receiver_that_nobody_reads_takes_nothing() {
        let (receiver, callbacks) = start(None, None).await;
        drop(callbacks);
        let status = Client::new().post(receiver.url()).body("{}").send().await.unwrap().status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
}
