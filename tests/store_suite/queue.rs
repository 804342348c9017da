//! The queue as a whole: pausing, the next due time, who waits, wake-ups, and closing.

use darkroom::domain::delivery::Verdict;
use darkroom::domain::event::EventKind;
use darkroom::domain::job::{JobStatus, NewJob, Priority};
use darkroom::store::{Ending, Paused, StoreError};
use futures_util::FutureExt as _;
use tokio::sync::Notify;

use crate::rig::{LEASE, Rig, at, error, failed_attempt, job, secs, telling, worker};

const WORK: Paused = Paused { intake: false, work: true };

pub async fn paused_work_claims_nothing_and_ends_what_is_over(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    let running = rig.claim_one(at(0)).await;
    let scheduled = NewJob { start_at: Some(at(5)), ..job(2, at(0)) };
    let overdue = NewJob { deadline_ms: Some(10_000), ..job(3, at(0)) };
    let jobs = rig.accept_all([scheduled, overdue, job(4, at(0))], at(0)).await;
    rig.set_paused(WORK).await.unwrap();
    assert_eq!(rig.paused(), WORK);
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(5)), "what is ready is not due");
    rig.claims_nothing(at(1)).await;
    // What runs goes on, and time does.
    rig.extend_job(running.id, running.lease_token, at(20)).await.unwrap();
    rig.claims_nothing(at(5)).await;
    rig.claims_nothing(at(10)).await;
    assert_eq!(rig.stored(jobs[1].id).await.status, JobStatus::Failed);
    rig.claims_nothing(at(20)).await;
    assert_eq!(rig.stored(running.id).await.status, JobStatus::Queued);
    assert_eq!(rig.next_due().await.unwrap().job, None);
    assert_eq!(rig.waiting_jobs(), 3);

    rig.set_paused(Paused { intake: true, work: false }).await.unwrap();
    assert!(rig.next_due().await.unwrap().job.is_some_and(|due| due <= at(20)));
    assert_eq!(rig.claim(9, at(20)).await.len(), 3, "who comes in is not the store's to decide");
}

pub async fn a_pause_outlasts_the_store(rig: &Rig) {
    assert_eq!(rig.paused(), Paused::default());
    rig.accept(job(1, at(0)), at(0)).await;
    for paused in [WORK, Paused { intake: true, work: true }, Paused { intake: true, work: false }] {
        rig.set_paused(paused).await.unwrap();
        rig.reopen(at(1)).await;
        assert_eq!(rig.paused(), paused);
        if paused.work {
            rig.claims_nothing(at(1)).await;
        }
    }
    rig.set_paused(Paused::default()).await.unwrap();
    rig.reopen(at(2)).await;
    rig.claim_one(at(2)).await;
}

pub async fn the_next_due_time_is_that_of_the_next_step(rig: &Rig) {
    let due = async || rig.next_due().await.unwrap();
    assert_eq!(due().await, Default::default());
    rig.claims_nothing(at(0)).await;
    // The nearest of several, whatever it is of.
    rig.accept(NewJob { start_at: Some(at(100)), ..job(1, at(0)) }, at(0)).await;
    assert_eq!(due().await.job, Some(at(100)));
    rig.accept(NewJob { start_at: Some(at(90)), deadline_ms: Some(80_000), ..job(2, at(0)) }, at(0)).await;
    assert_eq!((due().await.job, due().await.deadline), (Some(at(80)), Some(at(80))));
    rig.accept(NewJob { callback: telling(&EventKind::TERMINAL), ..job(3, at(0)) }, at(0)).await;
    assert!(due().await.job.is_some_and(|due| due <= at(0)), "one is ready");
    assert_eq!(due().await.delivery, None);
    let claimed = rig.claim_one(at(0)).await;
    assert_eq!(due().await.job, Some(at(LEASE)));
    rig.extend_job(claimed.id, claimed.lease_token, at(70)).await.unwrap();
    assert_eq!(due().await.job, Some(at(70)));
    rig.finish(&claimed, Ending::RetryAt(error(), at(60)), at(10)).await;
    assert_eq!(due().await.job, Some(at(60)));
    let claimed = rig.claim_one(at(60)).await;
    rig.finish(&claimed, Ending::Completed, at(61)).await;
    assert_eq!((due().await.job, due().await.delivery), (Some(at(80)), Some(at(61))));
    // The deadline's passing is a step of its own.
    rig.claims_nothing(at(80)).await;
    assert_eq!((due().await.job, due().await.deadline), (Some(at(100)), None));
    let attempt = rig.claim_attempt(at(61)).await;
    assert_eq!(due().await.delivery, Some(at(61 + LEASE)));
    let verdict = Verdict::RetryAt(at(200));
    rig.settle_delivery(
        attempt.id,
        attempt.token(),
        failed_attempt(attempt.attempt_count + 1, at(61)),
        verdict,
        at(62),
    )
    .await
    .unwrap();
    assert_eq!(due().await.delivery, Some(at(200)));
    rig.claim_one(at(100)).await;
    rig.claims_nothing(at(100)).await;
}

pub async fn who_waits_is_counted_after_every_step(rig: &Rig) {
    let waits = |n: u64| assert_eq!(rig.waiting_jobs(), n);
    waits(0);
    let id = rig.accept(job(1, at(0)), at(0)).await.id;
    waits(1);
    rig.accept(NewJob { start_at: Some(at(50)), ..job(2, at(0)) }, at(0)).await;
    waits(2);
    let claimed = rig.claim_one(at(0)).await;
    waits(1);
    assert!(rig.finish_job(id, 99, Ending::GivenBack(None), at(1)).await.is_err());
    waits(1);
    rig.finish(&claimed, Ending::GivenBack(None), at(1)).await;
    waits(2);
    let claimed = rig.claim_one(at(1)).await;
    rig.finish(&claimed, Ending::RetryAt(error(), at(9)), at(2)).await;
    waits(2);
    rig.sweep_jobs(at(9)).await.unwrap();
    waits(2);
    rig.reopen(at(9)).await;
    waits(2);
    rig.claim_one(at(9)).await;
    waits(1);
    rig.reopen(at(10)).await;
    waits(2);
    rig.claim_one(at(10)).await;
    rig.sweep_jobs(at(10 + LEASE)).await.unwrap();
    waits(2);
    rig.cancel_job(id, at(41)).await.unwrap();
    waits(1);
    assert!(rig.cancel_job(id, at(41)).await.is_err());
    waits(1);
    rig.retry_job(id, at(42)).await.unwrap();
    waits(2);
    rig.delete_job(id, at(43)).await.unwrap();
    waits(1);
    rig.restore_job(id, at(44)).await.unwrap();
    waits(1);
    let late = rig.accept(NewJob { deadline_ms: Some(1_000), ..job(3, at(45)) }, at(45)).await;
    waits(2);
    rig.sweep_jobs(at(46)).await.unwrap();
    waits(1);
    assert_eq!(rig.stored(late.id).await.status, JobStatus::Failed);
    rig.claim_one(at(50)).await;
    waits(0);
    rig.purge(9, at(99_999)).await.unwrap();
    waits(0);
}

pub async fn changes_wake_those_who_wait(rig: &Rig) {
    fn woken(by: &Notify) -> bool {
        by.notified().now_or_never().is_some()
    }
    let (jobs, deliveries) = (&rig.signals().jobs, &rig.signals().deliveries);
    let mut events = rig.signals().events.subscribe();
    // Opening may have told of something.
    woken(jobs);
    woken(deliveries);
    events.mark_unchanged();

    let wanted = NewJob { callback: telling(&EventKind::TERMINAL), ..job(1, at(0)) };
    rig.accept(wanted, at(0)).await;
    assert!(woken(jobs) && events.has_changed().unwrap());
    assert_eq!(*events.borrow_and_update(), 1);
    let claimed = rig.claim_one(at(0)).await;
    woken(jobs);
    rig.finish(&claimed, Ending::GivenBack(Some(at(5))), at(1)).await;
    assert!(woken(jobs), "the next due time has changed");
    let claimed = rig.claim_one(at(5)).await;
    woken(jobs);
    assert!(!woken(deliveries), "there has been none");
    rig.finish(&claimed, Ending::Failed(error()), at(6)).await;
    assert!(woken(deliveries));
    let attempt = rig.claim_attempt(at(6)).await;
    woken(deliveries);
    rig.give_back_delivery(attempt.id, attempt.token()).await.unwrap();
    assert!(woken(deliveries));
    rig.set_paused(WORK).await.unwrap();
    woken(jobs);
    rig.set_paused(Paused::default()).await.unwrap();
    assert!(woken(jobs), "work goes on");
    rig.retry_job(claimed.id, at(8)).await.unwrap();
    assert!(woken(jobs));
    let last = rig.events_after(0, 99).await.unwrap().last().unwrap().seq;
    assert_eq!(*events.borrow_and_update(), last);
}

pub async fn a_closed_store_takes_no_steps(rig: &Rig) {
    rig.accept(job(1, at(0)), at(0)).await;
    rig.close().await;
    let closed = rig.cancel_job(job(1, at(0)).id, at(1)).await;
    assert!(matches!(closed, Err(StoreError::Closed)), "{closed:?}");
    assert!(matches!(rig.claim_jobs(worker(1), 1, secs(9), at(1)).await, Err(StoreError::Closed)));
    rig.close().await;
}

pub async fn a_place_in_the_queue_is_counted_in_turns(rig: &Rig) {
    let of = |n: u32, client: &str, priority| NewJob {
        client: client.parse().unwrap(),
        priority,
        ..job(n, at(0))
    };
    let mut ids = Vec::new();
    for (n, client, priority) in [
        (1, "a", Priority::Normal),
        (2, "a", Priority::Normal),
        (3, "a", Priority::High),
        (4, "b", Priority::Low),
        (5, "c", Priority::Normal),
        (6, "c", Priority::Normal),
        (7, "c", Priority::Normal),
        (8, "c", Priority::Normal),
    ] {
        ids.push(rig.accept(of(n, client, priority), at(0)).await.id);
    }
    let ahead = async |n: usize, limit| rig.ahead_of(ids[n - 1], limit).await.unwrap();
    // Before the second of a: one of its own, one of b, which has no more, and two of c.
    assert_eq!(ahead(1, 99).await, Some(1 + 1 + 2));
    assert_eq!(ahead(3, 99).await, Some(1 + 1));
    assert_eq!(ahead(4, 99).await, Some(1 + 1));
    assert_eq!(ahead(8, 99).await, Some(3 + 3 + 1));
    assert_eq!(ahead(8, 5).await, Some(5));
    rig.cancel_job(ids[7], at(1)).await.unwrap();
    assert_eq!(ahead(8, 99).await, None);
    let scheduled = rig.accept(NewJob { start_at: Some(at(50)), ..job(9, at(0)) }, at(0)).await;
    assert_eq!(rig.ahead_of(scheduled.id, 99).await.unwrap(), None);
}
