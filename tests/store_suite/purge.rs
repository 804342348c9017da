//! What is removed, when, and with what.

use std::collections::BTreeMap;

use darkroom::domain::delivery::{Attempt, DeliveryState, Verdict};
use darkroom::domain::event::EventKind;
use darkroom::domain::id::ReplayId;
use darkroom::domain::job::{Job, NewJob};
use darkroom::domain::replay::{NewReplay, ReplayFilter};
use darkroom::store::{
    Audit, Ending, Garbage, Idempotency, JobQuery, Purged, ReplayAction, StartedReplay, StoreError, Submitted,
};

use crate::engines::Engine;
use crate::rig::{
    KEEP_DELETED, KEEP_FINISHED, KEEP_UNDELIVERED, Rig, artifact, at, client, error, failed_attempt, ids,
    job, telling,
};

async fn is_gone(rig: &Rig, job: &Job) {
    assert_eq!(rig.job(job.id).await.unwrap(), None);
    assert_eq!(rig.story(job.id).await, []);
    assert_eq!(rig.deliveries_of(job.id).await.unwrap(), []);
    for client in [None, Some(job.client.clone())] {
        for tag in [None, job.tags.first().cloned()] {
            let query = JobQuery {
                client: client.clone(),
                tag,
                include_deleted: true,
                limit: 9,
                ..JobQuery::default()
            };
            assert!(!ids(&rig.list(query).await).contains(&job.id));
        }
    }
}

pub async fn only_what_is_due_goes_and_with_all_that_belongs_to_it(rig: &Rig) {
    let wanted = NewJob {
        callback: telling(&[EventKind::JobQueued, EventKind::JobCompleted]),
        tags: vec!["x".to_owned()],
        deadline_ms: Some(500_000),
        ..job(1, at(0))
    };
    let Submitted::Created(first) = rig.accept_keyed(wanted, "k", 1, at(0)).await else {
        panic!("a new job")
    };
    let claimed = rig.claim_one(at(0)).await;
    rig.add_artifact(first.id, claimed.lease_token, artifact("extra", 1), None).await.unwrap();
    let first = rig.finish(&claimed, Ending::Completed, at(1)).await;
    let mut attempts = Vec::new();
    for second in [2, 12] {
        for delivery in rig.claim_attempts(9, at(second)).await {
            let verdict = if second == 2 { Verdict::RetryAt(at(12)) } else { Verdict::Delivered };
            let attempt = failed_attempt(delivery.attempt_count + 1, at(second));
            rig.settle_delivery(delivery.id, delivery.token(), attempt, verdict, at(second)).await.unwrap();
            attempts.push(delivery.id);
        }
    }
    assert_eq!(attempts.len(), 4);
    let second = rig.ended(job(2, at(20)), Ending::Failed(error()), at(20)).await;
    let waiting = rig.accept(NewJob { client: client("b"), ..job(3, at(20)) }, at(20)).await;
    let (second_before, story) = (rig.stored(second.id).await, rig.story(second.id).await);

    assert_eq!(rig.purge(10, at(KEEP_FINISHED)).await.unwrap(), Purged { jobs: 0, more: false });
    assert_eq!(rig.stored(first.id).await.status, first.status);
    assert_eq!(rig.purge(10, at(1 + KEEP_FINISHED)).await.unwrap(), Purged { jobs: 1, more: false });
    is_gone(rig, &first).await;
    for delivery in attempts {
        assert_eq!(rig.delivery(delivery).await.unwrap(), None);
        assert_eq!(rig.attempts_of(delivery).await.unwrap(), []);
    }
    assert!(rig.cancel_job(first.id, at(1 + KEEP_FINISHED)).await.is_err());
    assert_eq!((rig.stored(second.id).await, rig.story(second.id).await), (second_before, story));
    assert_eq!(rig.stored(waiting.id).await, waiting);
    let names = ["extra", "optimized", "original", "preview", "thumbnail"].map(str::to_owned);
    let garbage = Garbage { job: first.id, names: names.to_vec() };
    assert_eq!(rig.garbage(10).await.unwrap(), [garbage]);

    // The last ones: then there is nothing.
    rig.cancel_job(waiting.id, at(30)).await.unwrap();
    assert_eq!(rig.purge(10, at(30 + KEEP_FINISHED)).await.unwrap().jobs, 2);
    assert_eq!(rig.audit().await.unwrap(), Audit::default());
    assert_eq!(rig.events_after(0, 9).await.unwrap(), []);
    assert_eq!((rig.waiting_jobs(), rig.next_due().await.unwrap()), (0, Default::default()));
}

pub async fn a_limit_leaves_the_rest_for_the_next_time(rig: &Rig) {
    for n in 0..5 {
        rig.ended(job(n, at(10 - i64::from(n))), Ending::Completed, at(10 - i64::from(n))).await;
    }
    let late = at(99 + KEEP_FINISHED);
    assert_eq!(rig.purge(0, late).await.unwrap(), Purged { jobs: 0, more: true });
    assert_eq!(rig.purge(2, late).await.unwrap(), Purged { jobs: 2, more: true });
    let left = rig.list(JobQuery { limit: 9, ..JobQuery::default() }).await;
    let created: Vec<_> = left.iter().map(|job| job.created_at).collect();
    assert_eq!(created, [at(10), at(9), at(8)], "those whose time came first have gone");
    assert_eq!(rig.purge(3, late).await.unwrap(), Purged { jobs: 3, more: false });
    assert_eq!(rig.purge(3, late).await.unwrap(), Purged::default());
}

pub async fn a_callback_on_its_way_postpones_it(rig: &Rig) {
    // More of them than the limit, and one behind them whose callback has ended.
    let wanted = |n| NewJob { callback: telling(&[EventKind::JobCompleted]), ..job(n, at(0)) };
    for n in 0..3 {
        rig.ended(wanted(n), Ending::Completed, at(i64::from(n))).await;
    }
    let free = rig.ended(job(3, at(3)), Ending::Completed, at(3)).await;
    let sending = rig.claim_attempts(1, at(3 + KEEP_FINISHED)).await;
    let mut now = 3 + KEEP_FINISHED;
    let mut purged = 0;
    for _ in 0..4 {
        let step = rig.purge(1, at(now)).await.unwrap();
        purged += step.jobs;
        if !step.more {
            break;
        }
    }
    assert_eq!(purged, 1, "nobody is held up by them");
    is_gone(rig, &free).await;
    let books = rig.audit().await.unwrap();
    assert_eq!((books.faults.len(), books.jobs.values().sum::<u64>()), (0, 3));
    // They are looked at again when there is something to see, not all the time.
    assert_eq!(rig.purge(9, at(now)).await.unwrap(), Purged::default());

    let rest = rig.claim_attempts(9, at(now)).await;
    assert_eq!((sending.len(), rest.len()), (1, 2));
    for (delivery, verdict) in sending.iter().chain(&rest).zip([
        Verdict::Exhausted,
        Verdict::Delivered,
        Verdict::RetryAt(at(999_999)),
    ]) {
        let attempt = failed_attempt(delivery.attempt_count + 1, at(now));
        rig.settle_delivery(delivery.id, delivery.token(), attempt, verdict, at(now)).await.unwrap();
    }
    now += 24 * 3600;
    assert_eq!(rig.purge(9, at(now)).await.unwrap(), Purged { jobs: 2, more: false });
    let left = rig.list(JobQuery { limit: 9, ..JobQuery::default() }).await;
    assert_eq!(left.len(), 1, "one will be tried again");
    assert_eq!(rig.deliveries_of(left[0].id).await.unwrap().len(), 1);
}

pub async fn a_callback_that_is_held_back_for_long_is_given_up(rig: &Rig) {
    let wanted = |n| NewJob { callback: telling(&[EventKind::JobCompleted]), ..job(n, at(0)) };
    let held = rig.ended(wanted(1), Ending::Completed, at(0)).await;
    let delivery = rig.deliveries_of(held.id).await.unwrap().remove(0);
    rig.pause_destination(delivery.destination_id(), at(1)).await.unwrap();
    assert!(rig.claim_attempts(9, at(2)).await.is_empty());

    // Its job's time is up, and it has not waited for long enough.
    let early = KEEP_UNDELIVERED - 1;
    assert_eq!(rig.purge(9, at(early)).await.unwrap(), Purged::default());
    assert_eq!(rig.delivery(delivery.id).await.unwrap().unwrap().state, DeliveryState::Pending);
    let now = early + 3600;
    assert_eq!(rig.purge(9, at(now)).await.unwrap(), Purged::default());
    let given_up = rig.delivery(delivery.id).await.unwrap().unwrap();
    assert_eq!((given_up.state, given_up.finished_at), (DeliveryState::Exhausted, Some(at(now))));
    assert!(given_up.last_error.is_some() && given_up.attempt_count == 0, "the reason is told");
    let told = rig.events_after(0, 99).await.unwrap();
    assert_eq!(told.last().map(|event| event.kind), Some(EventKind::DeliveryExhausted));
    assert_eq!(rig.ledger().exhausted, 1);

    // Who hears of it has time to send it again; then it goes with its job.
    assert_eq!(rig.purge(9, at(now + KEEP_UNDELIVERED - 1)).await.unwrap(), Purged::default());
    assert_eq!(rig.purge(9, at(now + KEEP_UNDELIVERED)).await.unwrap(), Purged { jobs: 1, more: false });
    is_gone(rig, &held).await;
}

pub async fn replays_go_a_while_after_they_have_ended(rig: &Rig) {
    let start = async |n: u8| {
        let filter = ReplayFilter { states: vec![DeliveryState::Exhausted], ..ReplayFilter::default() };
        let (id, client) = (ReplayId::new(at(0), &[n; 10]), client("a"));
        let (rate_per_second, force, matched, only) = (9, false, 0, None);
        let new =
            NewReplay { id, client, only, filter, rate_per_second, force, matched, matched_has_more: false };
        let key = Some(Idempotency { key: format!("k{n}"), fingerprint: [n; 32] });
        let started = rig.start_replay(new.clone(), key.clone(), at(0)).await.unwrap();
        (new, key, matches!(started, StartedReplay::Created(_)))
    };
    let mut callback = telling(&[EventKind::JobCompleted]);
    callback.as_mut().unwrap().url = "https://one.example/".parse().unwrap();
    rig.ended(NewJob { callback, ..job(1, at(0)) }, Ending::Completed, at(0)).await;
    let sent = rig.claim_attempt(at(0)).await;
    let attempt = failed_attempt(1, at(0));
    rig.settle_delivery(sent.id, sent.token(), attempt, Verdict::Exhausted, at(0)).await.unwrap();

    let (ended, _, _) = start(1).await;
    rig.advance_replay(ended.id, 9, at(1)).await.unwrap();
    rig.change_replay(ended.id, ReplayAction::Cancel, at(2)).await.unwrap();
    let (running, _, _) = start(2).await;
    rig.purge(9, at(1 + KEEP_FINISHED)).await.unwrap();
    assert_eq!(rig.replay_items(ended.id, 0, 9).await.unwrap().len(), 1);
    rig.purge(9, at(2 + KEEP_FINISHED)).await.unwrap();
    assert_eq!(rig.replay(ended.id).await.unwrap(), None);
    assert_eq!(rig.replay_items(ended.id, 0, 9).await.unwrap(), []);
    assert!(rig.replay(running.id).await.unwrap().is_some());
    assert!(start(1).await.2, "its key is free");
    assert!(!start(2).await.2);
}

pub async fn a_restored_job_and_one_with_another_go_stay(rig: &Rig) {
    let restored = rig.ended(job(1, at(0)), Ending::Completed, at(0)).await.id;
    let again = rig.ended(job(2, at(0)), Ending::Failed(error()), at(0)).await.id;
    rig.delete_job(restored, at(10)).await.unwrap();
    rig.restore_job(restored, at(20)).await.unwrap();
    rig.retry_job(again, at(20)).await.unwrap();
    assert_eq!(rig.purge(9, at(10 + KEEP_DELETED)).await.unwrap(), Purged::default());
    assert_eq!(rig.purge(9, at(19 + KEEP_FINISHED)).await.unwrap(), Purged::default());
    assert_eq!(rig.purge(9, at(20 + KEEP_FINISHED)).await.unwrap().jobs, 1);
    assert_eq!(rig.purge(9, at(9 * KEEP_FINISHED)).await.unwrap().jobs, 0);
    assert_eq!(rig.claim_one(at(30)).await.id, again);
    // Deleted later than it ended: the deletion decides.
    let deleted = rig.ended(job(3, at(40)), Ending::Completed, at(40)).await.id;
    rig.delete_job(deleted, at(50)).await.unwrap();
    assert_eq!(rig.purge(9, at(49 + KEEP_DELETED)).await.unwrap().jobs, 0);
    assert_eq!(rig.purge(9, at(50 + KEEP_DELETED)).await.unwrap().jobs, 1);
}

/// An engine may remove so much in one step and no more, so that nobody waits long behind it.
pub async fn a_story_longer_than_one_step_goes_in_several(rig: &Rig) {
    // sled removes 4096 keys in one step, and the first 64 events have none.
    let rounds = if rig.engine == Engine::Sled { 2100 } else { 5 };
    let id = job(1, at(0)).id;
    rig.accept_keyed(job(1, at(0)), "order-7", 1, at(0)).await;
    rig.cancel_job(id, at(0)).await.unwrap();
    let toggle = async |round| match round % 2 {
        0 => rig.delete_job(id, at(0)).await,
        _ => rig.restore_job(id, at(0)).await,
    };
    // So many at once as share a commit and keep their order.
    for first in (0..2 * rounds).step_by(20) {
        let toggles = (first..2 * rounds).take(20).map(toggle);
        futures_util::future::try_join_all(toggles).await.unwrap();
    }
    let last = *rig.signals().events.borrow();
    assert_eq!(last, 2 + 2 * rounds);
    let mut steps = Vec::new();
    loop {
        let step = rig.purge(1, at(KEEP_FINISHED)).await.unwrap();
        steps.push(step);
        rig.reopen(at(KEEP_FINISHED)).await;
        assert_eq!(*rig.signals().events.borrow(), last, "no place in the log is given twice");
        // To all others it is gone from the first step on.
        assert_eq!((rig.job(id).await.unwrap(), rig.events_of(id, 0, 9).await.unwrap()), (None, vec![]));
        assert_eq!(rig.list(JobQuery { limit: 9, ..JobQuery::default() }).await, []);
        for again in [rig.restore_job(id, at(1)).await, rig.retry_job(id, at(1)).await] {
            assert!(matches!(again, Err(StoreError::NotFound)), "{again:?}");
        }
        assert_eq!(rig.audit().await.unwrap().faults, Vec::<String>::new());
        if !step.more {
            break;
        }
        assert!(steps.len() < 10, "it comes to an end: {steps:?}");
    }
    assert_eq!(steps.iter().map(|step| step.jobs).sum::<usize>(), 1, "{steps:?}");
    assert_eq!(steps.len() > 1, rig.engine == Engine::Sled, "{steps:?}");
    assert_eq!(rig.audit().await.unwrap(), Audit::default());
}

pub async fn long_stories_with_callbacks_are_told_whole_and_go_whole(rig: &Rig) {
    // 30 with 70 deliveries, each with an attempt: a step of sled's ends within one of them.
    let jobs = if rig.engine == Engine::Sled { 30 } else { 1 };
    let lives = (0..jobs).map(async |n| {
        let callback = telling(&[EventKind::JobDeleted]);
        let id = rig.accept(NewJob { callback, ..job(n, at(0)) }, at(0)).await.id;
        for _ in 0..70 {
            rig.delete_job(id, at(0)).await.unwrap();
            rig.restore_job(id, at(0)).await.unwrap();
        }
        id
    });
    let ids = futures_util::future::join_all(lives).await;
    loop {
        let claimed = rig.claim_attempts(500, at(1)).await;
        if claimed.is_empty() {
            break;
        }
        let settled = claimed.iter().map(async |delivery| {
            let attempt = Attempt { error: None, ..failed_attempt(1, at(1)) };
            let (id, token) = (delivery.id, delivery.token());
            rig.settle_delivery(id, token, attempt, Verdict::Delivered, at(1)).await.unwrap()
        });
        futures_util::future::join_all(settled).await;
    }
    for id in &ids {
        let story = rig.story(*id).await;
        assert_eq!(story.len(), 2 + 2 * 70);
        assert!(story.is_sorted_by_key(|event| event.seq));
        let (first, rest) = (&story[..66], rig.events_of(*id, story[65].seq, 999).await.unwrap());
        assert_eq!([first, &rest].concat(), story, "in pages, too");
        let deliveries = rig.deliveries_of(*id).await.unwrap();
        let told = story.iter().filter(|event| event.kind == EventKind::JobDeleted).map(|event| event.seq);
        assert_eq!(deliveries.iter().map(|d| d.event_seq).collect::<Vec<_>>(), told.collect::<Vec<_>>());
    }
    assert_eq!(rig.audit().await.unwrap().faults, Vec::<String>::new());
    let mut steps = Vec::new();
    while steps.last().is_none_or(|step: &Purged| step.more) {
        assert!(steps.len() < 10, "it comes to an end: {steps:?}");
        steps.push(rig.purge(99, at(KEEP_FINISHED)).await.unwrap());
        assert_eq!(rig.audit().await.unwrap().faults, Vec::<String>::new());
    }
    assert_eq!(steps.iter().map(|step| step.jobs).sum::<usize>(), ids.len(), "{steps:?}");
    assert_eq!(steps.len() > 1, rig.engine == Engine::Sled, "{steps:?}");
    assert_eq!(rig.audit().await.unwrap(), Audit::default());
}

pub async fn pictures_are_listed_until_forgotten(rig: &Rig) {
    let mut jobs = Vec::new();
    for n in 0..3 {
        jobs.push(rig.ended(job(n, at(0)), Ending::Completed, at(0)).await.id);
    }
    rig.purge(9, at(KEEP_FINISHED)).await.unwrap();
    let listed = rig.garbage(9).await.unwrap();
    let names: BTreeMap<_, _> = listed.iter().map(|garbage| (garbage.job, garbage.names.len())).collect();
    assert_eq!(names, jobs.iter().map(|id| (*id, 4)).collect());
    assert_eq!(rig.garbage(2).await.unwrap(), listed[..2]);
    rig.forget_garbage(vec![listed[0].job, listed[2].job]).await.unwrap();
    assert_eq!(rig.garbage(9).await.unwrap(), [listed[1].clone()]);
    rig.forget_garbage(jobs).await.unwrap();
    assert_eq!(rig.garbage(9).await.unwrap(), []);
}
