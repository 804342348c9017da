//! Deliveries and their attempts.

use darkroom::domain::delivery::{Attempt, Delivery, DeliveryState, ResponseHead, Verdict};
use darkroom::domain::event::EventKind;
use darkroom::domain::id::JobId;
use darkroom::domain::job::{CallbackProgress, Job, NewJob};
use darkroom::store::{Ending, StoreError};

use crate::rig::{LEASE, Rig, at, failed_attempt, job, secs, telling, worker};

fn wanting(n: u32, kinds: &[EventKind]) -> NewJob {
    NewJob { callback: telling(kinds), ..job(n, at(0)) }
}

fn delivered(delivery: &Delivery, second: i64) -> Attempt {
    let head = ResponseHead { status: 204, headers: Vec::new(), body: String::new(), truncated: false };
    Attempt { error: None, response: Some(head), ..failed_attempt(delivery.attempt_count + 1, at(second)) }
}

async fn shown(rig: &Rig, id: JobId) -> CallbackProgress {
    rig.stored(id).await.callback.unwrap().latest.unwrap()
}

pub async fn what_is_due_first_is_claimed_first(rig: &Rig) {
    for (n, second) in [(1, 30), (2, 10), (3, 20), (4, 40)] {
        rig.accept(wanting(n, &[EventKind::JobQueued]), at(second)).await;
    }
    assert_eq!(rig.next_due().await.unwrap().delivery, Some(at(10)));
    assert_eq!(rig.claim_attempts(9, at(9)).await, []);
    let claimed = rig.claim_attempts(2, at(30)).await;
    assert_eq!(claimed.iter().map(|d| d.next_attempt_at).collect::<Vec<_>>(), [Some(at(10)), Some(at(20))]);
    for delivery in &claimed {
        assert_eq!(delivery.state, DeliveryState::Sending);
        let lease = delivery.lease.unwrap();
        assert_eq!((lease.worker, lease.until), (worker(1), at(30 + LEASE)));
        assert_eq!(rig.delivery(delivery.id).await.unwrap().as_ref(), Some(delivery));
        assert_eq!(shown(rig, delivery.job_id).await, delivery.progress());
    }
    assert_eq!(rig.claim_attempts(9, at(30)).await.len(), 1);
    assert_eq!(rig.next_due().await.unwrap().delivery, Some(at(40)));
}

pub async fn an_attempt_ends_in_one_of_three_ways(rig: &Rig) {
    let id = rig.accept(wanting(1, &[EventKind::JobQueued]), at(0)).await.id;
    let first = rig.claim_attempt(at(1)).await;
    let attempt = Attempt { next_attempt_at: Some(at(10)), ..failed_attempt(first.attempt_count + 1, at(1)) };
    let waits = rig
        .settle_delivery(first.id, first.token(), attempt.clone(), Verdict::RetryAt(at(10)), at(2))
        .await
        .unwrap();
    assert_eq!((waits.state, waits.attempt_count, waits.lease), (DeliveryState::Pending, 1, None));
    assert_eq!((waits.next_attempt_at, &waits.last_error), (Some(at(10)), &attempt.error));
    assert_eq!(rig.attempts_of(first.id).await.unwrap(), std::slice::from_ref(&attempt));
    assert_eq!(rig.delivery(first.id).await.unwrap(), Some(waits.clone()));
    assert_eq!(shown(rig, id).await, waits.progress());
    assert_eq!(rig.next_due().await.unwrap().delivery, Some(at(10)));
    assert_eq!(rig.claim_attempts(9, at(9)).await, []);

    let second = rig.claim_attempt(at(10)).await;
    let delivered = delivered(&second, 10);
    let done = rig
        .settle_delivery(second.id, second.token(), delivered.clone(), Verdict::Delivered, at(11))
        .await
        .unwrap();
    assert_eq!((done.state, done.attempt_count), (DeliveryState::Delivered, 2));
    assert_eq!((done.last_status_code, &done.last_error), (Some(204), &None));
    assert_eq!(rig.attempts_of(first.id).await.unwrap(), [attempt, delivered]);
    assert_eq!(shown(rig, id).await.delivered_at, Some(at(11)));

    let id = rig.accept(wanting(2, &[EventKind::JobQueued]), at(20)).await.id;
    let last = rig.claim_attempt(at(20)).await;
    let attempt = failed_attempt(last.attempt_count + 1, at(20));
    let gone = rig.settle_delivery(last.id, last.token(), attempt, Verdict::Exhausted, at(21)).await.unwrap();
    assert_eq!((gone.state, gone.finished_at), (DeliveryState::Exhausted, Some(at(21))));
    assert_eq!(shown(rig, id).await, gone.progress());
    assert_eq!(rig.next_due().await.unwrap().delivery, None);
    assert_eq!(rig.claim_attempts(9, at(9_999)).await, []);
}

pub async fn a_stale_attempt_is_refused_and_leaves_no_record(rig: &Rig) {
    let refused = |result: Result<Delivery, StoreError>| matches!(result, Err(StoreError::StaleDelivery(_)));
    let id = rig.accept(wanting(1, &[EventKind::JobQueued]), at(0)).await.id;
    let stale = rig.claim_attempt(at(0)).await;
    let fresh = rig.claim_attempt(at(LEASE)).await;
    assert_eq!((fresh.id, fresh.attempt_count), (stale.id, 0));
    assert_ne!(fresh.token(), stale.token());
    let before = rig.stored(id).await;
    for verdict in [Verdict::Delivered, Verdict::RetryAt(at(99)), Verdict::Exhausted] {
        for token in [stale.token(), 99] {
            let attempt = failed_attempt(stale.attempt_count + 1, at(1));
            assert!(refused(rig.settle_delivery(stale.id, token, attempt, verdict.clone(), at(31)).await));
        }
    }
    let given_back = rig.give_back_delivery(stale.id, stale.token()).await;
    assert!(matches!(given_back, Err(StoreError::StaleDelivery(_))));
    assert_eq!(rig.attempts_of(stale.id).await.unwrap(), [], "its record is taken back with it");
    assert_eq!(rig.delivery(fresh.id).await.unwrap(), Some(fresh.clone()));
    assert_eq!(rig.stored(id).await, before);

    let attempt = failed_attempt(fresh.attempt_count + 1, at(LEASE));
    let settle = |attempt| rig.settle_delivery(fresh.id, fresh.token(), attempt, Verdict::Exhausted, at(40));
    settle(attempt.clone()).await.unwrap();
    let second = Attempt { number: 2, ..attempt.clone() };
    assert!(refused(settle(second).await), "what has ended is not ended again");
    assert_eq!(rig.attempts_of(fresh.id).await.unwrap(), [attempt]);
}

pub async fn what_was_cut_off_is_due_at_once(rig: &Rig) {
    let id = rig.accept(wanting(1, &[EventKind::JobQueued]), at(0)).await.id;
    let first = rig.claim_attempt(at(1)).await;
    rig.give_back_delivery(first.id, first.token()).await.unwrap();
    let back = rig.delivery(first.id).await.unwrap().unwrap();
    assert_eq!((back.state, back.attempt_count), (DeliveryState::Pending, 0));
    assert_eq!((back.next_attempt_at, back.lease), (Some(at(0)), None));
    assert_eq!(shown(rig, id).await, back.progress());
    assert_eq!(rig.attempts_of(first.id).await.unwrap(), []);
    let again = rig.claim_attempt(at(2)).await;
    assert_eq!(again.id, first.id);
    assert_ne!(again.token(), first.token());
}

pub async fn an_expired_lease_makes_a_delivery_due(rig: &Rig) {
    rig.accept_all((1..4).map(|n| wanting(n, &[EventKind::JobQueued])), at(0)).await;
    let first = rig.claim_attempts(9, at(0)).await;
    assert_eq!(first.len(), 3);
    assert_eq!(rig.next_due().await.unwrap().delivery, Some(at(LEASE)));
    assert_eq!(rig.claim_attempts(9, at(LEASE - 1)).await, []);
    let again = rig.claim_deliveries(worker(2), 2, secs(LEASE), at(LEASE)).await.unwrap();
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|(delivery, _)| delivery.lease.unwrap().worker == worker(2)));
    // The third is free as well, though there was no room for it.
    assert_eq!(rig.claim_attempts(9, at(LEASE)).await.len(), 1);
}

pub async fn the_job_shows_the_latest_delivery_only(rig: &Rig) {
    let id = rig.accept(wanting(1, &[EventKind::JobQueued, EventKind::JobCompleted]), at(0)).await.id;
    let older = rig.claim_attempt(at(0)).await;
    let claimed = rig.claim_one(at(1)).await;
    let done: Job = rig.finish(&claimed, Ending::Completed, at(2)).await;
    let latest = done.callback.unwrap().latest.unwrap();
    assert_ne!(latest.delivery, older.id);
    rig.settle_delivery(
        older.id,
        older.token(),
        failed_attempt(older.attempt_count + 1, at(0)),
        Verdict::Exhausted,
        at(3),
    )
    .await
    .unwrap();
    assert_eq!(shown(rig, id).await, latest, "news of an older one is no news of the latest");
    let before = rig.stored(id).await.revision;
    let newer = rig.claim_attempt(at(4)).await;
    assert_eq!(newer.id, latest.delivery);
    rig.settle_delivery(newer.id, newer.token(), delivered(&newer, 4), Verdict::Delivered, at(5))
        .await
        .unwrap();
    assert_eq!(shown(rig, id).await.delivered_at, Some(at(5)));
    assert!(rig.stored(id).await.revision > before, "a client sees it");
}
