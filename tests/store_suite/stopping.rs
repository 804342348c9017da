//! Jobs that do not run to their end: deadlines, cancelling, another go, deleting and restoring.

use darkroom::domain::delivery::Verdict;
use darkroom::domain::event::EventKind::{
    JobCancelled, JobCompleted, JobDeleted, JobFailed, JobQueued, JobRestored, JobStarted,
};
use darkroom::domain::job::{Job, JobStatus, NewJob, TransitionError};
use darkroom::store::{Ending, JobAction, StoreError};

use crate::rig::{
    KEEP_DELETED, KEEP_FINISHED, LEASE, Rig, artifact, at, error, failed_attempt, ids, job, job_of, secs,
    telling, worker,
};

fn until(n: u32, deadline_ms: u64) -> NewJob {
    NewJob { deadline_ms: Some(deadline_ms), ..job(n, at(0)) }
}

fn refused(result: Result<Job, StoreError>, why: TransitionError) -> bool {
    result.is_err_and(|error| matches!(error, StoreError::Transition(found) if found == why))
}

pub async fn a_deadline_ends_a_queued_job_once(rig: &Rig) {
    let id = rig.accept(until(1, 10_000), at(0)).await.id;
    rig.sweep_jobs(at(9)).await.unwrap();
    assert_eq!(rig.stored(id).await.status, JobStatus::Queued);
    rig.claims_nothing(at(10)).await;
    let failed = rig.stored(id).await;
    assert_eq!((failed.status, failed.finished_at), (JobStatus::Failed, Some(at(10))));
    assert_eq!(failed.error.unwrap().code, "deadline-exceeded");
    assert_eq!(failed.purge_at, Some(at(10 + KEEP_FINISHED)));
    rig.sweep_jobs(at(11)).await.unwrap();
    assert_eq!(rig.told(id).await, [JobQueued, JobFailed]);
    assert_eq!((rig.waiting_jobs(), rig.next_due().await.unwrap().job), (0, None));
    // Another go has its whole time before it.
    let again = rig.retry_job(id, at(20)).await.unwrap();
    assert_eq!((again.deadline_at, again.error), (Some(at(30)), None));
    rig.sweep_jobs(at(29)).await.unwrap();
    assert_eq!(rig.stored(id).await.status, JobStatus::Queued);
    rig.sweep_jobs(at(30)).await.unwrap();
    assert_eq!(rig.told(id).await, [JobQueued, JobFailed, JobQueued, JobFailed]);
}

pub async fn a_deadline_ends_a_running_job_and_its_worker_is_refused(rig: &Rig) {
    let id = rig.accept(until(1, 10_000), at(0)).await.id;
    let claimed = rig.claim_one(at(1)).await;
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(10)), "before its lease runs out");
    rig.sweep_jobs(at(10)).await.unwrap();
    let failed = rig.stored(id).await;
    assert_eq!((failed.status, failed.lease, failed.attempt), (JobStatus::Failed, None, 1));
    for ending in [Ending::Completed, Ending::GivenBack(None), Ending::RetryAt(error(), at(12))] {
        let late = rig.finish_job(id, claimed.lease_token, ending, at(11)).await;
        assert!(refused(late, TransitionError::WrongState(JobStatus::Failed)));
    }
    assert_eq!(rig.told(id).await, [JobQueued, JobStarted, JobFailed]);
    assert_eq!(rig.stored(id).await, failed);
    rig.claims_nothing(at(1 + LEASE)).await;
    // Who ends in time has no deadline any more.
    let done = rig.ended(until(2, 10_000), Ending::Completed, at(40)).await;
    assert_eq!(rig.next_due().await.unwrap().job, None);
    rig.sweep_jobs(at(99)).await.unwrap();
    assert_eq!(rig.stored(done.id).await, done);
}

pub async fn a_deadline_ends_a_job_before_its_scheduled_start(rig: &Rig) {
    let id = rig.accept(NewJob { start_at: Some(at(20)), ..until(1, 10_000) }, at(0)).await.id;
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(10)));
    rig.claims_nothing(at(10)).await;
    rig.claims_nothing(at(20)).await;
    assert_eq!(rig.told(id).await, [JobQueued, JobFailed]);
    // Both at once: it is over, not begun.
    let id = rig.accept(NewJob { start_at: Some(at(40)), ..until(2, 10_000) }, at(30)).await.id;
    rig.claims_nothing(at(40)).await;
    assert_eq!(rig.stored(id).await.status, JobStatus::Failed);
    // A lost worker and the deadline at once: one ending.
    let id = rig.accept(until(3, 1000 * LEASE.unsigned_abs()), at(50)).await.id;
    rig.claim_one(at(50)).await;
    rig.claims_nothing(at(50 + LEASE)).await;
    assert_eq!(rig.told(id).await, [JobQueued, JobStarted, JobFailed]);
}

pub async fn a_queued_job_is_cancelled_at_once(rig: &Rig) {
    let ready = rig.accept(job(1, at(0)), at(0)).await;
    let scheduled = rig.accept(NewJob { start_at: Some(at(50)), ..until(2, 60_000) }, at(0)).await;
    for id in [ready.id, scheduled.id] {
        let cancelled = rig.cancel_job(id, at(1)).await.unwrap();
        assert_eq!((cancelled.status, cancelled.finished_at), (JobStatus::Cancelled, Some(at(1))));
        assert_eq!(cancelled.purge_at, Some(at(1 + KEEP_FINISHED)));
        assert_eq!(rig.told(id).await, [JobQueued, JobCancelled]);
        assert_eq!(rig.stored(id).await, cancelled);
    }
    assert_eq!((rig.waiting_jobs(), rig.next_due().await.unwrap().job), (0, None));
    rig.claims_nothing(at(70)).await;
}

pub async fn a_running_job_is_asked_to_stop_once(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let claimed = rig.claim_one(at(0)).await;
    let asked = rig.cancel_job(claimed.id, at(1)).await.unwrap();
    assert_eq!((asked.status, asked.cancel_requested_at), (JobStatus::Processing, Some(at(1))));
    assert!(asked.revision > claimed.revision);
    assert_eq!(rig.cancel_job(claimed.id, at(2)).await.unwrap(), asked, "asking again changes nothing");
    assert_eq!(rig.told(claimed.id).await, [JobQueued, JobStarted]);
    let stopped = rig.finish(&claimed, Ending::Cancelled, at(3)).await;
    assert_eq!((stopped.status, stopped.finished_at), (JobStatus::Cancelled, Some(at(3))));
    assert_eq!(rig.told(claimed.id).await, [JobQueued, JobStarted, JobCancelled]);

    // Who is faster than the request has won.
    rig.accept(job(2, at(4)), at(4)).await;
    let claimed = rig.claim_one(at(4)).await;
    rig.cancel_job(claimed.id, at(5)).await.unwrap();
    assert_eq!(rig.finish(&claimed, Ending::Completed, at(6)).await.status, JobStatus::Completed);
    assert_eq!(rig.told(claimed.id).await, [JobQueued, JobStarted, JobCompleted]);
}

pub async fn a_job_that_was_called_off_does_not_go_back_to_the_queue(rig: &Rig) {
    let ways = [
        Some(Ending::RetryAt(error(), at(9))),
        Some(Ending::GivenBack(None)),
        Some(Ending::GivenBack(Some(at(9)))),
        // Its worker is lost.
        None,
    ];
    for (n, ending) in (1..).zip(ways) {
        rig.accept(job(n, at(0)), at(0)).await;
        let claimed = rig.claim_one(at(0)).await;
        rig.cancel_job(claimed.id, at(1)).await.unwrap();
        match ending {
            Some(ending) => drop(rig.finish(&claimed, ending, at(LEASE)).await),
            None => rig.claims_nothing(at(LEASE)).await,
        }
        let cancelled = rig.stored(claimed.id).await;
        assert_eq!((cancelled.status, cancelled.finished_at), (JobStatus::Cancelled, Some(at(LEASE))));
        assert_eq!(rig.told(claimed.id).await, [JobQueued, JobStarted, JobCancelled]);
    }
    assert_eq!((rig.waiting_jobs(), rig.next_due().await.unwrap().job), (0, None));
}

pub async fn a_job_that_has_ended_is_not_cancelled(rig: &Rig) {
    for (n, ending) in (1..).zip([Ending::Completed, Ending::Failed(error()), Ending::Cancelled]) {
        let done = rig.ended(job(n, at(0)), ending, at(0)).await;
        assert!(refused(rig.cancel_job(done.id, at(1)).await, TransitionError::WrongState(done.status)));
        assert_eq!(rig.stored(done.id).await, done);
        assert_eq!(rig.told(done.id).await.len(), 3);
    }
}

pub async fn another_go_starts_afresh(rig: &Rig) {
    rig.accept(until(1, 100_000), at(0)).await;
    let claimed = rig.claim_one(at(0)).await;
    rig.add_artifact(claimed.id, claimed.lease_token, artifact("preview", 1), None).await.unwrap();
    rig.finish(&claimed, Ending::Failed(error()), at(1)).await;
    let again = rig.retry_job(claimed.id, at(50)).await.unwrap();
    assert_eq!((again.status, again.attempt, &again.error), (JobStatus::Queued, 0, &None));
    assert_eq!((again.finished_at, again.purge_at, again.deadline_at), (None, None, Some(at(150))));
    assert_eq!(again.artifacts, [artifact("preview", 1)]);
    assert_eq!(rig.waiting_jobs(), 1);
    let claimed = rig.claim_one(at(51)).await;
    assert_eq!((claimed.id, claimed.attempt, claimed.started_at), (again.id, 1, Some(at(0))));
    rig.finish(&claimed, Ending::Completed, at(52)).await;
    assert_eq!(rig.told(again.id).await, [JobQueued, JobStarted, JobFailed, JobQueued, JobCompleted]);

    let cancelled = rig.ended(job(2, at(60)), Ending::Cancelled, at(60)).await;
    let again = rig.retry_job(cancelled.id, at(61)).await.unwrap();
    assert_eq!((again.status, again.cancel_requested_at), (JobStatus::Queued, None));
    let claimed = rig.claim_one(at(61)).await;
    assert_eq!(rig.finish(&claimed, Ending::GivenBack(None), at(62)).await.status, JobStatus::Queued);
}

pub async fn only_what_failed_or_was_cancelled_has_another_go(rig: &Rig) {
    let id = rig.accept(job(1, at(0)), at(0)).await.id;
    assert!(refused(rig.retry_job(id, at(1)).await, TransitionError::WrongState(JobStatus::Queued)));
    let claimed = rig.claim_one(at(1)).await;
    assert!(refused(rig.retry_job(id, at(1)).await, TransitionError::WrongState(JobStatus::Processing)));
    rig.finish(&claimed, Ending::Completed, at(2)).await;
    assert!(refused(rig.retry_job(id, at(3)).await, TransitionError::WrongState(JobStatus::Completed)));
    let failed = rig.ended(job(2, at(4)), Ending::Failed(error()), at(4)).await;
    rig.delete_job(failed.id, at(5)).await.unwrap();
    assert!(refused(rig.retry_job(failed.id, at(6)).await, TransitionError::Deleted));
    rig.restore_job(failed.id, at(7)).await.unwrap();
    assert_eq!(rig.retry_job(failed.id, at(8)).await.unwrap().status, JobStatus::Queued);
    assert_eq!(rig.told(id).await, [JobQueued, JobStarted, JobCompleted]);
}

pub async fn deleting_hides_and_restoring_takes_it_back(rig: &Rig) {
    let done = rig.ended(job(1, at(0)), Ending::Completed, at(0)).await;
    let deleted = rig.delete_job(done.id, at(10)).await.unwrap();
    assert_eq!((deleted.status, deleted.deleted_at), (JobStatus::Completed, Some(at(10))));
    assert_eq!((deleted.purge_at, deleted.finished_at), (Some(at(10 + KEEP_DELETED)), Some(at(0))));
    assert_eq!(rig.delete_job(done.id, at(11)).await.unwrap(), deleted, "again changes nothing");
    assert_eq!(rig.stored(done.id).await, deleted, "it can still be looked at");
    assert_eq!(rig.told(done.id).await, [JobQueued, JobStarted, JobCompleted, JobDeleted]);

    let restored = rig.restore_job(done.id, at(20)).await.unwrap();
    assert_eq!((restored.status, restored.deleted_at), (JobStatus::Completed, None));
    assert_eq!(restored.purge_at, Some(at(20 + KEEP_FINISHED)));
    assert!(refused(rig.restore_job(done.id, at(21)).await, TransitionError::NotDeleted));
    assert_eq!(rig.stored(done.id).await, restored);
    let story = rig.story(done.id).await;
    assert_eq!(story.last().unwrap().kind, JobRestored);
    assert_eq!(*job_of(story.last().unwrap()), restored.snapshot());
    assert_eq!(story.len(), 5);
}

pub async fn deleting_cancels_what_has_not_ended(rig: &Rig) {
    let queued = rig.accept(job(1, at(0)), at(0)).await.id;
    let deleted = rig.delete_job(queued, at(1)).await.unwrap();
    assert_eq!((deleted.status, deleted.purge_at), (JobStatus::Cancelled, Some(at(1 + KEEP_DELETED))));
    assert_eq!(rig.told(queued).await, [JobQueued, JobCancelled, JobDeleted]);
    assert_eq!(rig.waiting_jobs(), 0);

    let scheduled = rig.accept(NewJob { start_at: Some(at(50)), ..job(2, at(1)) }, at(1)).await.id;
    rig.delete_job(scheduled, at(2)).await.unwrap();
    assert_eq!((rig.waiting_jobs(), rig.next_due().await.unwrap().job), (0, None));

    let running = rig.accept(job(3, at(2)), at(2)).await.id;
    let claimed = rig.claim_one(at(2)).await;
    let deleted = rig.delete_job(running, at(3)).await.unwrap();
    assert_eq!((deleted.status, deleted.cancel_requested_at), (JobStatus::Processing, Some(at(3))));
    assert_eq!(rig.told(running).await, [JobQueued, JobStarted, JobDeleted]);
    // It is not gone while somebody works on it.
    assert_eq!(rig.purge(10, at(3 + KEEP_DELETED)).await.unwrap().jobs, 2);
    let stopped = rig.finish(&claimed, Ending::Cancelled, at(4 + KEEP_DELETED)).await;
    assert_eq!(stopped.purge_at, Some(at(3 + KEEP_DELETED)), "its time runs from when it was deleted");
    assert_eq!(rig.told(running).await, [JobQueued, JobStarted, JobDeleted, JobCancelled]);

    // Restored while it still runs: it was called off all the same.
    let running = rig.accept(job(4, at(5)), at(5)).await.id;
    let claimed = rig.claim_one(at(5)).await;
    rig.delete_job(running, at(6)).await.unwrap();
    let restored = rig.restore_job(running, at(7)).await.unwrap();
    assert_eq!((restored.status, restored.purge_at), (JobStatus::Processing, None));
    assert_eq!(rig.finish(&claimed, Ending::GivenBack(None), at(8)).await.status, JobStatus::Cancelled);
    assert_eq!(rig.stored(running).await.purge_at, Some(at(8 + KEEP_FINISHED)));
    assert_eq!(ids(&rig.claim(9, at(99)).await), []);
}

pub async fn a_change_is_made_at_the_revision_that_is_expected_alone(rig: &Rig) {
    let id = rig.accept(NewJob { callback: telling(&[JobCancelled]), ..job(1, at(0)) }, at(0)).await.id;
    let change = async |action, expected: &[u64], now| {
        rig.change_job(id, action, Some(expected.to_vec()), at(now)).await
    };
    let revision = rig.stored(id).await.revision;
    for action in [JobAction::Cancel, JobAction::Retry, JobAction::Delete, JobAction::Restore] {
        for other in [&[][..], &[revision + 1], &[revision - 1]] {
            assert!(
                matches!(change(action, other, 1).await, Err(StoreError::Outdated)),
                "{action:?} {other:?}"
            );
        }
    }
    let cancelled = change(JobAction::Cancel, &[7, revision], 2).await.unwrap();
    assert_eq!(cancelled.status, JobStatus::Cancelled);
    assert!(matches!(change(JobAction::Delete, &[revision], 3).await, Err(StoreError::Outdated)));
    // What its latest delivery does counts as well.
    let (delivery, _) = rig.claim_deliveries(worker(1), 9, secs(LEASE), at(4)).await.unwrap().pop().unwrap();
    let token = delivery.token();
    rig.settle_delivery(delivery.id, token, failed_attempt(1, at(4)), Verdict::RetryAt(at(99)), at(5))
        .await
        .unwrap();
    let shown = rig.stored(id).await.revision;
    assert!(shown > cancelled.revision);
    assert!(matches!(change(JobAction::Delete, &[cancelled.revision], 6).await, Err(StoreError::Outdated)));
    assert!(change(JobAction::Delete, &[shown], 7).await.unwrap().deleted_at.is_some());
}
