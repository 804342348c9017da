//! Asking only for what one has not got: entity tags, ranges, and waiting for a job's end.

use darkroom::clock::Clock;
use http::HeaderMap;
use reqwest::{RequestBuilder, Response};

use crate::bad_input::assert_both_headers;
use crate::support::{App, bounded, eventually, form, picture, text};

async fn finished(app: &App) -> (String, String) {
    let job = app.accepted(picture::jpeg(300, 200), &[]).await;
    let id = text(&job, "/id").to_owned();
    app.finished(&id).await;
    (format!("/v1/jobs/{id}"), format!("/v1/jobs/{id}/artifacts/original"))
}

fn get(app: &App, path: &str, headers: &[(&'static str, &str)]) -> RequestBuilder {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    app.http.get(app.url(path)).headers(headers)
}

async fn answer(app: &App, path: &str, headers: &[(&'static str, &str)]) -> Response {
    let response = get(app, path, headers).send().await.unwrap();
    assert_both_headers(response.headers());
    response
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let app = App::start().await;
    let (job, original) = finished(&app).await;
    for (path, cache_control) in
        [(&job, "private, no-cache"), (&original, "private, max-age=31536000, immutable")]
    {
        let whole = answer(&app, path, &[]).await;
        let etag = header(&whole, "etag").to_owned();
        assert_eq!((whole.status().as_u16(), header(&whole, "cache-control")), (200, cache_control));
        let same = answer(&app, path, &[("if-none-match", &etag), ("range", "bytes=99999999-")]).await;
        assert_eq!(same.status(), 304);
        assert_eq!((header(&same, "etag"), header(&same, "cache-control")), (&*etag, cache_control));
        assert!(!same.headers().contains_key("content-type") && same.bytes().await.unwrap().is_empty());
        assert_eq!(answer(&app, path, &[("if-none-match", "\"another\"")]).await.status(), 200);
    }
    app.stop().await;
}

#[tokio::test]
async fn an_artifact_comes_in_parts() {
    let app = App::start().await;
    let (_, path) = finished(&app).await;
    let whole = answer(&app, &path, &[]).await;
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    let etag = header(&whole, "etag").to_owned();
    let whole = whole.bytes().await.unwrap();
    let n = whole.len();

    for (range, bytes) in [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=100-299".to_owned(), 100..300),
        (format!("bytes={}-", n - 7), n - 7..n),
        ("bytes=-5".to_owned(), n - 5..n),
    ] {
        let part = answer(&app, &path, &[("range", &range), ("if-range", &etag)]).await;
        assert_eq!(part.status(), 206, "{range}");
        let expected = format!("bytes {}-{}/{n}", bytes.start, bytes.end - 1);
        assert_eq!((header(&part, "content-range"), header(&part, "etag")), (&*expected, &*etag));
        assert_eq!(header(&part, "content-length"), bytes.len().to_string());
        assert_eq!(part.bytes().await.unwrap(), whole[bytes]);
    }

    let beyond = answer(&app, &path, &[("range", &format!("bytes={n}-"))]).await;
    assert_eq!((beyond.status().as_u16(), header(&beyond, "content-range")), (416, &*format!("bytes */{n}")));
    assert_eq!(beyond.json::<serde_json::Value>().await.unwrap()["code"], "range-not-satisfiable");

    for headers in
        [vec![("range", "bytes=0-1,4-5")], vec![("range", "bytes=0-1"), ("if-range", "\"another\"")]]
    {
        let response = answer(&app, &path, &headers).await;
        assert_eq!(response.status(), 200, "{headers:?}");
        assert_eq!(response.bytes().await.unwrap(), whole);
    }
    let head = app.http.head(app.url(&path)).header("range", "bytes=0-0").send().await.unwrap();
    assert_eq!((head.status().as_u16(), header(&head, "content-length")), (200, &*n.to_string()));
    app.stop().await;
}

#[tokio::test]
async fn a_client_may_wait_for_the_end() {
    // A client that waits is neither idle nor slow.
    let app = App::with_fresh_connections(&[
        ("server.header_timeout_ms", "100"),
        ("server.write_timeout_ms", "100"),
    ])
    .await;
    let submitted = app.http.post(app.url("/v1/jobs")).header("prefer", "wait=60");
    let response = submitted.multipart(form(picture::jpeg(900, 700), &[])).send().await.unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "preference-applied")), (202, "wait=60"));
    assert!(!response.headers().contains_key("retry-after"));
    let job: serde_json::Value = response.json().await.unwrap();
    assert_eq!(text(&job, "/status"), "completed");

    let job = app.accepted(picture::jpeg(900, 700), &[]).await;
    let path = format!("/v1/jobs/{}", text(&job, "/id"));
    let response = answer(&app, &path, &[("prefer", "respond-async, wait=3600")]).await;
    assert_eq!((response.status().as_u16(), header(&response, "preference-applied")), (200, "wait=60"));
    assert_eq!(text(&response.json().await.unwrap(), "/status"), "completed");
    assert_eq!(header(&answer(&app, &path, &[]).await, "preference-applied"), "");
    app.stop().await;
}

#[tokio::test]
async fn who_waits_is_answered_when_the_service_stops() {
    let app =
        App::with(&[("imaging.threads", "1"), ("server.drain_timeout_ms", "86400000")], Clock::system())
            .await;
    // Keeps the one thread busy until the stop.
    app.accepted(picture::encode(&picture::noise(1600, 1500).into(), image::ImageFormat::Png), &[]).await;
    let submitted = app.http.post(app.url("/v1/jobs")).header("prefer", "wait=60");
    let waiting = tokio::spawn(submitted.multipart(form(picture::jpeg(20, 20), &[])).send());
    eventually(async || {
        (app.get_json("/v1/jobs").await["items"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    app.stop().await;
    let response = bounded(waiting).await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), header(&response, "preference-applied")), (202, "wait=60"));
    assert_eq!(text(&response.json().await.unwrap(), "/status"), "queued");
}
