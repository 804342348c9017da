//! Who may work on a job, for how long, and what becomes of it afterwards.

use darkroom::domain::event::EventKind;
use darkroom::domain::id::{DeliveryId, JobId};
use darkroom::domain::job::{Job, JobStatus, NewJob, TransitionError};
use darkroom::store::{Ending, StoreError};

use crate::rig::{
    KEEP_FINISHED, LEASE, Rig, artifact, at, error, job, job_id, job_of, secs, telling, worker,
};

fn every_ending() -> [Ending; 6] {
    [
        Ending::Completed,
        Ending::Failed(error()),
        Ending::RetryAt(error(), at(99)),
        Ending::Cancelled,
        Ending::GivenBack(None),
        Ending::GivenBack(Some(at(99))),
    ]
}

/// Insists that whoever comes with this token is refused, and that nothing has changed by it.
async fn is_fenced_off(rig: &Rig, id: JobId, token: u64, refused: fn(&StoreError) -> bool) {
    let before =
        (rig.stored(id).await, rig.story(id).await, rig.next_due().await.unwrap(), rig.waiting_jobs());
    assert!(rig.extend_job(id, token, at(9_999)).await.is_err_and(|error| refused(&error)));
    assert!(
        rig.add_artifact(id, token, artifact("preview", 1), None).await.is_err_and(|error| refused(&error))
    );
    for ending in every_ending() {
        assert!(rig.finish_job(id, token, ending, at(60)).await.is_err_and(|error| refused(&error)));
    }
    let after =
        (rig.stored(id).await, rig.story(id).await, rig.next_due().await.unwrap(), rig.waiting_jobs());
    assert_eq!(after, before);
}

fn is_stale(error: &StoreError) -> bool {
    matches!(error, StoreError::Transition(TransitionError::StaleLease))
}

fn has_ended(error: &StoreError) -> bool {
    matches!(error, StoreError::Transition(TransitionError::WrongState(status)) if status.is_terminal())
}

pub async fn a_lease_that_runs_out_requeues_and_counts(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let first = rig.claim_one(at(0)).await;
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(LEASE)));
    rig.claims_nothing(at(LEASE - 1)).await;
    let mut again = rig.claim_jobs(worker(2), 5, secs(LEASE), at(LEASE)).await.unwrap();
    let second = again.remove(0);
    assert_eq!((second.id, second.attempt), (first.id, 2));
    assert!(second.lease_token > first.lease_token);
    assert_eq!(second.lease.unwrap().worker, worker(2));
    assert_eq!(second.started_at, first.started_at, "it was started once");
    assert_eq!(rig.told(first.id).await, [EventKind::JobQueued, EventKind::JobStarted]);
    // Without a claim, too.
    rig.sweep_jobs(at(2 * LEASE)).await.unwrap();
    let swept = rig.stored(first.id).await;
    assert_eq!((swept.status, swept.attempt, swept.lease), (JobStatus::Queued, 2, None));
    assert_eq!(rig.waiting_jobs(), 1);
}

pub async fn a_stale_token_is_refused_and_changes_nothing(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let first = rig.claim_one(at(0)).await;
    let id = first.id;
    is_fenced_off(rig, id, first.lease_token + 1, is_stale).await;
    // Back in the queue, with nobody at work on it.
    rig.sweep_jobs(at(LEASE)).await.unwrap();
    is_fenced_off(rig, id, first.lease_token, is_stale).await;
    // Another's by now.
    let second = rig.claim_one(at(LEASE)).await;
    is_fenced_off(rig, id, first.lease_token, is_stale).await;
    rig.extend_job(id, second.lease_token, at(70)).await.unwrap();
    let done = rig.finish(&second, Ending::Completed, at(61)).await;
    assert_eq!(done.status, JobStatus::Completed);
    // Over.
    for token in [first.lease_token, second.lease_token] {
        is_fenced_off(rig, id, token, has_ended).await;
    }
}

pub async fn a_worker_whose_clock_stopped_loses_its_job_to_another(rig: &Rig) {
    let callback = telling(&EventKind::TERMINAL);
    rig.accept(NewJob { callback, ..job(1, at(0)) }, at(0)).await;
    let claim = async |n, now| rig.claim_jobs(worker(n), 1, secs(LEASE), now).await.unwrap().pop();
    let stopped = claim(1, at(0)).await.unwrap();
    let id = stopped.id;
    assert_eq!(claim(2, at(LEASE - 1)).await, None);
    let other = claim(2, at(LEASE)).await.unwrap();
    assert_eq!((other.id, other.attempt), (id, 2));
    // To the first it is still the beginning, and its lease has long to go.
    assert!(rig.extend_job(id, stopped.lease_token, at(LEASE)).await.is_err_and(|error| is_stale(&error)));
    let failed = rig.finish_job(id, stopped.lease_token, Ending::Failed(error()), at(0)).await;
    assert!(failed.is_err_and(|error| is_stale(&error)));
    let done = rig.finish(&other, Ending::Completed, at(LEASE + 1)).await;
    assert_eq!((done.status, done.finished_at), (JobStatus::Completed, Some(at(LEASE + 1))));
    let late = rig.finish_job(id, stopped.lease_token, Ending::Completed, at(0)).await;
    assert!(late.is_err_and(|error| has_ended(&error)));
    let told = [EventKind::JobQueued, EventKind::JobStarted, EventKind::JobCompleted];
    assert_eq!(rig.told(id).await, told);
    assert_eq!(rig.deliveries_of(id).await.unwrap().len(), 1);
}

pub async fn an_extended_lease_holds(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let claimed = rig.claim_one(at(0)).await;
    let extended = rig.extend_job(claimed.id, claimed.lease_token, at(60)).await.unwrap();
    assert_eq!(extended.lease.unwrap().until, at(60));
    assert_eq!(extended.cancel_requested_at, None);
    assert_eq!(extended.revision, claimed.revision, "no client can see it");
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(60)));
    rig.claims_nothing(at(59)).await;
    rig.cancel_job(claimed.id, at(59)).await.unwrap();
    let extended = rig.extend_job(claimed.id, claimed.lease_token, at(90)).await.unwrap();
    assert_eq!(extended.cancel_requested_at, Some(at(59)), "a heartbeat brings the news");
    assert_eq!(rig.finish(&claimed, Ending::Cancelled, at(89)).await.status, JobStatus::Cancelled);
}

pub async fn what_is_given_back_is_not_counted(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let claimed = rig.claim_one(at(0)).await;
    let given_back = rig.finish(&claimed, Ending::GivenBack(None), at(1)).await;
    assert_eq!((given_back.status, given_back.attempt), (JobStatus::Queued, 0));
    assert_eq!(rig.waiting_jobs(), 1);
    let claimed = rig.claim_one(at(1)).await;
    assert_eq!(claimed.attempt, 1);
    let given_back = rig.finish(&claimed, Ending::GivenBack(Some(at(10))), at(2)).await;
    assert_eq!((given_back.attempt, given_back.due_at), (0, Some(at(10))));
    assert_eq!(rig.waiting_jobs(), 1);
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(10)));
    rig.claims_nothing(at(9)).await;
    assert_eq!(rig.claim_one(at(10)).await.attempt, 1);
    assert_eq!(rig.told(claimed.id).await, [EventKind::JobQueued, EventKind::JobStarted]);
}

pub async fn a_failed_try_waits_for_the_next(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let claimed = rig.claim_one(at(0)).await;
    let waiting = rig.finish(&claimed, Ending::RetryAt(error(), at(10)), at(1)).await;
    assert_eq!((waiting.status, waiting.attempt, waiting.due_at), (JobStatus::Queued, 1, Some(at(10))));
    assert_eq!((waiting.error, waiting.finished_at, waiting.purge_at), (Some(error()), None, None));
    rig.claims_nothing(at(9)).await;
    let claimed = rig.claim_one(at(10)).await;
    assert_eq!(claimed.attempt, 2);
    let done = rig.finish(&claimed, Ending::Completed, at(11)).await;
    assert_eq!((done.status, done.error), (JobStatus::Completed, None));
    let story = [EventKind::JobQueued, EventKind::JobStarted, EventKind::JobCompleted];
    assert_eq!(rig.told(claimed.id).await, story);
}

pub async fn artifacts_outlive_their_worker(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let claimed = rig.claim_one(at(0)).await;
    let (id, token) = (claimed.id, claimed.lease_token);
    for made in [artifact("preview", 1), artifact("thumbnail", 2), artifact("preview", 3)] {
        rig.add_artifact(id, token, made, None).await.unwrap();
    }
    let noted = rig.stored(id).await;
    assert_eq!(noted.artifacts, [artifact("thumbnail", 2), artifact("preview", 3)], "one of a name");
    assert!(noted.revision > claimed.revision);
    let names =
        |job: &Job| job.missing_variants().into_iter().map(|variant| variant.name).collect::<Vec<_>>();
    let again = rig.claim_one(at(LEASE)).await;
    assert_eq!(names(&again), ["optimized"], "the next goes on from there");
    rig.add_artifact(id, again.lease_token, artifact("optimized", 4), None).await.unwrap();
    let done = rig.finish(&again, Ending::Completed, at(LEASE + 1)).await;
    assert_eq!(done.artifacts.len(), 3);
    assert_eq!(rig.stored(id).await, done);
}

pub async fn a_job_ends_once(rig: &Rig) {
    for (n, ending, status) in [
        (1, Ending::Completed, JobStatus::Completed),
        (2, Ending::Failed(error()), JobStatus::Failed),
        (3, Ending::Cancelled, JobStatus::Cancelled),
    ] {
        let done = rig.ended(job(n, at(0)), ending, at(0)).await;
        assert_eq!((done.status, done.finished_at, done.lease), (status, Some(at(0)), None));
        assert_eq!(done.purge_at, Some(at(KEEP_FINISHED)));
        assert_eq!(rig.stored(done.id).await, done);
        let again = rig.finish_job(done.id, done.lease_token, Ending::Completed, at(1)).await;
        assert!(again.is_err_and(|error| has_ended(&error)));
        let story = rig.story(done.id).await;
        assert_eq!(*job_of(story.last().unwrap()), done.snapshot());
        assert_eq!(story.iter().filter(|event| EventKind::TERMINAL.contains(&event.kind)).count(), 1);
    }
    rig.claims_nothing(at(1)).await;
    assert_eq!((rig.waiting_jobs(), rig.next_due().await.unwrap().job), (0, None));
}

pub async fn opening_frees_what_was_claimed(rig: &Rig) {
    let told = telling(&[EventKind::JobQueued]);
    let new = |n| NewJob { callback: told.clone(), ..job(n, at(0)) };
    rig.accept_all([new(1), new(2)], at(0)).await;
    let jobs = rig.claim(2, at(0)).await;
    let sending = rig.claim_attempts(5, at(0)).await;
    assert_eq!((jobs.len(), sending.len()), (2, 2));
    rig.add_artifact(jobs[0].id, jobs[0].lease_token, artifact("preview", 1), None).await.unwrap();
    rig.cancel_job(jobs[1].id, at(1)).await.unwrap();

    rig.reopen(at(5)).await;

    let (freed, stopped) = (rig.stored(jobs[0].id).await, rig.stored(jobs[1].id).await);
    assert_eq!((freed.status, freed.attempt, freed.due_at), (JobStatus::Queued, 1, None));
    assert_eq!(freed.artifacts, [artifact("preview", 1)]);
    assert_eq!((stopped.status, stopped.finished_at), (JobStatus::Cancelled, Some(at(5))));
    let story = [EventKind::JobQueued, EventKind::JobStarted, EventKind::JobCancelled];
    assert_eq!(rig.told(stopped.id).await, story);
    assert_eq!(rig.waiting_jobs(), 1);
    is_fenced_off(rig, freed.id, jobs[0].lease_token, is_stale).await;
    for delivery in &sending {
        let freed = rig.delivery(delivery.id).await.unwrap().unwrap();
        assert_eq!((freed.next_attempt_at, freed.attempt_count), (Some(at(0)), 0));
        assert!(rig.give_back_delivery(delivery.id, delivery.token()).await.is_err());
    }
    let claimed = rig.claim_one(at(5)).await;
    assert!(claimed.lease_token > jobs[0].lease_token, "no token is given twice");
    assert_eq!(claimed.attempt, 2);
    let again = rig.claim_attempts(5, at(5)).await;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|delivery| sending.iter().all(|one| one.token() != delivery.token())));
}

pub async fn what_is_not_there_is_not_found(rig: &Rig) {
    let none = |result: Result<Job, StoreError>| matches!(result, Err(StoreError::NotFound));
    let id = job_id(1, at(0));
    assert!(none(rig.extend_job(id, 1, at(9)).await));
    assert!(none(rig.finish_job(id, 1, Ending::Completed, at(9)).await));
    assert!(none(rig.cancel_job(id, at(9)).await));
    assert!(none(rig.retry_job(id, at(9)).await));
    assert!(none(rig.delete_job(id, at(9)).await));
    assert!(none(rig.restore_job(id, at(9)).await));
    let noted = rig.add_artifact(id, 1, artifact("preview", 1), None).await;
    assert!(matches!(noted, Err(StoreError::NotFound)));
    assert_eq!(rig.story(id).await, []);
    assert_eq!(rig.deliveries_of(id).await.unwrap(), []);
    let delivery = DeliveryId::new(at(0), &[1; 10]);
    assert_eq!(rig.delivery(delivery).await.unwrap(), None);
    assert_eq!(rig.attempts_of(delivery).await.unwrap(), []);
    let given_back = rig.give_back_delivery(delivery, 1).await;
    assert!(matches!(given_back, Err(StoreError::NotFound)));
}
