//! Deliveries and destinations: what did not arrive, and what is done about it.

use std::collections::BTreeSet;
use std::time::Duration;

use darkroom::clock::Clock;
use jiff::Timestamp;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use url::Url;

use crate::cli::{run, stderr, stdout};
use crate::support::receiver::{Receiver, Reply};
use crate::support::{App, eventually, picture, text};

const START: &str = "2026-11-21T09:00:00Z";

fn clock() -> Clock {
    Clock::manual(START.parse().unwrap())
}

fn origin(url: &str) -> &str {
    url.trim_end_matches("/hook")
}

/// Where nothing listens: bound and dropped.
fn closed() -> String {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    format!("http://127.0.0.1:{port}/hook")
}

impl App {
    async fn post(&self, path: &str) -> Response {
        self.http.post(self.url(path)).send().await.unwrap()
    }

    /// A job with a callback there, and its delivery when that is as wanted.
    async fn delivery_to(&self, url: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let job = self.accepted(picture::jpeg(8, 6), &[("callback_url", url)]).await;
        let path = format!("/v1/jobs/{}/deliveries", text(&job, "/id"));
        let delivery = async || self.get_json(&path).await.pointer("/items/0").cloned();
        eventually(async || delivery().await.filter(|delivery| wanted(delivery))).await
    }

    async fn delivery_when(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let path = format!("/v1/deliveries/{id}");
        eventually(async || Some(self.get_json(&path).await).filter(|one| wanted(one))).await
    }

    /// The events of this type. The feed has an event once it is on disk, a moment after what it tells of is seen.
    async fn told(&self, kind: &str) -> Vec<Value> {
        eventually(async || {
            let feed = self.get_json(&format!("/v1/events?types={kind}")).await;
            Some(feed["items"].as_array()?.clone()).filter(|events| !events.is_empty())
        })
        .await
    }

    /// The ids of all that a query finds, page by page.
    async fn found(&self, query: &str) -> BTreeSet<String> {
        let mut url = self.url(&format!("/v1/deliveries?{query}"));
        let mut ids = BTreeSet::new();
        loop {
            let response = self.http.get(&url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{url}");
            let page: Value = response.json().await.unwrap();
            for item in page["items"].as_array().unwrap() {
                assert!(ids.insert(text(item, "/id").to_owned()), "{item} is on two pages");
            }
            match page.pointer("/_links/next/href") {
                None => return ids,
                Some(next) => url = next.as_str().unwrap().to_owned(),
            }
        }
    }
}

fn is(state: &str) -> impl Fn(&Value) -> bool {
    move |delivery| delivery["state"] == state
}

fn waits_again(delivery: &Value) -> bool {
    delivery["state"] == "pending" && delivery["attempt_count"] == 1
}

fn id(value: &Value) -> String {
    text(value, "/id").to_owned()
}

async fn is_problem(response: Response, status: StatusCode) -> Value {
    assert_eq!(response.status(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    response.json().await.unwrap()
}

#[tokio::test]
async fn what_did_not_arrive_is_found_by_each_filter() {
    let clock = clock();
    let app = App::with(&[("callbacks.max_attempts", "1")], clock.clone()).await;
    let failing = Receiver::start(&[503, 404, 503]).await;
    let well = Receiver::start(&[]).await;
    let unavailable = id(&app.delivery_to(&failing.url, is("exhausted")).await);
    let missing = app.delivery_to(&failing.url, is("exhausted")).await;
    let unreachable = id(&app.delivery_to(&closed(), is("exhausted")).await);
    let arrived = id(&app.delivery_to(&well.url, is("delivered")).await);
    clock.set("2026-11-21T09:00:10Z".parse().unwrap());
    let later = id(&app.delivery_to(&failing.url, is("exhausted")).await);

    let (here, job) = (text(&missing, "/destination_id"), text(&missing, "/job_id"));
    let missing_id = id(&missing);
    let all = [&unavailable, &missing_id, &unreachable, &arrived, &later];
    let [one, two, three, four, five] = all;
    assert_eq!(text(&missing, "/destination"), origin(&failing.url));
    let cases: [(String, &[&String]); 13] = [
        (String::new(), &all),
        ("state=undelivered".to_owned(), &[one, two, three, five]),
        ("state=undelivered&limit=1".to_owned(), &[one, two, three, five]),
        ("limit=2".to_owned(), &all),
        ("state=delivered".to_owned(), &[four]),
        ("state=pending".to_owned(), &[]),
        (format!("destination={}", origin(&failing.url)), &[one, two, five]),
        (format!("state=exhausted&destination={here}&limit=1"), &[one, two, five]),
        ("error_class=connect".to_owned(), &[three]),
        ("status_code=404&event_type=job.completed".to_owned(), &[two]),
        ("since=2026-11-21T09:00:10Z".to_owned(), &[five]),
        ("state=exhausted&status_code=503&until=2026-11-21T09:00:10Z".to_owned(), &[one]),
        (format!("job_id={job}"), &[two]),
    ];
    for (query, expected) in cases {
        let expected = expected.iter().map(|id| (*id).clone()).collect();
        assert_eq!(app.found(&query).await, expected, "{query}");
    }
    for query in ["state=lost", "destination=hooks", "error_class=bad", "status_code=9", "since=now", "no=1"]
    {
        let refused =
            is_problem(app.get(&format!("/v1/deliveries?{query}")).await, StatusCode::BAD_REQUEST).await;
        assert!(refused.to_string().contains(query.split('=').next().unwrap()), "{query}: {refused}");
    }
    app.stop().await;
}

#[tokio::test]
async fn one_that_waits_is_called_off_once() {
    let clock = clock();
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[500]).await;
    let waiting = app.delivery_to(&receiver.url, waits_again).await;
    let cancel = format!("/v1/deliveries/{}/cancel", text(&waiting, "/id"));
    assert!(text(&waiting, "/_links/cancel/href").ends_with(&cancel));
    let cancelled = app.post(&cancel).await;
    assert_eq!(cancelled.status(), StatusCode::OK);
    let cancelled: Value = cancelled.json().await.unwrap();
    assert_eq!((&cancelled["state"], &cancelled["next_attempt_at"]), (&json!("cancelled"), &json!(null)));
    assert!(cancelled.pointer("/_links/cancel").is_none(), "nothing that is not legal is offered");
    is_problem(app.post(&cancel).await, StatusCode::CONFLICT).await;
    let job = app.get_json(&format!("/v1/jobs/{}", text(&waiting, "/job_id"))).await;
    assert_eq!(job["callback"]["status"], "cancelled");

    // Long after it was due, only what came later arrives.
    clock.set("2026-11-22T09:00:00Z".parse().unwrap());
    app.delivery_to(&receiver.url, is("delivered")).await;
    assert_eq!(receiver.all().len(), 2);
    let unknown = format!("/v1/deliveries/dlv_{}/cancel", "0".repeat(32));
    is_problem(app.post(&unknown).await, StatusCode::NOT_FOUND).await;
    app.stop().await;
}

#[tokio::test]
async fn one_that_was_given_up_is_told_of_and_sent_again() {
    let app = App::with(&[("callbacks.max_attempts", "1")], Clock::system()).await;
    let receiver = Receiver::start(&[500]).await;
    let given_up = app.delivery_to(&receiver.url, is("exhausted")).await;
    let id = text(&given_up, "/id");
    let events = app.told("delivery.exhausted").await;
    let [told] = &events[..] else { panic!("{events:?}") };
    assert_eq!((text(told, "/type"), text(told, "/subject")), ("delivery.exhausted", id));
    for field in ["id", "state", "destination", "attempt_count", "last_status_code", "job_id", "event_id"] {
        assert_eq!(told["data"][field], given_up[field], "{field} in {told}");
    }

    let replay = format!("/v1/deliveries/{id}/replay");
    assert_eq!(app.post(&replay).await.status(), StatusCode::ACCEPTED);
    app.delivery_when(id, is("delivered")).await;
    let [first, second] = &receiver.all()[..] else { panic!("two attempts") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!((second.header("webhook-attempt"), &first.body), ("2", &second.body));

    let refused = is_problem(app.post(&replay).await, StatusCode::CONFLICT).await;
    assert!(refused.to_string().contains("force"), "{refused}");
    assert_eq!(app.post(&format!("{replay}?force=true")).await.status(), StatusCode::ACCEPTED);
    assert_eq!(receiver.nth(3).await.header("webhook-attempt"), "3");
    app.delivery_when(id, |one| one["state"] == "delivered" && one["attempt_count"] == 3).await;
    let attempts = app.get_json(&format!("/v1/deliveries/{id}/attempts")).await;
    let told: Vec<_> =
        attempts["items"].as_array().unwrap().iter().map(|one| (&one["number"], &one["trigger"])).collect();
    let number = [json!(1), json!(2), json!(3)];
    let (scheduled, manual) = (json!("scheduled"), json!("manual"));
    assert_eq!(told, [(&number[0], &scheduled), (&number[1], &manual), (&number[2], &manual)]);
    app.stop().await;
}

#[tokio::test]
async fn a_receiver_ends_a_delivery_itself() {
    let app = App::with(&[], clock()).await;
    let abort = Some(("webhook-delivery", "abort-message".to_owned()));
    let receiver = Receiver::answering(vec![Reply(410, None), Reply(500, abort)]).await;
    for status in [410, 500] {
        let ended = app.delivery_to(&receiver.url, |one| one["attempt_count"] == 1).await;
        assert_eq!((&ended["state"], &ended["last_status_code"]), (&json!("exhausted"), &json!(status)));
    }
    app.stop().await;
}

#[tokio::test]
async fn retry_after_puts_an_attempt_off_within_bounds() {
    let clock = clock();
    let app = App::with(&[], clock.clone()).await;
    let asks = |status, value: &str| Reply(status, Some(("retry-after", value.to_owned())));
    let receiver = Receiver::answering(vec![
        asks(429, "3600"),
        asks(503, "Sat, 21 Nov 2026 11:00:00 GMT"),
        // No later than the longest delay of the schedule, and no earlier than the schedule has it.
        asks(429, "1000000000"),
        asks(503, "1"),
        asks(429, "soon"),
        asks(500, "3600"),
    ])
    .await;
    for (least, most) in
        [(3600.0, 3600.0), (7200.0, 7200.0), (72_000.0, 72_000.0), (5.0, 5.5), (5.0, 5.5), (5.0, 5.5)]
    {
        let waiting = app.delivery_to(&receiver.url, waits_again).await;
        let due: Timestamp = text(&waiting, "/next_attempt_at").parse().unwrap();
        let delay = Duration::try_from(due.duration_since(clock.now())).unwrap().as_secs_f64();
        assert!((least..=most).contains(&delay), "{delay} s, and not {least} to {most}");
    }
    app.stop().await;
}

#[tokio::test]
async fn a_destination_is_paused_and_resumed() {
    let app = App::with(&[("callbacks.retry_initial_ms", "100")], Clock::system()).await;
    let disable = Some(("webhook-delivery", "disable".to_owned()));
    let receiver = Receiver::answering(vec![Reply(200, None), Reply(200, None), Reply(500, disable)]).await;
    let arrived = app.delivery_to(&receiver.url, is("delivered")).await;
    let here = format!("/v1/destinations/{}", text(&arrived, "/destination_id"));
    let listed = app.get_json("/v1/destinations").await;
    assert_eq!(text(&listed, "/items/0/origin"), origin(&receiver.url));
    let state = async || text(&app.get_json(&here).await, "/state").to_owned();
    assert_eq!(state().await, "well");

    let pause = format!("{here}/pause");
    assert!(text(&listed, "/items/0/_links/pause/href").ends_with(&pause));
    let paused: Value = app.post(&pause).await.json().await.unwrap();
    assert_eq!(text(&paused, "/state"), "paused");
    let job = app.accepted(picture::jpeg(8, 6), &[("callback_url", &receiver.url)]).await;
    app.finished(text(&job, "/id")).await;
    // What is due elsewhere is sent meanwhile.
    let other = Receiver::start(&[]).await;
    app.delivery_to(&other.url, is("delivered")).await;
    let now = app.get_json(&here).await;
    assert_eq!(
        (&now["waiting"], &now["in_flight"], receiver.all().len()),
        (&json!(1), &json!(0), 1),
        "{now}"
    );
    assert_eq!(app.post(&format!("{here}/resume")).await.status(), StatusCode::OK);
    app.job_when(text(&job, "/id"), |job| job["callback"]["status"] == "delivered").await;

    let waiting = app.delivery_to(&receiver.url, waits_again).await;
    assert_eq!(state().await, "disabled");
    let told = app.told("destination.suspended").await;
    assert_eq!(text(&told[0], "/data/state"), "disabled", "{told:?}");
    app.post(&format!("{here}/resume")).await;
    assert_eq!(app.told("destination.resumed").await.len(), 1);
    app.delivery_when(text(&waiting, "/id"), is("delivered")).await;
    assert_eq!(state().await, "well");

    let unknown = format!("/v1/destinations/dst_{}", "0".repeat(32));
    is_problem(app.get(&unknown).await, StatusCode::NOT_FOUND).await;
    is_problem(app.post(&format!("{unknown}/pause")).await, StatusCode::NOT_FOUND).await;
    app.stop().await;
}

#[tokio::test]
async fn operators_do_all_of_it_from_the_command_line() {
    let app = App::with(&[("callbacks.max_attempts", "1")], Clock::system()).await;
    let url = app.running.base_url();
    let receiver = Receiver::start(&[500]).await;
    let given_up = app.delivery_to(&receiver.url, is("exhausted")).await;
    let (id, here) = (text(&given_up, "/id"), text(&given_up, "/destination_id"));

    let listed = run(&["deliveries", "undelivered", "--json"], url).await;
    let listed: Value = serde_json::from_str(&stdout(&listed)).unwrap();
    assert_eq!(text(&listed, "/items/0/id"), id);
    for args in [
        &["deliveries", "list", "--state", "exhausted", "--destination", origin(&receiver.url)][..],
        &["deliveries", "undelivered", "--all"],
        &["deliveries", "get", id],
    ] {
        let output = run(args, url).await;
        assert!(output.status.success() && stdout(&output).contains(id), "{args:?}: {}", stdout(&output));
    }
    assert!(stdout(&run(&["deliveries", "attempts", id], url).await).contains("500"));

    assert_eq!(run(&["destinations", "pause", here], url).await.status.code(), Some(0));
    let shown: Value =
        serde_json::from_str(&stdout(&run(&["destinations", "get", here, "--json"], url).await)).unwrap();
    assert_eq!(text(&shown, "/state"), "paused");
    assert_eq!(run(&["deliveries", "replay", id], url).await.status.code(), Some(0));
    assert_eq!(run(&["deliveries", "cancel", id], url).await.status.code(), Some(0));
    let again = run(&["deliveries", "cancel", id], url).await;
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("cancelled"), "{}", stderr(&again));
    assert_eq!(run(&["deliveries", "replay", id], url).await.status.code(), Some(0));
    assert_eq!(run(&["destinations", "resume", here], url).await.status.code(), Some(0));
    app.delivery_when(id, is("delivered")).await;
    assert!(stdout(&run(&["destinations", "list"], url).await).contains(origin(&receiver.url)));
    let empty = run(&["deliveries", "undelivered"], url).await;
    assert_eq!((stdout(&empty).as_str(), empty.status.code()), ("", Some(0)));

    let nothing = (format!("dlv_{}", "0".repeat(32)), format!("dst_{}", "0".repeat(32)));
    for (args, code) in [
        (&["deliveries", "get", &nothing.0][..], 3),
        (&["deliveries", "replay", &nothing.0], 3),
        (&["destinations", "pause", &nothing.1], 3),
        (&["deliveries", "replay", id], 1),
        (&["deliveries", "list", "--state", "lost"], 2),
    ] {
        let output = run(args, url).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", stderr(&output));
        assert!(!output.stderr.is_empty(), "{args:?} says why");
    }
    app.stop().await;
}

#[tokio::test]
async fn each_of_several_is_done_whatever_becomes_of_the_others() {
    let app = App::start().await;
    let url = app.running.base_url();
    let (failing, well) = (Receiver::start(&[500; 8]).await, Receiver::start(&[]).await);
    let one = id(&app.delivery_to(&failing.url, waits_again).await);
    let other = id(&app.delivery_to(&failing.url, waits_again).await);
    let arrived = id(&app.delivery_to(&well.url, is("delivered")).await);
    let unknown = format!("dlv_{}", "0".repeat(32));

    let cancelled = run(&["deliveries", "cancel", &unknown, &one, &other], url).await;
    assert_eq!(stdout(&cancelled), format!("{one}  cancelled\n{other}  cancelled\n"));
    assert_eq!(cancelled.status.code(), Some(3), "{}", stderr(&cancelled));
    assert!(stderr(&cancelled).contains(&unknown), "{}", stderr(&cancelled));

    // Two that fail for different reasons.
    let replayed = run(&["deliveries", "replay", &arrived, &unknown, &one, "--json"], url).await;
    let said = stderr(&replayed);
    assert_eq!(replayed.status.code(), Some(1), "{said}");
    assert!(said.contains(&unknown) && said.contains("2 of 3 failed"), "{said}");
    assert!(
        said.contains(&format!("{arrived} is delivered")) && said.contains("--force sends it again"),
        "{said}"
    );
    assert_eq!(id(&serde_json::from_str(&stdout(&replayed)).unwrap()), one);

    let forced = run(&["deliveries", "replay", &arrived, &other, "--force", "--json"], url).await;
    assert_eq!(forced.status.code(), Some(0), "{}", stderr(&forced));
    let printed = stdout(&forced);
    let documents: Vec<_> = printed.lines().map(|line| id(&serde_json::from_str(line).unwrap())).collect();
    assert_eq!(documents, [arrived, other], "a document a line");
    app.stop().await;
}

#[tokio::test]
async fn a_replay_of_everything_is_asked_for() {
    let app = App::with(&[("callbacks.max_attempts", "1")], Clock::system()).await;
    let url = app.running.base_url();
    let receiver = Receiver::start(&[500]).await;
    let given_up = id(&app.delivery_to(&receiver.url, is("exhausted")).await);
    let bare = run(&["replays", "start"], url).await;
    assert_eq!(bare.status.code(), Some(2), "{}", stderr(&bare));
    assert!(stderr(&bare).contains("--all"), "{}", stderr(&bare));
    assert_eq!(app.get_json("/v1/replays").await["items"], json!([]));
    let looked = run(&["replays", "start", "--dry-run"], url).await;
    assert!(stdout(&looked).contains(&given_up), "{}", stdout(&looked));
    let all = run(&["replays", "start", "--all", "--wait"], url).await;
    assert!(stdout(&all).contains("1 delivered"), "{}{}", stdout(&all), stderr(&all));
    app.stop().await;
}

#[tokio::test]
async fn the_doctor_names_the_worst_destinations_and_counts_the_rest() {
    let app = App::with(&[("callbacks.max_attempts", "1")], Clock::system()).await;
    let port = Url::parse(&closed()).unwrap().port().unwrap();
    for host in 1..=12 {
        app.delivery_to(&format!("http://127.0.0.{host}:{port}/hook"), is("exhausted")).await;
    }
    let output = run(&["doctor"], app.running.base_url()).await;
    let said = stdout(&output);
    assert_eq!(said.lines().filter(|line| line.contains("destination:")).count(), 10, "{said}");
    assert!(said.contains("2 more of 12 are not well"), "{said}");
    app.stop().await;
}
