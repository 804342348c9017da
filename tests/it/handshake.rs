//! Receivers that are asked for their permission before they get callbacks.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use darkroom::clock::Clock;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;

use crate::support::{App, eventually, picture, text};

/// What a receiver answers to `OPTIONS`: whom it allows, and how many a minute.
type Allowed = Arc<Mutex<Option<(&'static str, &'static str)>>>;

type Seen = Arc<Mutex<Vec<(Method, HeaderMap)>>>;

/// A receiver that keeps what it was asked and sent.
struct Receiver {
    url: String,
    seen: Seen,
    allowed: Allowed,
}

impl Receiver {
    async fn start(allowed: Option<(&'static str, &'static str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?token=t0ken", listener.local_addr().unwrap());
        let (seen, allowed) = (Arc::default(), Arc::new(Mutex::new(allowed)));
        let shared = (Arc::clone(&seen), Arc::clone(&allowed));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let answer = service_fn(move |request| answer(request, shared.clone()));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
                );
            }
        });
        Self { url, seen, allowed }
    }

    fn methods(&self) -> Vec<Method> {
        self.seen.lock().unwrap().iter().map(|(method, _)| method.clone()).collect()
    }

    /// The headers of the requests of this method.
    fn seen(&self, wanted: &Method) -> Vec<HeaderMap> {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|(method, _)| method == wanted).map(|(_, headers)| headers.clone()).collect()
    }
}

async fn answer(
    request: Request<Incoming>,
    (seen, allowed): (Seen, Allowed),
) -> Result<Response<Empty<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    body.collect().await.unwrap();
    let mut response = Response::new(Empty::new());
    if let (&Method::OPTIONS, Some((origin, rate))) = (&head.method, *allowed.lock().unwrap()) {
        response.headers_mut().insert("webhook-allowed-origin", origin.parse().unwrap());
        response.headers_mut().insert("webhook-allowed-rate", rate.parse().unwrap());
    }
    seen.lock().unwrap().push((head.method, head.headers));
    Ok(response)
}

fn start() -> Timestamp {
    "2026-11-22T09:00:00Z".parse().unwrap()
}

async fn submit(app: &App, receiver: &Receiver) -> String {
    let job = app.accepted(picture::jpeg(8, 8), &[("callback_url", &receiver.url)]).await;
    text(&app.finished(text(&job, "/id")).await, "/id").to_owned()
}

async fn delivered(app: &App, job: &str) {
    app.job_when(job, |job| job["callback"]["status"] == "delivered").await;
}

#[tokio::test]
async fn a_receiver_that_permits_it_is_asked_once_and_told_who_calls() {
    let receiver = Receiver::start(Some(("darkroom.example", "*"))).await;
    // As a URL would have it, however it is written.
    let flags = [
        ("callbacks.handshake_hosts", "hooks.example,0x7f.1"),
        ("callbacks.handshake_origin", "darkroom.example"),
    ];
    let app = App::with(&flags, Clock::system()).await;
    for _ in 0..2 {
        delivered(&app, &submit(&app, &receiver).await).await;
    }
    assert_eq!(receiver.methods(), [Method::OPTIONS, Method::POST, Method::POST]);
    assert_eq!(receiver.seen(&Method::OPTIONS)[0]["webhook-request-origin"], "darkroom.example");
    assert_eq!(receiver.seen(&Method::POST)[1]["webhook-request-origin"], "darkroom.example");
    app.stop().await;

    // Others are not asked.
    let app = App::with(&[("callbacks.handshake_hosts", "hooks.example")], Clock::system()).await;
    delivered(&app, &submit(&app, &receiver).await).await;
    assert_eq!(receiver.methods().len(), 4);
    assert!(receiver.seen(&Method::POST)[2].get("webhook-request-origin").is_none());
    app.stop().await;
}

#[tokio::test]
async fn one_that_does_not_permit_it_gets_nothing_until_it_does() {
    let receiver = Receiver::start(None).await;
    let clock = Clock::manual(start());
    let app = App::with(&[("callbacks.handshake_hosts", "*")], clock.clone()).await;
    let job = submit(&app, &receiver).await;
    let refused = app.job_when(&job, |job| job["callback"]["attempts"] == 1).await;
    assert_eq!(refused["callback"]["status"], "pending");
    let deliveries = app.get_json(&format!("/v1/jobs/{job}/deliveries")).await;
    let error = &deliveries["items"][0]["last_error"];
    assert_eq!(error["class"], "http");
    assert!(text(error, "/detail").contains("did not permit"), "{error}");
    assert_eq!(receiver.methods(), [Method::OPTIONS]);
    let tried = app.http.post(app.url("/v1/callbacks/test"));
    let tried = tried.json(&serde_json::json!({ "url": receiver.url })).send().await.unwrap();
    let tried: serde_json::Value = tried.json().await.unwrap();
    assert!(tried.to_string().contains("did not permit"), "{tried}");

    *receiver.allowed.lock().unwrap() = Some(("*", "*"));
    clock.set(start().checked_add(SignedDuration::from_secs(60)).unwrap());
    delivered(&app, &job).await;
    assert_eq!(receiver.methods(), [Method::OPTIONS, Method::OPTIONS, Method::OPTIONS, Method::POST]);
    app.stop().await;
}

#[tokio::test]
async fn the_rate_that_a_receiver_permits_is_kept() {
    let receiver = Receiver::start(Some(("*", "6"))).await;
    let clock = Clock::manual(start());
    let flags = [("callbacks.handshake_hosts", "*"), ("destinations.initial_concurrency", "1")];
    let app = App::with(&flags, clock.clone()).await;
    let mut jobs = Vec::new();
    for _ in 0..4 {
        jobs.push(submit(&app, &receiver).await);
    }
    // What was taken up before the rate was known, and then one every ten seconds.
    for (sent, second) in [(2, 0), (3, 10), (4, 20)] {
        clock.set(start().checked_add(SignedDuration::from_secs(second)).unwrap());
        eventually(async || (receiver.seen(&Method::POST).len() >= sent).then_some(())).await;
        eventually(async || {
            let destinations = app.get_json("/v1/destinations").await;
            (destinations["items"][0]["in_flight"] == 0).then_some(())
        })
        .await;
    }
    for job in jobs {
        delivered(&app, &job).await;
    }
    let seconds = receiver.seen(&Method::POST).into_iter().map(|headers| {
        let signed: i64 = headers["webhook-timestamp"].to_str().unwrap().parse().unwrap();
        signed - start().as_second()
    });
    assert_eq!(seconds.collect::<Vec<_>>(), [0, 0, 10, 20]);
    app.stop().await;
}
