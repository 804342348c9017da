//! A replay from its dry run to its end, with kills in between.
//!
//! `DARKROOM_TEST_REPLAYED=5000 cargo test --release --test it replays` makes a long one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::support::process::Server;
use crate::support::receiver::Receiver;
use crate::support::{eventually, picture, text};

const DELIVERIES: usize = 200;
/// That it takes up in so many seconds, so that there is a middle to be cut off in.
const SECONDS: usize = 5;

async fn serve(folder: &Path) -> Server {
    let folder = folder.to_owned();
    let start = move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_darkroom"));
        command.env("DARKROOM_CALLBACKS__MAX_ATTEMPTS", "1");
        Server::from(command, &folder)
    };
    tokio::task::spawn_blocking(start).await.unwrap()
}

/// A client of a server that comes and goes.
struct Operator {
    http: Client,
    server: Server,
}

impl Operator {
    async fn get(&self, path: &str) -> Value {
        self.http.get(format!("{}{path}", self.server.url)).send().await.unwrap().json().await.unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.post(format!("{}{path}", self.server.url)).json(body);
        let response = request.header("idempotency-key", "once").send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn when(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(async || Some(self.get(path).await).filter(|found| wanted(found))).await
    }

    /// SIGKILL, and the next process on the same folder.
    async fn killed(self, folder: &Path) -> Self {
        self.server.kill();
        // The port is another one, and connections of before lead nowhere.
        Self { http: http(), server: serve(folder).await }
    }
}

fn http() -> Client {
    Client::builder().no_proxy().build().unwrap()
}

fn count(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[tokio::test]
async fn a_replay_goes_on_through_kills_and_sends_each_once() {
    let folder = tempfile::tempdir().unwrap();
    // Refused, and given up at once; later ones are taken.
    let deliveries =
        std::env::var("DARKROOM_TEST_REPLAYED").map_or(DELIVERIES, |count| count.parse().unwrap());
    let receiver = Receiver::start(&vec![404; deliveries]).await;
    let operator = Operator { http: http(), server: serve(folder.path()).await };
    for _ in 0..deliveries {
        let form = crate::support::form(picture::jpeg(8, 6), &[("callback_url", &receiver.url)]);
        let request = operator.http.post(format!("{}/v1/jobs", operator.server.url)).multipart(form);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::ACCEPTED);
    }

    let wanted = |dry_run: bool| json!({"filter": {"status_code": 404}, "rate_per_second": deliveries / SECONDS, "dry_run": dry_run});
    let all = deliveries as u64;
    let looked = eventually(async || {
        let (status, answer) = operator.post("/v1/replays", &wanted(true)).await;
        assert_eq!(status, StatusCode::OK);
        Some(answer).filter(|answer| count(answer, "matched") == all)
    })
    .await;
    assert_eq!(looked["sample"].as_array().unwrap().len(), 10);
    let (_, looked) = operator.post("/v1/replays", &wanted(true)).await;
    assert_eq!((count(&looked, "matched"), receiver.all().len()), (all, deliveries), "it changes nothing");
    assert_eq!(operator.get("/v1/replays").await["items"], json!([]));

    // What is to be sent again has to be said, and by its name.
    for wrong in
        [json!({}), json!([{}, 50, true, false, null]), json!({"filter": []}), json!({"filter": null})]
    {
        assert_eq!(operator.post("/v1/replays", &wrong).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let (status, started) = operator.post("/v1/replays", &wanted(false)).await;
    assert_eq!((status, count(&started, "matched")), (StatusCode::ACCEPTED, all));
    let path = format!("/v1/replays/{}", text(&started, "/id"));
    let (_, again) = operator.post("/v1/replays", &wanted(false)).await;
    assert_eq!(again["id"], started["id"], "a repeated key finds the first");
    let other = json!({"filter": {"status_code": 405}});
    assert_eq!(operator.post("/v1/replays", &other).await.0, StatusCode::UNPROCESSABLE_ENTITY);

    operator.when(&path, |replay| count(replay, "taken") > 0).await;
    let operator = operator.killed(folder.path()).await;
    let before = count(&operator.get(&path).await, "taken");
    operator.when(&path, |replay| count(replay, "taken") > before).await;

    let (status, _) = operator.post(&format!("{path}/pause"), &json!({})).await;
    assert_eq!(status, StatusCode::OK);
    let paused = operator.when(&path, |replay| count(replay, "done") == count(replay, "taken")).await;
    assert_eq!(text(&paused, "/state"), "paused");
    assert!(count(&paused, "taken") < all, "it was cut off in the middle");
    let arrived = receiver.all().len();
    let operator = operator.killed(folder.path()).await;
    assert_eq!(operator.get(&path).await["taken"], paused["taken"], "it stays paused");
    assert_eq!(receiver.all().len(), arrived);
    let (_, resumed) = operator.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!(text(&resumed, "/state"), "running");
    let ended = operator.when(&path, |replay| replay["state"] == "finished").await;
    let counts = ["taken", "done", "delivered", "failed", "skipped"].map(|name| count(&ended, name));
    assert_eq!(counts, [all, all, all, 0, 0], "{ended}");
    assert_eq!(operator.post(&format!("{path}/cancel"), &json!({})).await.0, StatusCode::CONFLICT);

    let mut delivered = BTreeSet::new();
    let mut url = format!("{}{path}/items?limit=50", operator.server.url);
    loop {
        let page: Value = operator.http.get(&url).send().await.unwrap().json().await.unwrap();
        for item in page["items"].as_array().unwrap() {
            assert_eq!((text(item, "/was"), text(item, "/result")), ("exhausted", "delivered"), "{item}");
            assert!(delivered.insert(text(item, "/delivery_id").to_owned()), "{item} is there twice");
        }
        let Some(next) = page.pointer("/_links/next/href").and_then(Value::as_str) else { break };
        url = next.to_owned();
    }
    assert_eq!(delivered.len(), deliveries);

    // Each came once as its first attempt and once as its second; but for what was on its way when it was killed,
    // which comes again as the same attempt.
    let mut came = BTreeMap::<_, Vec<String>>::new();
    for callback in receiver.all() {
        let attempt = callback.header("webhook-attempt").to_owned();
        came.entry(callback.header("webhook-id").to_owned()).or_default().push(attempt);
    }
    assert_eq!(came.len(), deliveries);
    for (id, attempts) in &came {
        assert!(attempts[0] == "1" && attempts[1..].iter().all(|number| number == "2"), "{id}: {attempts:?}");
    }
    let once = came.values().filter(|attempts| attempts.len() == 2).count();
    let more = came.values().map(|attempts| attempts.len() - 2).sum::<usize>();
    assert!(came.values().all(|attempts| attempts.len() <= 3) && more <= 64, "{once} once, {more} again");
}
