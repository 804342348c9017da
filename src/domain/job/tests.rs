//! Transitions of a job, and what other tests make jobs with.

use super::*;
use crate::domain::event::EventKind;
use crate::domain::image::{Format, Handling};
use crate::domain::retry::RetryOverride;
use crate::domain::secret::{SealedSecret, SigningSecret};

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) fn worker(n: u8) -> WorkerId {
    WorkerId::new(at(0), &[n; 10])
}

pub(crate) fn new_job(n: u8) -> NewJob {
    NewJob {
        id: JobId::new(at(1), &[n; 10]),
        client: ClientId::dev(),
        input: Input {
            filename: Some("cat.jpg".to_owned()),
            format: Format::Jpeg,
            bytes: 1000,
            width: 40,
            height: 30,
            sha256: [n; 32],
        },
        variants: Variant::defaults(),
        preset: None,
        handling: Handling::default(),
        callback: Some(Callback {
            url: "https://hooks.example/abc".parse().unwrap(),
            events: EventKind::TERMINAL.to_vec(),
            secret: Some(SealedSecret::plain(&SigningSecret::from_entropy([n; 32]))),
            headers: Vec::new(),
            retry: RetryOverride::default(),
            latest: None,
        }),
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: Vec::new(),
        metadata: None,
    }
}

pub(crate) fn error() -> JobError {
    JobError {
        code: "image-undecodable".to_owned(),
        title: "The image cannot be decoded".to_owned(),
        detail: "bad".to_owned(),
        retryable: false,
    }
}

fn claimed() -> (Job, u64) {
    let mut job = Job::accepted(new_job(1), at(1));
    job.claim(worker(1), at(31), at(2)).unwrap();
    let token = job.lease_token;
    (job, token)
}

#[test]
fn a_job_is_claimed_once() {
    let (mut job, _) = claimed();
    assert_eq!(job.status, JobStatus::Processing);
    let again = job.claim(worker(2), at(40), at(3));
    assert_eq!(again, Err(TransitionError::WrongState(JobStatus::Processing)));
}

#[test]
fn a_worker_that_outlived_its_lease_is_fenced_off() {
    let (mut job, stale) = claimed();
    job.lose_worker(at(40)).unwrap();
    job.claim(worker(2), at(80), at(41)).unwrap();
    let before = job.clone();
    assert_eq!(job.complete(stale, at(42)), Err(TransitionError::StaleLease));
    assert_eq!(job.fail(stale, error(), at(42)), Err(TransitionError::StaleLease));
    assert_eq!(job.extend_lease(stale, at(99)), Err(TransitionError::StaleLease));
    assert_eq!(job.give_back(stale, None, at(42)), Err(TransitionError::StaleLease));
    assert_eq!(job, before);
    assert_eq!(job.complete(job.lease_token, at(43)), Ok(()));
}

#[test]
fn a_job_ends_once() {
    let (mut job, token) = claimed();
    job.complete(token, at(3)).unwrap();
    let again = job.fail(token, error(), at(4));
    assert_eq!(again, Err(TransitionError::WrongState(JobStatus::Completed)));
    assert_eq!((job.finished_at, job.error), (Some(at(3)), None));
}

#[test]
fn what_shutdown_cuts_off_is_no_try_and_what_kills_the_worker_is() {
    let (mut job, token) = claimed();
    job.give_back(token, None, at(3)).unwrap();
    assert_eq!((job.status, job.attempt), (JobStatus::Queued, 0));
    job.claim(worker(2), at(40), at(4)).unwrap();
    job.lose_worker(at(41)).unwrap();
    assert_eq!((job.status, job.attempt, job.started_at), (JobStatus::Queued, 1, Some(at(2))));
}

#[test]
fn artifacts_that_exist_are_not_made_again() {
    let (mut job, token) = claimed();
    let preview = Artifact {
        name: "preview".to_owned(),
        format: Format::Jpeg,
        bytes: 10,
        width: 40,
        height: 30,
        sha256: [0; 32],
    };
    job.add_artifact(token, preview.clone(), None).unwrap();
    job.add_artifact(token, preview, None).unwrap();
    assert_eq!(job.artifacts.len(), 1);
    let missing: Vec<_> = job.missing_variants().into_iter().map(|variant| variant.name).collect();
    assert_eq!(missing, ["optimized", "thumbnail"]);
}

#[test]
fn a_snapshot_has_no_secret() {
    let job = Job::accepted(new_job(1), at(1));
    assert!(job.callback.as_ref().is_some_and(|callback| callback.secret.is_some()));
    assert!(job.snapshot().callback.is_some_and(|callback| callback.secret.is_none()));
}

#[test]
fn a_queued_job_is_cancelled_at_once_and_a_running_one_when_it_stops() {
    let mut queued = Job::accepted(new_job(1), at(1));
    queued.cancel(at(2)).unwrap();
    assert_eq!((queued.status, queued.finished_at), (JobStatus::Cancelled, Some(at(2))));
    assert_eq!(queued.cancel(at(3)), Err(TransitionError::WrongState(JobStatus::Cancelled)));

    let (running, token) = claimed();
    let asked = |mut job: Job| {
        job.cancel(at(3)).unwrap();
        job.cancel(at(4)).unwrap();
        assert_eq!((job.status, job.cancel_requested_at), (JobStatus::Processing, Some(at(3))));
        job
    };
    let mut stopped = asked(running.clone());
    stopped.stop_cancelled(token, at(5)).unwrap();
    let mut lost = asked(running.clone());
    lost.lose_worker(at(5)).unwrap();
    let mut failed_try = asked(running.clone());
    failed_try.retry_later(token, error(), at(9), at(5)).unwrap();
    for job in [stopped, lost, failed_try] {
        assert_eq!((job.status, job.finished_at), (JobStatus::Cancelled, Some(at(5))));
    }
    // Who commits first wins.
    let mut done = asked(running);
    done.complete(token, at(5)).unwrap();
    assert_eq!(done.status, JobStatus::Completed);
}

#[test]
fn another_go_starts_afresh_and_keeps_what_was_made() {
    let (mut job, token) = claimed();
    job.fail(token, error(), at(3)).unwrap();
    job.keep_until(at(100));
    job.retry(at(7)).unwrap();
    assert_eq!((job.status, job.attempt, &job.error), (JobStatus::Queued, 0, &None));
    assert_eq!((job.finished_at, job.purge_at, job.started_at), (None, None, Some(at(2))));
    let (mut job, token) = claimed();
    job.complete(token, at(3)).unwrap();
    assert_eq!(job.retry(at(7)), Err(TransitionError::WrongState(JobStatus::Completed)));
}

#[test]
fn a_deadline_ends_a_job_in_any_state_and_starts_again_with_it() {
    let mut job = Job::accepted(NewJob { deadline_ms: Some(10_000), ..new_job(1) }, at(1));
    assert_eq!(job.deadline_at, Some(at(11)));
    job.claim(worker(1), at(31), at(2)).unwrap();
    let token = job.lease_token;
    job.expire(error(), at(11)).unwrap();
    assert_eq!(job.complete(token, at(12)), Err(TransitionError::WrongState(JobStatus::Failed)));
    job.retry(at(20)).unwrap();
    assert_eq!(job.deadline_at, Some(at(30)));
}

#[test]
fn deleting_hides_what_has_ended_and_cancels_what_has_not() {
    let (mut done, token) = claimed();
    done.complete(token, at(3)).unwrap();
    done.keep_until(at(100));
    assert!(done.delete(at(4), at(50)));
    assert!(!done.delete(at(5), at(60)));
    assert_eq!((done.status, done.deleted_at), (JobStatus::Completed, Some(at(4))));
    assert_eq!(done.purge_at, Some(at(50)));
    assert_eq!(done.retry(at(5)), Err(TransitionError::WrongState(JobStatus::Completed)));
    done.restore(at(100)).unwrap();
    assert_eq!((done.deleted_at, done.purge_at), (None, Some(at(100))));
    assert_eq!(done.restore(at(100)), Err(TransitionError::NotDeleted));

    let mut queued = Job::accepted(new_job(1), at(1));
    queued.delete(at(2), at(50));
    assert_eq!(queued.status, JobStatus::Cancelled);
    assert_eq!(queued.retry(at(3)), Err(TransitionError::Deleted));
    let (mut running, _) = claimed();
    running.delete(at(2), at(50));
    assert_eq!((running.status, running.cancel_requested_at), (JobStatus::Processing, Some(at(2))));
}

#[test]
fn a_scheduled_job_waits_and_a_time_that_has_passed_is_now() {
    let mut later = Job::accepted(NewJob { start_at: Some(at(9)), ..new_job(1) }, at(1));
    assert_eq!(later.due_at, Some(at(9)));
    later.become_ready().unwrap();
    assert_eq!(later.due_at, None);
    let past = Job::accepted(NewJob { start_at: Some(at(1)), ..new_job(1) }, at(1));
    assert_eq!(past.due_at, None);
}
