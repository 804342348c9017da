//! Web pages of other origins: what a browser is told.

use darkroom::clock::Clock;
use http::{HeaderMap, Method};
use reqwest::Response;

use crate::support::App;

const PAGE: &str = "http://localhost:3000";

async fn app(origins: &str) -> App {
    App::with(&[("server.cors_origins", origins)], Clock::system()).await
}

async fn ask(app: &App, method: Method, path: &str, origin: &str) -> Response {
    app.http.request(method, app.url(path)).header("origin", origin).send().await.unwrap()
}

async fn preflight(app: &App, path: &str, origin: &str) -> Response {
    let request = app.http.request(Method::OPTIONS, app.url(path)).header("origin", origin);
    let request = request.header("access-control-request-method", "DELETE");
    request.header("access-control-request-headers", "authorization,if-match").send().await.unwrap()
}

fn told(headers: &HeaderMap) -> Vec<String> {
    let told = headers.iter().filter(|(name, _)| name.as_str().starts_with("access-control-"));
    let mut told: Vec<_> = told.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    told.sort();
    told
}

#[tokio::test]
async fn a_listed_origin_may_use_every_resource_with_the_methods_that_it_has() {
    let app = app(&format!("https://app.example,{PAGE}")).await;
    for (path, status) in [("/v1/jobs", 200), ("/v1/jobs/nothing", 404), ("/nothing", 404)] {
        let response = ask(&app, Method::GET, path, PAGE).await;
        assert_eq!(response.status(), status);
        let expected =
            [format!("access-control-allow-origin: {PAGE}"), "access-control-expose-headers: *".to_owned()];
        assert_eq!(told(response.headers()), expected, "{path}");
        assert!(response.headers()["vary"].to_str().unwrap().contains("Origin"));
    }
    for (path, methods) in
        [("/v1/jobs/nothing", "GET, DELETE, HEAD, OPTIONS"), ("/v1/jobs", "GET, POST, HEAD, OPTIONS")]
    {
        let response = preflight(&app, path, PAGE).await;
        assert_eq!(response.status(), 204);
        let expected = [
            "access-control-allow-headers: authorization,if-match".to_owned(),
            format!("access-control-allow-methods: {methods}"),
            format!("access-control-allow-origin: {PAGE}"),
            "access-control-max-age: 600".to_owned(),
        ];
        assert_eq!(told(response.headers()), expected, "{path}");
    }
    for other in ["http://localhost:4000", "http://localhost"] {
        for response in
            [ask(&app, Method::GET, "/v1/jobs", other).await, preflight(&app, "/v1/jobs", other).await]
        {
            assert_eq!(told(response.headers()), [""; 0], "{other}");
            // A cache must not give it to a page that may.
            assert!(response.headers()["vary"].to_str().unwrap().contains("Origin"));
        }
    }
    app.stop().await;
}

#[tokio::test]
async fn a_page_can_read_that_its_request_was_refused_by_its_head() {
    let app = app(PAGE).await;
    let response = ask(&app, Method::GET, &format!("/?{}", "a".repeat(40_000)), PAGE).await;
    assert_eq!(response.status(), 414);
    assert_eq!(response.headers()["access-control-allow-origin"], PAGE);
    assert!(preflight(&app, "/v1/jobs", PAGE).await.headers().contains_key("x-request-id"));
    app.stop().await;
}

#[tokio::test]
async fn nobody_may_by_default_and_everybody_with_a_star() {
    let closed = App::start().await;
    for response in [ask(&closed, Method::GET, "/", PAGE).await, preflight(&closed, "/v1/jobs", PAGE).await] {
        assert_eq!(told(response.headers()), [""; 0]);
        assert!(!response.headers().contains_key("vary"));
    }
    closed.stop().await;
    let open = app("*").await;
    let headers = ask(&open, Method::GET, "/", PAGE).await.headers().clone();
    assert_eq!(headers["access-control-allow-origin"], "*");
    assert!(!headers.contains_key("access-control-allow-credentials"));
    open.stop().await;
}

#[tokio::test]
async fn without_keys_pages_of_other_machines_stay_refused_whatever_is_listed() {
    let app = app("*,https://app.example").await;
    for response in [
        ask(&app, Method::POST, "/v1/queue/pause", "https://app.example").await,
        preflight(&app, "/v1/queue/pause", "https://app.example").await,
    ] {
        assert_eq!(response.status(), 403);
    }
    assert_eq!(app.get_json("/v1/queue").await["paused"]["intake"], serde_json::json!(false));
    app.stop().await;
}
