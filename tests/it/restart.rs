//! What was accepted goes on where it was.

use std::time::Duration;

use darkroom::clock::{Clock, entropy};
use darkroom::domain::id::{JobId, WorkerId};
use darkroom::store::sled::SledStore;
use darkroom::store::{Store as _, Submission};

use crate::support::receiver::Receiver;
use crate::support::{App, new_job, picture, store_options, text};

#[tokio::test]
async fn jobs_that_wait_are_done_by_the_next_process() {
    let app = App::with(&[("imaging.threads", "1")], Clock::system()).await;
    let receiver = Receiver::start(&[]).await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        let job = app.accepted(picture::jpeg(900, 700), &[("callback_url", &receiver.url)]).await;
        ids.push(text(&job, "/id").to_owned());
    }
    let app = App::on(app.stop().await, &[], Clock::system()).await;
    for id in &ids {
        let job = app.job_when(id, |job| job["callback"]["status"] == "delivered").await;
        // A shutdown is no failed try.
        assert_eq!((text(&job, "/status"), job["attempt"].as_u64()), ("completed", Some(1)), "{job}");
    }
    let mut told: Vec<_> =
        receiver.all().iter().map(|callback| text(&callback.json(), "/subject").to_owned()).collect();
    told.sort_unstable();
    told.dedup();
    ids.sort_unstable();
    assert_eq!(told, ids);
    app.stop().await;
}

#[tokio::test]
async fn a_delivery_that_waits_keeps_its_due_time() {
    let clock = Clock::manual("2026-11-21T09:00:00Z".parse().unwrap());
    let app = App::with(&[], clock.clone()).await;
    let receiver = Receiver::start(&[503]).await;
    let job = app.accepted(picture::jpeg(40, 30), &[("callback_url", &receiver.url)]).await;
    let id = text(&job, "/id");
    let waiting =
        |job: &serde_json::Value| job["callback"]["status"] == "pending" && job["callback"]["attempts"] == 1;
    let before = app.job_when(id, waiting).await;
    let app = App::on(app.stop().await, &[], clock.clone()).await;
    let after = app.job_when(id, waiting).await;
    assert_eq!(after["callback"]["next_attempt_at"], before["callback"]["next_attempt_at"]);
    clock.set(text(&after, "/callback/next_attempt_at").parse().unwrap());
    app.job_when(id, |job| job["callback"]["status"] == "delivered").await;
    assert_eq!(receiver.all().len(), 2);
    app.stop().await;
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let app = App::start().await;
    let second = darkroom::app::start(crate::support::config(app.folder.path(), &[]), Clock::system()).await;
    let error = second.err().expect("refused").to_string();
    assert!(error.contains("in use by another darkroom process"), "{error}");
    app.stop().await;
}

#[tokio::test]
async fn a_job_that_ends_its_worker_each_time_fails_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let id = JobId::new(Clock::system().now(), &entropy());
    // Four processes that take it up and die: nothing gives it back.
    let path = folder.path().join("store");
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        for round in 0..4 {
            let options = store_options();
            let store = SledStore::open(&path, options, Clock::system().now()).unwrap();
            runtime.block_on(async {
                let now = Clock::system().now();
                if round == 0 {
                    store.submit(Submission { job: new_job(id), idempotency: None }, now).await.unwrap();
                }
                let worker = WorkerId::new(now, &entropy());
                let claimed = store.claim_jobs(worker, 1, Duration::from_secs(3600), now).await.unwrap();
                assert_eq!(claimed[0].attempt, round + 1);
                store.close().await;
            });
        }
    })
    .await
    .unwrap();
    let app = App::on(folder, &[("queue.max_tries", "4")], Clock::system()).await;
    let job = app.finished(&id.to_string()).await;
    assert_eq!((text(&job, "/status"), text(&job, "/error/code")), ("failed", "worker-lost"));
    assert_eq!(job["error"]["retryable"], true);
    app.stop().await;
}

#[tokio::test]
async fn a_picture_that_takes_too_long_fails_and_says_so() {
    let app = App::with(&[("imaging.max_time_ms", "1")], Clock::system()).await;
    let receiver = Receiver::start(&[]).await;
    let job = app.accepted(picture::jpeg(2000, 1500), &[("callback_url", &receiver.url)]).await;
    let job = app.finished(text(&job, "/id")).await;
    assert_eq!((text(&job, "/status"), text(&job, "/error/code")), ("failed", "processing-timeout"));
    assert_eq!(text(&receiver.nth(1).await.json(), "/type"), "job.failed");
    app.stop().await;
}
