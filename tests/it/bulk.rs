//! Many jobs in one request: called off by a filter, and handed in as a batch.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::cli::{run, stdout};
use crate::support::origin::{Answer, Origin};
use crate::support::{App, picture, text};

async fn post(app: &App, path: &str) -> Response {
    app.http.post(app.url(path)).send().await.unwrap()
}

async fn cancel(app: &App, query: &str) -> Value {
    let response = post(app, &format!("/v1/jobs/cancel?{query}")).await;
    assert_eq!(response.status(), StatusCode::OK, "{query}");
    response.json().await.unwrap()
}

/// Nothing is taken up.
async fn paused() -> App {
    let app = App::start().await;
    assert_eq!(post(&app, "/v1/queue/pause?what=work").await.status(), StatusCode::OK);
    app
}

async fn statuses(app: &App) -> Vec<String> {
    let list = app.get_json("/v1/jobs?limit=200").await;
    list["items"].as_array().unwrap().iter().map(|job| text(job, "/status").to_owned()).collect()
}

#[tokio::test]
async fn those_that_fit_are_called_off_and_no_others() {
    let app = paused().await;
    for tags in ["red", "red,blue", "blue"] {
        app.accepted(picture::jpeg(20, 20), &[("tags", tags)]).await;
    }
    let dry = cancel(&app, "tag=red&dry_run=true").await;
    assert_eq!((&dry["dry_run"], &dry["matched"]), (&json!(true), &json!(2)));
    assert_eq!(dry["sample"].as_array().unwrap().len(), 2);
    assert!(text(&dry, "/_links/cancel/href").ends_with("/v1/jobs/cancel?tag=red"));
    assert_eq!(statuses(&app).await, ["queued"; 3]);

    let done = cancel(&app, "tag=red").await;
    let expected = json!({"dry_run": false, "matched": 2, "cancelled": 2, "stopping": 0, "skipped": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&done[name], value, "{name}");
    }
    assert_eq!(done["page"], json!({"next_cursor": null, "has_more": false}));
    assert_eq!(statuses(&app).await, ["queued", "cancelled", "cancelled"]);
    assert_eq!(cancel(&app, "tag=red").await["matched"], 0, "what has ended is not matched");
    assert_eq!(cancel(&app, "created_before=2020-01-01T00:00:00Z").await["matched"], 0);
    assert_eq!(cancel(&app, "status=queued").await["cancelled"], 1);
    app.stop().await;
}

#[tokio::test]
async fn nobody_calls_everything_off_by_leaving_something_out() {
    let app = paused().await;
    app.accepted(picture::jpeg(20, 20), &[]).await;
    for (query, code) in [
        ("", "missing-filter"),
        ("?dry_run=true", "missing-filter"),
        ("?status=completed", "invalid-parameter"),
        ("?status=lost", "invalid-parameter"),
        ("?tags=a", "invalid-parameter"),
        ("?tag=a&cursor=nonsense", "invalid-parameter"),
        ("?tag=a&limit=1", "invalid-parameter"),
    ] {
        let response = post(&app, &format!("/v1/jobs/cancel{query}")).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], code, "{query}");
    }
    assert_eq!(statuses(&app).await, ["queued"]);
    app.stop().await;
}

#[tokio::test]
async fn more_than_one_call_takes_is_gone_on_with() {
    let app = paused().await;
    let origin = Origin::start(vec![Answer::nothing()]).await;
    let jobs: Vec<_> = (0..100).map(|n| json!({ "source_url": origin.url(&format!("/{n}")) })).collect();
    for _ in 0..11 {
        let batch = batch(&app, &json!({ "jobs": jobs })).await;
        assert_eq!(batch.status(), StatusCode::ACCEPTED);
    }
    let first = cancel(&app, "status=queued").await;
    assert_eq!((&first["cancelled"], &first["page"]["has_more"]), (&json!(1000), &json!(true)));
    let next = text(&first, "/_links/next/href");
    let rest: Value = app.http.post(next).send().await.unwrap().json().await.unwrap();
    assert_eq!((&rest["cancelled"], &rest["page"]["has_more"]), (&json!(100), &json!(false)));
    app.stop().await;
}

async fn batch(app: &App, body: &Value) -> Response {
    app.http.post(app.url("/v1/jobs/batch")).json(body).send().await.unwrap()
}

#[tokio::test]
async fn each_of_a_batch_is_answered_for_itself() {
    let app = App::start().await;
    let origin = Origin::start(vec![Answer::picture(&picture::jpeg(40, 30))]).await;
    let good = json!({"source_url": origin.url("/a.jpg"), "idempotency_key": "order-1", "tags": ["a"]});
    let jobs = json!([
        good,
        {"source_url": "ftp://a.example/", "tags": ["b"]},
        {"tags": "b", "colour": "red"},
        [],
        {"source_url": origin.url("/b.jpg"), "idempotency_key": "no space"},
        {"source_url": origin.url("/c.jpg")},
    ]);
    let response = batch(&app, &json!({ "jobs": jobs })).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let answer: Value = response.json().await.unwrap();
    assert_eq!((&answer["accepted"], &answer["refused"]), (&json!(2), &json!(4)));
    let items = answer["items"].as_array().unwrap();
    let told: Vec<_> = items
        .iter()
        .map(|item| {
            (item["index"].as_u64().unwrap(), item["status"].as_u64().unwrap(), &item["problem"]["code"])
        })
        .collect();
    let expected = [
        (0, 202, Value::Null),
        (1, 422, json!("source-url-rejected")),
        (2, 422, json!("validation")),
        (3, 400, json!("malformed-json")),
        (4, 400, json!("idempotency-key-invalid")),
        (5, 202, Value::Null),
    ];
    assert_eq!(told, expected.each_ref().map(|(index, status, code)| (*index, *status, code)));
    assert_eq!(items[2]["problem"]["instance"], "/v1/jobs/batch#/jobs/2");
    assert_eq!(items[2]["problem"]["errors"].as_array().unwrap().len(), 3, "each fault is named");
    let id = text(&items[0], "/job/id").to_owned();
    assert_eq!(app.finished(&id).await["status"], "completed");

    // The lines of another request, with the same key.
    let lines = format!("{good}\n\n{{\n");
    let request = app.http.post(app.url("/v1/jobs/batch")).header("content-type", "application/x-ndjson");
    let again: Value = request.body(lines).send().await.unwrap().json().await.unwrap();
    assert_eq!((&again["items"][0]["replayed"], text(&again, "/items/0/job/id")), (&json!(true), &*id));
    assert_eq!(again["items"][1]["problem"]["code"], "malformed-json");
    app.stop().await;
}

#[tokio::test]
async fn a_batch_has_bounds() {
    let app = paused().await;
    let job = json!({"source_url": "https://127.0.0.1/"});
    for (jobs, code) in [(vec![], "empty"), (vec![job.clone(); 101], "too_many")] {
        let refused = batch(&app, &json!({ "jobs": jobs })).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(refused.json::<Value>().await.unwrap()["errors"][0]["code"], code);
    }
    let large = json!({"jobs": [{"metadata": {"a": "x".repeat(1 << 20)}}]});
    assert_eq!(batch(&app, &large).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
    for body in ["", "[]", "{}", r#"{"jobs": 1}"#, r#"{"jobs": [], "more": 1}"#] {
        let request = app.http.post(app.url("/v1/jobs/batch")).header("content-type", "application/json");
        assert_eq!(request.body(body).send().await.unwrap().status(), StatusCode::BAD_REQUEST, "{body}");
    }
    let text = app.http.post(app.url("/v1/jobs/batch")).body("x").send().await.unwrap();
    assert_eq!(text.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let none = batch(&app, &json!({"jobs": [{}]})).await;
    assert_eq!(
        (none.status(), none.json::<Value>().await.unwrap()["refused"].clone()),
        (StatusCode::OK, json!(1))
    );
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_hands_in_and_calls_off_many() {
    let app = paused().await;
    let file = app.folder.path().join("jobs.ndjson");
    let line = |tag: &str| format!("{}\n", json!({"source_url": "http://127.0.0.1:9/a.jpg", "tags": [tag]}));
    std::fs::write(&file, [line("red"), line("red"), line("blue")].concat()).unwrap();
    let file = file.to_str().unwrap();
    let darkroom = async |args: &[&str]| run(args, app.running.base_url()).await;
    let submitted = darkroom(&["submit", "--batch", file]).await;
    assert!(submitted.status.success(), "{submitted:?}");
    assert_eq!(stdout(&submitted).lines().filter(|line| line.contains("job_")).count(), 3);

    let bulk = ["jobs", "cancel", "--all-matching", "--tag", "red"];
    let dry = darkroom(&[&bulk[..], &["--dry-run"]].concat()).await;
    assert!(stdout(&dry).ends_with("2 would be called off\n"), "{dry:?}");
    assert_eq!(statuses(&app).await, ["queued"; 3]);
    let done = darkroom(&bulk).await;
    assert!(stdout(&done).starts_with("2 matched: 2 cancelled"), "{done:?}");
    // Jobs of one millisecond are listed in any order.
    let mut left = statuses(&app).await;
    left.sort();
    assert_eq!(left, ["cancelled", "cancelled", "queued"]);
    for wrong in
        [&["jobs", "cancel"][..], &["jobs", "cancel", "--all-matching"], &["jobs", "cancel", "--tag", "red"]]
    {
        assert_eq!(darkroom(wrong).await.status.code(), Some(2), "{wrong:?}");
    }
    app.stop().await;
}
