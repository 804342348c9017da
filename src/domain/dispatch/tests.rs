//! [`Dispatch`] alone, over a naive list of what waits: generated steps, after each of which its bounds must hold.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::domain::attempt::ErrorClass;
use crate::domain::destination::HoldReason;
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::id::{EventId, JobId};
use crate::domain::job::Job;
use crate::domain::job::tests::{new_job, worker};

const LEASE_MS: i64 = 60_000;
/// The destinations: whose, and the port.
const DESTINATIONS: [(&str, u16); 5] = [("a", 1), ("a", 2), ("a", 3), ("bb", 1), ("bb", 2)];

/// Small bounds, so that each is met often.
fn policy(rate_per_second: u32) -> DispatchPolicy {
    DispatchPolicy {
        per_destination: 6,
        at_first: 2,
        unproven: 3,
        rate_per_second,
        breaker: BreakerPolicy {
            window: Duration::from_secs(20),
            min_samples: 3,
            failure_ratio: 0.5,
            open_for: Duration::from_secs(10),
            max_open_for: Duration::from_secs(40),
            suspend_after: Duration::from_secs(300),
            suspended_probe: Duration::from_secs(100),
        },
    }
}

fn ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn destination(index: usize) -> Destination {
    let (client, port) = DESTINATIONS[index % DESTINATIONS.len()];
    let url = format!("https://hooks.example:{port}/").parse().unwrap();
    Destination::of(&client.parse().unwrap(), &url, ms(0))
}

/// The `n`th delivery; only its id and its time matter here.
fn delivery(n: u64, due: Timestamp) -> Delivery {
    let job = Job::accepted(new_job(1), due);
    let event = Event {
        id: EventId::new(due, &[1; 10]),
        seq: n,
        kind: EventKind::JobQueued,
        at: due,
        source: String::new(),
        subject: Subject::Job(Box::new(job.snapshot())),
    };
    let id = DeliveryId::from_bytes(u128::from(n).to_be_bytes());
    let callback = job.callback.clone().unwrap();
    Delivery::of(&event, &job.client, JobId::new(due, &[1; 10]), &callback, id)
}

#[derive(Debug, Clone)]
enum Step {
    Add { index: usize, count: u64, in_ms: i64 },
    Claim { limit: usize },
    End { index: usize, health: Health, retry_in_ms: Option<i64> },
    GiveBack { index: usize },
    Pass { ms: i64 },
    Pause { index: usize },
    Resume { index: usize },
    Cancel { index: usize },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let health = select(&[Health::Good, Health::Bad, Health::Bad, Health::Refusing, Health::Unknown][..]);
    let later = prop_oneof![Just(0), 1..30_000_i64];
    let retry = prop::option::of(1..30_000_i64);
    prop_oneof![
        4 => (0..5_usize, 1..6_u64, later).prop_map(|(index, count, in_ms)| Step::Add { index, count, in_ms }),
        6 => (1..12_usize).prop_map(|limit| Step::Claim { limit }),
        8 => (0..9_usize, health, retry)
            .prop_map(|(index, health, retry_in_ms)| Step::End { index, health, retry_in_ms }),
        1 => (0..9_usize).prop_map(|index| Step::GiveBack { index }),
        4 => select(&[1, 300, 1000, 5000, 20_000, 61_000, 120_000][..]).prop_map(|ms| Step::Pass { ms }),
        1 => (0..5_usize).prop_map(|index| Step::Pause { index }),
        1 => (0..5_usize).prop_map(|index| Step::Resume { index }),
        1 => (0..9_usize).prop_map(|index| Step::Cancel { index }),
        1 => Just(Step::Restart),
    ]
}

/// What waits for a destination, and whether it has failed before.
#[derive(Debug, Clone, Copy)]
struct Waits {
    destination: DestinationId,
    due: Timestamp,
    is_retry: bool,
}

/// What a store does around [`Dispatch`], and what each step is held to.
struct World {
    dispatch: Dispatch,
    /// As it is written.
    written: HashMap<DestinationId, Destination>,
    waiting: BTreeMap<DeliveryId, Waits>,
    /// Claims of each destination, by when.
    claims: HashMap<DestinationId, Vec<Timestamp>>,
    now: i64,
    last: u64,
    /// Whether whoever claims found nothing more, and has not been woken since.
    is_asleep: bool,
}

impl World {
    fn new(rate_per_second: u32) -> Self {
        Self {
            dispatch: Dispatch::new(policy(rate_per_second), 7),
            written: HashMap::new(),
            waiting: BTreeMap::new(),
            claims: HashMap::new(),
            now: 1_000_000,
            last: 0,
            is_asleep: false,
        }
    }

    fn now(&self) -> Timestamp {
        ms(self.now)
    }

    fn under_way(&self) -> Vec<DeliveryId> {
        let mut ids = self.dispatch.under_way();
        ids.sort();
        ids
    }

    fn add(&mut self, index: usize, due: Timestamp) -> DeliveryId {
        let new = destination(index);
        let id = new.id;
        let written = self.written.entry(id).or_insert(new);
        if self.dispatch.destination(id).is_none() {
            self.dispatch.put(written.clone());
        }
        self.last += 1;
        let delivery = DeliveryId::from_bytes(u128::from(self.last).to_be_bytes());
        self.waiting.insert(delivery, Waits { destination: id, due, is_retry: false });
        self.dispatch.wake(id, due);
        delivery
    }

    fn claim(&mut self, limit: usize) -> Vec<DeliveryId> {
        let now = self.now();
        self.dispatch.expire(2, now);
        let mut claimed = Vec::new();
        while claimed.len() < limit
            && let Some(turn) = self.dispatch.next(now)
        {
            assert!(turn.quota > 0, "a turn is for something");
            let quota = turn.quota.min(limit - claimed.len());
            let mut own: Vec<_> = self
                .waiting
                .iter()
                .filter(|(id, one)| {
                    one.destination == turn.destination && self.dispatch.lease(**id).is_none()
                })
                .map(|(id, one)| (one.is_retry != turn.is_retrys, one.due, *id))
                .collect();
            own.sort();
            let (mut taken, mut next_due) = (0, None::<Timestamp>);
            for (_, due, id) in own {
                if due <= now && taken < quota {
                    taken += 1;
                    self.begin(turn.destination, id, due);
                    claimed.push(id);
                } else {
                    next_due = Some(next_due.map_or(due, |next| next.min(due)));
                }
            }
            self.dispatch.took(turn, next_due, now);
        }
        self.is_asleep = claimed.len() < limit;
        if self.is_asleep {
            self.leaves_nothing_that_could_be_sent();
            self.sleeps();
        }
        claimed
    }

    fn begin(&mut self, id: DestinationId, delivery_id: DeliveryId, due: Timestamp) {
        let now = self.now();
        let delivery = Delivery { id: delivery_id, ..delivery(1, due) };
        let until = ms(self.now + LEASE_MS);
        self.dispatch.claim(id, &delivery, worker(1), until, now);
        self.claims.entry(id).or_default().push(now);
        let lane = &self.dispatch.lanes[&id];
        assert!(lane.destination.hold.is_none(), "nothing is sent to one that is held");
        match lane.destination.open {
            Some(open) => assert!(open.until <= now && lane.in_flight == 1, "one probe, in time"),
            None => assert!(lane.in_flight <= lane.limit, "{} of {}", lane.in_flight, lane.limit),
        }
        let (policy, unproven) = (&self.dispatch.policy, self.dispatch.unproven_in_flight);
        assert!(lane.limit <= policy.per_destination && unproven <= policy.unproven, "{unproven} unproven");
        if policy.rate_per_second > 0 {
            self.keeps_the_rate(id, policy.rate_per_second as usize);
        }
    }

    /// A bucket that holds what a second brings: in any `n` seconds no more than `n + 1` times that.
    fn keeps_the_rate(&self, id: DestinationId, rate: usize) {
        let (claims, now) = (&self.claims[&id], self.now());
        for seconds in [1, 2, 5] {
            let since = now.checked_sub(SignedDuration::from_secs(seconds)).unwrap();
            let made = claims.iter().filter(|at| **at > since).count();
            let most = rate * (usize::try_from(seconds).unwrap() + 1);
            assert!(made <= most, "{made} attempts in {seconds} s, at {rate} a second");
        }
    }

    /// Whoever claims has taken all that could be taken.
    fn leaves_nothing_that_could_be_sent(&self) {
        let (now, dispatch) = (self.now(), &self.dispatch);
        for (id, one) in &self.waiting {
            let lane = &dispatch.lanes[&one.destination];
            let may = lane.is_proven || dispatch.has_room_for_unproven();
            let is_free = dispatch.lease(*id).is_none() && one.due <= now;
            assert!(
                !(is_free && may && lane.quota(now, &dispatch.policy) > 0),
                "{id} was left: {lane:?}, {one:?}"
            );
        }
    }

    /// Whoever goes by the next due time does not spin.
    fn sleeps(&self) {
        let (now, dispatch) = (self.now(), &self.dispatch);
        // Of the leases that have run out, a claim frees so many and no more.
        let has_expired = dispatch.expiries.first().is_some_and(|(until, _)| *until <= now);
        let due = dispatch.next_due();
        assert!(
            has_expired || due.is_none_or(|due| due > now),
            "nothing to claim at {now}, but due at {due:?}"
        );
    }

    fn end(&mut self, delivery: DeliveryId, health: Health, retry_in_ms: Option<i64>) -> Ended {
        let (now, id) = (self.now(), self.waiting[&delivery].destination);
        match retry_in_ms.filter(|_| health != Health::Good) {
            Some(in_ms) => {
                let due = ms(self.now + in_ms);
                self.waiting.insert(delivery, Waits { destination: id, due, is_retry: true });
            }
            None => self.waiting.retain(|id, _| *id != delivery),
        }
        let failure = (health != Health::Good).then(|| Failure::new(ErrorClass::Http, "503"));
        let ended = self.dispatch.end(delivery, health, failure.as_ref(), now);
        if let Some(destination) = &ended.to_write {
            self.written.insert(id, destination.as_ref().clone());
        }
        if let Some(in_ms) = retry_in_ms.filter(|_| health != Health::Good) {
            self.dispatch.wake(id, ms(self.now + in_ms));
        }
        self.is_asleep &= !ended.wakes;
        if self.is_asleep {
            self.leaves_nothing_that_could_be_sent();
        }
        let (lane, written) = (&self.dispatch.lanes[&id].destination, &self.written[&id]);
        let kept = |one: &Destination| (one.hold, one.open, one.suspended_at, one.failing_since);
        assert_eq!(kept(lane), kept(written), "whatever must outlast the process is written");
        ended
    }

    fn change(&mut self, index: usize, change: impl FnOnce(&mut Destination, Timestamp) -> Option<Change>) {
        let id = destination(index).id;
        let Some(written) = self.written.get(&id) else { return };
        let mut changed = self.dispatch.destination(id).unwrap_or(written).clone();
        let _ = change(&mut changed, self.now());
        self.written.insert(id, changed.clone());
        self.dispatch.put(changed);
        self.dispatch.wake(id, self.now());
        self.is_asleep = false;
    }

    fn take(&mut self, step: &Step) {
        let of = |index: usize, ids: &[DeliveryId]| ids.get(index % ids.len().max(1)).copied();
        let under_way = self.under_way();
        // An attempt that ends says itself whether it wakes.
        self.is_asleep &= matches!(step, Step::End { .. });
        match step {
            Step::Add { index, count, in_ms } => {
                for _ in 0..*count {
                    self.add(*index, ms(self.now + in_ms));
                }
            }
            Step::Claim { limit } => drop(self.claim(*limit)),
            Step::End { index, health, retry_in_ms } => {
                if let Some(id) = of(*index, &under_way) {
                    self.end(id, *health, *retry_in_ms);
                }
            }
            Step::GiveBack { index } => {
                of(*index, &under_way).into_iter().for_each(|id| self.dispatch.give_back(id));
            }
            Step::Pass { ms } => self.now += ms,
            Step::Pause { index } => self.change(*index, |one, now| one.hold(HoldReason::Paused, now)),
            Step::Resume { index } => self.change(*index, |one, now| one.resume(now)),
            Step::Cancel { index } => {
                let idle: Vec<_> =
                    self.waiting.keys().copied().filter(|id| self.dispatch.lease(*id).is_none()).collect();
                self.waiting.retain(|id, _| Some(*id) != of(*index, &idle));
            }
            Step::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        let token = self.dispatch.last_token();
        self.dispatch = Dispatch::new(self.dispatch.policy.clone(), token);
        // What the process knew of the rate is gone with it.
        self.claims.clear();
        for one in self.waiting.values() {
            if self.dispatch.destination(one.destination).is_none() {
                self.dispatch.put(self.written[&one.destination].clone());
            }
            self.dispatch.wake(one.destination, one.due);
        }
    }

    fn counts_agree(&self) {
        let under_way = self.under_way();
        let unproven = self.dispatch.claims.values().filter(|claim| !claim.is_proven).count();
        assert_eq!(self.dispatch.unproven_in_flight, unproven);
        for (id, lane) in &self.dispatch.lanes {
            let own = under_way.iter().filter(|one| self.waiting[*one].destination == *id).count();
            assert_eq!(lane.in_flight as usize, own, "{id}");
        }
        assert_eq!(self.dispatch.expiries.len(), under_way.len());
        for (at, id) in &self.dispatch.timers {
            assert_eq!(self.dispatch.lanes[id].place, Place::Timer(*at));
        }
    }

    /// Everything that waits arrives when attempts succeed and time passes, and it takes no longer than it must.
    fn drains(&mut self) {
        (0..DESTINATIONS.len()).for_each(|index| self.change(index, |one, now| one.resume(now)));
        for _ in 0..10_000 {
            for id in self.under_way() {
                self.end(id, Health::Good, None);
            }
            if self.claim(5).is_empty() {
                match self.dispatch.next_due() {
                    None => break,
                    Some(due) => {
                        // Due by the clock of the next millisecond.
                        self.now = self.now.max(due.as_millisecond() + 1);
                        self.is_asleep = false;
                    }
                }
            }
        }
        assert!(self.waiting.is_empty(), "forgotten: {:?} {:?}", self.waiting, self.dispatch);
        assert_eq!(self.dispatch.next_due(), None, "where nothing waits nothing is due");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_bound_is_exceeded_nothing_is_forgotten_and_nobody_spins(
        rate in select(&[0, 0, 1, 3][..]),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(rate);
        for step in &steps {
            world.take(step);
            world.counts_agree();
        }
        world.drains();
    }
}
