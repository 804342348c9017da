//! What tells an operator that all is well: the ledger, the metrics, the doctor; and the trial of a callback.

use darkroom::notify::webhook::signature;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::cli::{run, stdout};
use crate::support::receiver::Receiver;
use crate::support::{App, eventually, picture, text};

impl App {
    async fn trial(&self, body: Value) -> Value {
        let response = self.http.post(self.url("/v1/callbacks/test")).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    async fn metric(&self, line: &str) -> Option<String> {
        let metrics = self.get("/metrics").await.text().await.unwrap();
        metrics.lines().find_map(|found| found.strip_prefix(line)).map(|value| value.trim().to_owned())
    }
}

#[tokio::test]
async fn a_trial_is_sent_signed_and_not_kept() {
    let (app, receiver) = (App::start().await, Receiver::start(&[200]).await);
    let answer = app.trial(json!({ "url": receiver.url })).await;
    assert_eq!((&answer["delivered"], &answer["guard"]["allowed"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(answer["attempt"]["status_code"], 200);
    assert!(answer["attempt"]["timings_ms"]["ttfb"].is_number(), "{answer}");

    let sent = receiver.nth(1).await;
    assert_eq!((sent.json()["type"].as_str(), sent.header("webhook-attempt")), (Some("callback.test"), "1"));
    assert_eq!(String::from_utf8(sent.body.to_vec()).unwrap(), text(&answer, "/sent/body"));
    let secret = app.signing_secret().parse().unwrap();
    let now = darkroom::clock::Clock::system().now();
    assert_eq!(signature::verify(&secret, &sent.headers, &sent.body, now), Ok(()));
    assert_eq!(app.get_json("/v1/deliveries").await["items"], json!([]));
    assert_eq!(app.get_json("/v1/ledger").await["accepted"], 0);
    app.stop().await;
}

#[tokio::test]
async fn a_trial_tells_the_guards_verdict_and_what_is_wrong_with_a_secret() {
    let app = App::start().await;
    for (url, reason) in [
        ("http://169.254.169.254/latest", "metadata"),
        ("http://[::ffff:10.0.0.1]/", "embedded_ipv4"),
        ("ftp://hooks.example/", "scheme"),
        ("nonsense", "syntax"),
    ] {
        let answer = app.trial(json!({ "url": url })).await;
        assert_eq!((answer["guard"]["allowed"].as_bool(), &answer["sent"]), (Some(false), &Value::Null));
        assert_eq!(answer["guard"]["reason"], reason, "{url}");
    }
    let body = json!({ "url": "http://127.0.0.1:9/", "secret": "hunter2" });
    let refused = app.http.post(app.url("/v1/callbacks/test")).json(&body).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(!refused.text().await.unwrap().contains("hunter2"));
    for body in ["", "{", "[]", r#"{"url": 7}"#, r#"{"url": "http://a/", "colour": "red"}"#] {
        let refused = app.http.post(app.url("/v1/callbacks/test")).body(body).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{body}");
    }
    app.stop().await;
}

#[tokio::test]
async fn every_delivery_is_accounted_for() {
    let flags = [("callbacks.max_attempts", "1")];
    let app = App::with(&flags, darkroom::clock::Clock::system()).await;
    let (well, refusing) = (Receiver::start(&[200]).await, Receiver::start(&[503]).await);
    for url in [&well.url, &refusing.url] {
        app.accepted(picture::jpeg(8, 6), &[("callback_url", url)]).await;
    }
    let ledger = eventually(async || {
        let ledger = app.get_json("/v1/ledger?recount=true").await;
        (ledger["delivered"] == 1 && ledger["exhausted"] == 1).then_some(ledger)
    })
    .await;
    assert_eq!((&ledger["accepted"], &ledger["balanced"]), (&json!(2), &json!(true)));
    assert_eq!(ledger["recount"], json!({ "jobs": 2, "deliveries": 2, "faults": [] }));

    assert_eq!(app.metric("darkroom_deliveries_balanced").await.as_deref(), Some("1"));
    assert_eq!(app.metric(r#"darkroom_undelivered{state="exhausted"}"#).await.as_deref(), Some("1"));
    let attempts = app.metric(r#"darkroom_deliveries_total{outcome="exhausted"}"#).await;
    assert!(attempts.is_some_and(|count| count.parse::<u64>().unwrap() >= 1), "other tests count, too");

    let found = run(&["doctor", "--recount"], &app.url("")).await;
    let told = stdout(&found);
    assert!(found.status.success(), "{told}");
    assert!(told.contains("2 accepted = 1 delivered + 0 waiting + 1 exhausted + 0 cancelled"), "{told}");
    assert!(told.contains("look   deliveries: 1 were given up"), "{told}");
    app.stop().await;
}

#[tokio::test]
async fn a_recount_while_much_is_done_finds_no_faults() {
    let (app, receiver) = (App::start().await, Receiver::start(&[]).await);
    let traffic = async {
        for _ in 0..60 {
            app.accepted(picture::jpeg(8, 6), &[("callback_url", &receiver.url)]).await;
        }
    };
    let recounts = async {
        let mut books = Vec::new();
        for _ in 0..30 {
            books.push(app.get_json("/v1/ledger?recount=true").await);
        }
        books
    };
    for ledger in tokio::join!(traffic, recounts).1 {
        assert_eq!(ledger["recount"]["faults"], json!([]), "{ledger}");
    }
    app.stop().await;
}
