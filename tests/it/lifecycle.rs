//! What can be done to a job that is there: cancel, retry, delete, restore; start later, end in time; pause; and its end by age.

use darkroom::clock::Clock;
use jiff::{SignedDuration, Timestamp};
use reqwest::{Method, Response, StatusCode};
use serde_json::Value;

use crate::support::receiver::Receiver;
use crate::support::{App, eventually, picture, text};

/// Follows a link of a resource, with the method that it names.
async fn follow(app: &App, resource: &Value, rel: &str) -> Response {
    let link =
        resource.pointer(&format!("/_links/{rel}")).unwrap_or_else(|| panic!("no {rel} in {resource}"));
    let method: Method = text(link, "/method").parse().unwrap();
    app.http.request(method, text(link, "/href")).send().await.unwrap()
}

async fn followed(app: &App, resource: &Value, rel: &str, status: StatusCode) -> Value {
    let response = follow(app, resource, rel).await;
    assert_eq!(response.status(), status, "{rel}");
    response.json().await.unwrap()
}

async fn kinds(app: &App, job: &Value) -> Vec<String> {
    let events = followed(app, job, "events", StatusCode::OK).await;
    events["items"].as_array().unwrap().iter().map(|event| text(event, "/type").to_owned()).collect()
}

async fn post(app: &App, path: &str) -> Response {
    app.http.post(app.url(path)).send().await.unwrap()
}

fn has(job: &Value, rel: &str) -> bool {
    job["_links"].get(rel).is_some()
}

fn start() -> Timestamp {
    "2026-11-21T09:00:00Z".parse().unwrap()
}

fn days(days: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * days)
}

#[tokio::test]
async fn a_queued_job_is_cancelled_told_and_tried_again() {
    let app = App::start().await;
    let receiver = Receiver::start(&[]).await;
    assert_eq!(post(&app, "/v1/queue/pause?what=work").await.status(), StatusCode::OK);
    let job = app.accepted(picture::jpeg(20, 20), &[("callback_url", &receiver.url)]).await;
    assert!(has(&job, "cancel") && !has(&job, "retry") && !has(&job, "restore"));

    let job = followed(&app, &job, "cancel", StatusCode::ACCEPTED).await;
    assert_eq!(job["status"], "cancelled");
    assert!(!job["finished_at"].is_null() && !has(&job, "cancel"));
    let told = receiver.nth(1).await.json();
    assert_eq!((text(&told, "/type"), text(&told, "/data/status")), ("job.cancelled", "cancelled"));
    let again = post(&app, &format!("/v1/jobs/{}/cancel", text(&job, "/id"))).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    assert_eq!(again.json::<Value>().await.unwrap()["code"], "state-conflict");

    let job = followed(&app, &job, "retry", StatusCode::ACCEPTED).await;
    assert_eq!(job["status"], "queued");
    assert_eq!(post(&app, "/v1/queue/resume").await.status(), StatusCode::OK);
    let job = app.job_when(text(&job, "/id"), |job| job["status"] == "completed").await;
    assert_eq!(text(&receiver.nth(2).await.json(), "/type"), "job.completed");
    let story = eventually(async || Some(kinds(&app, &job).await).filter(|kinds| kinds.len() == 5)).await;
    let expected = ["job.queued", "job.cancelled", "job.queued", "job.started", "job.completed"];
    assert_eq!(story, expected);
    assert!(!has(&job, "retry"));
    app.stop().await;
}

#[tokio::test]
async fn a_running_job_stops_when_it_is_cancelled() {
    let app = App::with(&[("imaging.threads", "1")], Clock::system()).await;
    // Large enough to run for seconds without optimisation.
    let job = app.accepted(picture::jpeg(5000, 4000), &[]).await;
    let job = app.job_when(text(&job, "/id"), |job| job["status"] == "processing").await;
    let job = followed(&app, &job, "cancel", StatusCode::ACCEPTED).await;
    assert!(!job["cancel_requested_at"].is_null());
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!(job["status"], "cancelled");
    assert_eq!(kinds(&app, &job).await.last().map(String::as_str), Some("job.cancelled"));
    app.stop().await;
}

#[tokio::test]
async fn a_deleted_job_is_hidden_found_and_restored() {
    let app = App::start().await;
    let submit = async || {
        let form = crate::support::form(picture::jpeg(30, 20), &[("tags", "red,blue")]);
        let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", "order-7");
        request.multipart(form).send().await.unwrap()
    };
    let job: Value = submit().await.json().await.unwrap();
    let id = text(&job, "/id").to_owned();
    let job = app.finished(&id).await;
    for _ in 0..2 {
        let response = app.http.delete(app.url(&format!("/v1/jobs/{id}"))).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert!(response.headers().contains_key("x-request-id"));
        assert!(response.headers().contains_key("x-response-time-ms"));
    }
    let ids = async |query: &str| {
        let list = app.get_json(&format!("/v1/jobs?{query}")).await;
        list["items"].as_array().unwrap().iter().map(|job| text(job, "/id").to_owned()).collect::<Vec<_>>()
    };
    for query in ["", "status=completed", "tag=red"] {
        assert_eq!(ids(query).await, Vec::<String>::new(), "{query}");
        assert_eq!(ids(&format!("{query}&include_deleted=true")).await, [id.as_str()], "{query}");
    }
    let deleted = app.get_json(&format!("/v1/jobs/{id}")).await;
    assert_eq!((&deleted["active"], &deleted["status"]), (&false.into(), &"completed".into()));
    assert!(has(&deleted, "restore") && !has(&deleted, "delete") && !has(&deleted, "thumbnail"));
    assert!(text(&deleted, "/purge_at") < text(&job, "/purge_at"));
    let repeated = submit().await;
    assert_eq!(repeated.headers()["idempotency-replayed"], "true");
    assert_eq!(text(&repeated.json().await.unwrap(), "/id"), id);

    let restored = followed(&app, &deleted, "restore", StatusCode::OK).await;
    assert_eq!((&restored["active"], &restored["deleted_at"]), (&true.into(), &Value::Null));
    assert_eq!(ids("tag=blue").await, [id.as_str()]);
    assert_eq!(ids("tag=green").await, Vec::<String>::new());
    let again = post(&app, &format!("/v1/jobs/{id}/restore")).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    let unknown = format!("/v1/jobs/job_{}", "0".repeat(32));
    let response = app.http.delete(app.url(&unknown)).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test]
async fn a_deleted_active_job_is_cancelled_too() {
    let app = App::start().await;
    post(&app, "/v1/queue/pause?what=work").await;
    let job = app.accepted(picture::jpeg(20, 20), &[]).await;
    assert_eq!(follow(&app, &job, "delete").await.status(), StatusCode::NO_CONTENT);
    let job = app.get_json(&format!("/v1/jobs/{}", text(&job, "/id"))).await;
    assert_eq!(job["status"], "cancelled");
    assert_eq!(kinds(&app, &job).await, ["job.queued", "job.cancelled", "job.deleted"]);
    app.stop().await;
}

#[tokio::test]
async fn age_removes_everything_of_a_job() {
    let clock = Clock::manual(start());
    let app = App::with(&[("retention.interval_ms", "20")], clock.clone()).await;
    let receiver = Receiver::start(&[]).await;
    let mut jobs = Vec::new();
    for key in ["one", "two"] {
        let form = crate::support::form(picture::jpeg(30, 20), &[("callback_url", &receiver.url)]);
        let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", key).multipart(form);
        let job: Value = request.send().await.unwrap().json().await.unwrap();
        jobs.push(app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await);
    }
    assert_eq!(app.files().len(), 8);
    follow(&app, &jobs[0], "delete").await;
    let gone = async |job: &Value| {
        let path = format!("/v1/jobs/{}", text(job, "/id"));
        eventually(async || (app.get(&path).await.status() == StatusCode::NOT_FOUND).then_some(())).await;
    };
    // Seven days for what is deleted, thirty for what has ended.
    clock.set(start() + days(7) + SignedDuration::from_secs(60));
    gone(&jobs[0]).await;
    eventually(async || (app.files().len() == 4).then_some(())).await;
    app.get_json(&format!("/v1/jobs/{}", text(&jobs[1], "/id"))).await;
    let feed = app.get_json("/v1/events?limit=200").await;
    let subjects = feed["items"].as_array().unwrap().iter().map(|event| text(event, "/subject"));
    assert!(subjects.into_iter().all(|subject| subject == text(&jobs[1], "/id")));
    let last_seq = feed["items"].as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();

    clock.set(start() + days(31));
    gone(&jobs[1]).await;
    eventually(async || app.files().is_empty().then_some(())).await;
    assert_eq!(app.get_json("/v1/events").await["items"].as_array().unwrap().len(), 0);

    // Places in the log are never given away twice, not even after all of it is gone and a restart; keys are free again.
    let folder = app.stop().await;
    let app = App::on(folder, &[], clock).await;
    let form = crate::support::form(picture::jpeg(30, 20), &[]);
    let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", "one").multipart(form);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["idempotency-replayed"], "false");
    let feed = app.get_json("/v1/events").await;
    assert!(feed["items"][0]["seq"].as_u64().unwrap() > last_seq);
    app.stop().await;
}

#[tokio::test]
async fn a_scheduled_job_starts_when_its_time_has_come() {
    let clock = Clock::manual(start());
    let app = App::with(&[], clock.clone()).await;
    let later = app.accepted(picture::jpeg(20, 20), &[("start_at", "2026-11-21T10:00:00Z")]).await;
    assert_eq!(text(&later, "/start_at"), "2026-11-21T10:00:00.000Z");
    let now = app.accepted(picture::jpeg(20, 20), &[]).await;
    app.finished(text(&now, "/id")).await;
    let waiting = app.get_json(&format!("/v1/jobs/{}", text(&later, "/id"))).await;
    assert_eq!(waiting["status"], "queued");
    clock.set(start() + SignedDuration::from_hours(1));
    let done = app.finished(text(&later, "/id")).await;
    assert_eq!(
        (&done["status"], text(&done, "/started_at")),
        (&"completed".into(), "2026-11-21T10:00:00.000Z")
    );
    app.stop().await;
}

#[tokio::test]
async fn a_job_that_waits_too_long_fails_at_its_deadline() {
    let clock = Clock::manual(start());
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[]).await;
    post(&app, "/v1/queue/pause?what=work").await;
    let fields = [("callback_url", receiver.url.as_str()), ("deadline_ms", "5000")];
    let job = app.accepted(picture::jpeg(20, 20), &fields).await;
    assert_eq!(text(&job, "/deadline_at"), "2026-11-21T09:00:05.000Z");
    clock.set(start() + SignedDuration::from_secs(5));
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((&job["status"], text(&job, "/error/code")), (&"failed".into(), "deadline-exceeded"));
    assert_eq!(text(&receiver.nth(1).await.json(), "/type"), "job.failed");
    app.stop().await;
}

#[tokio::test]
async fn a_pause_outlasts_the_process() {
    let app = App::start().await;
    let queue: Value = post(&app, "/v1/queue/pause").await.json().await.unwrap();
    assert_eq!(queue["paused"], serde_json::json!({"intake": true, "work": true}));
    let app = App::on(app.stop().await, &[], Clock::system()).await;
    let refused = app.submit(picture::jpeg(20, 20), &[]).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "intake-paused");
    post(&app, "/v1/queue/resume?what=intake").await;
    let job = app.accepted(picture::jpeg(20, 20), &[]).await;
    let queue = app.get_json("/v1/queue").await;
    assert_eq!((&queue["waiting"], &queue["paused"]["work"]), (&1.into(), &true.into()));
    post(&app, "/v1/queue/resume").await;
    app.finished(text(&job, "/id")).await;
    assert_eq!(post(&app, "/v1/queue/pause?what=lunch").await.status(), StatusCode::BAD_REQUEST);
    app.stop().await;
}

#[tokio::test]
async fn impossible_times_and_priorities_are_refused() {
    let app = App::start().await;
    for (field, value, code) in [
        ("priority", "urgent", "unknown"),
        ("start_at", "tomorrow", "not_a_time"),
        ("start_at", "2999-01-01T00:00:00Z", "too_late"),
        ("deadline_ms", "0", "out_of_range"),
        ("deadline_ms", "soon", "out_of_range"),
    ] {
        let response = app.submit(picture::jpeg(20, 20), &[(field, value)]).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{field}={value}");
        let problem: Value = response.json().await.unwrap();
        assert_eq!((text(&problem, "/errors/0/field"), text(&problem, "/errors/0/code")), (field, code));
    }
    for query in ["created_after=yesterday", "include_deleted=maybe", "status=asleep"] {
        assert_eq!(app.get(&format!("/v1/jobs?{query}")).await.status(), StatusCode::BAD_REQUEST, "{query}");
    }
    app.stop().await;
}
