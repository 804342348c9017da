//! Generated sequences of operations, taken on the model and on sled side by side: each answers the same, and shows the
//! same afterwards. A sequence that does not is shrunk to the shortest that still doesn't.
//!
//! `PROPTEST_CASES=5000 cargo test --test store_suite model` looks longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use darkroom::domain::delivery::{
    Attempt, Delivery, DeliveryState, ErrorClass, Failure, ResponseHead, Verdict,
};
use darkroom::domain::destination::Destination;
use darkroom::domain::event::{Event, EventKind, Subject as Told};
use darkroom::domain::id::{DeliveryId, EventId, JobId, ReplayId};
use darkroom::domain::job::{Job, JobStatus, NewJob, Priority};
use darkroom::domain::replay::{NewReplay, Replay, ReplayFilter, ReplayItem};
use darkroom::store::{
    Audit, DeliveryPage, DeliveryQuery, DestinationStatus, Ending, FetchRoom, Garbage, Idempotency,
    JobAction, JobQuery, Ledger, NextDue, Paused, Purged, ReplayAction, StartedReplay, StoreError,
    Submission, Submitted, Waiting,
};
use jiff::Timestamp;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use proptest::test_runner::{Config, TestCaseResult};

use crate::engines::{Engine, Subject};
use crate::rig::{
    KEEP_DELETED, KEEP_FINISHED, artifact, at, client, elsewhere, error, failed_attempt, input, job, job_id,
    list, policy, runtime, secs, telling, worker,
};

mod generate;

/// Sequences that are tried unless `PROPTEST_CASES` says otherwise.
const CASES: u32 = 48;
/// What the longest of them consists of: one operation each, or two.
const PHRASES: usize = 50;
/// In the order of their turns, whether an engine has the shorter names first or not.
const CLIENTS: [&str; 3] = ["a", "aa", "bb"];
const TAGS: [&str; 2] = ["x", "y"];

#[test]
fn sled_does_what_the_model_does() {
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { CASES };
    let config = Config { cases, failure_persistence: None, max_shrink_time: 120_000, ..Config::default() };
    proptest!(config, |(phrases in prop::collection::vec(generate::phrase(), 1..=PHRASES))| {
        let sides = [Engine::Memory, Engine::Sled].map(|engine| Side::new(engine.open(policy())));
        runtime().block_on(side_by_side(sides, &phrases.concat()))?;
    });
}

/// A job to accept; times are in seconds from now.
#[derive(Debug, Clone)]
struct New {
    client: &'static str,
    /// The ids of the same millisecond are in no order.
    rank: u32,
    priority: Priority,
    start: Option<i64>,
    deadline: Option<u64>,
    wants: Vec<EventKind>,
    tags: Vec<&'static str>,
    /// Where its picture is, if not here.
    host: Option<&'static str>,
    /// An idempotency key, and the payload's fingerprint.
    key: Option<(&'static str, u8)>,
}

/// Which of the records, modulo how many there are.
#[derive(Debug, Clone, Copy)]
struct Pick {
    index: usize,
    /// Out of all that ever were, instead of those that the operation is for.
    astray: bool,
    /// With a token that is not the latest.
    stale: bool,
}

#[derive(Debug, Clone)]
enum Operation {
    Submit(New),
    Claim {
        limit: usize,
        lease: i64,
    },
    ClaimFetches {
        places: usize,
        per_source: usize,
        lease: i64,
    },
    Fetched {
        job: Pick,
    },
    Sweep,
    Extend {
        job: Pick,
        by: i64,
    },
    AddArtifact {
        job: Pick,
        name: &'static str,
    },
    Finish {
        job: Pick,
        ending: Ended,
    },
    Cancel {
        job: Pick,
    },
    Retry {
        job: Pick,
    },
    Delete {
        job: Pick,
    },
    Restore {
        job: Pick,
    },
    ClaimDeliveries {
        lease: i64,
    },
    Settle {
        delivery: Pick,
        ending: Settled,
    },
    GiveBack {
        delivery: Pick,
    },
    CancelDelivery {
        delivery: Pick,
    },
    SendAgain {
        delivery: Pick,
        force: bool,
    },
    HoldDestination {
        index: usize,
        resume: bool,
    },
    StartReplay {
        states: &'static [DeliveryState],
        force: bool,
        key: Option<u8>,
    },
    AdvanceReplay {
        index: usize,
    },
    ChangeReplay {
        index: usize,
        action: ReplayAction,
    },
    /// Seconds later; for what was deleted, has ended or was postponed is to be purged then.
    Purge {
        after: i64,
        limit: usize,
    },
    ForgetGarbage {
        count: usize,
    },
    Pause {
        intake: bool,
        work: bool,
    },
    List(Listed),
    Wait {
        seconds: i64,
    },
    Reopen,
}

/// A query; times are in seconds before now.
#[derive(Debug, Clone)]
struct Listed {
    client: Option<&'static str>,
    status: Option<JobStatus>,
    tag: Option<&'static str>,
    after: Option<i64>,
    before: Option<i64>,
    deleted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Ended {
    Completed,
    Failed,
    RetryIn(i64),
    Cancelled,
    GivenBack(Option<i64>),
}

#[derive(Debug, Clone, Copy)]
enum Settled {
    Delivered,
    RetryIn(i64),
    Exhausted,
}

async fn side_by_side(mut sides: [Side; 2], operations: &[Operation]) -> TestCaseResult {
    let mut world = World::default();
    for (step, operation) in operations.iter().enumerate() {
        if let Operation::Wait { seconds } | Operation::Purge { after: seconds, .. } = operation {
            world.now += seconds;
        }
        let mut outcomes = Vec::new();
        for side in &mut sides {
            let answer = side.take(operation, &world).await;
            let shown = side.look(&world).await;
            outcomes.push((side.canonical(answer), shown));
        }
        let [(expected_answer, expected), (answer, shown)] = outcomes.try_into().expect("one of each side");
        let agreed = same("the answer", &answer, &expected_answer).and_then(|()| shown.is(&expected));
        agreed.map_err(|why| TestCaseError::fail(format!("step {step}, {operation:?}: {why}")))?;
        world.go_on(operation, shown);
    }
    for side in sides {
        side.store.close().await;
    }
    Ok(())
}

/// What the operations go by, the same for both sides.
#[derive(Default)]
struct World {
    /// Seconds since the beginning.
    now: i64,
    /// All ids that were ever passed in.
    jobs: Vec<JobId>,
    /// The events of all deliveries that there ever were.
    deliveries: BTreeSet<u64>,
    shown: Shown,
}

impl World {
    fn in_seconds(&self, seconds: i64) -> Timestamp {
        at(self.now + seconds)
    }

    fn go_on(&mut self, operation: &Operation, shown: Shown) {
        if let Operation::Submit(new) = operation {
            self.jobs.push(self.next_id(new));
        }
        self.deliveries.extend(shown.deliveries.iter().map(|(delivery, _)| delivery.event_seq));
        self.shown = shown;
    }

    fn next_id(&self, new: &New) -> JobId {
        job_id((new.rank << 16) + self.jobs.len() as u32, self.in_seconds(0))
    }

    fn job(&self, pick: Pick, is_fit: fn(&Job) -> bool) -> Option<(JobId, u64)> {
        let fit = self.shown.jobs.iter().filter(|job| is_fit(job)).map(|job| job.id).collect();
        let id = pick.out_of(fit, self.jobs.clone())?;
        let known = self.shown.jobs.iter().find(|job| job.id == id);
        Some((id, pick.token(known.map_or(1, |job| job.lease_token))))
    }

    fn delivery(&self, pick: Pick, is_fit: fn(&Delivery) -> bool) -> Option<u64> {
        let fit = self.shown.deliveries.iter().filter(|(delivery, _)| is_fit(delivery));
        let fit = fit.map(|(delivery, _)| delivery.event_seq).collect();
        pick.out_of(fit, self.deliveries.iter().copied().collect())
    }
}

impl Pick {
    fn out_of<T: Copy>(self, fit: Vec<T>, all: Vec<T>) -> Option<T> {
        let from = if self.astray || fit.is_empty() { all } else { fit };
        from.get(self.index % from.len().max(1)).copied()
    }

    fn token(self, latest: u64) -> u64 {
        if self.stale { latest.wrapping_sub(1) } else { latest }
    }
}

/// What a step answers.
#[derive(Debug, PartialEq)]
enum Answer {
    Nothing,
    Submitted(Submitted),
    Job(Job),
    Jobs(Vec<Job>),
    Delivery(Delivery),
    Destination(Destination),
    Deliveries(Vec<(Delivery, Event)>),
    StartedReplay(StartedReplay),
    Replay(Replay),
    Purged(Purged),
    Refused(String),
}

/// One of the two stores. Ids of events and deliveries are random; for comparing them each is replaced by the place in
/// the log that it belongs to.
struct Side {
    store: Arc<dyn Subject>,
    events: BTreeMap<EventId, u64>,
    deliveries: BTreeMap<DeliveryId, u64>,
}

impl Side {
    fn new(store: Arc<dyn Subject>) -> Self {
        Self { store, events: BTreeMap::new(), deliveries: BTreeMap::new() }
    }

    async fn take(&self, operation: &Operation, world: &World) -> Answer {
        self.answer(operation, world).await.unwrap_or_else(|error| Answer::Refused(format!("{error:?}")))
    }

    async fn answer(&self, operation: &Operation, world: &World) -> Result<Answer, StoreError> {
        let (store, now) = (self.store.as_ref(), world.in_seconds(0));
        let job = match operation {
            Operation::Submit(new) => {
                let key = new.key.map(|(key, n)| Idempotency { key: key.to_owned(), fingerprint: [n; 32] });
                let (job, idempotency) = (new.job(world), key);
                let submitted = match new.host {
                    Some(host) => {
                        let job = elsewhere(job, host);
                        store.submit_source(Submission { job, idempotency }, now).await?
                    }
                    None => store.submit(Submission { job, idempotency }, now).await?,
                };
                return Ok(Answer::Submitted(submitted));
            }
            Operation::Claim { limit, lease } => return self.claim(*limit, *lease, now).await,
            Operation::ClaimFetches { places, per_source, lease } => {
                return self.claim_fetches(*places, *per_source, *lease, world).await;
            }
            Operation::Fetched { job } => {
                // One whose picture is here is worked on in another way.
                let is_fit = |job: &Job| is_running(job) && job.input.is_none();
                let Some((id, token)) = world.job(*job, is_fit) else { return Ok(Answer::Nothing) };
                store.picture_fetched(id, token, input(), now).await?
            }
            Operation::Extend { job, by } => {
                let Some((id, token)) = world.job(*job, is_running) else { return Ok(Answer::Nothing) };
                store.extend_job(id, token, world.in_seconds(*by)).await?
            }
            Operation::AddArtifact { job, name } => {
                let Some((id, token)) = world.job(*job, is_running) else { return Ok(Answer::Nothing) };
                store.add_artifact(id, token, artifact(name, world.now.unsigned_abs()), None).await?;
                return Ok(Answer::Nothing);
            }
            Operation::Finish { job, ending } => {
                let Some((id, token)) = world.job(*job, is_running) else { return Ok(Answer::Nothing) };
                store.finish_job(id, token, ending.ending(world), now).await?
            }
            Operation::Cancel { job } => {
                let Some((id, _)) = world.job(*job, |job| !job.status.is_terminal()) else {
                    return Ok(Answer::Nothing);
                };
                store.change_job(id, JobAction::Cancel, None, now).await?
            }
            Operation::Retry { job } => {
                let has_failed = |job: &Job| matches!(job.status, JobStatus::Failed | JobStatus::Cancelled);
                let Some((id, _)) = world.job(*job, has_failed) else { return Ok(Answer::Nothing) };
                store.change_job(id, JobAction::Retry, None, now).await?
            }
            Operation::Delete { job } => {
                let Some((id, _)) = world.job(*job, |job| job.deleted_at.is_none()) else {
                    return Ok(Answer::Nothing);
                };
                store.change_job(id, JobAction::Delete, None, now).await?
            }
            Operation::Restore { job } => {
                let Some((id, _)) = world.job(*job, |job| job.deleted_at.is_some()) else {
                    return Ok(Answer::Nothing);
                };
                store.change_job(id, JobAction::Restore, None, now).await?
            }
            other => return self.answer_of_no_job(other, world).await,
        };
        Ok(Answer::Job(job))
    }

    async fn answer_of_no_job(&self, operation: &Operation, world: &World) -> Result<Answer, StoreError> {
        let (store, now) = (self.store.as_ref(), world.in_seconds(0));
        match operation {
            Operation::Sweep => store.sweep_jobs(now).await?,
            Operation::ClaimDeliveries { lease } => {
                // All of them: which of those that are due at the same time an engine takes first is its own affair.
                let limit = 1000;
                let mut claimed = store.claim_deliveries(worker(1), limit, secs(*lease), now).await?;
                claimed.sort_by_key(|(delivery, _)| (delivery.next_attempt_at, delivery.event_seq));
                let due = store.next_due().await?.delivery;
                assert!(claimed.len() == limit || due.is_none_or(|due| due > now), "nobody spins");
                return Ok(Answer::Deliveries(claimed));
            }
            Operation::Settle { delivery, ending } => {
                let Some(seq) = world.delivery(*delivery, is_sending) else { return Ok(Answer::Nothing) };
                let id = self.delivery(seq);
                let known = store.delivery(id).await?.ok_or(StoreError::NotFound)?;
                let attempt = ending.attempt(known.attempt_count + 1, world);
                let (token, verdict) = (delivery.token(known.token()), ending.verdict(world));
                let settled = store.settle_delivery(id, token, attempt, verdict, now).await?;
                return Ok(Answer::Delivery(settled));
            }
            Operation::GiveBack { delivery } => {
                let Some(seq) = world.delivery(*delivery, is_sending) else { return Ok(Answer::Nothing) };
                let id = self.delivery(seq);
                let known = store.delivery(id).await?.ok_or(StoreError::NotFound)?;
                store.give_back_delivery(id, delivery.token(known.token())).await?;
            }
            Operation::CancelDelivery { delivery } => {
                let Some(seq) = world.delivery(*delivery, |_| true) else { return Ok(Answer::Nothing) };
                return store.cancel_delivery(self.delivery(seq), now).await.map(Answer::Delivery);
            }
            Operation::SendAgain { delivery, force } => {
                let Some(seq) = world.delivery(*delivery, |_| true) else { return Ok(Answer::Nothing) };
                return store.send_again(self.delivery(seq), *force, now).await.map(Answer::Delivery);
            }
            Operation::HoldDestination { index, resume } => {
                let known = store.destinations(None, usize::MAX).await?;
                let Some(one) = known.get(index % known.len().max(1)) else { return Ok(Answer::Nothing) };
                let id = one.destination.id;
                let changed = if *resume {
                    store.resume_destination(id, now).await?
                } else {
                    store.pause_destination(id, now).await?
                };
                return Ok(Answer::Destination(changed));
            }
            Operation::StartReplay { .. }
            | Operation::AdvanceReplay { .. }
            | Operation::ChangeReplay { .. } => return self.answer_of_replays(operation, world).await,
            Operation::Purge { limit, .. } => return store.purge(*limit, now).await.map(Answer::Purged),
            Operation::ForgetGarbage { count } => {
                let listed = store.garbage(*count).await?;
                store.forget_garbage(listed.iter().map(|garbage| garbage.job).collect()).await?;
            }
            Operation::Pause { intake, work } => {
                store.set_paused(Paused { intake: *intake, work: *work }).await?;
            }
            Operation::List(listed) => return Ok(Answer::Jobs(list(store, listed.query(world)).await)),
            Operation::Reopen => store.reopen(now).await,
            // The others are of a job, or only the clock's.
            _ => {}
        }
        Ok(Answer::Nothing)
    }

    async fn answer_of_replays(&self, operation: &Operation, world: &World) -> Result<Answer, StoreError> {
        let (store, now) = (self.store.as_ref(), world.in_seconds(0));
        let replays = store.replays(None, usize::MAX).await?;
        let of = |index: &usize| replays.get(index % replays.len().max(1)).map(|replay| replay.id);
        match operation {
            Operation::StartReplay { states, force, key } => {
                let new = NewReplay {
                    id: ReplayId::new(now, &[replays.len() as u8; 10]),
                    client: client(CLIENTS[0]),
                    only: Some(client(CLIENTS[0])),
                    filter: ReplayFilter { states: states.to_vec(), ..ReplayFilter::default() },
                    rate_per_second: 50,
                    force: *force,
                    matched: 0,
                    matched_has_more: false,
                };
                let fingerprint = [u8::from(*force); 32];
                let key = key.map(|key| Idempotency { key: key.to_string(), fingerprint });
                store.start_replay(new, key, now).await.map(Answer::StartedReplay)
            }
            Operation::AdvanceReplay { index } => {
                let Some(id) = of(index) else { return Ok(Answer::Nothing) };
                // All of them: in which order an engine takes them up is its own affair.
                store.advance_replay(id, 1000, now).await.map(Answer::Replay)
            }
            Operation::ChangeReplay { index, action } => {
                let Some(id) = of(index) else { return Ok(Answer::Nothing) };
                store.change_replay(id, *action, now).await.map(Answer::Replay)
            }
            _ => Ok(Answer::Nothing),
        }
    }

    async fn claim(&self, limit: usize, lease: i64, now: Timestamp) -> Result<Answer, StoreError> {
        let claimed = self.store.claim_jobs(worker(1), limit, secs(lease), now).await?;
        let due = self.store.next_due().await?.job;
        assert!(claimed.len() == limit || due.is_none_or(|due| due > now), "nobody spins");
        Ok(Answer::Jobs(claimed))
    }

    async fn claim_fetches(
        &self,
        places: usize,
        per_source: usize,
        lease: i64,
        world: &World,
    ) -> Result<Answer, StoreError> {
        let mut room = FetchRoom { places, per_source, ..FetchRoom::default() };
        for source in world.shown.jobs.iter().filter(|job| is_running(job)).filter_map(Job::awaits) {
            room.take(source);
        }
        let now = world.in_seconds(0);
        let claimed = self.store.claim_fetches(worker(1), room, secs(lease), now).await?;
        let due = self.store.next_due().await?.sweep;
        assert!(due.is_none_or(|due| due > now), "nobody spins");
        Ok(Answer::Jobs(claimed))
    }

    /// All that can be seen.
    async fn look(&mut self, world: &World) -> Shown {
        let store = self.store.as_ref();
        let query = JobQuery { include_deleted: true, limit: 7, ..JobQuery::default() };
        let jobs = list(store, query.clone()).await;
        let mut listed = Vec::new();
        for name in CLIENTS {
            let of_one = JobQuery { client: Some(client(name)), ..query.clone() };
            listed.extend(list(store, of_one).await.iter().map(|job| job.id));
        }
        let events = store.events_after(0, usize::MAX).await.unwrap();
        self.events.extend(events.iter().map(|event| (event.id, event.seq)));
        let mut deliveries = Vec::new();
        for job in &jobs {
            assert_eq!(store.job(job.id).await.unwrap().as_ref(), Some(job));
            let own: Vec<_> = events.iter().filter(|event| event.job_id() == Some(job.id)).cloned().collect();
            assert_eq!(store.events_of(job.id, 0, usize::MAX).await.unwrap(), own);
            for delivery in store.deliveries_of(job.id).await.unwrap() {
                assert_eq!(store.delivery(delivery.id).await.unwrap().as_ref(), Some(&delivery));
                self.deliveries.insert(delivery.id, delivery.event_seq);
                let attempts = store.attempts_of(delivery.id).await.unwrap();
                deliveries.push((delivery, attempts));
            }
        }
        let undelivered = undelivered(store).await;
        let mut undelivered: Vec<_> =
            undelivered.into_iter().map(|delivery| self.canonical_delivery(delivery)).collect();
        // Those of the same moment are in an order of the engine's own.
        undelivered.sort_by_key(|delivery| delivery.id);
        let mut replays = Vec::new();
        for replay in store.replays(None, usize::MAX).await.unwrap() {
            let items = store.replay_items(replay.id, 0, usize::MAX).await.unwrap();
            assert_eq!(items.len() as u64, replay.taken, "one item each");
            let canonical = |item: &ReplayItem| (self.canonical_id(item.delivery), item.was, item.is_sent);
            let mut items: Vec<_> = items.iter().map(canonical).collect();
            items.sort();
            replays.push((replay, items));
        }
        // What is due is due, whatever time it is given.
        let due = store.next_due().await.unwrap();
        let from_now = |due: Option<Timestamp>| due.map(|due| due.max(world.in_seconds(0)));
        Shown {
            jobs: jobs.into_iter().map(|job| self.job(job)).collect(),
            listed,
            events: events.into_iter().map(|event| self.event(event)).collect(),
            deliveries: deliveries
                .into_iter()
                .map(|(delivery, attempts)| (self.canonical_delivery(delivery), attempts))
                .collect(),
            undelivered,
            destinations: store.destinations(None, usize::MAX).await.unwrap(),
            replays,
            ledger: store.ledger(),
            garbage: store.garbage(usize::MAX).await.unwrap(),
            next_due: NextDue {
                job: from_now(due.job),
                sweep: from_now(due.sweep),
                delivery: from_now(due.delivery),
                ..due
            },
            waiting: store.waiting(),
            paused: store.paused(),
            last_event: *store.signals().events.borrow(),
            audit: store.audit().await.unwrap(),
        }
    }

    /// The delivery that the model and the engine know by an event.
    fn delivery(&self, event_seq: u64) -> DeliveryId {
        let mut known = self.deliveries.iter();
        known.find(|(_, seq)| **seq == event_seq).map(|(id, _)| *id).expect("a delivery that was seen")
    }

    fn canonical(&self, answer: Answer) -> Answer {
        match answer {
            Answer::Submitted(Submitted::Created(job)) => {
                Answer::Submitted(Submitted::Created(self.job(job)))
            }
            Answer::Submitted(Submitted::Repeated(job)) => {
                Answer::Submitted(Submitted::Repeated(self.job(job)))
            }
            Answer::Job(job) => Answer::Job(self.job(job)),
            Answer::Jobs(jobs) => Answer::Jobs(jobs.into_iter().map(|job| self.job(job)).collect()),
            Answer::Delivery(delivery) => Answer::Delivery(self.canonical_delivery(delivery)),
            Answer::Deliveries(claimed) => {
                let both = |(delivery, event)| (self.canonical_delivery(delivery), self.event(event));
                Answer::Deliveries(claimed.into_iter().map(both).collect())
            }
            same => same,
        }
    }

    fn job(&self, mut job: Job) -> Job {
        if let Some(latest) = job.callback.as_mut().and_then(|callback| callback.latest.as_mut()) {
            latest.delivery = self.canonical_id(latest.delivery);
        }
        job
    }

    fn event(&self, mut event: Event) -> Event {
        event.id = EventId::from_bytes(u128::from(event.seq).to_be_bytes());
        event.subject = match event.subject {
            Told::Job(job) => Told::Job(Box::new(self.job(*job))),
            Told::Delivery(delivery) => Told::Delivery(Box::new(self.canonical_delivery(*delivery))),
            destination @ Told::Destination(_) => destination,
        };
        event
    }

    fn canonical_delivery(&self, mut delivery: Delivery) -> Delivery {
        assert_eq!(self.events.get(&delivery.event_id), Some(&delivery.event_seq), "the event is its own");
        delivery.event_id = EventId::from_bytes(u128::from(delivery.event_seq).to_be_bytes());
        delivery.id = self.canonical_id(delivery.id);
        // Tokens are each engine's own.
        if let Some(lease) = &mut delivery.lease {
            lease.token = 0;
        }
        delivery
    }

    fn canonical_id(&self, id: DeliveryId) -> DeliveryId {
        self.deliveries.get(&id).map_or(id, |seq| DeliveryId::from_bytes(u128::from(*seq).to_be_bytes()))
    }
}

/// Page by page; no delivery is on two.
async fn undelivered(store: &dyn Subject) -> Vec<Delivery> {
    let mut query = DeliveryQuery {
        states: vec![DeliveryState::Pending, DeliveryState::Sending, DeliveryState::Exhausted],
        limit: 3,
        ..DeliveryQuery::default()
    };
    let mut found = Vec::new();
    loop {
        let DeliveryPage { deliveries, next } = store.deliveries(query.clone()).await.unwrap();
        found.extend(deliveries);
        match next {
            Some(next) => query.cursor = Some(next),
            None => return found,
        }
    }
}

fn is_sending(delivery: &Delivery) -> bool {
    delivery.lease.is_some()
}

fn is_running(job: &Job) -> bool {
    job.status == JobStatus::Processing
}

impl New {
    fn job(&self, world: &World) -> NewJob {
        NewJob {
            id: world.next_id(self),
            client: client(self.client),
            priority: self.priority,
            start_at: self.start.map(|seconds| world.in_seconds(seconds)),
            deadline_ms: self.deadline.map(|seconds| 1000 * seconds),
            callback: telling(&self.wants).filter(|_| !self.wants.is_empty()),
            tags: self.tags.iter().map(|tag| (*tag).to_owned()).collect(),
            ..job(0, at(0))
        }
    }
}

impl Listed {
    fn query(&self, world: &World) -> JobQuery {
        JobQuery {
            client: self.client.map(client),
            status: self.status,
            tag: self.tag.map(str::to_owned),
            created_after: self.after.map(|seconds| world.in_seconds(-seconds)),
            created_before: self.before.map(|seconds| world.in_seconds(-seconds)),
            include_deleted: self.deleted,
            before: None,
            limit: 2,
        }
    }
}

impl Ended {
    fn ending(self, world: &World) -> Ending {
        match self {
            Self::Completed => Ending::Completed,
            Self::Failed => Ending::Failed(error()),
            Self::RetryIn(seconds) => Ending::RetryAt(error(), world.in_seconds(seconds)),
            Self::Cancelled => Ending::Cancelled,
            Self::GivenBack(seconds) => Ending::GivenBack(seconds.map(|seconds| world.in_seconds(seconds))),
        }
    }
}

impl Settled {
    fn verdict(self, world: &World) -> Verdict {
        match self {
            Self::Delivered => Verdict::Delivered,
            Self::RetryIn(seconds) => Verdict::RetryAt(world.in_seconds(seconds)),
            Self::Exhausted => Verdict::Exhausted,
        }
    }

    fn attempt(self, number: u32, world: &World) -> Attempt {
        let attempt = failed_attempt(number, world.in_seconds(0));
        if matches!(self, Self::Delivered) {
            return Attempt { error: None, ..attempt };
        }
        // Refused, and not failed: how many are taken does not shrink, so that it does not matter which are.
        let head = ResponseHead { status: 404, headers: Vec::new(), body: String::new(), truncated: false };
        let error = Some(Failure::new(ErrorClass::Http, "the receiver answered 404"));
        Attempt { response: Some(head), error, ..attempt }
    }
}

/// An item of a replay: which delivery, where it stood, and whether it was sent again.
type TakenUp = (DeliveryId, DeliveryState, bool);

/// All that can be seen of a store.
#[derive(Debug, Default)]
struct Shown {
    /// All of them, deleted ones too.
    jobs: Vec<Job>,
    /// The same, client by client.
    listed: Vec<JobId>,
    events: Vec<Event>,
    deliveries: Vec<(Delivery, Vec<Attempt>)>,
    /// Those that have not arrived, in the order of their list.
    undelivered: Vec<Delivery>,
    destinations: Vec<DestinationStatus>,
    /// Each with its items.
    replays: Vec<(Replay, Vec<TakenUp>)>,
    ledger: Ledger,
    garbage: Vec<Garbage>,
    next_due: NextDue,
    waiting: Waiting,
    paused: Paused,
    last_event: u64,
    audit: Audit,
}

impl Shown {
    /// Whether sled shows what the model does; if not, the most telling difference.
    fn is(&self, model: &Self) -> Result<(), String> {
        each("fault", &self.audit.faults, &model.audit.faults)?;
        each("job", &self.jobs, &model.jobs)?;
        each("job in the clients' lists", &self.listed, &model.listed)?;
        each("event", &self.events, &model.events)?;
        each("delivery", &self.deliveries, &model.deliveries)?;
        each("undelivered", &self.undelivered, &model.undelivered)?;
        each("destination", &self.destinations, &model.destinations)?;
        each("replay", &self.replays, &model.replays)?;
        same("the ledger", &self.ledger, &model.ledger)?;
        each("garbage", &self.garbage, &model.garbage)?;
        same("the next due time", &self.next_due, &model.next_due)?;
        same("the counts of waiting jobs", &self.waiting, &model.waiting)?;
        same("what is paused", &self.paused, &model.paused)?;
        same("the last event", &self.last_event, &model.last_event)?;
        same("the audit", &self.audit, &model.audit)
    }
}

fn each<T: std::fmt::Debug + PartialEq>(what: &str, sled: &[T], model: &[T]) -> Result<(), String> {
    for at in 0..sled.len().max(model.len()) {
        same(&format!("{what} {at}"), &sled.get(at), &model.get(at))?;
    }
    Ok(())
}

fn same<T: std::fmt::Debug + PartialEq>(what: &str, sled: &T, model: &T) -> Result<(), String> {
    if sled == model {
        return Ok(());
    }
    let [sled, model] = [sled, model].map(|value| format!("{value:#?}"));
    let only = |one: &str, other: &str| {
        let lines = one.lines().filter(|line| other.lines().all(|known| known != *line));
        lines.map(str::trim).collect::<Vec<_>>().join(" ")
    };
    Err(format!("{what} differs\n sled: {}\nmodel: {}", only(&sled, &model), only(&model, &sled)))
}
