//! Events: what a receiver reads, to the byte, and the feed.

use darkroom::clock::{Clock, entropy};
use darkroom::domain::client::ClientId;
use darkroom::domain::delivery::DeliveryState;
use darkroom::domain::event::{Event, EventKind, Subject};
use darkroom::domain::id::{DeliveryId, EventId, JobId, WorkerId};
use darkroom::domain::image::Format;
use darkroom::domain::job::{Artifact, Callback, CallbackProgress, Job, JobError, NewJob, Priority};
use darkroom::domain::retry::RetryOverride;
use darkroom::service::view::event_body;
use darkroom::store::sled::SledStore;
use darkroom::store::{Store as _, Submission};
use jiff::Timestamp;
use serde_json::Value;

use crate::support::{App, eventually, new_job, picture, store_options, text};

/// One body a line. `DARKROOM_GOLDEN=update cargo test --test it events` writes it anew.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/golden/events.jsonl");

const OTHERS: usize = 4001;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + second).unwrap()
}

/// A job with nothing that is optional.
fn bare() -> Job {
    Job::accepted(new_job(JobId::new(at(0), &[1; 10])), at(0))
}

fn with_callback(mut job: Job) -> Job {
    job.callback = Some(Callback {
        url: "https://hooks.example/a?b=c".parse().unwrap(),
        events: EventKind::OF_JOBS.to_vec(),
        secret: None,
        headers: Vec::new(),
        retry: RetryOverride::default(),
        latest: Some(CallbackProgress {
            delivery: DeliveryId::new(at(2), &[3; 10]),
            state: DeliveryState::Pending,
            attempts: 1,
            next_attempt_at: Some(at(7)),
            delivered_at: None,
        }),
    });
    job
}

fn claimed(mut job: Job) -> Job {
    job.claim(WorkerId::new(at(0), &[2; 10]), at(31), at(1)).unwrap();
    job
}

/// A job with everything that is optional in one that is completed.
fn completed() -> Job {
    let mut job = with_callback(claimed(bare()));
    job.input.as_mut().unwrap().filename = Some("Grüße \"1\".jpg".to_owned());
    job.tags = vec!["a".to_owned(), "b".to_owned()];
    job.metadata = Some(r#"{"b":1,"a":[2.50]}"#.to_owned());
    for (name, format) in [("preview", Format::Jpeg), ("optimized", Format::Png)] {
        let sha256 = [7; 32];
        let artifact = Artifact { name: name.to_owned(), format, bytes: 123, width: 40, height: 30, sha256 };
        job.add_artifact(job.lease_token, artifact, None).unwrap();
    }
    job.complete(job.lease_token, at(2)).unwrap();
    if let Some(latest) = job.callback.as_mut().and_then(|callback| callback.latest.as_mut()) {
        (latest.next_attempt_at, latest.delivered_at) = (None, Some(at(9)));
    }
    job
}

fn failed() -> Job {
    let mut job = claimed(bare());
    let text = |text: &str| text.to_owned();
    let (code, title, detail) = (text("image-undecodable"), text("It cannot be decoded"), text("cut short"));
    job.fail(job.lease_token, JobError { code, title, detail, retryable: false }, at(2)).unwrap();
    job
}

fn cancelled() -> Job {
    let mut job = claimed(scheduled());
    job.cancel(at(2)).unwrap();
    job.stop_cancelled(job.lease_token, at(2)).unwrap();
    job.keep_until(at(100));
    job
}

fn scheduled() -> Job {
    let times = (Some(at(9)), Some(60_000));
    let new = new_job(JobId::new(at(0), &[1; 10]));
    Job::accepted(NewJob { priority: Priority::High, start_at: times.0, deadline_ms: times.1, ..new }, at(0))
}

fn deleted() -> Job {
    let mut job = completed();
    job.delete(at(2), at(50));
    job
}

fn restored() -> Job {
    let mut job = deleted();
    job.restore(at(100)).unwrap();
    job
}

/// A `webhook-id` stands for the same bytes for as long as its delivery is tried, which is three days; a version
/// that writes an event in another way breaks that for those that are on their way when it starts. So a change here
/// needs a format version in the event, by which the old ones are written as they were.
#[test]
fn the_bytes_of_an_event_stay_what_they_are() {
    let stories = [
        (EventKind::JobQueued, bare()),
        (EventKind::JobStarted, with_callback(claimed(bare()))),
        (EventKind::JobCompleted, completed()),
        (EventKind::JobFailed, failed()),
        (EventKind::JobCancelled, cancelled()),
        (EventKind::JobDeleted, deleted()),
        (EventKind::JobRestored, restored()),
    ];
    assert_eq!(stories.each_ref().map(|(kind, _)| *kind), EventKind::OF_JOBS);
    let mut written = String::new();
    for (seq, (kind, job)) in (1..).zip(stories) {
        let id = EventId::new(at(2), &[4; 10]);
        let source = "https://img.example".to_owned();
        let event =
            Event { id, seq, kind, at: at(2), source, subject: Subject::Job(Box::new(job.snapshot())) };
        written += &String::from_utf8(event_body(&event).unwrap()).unwrap();
        written.push('\n');
    }
    if std::env::var_os("DARKROOM_GOLDEN").is_some_and(|wish| wish == "update") {
        std::fs::write(GOLDEN, &written).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap();
    for (written, golden) in written.lines().zip(golden.lines()) {
        assert_eq!(written, golden);
    }
    assert_eq!(written.len(), golden.len());
}

#[tokio::test]
async fn a_feed_leads_past_the_events_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let own = JobId::new(Clock::system().now(), &entropy());
    tokio::task::spawn_blocking(move || {
        let options = store_options();
        let now = Clock::system().now();
        let store = SledStore::open(&path, options, now).unwrap();
        // More than are looked through for one page.
        let others = (0..OTHERS).map(|_| {
            let client: ClientId = serde_json::from_str("\"other\"").unwrap();
            NewJob { client, ..new_job(JobId::new(now, &entropy())) }
        });
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let submit = |job| store.submit(Submission { job, idempotency: None }, now);
            futures_util::future::try_join_all(others.map(submit)).await.unwrap();
            submit(new_job(own)).await.unwrap();
            store.close().await;
        });
    })
    .await
    .unwrap();

    let app = App::on(folder, &[], Clock::system()).await;
    let mut url = app.url("/v1/events?client=dev&limit=2");
    let mut pages = 0;
    let found = loop {
        let page: Value = app.http.get(&url).send().await.unwrap().json().await.unwrap();
        pages += 1;
        if let Some(first) = page["items"].as_array().unwrap().first() {
            break first["subject"].clone();
        }
        let next = page["_links"]["next"]["href"].as_str().unwrap().to_owned();
        assert_ne!(next, url, "a page that leads to itself");
        url = next;
    };
    assert_eq!((found, pages), (own.to_string().into(), 2));
    app.stop().await;
}

#[tokio::test]
async fn a_feed_is_narrowed_to_types_and_to_a_job() {
    let app = App::start().await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = text(&app.accepted(picture::jpeg(8, 8), &[]).await, "/id").to_owned();
        app.finished(&job).await;
        jobs.push(job);
    }
    let read = async |query: &str| {
        let page: Value =
            app.http.get(app.url(&format!("/v1/events?{query}"))).send().await.unwrap().json().await.unwrap();
        let items = page["items"].as_array().unwrap().clone();
        let seen = items.iter().map(|item| (item["type"].clone(), item["subject"].clone()));
        (seen.collect::<Vec<_>>(), page["page"]["has_more"].clone(), page["_links"]["next"]["href"].clone())
    };
    let event = |kind: &str, job: &String| (Value::from(kind), Value::from(job.as_str()));
    let (one, two) = (&jobs[0], &jobs[1]);
    // The feed has an event once it is on disk, a moment after what it tells of is seen.
    let both = async || Some(read("types=job.completed").await).filter(|(seen, ..)| seen.len() == 2);
    assert_eq!(eventually(both).await.1, false);
    let (seen, has_more, next) = read(&format!("types=job.queued,job.completed&job_id={two}&limit=1")).await;
    assert_eq!((seen, has_more), (vec![event("job.queued", two)], true.into()));
    // What the filter was goes with the link.
    let next = next.as_str().unwrap().split_once('?').unwrap().1.to_owned();
    assert_eq!(read(&next).await.0, [event("job.completed", two)]);
    let (of_one, ..) = read(&format!("job_id={one}")).await;
    assert_eq!(of_one.len(), 3);
    assert!(of_one.iter().all(|(_, subject)| subject == one.as_str()));
    let unknown = format!("job_id={}", JobId::new(at(0), &[9; 10]));
    for (query, status) in [("types=job.finished", 400), ("job_id=7", 400), (&*unknown, 404)] {
        let answer = app.http.get(app.url(&format!("/v1/events?{query}"))).send().await.unwrap();
        assert_eq!(answer.status(), status, "{query}");
    }
    app.stop().await;
}
