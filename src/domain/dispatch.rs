//! Whose turn it is: which destination gets the next attempts, and how many.
//!
//! Each destination has a lane: a bound on its attempts in flight that grows while they succeed, a rate, and a circuit
//! breaker. A lane that may do nothing now waits for a time, or for one of its attempts to end, and is not looked at
//! until then; so what a dead destination has waiting costs nobody anything. Lanes that may do something take turns:
//! first by client, then by destination. Those that are not known to be well share a part of all attempts in flight,
//! so that any number of hanging receivers leaves room for the others.
//!
//! This is the state of one process; what must outlast it is in [`Destination`].

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use self::lane::{Bucket, Lane, Place, Window};
use self::rota::Rota;
use super::attempt::Failure;
use super::delivery::{Delivery, StaleDelivery};
use super::destination::{BreakerPolicy, Change, Destination, Health};
use super::id::{DeliveryId, DestinationId, WorkerId};
use super::job::Lease;

mod lane;
mod rota;

/// Attempts of one turn: small, so that turns come round soon.
const PER_TURN: u32 = 8;
/// A retry goes first in each turn of this number; in the others, first attempts do.
const RETRY_TURN: u32 = 4;
/// Lanes that are kept at least, also when nothing waits in them.
const KEPT_LANES: usize = 10_000;

/// The bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct DispatchPolicy {
    /// Attempts in flight to one destination.
    pub per_destination: u32,
    /// As many of them may be before it has taken any.
    pub at_first: u32,
    /// Attempts in flight to all destinations together that are not known to be well.
    pub unproven: usize,
    /// Attempts a second to one destination; 0 is no bound.
    pub rate_per_second: u32,
    /// When a destination is left alone.
    pub breaker: BreakerPolicy,
}

/// What the configuration has by default.
impl Default for DispatchPolicy {
    fn default() -> Self {
        Self {
            per_destination: 64,
            at_first: 4,
            unproven: 128,
            rate_per_second: 0,
            breaker: BreakerPolicy::default(),
        }
    }
}

/// A destination that may take attempts now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Which.
    pub destination: DestinationId,
    /// How many attempts may begin.
    pub quota: usize,
    /// Whether a retry goes before the first attempts.
    pub is_retrys: bool,
}

/// What ending an attempt came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// The destination as it has to be written.
    pub to_write: Option<Box<Destination>>,
    /// What others are told.
    pub change: Option<Change>,
    /// Whether there may be something to claim.
    pub wakes: bool,
}

/// Attempts under way, and whose turn is next.
#[derive(Debug)]
pub struct Dispatch {
    policy: DispatchPolicy,
    lanes: HashMap<DestinationId, Lane>,
    proven: Rota,
    unproven: Rota,
    is_unproven_next: bool,
    unproven_in_flight: usize,
    timers: BTreeSet<(Timestamp, DestinationId)>,
    claims: HashMap<DeliveryId, Claim>,
    expiries: BTreeSet<(Timestamp, DeliveryId)>,
    last_token: u64,
    forget_above: usize,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    destination: DestinationId,
    due: Timestamp,
    lease: Lease,
    is_proven: bool,
}

impl Dispatch {
    /// Nothing is under way. Tokens are given from `first_token` on: another one for each process, so that none is given
    /// twice.
    #[must_use]
    pub fn new(policy: DispatchPolicy, first_token: u64) -> Self {
        Self {
            policy,
            lanes: HashMap::new(),
            proven: Rota::default(),
            unproven: Rota::default(),
            is_unproven_next: false,
            unproven_in_flight: 0,
            timers: BTreeSet::new(),
            claims: HashMap::new(),
            expiries: BTreeSet::new(),
            last_token: first_token,
            forget_above: KEPT_LANES,
        }
    }

    /// The destination, if it has a lane: newer than what was written of it.
    #[must_use]
    pub fn destination(&self, id: DestinationId) -> Option<&Destination> {
        self.lanes.get(&id).map(|lane| &lane.destination)
    }

    /// How many attempts to it are under way, and how many may be.
    #[must_use]
    pub fn in_flight(&self, id: DestinationId) -> (u32, u32) {
        self.lanes.get(&id).map_or((0, self.first_limit()), |lane| (lane.in_flight, lane.limit))
    }

    /// Attempts under way.
    #[must_use]
    pub fn all_in_flight(&self) -> usize {
        self.claims.len()
    }

    /// The latest token.
    #[must_use]
    pub fn last_token(&self) -> u64 {
        self.last_token
    }

    /// What is under way.
    #[must_use]
    pub fn under_way(&self) -> Vec<DeliveryId> {
        self.claims.keys().copied().collect()
    }

    /// Who makes the attempt that is under way.
    #[must_use]
    pub fn lease(&self, delivery: DeliveryId) -> Option<Lease> {
        self.claims.get(&delivery).map(|claim| claim.lease)
    }

    /// Gives a destination a lane, or tells the lane that it was changed.
    pub fn put(&mut self, destination: Destination) {
        let (id, limit) = (destination.id, self.first_limit());
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.destination = destination;
            match lane.place {
                Place::Timer(at) if lane.destination.hold.is_some() => {
                    lane.place = Place::Full;
                    self.timers.remove(&(at, id));
                }
                Place::Full if lane.destination.hold.is_none() => self.take_place(id),
                _ => {}
            }
            return;
        }
        let lane = Lane {
            limit,
            is_proven: destination.failing_since.is_none() && destination.last_success_at.is_some(),
            destination,
            in_flight: 0,
            window: Window::default(),
            bucket: Bucket::default(),
            granted: None,
            place: Place::Idle,
            turns: 0,
        };
        self.lanes.insert(id, lane);
    }

    /// The receiver permits so many attempts a minute; `None`: it sets no bound.
    pub fn pace(&mut self, id: DestinationId, per_minute: Option<u32>) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.granted = per_minute;
        }
    }

    /// A delivery to it is due then, or was.
    pub fn wake(&mut self, id: DestinationId, due: Timestamp) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        // Nothing wakes for one that is left alone, also when the process has just begun.
        let due = lane.destination.open.map_or(due, |open| due.max(open.until));
        match lane.place {
            Place::Turn | Place::Full => {}
            Place::Idle if lane.destination.hold.is_some() => lane.place = Place::Full,
            Place::Timer(at) if at <= due => {}
            Place::Timer(at) => {
                self.timers.remove(&(at, id));
                self.set_timer(id, due);
            }
            Place::Idle => self.set_timer(id, due),
        }
    }

    /// The next destination that may take attempts; [`Self::took`] says what it took.
    pub fn next(&mut self, now: Timestamp) -> Option<Turn> {
        while let Some((at, id)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, id));
            self.take_place(id);
        }
        while let Some(id) = self.pop() {
            let room = self.room_for_unproven();
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if !lane.is_proven && room == 0 {
                // It failed while it waited among those that are well.
                self.unproven.push(&lane.destination.client, id);
                continue;
            }
            let most = if lane.is_proven { PER_TURN } else { PER_TURN.min(room) };
            let quota = lane.quota(now, &self.policy).min(most);
            if quota > 0 {
                lane.place = Place::Idle;
                lane.turns = lane.turns.wrapping_add(1);
                let is_retrys = lane.turns.is_multiple_of(RETRY_TURN);
                return Some(Turn { destination: id, quota: quota as usize, is_retrys });
            }
            lane.place = Place::Full;
            if let Some(at) = lane.opens_at(now, &self.policy) {
                self.set_timer(id, at);
            }
        }
        None
    }

    /// A claim in a turn of the delivery's destination.
    pub fn claim(
        &mut self,
        destination: DestinationId,
        delivery: &Delivery,
        worker: WorkerId,
        until: Timestamp,
        now: Timestamp,
    ) -> Lease {
        self.last_token = self.last_token.wrapping_add(1);
        let lease = Lease { worker, token: self.last_token, until };
        let mut is_proven = false;
        if let Some(lane) = self.lanes.get_mut(&destination) {
            is_proven = lane.is_proven;
            lane.take(now, &self.policy);
        }
        self.unproven_in_flight += usize::from(!is_proven);
        let due = delivery.next_attempt_at.unwrap_or(now);
        self.claims.insert(delivery.id, Claim { destination, due, lease, is_proven });
        self.expiries.insert((until, delivery.id));
        lease
    }

    /// Ends a turn: what is due next of what was not claimed in it.
    pub fn took(&mut self, turn: Turn, next_due: Option<Timestamp>, now: Timestamp) {
        match next_due {
            None => {}
            Some(due) if due <= now => self.take_place(turn.destination),
            Some(due) => self.wake(turn.destination, due),
        }
    }

    /// Whether the delivery's attempt is this one.
    pub fn check(&self, delivery: DeliveryId, token: u64) -> Result<(), StaleDelivery> {
        self.claims.get(&delivery).filter(|claim| claim.lease.token == token).map(|_| ()).ok_or(StaleDelivery)
    }

    /// An attempt ended, with what it says of its destination.
    pub fn end(
        &mut self,
        delivery: DeliveryId,
        health: Health,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Ended {
        let had_room = self.has_room_for_unproven();
        let Some(Claim { destination: id, .. }) = self.release(delivery) else { return Ended::default() };
        let makes_room = !had_room && self.has_room_for_unproven() && !self.unproven.is_empty();
        let Some(lane) = self.lanes.get_mut(&id) else { return Ended::default() };
        let (was_open, breaker) = (lane.destination.open.is_some(), &self.policy.breaker);
        let (mut is_new, mut change) = lane.destination.attempted(health, failure, now, breaker);
        let mut has_turn = false;
        match health {
            Health::Good => {
                lane.is_proven = true;
                let client = &lane.destination.client;
                if lane.place == Place::Turn && self.unproven.remove(client, id) {
                    self.proven.push(client, id);
                    has_turn = true;
                }
                // It grows where it is used: a lane that never had four in flight has not shown that it can take five.
                if was_open {
                    lane.limit = 1;
                } else if (lane.in_flight + 1).saturating_mul(2) >= lane.limit {
                    lane.limit = lane.limit.saturating_add(1).min(self.policy.per_destination);
                }
            }
            Health::Bad => {
                lane.is_proven = false;
                lane.limit = (lane.limit / 2).max(1);
            }
            Health::Refusing | Health::Unknown => {}
        }
        if was_open && change.is_none() && matches!(health, Health::Bad | Health::Refusing) {
            // Those that were under way when it opened say nothing new.
            if lane.destination.open.is_some_and(|open| open.until <= now) {
                lane.destination.open(now, breaker);
                is_new = true;
            }
        } else if !was_open && lane.window.opens(health, now, breaker) && lane.destination.open.is_none() {
            lane.destination.open(now, breaker);
            lane.window = Window::default();
            is_new = true;
        }
        if let Some(Change::Resumed) = change.filter(|_| lane.destination.hold.is_some()) {
            change = None;
        }
        let to_write = is_new.then(|| Box::new(lane.destination.clone()));
        // One that is well again does not wait for the time of its next probe.
        let closes = was_open && lane.destination.open.is_none() && lane.place != Place::Idle;
        if lane.place == Place::Full || closes {
            self.take_place(id);
            has_turn = true;
        }
        Ended { to_write, change, wakes: has_turn || makes_room }
    }

    /// An attempt was given up before it ended; its delivery is due as it was.
    pub fn give_back(&mut self, delivery: DeliveryId) {
        let Some(Claim { destination, due, .. }) = self.release(delivery) else { return };
        if self.lanes.get(&destination).is_some_and(|lane| lane.place == Place::Full) {
            self.take_place(destination);
        }
        self.wake(destination, due);
    }

    /// Takes up to `limit` deliveries whose lease has run out from their workers.
    pub fn expire(&mut self, limit: usize, now: Timestamp) {
        for _ in 0..limit {
            let Some((_, delivery)) = self.expiries.first().copied().filter(|(until, _)| *until <= now)
            else {
                return;
            };
            self.give_back(delivery);
        }
    }

    /// When there is next something to do by time alone.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let has_turn = !self.proven.is_empty() || (self.has_room_for_unproven() && !self.unproven.is_empty());
        let turn = has_turn.then_some(Timestamp::UNIX_EPOCH);
        let timer = self.timers.first().map(|(at, _)| *at);
        let expiry = self.expiries.first().map(|(until, _)| *until);
        turn.into_iter().chain(timer).chain(expiry).min()
    }

    /// Lets go of lanes in which nothing waits and of which there is nothing to remember.
    pub fn forget_idle(&mut self) {
        if self.lanes.len() <= self.forget_above {
            return;
        }
        self.lanes.retain(|_, lane| {
            lane.place != Place::Idle || lane.in_flight > 0 || lane.destination.failing_since.is_some()
        });
        // So that looking at all of them stays rare.
        self.forget_above = KEPT_LANES.max(2 * self.lanes.len());
    }

    fn first_limit(&self) -> u32 {
        self.policy.at_first.clamp(1, self.policy.per_destination.max(1))
    }

    fn room_for_unproven(&self) -> u32 {
        let room = self.policy.unproven.saturating_sub(self.unproven_in_flight);
        u32::try_from(room).unwrap_or(u32::MAX)
    }

    fn has_room_for_unproven(&self) -> bool {
        self.room_for_unproven() > 0
    }

    fn release(&mut self, delivery: DeliveryId) -> Option<Claim> {
        let claim = self.claims.remove(&delivery)?;
        self.expiries.remove(&(claim.lease.until, delivery));
        self.unproven_in_flight -= usize::from(!claim.is_proven);
        if let Some(lane) = self.lanes.get_mut(&claim.destination) {
            lane.in_flight = lane.in_flight.saturating_sub(1);
        }
        Some(claim)
    }

    fn set_timer(&mut self, id: DestinationId, at: Timestamp) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.place = Place::Timer(at);
            self.timers.insert((at, id));
        }
    }

    fn take_place(&mut self, id: DestinationId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if let Place::Timer(at) = lane.place {
            self.timers.remove(&(at, id));
        }
        if lane.place != Place::Turn {
            lane.place = Place::Turn;
            let rota = if lane.is_proven { &mut self.proven } else { &mut self.unproven };
            rota.push(&lane.destination.client, id);
        }
    }

    fn pop(&mut self) -> Option<DestinationId> {
        let may_be_unproven = self.has_room_for_unproven();
        let unproven_first = self.is_unproven_next;
        self.is_unproven_next = !unproven_first;
        if unproven_first && may_be_unproven {
            self.unproven.pop().or_else(|| self.proven.pop())
        } else if may_be_unproven {
            self.proven.pop().or_else(|| self.unproven.pop())
        } else {
            self.proven.pop()
        }
    }
}

#[cfg(test)]
mod tests;
