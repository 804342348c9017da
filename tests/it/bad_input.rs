//! Bad input: each kind is its own problem document, and nothing of it stays.

use http::{HeaderMap, Method};
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

use crate::support::{App, form, picture};

/// What a problem must say, headers included.
async fn problem(response: Response, status: u16, code: &str) -> Value {
    let headers = response.headers().clone();
    assert_eq!(response.status().as_u16(), status, "{code}");
    assert_eq!(headers["content-type"], "application/problem+json", "{code}");
    assert_both_headers(&headers);
    let problem: Value = response.json().await.unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&status.into(), &code.into()), "{problem}");
    assert_eq!(problem["request_id"], headers["x-request-id"].to_str().unwrap());
    assert!(problem["type"].as_str().unwrap().ends_with(&format!("/problems/{code}")));
    problem
}

pub fn assert_both_headers(headers: &HeaderMap) {
    assert!(headers["x-response-time-ms"].to_str().unwrap().parse::<f64>().unwrap() >= 0.0);
    assert!(!headers["x-request-id"].is_empty());
    assert!(headers["server-timing"].to_str().unwrap().starts_with("total;dur="));
}

fn raw(app: &App, media_type: &str, body: Vec<u8>) -> RequestBuilder {
    app.http.post(app.url("/v1/jobs")).header("content-type", media_type).body(body)
}

/// A PNG that claims a size and holds nothing.
pub fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut png = picture::encode(&picture::scene(8, 8).into(), image::ImageFormat::Png);
    png[16..20].copy_from_slice(&width.to_be_bytes());
    png[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    png
}

/// CRC-32 as PNG has it (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

#[tokio::test]
async fn pictures_that_are_none_or_too_much_are_refused_and_leave_nothing() {
    let app = App::with(&[("server.max_upload_bytes", "100000")], darkroom::clock::Clock::system()).await;
    let jpeg = picture::jpeg(300, 200);
    let half = jpeg[..jpeg.len() / 2].to_vec();
    let svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec();
    let tiff = b"II*\0\x08\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    let cases: [(&str, Vec<u8>, u16, &str); 10] = [
        ("image/jpeg", b"this is no picture at all".to_vec(), 415, "unsupported-media-type"),
        ("image/svg+xml", svg, 415, "unsupported-media-type"),
        ("image/tiff", tiff, 415, "unsupported-media-type"),
        ("image/jpeg", Vec::new(), 422, "validation"),
        ("image/jpeg", half, 422, "image-undecodable"),
        ("image/jpeg", jpeg[..3].to_vec(), 422, "image-undecodable"),
        ("image/png", png_claiming(100_000, 100_000), 422, "image-too-large"),
        ("image/png", png_claiming(0, 7), 422, "image-undecodable"),
        ("image/png", jpeg.clone(), 415, "media-type-mismatch"),
        ("image/jpeg", vec![0; 100_001], 413, "payload-too-large"),
    ];
    for (media_type, body, status, code) in cases {
        let as_raw = raw(&app, media_type, body.clone()).send().await.unwrap();
        problem(as_raw, status, code).await;
        if code != "media-type-mismatch" {
            problem(app.submit(body, &[]).await, status, code).await;
        }
    }
    assert_eq!(app.files(), Vec::<String>::new());
    assert!(app.get_json("/v1/jobs").await["items"].as_array().unwrap().is_empty());
    assert!(app.get_json("/v1/events").await["items"].as_array().unwrap().is_empty());
    app.stop().await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_without_saying_so_is_cut_off() {
    let app = App::with(&[("server.max_upload_bytes", "100000")], darkroom::clock::Clock::system()).await;
    let chunks = futures_util::stream::iter((0..400).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 1000])));
    let request = app.http.post(app.url("/v1/jobs")).header("content-type", "image/jpeg");
    let response = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    assert_eq!(problem(response, 413, "payload-too-large").await["limit"], 100_000);
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn fields_are_checked_and_named() {
    let app = App::start().await;
    let long = "x".repeat(5000);
    let cases: [(&str, &str, &str, &str); 9] = [
        ("callback_url", "not a url", "callback-url-rejected", ""),
        ("callback_url", "ftp://example.com/", "callback-url-rejected", ""),
        ("callback_url", "http://user:pw@127.0.0.1/", "callback-url-rejected", ""),
        ("callback_url", "http://10.1.2.3/", "callback-url-rejected", ""),
        ("callback_url", "http://169.254.169.254/latest", "callback-url-rejected", ""),
        ("callback_url", "http://[fd00:ec2::254]/", "callback-url-rejected", ""),
        ("metadata", "{broken", "validation", "metadata"),
        ("metadata", &long, "validation", "metadata"),
        ("surprise", "1", "validation", "surprise"),
    ];
    for (field, value, code, named) in cases {
        let problem = problem(app.submit(picture::jpeg(20, 20), &[(field, value)]).await, 422, code).await;
        if named.is_empty() {
            assert!(problem["reason"].is_string(), "{problem}");
        } else {
            assert_eq!(problem["errors"][0]["field"], named, "{problem}");
        }
    }
    let both = [("metadata", "[]"), ("tags", &long)];
    let problem = problem(app.submit(picture::jpeg(20, 20), &both).await, 422, "validation").await;
    assert_eq!(problem["errors"].as_array().unwrap().len(), 2);
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn multipart_that_is_broken_is_a_400_and_what_it_lacks_is_a_422() {
    let app = App::start().await;
    let multipart = |body: &'static [u8]| raw(&app, "multipart/form-data; boundary=X", body.to_vec()).send();
    let no_end = b"--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a\"\r\n\r\nabc";
    let garbage = b"no boundary in sight";
    for body in [no_end.as_slice(), garbage] {
        problem(multipart(body).await.unwrap(), 400, "malformed-multipart").await;
    }
    problem(
        raw(&app, "multipart/form-data", b"x".to_vec()).send().await.unwrap(),
        400,
        "malformed-multipart",
    )
    .await;
    let no_image = b"--X\r\nContent-Disposition: form-data; name=\"tags\"\r\n\r\na\r\n--X--\r\n";
    let lacking = problem(multipart(no_image).await.unwrap(), 422, "validation").await;
    assert_eq!(lacking["errors"][0]["field"], "image");
    let twice = form(picture::jpeg(20, 20), &[])
        .part("image", reqwest::multipart::Part::bytes(picture::jpeg(20, 20)));
    let twice = app.http.post(app.url("/v1/jobs")).multipart(twice).send().await.unwrap();
    assert_eq!(problem(twice, 422, "validation").await["errors"][0]["code"], "repeated");
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn an_endless_part_header_is_cut_off() {
    let app = App::start().await;
    let begin = b"--X\r\nContent-Disposition: form-data; name=\"image\"; filename=\"".to_vec();
    let endless = (0..2000).map(|_| vec![b'a'; 1000]);
    let chunks = futures_util::stream::iter([begin].into_iter().chain(endless).map(Ok::<_, std::io::Error>));
    let request =
        app.http.post(app.url("/v1/jobs")).header("content-type", "multipart/form-data; boundary=X");
    let response = request.body(reqwest::Body::wrap_stream(chunks)).send().await.unwrap();
    problem(response, 400, "malformed-multipart").await;
    assert_eq!(app.files(), Vec::<String>::new());
    app.stop().await;
}

#[tokio::test]
async fn other_bodies_than_pictures_are_refused_by_type() {
    let app = App::start().await;
    for media_type in ["text/json", "text/plain", "application/x-www-form-urlencoded"] {
        problem(raw(&app, media_type, b"{}".to_vec()).send().await.unwrap(), 415, "unsupported-media-type")
            .await;
    }
    let untyped = app.http.post(app.url("/v1/jobs")).body("x").send().await.unwrap();
    problem(untyped, 415, "unsupported-media-type").await;
    app.stop().await;
}

#[tokio::test]
async fn unknown_routes_ids_methods_and_parameters() {
    let app = App::start().await;
    let no_job = format!("/v1/jobs/job_{}", "0".repeat(32));
    for path in ["/v1/nothing", "/v1/jobs/", "/favicon.ico", "//"] {
        problem(app.get(path).await, 404, "route-not-found").await;
    }
    let no_delivery = format!("/v1/deliveries/dlv_{}", "0".repeat(32));
    let artifact = format!("{no_job}/artifacts/thumbnail");
    for path in
        [no_job.as_str(), "/v1/jobs/abc", "/v1/jobs/..%2F..", &artifact, &no_delivery, "/problems/nothing"]
    {
        problem(app.get(path).await, 404, "not-found").await;
    }
    for (method, path, allowed) in [
        (Method::DELETE, "/v1/jobs", "GET, POST, HEAD, OPTIONS"),
        (Method::PUT, no_job.as_str(), "GET, DELETE, HEAD, OPTIONS"),
        (Method::POST, "/health/live", "GET, HEAD, OPTIONS"),
    ] {
        let response = app.http.request(method, app.url(path)).send().await.unwrap();
        assert_eq!(response.headers()["allow"], allowed, "{path}");
        problem(response, 405, "method-not-allowed").await;
    }
    for query in ["limit=0", "limit=x", "cursor=!", "status=sleeping", "page=2", "limit=1&limit=2"] {
        problem(app.get(&format!("/v1/jobs?{query}")).await, 400, "invalid-parameter").await;
    }
    problem(app.get("/v1/events?after=-1").await, 400, "invalid-parameter").await;
    app.stop().await;
}

#[tokio::test]
async fn an_artifact_that_is_not_there_yet_or_never_is_a_404() {
    let app = App::start().await;
    let job = app.accepted(picture::jpeg(20, 20), &[]).await;
    let id = job["id"].as_str().unwrap();
    for name in ["nothing", "..", "original.part", "%2e%2e%2foriginal"] {
        let response = app.get(&format!("/v1/jobs/{id}/artifacts/{name}")).await;
        assert_eq!(response.status(), 404, "{name}");
    }
    app.stop().await;
}

#[tokio::test]
async fn without_keys_a_web_page_is_refused_whatever_it_sends() {
    let app = App::start().await;
    let port = app.address().rsplit(':').next().unwrap().to_owned();
    let evil = format!("evil.example:{port}");
    problem(app.http.get(app.url("/v1/jobs")).header("host", evil).send().await.unwrap(), 403, "not-local")
        .await;
    for origin in ["https://evil.example", "null"] {
        let form = form(picture::jpeg(20, 20), &[]);
        let post = app.http.post(app.url("/v1/jobs")).header("origin", origin).multipart(form);
        problem(post.send().await.unwrap(), 403, "not-local").await;
    }
    assert_eq!(app.files(), Vec::<String>::new());
    for (name, value) in
        [("host", format!("localhost:{port}")), ("origin", "http://localhost:3000".to_owned())]
    {
        assert_eq!(app.http.get(app.url("/v1/jobs")).header(name, value).send().await.unwrap().status(), 200);
    }
    app.stop().await;
}

#[tokio::test]
async fn a_picture_that_takes_more_memory_than_there_is_is_refused_at_once() {
    let app = App::with(&[("imaging.memory_mib", "64")], darkroom::clock::Clock::system()).await;
    let refused = raw(&app, "image/jpeg", picture::jpeg(2000, 1500)).send().await.unwrap();
    let problem = problem(refused, 422, "image-too-large").await;
    assert!(problem["detail"].as_str().unwrap().contains("MiB of memory"), "{problem}");
    assert_eq!(app.files(), [""; 0]);
    let job = app.accepted(picture::jpeg(1500, 1000), &[]).await;
    let job = app.finished(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "completed", "{job}");
    app.stop().await;
}
