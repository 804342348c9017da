//! The documents, as a service serves them; and programs of others that rely on them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use darkroom::clock::Clock;
use reqwest::header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::receiver::Receiver;
use crate::support::{App, eventually, picture, text};
use crate::verifiers::part;

/// Method, path and operation of each that is documented.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((method.to_uppercase().parse().unwrap(), path.clone(), operation.clone()));
        }
    }
    all
}

#[tokio::test]
async fn the_query_parameters_that_are_read_are_those_documented() {
    let app = App::start().await;
    let document = app.get_json("/openapi.json").await;
    for (method, path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().unwrap().iter();
        let documented: BTreeSet<_> =
            parameters.filter(|it| it["in"] == "query").map(|it| text(it, "/name")).collect();
        let url = path.replace("{id}", "x").replace("{name}", "x").replace("{code}", "validation");
        let request = app.http.request(method.clone(), app.url(&format!("{url}?no-such=1")));
        let response = request.header(CONTENT_TYPE, "image/png").body("").send().await.unwrap();
        if response.status() != StatusCode::BAD_REQUEST {
            assert!(documented.is_empty(), "{method} {path}: {documented:?}");
            continue;
        }
        let problem: Value = response.json().await.unwrap();
        let known = text(&problem, "/errors/0/detail").strip_prefix("known here: ").unwrap_or_default();
        let known: BTreeSet<_> = known.split(", ").filter(|name| !name.is_empty()).collect();
        assert_eq!(known, documented, "{method} {path}");
    }
    app.stop().await;
}

#[tokio::test]
async fn the_documents_are_open_name_this_service_and_are_what_the_command_prints() {
    let app = App::start().await;
    for (path, flags) in [("/openapi.json", &[][..]), ("/asyncapi.json", &["--async"])] {
        let served = app.get_json(path).await;
        let program = Command::new(env!("CARGO_BIN_EXE_darkroom"))
            .args(["openapi", "--url", app.running.base_url()])
            .args(flags)
            .output()
            .unwrap();
        let printed: Value = serde_json::from_slice(&program.stdout).unwrap();
        assert_eq!(printed, served, "{path}");
    }
    let openapi = app.get_json("/openapi.json").await;
    assert_eq!(openapi["servers"], json!([{"url": app.running.base_url()}]));
    let asyncapi = app.get_json("/asyncapi.json").await;
    assert_eq!(asyncapi["servers"]["service"]["host"], app.address());
    for operation in ["getOpenApi", "getRoot", "getLiveness"] {
        let found = operations(&openapi).into_iter().find(|(.., it)| it["operationId"] == operation);
        assert_eq!(found.unwrap().2["security"], json!([]), "{operation}");
    }
    app.stop().await;
}

/// Every `$ref` of a document leads somewhere in it.
fn assert_refers(document: &Value, value: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
            }
            members.values().for_each(|member| assert_refers(document, member));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_refers(document, item)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_shows_every_operation_and_schema_and_loads_nothing() {
    let app = App::start().await;
    let openapi = app.get_json("/openapi.json").await;
    for document in [&openapi, &app.get_json("/asyncapi.json").await] {
        assert_refers(document, document);
    }
    let response = app.get("/docs").await;
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    let policy = response.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    let page = response.text().await.unwrap();
    for (.., operation) in operations(&openapi) {
        let anchor = format!("<h3 id=\"{}\">", text(&operation, "/operationId"));
        assert!(page.contains(&anchor), "{anchor}");
    }
    for name in openapi["components"]["schemas"].as_object().unwrap().keys() {
        assert!(page.contains(&format!("<h3 id=\"schema-{name}\">")), "{name}");
    }
    for loading in ["<script", "src=", "@import", "url("] {
        assert!(!page.contains(loading), "{loading}");
    }
    // Links within the page lead somewhere.
    for target in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_problems_page_is_html_for_browsers_and_text_for_others() {
    let app = App::start().await;
    let get = |accept: Option<&'static str>| {
        let request = app.http.get(app.url("/problems/queue-full"));
        let request = accept.into_iter().fold(request, |request, accept| request.header(ACCEPT, accept));
        async {
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()[VARY], "Accept");
            (response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned(), response.text().await.unwrap())
        }
    };
    for accept in [None, Some("*/*"), Some("text/plain"), Some("text/html;q=0")] {
        let (media_type, page) = get(accept).await;
        assert_eq!(media_type, "text/plain; charset=utf-8", "{accept:?}");
        assert!(page.starts_with("503 ") && page.contains("The queue is full"), "{page}");
    }
    for accept in ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"] {
        let (media_type, page) = get(Some(accept)).await;
        assert_eq!(media_type, "text/html; charset=utf-8", "{accept}");
        assert!(page.contains("<h1>The queue is full</h1>") && page.contains("503"), "{page}");
        assert!(page.contains("after Retry-After"), "{page}");
    }
    app.stop().await;
}

// === examples

/// What each operation answers, on a service where something has happened.
async fn answers(app: &App) -> BTreeMap<String, Value> {
    let receiver = Receiver::start(&[200]).await;
    let fields = [("callback_url", receiver.url.as_str()), ("tags", "cats"), ("metadata", r#"{"album":7}"#)];
    let accepted = app.accepted(picture::jpeg(1600, 1200), &fields).await;
    let id = text(&accepted, "/id").to_owned();
    let job = app.job_when(&id, |job| job["callback"]["status"] == "delivered").await;
    let deliveries = app.get_json(&format!("/v1/jobs/{id}/deliveries")).await;
    let delivery = text(&deliveries, "/items/0/id").to_owned();
    let post = async |path: &str, body: Value| -> Value {
        let response = app.http.post(app.url(path)).json(&body).send().await.unwrap();
        assert!(response.status().is_success(), "{path}");
        response.json().await.unwrap()
    };
    let filter = json!({"filter": {"job_id": id, "state": "delivered"}, "force": true});
    let replay = post("/v1/replays", filter).await;
    let replay_id = text(&replay, "/id").to_owned();
    let path = format!("/v1/replays/{replay_id}");
    eventually(async || Some(app.get_json(&path).await).filter(|replay| replay["state"] == "finished")).await;
    let destination =
        text(&app.get_json(&format!("/v1/deliveries/{delivery}")).await, "/destination_id").to_owned();
    let mut all = BTreeMap::from([
        ("submitJob".to_owned(), accepted),
        ("getJob".to_owned(), job),
        ("startReplay".to_owned(), replay),
        ("testCallback".to_owned(), post("/v1/callbacks/test", json!({"url": receiver.url})).await),
    ]);
    for (operation, path) in [
        ("listJobs", "/v1/jobs".to_owned()),
        ("listJobEvents", format!("/v1/jobs/{id}/events?limit=1")),
        ("listEvents", "/v1/events?limit=1".to_owned()),
        ("listJobDeliveries", format!("/v1/jobs/{id}/deliveries")),
        ("listDeliveries", "/v1/deliveries".to_owned()),
        ("getDelivery", format!("/v1/deliveries/{delivery}")),
        ("listAttempts", format!("/v1/deliveries/{delivery}/attempts")),
        ("listReplays", "/v1/replays".to_owned()),
        ("getReplay", format!("/v1/replays/{replay_id}")),
        ("listReplayItems", format!("/v1/replays/{replay_id}/items")),
        ("listDestinations", "/v1/destinations".to_owned()),
        ("getDestination", format!("/v1/destinations/{destination}")),
        ("getLedger", "/v1/ledger".to_owned()),
        ("getQueue", "/v1/queue".to_owned()),
        ("listSecrets", "/v1/secrets".to_owned()),
        ("getWebhookKeys", "/.well-known/webhook-keys".to_owned()),
        ("getRoot", "/".to_owned()),
        ("getLiveness", "/health/live".to_owned()),
        ("getReadiness", "/health/ready".to_owned()),
    ] {
        all.insert(operation.to_owned(), app.get_json(&path).await);
    }
    let text = serde_json::to_string(&all).unwrap();
    let text = text.replace(app.running.base_url(), "https://img.example");
    serde_json::from_str(&text.replace(&receiver.url, "https://hooks.example/darkroom")).unwrap()
}

/// The names and kinds of all members. Links and what may be `null` differ with the moment.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, _)| *name != "_links" && *name != "Retry-After");
            members
                .map(|(name, value)| (name.clone(), shape(value)))
                .collect::<serde_json::Map<_, _>>()
                .into()
        }
        Value::Array(items) => items.first().map(shape).into_iter().collect::<Vec<_>>().into(),
        Value::String(_) => "text".into(),
        Value::Number(_) => 0.into(),
        Value::Bool(_) => true.into(),
        Value::Null => Value::Null,
    }
}

/// With `DARKROOM_TEST_WRITE_EXAMPLES` set, they are written anew.
#[tokio::test]
async fn the_examples_are_what_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/document/examples.json");
    let app = App::with(&[], Clock::system()).await;
    let served = answers(&app).await;
    app.stop().await;
    if std::env::var_os("DARKROOM_TEST_WRITE_EXAMPLES").is_some() {
        std::fs::write(&file, format!("{:#}\n", json!(served))).unwrap();
        return;
    }
    let kept: BTreeMap<String, Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (operation, answer) in &served {
        let (kept, served) = (kept.get(operation).map(shape), shape(answer));
        let same = kept.as_ref().is_some_and(|kept| agrees(kept, &served));
        assert!(
            same,
            "{operation}: DARKROOM_TEST_WRITE_EXAMPLES=1 writes the examples anew\n{kept:?}\n{served}"
        );
    }
    assert_eq!(kept.len(), served.len());
}

/// Alike where both have something.
fn agrees(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Null, _) | (_, Value::Null) => true,
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, value)| b.get(name).is_some_and(|it| agrees(value, it)))
        }
        (Value::Array(a), Value::Array(b)) => a.iter().zip(b).all(|(a, b)| agrees(a, b)),
        (a, b) => a == b,
    }
}

// === programs of others

/// Runs `tests/verifiers/api.py`, whose verdict it is.
async fn holds(app: App, task: &str, with: Option<PathBuf>) {
    let Some(python) = part("DARKROOM_TEST_PYTHON") else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers/api.py");
    let mut command = Command::new(python);
    command.arg(script).arg(task).arg(app.running.base_url()).args(with).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    app.stop().await;
}

async fn with_picture(app: App, task: &str) {
    let file = app.folder.path().join("picture.jpg");
    std::fs::write(&file, picture::jpeg(320, 240)).unwrap();
    holds(app, task, Some(file)).await;
}

#[tokio::test]
async fn the_openapi_document_is_valid() {
    holds(App::start().await, "openapi", None).await;
}

#[tokio::test]
async fn the_asyncapi_document_is_valid() {
    if let Some(modules) = part("DARKROOM_TEST_NODE_MODULES") {
        holds(App::start().await, "asyncapi", Some(modules.join("@asyncapi/specs/schemas"))).await;
    }
}

#[tokio::test]
async fn schemathesis_finds_nothing_that_is_not_documented() {
    let app = App::start().await;
    // So that there is something of everything.
    answers(&app).await;
    with_picture(app, "probe").await;
}

#[tokio::test]
async fn a_generated_client_submits_waits_and_downloads() {
    with_picture(App::start().await, "client").await;
}
