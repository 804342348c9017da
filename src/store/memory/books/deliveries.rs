//! The records of deliveries, destinations and replays, and every step over them.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::domain::delivery::{Attempt, Delivery, DeliveryConflict, DeliveryState, Verdict};
use crate::domain::destination::{Change, Destination, Health, HoldReason, Standing};
use crate::domain::dispatch::{Dispatch, Ended};
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::id::{DeliveryId, DestinationId, JobId, ReplayId, WorkerId};
use crate::domain::job::Job;
use crate::domain::replay::{NewReplay, Replay, ReplayItem, ReplayOutcome, ReplayState};
use crate::store::{
    DeliveryPage, DeliveryQuery, DestinationStatus, Idempotency, Ledger, ReplayAction, StartedReplay,
    StoreError, replayed,
};

use super::{Books, later, pending_until};

/// Expired leases that one claim frees.
const FREED_PER_CLAIM: usize = 128;

impl Books {
    pub(super) fn delivery(&self, id: DeliveryId) -> Result<Delivery, StoreError> {
        let found = self.deliveries.values().find(|delivery| delivery.id == id);
        found.cloned().ok_or(StoreError::NotFound)
    }

    /// Keeps a delivery, and says when it is due if that is new.
    pub(in crate::store::memory) fn keep_delivery(&mut self, delivery: Delivery) {
        let (id, due) = (delivery.destination_id(), pending_until(&delivery));
        self.destinations
            .entry(id)
            .or_insert_with(|| Destination::of(&delivery.client, &delivery.url, delivery.created_at));
        let place = |delivery: &Delivery| (pending_until(delivery), delivery.is_first());
        let (now, seq) = (place(&delivery), delivery.event_seq);
        let before = self.deliveries.insert(seq, delivery);
        if let Some(due) = due.filter(|_| before.as_ref().map(place) != Some(now)) {
            self.wake(id, due);
        }
    }

    pub(super) fn wake(&mut self, id: DestinationId, due: Timestamp) {
        if self.dispatch.destination(id).is_none()
            && let Some(destination) = self.destinations.get(&id)
        {
            self.dispatch.put(destination.clone());
        }
        self.dispatch.wake(id, due);
    }

    /// The delivery as it is now, with the attempt that is under way.
    pub(in crate::store::memory) fn leased(&self, delivery: &Delivery) -> Delivery {
        delivery.clone().leased(self.dispatch.lease(delivery.id))
    }

    /// The job with its callback as that is now.
    pub(in crate::store::memory) fn shown(&self, job: &Job) -> Job {
        let mut job = job.clone();
        if let Some(latest) = job.callback.as_mut().and_then(|callback| callback.latest.as_mut())
            && let Ok(delivery) = self.delivery(latest.delivery)
        {
            let delivery = self.leased(&delivery);
            *latest = delivery.progress();
            job.revision += delivery.shown_revision();
        }
        job
    }

    /// Changes a delivery of which no attempt is under way.
    pub(in crate::store::memory) fn change_delivery(
        &mut self,
        id: DeliveryId,
        change: impl FnOnce(&mut Delivery) -> Result<(), DeliveryConflict>,
    ) -> Result<Delivery, StoreError> {
        let mut delivery = self.leased(&self.delivery(id)?);
        change(&mut delivery)?;
        self.keep_delivery(delivery.clone());
        Ok(delivery)
    }

    /// Changes a delivery; if a replay waits for its end, that has come.
    pub(in crate::store::memory) fn take_over(
        &mut self,
        id: DeliveryId,
        now: Timestamp,
        by: impl FnOnce(&mut Delivery) -> Result<(), DeliveryConflict>,
    ) -> Result<Delivery, StoreError> {
        let before = self.delivery(id)?;
        let delivery = self.change_delivery(id, by)?;
        if let Some(replay) = before.replay.and_then(|id| self.replays.get_mut(&id))
            && before.state == DeliveryState::Pending
        {
            replay.ended(ReplayOutcome::of_change(&delivery), now);
        }
        Ok(delivery)
    }

    fn tell_exhausted(&mut self, delivery: Delivery, now: Timestamp) {
        let told = Delivery { secret: None, headers: Vec::new(), ..delivery };
        self.append(EventKind::DeliveryExhausted, Subject::Delivery(Box::new(told)), now);
    }

    /// Ends a delivery whose destination was held back for too long.
    pub(super) fn give_up(&mut self, id: DeliveryId, now: Timestamp) {
        if let Ok(delivery) = self.take_over(id, now, |delivery| delivery.give_up(now)) {
            self.tell_exhausted(delivery, now);
        }
    }

    pub(in crate::store::memory) fn start_replay(
        &mut self,
        new: NewReplay,
        idempotency: Option<Idempotency>,
        now: Timestamp,
    ) -> Result<StartedReplay, StoreError> {
        if let Some(Idempotency { key, fingerprint }) = idempotency {
            let key = (new.client.clone(), key);
            match self.replay_keys.get(&key) {
                Some((_, known)) if *known != fingerprint => return Ok(StartedReplay::KeyReused),
                Some((id, _)) => {
                    let known = self.replays.get(id).cloned().ok_or(StoreError::NotFound)?;
                    return Ok(StartedReplay::Repeated(known));
                }
                None => drop(self.replay_keys.insert(key, (new.id, fingerprint))),
            }
        }
        let replay = Replay::started(new, now);
        self.replays.insert(replay.id, replay.clone());
        Ok(StartedReplay::Created(replay))
    }

    pub(in crate::store::memory) fn change_replay(
        &mut self,
        id: ReplayId,
        action: ReplayAction,
        now: Timestamp,
    ) -> Result<Replay, StoreError> {
        let replay = self.replays.get_mut(&id).ok_or(StoreError::NotFound)?;
        match action {
            ReplayAction::Pause => replay.pause()?,
            ReplayAction::Resume => replay.resume(now)?,
            ReplayAction::Cancel => replay.cancel(now)?,
        }
        Ok(replay.clone())
    }

    /// Behind the delivery that it came to, newest first.
    pub(in crate::store::memory) fn advance_replay(
        &mut self,
        id: ReplayId,
        limit: usize,
        now: Timestamp,
    ) -> Result<Replay, StoreError> {
        let mut replay = self.replays.get(&id).cloned().ok_or(StoreError::NotFound)?;
        if replay.state != ReplayState::Running || replay.is_at_end {
            return Ok(replay);
        }
        let query = DeliveryQuery::next_of(&replay, limit);
        let behind = |one: &Delivery| query.cursor.as_ref().is_none_or(|at| one.id.as_bytes()[..] < at[..]);
        let mut found: Vec<_> = self.deliveries.values().map(|delivery| self.leased(delivery)).collect();
        let is_new = |one: &Delivery| one.replay != Some(id);
        found.retain(|delivery| query.matches(delivery) && behind(delivery) && is_new(delivery));
        found.sort_by_key(|delivery| std::cmp::Reverse(delivery.id));
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|last| last.id.as_bytes().to_vec());
        for was in found {
            let is_sent = self.take_over(was.id, now, |delivery| replayed(&replay, delivery, now)).is_ok();
            let (number, delivery) = (replay.taken, was.id);
            let item = ReplayItem { number, delivery, was: was.state, is_sent };
            self.replay_items.insert((id, number), item);
            replay.take(is_sent);
        }
        replay.read_to(next, now);
        self.replays.insert(id, replay.clone());
        Ok(replay)
    }

    pub(in crate::store::memory) fn change_destination(
        &mut self,
        id: DestinationId,
        now: Timestamp,
        change: impl FnOnce(&mut Destination) -> Option<Change>,
    ) -> Result<Destination, StoreError> {
        let known = self.dispatch.destination(id).or_else(|| self.destinations.get(&id));
        let mut destination = known.cloned().ok_or(StoreError::NotFound)?;
        let change = change(&mut destination);
        self.write_destination(destination.clone(), change, now);
        self.dispatch.put(destination.clone());
        self.wake(id, now);
        Ok(destination)
    }

    pub(in crate::store::memory) fn standing(&self, id: DestinationId) -> Option<Standing> {
        self.dispatch.destination(id).map(Destination::standing)
    }

    pub(in crate::store::memory) fn pace(&mut self, id: DestinationId, per_minute: Option<u32>) {
        self.dispatch.pace(id, per_minute);
    }

    pub(super) fn write_destination(
        &mut self,
        destination: Destination,
        change: Option<Change>,
        now: Timestamp,
    ) {
        self.destinations.insert(destination.id, destination.clone());
        if let Some(change) = change {
            let kind = match change {
                Change::Suspended => EventKind::DestinationSuspended,
                Change::Resumed => EventKind::DestinationResumed,
            };
            let seq = self.append(kind, Subject::Destination(Box::new(destination)), now);
            self.purge_events.insert((later(now, self.policy.keep_finished), seq));
        }
    }

    pub(in crate::store::memory) fn status(&self, destination: &Destination) -> DestinationStatus {
        let id = destination.id;
        let (in_flight, in_flight_limit) = self.dispatch.in_flight(id);
        let waits = |one: &&Delivery| one.destination_id() == id && one.state == DeliveryState::Pending;
        DestinationStatus {
            destination: self.dispatch.destination(id).unwrap_or(destination).clone(),
            in_flight,
            in_flight_limit,
            waiting: self.deliveries.values().filter(waits).count(),
        }
    }

    pub(in crate::store::memory) fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        self.deliveries.values().for_each(|delivery| ledger.came(delivery.state));
        ledger
    }

    pub(in crate::store::memory) fn list_deliveries(&self, query: &DeliveryQuery) -> DeliveryPage {
        let part = |delivery: &Delivery| match delivery.state {
            _ if !query.is_of_undelivered() || query.job.is_some() => 0,
            DeliveryState::Exhausted => 0,
            _ if !query.states.contains(&DeliveryState::Pending) => 1,
            _ if query.destination.is_some() || delivery.is_first() => 2,
            _ => 1,
        };
        let mut found: Vec<_> = self.deliveries.values().map(|delivery| self.leased(delivery)).collect();
        found.retain(|delivery| query.matches(delivery));
        let newest = |delivery: &Delivery| std::cmp::Reverse(delivery.id);
        let place = |one: &Delivery| (one.destination_id(), !one.is_first(), one.next_attempt_at, one.id);
        found.sort_by(|a, b| {
            part(a).cmp(&part(b)).then_with(|| {
                if query.job.is_some() {
                    b.event_seq.cmp(&a.event_seq)
                } else if part(a) == 2 {
                    place(a).cmp(&place(b))
                } else {
                    newest(a).cmp(&newest(b))
                }
            })
        });
        let from = query.cursor.as_ref().and_then(|cursor| cursor.as_slice().try_into().ok());
        let from = from.map_or(0, |bytes| usize::try_from(u64::from_be_bytes(bytes)).unwrap_or(usize::MAX));
        let limit = query.limit;
        let deliveries: Vec<_> = found.iter().skip(from).take(limit).cloned().collect();
        let end = from.saturating_add(deliveries.len());
        let next = (end < found.len()).then(|| (end as u64).to_be_bytes().to_vec());
        DeliveryPage { deliveries, next }
    }

    /// Nobody who had an attempt under way is alive.
    pub(in crate::store::memory) fn restart(&mut self) {
        self.dispatch = Dispatch::new(self.policy.dispatch.clone(), self.dispatch.last_token());
        let due: Vec<_> = self.pending().into_iter().collect();
        for (seq, due) in due {
            let id = self.deliveries.get(&seq).map(Delivery::destination_id);
            id.into_iter().for_each(|id| self.wake(id, due));
        }
    }

    pub(in crate::store::memory) fn settle(
        &mut self,
        id: DeliveryId,
        token: u64,
        attempt: Attempt,
        verdict: &Verdict,
        now: Timestamp,
    ) -> Result<Delivery, StoreError> {
        let mut delivery = self.delivery(id)?;
        self.dispatch.check(id, token)?;
        delivery.settle(&attempt, verdict, now);
        self.keep_delivery(delivery.clone());
        if let Some(replay) = delivery.replay.and_then(|id| self.replays.get_mut(&id))
            && delivery.state.is_terminal()
        {
            let is_delivered = delivery.state == DeliveryState::Delivered;
            replay.ended(if is_delivered { ReplayOutcome::Delivered } else { ReplayOutcome::Failed }, now);
        }
        if delivery.state == DeliveryState::Exhausted {
            self.tell_exhausted(delivery.clone(), now);
        }
        let Ended { to_write, mut change, .. } =
            self.dispatch.end(id, Health::of(&attempt), attempt.error.as_ref(), now);
        let mut to_write = to_write.map(|destination| *destination);
        let known = self.dispatch.destination(delivery.destination_id()).cloned();
        if let Some(mut destination) = known.filter(|_| attempt.asks_to_disable()) {
            change = destination.hold(HoldReason::Disabled, now).or(change);
            self.dispatch.put(destination.clone());
            to_write = Some(destination);
        }
        if let Some(destination) = to_write {
            self.write_destination(destination, change, now);
        }
        self.attempts.insert((id, attempt.number), attempt);
        Ok(delivery)
    }

    pub(in crate::store::memory) fn give_back(
        &mut self,
        id: DeliveryId,
        token: u64,
    ) -> Result<(), StoreError> {
        self.delivery(id)?;
        self.dispatch.check(id, token)?;
        self.dispatch.give_back(id);
        Ok(())
    }

    pub(in crate::store::memory) fn claim_deliveries(
        &mut self,
        worker: WorkerId,
        limit: usize,
        lease: Duration,
        now: Timestamp,
    ) -> Result<Vec<(Delivery, Event)>, StoreError> {
        self.dispatch.expire(FREED_PER_CLAIM, now);
        let mut claimed = Vec::new();
        while claimed.len() < limit
            && let Some(turn) = self.dispatch.next(now)
        {
            let waits = |delivery: &&Delivery| {
                delivery.destination_id() == turn.destination && self.dispatch.lease(delivery.id).is_none()
            };
            let mut waiting: Vec<_> = self.deliveries.values().filter(waits).cloned().collect();
            waiting.retain(|delivery| pending_until(delivery).is_some());
            waiting.sort_by_key(|one| (!one.is_first(), pending_until(one), one.id));
            let is_due = |delivery: &Delivery| pending_until(delivery).is_some_and(|due| due <= now);
            let (mut due, later_ones): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_due);
            // The first retry goes before the first attempts.
            if turn.is_retrys
                && let Some(retry) = due.iter().position(|delivery| !delivery.is_first())
            {
                due[..=retry].rotate_right(1);
            }
            let rest = due.split_off(due.len().min(turn.quota.min(limit - claimed.len())));
            for delivery in due {
                let event = self.events.get(&delivery.event_seq).cloned().ok_or(StoreError::NotFound)?;
                let until = later(now, lease);
                let lease = self.dispatch.claim(turn.destination, &delivery, worker, until, now);
                claimed.push((delivery.leased(Some(lease)), event));
            }
            let next_due = rest.iter().chain(&later_ones).filter_map(pending_until).min();
            self.dispatch.took(turn, next_due, now);
        }
        Ok(claimed)
    }

    pub(in crate::store::memory) fn deliveries_of(&self, job: JobId) -> Vec<Delivery> {
        let of_job = self.deliveries.values().filter(|delivery| delivery.job_id == job);
        of_job.map(|delivery| self.leased(delivery)).collect()
    }

    pub(in crate::store::memory) fn attempts_of(&self, delivery: DeliveryId) -> Vec<Attempt> {
        let own = self.attempts.iter().filter(|((id, _), _)| *id == delivery);
        own.map(|(_, attempt)| attempt.clone()).collect()
    }

    /// The deliveries that wait for an attempt, and until when.
    pub(in crate::store::memory) fn pending(&self) -> BTreeSet<(u64, Timestamp)> {
        let pending = |delivery: &Delivery| Some((delivery.event_seq, pending_until(delivery)?));
        self.deliveries.values().filter_map(pending).collect()
    }
}
