//! Who may do what: two clients and an operator over real sockets.

use std::collections::BTreeSet;

use darkroom::clock::Clock;
use reqwest::header::WWW_AUTHENTICATE;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::support::access::{Caller, Guarded};
use crate::support::picture::jpeg;
use crate::support::text;

/// Nothing listens there, so that a delivery waits.
const DEAD_END: &str = "http://127.0.0.1:1/hook";

const OPERATORS_ONLY: [(&str, &str); 22] = [
    ("POST", "/v1/deliveries/{dlv}/replay"),
    ("GET", "/v1/replays"),
    ("POST", "/v1/replays"),
    ("GET", "/v1/replays/rpl_1"),
    ("GET", "/v1/replays/rpl_1/items"),
    ("POST", "/v1/replays/rpl_1/pause"),
    ("POST", "/v1/replays/rpl_1/resume"),
    ("POST", "/v1/replays/rpl_1/cancel"),
    ("POST", "/v1/destinations/{dst}/pause"),
    ("POST", "/v1/destinations/{dst}/resume"),
    ("GET", "/v1/ledger"),
    ("POST", "/v1/queue/pause"),
    ("POST", "/v1/queue/resume"),
    ("GET", "/v1/backup"),
    ("GET", "/metrics"),
    ("GET", "/v1/clients"),
    ("POST", "/v1/clients"),
    ("GET", "/v1/clients/a"),
    ("GET", "/v1/audit"),
    ("POST", "/v1/clients/a/keys"),
    ("DELETE", "/v1/clients/a/keys/key_1"),
    // The last one: it is nobody's key afterwards.
    ("POST", "/v1/clients/a/revoke"),
];

/// A finished job of this client's, its delivery that waits, and its destination.
struct Own {
    job: String,
    delivery: String,
    destination: String,
}

impl Own {
    async fn of(caller: &Caller) -> Self {
        let job = caller.accepted(jpeg(40, 30), &[("callback_url", DEAD_END), ("tags", "mine")]).await;
        caller.when(&format!("/v1/jobs/{job}"), |job| job["status"] == "completed").await;
        let deliveries = format!("/v1/jobs/{job}/deliveries");
        let tried =
            |it: &Value| it["items"][0]["attempt_count"] != json!(0) && it["items"][0]["state"] == "pending";
        let delivery = caller.when(&deliveries, tried).await["items"][0].clone();
        let [delivery, destination] =
            ["/id", "/destination_id"].map(|pointer| text(&delivery, pointer).to_owned());
        Self { job, delivery, destination }
    }
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status, "{problem}");
    (status, text(&problem, "/code").to_owned())
}

fn items(list: &Value) -> usize {
    list["items"].as_array().unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_own_and_nothing_of_anothers() {
    let app = Guarded::start(&[]).await;
    let Own { job, delivery, destination } = Own::of(&app.a).await;
    let own = [
        ("GET", format!("/v1/jobs/{job}")),
        ("GET", format!("/v1/jobs/{job}/events")),
        ("GET", format!("/v1/jobs/{job}/deliveries")),
        ("GET", format!("/v1/jobs/{job}/artifacts/original")),
        ("GET", format!("/v1/events?job_id={job}")),
        ("GET", format!("/v1/deliveries/{delivery}")),
        ("GET", format!("/v1/deliveries/{delivery}/attempts")),
        ("GET", format!("/v1/destinations/{destination}")),
        ("POST", format!("/v1/deliveries/{delivery}/cancel")),
        ("DELETE", format!("/v1/jobs/{job}")),
        ("POST", format!("/v1/jobs/{job}/restore")),
    ];
    for (method, path) in &own {
        assert_eq!(app.b.status(method, path).await, StatusCode::NOT_FOUND, "{method} {path}");
    }
    for action in ["cancel", "retry"] {
        assert_eq!(app.b.status("POST", &format!("/v1/jobs/{job}/{action}")).await, StatusCode::NOT_FOUND);
    }
    for list in ["/v1/jobs", "/v1/jobs?tag=mine", "/v1/deliveries", "/v1/destinations", "/v1/events"] {
        let join = if list.contains('?') { '&' } else { '?' };
        assert_eq!(items(&app.b.get(list).await), 0, "{list}");
        assert_ne!(items(&app.a.get(list).await), 0, "{list}");
        assert_ne!(items(&app.a.get(&format!("{list}{join}client=a")).await), 0, "{list}");
        assert_ne!(items(&app.ops.get(list).await), 0, "{list}");
        assert_ne!(items(&app.ops.get(&format!("{list}{join}client=a")).await), 0, "{list}");
        assert_eq!(items(&app.ops.get(&format!("{list}{join}client=b")).await), 0, "{list}");
        let foreign = app.b.send("GET", &format!("{list}{join}client=a")).await;
        assert_eq!(code(foreign).await, (403, "forbidden".to_owned()), "{list}");
    }
    assert_eq!(app.ops.get(&format!("/v1/jobs/{job}")).await["client"], "a");
    assert_eq!(app.a.get(&format!("/v1/jobs/{job}")).await.get("client"), None);
    for (method, path) in &own {
        assert!(app.a.status(method, path).await.is_success(), "{method} {path}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_idempotency_and_of_signatures_are_a_clients_own() {
    let app = Guarded::start(&[]).await;
    let submit = async |caller: &Caller| {
        let request = caller.request(reqwest::Method::POST, "/v1/jobs").header("idempotency-key", "order-1");
        let response = request.header("content-type", "image/jpeg").body(jpeg(8, 8)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        text(&response.json().await.unwrap(), "/id").to_owned()
    };
    let [first, again, others] = [submit(&app.a).await, submit(&app.a).await, submit(&app.b).await];
    assert_eq!(first, again);
    assert_ne!(first, others);
    let fingerprint =
        async |caller: &Caller| caller.get("/v1/secrets").await["items"][0]["fingerprint"].clone();
    assert_ne!(fingerprint(&app.a).await, fingerprint(&app.b).await);
    let before = fingerprint(&app.b).await;
    assert_eq!(app.a.status("POST", "/v1/secrets/rotate").await, StatusCode::CREATED);
    assert_eq!(fingerprint(&app.b).await, before);
    // An operator's jobs are the operator's own.
    let job = app.ops.accepted(jpeg(8, 8), &[]).await;
    assert_eq!(app.ops.get(&format!("/v1/jobs/{job}")).await["client"], "ops");
    assert_eq!(app.a.status("GET", &format!("/v1/jobs/{job}")).await, StatusCode::NOT_FOUND);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_told_so_before_anything_of_the_body_is_read() {
    let app = Guarded::start(&[]).await;
    let Own { delivery, destination, .. } = Own::of(&app.a).await;
    let strangers = [app.nobody.with("dk_1"), app.nobody.with(&format!("dk_{}", "A".repeat(43)))];
    for (path, open) in
        [("/v1/jobs", false), ("/", true), ("/health/live", true), ("/problems/internal", true)]
    {
        for stranger in &strangers {
            let response = stranger.send("GET", path).await;
            let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap().to_owned();
            assert!(challenge.starts_with("Bearer ") && challenge.contains("error=\"invalid_token\""));
            assert_eq!(code(response).await, (401, "unauthenticated".to_owned()), "{path}");
        }
        let response = app.nobody.send("GET", path).await;
        if open {
            assert_eq!(response.status(), StatusCode::OK, "{path}");
        } else {
            let challenge = response.headers()[WWW_AUTHENTICATE].to_str().unwrap();
            assert!(challenge.starts_with("Bearer ") && !challenge.contains("error"), "{challenge}");
            assert_eq!(code(response).await, (401, "unauthenticated".to_owned()), "{path}");
        }
    }
    for (method, path) in OPERATORS_ONLY {
        let path = path.replace("{dlv}", &delivery).replace("{dst}", &destination);
        assert_eq!(
            code(app.a.send(method, &path).await).await,
            (403, "forbidden".to_owned()),
            "{method} {path}"
        );
        assert_eq!(app.nobody.status(method, &path).await, StatusCode::UNAUTHORIZED, "{method} {path}");
        let by_operator = app.ops.status(method, &path).await;
        assert!(![401, 403].contains(&by_operator.as_u16()), "{method} {path}: {by_operator}");
    }
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_a_clients_own() {
    let app = Guarded::start(&[]).await;
    assert_eq!(app.ops.status("POST", "/v1/queue/pause?what=work").await, StatusCode::OK);
    let batch = async |caller: &Caller| {
        let job = json!({ "source_url": "http://127.0.0.1:9/a.jpg", "idempotency_key": "order-1" });
        let answer = caller.post("/v1/jobs/batch", &json!({ "jobs": [job] })).await;
        text(&answer.json().await.unwrap(), "/items/0/job/id").to_owned()
    };
    let [first, again, others] = [batch(&app.a).await, batch(&app.a).await, batch(&app.b).await];
    assert_eq!(first, again);
    assert_ne!(first, others);

    let foreign = app.b.send("POST", "/v1/jobs/cancel?client=a&status=queued").await;
    assert_eq!(code(foreign).await, (403, "forbidden".to_owned()));
    let done: Value = app.b.send("POST", "/v1/jobs/cancel?status=queued").await.json().await.unwrap();
    assert_eq!(done["cancelled"], 1);
    assert_eq!(app.a.get(&format!("/v1/jobs/{first}")).await["status"], "queued");
    assert_eq!(app.b.get(&format!("/v1/jobs/{others}")).await["status"], "cancelled");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_operator_that_can_call_stays() {
    let app = Guarded::start(&[]).await;
    let ops = app.ops.get("/v1/clients/ops").await;
    let key = text(&ops, "/keys/0/_links/revoke/href");
    for (method, path) in [("POST", "/v1/clients/ops/revoke"), ("DELETE", key)] {
        let refused = app.ops.send(method, path).await;
        assert_eq!(code(refused).await, (409, "state-conflict".to_owned()), "{method} {path}");
    }
    let wanted = json!({ "name": "c", "role": "operator", "limits": { "waiting_jobs": 1_000_000_001 } });
    assert_eq!(code(app.ops.post("/v1/clients", &wanted).await).await, (422, "validation".to_owned()));
    let other = app.ops.post("/v1/clients", &json!({ "name": "c", "role": "operator" })).await;
    assert_eq!(other.status(), StatusCode::CREATED);
    assert_eq!(app.ops.status("DELETE", key).await, StatusCode::NO_CONTENT);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_upload_is_not_asked_for() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = Guarded::start(&[]).await;
    let address = app.running.base_url().trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\
                Expect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    crate::support::bounded(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(!answer.contains("100 Continue"), "{answer}");
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_those_that_the_caller_may_follow() {
    let app = Guarded::start(&[]).await;
    let Own { job, delivery, destination } = Own::of(&app.a).await;
    let links = async |caller: &Caller, path: &str| {
        let answer = caller.get(path).await;
        answer["_links"].as_object().unwrap().clone()
    };
    let names = |links: &serde_json::Map<String, Value>| links.keys().cloned().collect::<BTreeSet<_>>();
    let (nobodys, own, all) =
        (links(&app.nobody, "/").await, links(&app.a, "/").await, links(&app.ops, "/").await);
    assert!(names(&nobodys).is_subset(&names(&own)) && names(&own).is_subset(&names(&all)));
    assert!(!nobodys.contains_key("jobs") && own.contains_key("create"));
    for operators in ["ledger", "metrics", "backup", "replays", "start_replay", "clients"] {
        assert!(!own.contains_key(operators) && all.contains_key(operators), "{operators}");
    }
    for (caller, links) in [(&app.nobody, nobodys), (&app.a, own), (&app.ops, all)] {
        let whole = links.values().filter(|link| link["method"] == "GET" && link.get("templated").is_none());
        for link in whole {
            let status = caller.status("GET", text(link, "/href")).await;
            assert_eq!(status, StatusCode::OK, "{link}");
        }
    }
    for (path, action) in [
        (format!("/v1/deliveries/{delivery}"), "replay"),
        (format!("/v1/destinations/{destination}"), "pause"),
        ("/v1/queue".to_owned(), "pause"),
    ] {
        assert!(!links(&app.a, &path).await.contains_key(action), "{path}");
        assert!(links(&app.ops, &path).await.contains_key(action), "{path}");
    }
    assert!(links(&app.a, &format!("/v1/deliveries/{delivery}")).await.contains_key("cancel"));
    assert!(links(&app.a, &format!("/v1/jobs/{job}")).await.contains_key("delete"));
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_is_good_no_more_at_once_and_after_a_restart() {
    let app = Guarded::start(&[]).await;
    let client = app.ops.get("/v1/clients/a").await;
    assert_eq!(client["keys"].as_array().unwrap().len(), 1);
    let shown = client.to_string();
    assert!(!shown.contains(&app.a.key.as_ref().unwrap()[..20]), "{shown}");

    // A second key, and then the first goes.
    let new = app.ops.send("POST", "/v1/clients/a/keys").await;
    assert_eq!(new.status(), StatusCode::CREATED);
    let new: Value = new.json().await.unwrap();
    let second = app.a.with(text(&new, "/key"));
    assert_eq!(second.status("GET", "/v1/jobs").await, StatusCode::OK);
    let first = text(&client, "/keys/0/_links/revoke/href");
    assert_eq!(app.ops.status("DELETE", first).await, StatusCode::NO_CONTENT);
    assert_eq!(app.a.status("GET", "/v1/jobs").await, StatusCode::UNAUTHORIZED);
    assert_eq!(second.status("GET", "/v1/jobs").await, StatusCode::OK);

    assert_eq!(app.ops.status("POST", "/v1/clients/b/revoke").await, StatusCode::OK);
    assert_eq!(app.b.status("GET", "/v1/jobs").await, StatusCode::UNAUTHORIZED);
    let refused = app.ops.send("POST", "/v1/clients/b/keys").await;
    assert_eq!(code(refused).await, (409, "state-conflict".to_owned()));
    let taken = app.ops.post("/v1/clients", &json!({ "name": "b" })).await;
    assert_eq!(code(taken).await, (409, "state-conflict".to_owned()));
    let created = app.ops.post("/v1/clients", &json!({ "name": "c", "role": "client" })).await;
    assert_eq!(created.status(), StatusCode::CREATED);
    let created: Value = created.json().await.unwrap();

    let second = second.key.unwrap();
    let (folder, keys) = app.stop().await;
    let app = Guarded::on(folder, &[], keys, Clock::system()).await;
    let status = async |key: &str| app.nobody.with(key).status("GET", "/v1/jobs").await.as_u16();
    assert_eq!([status(&second).await, status(text(&created, "/key")).await], [200, 200]);
    assert_eq!(app.a.status("GET", "/v1/jobs").await, StatusCode::UNAUTHORIZED);
    assert_eq!(app.b.status("GET", "/v1/jobs").await, StatusCode::UNAUTHORIZED);
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_replays_what_belongs_to_others() {
    let app = Guarded::start(&[]).await;
    let Own { delivery, .. } = Own::of(&app.a).await;
    let matched = async |client: Option<&str>| {
        let wanted = json!({ "filter": { "state": "undelivered", "client": client }, "dry_run": true });
        let response = app.ops.post("/v1/replays", &wanted).await;
        let dry_run: Value = response.json().await.unwrap();
        dry_run["matched"].clone()
    };
    assert_eq!([matched(None).await, matched(Some("a")).await, matched(Some("b")).await], [1, 1, 0]);
    let again = app.ops.status("POST", &format!("/v1/deliveries/{delivery}/replay")).await;
    assert!([202, 409].contains(&again.as_u16()), "{again}");
    app.stop().await;
}
