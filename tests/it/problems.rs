//! Every problem of the catalogue, brought about over a bare socket, and its document as it is promised:
//! `golden/problems.json`. `DARKROOM_TEST_GOLDEN=write cargo test --test it problems` writes that anew.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use darkroom::clock::Clock;
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use crate::bad_input::{assert_both_headers, png_claiming};
use crate::quotas::limited;
use crate::support::raw::{self, Answer, exchange};
use crate::support::{App, announce, bounded, eventually, picture, text};

const GOLDEN: &str = "tests/it/golden/problems.json";
/// Those that need more than a server: a full disk (`disk_full.rs`).
const ELSEWHERE: [&str; 1] = ["storage-full"];
/// Headers that belong to a problem.
const TOLD: [&str; 6] =
    ["allow", "cache-control", "content-range", "content-type", "retry-after", "www-authenticate"];
const ID: &str = "X-Request-Id: golden";

/// What came of each case, by the problem's code.
#[derive(Default)]
struct Seen(BTreeMap<String, Value>);

impl Seen {
    fn note(&mut self, app: &App, answer: &Answer) {
        self.note_of(app.running.base_url(), answer);
    }

    fn note_of(&mut self, base_url: &str, answer: &Answer) {
        assert_both_headers(&answer.headers);
        let body = String::from_utf8(answer.body.clone()).unwrap();
        let body = body.replace(base_url, "https://img.example");
        let document: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{answer:?}"));
        assert_eq!(document["status"], answer.status, "{document}");
        let code = text(&document, "/code").to_owned();
        let told = TOLD.iter().filter_map(|name| Some((name, answer.headers.get(*name)?.to_str().unwrap())));
        let told: BTreeMap<_, _> = told.collect();
        let before = self.0.insert(code.clone(), json!({ "headers": told, "document": document }));
        assert!(before.is_none(), "{code} is brought about twice");
    }

    async fn case(&mut self, app: &App, head: &str, body: &[u8]) {
        let answer = exchange(&app.address(), &format!("{head}\n{ID}"), body).await;
        self.note(app, &answer);
    }

    /// Of a job: ids are made anew each time.
    async fn case_of(&mut self, app: &App, head: &str, id: &str) {
        let mut answer = exchange(&app.address(), &format!("{head}\n{ID}"), b"").await;
        answer.body = String::from_utf8(answer.body).unwrap().replace(id, "job_0").into_bytes();
        if let Some(range) = answer.headers.get_mut("content-range") {
            // How large a picture is, is the encoder's business.
            *range = "bytes */1".parse().unwrap();
        }
        self.note(app, &answer);
    }
}

fn golden() -> BTreeMap<String, Value> {
    serde_json::from_str(&std::fs::read_to_string(GOLDEN).unwrap_or("{}".to_owned())).unwrap()
}

/// For a problem that is brought about elsewhere.
pub fn assert_golden(base_url: &str, status: u16, headers: &HeaderMap, body: &str) {
    let mut document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["request_id"], headers["x-request-id"].to_str().unwrap());
    document["request_id"] = "golden".into();
    let mut seen = Seen::default();
    let body = document.to_string().into_bytes();
    seen.note_of(base_url, &Answer { status, headers: headers.clone(), body });
    for (code, found) in &seen.0 {
        assert_eq!(Some(found), golden().get(code), "{code}");
    }
}

/// The codes that the catalogue has.
fn catalogue() -> BTreeSet<String> {
    let source = std::fs::read_to_string(Path::new("src/http/problem.rs")).unwrap();
    let slugs = source.split("slug: \"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned());
    slugs.collect()
}

#[tokio::test]
async fn every_problem_is_as_its_golden_document() {
    let mut seen = Seen::default();
    of_requests(&mut seen).await;
    of_access(&mut seen).await;
    of_signed_links(&mut seen).await;
    of_pictures_and_fields(&mut seen).await;
    of_what_is_there(&mut seen).await;
    of_uploads_under_way(&mut seen).await;
    of_a_full_or_paused_queue(&mut seen).await;
    of_trials(&mut seen).await;
    of_a_backup_under_way(&mut seen).await;
    of_a_stop(&mut seen).await;
    of_a_fault(&mut seen).await;

    let codes: BTreeSet<_> = seen.0.keys().cloned().chain(ELSEWHERE.map(str::to_owned)).collect();
    assert_eq!(codes, catalogue(), "each problem of the catalogue has a case here, or is named in ELSEWHERE");
    let mut golden = golden();
    if std::env::var("DARKROOM_TEST_GOLDEN").is_ok_and(|what| what == "write") {
        golden.retain(|code, _| ELSEWHERE.contains(&&**code));
        golden.extend(seen.0.clone());
        std::fs::write(GOLDEN, serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
    }
    for (code, found) in &seen.0 {
        assert_eq!(Some(found), golden.get(code), "{code}");
    }
    assert_eq!(golden.into_keys().collect::<BTreeSet<_>>(), codes, "of each there is a golden document");
}

/// What a request's line and header may be.
async fn of_requests(seen: &mut Seen) {
    let flags = [("server.max_uri_bytes", "300"), ("server.max_headers", "20")];
    let app = App::with(&flags, Clock::system()).await;
    seen.case(&app, "GET / HTTP/1.1\nHost: evil.example", b"").await;
    seen.case(&app, "GET /nothing HTTP/1.1", b"").await;
    seen.case(&app, "GET /v1/jobs/job_0 HTTP/1.1", b"").await;
    seen.case(&app, "DELETE /v1/jobs HTTP/1.1", b"").await;
    seen.case(&app, "GET /v1/jobs?limit=0 HTTP/1.1", b"").await;
    seen.case(&app, &format!("GET /?{} HTTP/1.1", "a".repeat(300)), b"").await;
    seen.case(&app, &format!("GET / HTTP/1.1{}", "\nX-A: a".repeat(20)), b"").await;
    seen.case(&app, "POST /v1/replays HTTP/1.1\nContent-Type: application/json", b"{").await;
    seen.case(&app, "POST /v1/jobs/cancel HTTP/1.1", b"").await;
    app.stop().await;
}

/// Who asks, and how often: with one request in a minute, whose time stands still.
async fn of_access(seen: &mut Seen) {
    let (app, _) = limited(&["--requests-per-minute", "1"]).await;
    let base_url = app.running.base_url().to_owned();
    let address = base_url.trim_start_matches("http://");
    let key = format!("Authorization: Bearer {}\n{ID}", app.a.key.as_ref().unwrap());
    for head in [
        format!("GET /v1/jobs HTTP/1.1\n{ID}"),
        format!("GET /v1/audit HTTP/1.1\n{key}"),
        format!("GET /v1/jobs HTTP/1.1\n{key}"),
    ] {
        let answer = exchange(address, &head, b"").await;
        seen.note_of(&base_url, &answer);
    }
    app.stop().await;
}

async fn of_signed_links(seen: &mut Seen) {
    let app = App::start().await;
    let job = app.accepted(picture::jpeg(20, 20), &[]).await;
    let id = text(&job, "/id");
    app.finished(id).await;
    let links = app.http.post(app.url(&format!("/v1/jobs/{id}/links"))).send().await.unwrap();
    let links: Value = links.json().await.unwrap();
    let link = text(&links, "/artifacts/0/url").strip_prefix(app.running.base_url()).unwrap();
    seen.case_of(&app, &format!("GET {link}0 HTTP/1.1"), id).await;
    assert_eq!(app.http.delete(app.url(&format!("/v1/jobs/{id}"))).send().await.unwrap().status(), 204);
    seen.case_of(&app, &format!("GET {link} HTTP/1.1"), id).await;
    app.stop().await;
}

async fn of_pictures_and_fields(seen: &mut Seen) {
    let app = App::with(&[("server.max_upload_bytes", "100000")], Clock::system()).await;
    let jpeg = picture::jpeg(300, 200);
    let raw =
        |media_type: &str, query: &str| format!("POST /v1/jobs{query} HTTP/1.1\nContent-Type: {media_type}");
    seen.case(&app, &raw("multipart/form-data; boundary=X", ""), b"no boundary in sight").await;
    seen.case(&app, &raw("text/plain", ""), b"x").await;
    seen.case(&app, &raw("image/png", ""), &jpeg).await;
    seen.case(&app, &(raw("image/jpeg", "") + "\nContent-Length: 100001"), b"").await;
    seen.case(&app, &raw("image/jpeg", ""), &jpeg[..1000]).await;
    seen.case(&app, &raw("image/png", ""), &png_claiming(100_000, 100_000)).await;
    seen.case(&app, &raw("image/jpeg", "?metadata=[]&deadline_ms=1"), &jpeg).await;
    seen.case(&app, &raw("image/jpeg", "?callback_url=http://10.1.2.3/"), &jpeg).await;
    let source = br#"{"source_url":"http://10.1.2.3/"}"#;
    seen.case(&app, &raw("application/json", ""), source).await;
    app.stop().await;
}

/// What there is, and what was asked for before.
async fn of_what_is_there(seen: &mut Seen) {
    let app = App::start().await;
    let jpeg = picture::jpeg(20, 20);
    let with_key =
        |key: &str| format!("POST /v1/jobs HTTP/1.1\nContent-Type: image/jpeg\nIdempotency-Key: {key}");
    seen.case(&app, &with_key("a b"), &jpeg).await;
    let first = exchange(&app.address(), &with_key("first"), &jpeg).await;
    assert_eq!(first.status, 202);
    seen.case(&app, &with_key("first"), &picture::jpeg(20, 21)).await;
    let job: Value = serde_json::from_slice(&first.body).unwrap();
    let id = text(&job, "/id");
    app.finished(id).await;
    let range = format!("GET /v1/jobs/{id}/artifacts/original HTTP/1.1\nRange: bytes=1000000-");
    seen.case_of(&app, &range, id).await;
    let cancel = format!("POST /v1/jobs/{id}/cancel HTTP/1.1");
    seen.case_of(&app, &cancel, id).await;
    seen.case_of(&app, &format!("{cancel}\nIf-Match: \"other\""), id).await;
    app.stop().await;
}

async fn of_uploads_under_way(seen: &mut Seen) {
    let flags = [("server.max_uploads", "1"), ("server.body_idle_timeout_ms", "86400000")];
    let app = App::with(&flags, Clock::system()).await;
    let held = announce(&app, "image/jpeg", "Content-Length: 9000\r\nIdempotency-Key: held\r\n").await;
    eventually(async || (!app.files().is_empty()).then_some(())).await;
    let upload = "POST /v1/jobs HTTP/1.1\nContent-Type: image/jpeg";
    seen.case(&app, &format!("{upload}\nIdempotency-Key: held"), b"x").await;
    seen.case(&app, upload, b"x").await;
    drop(held);
    app.stop().await;

    let app = App::with(&[("server.body_idle_timeout_ms", "100")], Clock::system()).await;
    let mut stalled = announce(&app, "image/jpeg", &format!("Content-Length: 9000\r\n{ID}\r\n")).await;
    let answer = raw::answer(&mut stalled).await;
    seen.note(&app, &answer);
    app.stop().await;
}

async fn of_a_full_or_paused_queue(seen: &mut Seen) {
    let app = App::with(&[("queue.capacity", "1")], Clock::system()).await;
    let upload = "POST /v1/jobs HTTP/1.1\nContent-Type: image/jpeg";
    app.http.post(app.url("/v1/queue/pause?what=work")).send().await.unwrap();
    assert_eq!(exchange(&app.address(), upload, &picture::jpeg(20, 20)).await.status, 202);
    seen.case(&app, upload, &picture::jpeg(20, 20)).await;
    app.http.post(app.url("/v1/queue/pause?what=intake")).send().await.unwrap();
    seen.case(&app, upload, &picture::jpeg(20, 20)).await;
    app.stop().await;
}

async fn of_trials(seen: &mut Seen) {
    let app = App::start().await;
    // It is connected to, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let body = json!({ "url": format!("http://{}/", silent.local_addr().unwrap()) }).to_string();
    let head = format!("POST /v1/callbacks/test HTTP/1.1\nContent-Type: application/json\n{ID}");
    let address = app.address();
    let trials = (0..17).map(|_| Box::pin(exchange(&address, &head, body.as_bytes())));
    let (refused, ..) = bounded(futures_util::future::select_all(trials)).await;
    seen.note(&app, &refused);
    drop(silent);
    app.stop().await;
}

async fn of_a_backup_under_way(seen: &mut Seen) {
    let app = App::start().await;
    app.http.post(app.url("/v1/queue/pause?what=work")).send().await.unwrap();
    // More than the sockets of a connection hold.
    let large = picture::encode(&picture::noise(1600, 1500).into(), image::ImageFormat::Png);
    app.accepted(large, &[]).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut unread = bounded(socket.connect(app.address().parse().unwrap())).await.unwrap();
    raw::send(&mut unread, "GET /v1/backup HTTP/1.1", b"").await;
    unread.readable().await.unwrap();
    seen.case(&app, "GET /v1/backup HTTP/1.1", b"").await;
    drop(unread);
    app.stop().await;
}

async fn of_a_stop(seen: &mut Seen) {
    let app = App::start().await;
    let mut last = TcpStream::connect(app.address()).await.unwrap();
    last.write_all(format!("GET /health/ready HTTP/1.1\r\nConnection: close\r\n{ID}\r\n").as_bytes())
        .await
        .unwrap();
    // It was accepted before this one, which is answered.
    assert_eq!(app.get("/health/ready").await.status(), 200);
    let (address, base_url) = (app.address(), app.running.base_url().to_owned());
    let stopping = tokio::spawn(app.stop());
    eventually(async || TcpStream::connect(&address).await.is_err().then_some(())).await;
    last.write_all(b"Host: localhost\r\n\r\n").await.unwrap();
    let answer = raw::answer(&mut last).await;
    bounded(stopping).await.unwrap();
    seen.note_of(&base_url, &answer);
}

/// Something of the service's own is gone.
async fn of_a_fault(seen: &mut Seen) {
    let app = App::start().await;
    std::fs::remove_dir_all(app.folder.path().join("uploads")).unwrap();
    seen.case(&app, "POST /v1/jobs HTTP/1.1\nContent-Type: image/jpeg", &picture::jpeg(20, 20)).await;
    app.stop().await;
}

#[tokio::test]
async fn every_problem_has_its_page() {
    let app = App::start().await;
    for code in catalogue() {
        let page = app.get(&format!("/problems/{code}")).await;
        assert_eq!(page.status(), 200, "{code}");
    }
    app.stop().await;
}
