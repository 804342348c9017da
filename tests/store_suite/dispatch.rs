//! Whose turn it is: bounds, fairness, and what is done about destinations that fail.
//!
//! Some of it is kept in memory only, and an opening begins anew; where a case goes by that, an attempt to another place
//! is under way all the time, which keeps the store open.

use std::time::Duration;

use darkroom::domain::delivery::{Attempt, Delivery, ErrorClass, Failure, ResponseHead, Verdict};
use darkroom::domain::destination::{BreakerPolicy, Destination, Standing};
use darkroom::domain::dispatch::DispatchPolicy;
use darkroom::domain::event::EventKind;
use darkroom::domain::id::DestinationId;
use darkroom::domain::job::{Callback, NewJob};
use darkroom::store::{DestinationStatus, StoreError};
use jiff::Timestamp;

use crate::rig::{Rig, at, client, failed_attempt, job, secs, telling, worker};

/// What the attempts of these cases come to.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Status(u16),
    Silence,
    Disable,
}

fn breaker() -> BreakerPolicy {
    BreakerPolicy {
        window: secs(60),
        min_samples: 4,
        failure_ratio: 0.5,
        open_for: secs(30),
        max_open_for: secs(100),
        suspend_after: secs(1000),
        suspended_probe: secs(500),
    }
}

fn bounds() -> DispatchPolicy {
    DispatchPolicy { at_first: 64, breaker: breaker(), ..DispatchPolicy::default() }
}

fn url(host: &str) -> url::Url {
    format!("https://{host}.example/hook").parse().unwrap()
}

fn id(name: &str, host: &str) -> DestinationId {
    Destination::id(&client(name), &url(host))
}

/// A job of `name` whose acceptance is told to `host`.
fn calling(n: u32, name: &str, host: &str) -> NewJob {
    let callback = telling(&[EventKind::JobQueued]).map(|callback| Callback { url: url(host), ..callback });
    NewJob { client: client(name), callback, ..job(n, at(0)) }
}

/// `count` callbacks to a host of client `a`, due at that second.
async fn calls(rig: &Rig, count: u32, host: &str, second: i64) {
    let first = rig.events_after(0, usize::MAX).await.unwrap().len() as u32;
    rig.accept_all((first..first + count).map(|n| calling(n, "a", host)), at(second)).await;
}

/// An attempt that does not end.
async fn hang(rig: &Rig) {
    calls(rig, 1, "hanging", 0).await;
    assert_eq!(rig.claim_deliveries(worker(9), 1, secs(1_000_000), at(0)).await.unwrap().len(), 1);
}

async fn end(rig: &Rig, delivery: &Delivery, answer: Answer, verdict: Verdict, now: Timestamp) {
    let failed = failed_attempt(delivery.attempt_count + 1, now);
    let head = |status, headers| ResponseHead { status, headers, body: String::new(), truncated: false };
    let refused = |status: u16| {
        (!(200..300).contains(&status)).then(|| Failure::new(ErrorClass::Http, format!("answered {status}")))
    };
    let attempt = match answer {
        Answer::Silence => failed,
        Answer::Status(status) => {
            Attempt { response: Some(head(status, Vec::new())), error: refused(status), ..failed }
        }
        Answer::Disable => {
            let header = ("webhook-delivery".to_owned(), "disable".to_owned());
            Attempt { response: Some(head(400, vec![header])), error: refused(400), ..failed }
        }
    };
    rig.settle_delivery(delivery.id, delivery.token(), attempt, verdict, now).await.unwrap();
}

async fn succeed(rig: &Rig, deliveries: &[Delivery], second: i64) {
    for delivery in deliveries {
        end(rig, delivery, Answer::Status(204), Verdict::Delivered, at(second)).await;
    }
}

/// They fail, and are due again a second later.
async fn fail(rig: &Rig, deliveries: &[Delivery], answer: Answer, second: i64) {
    for delivery in deliveries {
        end(rig, delivery, answer, Verdict::RetryAt(at(second + 1)), at(second)).await;
    }
}

async fn status(rig: &Rig, host: &str) -> DestinationStatus {
    rig.destination(id("a", host)).await.unwrap().expect("the destination is known")
}

async fn standing(rig: &Rig, host: &str) -> Standing {
    status(rig, host).await.destination.standing()
}

/// Until when the breaker is open.
async fn open_until(rig: &Rig, host: &str) -> Option<Timestamp> {
    status(rig, host).await.destination.open.map(|open| open.until)
}

fn hosts(deliveries: &[Delivery]) -> Vec<&str> {
    let mut hosts: Vec<_> = deliveries.iter().map(|one| one.url.host_str().unwrap()).collect();
    hosts.sort_unstable();
    hosts
}

/// What was told of destinations.
async fn told(rig: &Rig) -> Vec<EventKind> {
    let events = rig.events_after(0, usize::MAX).await.unwrap();
    let of_destinations = [EventKind::DestinationSuspended, EventKind::DestinationResumed];
    events.iter().map(|event| event.kind).filter(|kind| of_destinations.contains(kind)).collect()
}

pub async fn a_retry_goes_first_in_every_fourth_turn(rig: &Rig) {
    calls(rig, 4, "one", 0).await;
    let first = rig.claim_attempts(9, at(0)).await;
    fail(rig, &first, Answer::Status(404), 0).await;
    calls(rig, 12, "one", 5).await;
    let mut retries = Vec::new();
    for turn in 0..12 {
        // The retries have been due for longer.
        let claimed = rig.claim_attempts(1, at(10)).await;
        assert_eq!(claimed.len(), 1);
        retries.extend((claimed[0].attempt_count > 0).then_some(turn));
    }
    let [first, second, third] = retries[..] else { panic!("in the turns {retries:?}") };
    assert_eq!((second - first, third - second), (4, 4), "{retries:?}");
    assert_eq!(rig.claim_attempts(9, at(10)).await.len(), 4, "then the rest");
}

pub async fn a_new_destination_gets_few_at_once_and_more_as_it_takes_them(rig: &Rig) {
    let bounds = DispatchPolicy { at_first: 2, per_destination: 5, ..DispatchPolicy::default() };
    let rig = &rig.under(bounds).await;
    hang(rig).await;
    calls(rig, 30, "one", 0).await;
    for (second, expected) in [(1, 2), (2, 3), (3, 5), (4, 5)] {
        let claimed = rig.claim_attempts(99, at(second)).await;
        assert_eq!(claimed.len(), expected, "in second {second}");
        assert_eq!(status(rig, "one").await.in_flight, expected as u32);
        succeed(rig, &claimed, second).await;
    }
    let claimed = rig.claim_attempts(99, at(5)).await;
    fail(rig, &claimed[..1], Answer::Silence, 5).await;
    let now = status(rig, "one").await;
    assert_eq!((now.in_flight, now.in_flight_limit), (4, 2), "half as many");
    assert_eq!(rig.claim_attempts(99, at(5)).await, []);
    fail(rig, &claimed[1..], Answer::Silence, 5).await;
    assert_eq!(rig.claim_attempts(99, at(5)).await.len(), 1, "one at least");
    rig.close().await;
}

pub async fn those_not_known_to_be_well_share_a_part(rig: &Rig) {
    // The one that hangs is one of them.
    let rig = &rig.under(DispatchPolicy { at_first: 2, unproven: 4, ..DispatchPolicy::default() }).await;
    hang(rig).await;
    calls(rig, 1, "well", 0).await;
    succeed(rig, &rig.claim_attempts(9, at(0)).await, 0).await;
    for host in ["one", "two", "three"] {
        calls(rig, 2, host, 1).await;
    }
    let unproven = rig.claim_attempts(99, at(1)).await;
    assert_eq!(unproven.len(), 3);
    calls(rig, 2, "well", 2).await;
    assert_eq!(hosts(&rig.claim_attempts(99, at(2)).await), ["well.example"; 2], "there is room for it");
    fail(rig, &unproven[..1], Answer::Silence, 2).await;
    let next = rig.claim_attempts(99, at(2)).await;
    assert_eq!(next.len(), 1);
    assert_ne!(hosts(&next), ["well.example"]);
    rig.close().await;
}

pub async fn a_destination_with_much_waiting_delays_no_other(rig: &Rig) {
    calls(rig, rig.many(300), "busy", 0).await;
    calls(rig, 1, "quiet", 1).await;
    let claimed = rig.claim_attempts(9, at(1)).await;
    assert_eq!(hosts(&claimed), [&["busy.example"; 8][..], &["quiet.example"]].concat());
}

pub async fn clients_take_turns_however_many_destinations_one_has(rig: &Rig) {
    for host in ["one", "two", "three", "four"] {
        calls(rig, 8, host, 0).await;
    }
    rig.accept_all((100..116).map(|n| calling(n, "bb", if n < 108 { "one" } else { "two" })), at(0)).await;
    let claimed = rig.claim_attempts(32, at(0)).await;
    assert_eq!(claimed.iter().filter(|one| one.client == client("bb")).count(), 16);
}

pub async fn attempts_keep_to_the_rate(rig: &Rig) {
    let rig = &rig.under(DispatchPolicy { rate_per_second: 4, ..bounds() }).await;
    calls(rig, 20, "one", 0).await;
    assert_eq!(rig.claim_attempts(99, at(10)).await.len(), 4);
    assert_eq!(rig.claim_attempts(99, at(10)).await, []);
    let quarter = at(10).checked_add(Duration::from_millis(250)).unwrap();
    assert_eq!(rig.next_due().await.unwrap().delivery, Some(quarter));
    assert_eq!(rig.claim_attempts(99, quarter).await.len(), 1);
    assert_eq!(rig.claim_attempts(99, at(11)).await.len(), 3);
    assert_eq!(rig.claim_attempts(99, at(20)).await.len(), 4, "what was not used is not saved up");
    rig.close().await;
}

pub async fn failures_open_the_breaker_and_a_probe_closes_it(rig: &Rig) {
    let rig = &rig.under(bounds()).await;
    hang(rig).await;
    calls(rig, 12, "one", 0).await;
    let claimed = rig.claim_attempts(99, at(1)).await;
    assert_eq!(claimed.len(), 12);
    fail(rig, &claimed[..3], Answer::Status(503), 1).await;
    assert_eq!(standing(rig, "one").await, Standing::Failing);
    fail(rig, &claimed[3..4], Answer::Status(503), 1).await;
    assert_eq!(standing(rig, "one").await, Standing::Open);
    // What was under way says nothing new.
    fail(rig, &claimed[4..], Answer::Silence, 2).await;
    assert_eq!(open_until(rig, "one").await, Some(at(31)));
    assert_eq!(rig.claim_attempts(99, at(30)).await, []);
    assert_eq!(rig.next_due().await.unwrap().delivery, Some(at(31)));

    // Each probe that fails doubles the time, up to the longest.
    for (second, next) in [(31, 91), (91, 191), (191, 291)] {
        let probe = rig.claim_attempts(99, at(second)).await;
        assert_eq!(probe.len(), 1, "one probe");
        assert_eq!(rig.claim_attempts(99, at(second + 1)).await, []);
        fail(rig, &probe, Answer::Silence, second).await;
        assert_eq!(open_until(rig, "one").await, Some(at(next)));
        assert_eq!(rig.claim_attempts(99, at(next - 1)).await, []);
    }
    for (second, expected) in [(291, 1), (292, 1), (293, 2), (294, 3)] {
        let claimed = rig.claim_attempts(99, at(second)).await;
        assert_eq!(claimed.len(), expected, "in second {second}");
        succeed(rig, &claimed, second).await;
        assert_eq!(standing(rig, "one").await, Standing::Well);
    }
    assert_eq!(told(rig).await, [], "that is nobody's business");
    rig.close().await;
}

pub async fn a_success_of_before_closes_the_breaker_at_once(rig: &Rig) {
    let rig = &rig.under(bounds()).await;
    hang(rig).await;
    calls(rig, 12, "one", 0).await;
    let claimed = rig.claim_attempts(8, at(1)).await;
    fail(rig, &claimed[..4], Answer::Silence, 1).await;
    assert_eq!(rig.claim_attempts(99, at(2)).await, []);
    succeed(rig, &claimed[4..], 3).await;
    assert_eq!(standing(rig, "one").await, Standing::Well);
    assert!(!rig.claim_attempts(99, at(3)).await.is_empty(), "nobody waits for a probe any more");
    rig.close().await;
}

pub async fn few_or_old_failures_leave_it_closed(rig: &Rig) {
    let rig = &rig.under(bounds()).await;
    hang(rig).await;
    calls(rig, 40, "one", 0).await;
    for second in [100, 200] {
        let claimed = rig.claim_attempts(3, at(second)).await;
        fail(rig, &claimed, Answer::Silence, second).await;
        assert_eq!(standing(rig, "one").await, Standing::Failing, "three, and the others are forgotten");
    }
    let mut second = 300;
    while second < 320 {
        let claimed = rig.claim_attempts(2, at(second)).await;
        succeed(rig, &claimed, second).await;
        second += 1;
    }
    for second in 320..330 {
        fail(rig, &rig.claim_attempts(1, at(second)).await, Answer::Silence, second).await;
        assert_eq!(standing(rig, "one").await, Standing::Failing, "less than half of them");
    }
    rig.close().await;
}

pub async fn a_refusal_neither_opens_nor_proves_anything(rig: &Rig) {
    let rig = &rig.under(bounds()).await;
    hang(rig).await;
    calls(rig, 20, "one", 0).await;
    for second in 1..5 {
        let claimed = rig.claim_attempts(99, at(second * 2)).await;
        assert_eq!(claimed.len(), 20, "none is held back");
        fail(rig, &claimed, Answer::Status(404), second * 2).await;
        assert_eq!(standing(rig, "one").await, Standing::Failing);
    }
    // Days of nothing else: it is suspended, and a further refusal is no reason to send it everything.
    fail(rig, &rig.claim_attempts(1, at(1100)).await, Answer::Status(404), 1100).await;
    assert_eq!(told(rig).await, [EventKind::DestinationSuspended]);
    fail(rig, &rig.claim_attempts(99, at(1600)).await, Answer::Status(404), 1600).await;
    assert_eq!(
        (standing(rig, "one").await, rig.claim_attempts(99, at(2099)).await),
        (Standing::Suspended, vec![])
    );
    assert_eq!(open_until(rig, "one").await, Some(at(2100)));

    // Too many requests is another matter.
    calls(rig, 4, "two", 0).await;
    let claimed = rig.claim_attempts(99, at(1601)).await;
    fail(rig, &claimed, Answer::Status(429), 1601).await;
    assert_eq!(standing(rig, "two").await, Standing::Open);
    rig.close().await;
}

pub async fn days_of_failures_suspend_and_a_success_resumes(rig: &Rig) {
    let rig = &rig.under(bounds()).await;
    hang(rig).await;
    calls(rig, 6, "one", 0).await;
    let mut now = at(1);
    while told(rig).await.is_empty() {
        let claimed = rig.claim_attempts(99, now).await;
        assert!(now < at(1300), "it is not suspended");
        fail(rig, &claimed, Answer::Silence, now.as_second()).await;
        now = rig.next_due().await.unwrap().delivery.unwrap();
    }
    let suspended = status(rig, "one").await.destination;
    let since = suspended.suspended_at.unwrap();
    assert!(since >= at(1001) && suspended.standing() == Standing::Suspended, "{suspended:?}");
    for probes in 1..4 {
        let due = open_until(rig, "one").await.unwrap();
        assert_eq!(due, since.checked_add(probes * secs(500)).unwrap());
        assert_eq!(rig.claim_attempts(99, due.checked_sub(secs(1)).unwrap()).await, []);
        assert_eq!(rig.next_due().await.unwrap().delivery, Some(due));
        let probe = rig.claim_attempts(99, due).await;
        assert_eq!(probe.len(), 1);
        fail(rig, &probe, Answer::Silence, due.as_second()).await;
    }
    assert_eq!(told(rig).await, [EventKind::DestinationSuspended], "it is told once");
    let due = open_until(rig, "one").await.unwrap();
    succeed(rig, &rig.claim_attempts(99, due).await, due.as_second()).await;
    assert_eq!(told(rig).await, [EventKind::DestinationSuspended, EventKind::DestinationResumed]);
    assert_eq!(standing(rig, "one").await, Standing::Well);
    assert_eq!(rig.claim_attempts(99, due).await.len(), 1);
    rig.close().await;
}

pub async fn what_is_paused_costs_nothing_and_waits_for_somebody(rig: &Rig) {
    calls(rig, 3, "one", 0).await;
    let held = rig.pause_destination(id("a", "one"), at(1)).await.unwrap();
    assert_eq!(held.standing(), Standing::Paused);
    for second in [1, 1_000] {
        assert_eq!(rig.claim_attempts(9, at(second)).await, []);
        assert_eq!(rig.next_due().await.unwrap().delivery, None);
        calls(rig, 1, "one", second).await;
        rig.store.reopen(at(second)).await;
    }
    assert_eq!(rig.claim_attempts(9, at(2_000)).await, []);
    let status = status(rig, "one").await;
    assert_eq!((status.destination.standing(), status.waiting), (Standing::Paused, 5));
    rig.resume_destination(id("a", "one"), at(2_000)).await.unwrap();
    let claimed = rig.claim_attempts(9, at(2_000)).await;
    assert_eq!(claimed.len(), 5);
    succeed(rig, &claimed, 2_001).await;
    assert_eq!(told(rig).await, [], "whoever did it knows");
    let unknown = rig.pause_destination(id("a", "unknown"), at(1)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)), "{unknown:?}");
}

pub async fn who_wants_no_more_gets_no_more_until_resumed(rig: &Rig) {
    calls(rig, 3, "one", 0).await;
    let claimed = rig.claim_attempts(9, at(1)).await;
    fail(rig, &claimed[..1], Answer::Disable, 1).await;
    succeed(rig, &claimed[1..2], 2).await;
    fail(rig, &claimed[2..], Answer::Disable, 2).await;
    assert_eq!(standing(rig, "one").await, Standing::Disabled);
    assert_eq!(told(rig).await, [EventKind::DestinationSuspended], "it is told once");
    rig.store.reopen(at(3)).await;
    assert_eq!(rig.claim_attempts(9, at(1_000)).await, []);
    assert_eq!(rig.next_due().await.unwrap().delivery, None);
    rig.resume_destination(id("a", "one"), at(1_001)).await.unwrap();
    assert_eq!(told(rig).await, [EventKind::DestinationSuspended, EventKind::DestinationResumed]);
    assert_eq!(rig.claim_attempts(9, at(1_001)).await.len(), 2);
}

pub async fn what_stands_open_suspended_or_paused_outlasts_the_store(rig: &Rig) {
    let rig = &rig.under(bounds()).await;
    calls(rig, 6, "one", 0).await;
    let claimed = rig.claim_attempts(99, at(1)).await;
    fail(rig, &claimed, Answer::Silence, 1).await;
    rig.store.reopen(at(2)).await;
    assert_eq!(open_until(rig, "one").await, Some(at(31)));
    assert_eq!(rig.claim_attempts(99, at(30)).await, []);
    fail(rig, &rig.claim_attempts(99, at(31)).await, Answer::Silence, 31).await;
    rig.store.reopen(at(32)).await;
    assert_eq!(open_until(rig, "one").await, Some(at(91)), "and how often it has opened");
    let mut now = at(91);
    while told(rig).await.is_empty() {
        fail(rig, &rig.claim_attempts(99, now).await, Answer::Silence, now.as_second()).await;
        rig.store.reopen(now).await;
        now = open_until(rig, "one").await.unwrap();
        assert!(now < at(2000), "the days are counted from the first failure");
    }
    assert_eq!(standing(rig, "one").await, Standing::Suspended);
    assert_eq!(rig.claim_attempts(99, now.checked_sub(secs(1)).unwrap()).await, []);
    assert_eq!(rig.claim_attempts(99, now).await.len(), 1);
    rig.close().await;
}
