//! Pages of deliveries.

use std::ops::Range;

use jiff::Timestamp;

use super::deliveries::{get, of_job};
use super::engine::Engine;
use super::keys::{self, DueClass, Key};
use super::writer::Shared;
use crate::domain::delivery::{Delivery, DeliveryState};
use crate::domain::id::{DeliveryId, DestinationId};
use crate::store::{DeliveryPage, DeliveryQuery, StoreError};

/// Records that are looked at for one page.
const LOOKED_AT_PER_PAGE: usize = 2000;

/// A stretch of a list, in its own order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// By id from the newest on: all deliveries, or one of the indexes.
    Newest(u8),
    /// What waits for this destination, by class and due time.
    WaitsFor(DestinationId),
    /// What waits for its first attempt, by destination.
    Untried,
    /// What is under way, newest first.
    UnderWay,
}

fn parts(query: &DeliveryQuery) -> Vec<Part> {
    let asks_for = |state| query.states.contains(&state);
    if !query.is_of_undelivered() {
        return vec![Part::Newest(keys::DELIVERY)];
    }
    let mut parts = Vec::new();
    if asks_for(DeliveryState::Exhausted) {
        parts.push(Part::Newest(keys::DELIVERY_EXHAUSTED));
    }
    match (asks_for(DeliveryState::Pending), asks_for(DeliveryState::Sending), query.destination) {
        (true, _, Some(destination)) => parts.push(Part::WaitsFor(destination)),
        (true, _, None) => parts.extend([Part::Newest(keys::DELIVERY_RETRYING), Part::Untried]),
        (false, true, _) => parts.push(Part::UnderWay),
        (false, false, _) => {}
    }
    parts
}

/// A page in the making.
struct Page<'a> {
    shared: &'a Shared,
    query: &'a DeliveryQuery,
    deliveries: Vec<Delivery>,
    looked_at: usize,
    /// The part that is read.
    part: u8,
    /// Where the last of the deliveries lies: its part, and its key there.
    last: Vec<u8>,
}

impl Page<'_> {
    /// Looks at one at `key`; where the page ends, if there is no room for it or it is the last that is looked at.
    fn take(&mut self, id: DeliveryId, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.looked_at += 1;
        let delivery = match get(self.shared, id) {
            Err(StoreError::Corrupt(error)) => {
                tracing::error!(%id, error, "a delivery was left out");
                None
            }
            read => read?,
        };
        let here = || [&[self.part], key].concat();
        if let Some(delivery) = delivery.filter(|delivery| self.query.matches(delivery)) {
            if self.deliveries.len() >= self.query.limit {
                return Ok(Some(self.last.clone()));
            }
            self.last = here();
            self.deliveries.push(delivery);
        }
        Ok((self.looked_at >= LOOKED_AT_PER_PAGE).then(|| [&[self.part], key].concat()))
    }

    /// Goes through a part behind `after`; where the page ends, if it does.
    fn read(&mut self, part: Part, after: Option<Key>) -> Result<Option<Vec<u8>>, StoreError> {
        match part {
            Part::Newest(prefix) => {
                let mut range = keys::made_between(prefix, self.query.since, self.query.until);
                range.end = after.map_or(range.end.clone(), |after| after.min(range.end));
                range.start = range.start.min(range.end.clone());
                for entry in self.shared.engine.scan(range).rev() {
                    let (key, _) = entry?;
                    let ended = self.take(DeliveryId::from_bytes(keys::last_id(&key)?), &key)?;
                    if ended.is_some() {
                        return Ok(ended);
                    }
                }
                Ok(None)
            }
            Part::WaitsFor(destination) => {
                let first = keys::due_of(destination, DueClass::First);
                let all = first.start..keys::due_of(destination, DueClass::Retry).end;
                self.scan(behind(all, after), |_| true).map(|(ended, _)| ended)
            }
            Part::Untried => {
                let mut range = behind(keys::all(keys::DELIVERY_DUE), after);
                loop {
                    let is_first = |class: u8| class == DueClass::First as u8;
                    let (ended, retry_of) = self.scan(range, is_first)?;
                    match retry_of {
                        // Its retries may be a million.
                        Some(destination) => range = keys::due_behind(destination),
                        None => return Ok(ended),
                    }
                }
            }
            Part::UnderWay => {
                let mut ids = self.shared.dispatch().under_way();
                ids.sort_unstable_by(|a, b| b.cmp(a));
                ids.retain(|id| after.as_ref().is_none_or(|after| id.as_bytes()[..] < after[..]));
                for id in ids {
                    let ended = self.take(id, id.as_bytes())?;
                    if ended.is_some() {
                        return Ok(ended);
                    }
                }
                Ok(None)
            }
        }
    }

    /// Goes through what waits, up to the first of another class, whose destination is given back.
    fn scan(
        &mut self,
        range: Range<Key>,
        is_wanted: impl Fn(u8) -> bool,
    ) -> Result<(Option<Vec<u8>>, Option<DestinationId>), StoreError> {
        for entry in self.shared.engine.scan(range) {
            let (key, _) = entry?;
            let Some((destination, class, _)) = keys::due_parts(&key) else { continue };
            if !is_wanted(class) {
                return Ok((None, Some(destination)));
            }
            let ended = self.take(DeliveryId::from_bytes(keys::last_id(&key)?), &key)?;
            if ended.is_some() {
                return Ok((ended, None));
            }
        }
        Ok((None, None))
    }
}

fn behind(range: Range<Key>, after: Option<Key>) -> Range<Key> {
    let Some(mut after) = after else { return range };
    after.push(0);
    after.clamp(range.start, range.end.clone())..range.end
}

/// Destinations that are looked at for the oldest delivery.
const DESTINATIONS_LOOKED_AT: usize = 1000;

/// When the oldest was made that was given up, is to be retried, or was never tried.
pub(super) fn oldest_undelivered(engine: &Engine) -> Result<Option<Timestamp>, StoreError> {
    let mut oldest = Vec::new();
    for prefix in [keys::DELIVERY_EXHAUSTED, keys::DELIVERY_RETRYING] {
        if let Some(key) = engine.first_key(keys::all(prefix))? {
            oldest.push(DeliveryId::from_bytes(keys::last_id(&key)?).created_at());
        }
    }
    let mut rest = keys::all(keys::DELIVERY_DUE);
    for _ in 0..DESTINATIONS_LOOKED_AT {
        let Some(key) = engine.first_key(rest)? else { break };
        oldest.push(DeliveryId::from_bytes(keys::last_id(&key)?).created_at());
        let Some((destination, ..)) = keys::due_parts(&key) else { break };
        rest = keys::due_behind(destination);
    }
    Ok(oldest.into_iter().min())
}

pub(super) fn deliveries(shared: &Shared, query: &DeliveryQuery) -> Result<DeliveryPage, StoreError> {
    if let Some(job) = query.job {
        let before = query.cursor.as_ref().and_then(|cursor| cursor.as_slice().try_into().ok());
        let before = before.map(u64::from_be_bytes);
        let mut deliveries = of_job(shared, job)?;
        deliveries.retain(|delivery| {
            query.matches(delivery) && before.is_none_or(|before| delivery.event_seq < before)
        });
        deliveries.reverse();
        let has_more = deliveries.len() > query.limit;
        deliveries.truncate(query.limit);
        let last = deliveries.last().filter(|_| has_more);
        let next = last.map(|last| last.event_seq.to_be_bytes().to_vec());
        return Ok(DeliveryPage { deliveries, next });
    }
    let parts = parts(query);
    let cursor = query.cursor.as_ref().and_then(|cursor| cursor.split_first());
    let (first, mut after) = cursor.map_or((0, None), |(part, key)| (usize::from(*part), Some(key.to_vec())));
    let (deliveries, last) = (Vec::new(), Vec::new());
    let mut page = Page { shared, query, deliveries, looked_at: 0, part: 0, last };
    for (index, part) in parts.iter().enumerate().skip(first) {
        page.part = u8::try_from(index).unwrap_or(u8::MAX);
        let next = page.read(*part, after.take().filter(|key| !key.is_empty()))?;
        if next.is_some() {
            return Ok(DeliveryPage { deliveries: page.deliveries, next });
        }
    }
    Ok(DeliveryPage { deliveries: page.deliveries, next: None })
}
