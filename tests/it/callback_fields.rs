//! What a job's callback has of its own: headers and schedule.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use darkroom::clock::Clock;
use darkroom::domain::secret::SigningSecret;
use jiff::Timestamp;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::receiver::Receiver;
use crate::support::{App, BOUND, bounded, form, picture, text};

const HEADERS: &str = r#"{"Authorization":"Bearer s3cr3t-t0ken","X-Team":"cats"}"#;

#[tokio::test]
async fn a_jobs_own_schedule_is_kept_to() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[503, 503, 503]).await;
    let fields = [
        ("callback_url", receiver.url.as_str()),
        ("callback_max_attempts", "3"),
        ("callback_retry_initial_ms", "60000"),
        ("callback_retry_max_ms", "90000"),
    ];
    let job = app.accepted(picture::jpeg(40, 30), &fields).await;
    let id = text(&job, "/id");
    for key in ["max_attempts", "retry_initial_ms", "retry_max_ms"] {
        assert!(job["callback"][key].is_u64(), "{job}");
    }
    for (attempt, seconds) in [(1, 60.0), (2, 90.0)] {
        let waits =
            |job: &Value| job["callback"]["status"] == "pending" && job["callback"]["attempts"] == attempt;
        let job = app.job_when(id, waits).await;
        let due: Timestamp = text(&job, "/callback/next_attempt_at").parse().unwrap();
        let waited = due.duration_since(clock.now()).as_secs_f64();
        assert!((seconds..=seconds * 1.1).contains(&waited), "attempt {attempt}: {waited} s");
        clock.set(due);
    }
    let job = app.job_when(id, |job| job["callback"]["status"] == "exhausted").await;
    assert_eq!(job["callback"]["attempts"], 3);
    app.stop().await;
}

/// All that can be read of a job and its callback.
async fn everything(app: &App, job: &str) -> String {
    let mut all = String::new();
    for path in ["", "/events", "/deliveries"] {
        all += &app.get(&format!("/v1/jobs/{job}{path}")).await.text().await.unwrap();
    }
    let deliveries = app.get_json(&format!("/v1/jobs/{job}/deliveries")).await;
    let delivery = text(&deliveries, "/items/0/id");
    for path in ["/v1/jobs", "/v1/events", "/v1/deliveries"] {
        all += &app.get(path).await.text().await.unwrap();
    }
    for path in ["", "/attempts"] {
        all += &app.get(&format!("/v1/deliveries/{delivery}{path}")).await.text().await.unwrap();
    }
    all
}

#[tokio::test]
async fn headers_are_sent_and_shown_by_their_names_alone() {
    let app = App::start().await;
    let receiver = Receiver::start(&[503]).await;
    let fields = [("callback_url", receiver.url.as_str()), ("callback_headers", HEADERS)];
    let job = app.accepted(picture::jpeg(40, 30), &fields).await;
    assert_eq!(job["callback"]["headers"], json!(["authorization", "x-team"]));
    let callback = receiver.nth(1).await;
    assert_eq!(
        (callback.header("authorization"), callback.header("x-team")),
        ("Bearer s3cr3t-t0ken", "cats")
    );
    let id = text(&job, "/id");
    app.job_when(id, |job| job["callback"]["attempts"] == 1).await;
    let all = everything(&app, id).await;
    assert!(!all.contains("s3cr3t") && !String::from_utf8_lossy(&callback.body).contains("s3cr3t"), "{all}");
    app.stop().await;
}

/// A server that logs everything there is to log into a file.
fn verbose(folder: &Path) -> (Child, String) {
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
    command.args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(folder.join("data"));
    let filter = "trace,sled=warn";
    let command = command.env("DARKROOM_LOG__FILTER", filter).env("DARKROOM_CALLBACKS__ED25519", "true");
    let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().trim_start_matches("listening on ").to_owned())
}

#[tokio::test]
async fn no_credential_is_logged_at_any_level() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let (mut child, url) = verbose(folder.path());
    let http = reqwest::Client::builder().no_proxy().timeout(BOUND).build().unwrap();
    let rotated = http.post(format!("{url}/v1/secrets/rotate")).send().await.unwrap();
    let rotated: Value = rotated.json().await.unwrap();
    let own = SigningSecret::from_entropy([9; 32]).expose_text();
    let fields = [("callback_url", &*receiver.url), ("callback_headers", HEADERS), ("callback_secret", &own)];
    for form in [form(picture::jpeg(40, 30), &fields), form(picture::jpeg(40, 30), &fields[..2])] {
        let accepted = http.post(format!("{url}/v1/jobs")).multipart(form).send().await.unwrap();
        assert_eq!(accepted.status(), StatusCode::ACCEPTED);
    }
    receiver.nth(2).await;
    assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert!(bounded(ended).await.unwrap().success());
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("delivery.attempt") && log.contains("TRACE"), "it is looked at the right place");
    let key = std::fs::read_to_string(folder.path().join("data/encryption-key")).unwrap();
    for secret in ["s3cr3t", &own[6..], &text(&rotated, "/secret")[6..], key.trim()] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_by_its_field_and_not_repeated() {
    let app = App::start().await;
    for (field, value, code) in [
        ("callback_headers", "s3cr3t", "not_json"),
        ("callback_headers", r#"{"x":1}"#, "not_a_string"),
        ("callback_headers", r#"{"Webhook-Id":"s3cr3t"}"#, "reserved"),
        ("callback_headers", r#"{"x":"s3cr3t\r\nhost: a"}"#, "invalid_value"),
        ("callback_max_attempts", "26", "out_of_range"),
        ("callback_retry_initial_ms", "1", "out_of_range"),
        ("callback_retry_max_ms", "86400001", "out_of_range"),
    ] {
        let fields = [("callback_url", "http://127.0.0.1:9/"), (field, value)];
        let refused = app.submit(picture::jpeg(40, 30), &fields).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        let problem: Value = refused.json().await.unwrap();
        assert_eq!((text(&problem, "/errors/0/field"), text(&problem, "/errors/0/code")), (field, code));
        assert!(!problem.to_string().contains("s3cr3t"), "{problem}");
    }
    let refused = app.submit(picture::jpeg(40, 30), &[("callback_headers", HEADERS)]).await;
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(text(&problem, "/errors/0/field"), "callback_url");
    app.stop().await;
}

#[tokio::test]
async fn they_are_part_of_what_an_idempotency_key_stands_for() {
    let app = App::start().await;
    let submit = async |headers: &str, attempts: &str| {
        let fields = [
            ("callback_url", "http://127.0.0.1:9/"),
            ("callback_headers", headers),
            ("callback_max_attempts", attempts),
        ];
        let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", "one");
        let response = request.multipart(form(picture::jpeg(40, 30), &fields)).send().await.unwrap();
        response.status()
    };
    assert_eq!(submit(HEADERS, "3").await, StatusCode::ACCEPTED);
    assert_eq!(submit(HEADERS, "3").await, StatusCode::ACCEPTED);
    assert_eq!(submit(&HEADERS.replace("s3cr3t", "another"), "3").await, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(submit(HEADERS, "4").await, StatusCode::UNPROCESSABLE_ENTITY);
    app.stop().await;
}
