//! The links of every resource in every state and for every role: each can be followed, and no legal action lacks its own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use darkroom::app::clients::{self, Change};
use darkroom::app::{self, Running};
use darkroom::clock::Clock;
use darkroom::domain::client::{ClientLimits, Role};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::origin::{Answer, Origin};
use crate::support::receiver::Receiver;
use crate::support::{BOUND, Flags, bounded, config, eventually, form, picture, text};

/// A service that asks for keys, and those who call it.
pub struct World {
    pub running: Running,
    pub operator: Client,
    pub client: Client,
    /// Another client.
    pub stranger: Client,
    pub anonymous: Client,
    folder: TempDir,
}

fn caller(key: Option<&str>) -> Client {
    let headers = key.map(|key| (AUTHORIZATION, format!("Bearer {key}").parse().unwrap()));
    let headers = headers.into_iter().collect::<HeaderMap>();
    Client::builder().no_proxy().timeout(BOUND).default_headers(headers).build().unwrap()
}

impl World {
    pub async fn start(flags: Flags<'_>, clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path(), flags);
        // Callbacks and sources of this machine, and keys.
        config.dev = false;
        let mut callers = Vec::new();
        for (name, role) in [("operator", Role::Operator), ("studio", Role::Client), ("other", Role::Client)]
        {
            let change = Change::Create(name.parse().unwrap(), role, ClientLimits::default());
            let made = clients::change(config.clone(), clock.clone(), change).await.unwrap();
            callers.push(caller(Some(made.key.unwrap().1.expose_text())));
        }
        let running = bounded(app::start(config, clock)).await.unwrap();
        let mut callers = callers.into_iter();
        let mut next = || callers.next().unwrap();
        let (operator, client, stranger) = (next(), next(), next());
        Self { running, operator, client, stranger, anonymous: caller(None), folder }
    }

    pub async fn restarted(self) -> Self {
        bounded(self.running.shutdown()).await;
        let mut config = config(self.folder.path(), &[]);
        config.dev = false;
        let running = bounded(app::start(config, Clock::system())).await.unwrap();
        Self { running, ..self }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running.base_url())
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.operator.get(self.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    async fn when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(async || Some(self.get(path).await).filter(|found| wanted(found))).await
    }

    async fn job_when(&self, job: &Value, status: &str) -> Value {
        self.when(&format!("/v1/jobs/{}", text(job, "/id")), |job| job["status"] == status).await
    }

    async fn post(&self, path: &str) -> Value {
        let response = self.operator.post(self.url(path)).send().await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        response.json().await.unwrap()
    }

    /// A job of the client.
    pub async fn submitted(&self, picture: Vec<u8>, fields: &[(&str, &str)]) -> Value {
        let request = self.client.post(self.url("/v1/jobs")).multipart(form(picture, fields));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.json().await.unwrap()
    }

    /// One as its client sees it.
    pub async fn completed(&self) -> Value {
        let job = self.submitted(picture::jpeg(60, 40), &[]).await;
        let path = format!("/v1/jobs/{}", text(&job, "/id"));
        self.job_when(&job, "completed").await;
        self.client.get(self.url(&path)).send().await.unwrap().json().await.unwrap()
    }

    async fn from(&self, origin: &Origin) -> Value {
        let body = json!({ "source_url": origin.url("/a.jpg") });
        let response = self.client.post(self.url("/v1/jobs")).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.json().await.unwrap()
    }
}

/// Where the pictures and callbacks of a walk come from and go to.
struct Elsewhere {
    hangs: Origin,
    lost: Origin,
    takes: Receiver,
}

impl Elsewhere {
    async fn start() -> Self {
        Self {
            hangs: Origin::start(vec![Answer::nothing()]).await,
            lost: Origin::start(vec![Answer::whole("404 Not Found", "", b"")]).await,
            takes: Receiver::start(&[]).await,
        }
    }
}

const JOBS: [&str; 8] =
    ["queued", "waiting", "processing", "completed", "failed", "cancelled", "deleted", "deleted-queued"];

/// A new job in this state: where it is.
async fn job(world: &World, elsewhere: &Elsewhere, state: &str) -> String {
    let path = |job: &Value| format!("/v1/jobs/{}", text(job, "/id"));
    // Without a callback, which would change it meanwhile.
    let small = async || world.submitted(picture::jpeg(20, 20), &[]).await;
    let holds = matches!(state, "queued" | "waiting" | "cancelled" | "deleted-queued");
    world.post(&format!("/v1/queue/{}?what=work", if holds { "pause" } else { "resume" })).await;
    let job = match state {
        "waiting" => world.from(&elsewhere.hangs).await,
        "processing" => world.job_when(&world.from(&elsewhere.hangs).await, "processing").await,
        "failed" => world.job_when(&world.from(&elsewhere.lost).await, "failed").await,
        "completed" | "deleted" => world.job_when(&small().await, "completed").await,
        _ => small().await,
    };
    match state {
        "cancelled" => drop(world.post(&format!("{}/cancel", path(&job))).await),
        "deleted" | "deleted-queued" => {
            let deleted = world.operator.delete(world.url(&path(&job))).send().await.unwrap();
            assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
        }
        _ => {}
    }
    path(&job)
}

const DELIVERIES: [&str; 5] = ["pending", "sending", "delivered", "exhausted", "cancelled"];

/// A new delivery in this state.
async fn delivery(world: &World, elsewhere: &Elsewhere, state: &str) -> String {
    let refuses = Receiver::start(&[500; 3]).await;
    // One that has an attempt under way gets few others at the same time. It answers as little when it is forgotten.
    let silence = Origin::start(vec![Answer::nothing()]).await;
    let silent = silence.url("/hook");
    std::mem::forget(silence);
    let (url, attempts) = match state {
        "sending" => (&silent, "5"),
        "delivered" => (&elsewhere.takes.url, "5"),
        "exhausted" => (&refuses.url, "1"),
        _ => (&refuses.url, "5"),
    };
    world.post("/v1/queue/resume?what=work").await;
    let fields = [("callback_url", url.as_str()), ("callback_max_attempts", attempts)];
    let job = world.submitted(picture::jpeg(20, 20), &fields).await;
    let list = format!("/v1/jobs/{}/deliveries", text(&job, "/id"));
    let before = if state == "cancelled" { "pending" } else { state };
    let tried = |delivery: &Value| before != "pending" || delivery["attempt_count"] == 1;
    let found = world.when(&list, |list| {
        let delivery = &list["items"][0];
        delivery["state"] == before && tried(delivery)
    });
    let path = format!("/v1/deliveries/{}", text(&found.await, "/items/0/id"));
    if state == "cancelled" {
        world.post(&format!("{path}/cancel")).await;
    }
    path
}

const DESTINATIONS: [&str; 4] = ["well", "open", "paused", "suspended"];

async fn destination(world: &World, state: &str) -> String {
    // Each has a port of its own.
    let receiver = Receiver::start(if matches!(state, "open" | "suspended") { &[500; 9] } else { &[] }).await;
    world.post("/v1/queue/resume?what=work").await;
    let job = world.submitted(picture::jpeg(20, 20), &[("callback_url", &receiver.url)]).await;
    let list = format!("/v1/jobs/{}/deliveries", text(&job, "/id"));
    let found = world.when(&list, |list| list["items"][0]["attempt_count"].as_u64().is_some_and(|n| n > 0));
    let path = format!("/v1/destinations/{}", text(&found.await, "/items/0/destination_id"));
    match state {
        "paused" => drop(world.post(&format!("{path}/pause")).await),
        // It has failed for a while only once it fails again.
        "suspended" => drop(world.submitted(picture::jpeg(20, 20), &[("callback_url", &receiver.url)]).await),
        _ => {}
    }
    world.when(&path, |destination| destination["state"] == state).await;
    path
}

const REPLAYS: [&str; 4] = ["running", "paused", "finished", "cancelled"];

async fn replay(world: &World, elsewhere: &Elsewhere, state: &str) -> String {
    let exhausted = delivery(world, elsewhere, "exhausted").await;
    let exhausted = world.get(&exhausted).await;
    let destination = text(&exhausted, "/destination_id");
    if state != "finished" {
        // What is sent again waits, and so does the end.
        world.post(&format!("/v1/destinations/{destination}/pause")).await;
    }
    let body = json!({"filter": {"destination": destination}});
    let response = world.operator.post(world.url("/v1/replays")).json(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let path = format!("/v1/replays/{}", text(&response.json().await.unwrap(), "/id"));
    match state {
        "paused" => drop(world.post(&format!("{path}/pause")).await),
        "cancelled" => drop(world.post(&format!("{path}/cancel")).await),
        _ => {}
    }
    world.when(&path, |replay| replay["state"] == state).await;
    path
}

async fn made(world: &World, elsewhere: &Elsewhere, kind: &str, state: &str) -> String {
    match kind {
        "job" => job(world, elsewhere, state).await,
        "delivery" => delivery(world, elsewhere, state).await,
        "destination" => destination(world, state).await,
        _ => replay(world, elsewhere, state).await,
    }
}

const FLAGS: Flags<'_> = &[
    // What fails once is in that state for as long as the walk takes.
    ("callbacks.retry_initial_ms", "3600000"),
    ("callbacks.timeout_ms", "3600000"),
    ("source.timeout_ms", "3600000"),
    ("source.first_byte_timeout_ms", "3600000"),
    ("source.max_tries", "1"),
    ("source.per_origin", "15"),
    ("destinations.breaker_min_samples", "1"),
    ("destinations.breaker_open_ms", "100"),
    ("destinations.suspend_after_ms", "1"),
];

/// What may never come of following a link.
fn leads_nowhere(status: StatusCode) -> bool {
    matches!(status.as_u16(), 401 | 403 | 404 | 405 | 409) || status.is_server_error()
}

async fn send(caller: &Client, method: &str, url: &str) -> Response {
    caller.request(method.parse::<Method>().unwrap(), url).send().await.unwrap()
}

/// What a resource says of itself that an action could change.
async fn standing(world: &World, path: &str) -> Value {
    let resource = world.get(path).await;
    json!([resource["revision"], resource["state"], resource["attempt_count"], resource["_links"]])
}

async fn each_action(kind: &str, states: &[&str], actions: &[(&str, &str, &str)]) {
    let world = World::start(FLAGS, Clock::system()).await;
    let elsewhere = Elsewhere::start().await;
    let mut linked_once = BTreeSet::new();
    for state in states {
        for (role, caller) in [("client", &world.client), ("operator", &world.operator)] {
            for (rel, method, suffix) in actions {
                let path = made(&world, &elsewhere, kind, state).await;
                let seen = send(caller, "GET", &world.url(&path)).await;
                let what = format!("{rel} of a {kind} that is {state}, as {role}");
                if leads_nowhere(seen.status()) {
                    // Replays are the operators' alone.
                    assert_eq!((kind, role), ("replay", "client"), "{what}");
                    let answer = send(caller, method, &world.url(&format!("{path}{suffix}"))).await;
                    assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{what}");
                    continue;
                }
                let seen: Value = seen.json().await.unwrap();
                let before = standing(&world, &path).await;
                match seen["_links"].get(*rel) {
                    Some(link) => {
                        linked_once.insert(*rel);
                        assert_eq!(text(link, "/method"), *method, "{what}");
                        let answer = send(caller, method, text(link, "/href")).await;
                        assert!(answer.status().is_success(), "{what}: {}", answer.status());
                    }
                    None => {
                        let answer = send(caller, method, &world.url(&format!("{path}{suffix}"))).await;
                        let status = answer.status();
                        let changed = before != standing(&world, &path).await;
                        // Asking again for what is so already is fine, and is no action.
                        assert!(
                            !status.is_success() || (!changed && *rel != "links"),
                            "{what} lacks its link: {status}"
                        );
                        assert!(!status.is_server_error(), "{what}: {status}");
                    }
                }
            }
        }
    }
    assert_eq!(linked_once.len(), actions.len(), "{linked_once:?}");
    bounded(world.running.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_link_what_can_be_done_to_them_and_nothing_else() {
    let actions = [
        ("cancel", "POST", "/cancel"),
        ("retry", "POST", "/retry"),
        ("delete", "DELETE", ""),
        ("restore", "POST", "/restore"),
        ("links", "POST", "/links"),
    ];
    each_action("job", &JOBS, &actions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_link_what_can_be_done_to_them_and_nothing_else() {
    let actions = [("cancel", "POST", "/cancel"), ("replay", "POST", "/replay")];
    each_action("delivery", &DELIVERIES, &actions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_link_what_can_be_done_to_them_and_nothing_else() {
    let actions = [("pause", "POST", "/pause"), ("resume", "POST", "/resume")];
    each_action("destination", &DESTINATIONS, &actions).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_link_what_can_be_done_to_them_and_nothing_else() {
    let actions = [("pause", "POST", "/pause"), ("resume", "POST", "/resume"), ("cancel", "POST", "/cancel")];
    each_action("replay", &REPLAYS, &actions).await;
}

/// All links in a document, wherever they are.
fn links_in(document: &Value, found: &mut Vec<(String, Value)>) {
    match document {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::Object(links) if name == "_links" => {
                        found.extend(links.iter().map(|(rel, link)| (rel.clone(), link.clone())));
                    }
                    other => links_in(other, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| links_in(item, found)),
        _ => {}
    }
}

/// A template with what its variables stand for.
fn expanded(href: &str, rel: &str, known: &BTreeMap<&str, String>) -> String {
    let bare = href.split("{?").next().unwrap_or_default();
    ["{id}", "{name}"].into_iter().fold(bare.to_owned(), |url, variable| match known.get(rel) {
        Some(value) if url.contains(variable) => url.replace(variable, value),
        _ => url,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_root_every_link_leads_somewhere() {
    let world = World::start(FLAGS, Clock::system()).await;
    let elsewhere = Elsewhere::start().await;
    let mut known = BTreeMap::from([("client", "studio".to_owned())]);
    for (kind, states) in
        [("replay", &REPLAYS[..]), ("destination", &DESTINATIONS), ("delivery", &DELIVERIES), ("job", &JOBS)]
    {
        for state in states {
            let path = made(&world, &elsewhere, kind, state).await;
            known.insert(kind, path.rsplit('/').next().unwrap().to_owned());
        }
    }
    for (role, caller, least) in [
        ("operator", &world.operator, 150),
        ("client", &world.client, 100),
        ("anonymous", &world.anonymous, 3),
    ] {
        let mut seen = BTreeSet::new();
        let mut next = VecDeque::from([("root".to_owned(), world.url("/"))]);
        while let Some((from, url)) = next.pop_front() {
            if !seen.insert(url.clone()) {
                continue;
            }
            let response = send(caller, "GET", &url).await;
            assert!(response.status().is_success(), "{role}: {url} from {from}: {}", response.status());
            let is_json =
                response.headers().get("content-type").is_some_and(|kind| kind == "application/json");
            let body = response.bytes().await.unwrap();
            let Some(document) = is_json.then(|| serde_json::from_slice(&body).unwrap()) else { continue };
            let mut links = Vec::new();
            // What describes the API has members of that name, too.
            if !url.ends_with("api.json") {
                links_in(&document, &mut links);
            }
            for (rel, link) in links {
                let href = text(&link, "/href");
                assert_eq!(link["templated"] == true, href.contains('{'), "{rel} of {url}");
                assert_eq!(text(&link, "/rel"), rel);
                assert!(href.starts_with(world.running.base_url()), "{href}");
                if text(&link, "/method") == "GET" {
                    next.push_back((format!("{rel} of {url}"), expanded(href, &rel, &known)));
                } else if !href.contains("/jobs/job_") && !href.contains("/dlv_") {
                    // Whoever may not is refused before anything of the request is read.
                    let options = send(caller, "OPTIONS", &expanded(href, &rel, &known)).await;
                    let allow = options.headers()["allow"].to_str().unwrap();
                    assert!(allow.contains(text(&link, "/method")), "{role}: {rel} of {url}: {allow}");
                }
            }
        }
        assert!(seen.len() >= least, "{role}: only {} were found", seen.len());
    }
    bounded(world.running.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_done_at_large_is_linked_for_those_who_may() {
    let world = World::start(FLAGS, Clock::system()).await;
    for (role, caller) in
        [("operator", &world.operator), ("client", &world.client), ("anonymous", &world.anonymous)]
    {
        // What a page links, and what of it may be followed by whoever sees it; without a body some want one.
        for page in ["/", "/v1/jobs", "/v1/queue", "/v1/secrets", "/v1/replays", "/v1/clients"] {
            let response = send(caller, "GET", &world.url(page)).await;
            if !response.status().is_success() {
                continue;
            }
            // What its items link is of their own states.
            let document: Value = response.json().await.unwrap();
            let links = document["_links"].as_object().unwrap();
            for (rel, link) in links.iter().filter(|(_, link)| link["method"] != "GET") {
                let href = text(link, "/href").split("{?").next().unwrap();
                let answer = send(caller, text(link, "/method"), href).await;
                assert!(!leads_nowhere(answer.status()), "{role}: {rel} of {page}: {}", answer.status());
            }
        }
        // One of those links has paused it.
        assert!(send(&world.operator, "POST", &world.url("/v1/queue/resume")).await.status().is_success());
        let root: Value = send(caller, "GET", &world.url("/")).await.json().await.unwrap();
        for (rel, method, path) in [
            ("create", "POST", "/v1/jobs"),
            ("batch", "POST", "/v1/jobs/batch"),
            ("cancel_jobs", "POST", "/v1/jobs/cancel"),
            ("start_replay", "POST", "/v1/replays"),
            ("test_callback", "POST", "/v1/callbacks/test"),
            ("backup", "GET", "/v1/backup"),
            ("metrics", "GET", "/metrics"),
            ("clients", "GET", "/v1/clients"),
            ("queue", "GET", "/v1/queue"),
            ("ledger", "GET", "/v1/ledger"),
        ] {
            let answer = send(caller, method, &world.url(path)).await;
            let may = !matches!(answer.status().as_u16(), 401 | 403);
            // A backup is made while it is read.
            drop(answer.bytes().await);
            assert_eq!(root["_links"].get(rel).is_some(), may, "{role}: {rel}");
        }
    }
    bounded(world.running.shutdown()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_links_are_those_that_can_be_followed() {
    let world = World::start(&[], Clock::system()).await;
    for (name, link) in [("a", "/_links/add_key"), ("b", "/_links/revoke"), ("c", "/keys/0/_links/revoke")] {
        let request = world.operator.post(world.url("/v1/clients")).json(&json!({ "name": name }));
        let made: Value = request.send().await.unwrap().json().await.unwrap();
        let link = made["client"].pointer(link).unwrap();
        let answer = send(&world.operator, text(link, "/method"), text(link, "/href")).await;
        assert!(answer.status().is_success(), "{link}: {}", answer.status());
    }
    let mut links = Vec::new();
    links_in(&world.get("/v1/clients/b").await, &mut links);
    for (rel, link) in links {
        let answer = send(&world.operator, text(&link, "/method"), text(&link, "/href")).await;
        assert!(answer.status().is_success(), "{rel} of a revoked client: {}", answer.status());
    }
    let key = send(&world.operator, "POST", &world.url("/v1/clients/b/keys")).await;
    assert!(!key.status().is_success(), "a revoked client gets no key");
    bounded(world.running.shutdown()).await;
}
