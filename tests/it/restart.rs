//! What was accepted goes on where it was.

use darkroom::clock::Clock;

use crate::support::receiver::Receiver;
use crate::support::{App, picture, text};

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
