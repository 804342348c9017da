//! Jobs whose picture is elsewhere at first.

use std::collections::BTreeMap;

use darkroom::domain::destination::Destination;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::DestinationId;
use darkroom::domain::job::{JobStatus, NewJob, Priority, TransitionError};
use darkroom::store::{Ending, FetchRoom, JobQuery, Paused, StoreError, Submission, Submitted, Waiting};
use futures_util::FutureExt as _;

use crate::rig::{
    LEASE, Rig, at, client, elsewhere, error, ids, input, job, job_id, job_of, room, telling, worker,
};

fn source(host: &str) -> DestinationId {
    Destination::id(&client("a"), &format!("https://{host}/").parse().unwrap())
}

pub async fn a_picture_is_fetched_before_anything_is_made_of_it(rig: &Rig) {
    let new = NewJob { callback: telling(&EventKind::TERMINAL), ..job(1, at(1)) };
    let accepted = rig.accept_source(elsewhere(new, "cats.example"), at(1)).await;
    assert_eq!((accepted.status, &accepted.input), (JobStatus::Queued, &None));
    assert_eq!(rig.waiting(), Waiting { work: 0, fetches: 1 });
    rig.claims_nothing(at(2)).await;

    let claimed = rig.claim_to_fetch(room(2), at(2)).await.remove(0);
    assert_eq!((claimed.status, claimed.attempt, rig.waiting_jobs()), (JobStatus::Processing, 1, 0));
    assert_eq!(rig.claim_to_fetch(room(2), at(2)).await, []);
    let fetched = rig.picture_fetched(claimed.id, claimed.lease_token, input(), at(3)).await.unwrap();
    assert_eq!((fetched.status, fetched.attempt, &fetched.input), (JobStatus::Queued, 0, &Some(input())));
    assert_eq!(fetched.source.as_ref().unwrap().sealed, None, "it is not needed any more");
    assert!(fetched.revision > claimed.revision);
    assert_eq!(rig.stored(claimed.id).await, fetched);
    assert_eq!(rig.waiting(), Waiting { work: 1, fetches: 0 });

    // It is fetched once.
    assert_eq!(rig.claim_to_fetch(room(2), at(4)).await, []);
    let again = rig.claim_one(at(4)).await;
    assert_eq!((again.attempt, again.started_at), (1, Some(at(2))));
    rig.finish(&again, Ending::Failed(error()), at(5)).await;
    rig.retry_job(again.id, at(6)).await.unwrap();
    assert_eq!(rig.claim_to_fetch(room(2), at(7)).await, []);
    let last = rig.claim_one(at(7)).await;
    rig.finish(&last, Ending::Completed, at(8)).await;
    let kinds = [EventKind::JobQueued, EventKind::JobStarted, EventKind::JobFailed];
    let rest = [EventKind::JobQueued, EventKind::JobCompleted];
    assert_eq!(rig.told(last.id).await, [&kinds[..], &rest].concat());
    let story = rig.story(last.id).await;
    assert!(story.iter().all(|event| job_of(event).source.as_ref().unwrap().sealed.is_none()));
    assert!(story[0].seq > 0 && job_of(&story[0]).input.is_none());
}

pub async fn what_was_not_fetched_is_fetched_by_the_next(rig: &Rig) {
    let accepted = rig.accept_source(elsewhere(job(1, at(1)), "cats.example"), at(1)).await;
    let id = accepted.id;
    let first = rig.claim_to_fetch(room(1), at(2)).await.remove(0);
    let lost = at(2 + LEASE);
    let second = rig.claim_to_fetch(room(1), lost).await.remove(0);
    assert_eq!((second.attempt, second.lease_token), (2, first.lease_token + 1));
    let late = rig.picture_fetched(id, first.lease_token, input(), lost).await;
    let is_stale = matches!(late, Err(StoreError::Transition(TransitionError::StaleLease)));
    assert!(is_stale, "{late:?}");
    assert_eq!(rig.stored(id).await.input, None);

    rig.finish(&second, Ending::RetryAt(error(), at(50)), at(40)).await;
    assert_eq!(rig.waiting(), Waiting { work: 0, fetches: 1 });
    rig.reopen(at(49)).await;
    assert_eq!(rig.waiting(), Waiting { work: 0, fetches: 1 });
    assert_eq!(rig.claim_to_fetch(room(1), at(49)).await, []);
    assert_eq!(rig.next_due().await.unwrap().sweep, Some(at(50)));
    let third = rig.claim_to_fetch(room(1), at(50)).await.remove(0);
    rig.finish(&third, Ending::Failed(error()), at(51)).await;
    // Another go fetches it.
    rig.retry_job(id, at(52)).await.unwrap();
    rig.claims_nothing(at(53)).await;
    assert_eq!(ids(&rig.claim_to_fetch(room(1), at(53)).await), [id]);
    rig.reopen(at(54)).await;
    assert_eq!(ids(&rig.claim_to_fetch(room(1), at(55)).await), [id]);
}

pub async fn one_that_was_called_off_does_not_go_on(rig: &Rig) {
    let new = NewJob { callback: telling(&EventKind::TERMINAL), ..job(1, at(1)) };
    let id = rig.accept_source(elsewhere(new, "cats.example"), at(1)).await.id;
    let claimed = rig.claim_to_fetch(room(1), at(2)).await.remove(0);
    rig.cancel_job(id, at(3)).await.unwrap();
    let fetched = rig.picture_fetched(id, claimed.lease_token, input(), at(4)).await.unwrap();
    assert_eq!(fetched.status, JobStatus::Cancelled);
    assert_eq!(rig.told(id).await.last(), Some(&EventKind::JobCancelled));
    assert_eq!(rig.claim_attempts(9, at(5)).await.len(), 1);
    rig.claims_nothing(at(5)).await;
    let over = rig.picture_fetched(id, claimed.lease_token, input(), at(6)).await;
    assert!(matches!(over, Err(StoreError::Transition(TransitionError::WrongState(_)))), "{over:?}");
    // Its picture is here, so another go begins with that.
    rig.retry_job(id, at(7)).await.unwrap();
    assert_eq!(rig.claim_one(at(8)).await.id, id);

    let expiring = NewJob { deadline_ms: Some(5000), ..job(2, at(10)) };
    let expiring = rig.accept_source(elsewhere(expiring, "cats.example"), at(10)).await;
    let claimed = rig.claim_to_fetch(room(1), at(11)).await.remove(0);
    rig.sweep_jobs(at(15)).await.unwrap();
    assert_eq!(rig.stored(expiring.id).await.status, JobStatus::Failed);
    let late = rig.picture_fetched(claimed.id, claimed.lease_token, input(), at(16)).await;
    assert!(matches!(late, Err(StoreError::Transition(_))), "{late:?}");
}

pub async fn no_source_takes_all_places(rig: &Rig) {
    for n in 1..=9 {
        rig.accept_source(elsewhere(job(n, at(1)), "slow.example"), at(1)).await;
    }
    let other = rig.accept_source(elsewhere(job(10, at(1)), "quick.example"), at(1)).await;
    let mut room = FetchRoom { places: 6, per_source: 3, ..FetchRoom::default() };
    let mut claimed = rig.claim_to_fetch(room.clone(), at(2)).await;
    claimed.sort_by_key(|job| job.id);
    assert_eq!(ids(&claimed), [1, 2, 3, 10].map(|n| job_id(n, at(1))));
    // While they are under way, only another source gets more.
    room.taken = BTreeMap::from([(source("slow.example"), 3), (source("quick.example"), 1)]);
    room.places = 2;
    assert_eq!(rig.claim_to_fetch(room.clone(), at(3)).await, []);
    let more = rig.accept_source(elsewhere(job(11, at(1)), "quick.example"), at(3)).await;
    assert_eq!(ids(&rig.claim_to_fetch(room.clone(), at(4)).await), [more.id]);
    room.taken.insert(source("slow.example"), 2);
    assert_eq!(ids(&rig.claim_to_fetch(room.clone(), at(5)).await), [job_id(4, at(1))]);
    assert_eq!(rig.waiting_jobs(), 5);
    assert_eq!(other.awaits(), Some(source("quick.example")));
}

pub async fn sources_take_turns_and_priority_goes_before_age(rig: &Rig) {
    let of = |n, priority| elsewhere(NewJob { priority, ..job(n, at(1)) }, "b.example");
    for (n, priority) in [(1, Priority::Low), (2, Priority::Normal), (3, Priority::High)] {
        rig.accept_source(of(n, priority), at(1)).await;
    }
    for (n, host) in [(4, "a.example"), (5, "c.example")] {
        rig.accept_source(elsewhere(job(n, at(1)), host), at(1)).await;
    }
    let mut first = Vec::new();
    for _ in 0..3 {
        first.extend(rig.claim_to_fetch(room(1), at(2)).await);
    }
    first.sort_by_key(|job| job.id);
    assert_eq!(ids(&first), [3, 4, 5].map(|n| job_id(n, at(1))), "one of each");
    let rest = rig.claim_to_fetch(room(9), at(3)).await;
    assert_eq!(ids(&rest), [2, 1].map(|n| job_id(n, at(1))));
}

pub async fn it_waits_as_others_do(rig: &Rig) {
    let tagged = NewJob { tags: vec!["x".to_owned()], ..job(1, at(1)) };
    let id = rig.accept_source(elsewhere(tagged, "cats.example"), at(1)).await.id;
    let later = NewJob { start_at: Some(at(20)), ..job(2, at(1)) };
    let later = rig.accept_source(elsewhere(later, "cats.example"), at(1)).await.id;
    let queued = |tag: Option<&str>| JobQuery {
        client: Some(client("a")),
        status: Some(JobStatus::Queued).filter(|_| tag.is_none()),
        tag: tag.map(str::to_owned),
        limit: 9,
        ..JobQuery::default()
    };
    assert_eq!(ids(&rig.list(queued(None)).await), [later, id]);
    assert_eq!(ids(&rig.list(queued(Some("x"))).await), [id]);
    rig.set_paused(Paused { work: true, intake: false }).await.unwrap();
    assert_eq!(rig.claim_to_fetch(room(9), at(2)).await, []);
    let woken = || rig.signals().fetches.notified().now_or_never().is_some();
    woken();
    rig.set_paused(Paused::default()).await.unwrap();
    assert!(woken());
    assert_eq!(ids(&rig.claim_to_fetch(room(9), at(3)).await), [id]);
    assert_eq!(ids(&rig.claim_to_fetch(room(9), at(20)).await), [later]);
    let missing = rig.picture_fetched(job_id(99, at(1)), 1, input(), at(21)).await;
    assert!(matches!(missing, Err(StoreError::NotFound)), "{missing:?}");
    assert_eq!(
        rig.claim_fetches(worker(2), FetchRoom::default(), crate::rig::secs(9), at(22)).await.unwrap(),
        []
    );
}

pub async fn a_repeated_key_finds_it_too(rig: &Rig) {
    let submit = async |n, fingerprint| {
        let idempotency =
            darkroom::store::Idempotency { key: "k".to_owned(), fingerprint: [fingerprint; 32] };
        let job = elsewhere(job(n, at(1)), "cats.example");
        rig.submit_source(Submission { job, idempotency: Some(idempotency) }, at(1)).await.unwrap()
    };
    let Submitted::Created(first) = submit(1, 1).await else { panic!("not created") };
    assert_eq!(submit(2, 1).await, Submitted::Repeated(first));
    assert_eq!(submit(3, 2).await, Submitted::KeyReused);
}
