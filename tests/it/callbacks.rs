//! The completion event on its way to the receiver.

use std::time::Duration;

use darkroom::clock::Clock;
use darkroom::domain::secret::SigningSecret;
use darkroom::notify::webhook::signature;
use jiff::Timestamp;
use serde_json::json;

use crate::support::receiver::{Callback, Receiver};
use crate::support::{App, picture, text};

fn verify(callback: &Callback, secret: &str, now: Timestamp) -> Result<(), signature::VerifyError> {
    let secret: SigningSecret = secret.parse().unwrap();
    signature::verify(&secret, &callback.headers, &callback.body, now)
}

#[tokio::test]
async fn the_callback_is_signed_and_holds_the_finished_job() {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    let job = app.accepted(picture::jpeg(400, 300), &[("callback_url", &receiver.url)]).await;
    let callback = receiver.nth(1).await;
    verify(&callback, &app.signing_secret(), Clock::system().now()).unwrap();
    assert_eq!(callback.header("content-type"), "application/json");
    assert_eq!(callback.header("webhook-attempt"), "1");
    assert!(callback.header("user-agent").starts_with("Darkroom/"));
    let event = callback.json();
    assert_eq!(text(&event, "/id"), callback.header("webhook-id"));
    assert_eq!((text(&event, "/type"), text(&event, "/subject")), ("job.completed", text(&job, "/id")));
    assert_eq!(event["data"]["artifacts"].as_array().unwrap().len(), 3);

    let job = app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;
    assert_eq!(job["callback"]["attempts"], 1);
    assert_eq!(receiver.all().len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_jobs_own_secret_and_events_are_used() {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    let secret = SigningSecret::from_entropy([9; 32]).expose_text();
    let fields = [
        ("callback_url", receiver.url.as_str()),
        ("callback_secret", &secret),
        ("callback_events", "queued,completed"),
    ];
    let job = app.accepted(picture::jpeg(40, 30), &fields).await;
    assert!(!job.to_string().contains("whsec_"));
    let (first, second) = (receiver.nth(1).await, receiver.nth(2).await);
    let mut kinds = [first.json(), second.json()].map(|event| text(&event, "/type").to_owned());
    kinds.sort_unstable();
    assert_eq!(kinds, ["job.completed", "job.queued"]);
    for callback in [&first, &second] {
        verify(callback, &secret, Clock::system().now()).unwrap();
        assert!(verify(callback, &app.signing_secret(), Clock::system().now()).is_err());
    }
    app.stop().await;
}

#[tokio::test]
async fn three_refusals_then_four_attempts_in_no_real_time() {
    let start: Timestamp = "2026-11-21T09:00:00Z".parse().unwrap();
    let clock = Clock::manual(start);
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[500, 500, 500]).await;
    let job = app.accepted(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]).await;
    let id = text(&job, "/id");

    // Each delay is the schedule's, with at most a tenth of jitter, and never early.
    for (attempt, delay) in [(1, 5), (2, 25), (3, 125)] {
        let job = app
            .job_when(id, |job| {
                job["callback"]["status"] == "pending" && job["callback"]["attempts"] == attempt
            })
            .await;
        let due: Timestamp = text(&job, "/callback/next_attempt_at").parse().unwrap();
        let waited = Duration::try_from(due.duration_since(clock.now())).unwrap().as_secs_f64();
        assert!(
            (f64::from(delay)..=f64::from(delay) * 1.1).contains(&waited),
            "attempt {attempt}: {waited} s"
        );
        assert_eq!(receiver.all().len(), attempt);
        clock.set(due);
    }
    let job = app.job_when(id, |job| job["callback"]["status"] == "delivered").await;
    assert_eq!(job["callback"]["attempts"], 4);

    let callbacks = receiver.all();
    assert_eq!(callbacks.len(), 4);
    assert!(callbacks.iter().all(|callback| callback.body == callbacks[0].body));
    assert!(
        callbacks.iter().all(|callback| callback.header("webhook-id") == callbacks[0].header("webhook-id"))
    );
    let numbers: Vec<_> = callbacks.iter().map(|callback| callback.header("webhook-attempt")).collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    // Each attempt is signed for its own time.
    verify(&callbacks[0], &app.signing_secret(), start).unwrap();
    verify(&callbacks[3], &app.signing_secret(), clock.now()).unwrap();

    let deliveries = app.http.get(text(&job, "/_links/deliveries/href")).send().await.unwrap();
    let deliveries: serde_json::Value = deliveries.json().await.unwrap();
    let attempts = app.http.get(text(&deliveries, "/items/0/_links/attempts/href")).send().await.unwrap();
    let attempts: serde_json::Value = attempts.json().await.unwrap();
    let statuses: Vec<_> =
        attempts["items"].as_array().unwrap().iter().map(|a| a["status_code"].clone()).collect();
    assert_eq!(statuses, [json!(500), json!(500), json!(500), json!(200)]);
    assert_eq!(attempts["items"][0]["error"]["class"], "http");
    assert_eq!(attempts["items"][3]["error"], json!(null));
    app.stop().await;
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_the_schedules_end_is_shown() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[("callbacks.max_attempts", "2")], clock.clone()).await;
    let receiver = Receiver::start(&[302, 404]).await;
    let job = app.accepted(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]).await;
    let id = text(&job, "/id");
    let waiting = app
        .job_when(id, |job| job["callback"]["attempts"] == 1 && job["callback"]["status"] == "pending")
        .await;
    clock.set(text(&waiting, "/callback/next_attempt_at").parse().unwrap());
    app.job_when(id, |job| job["callback"]["status"] == "exhausted").await;
    let deliveries = app.get_json(&format!("/v1/jobs/{id}/deliveries")).await;
    assert_eq!(deliveries["items"][0]["last_status_code"], 404);
    let attempts =
        app.get_json(&format!("/v1/deliveries/{}/attempts", text(&deliveries, "/items/0/id"))).await;
    assert_eq!(attempts["items"][0]["error"]["class"], "redirect");
    assert_eq!(receiver.all().len(), 2);
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_that_is_not_there_is_an_attempt_with_its_class() {
    let app = App::start().await;
    // Bound and dropped: nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let job =
        app.accepted(picture::jpeg(40, 30), &[("callback_url", &format!("http://127.0.0.1:{port}/"))]).await;
    let id = text(&job, "/id");
    app.job_when(id, |job| job["callback"]["attempts"] == 1).await;
    let deliveries = app.get_json(&format!("/v1/jobs/{id}/deliveries")).await;
    assert_eq!(deliveries["items"][0]["last_error"]["class"], "connect");
    app.stop().await;
}
