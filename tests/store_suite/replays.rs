//! Replays: many deliveries sent again, in steps.

use std::collections::BTreeSet;

use darkroom::domain::delivery::{
    Attempt, Delivery, DeliveryState, ErrorClass, Failure, ResponseHead, Trigger, Verdict,
};
use darkroom::domain::destination::Destination;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::{DeliveryId, ReplayId};
use darkroom::domain::job::Callback;
use darkroom::domain::replay::{NewReplay, Replay, ReplayFilter, ReplayItem, ReplayState};
use darkroom::store::{DeliveryQuery, Idempotency, ReplayAction, StartedReplay, StoreError};

use crate::rig::{Rig, at, client, failed_attempt, job, telling};

const URLS: [&str; 2] = ["https://one.example/hook", "https://two.example/hook"];

fn new(n: u8, states: &[DeliveryState]) -> NewReplay {
    NewReplay {
        id: ReplayId::new(at(100), &[n; 10]),
        client: client("operator"),
        only: Some(client("a")),
        filter: ReplayFilter { states: states.to_vec(), ..ReplayFilter::default() },
        rate_per_second: 50,
        force: false,
        matched: 5,
        matched_has_more: false,
    }
}

async fn start(rig: &Rig, new: NewReplay) -> Replay {
    match rig.start_replay(new, None, at(100)).await.unwrap() {
        StartedReplay::Created(replay) => replay,
        other => panic!("expected a new replay, not {other:?}"),
    }
}

/// The `n`th delivery, of that second and to the first of the URLs; due.
async fn waiting(rig: &Rig, n: u32, url: usize) -> DeliveryId {
    let callback = telling(&[EventKind::JobQueued]);
    let callback = callback.map(|callback| Callback { url: URLS[url].parse().unwrap(), ..callback });
    let now = at(i64::from(n));
    let job = rig.accept(darkroom::domain::job::NewJob { callback, ..job(n, now) }, now).await;
    job.callback.unwrap().latest.unwrap().delivery
}

async fn settle(rig: &Rig, delivery: &Delivery, verdict: Verdict, second: i64) {
    // Refused, and not failed: how many may be in flight does not shrink.
    let is_delivered = verdict == Verdict::Delivered;
    let status = if is_delivered { 200 } else { 404 };
    let head = ResponseHead { status, headers: Vec::new(), body: String::new(), truncated: false };
    let error = (!is_delivered).then(|| Failure::new(ErrorClass::Http, "answered 404"));
    let failed = failed_attempt(delivery.attempt_count + 1, at(second));
    let attempt = Attempt { error, response: Some(head), ..failed };
    rig.settle_delivery(delivery.id, delivery.token(), attempt, verdict, at(second)).await.unwrap();
}

/// Deliveries of the seconds from 1 on, each of which was tried once and given up.
async fn exhausted(rig: &Rig, count: u32, url: usize) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    let first = rig.events_after(0, usize::MAX).await.unwrap().last().map_or(1, |last| last.seq as u32);
    for n in first..first + count {
        ids.push(waiting(rig, n, url).await);
        settle(rig, &rig.claim_attempt(at(50)).await, Verdict::Exhausted, 50).await;
    }
    ids
}

async fn replay(rig: &Rig, id: ReplayId) -> Replay {
    rig.replay(id).await.unwrap().unwrap()
}

async fn items(rig: &Rig, id: ReplayId) -> Vec<ReplayItem> {
    rig.replay_items(id, 0, usize::MAX).await.unwrap()
}

/// Insists that none is there twice.
async fn taken_up(rig: &Rig, id: ReplayId) -> BTreeSet<DeliveryId> {
    let items = items(rig, id).await;
    let taken: BTreeSet<_> = items.iter().map(|item| item.delivery).collect();
    assert_eq!(taken.len(), items.len(), "none twice: {items:?}");
    assert_eq!(
        items.iter().map(|item| item.number).collect::<Vec<_>>(),
        Vec::from_iter(0..items.len() as u64)
    );
    taken
}

/// Steps until it has taken everything up.
async fn run(rig: &Rig, id: ReplayId, limit: usize) {
    for _ in 0..100 {
        if !rig.running_replays().await.unwrap().contains(&id) {
            return;
        }
        let before = replay(rig, id).await.taken;
        let after = rig.advance_replay(id, limit, at(110)).await.unwrap().taken;
        assert!(after <= before + limit as u64, "at most {limit} in a step");
    }
    panic!("it comes to no end: {:?}", replay(rig, id).await);
}

pub async fn a_repeated_key_finds_the_first_replay(rig: &Rig) {
    let start = async |n, name, fingerprint| {
        let idempotency = Idempotency { key: "key".to_owned(), fingerprint: [fingerprint; 32] };
        let new = NewReplay { client: client(name), ..new(n, &[DeliveryState::Exhausted]) };
        rig.start_replay(new, Some(idempotency), at(100)).await.unwrap()
    };
    let StartedReplay::Created(first) = start(1, "a", 7).await else { panic!("it is new") };
    assert_eq!(start(2, "a", 7).await, StartedReplay::Repeated(first.clone()));
    assert_eq!(start(3, "a", 8).await, StartedReplay::KeyReused);
    assert!(matches!(start(4, "bb", 8).await, StartedReplay::Created(_)), "a key is the client's own");
    assert_eq!(rig.replay(first.id).await.unwrap(), Some(first));
    assert_eq!(rig.replay(new(2, &[]).id).await.unwrap(), None);
}

pub async fn each_that_fits_is_taken_up_once_and_it_ends_with_the_last(rig: &Rig) {
    let fit = exhausted(rig, 5, 0).await;
    let others = exhausted(rig, 2, 1).await;
    let wanted = new(1, &[DeliveryState::Exhausted]);
    let destination = Some(Destination::id(&client("a"), &URLS[0].parse().unwrap()));
    let id =
        start(rig, NewReplay { filter: ReplayFilter { destination, ..wanted.filter }, ..wanted }).await.id;
    // It came to be after the replay.
    waiting(rig, 200, 0).await;
    settle(rig, &rig.claim_attempt(at(200)).await, Verdict::Exhausted, 200).await;

    assert_eq!(rig.advance_replay(id, 2, at(201)).await.unwrap().taken, 2);
    let again = rig.claim_attempts(9, at(201)).await;
    assert_eq!(again.len(), 2);
    for delivery in &again {
        assert_eq!(
            (delivery.trigger, delivery.replay, delivery.attempt_count),
            (Trigger::Replay, Some(id), 1)
        );
        settle(rig, delivery, Verdict::Exhausted, 202).await;
    }
    assert_eq!(rig.attempts_of(again[0].id).await.unwrap().len(), 2, "the record goes on");
    run(rig, id, 2).await;
    assert_eq!(taken_up(rig, id).await, fit.into_iter().collect());
    let now = replay(rig, id).await;
    assert_eq!((now.state, now.taken, now.failed, now.done()), (ReplayState::Running, 5, 2, 2));
    for one in others {
        assert_eq!(rig.delivery(one).await.unwrap().unwrap().state, DeliveryState::Exhausted);
    }

    let rest = rig.claim_attempts(9, at(203)).await;
    assert_eq!(rest.len(), 3);
    settle(rig, &rest[0], Verdict::RetryAt(at(300)), 203).await;
    settle(rig, &rest[1], Verdict::Delivered, 203).await;
    settle(rig, &rest[2], Verdict::Delivered, 203).await;
    assert_eq!(replay(rig, id).await.state, ReplayState::Running, "one is still on its way");
    settle(rig, &rig.claim_attempt(at(300)).await, Verdict::Delivered, 301).await;
    let ended = replay(rig, id).await;
    assert_eq!((ended.state, ended.finished_at), (ReplayState::Finished, Some(at(301))));
    assert_eq!((ended.delivered, ended.failed, ended.skipped, ended.done()), (3, 2, 0, 5));
    assert_eq!(rig.advance_replay(id, 9, at(400)).await.unwrap(), ended, "nothing more comes of it");
}

pub async fn what_still_waits_is_taken_up_once_too(rig: &Rig) {
    let mut fit: BTreeSet<_> = exhausted(rig, 2, 0).await.into_iter().collect();
    for n in 60..63 {
        fit.insert(waiting(rig, n, 0).await);
        fit.insert(waiting(rig, n + 10, 1).await);
    }
    let states = [DeliveryState::Pending, DeliveryState::Exhausted];
    let id = start(rig, new(1, &states)).await.id;
    run(rig, id, 1).await;
    assert_eq!(taken_up(rig, id).await, fit);
    for delivery in rig.claim_attempts(99, at(200)).await {
        settle(rig, &delivery, Verdict::Delivered, 200).await;
    }
    let ended = replay(rig, id).await;
    assert_eq!((ended.state, ended.delivered, ended.done()), (ReplayState::Finished, 8, 8));

    let fit = BTreeSet::from([waiting(rig, 80, 0).await, waiting(rig, 81, 0).await]);
    let wanted = new(2, &states);
    let destination = Some(Destination::id(&client("a"), &URLS[0].parse().unwrap()));
    let id =
        start(rig, NewReplay { filter: ReplayFilter { destination, ..wanted.filter }, ..wanted }).await.id;
    run(rig, id, 1).await;
    assert_eq!(taken_up(rig, id).await, fit, "also where the list is that of one destination");
}

pub async fn a_paused_one_takes_up_nothing_and_one_that_ended_stays_so(rig: &Rig) {
    exhausted(rig, 3, 0).await;
    let id = start(rig, new(1, &[DeliveryState::Exhausted])).await.id;
    let change = async |action| rig.change_replay(id, action, at(120)).await;
    rig.advance_replay(id, 1, at(110)).await.unwrap();
    assert_eq!(change(ReplayAction::Pause).await.unwrap().state, ReplayState::Paused);
    assert_eq!(
        change(ReplayAction::Pause).await.unwrap().state,
        ReplayState::Paused,
        "as often as one likes"
    );
    assert_eq!(rig.running_replays().await.unwrap(), []);
    assert_eq!(rig.advance_replay(id, 9, at(111)).await.unwrap().taken, 1);
    settle(rig, &rig.claim_attempt(at(112)).await, Verdict::Delivered, 112).await;
    assert_eq!(replay(rig, id).await.delivered, 1, "what was taken up goes on");
    assert_eq!(change(ReplayAction::Resume).await.unwrap().state, ReplayState::Running);
    assert_eq!(rig.running_replays().await.unwrap(), [id]);
    run(rig, id, 9).await;

    // Those that it still waits for end while it is paused.
    change(ReplayAction::Pause).await.unwrap();
    for delivery in rig.claim_attempts(9, at(113)).await {
        settle(rig, &delivery, Verdict::Delivered, 113).await;
    }
    assert_eq!(replay(rig, id).await.state, ReplayState::Paused);
    assert_eq!(change(ReplayAction::Resume).await.unwrap().state, ReplayState::Finished);

    exhausted(rig, 1, 1).await;
    let cancelled = start(rig, new(2, &[DeliveryState::Exhausted])).await.id;
    let ended = rig.change_replay(cancelled, ReplayAction::Cancel, at(121)).await.unwrap();
    assert_eq!((ended.state, ended.finished_at), (ReplayState::Cancelled, Some(at(121))));
    assert_eq!(rig.advance_replay(cancelled, 9, at(122)).await.unwrap().taken, 0);
    for action in [ReplayAction::Pause, ReplayAction::Resume, ReplayAction::Cancel] {
        for id in [id, cancelled] {
            let refused = rig.change_replay(id, action, at(123)).await;
            assert!(matches!(refused, Err(StoreError::Replay(_))), "{refused:?}");
        }
        let unknown = rig.change_replay(new(9, &[]).id, action, at(123)).await;
        assert!(matches!(unknown, Err(StoreError::NotFound)), "{unknown:?}");
    }
}

pub async fn an_opening_goes_on_behind_the_last(rig: &Rig) {
    let fit: BTreeSet<_> = exhausted(rig, 6, 0).await.into_iter().collect();
    let id = start(rig, new(1, &[DeliveryState::Exhausted])).await.id;
    for taken in [2, 4, 6] {
        assert_eq!(rig.advance_replay(id, 2, at(110)).await.unwrap().taken, taken);
        // One of them is under way, and is due again.
        rig.claim_attempts(1, at(111)).await;
        rig.store.reopen(at(111)).await;
        // All that were taken up are given up again, so that they fit.
        for delivery in rig.claim_attempts(9, at(111)).await {
            settle(rig, &delivery, Verdict::Exhausted, 112).await;
        }
    }
    run(rig, id, 2).await;
    assert_eq!(taken_up(rig, id).await, fit);
    let ended = replay(rig, id).await;
    assert_eq!((ended.state, ended.taken, ended.failed), (ReplayState::Finished, 6, 6));
}

pub async fn what_arrived_is_left_unless_forced(rig: &Rig) {
    let id = waiting(rig, 1, 0).await;
    settle(rig, &rig.claim_attempt(at(50)).await, Verdict::Delivered, 50).await;
    let plain = start(rig, new(1, &[DeliveryState::Delivered])).await.id;
    run(rig, plain, 9).await;
    let ended = replay(rig, plain).await;
    assert_eq!((ended.state, ended.taken, ended.skipped), (ReplayState::Finished, 1, 1));
    let was = DeliveryState::Delivered;
    assert_eq!(items(rig, plain).await, [ReplayItem { number: 0, delivery: id, was, is_sent: false }]);
    assert_eq!(rig.claim_attempts(9, at(200)).await, []);

    let forced = NewReplay { force: true, ..new(2, &[DeliveryState::Delivered]) };
    let forced = start(rig, forced).await.id;
    run(rig, forced, 9).await;
    settle(rig, &rig.claim_attempt(at(200)).await, Verdict::Delivered, 200).await;
    let ended = replay(rig, forced).await;
    assert_eq!((ended.state, ended.delivered, ended.skipped), (ReplayState::Finished, 1, 0));
    assert_eq!(rig.attempts_of(id).await.unwrap().len(), 2);
}

pub async fn what_somebody_else_takes_over_is_counted_apart(rig: &Rig) {
    let ids = exhausted(rig, 3, 0).await;
    let first = start(rig, new(1, &[DeliveryState::Exhausted])).await.id;
    run(rig, first, 9).await;
    rig.cancel_delivery(ids[0], at(120)).await.unwrap();
    rig.send_again(ids[1], false, at(120)).await.unwrap();
    let counts = async || {
        let now = replay(rig, first).await;
        (now.state, now.failed, now.taken_over)
    };
    assert_eq!(counts().await, (ReplayState::Running, 1, 1));
    let wanted = new(2, &[DeliveryState::Pending]);
    let second = start(rig, wanted).await.id;
    run(rig, second, 9).await;
    assert_eq!(counts().await, (ReplayState::Finished, 1, 2));
    assert_eq!(taken_up(rig, second).await, BTreeSet::from([ids[1], ids[2]]));
    let of_second = DeliveryQuery { replay: Some(second), limit: 9, ..DeliveryQuery::default() };
    assert_eq!(rig.deliveries(of_second).await.unwrap().deliveries.len(), 2);
    for delivery in rig.claim_attempts(9, at(130)).await {
        settle(rig, &delivery, Verdict::Delivered, 130).await;
    }
    let ended = replay(rig, second).await;
    assert_eq!((ended.state, ended.delivered), (ReplayState::Finished, 2));
    assert_eq!(replay(rig, first).await.done(), 3, "it ends once for each");
}

pub async fn replays_and_their_items_are_read_in_pages(rig: &Rig) {
    exhausted(rig, 3, 0).await;
    let mut ids = Vec::new();
    for n in 1..4 {
        ids.push(start(rig, new(n, &[DeliveryState::Exhausted])).await.id);
    }
    run(rig, ids[0], 9).await;
    let listed = async |before, limit| -> Vec<ReplayId> {
        rig.replays(before, limit).await.unwrap().iter().map(|replay| replay.id).collect()
    };
    assert_eq!(listed(None, 2).await, [ids[2], ids[1]], "newest first");
    assert_eq!(listed(Some(ids[1]), 2).await, [ids[0]]);
    let numbers = async |from, limit| -> Vec<u64> {
        let items = rig.replay_items(ids[0], from, limit).await.unwrap();
        items.iter().map(|item| item.number).collect()
    };
    assert_eq!((numbers(0, 2).await, numbers(2, 2).await), (vec![0, 1], vec![2]));
    assert_eq!(items(rig, ids[1]).await, []);
}
