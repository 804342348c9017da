//! `Idempotency-Key`: a repeated request finds the job of the first.

use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::support::{App, announce, answer, form, picture, text};

async fn submit(app: &App, key: &str, picture: Vec<u8>, fields: &[(&str, &str)]) -> Response {
    let request = app.http.post(app.url("/v1/jobs")).header("idempotency-key", key);
    request.multipart(form(picture, fields)).send().await.unwrap()
}

#[tokio::test]
async fn the_same_key_finds_the_same_job_also_after_a_restart() {
    let app = App::start().await;
    let first = submit(&app, "\"k-1\"", picture::jpeg(30, 20), &[("tags", "a")]).await;
    assert_eq!(first.headers()["idempotency-replayed"], "false");
    let first: Value = first.json().await.unwrap();
    app.finished(text(&first, "/id")).await;
    let app = App::on(app.stop().await, &[], darkroom::clock::Clock::system()).await;

    let again = submit(&app, "k-1", picture::jpeg(30, 20), &[("tags", "a")]).await;
    assert_eq!(again.status(), StatusCode::ACCEPTED);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let again: Value = again.json().await.unwrap();
    assert_eq!((text(&again, "/id"), text(&again, "/status")), (text(&first, "/id"), "completed"));

    for (picture, tags) in [(picture::jpeg(30, 21), "a"), (picture::jpeg(30, 20), "b")] {
        let other = submit(&app, "k-1", picture, &[("tags", tags)]).await;
        assert_eq!(other.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(other.json::<Value>().await.unwrap()["code"], "idempotency-key-reused");
    }
    // Four blobs of the one job: what the repeated requests brought is gone.
    assert_eq!(app.files().len(), 4, "{:?}", app.files());
    app.stop().await;
}

#[tokio::test]
async fn a_key_whose_upload_is_under_way_is_a_conflict_until_that_has_ended() {
    let app = App::start().await;
    let body = picture::jpeg(30, 20);
    let headers =
        format!("Content-Length: {}\r\nIdempotency-Key: k-3\r\nExpect: 100-continue\r\n", body.len());
    let mut first = announce(&app, "image/jpeg", &headers).await;
    // The body is asked for, so the key is held.
    assert!(answer(&mut first).await.starts_with("HTTP/1.1 100"));

    let second = submit(&app, "k-3", body.clone(), &[]).await;
    assert_eq!(second.status(), StatusCode::CONFLICT);
    assert_eq!(second.json::<Value>().await.unwrap()["code"], "idempotency-key-in-flight");

    first.write_all(&body).await.unwrap();
    assert!(answer(&mut first).await.starts_with("HTTP/1.1 202"));
    let third = submit(&app, "k-3", body, &[]).await;
    assert_eq!(third.status(), StatusCode::ACCEPTED);
    assert_eq!(third.headers()["idempotency-replayed"], "true");
    app.stop().await;
}

#[tokio::test]
async fn ten_at_once_make_one_job() {
    let app = App::start().await;
    let requests = (0..10).map(|_| submit(&app, "k-2", picture::jpeg(30, 20), &[]));
    let mut ids = Vec::new();
    for response in futures_util::future::join_all(requests).await {
        match response.status() {
            StatusCode::ACCEPTED => ids.push(text(&response.json().await.unwrap(), "/id").to_owned()),
            // Told that the first is still under way.
            status => assert_eq!(status, StatusCode::CONFLICT),
        }
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.get_json("/v1/jobs").await["items"].as_array().unwrap().len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let app = App::start().await;
    for key in ["\"\"", "two words", &"x".repeat(256)] {
        let response = submit(&app, key, picture::jpeg(30, 20), &[]).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{key}");
    }
    app.stop().await;
}
