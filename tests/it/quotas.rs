//! What a client may use, tickets, and the record of what operators do.

use darkroom::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::access::{Caller, Guarded, created};
use crate::support::picture::jpeg;
use crate::support::{bounded, text};

const KEY_OF_NOBODY: &str = "dk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A service whose time stands still, with a client `a` of these limits.
pub async fn limited(limits: &[&str]) -> (Guarded, Clock) {
    let folder = tempfile::tempdir().unwrap();
    let a = created(folder.path(), &[&["a"], limits].concat());
    let b = created(folder.path(), &["b"]);
    let ops = created(folder.path(), &["ops", "--role", "operator"]);
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    (Guarded::on(folder, &[], [a, b, ops], clock.clone()).await, clock)
}

fn pass(clock: &Clock, secs: i64) {
    let now: Timestamp = clock.now();
    clock.set(now.checked_add(SignedDuration::from_secs(secs)).unwrap());
}

async fn refused(response: Response, policy: &str) -> u64 {
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait = header(&response, "retry-after").parse().unwrap();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(text(&problem, "/code"), "quota-exceeded");
    assert_eq!(problem["violated-policies"], json!([policy]));
    wait
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_quota_wait_and_others_are_served() {
    let (app, clock) = limited(&["--requests-per-minute", "3"]).await;
    for left in [2, 1, 0] {
        let response = app.a.send("GET", "/v1/jobs").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(header(&response, "ratelimit-policy").starts_with("\"requests\";q=3;w=60"));
        let limit = header(&response, "ratelimit");
        assert!(limit.starts_with(&format!("\"requests\";r={left};t={}", 20 * (3 - left))), "{limit}");
    }
    let response = app.a.send("GET", "/v1/jobs").await;
    assert!(header(&response, "ratelimit").starts_with("\"requests\";r=0;t=60"));
    assert_eq!(refused(response, "requests").await, 20);
    assert_eq!(app.b.status("GET", "/v1/jobs").await, StatusCode::OK);
    pass(&clock, 19);
    assert_eq!(refused(app.a.send("GET", "/v1/jobs").await, "requests").await, 1);
    pass(&clock, 1);
    assert_eq!(app.a.status("GET", "/v1/jobs").await, StatusCode::OK);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_refused_by_what_they_announce_and_by_what_comes() {
    let picture = jpeg(64, 64);
    let (app, clock) = limited(&["--upload-bytes-per-minute", "6000"]).await;
    assert!((600..3000).contains(&picture.len()), "{}", picture.len());
    let upload = |body: reqwest::Body| {
        let request = app.a.request(Method::POST, "/v1/jobs").header("content-type", "image/jpeg");
        request.body(body).send()
    };
    // More than all of it passes while all of it is there, and is waited for afterwards.
    let response = upload(vec![0; 9000].into()).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let wait = refused(upload(picture.clone().into()).await.unwrap(), "upload-bytes").await;
    assert!((30..60).contains(&wait), "{wait}");

    // Refused by its head: nothing of the body is asked for.
    let mut stream = TcpStream::connect(app.running.base_url().trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Type: image/jpeg\r\n\
         Content-Length: 2000\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        app.a.key.as_ref().unwrap()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    bounded(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 ") && !answer.contains("100 Continue"), "{answer}");

    pass(&clock, 90);
    assert_eq!(upload(picture.clone().into()).await.unwrap().status(), StatusCode::ACCEPTED);
    // One that announces nothing is counted as it comes.
    let chunks = (0..10).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 1000]));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(chunks));
    refused(upload(body).await.unwrap(), "upload-bytes").await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_no_more_jobs_waiting_than_it_may() {
    let (app, _) = limited(&["--waiting-jobs", "2"]).await;
    assert_eq!(app.ops.status("POST", "/v1/queue/pause?what=work").await, StatusCode::OK);
    for _ in 0..2 {
        app.a.accepted(jpeg(8, 8), &[]).await;
    }
    refused(app.a.submit(jpeg(8, 8), &[]).await, "waiting-jobs").await;
    app.b.accepted(jpeg(8, 8), &[]).await;
    assert_eq!(app.ops.status("POST", "/v1/queue/resume").await, StatusCode::OK);
    app.a.when("/v1/queue", |queue| queue["waiting"] == 0).await;
    app.a.accepted(jpeg(8, 8), &[]).await;
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_items_of_a_batch_and_a_retry_count_as_jobs_alone_do() {
    let (app, _) = limited(&["--waiting-jobs", "2", "--requests-per-minute", "10"]).await;
    assert_eq!(app.ops.status("POST", "/v1/queue/pause?what=work").await, StatusCode::OK);
    let batch = async |size: usize| -> Vec<(Value, Value)> {
        let jobs = vec![json!({ "source_url": "http://127.0.0.1:9/a.jpg" }); size];
        let answer: Value =
            app.a.post("/v1/jobs/batch", &json!({ "jobs": jobs })).await.json().await.unwrap();
        let items = answer["items"].as_array().unwrap().iter();
        items.map(|item| (item["status"].clone(), item["problem"]["violated-policies"].clone())).collect()
    };
    let job = app.a.accepted(jpeg(8, 8), &[]).await;
    assert_eq!(app.a.status("POST", &format!("/v1/jobs/{job}/cancel")).await, StatusCode::ACCEPTED);
    let mut told = batch(3).await;
    told.sort_by_key(|(status, _)| status.as_u64());
    let waiting = (json!(429), json!(["waiting-jobs"]));
    assert_eq!(told, [(json!(202), Value::Null), (json!(202), Value::Null), waiting.clone()]);
    refused(app.a.send("POST", &format!("/v1/jobs/{job}/retry")).await, "waiting-jobs").await;
    // Six requests so far.
    let requests = (json!(429), json!(["requests"]));
    assert_eq!(batch(5).await, [vec![waiting; 4], vec![requests]].concat());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_good_for_nothing_hold_up_no_other() {
    let (app, _) = limited(&[]).await;
    let stranger = app.nobody.with(KEY_OF_NOBODY);
    let mut unknown = 0;
    let throttled = loop {
        let response = stranger.send("GET", "/v1/jobs").await;
        if response.status() != StatusCode::UNAUTHORIZED {
            break response;
        }
        unknown += 1;
        assert!(unknown < 10_000);
    };
    refused(throttled, "bad-keys").await;
    assert_eq!(app.a.status("GET", "/v1/jobs").await, StatusCode::OK);
    assert_eq!(app.nobody.status("GET", "/v1/jobs").await, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

async fn ticket(caller: &Caller) -> String {
    let response = caller.send("POST", "/v1/tickets").await;
    assert_eq!(response.status(), StatusCode::CREATED);
    text(&response.json().await.unwrap(), "/ticket").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_good_once_for_looking_at_what_is_its_clients() {
    let (app, clock) = limited(&[]).await;
    let job = app.a.accepted(jpeg(8, 8), &[]).await;
    let others = app.b.accepted(jpeg(8, 8), &[]).await;
    for path in [
        format!("/v1/jobs/{job}"),
        format!("/v1/jobs/{job}/artifacts/original"),
        format!("/v1/jobs/{job}/events"),
        "/v1/events?limit=1".to_owned(),
    ] {
        let join = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{join}ticket={}", ticket(&app.a).await);
        assert_eq!(app.nobody.status("GET", &path).await, StatusCode::OK, "{path}");
        assert_eq!(app.nobody.status("GET", &path).await, StatusCode::UNAUTHORIZED, "twice: {path}");
    }
    let with = async |method: &str, path: &str| {
        let path = format!("{path}?ticket={}", ticket(&app.a).await);
        app.nobody.status(method, &path).await.as_u16()
    };
    assert_eq!(with("GET", &format!("/v1/jobs/{others}")).await, 404);
    assert_eq!(with("DELETE", &format!("/v1/jobs/{job}")).await, 401);
    assert_eq!(with("GET", "/v1/jobs").await, 401);
    assert_eq!(with("GET", "/v1/secrets").await, 401);
    let late = ticket(&app.a).await;
    pass(&clock, 30);
    let path = format!("/v1/jobs/{job}?ticket={late}");
    assert_eq!(app.nobody.status("GET", &path).await, StatusCode::UNAUTHORIZED);
    let revoked = ticket(&app.a).await;
    assert_eq!(app.ops.status("POST", "/v1/clients/a/revoke").await, StatusCode::OK);
    let path = format!("/v1/jobs/{job}?ticket={revoked}");
    assert_eq!(app.nobody.status("GET", &path).await, StatusCode::UNAUTHORIZED);
    assert_eq!(app.nobody.status("POST", "/v1/tickets").await, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_is_on_record_and_outlasts_the_service() {
    let (app, clock) = limited(&[]).await;
    let job = app.a.accepted(jpeg(8, 8), &[]).await;
    let request = app.ops.request(Method::POST, "/v1/queue/pause").header("x-request-id", "ticket-7");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
    pass(&clock, 1);
    assert_eq!(app.ops.status("DELETE", &format!("/v1/jobs/{job}")).await, StatusCode::NO_CONTENT);
    pass(&clock, 1);
    assert_eq!(app.ops.status("POST", "/v1/clients/nobody/revoke").await, StatusCode::NOT_FOUND);
    pass(&clock, 1);
    let cancelled = "/v1/jobs/cancel?tag=none&client=a";
    assert_eq!(app.ops.status("POST", cancelled).await, StatusCode::OK);
    pass(&clock, 1);
    let made = app.ops.post("/v1/clients", &json!({ "name": "c" })).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    // These are on nobody's record.
    assert_eq!(app.a.status("POST", "/v1/jobs/cancel?tag=none").await, StatusCode::OK);
    assert_eq!(app.a.status("POST", &format!("/v1/jobs/{job}/restore")).await, StatusCode::OK);
    assert_eq!(app.a.status("POST", "/v1/queue/resume").await, StatusCode::FORBIDDEN);
    assert_eq!(app.ops.status("GET", "/v1/clients").await, StatusCode::OK);
    assert_eq!(app.a.status("GET", "/v1/audit").await, StatusCode::FORBIDDEN);
    let (folder, keys) = app.stop().await;
    let app = Guarded::on(folder, &[], keys, clock).await;
    let record = app.ops.get("/v1/audit").await;
    let told: Vec<_> = record["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            [&entry["client"], &entry["action"], &entry["target"], &entry["status"]].map(Value::clone)
        })
        .collect();
    let deleted = format!("/v1/jobs/{job}");
    assert_eq!(
        told,
        [
            [json!("ops"), json!("POST /v1/clients"), json!("/v1/clients/c"), json!(201)],
            [json!("ops"), json!("POST /v1/jobs/cancel"), json!(cancelled), json!(200)],
            [
                json!("ops"),
                json!("POST /v1/clients/{name}/revoke"),
                json!("/v1/clients/nobody/revoke"),
                json!(404)
            ],
            [json!("ops"), json!("DELETE /v1/jobs/{id}"), json!(deleted), json!(204)],
            [json!("ops"), json!("POST /v1/queue/pause"), json!("/v1/queue/pause"), json!(200)],
        ]
    );
    assert_eq!(record["items"][4]["request_id"], "ticket-7");
    let first = app.ops.get("/v1/audit?limit=1").await;
    let rest = app.ops.get(text(&first, "/_links/next/href")).await;
    assert_eq!(rest["items"][0], record["items"][1]);
    app.stop().await;
}
