//! Which jobs are claimed, and when.

use std::collections::BTreeSet;

use darkroom::domain::event::EventKind;
use darkroom::domain::job::{JobStatus, Lease, NewJob, Priority};
use jiff::Timestamp;

use crate::rig::{LEASE, Rig, at, client, ids, job, job_id, worker};

fn of(name: &str, n: u32, priority: Priority) -> NewJob {
    NewJob { client: client(name), priority, ..job(n, at(1)) }
}

pub async fn priority_goes_before_age_within_a_client(rig: &Rig) {
    let (high, normal, low) = (Priority::High, Priority::Normal, Priority::Low);
    for (n, priority) in [(1, low), (2, normal), (3, high), (4, low), (5, high), (6, normal)] {
        rig.accept(of("a", n, priority), at(1)).await;
    }
    let mut claimed = Vec::new();
    for _ in 0..6 {
        claimed.extend(rig.claim(1, at(2)).await);
    }
    assert_eq!(ids(&claimed), [3, 5, 2, 6, 1, 4].map(|n| job_id(n, at(1))));
    rig.claims_nothing(at(2)).await;
}

pub async fn clients_take_turns_however_much_one_has_waiting(rig: &Rig) {
    let many = rig.many(1000);
    rig.accept_all((0..many).map(|n| of("b", n, Priority::Normal)), at(1)).await;
    // Who comes last waits for a round at most: for one job of each of the others.
    for (n, name) in (many..).zip(["a", "c", "bb"]) {
        rig.accept(of(name, n, Priority::Normal), at(2)).await;
    }
    let mut served: Vec<_> =
        rig.claim(4, at(3)).await.iter().map(|job| job.client.as_str().to_owned()).collect();
    served.sort();
    assert_eq!(served, ["a", "b", "bb", "c"]);
    // The rounds go on between claims; whoever joins is served within one.
    for n in 0..3 {
        rig.accept(of("a", many + 10 + n, Priority::Normal), at(4)).await;
        let served: BTreeSet<_> = [rig.claim(1, at(5)).await, rig.claim(1, at(5)).await]
            .iter()
            .flatten()
            .map(|job| job.client.as_str().to_owned())
            .collect();
        assert_eq!(served, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
    }
    // With nobody else there, no turn is lost.
    assert_eq!(rig.claim(10, at(6)).await.len(), 10);
    assert_eq!(rig.waiting_jobs(), u64::from(many) - 14);
}

pub async fn no_client_gets_ahead_of_another_by_priority(rig: &Rig) {
    for n in 0..3 {
        rig.accept(of("a", n, Priority::High), at(1)).await;
        rig.accept(of("b", 10 + n, Priority::Low), at(1)).await;
    }
    for _ in 0..3 {
        let clients: BTreeSet<_> =
            rig.claim(2, at(2)).await.iter().map(|job| job.client.as_str().to_owned()).collect();
        assert_eq!(clients.len(), 2, "one of each");
    }
}

pub async fn a_scheduled_job_starts_then_and_not_before(rig: &Rig) {
    let first = NewJob { start_at: Some(at(10)), ..of("a", 1, Priority::High) };
    let later = NewJob { start_at: Some(at(20)), ..of("a", 2, Priority::High) };
    rig.accept_all([later, first, of("a", 3, Priority::Normal)], at(1)).await;
    assert_eq!(rig.waiting_jobs(), 3);
    assert_eq!(rig.claim_one(at(2)).await.id, job_id(3, at(1)));
    assert_eq!(rig.next_due().await.unwrap().job, Some(at(10)));
    let almost = Timestamp::from_millisecond(9_999).unwrap();
    rig.claims_nothing(almost).await;
    rig.accept(of("a", 4, Priority::Normal), almost).await;
    // It has kept its priority while it waited.
    let claimed = rig.claim(5, at(10)).await;
    assert_eq!(ids(&claimed), [1, 4].map(|n| job_id(n, at(1))));
    assert_eq!(claimed[0].due_at, None);
    assert_eq!(rig.claim(5, at(20)).await.len(), 1);
    // A time that has passed is no wait at all.
    let past = NewJob { start_at: Some(at(20)), ..of("a", 5, Priority::Normal) };
    rig.accept(past, at(20)).await;
    rig.claim_one(at(20)).await;
}

pub async fn a_batch_is_claimed_once_each_under_its_own_lease(rig: &Rig) {
    rig.accept_all((0..5).map(|n| of("a", n, Priority::Normal)), at(1)).await;
    assert_eq!(rig.claim(0, at(2)).await, []);
    let batch = rig.claim(3, at(2)).await;
    assert_eq!(ids(&batch), [0, 1, 2].map(|n| job_id(n, at(1))));
    for job in &batch {
        assert_eq!((job.status, job.attempt, job.started_at), (JobStatus::Processing, 1, Some(at(2))));
        let lease = Lease { worker: worker(1), token: job.lease_token, until: at(2 + LEASE) };
        assert_eq!(job.lease, Some(lease));
        assert_eq!(rig.stored(job.id).await, *job);
        assert_eq!(rig.told(job.id).await, [EventKind::JobQueued, EventKind::JobStarted]);
    }
    assert_eq!(ids(&rig.claim(9, at(3)).await), [3, 4].map(|n| job_id(n, at(1))));
    rig.claims_nothing(at(4)).await;
}

pub async fn claimers_at_once_get_different_jobs(rig: &Rig) {
    let many = rig.many(100);
    rig.accept_all((0..many).map(|n| of(["a", "b", "c"][n as usize % 3], n, Priority::Normal)), at(1)).await;
    let claims = (0..many).map(|_| rig.claim(2, at(2)));
    let claimed: Vec<_> = futures_util::future::join_all(claims).await.concat();
    assert_eq!(claimed.len(), many as usize);
    assert_eq!(ids(&claimed).into_iter().collect::<BTreeSet<_>>().len(), many as usize);
}

/// An engine may deal with so many due jobs at a time and no more; then the next due time says that there are others.
pub async fn a_burst_of_due_jobs_leaves_nobody_asleep(rig: &Rig) {
    let many = rig.many(300);
    let scheduled = (0..many).map(|n| NewJob { start_at: Some(at(10)), ..of("a", n, Priority::Normal) });
    let overdue = (many..2 * many).map(|n| NewJob { deadline_ms: Some(5_000), ..of("b", n, Priority::Low) });
    rig.accept_all(scheduled.chain(overdue), at(1)).await;
    let mut started = BTreeSet::new();
    // A worker's loop: it claims for as long as something is due.
    for _ in 0..2 * many {
        if rig.next_due().await.unwrap().job.is_none_or(|due| due > at(10)) {
            break;
        }
        started.extend(ids(&rig.claim(50, at(10)).await));
    }
    assert!((0..many).all(|n| started.contains(&job_id(n, at(1)))), "all that were scheduled");
    let books = rig.audit().await.unwrap();
    assert_eq!(books.jobs.get(&JobStatus::Queued), None);
    assert_eq!(books.jobs[&JobStatus::Failed], u64::from(many), "all that were too late");
}
