//! Replays: many deliveries sent again, as a durable operation.

use sha2::{Digest as _, Sha256};

use super::{Service, ServiceError};
use crate::clock::entropy;
use crate::domain::client::{Caller, ClientId};
use crate::domain::delivery::Delivery;
use crate::domain::id::ReplayId;
pub use crate::domain::replay::{NewReplay, Replay, ReplayFilter, ReplayItem};
pub use crate::store::ReplayAction;
use crate::store::{DeliveryQuery, Idempotency, StartedReplay};

/// Deliveries that are counted before a replay is started; where there are more, it is said.
pub const MAX_COUNTED: u64 = 100_000;
/// Pages that are looked at for it, whatever fits: each is of so many records that an engine looks at.
const MAX_PAGES: usize = 100;
/// Deliveries that a dry run shows.
const SAMPLE: usize = 10;
/// Deliveries of one page when they are counted.
const PAGE: usize = 1000;

/// A replay that somebody wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of this client alone.
    pub only: Option<ClientId>,
    /// Which deliveries.
    pub filter: ReplayFilter,
    /// How many are taken up in a second, at most.
    pub rate_per_second: u32,
    /// Also those that arrived.
    pub force: bool,
    /// The client's key for it.
    pub idempotency_key: Option<String>,
}

/// What a replay would take up.
#[derive(Debug, Clone)]
pub struct Matched {
    /// How many.
    pub count: u64,
    /// Whether there are more than were counted.
    pub has_more: bool,
    /// The first of them.
    pub sample: Vec<Delivery>,
}

impl Service {
    /// What a replay would take up now.
    pub async fn match_replay(
        &self,
        only: Option<&ClientId>,
        filter: &ReplayFilter,
    ) -> Result<Matched, ServiceError> {
        let mut query = DeliveryQuery { limit: PAGE, ..DeliveryQuery::of_replay(only, filter) };
        let mut matched = Matched { count: 0, has_more: false, sample: Vec::new() };
        for _ in 0..MAX_PAGES {
            let page = self.store.deliveries(query.clone()).await?;
            matched.count += page.deliveries.len() as u64;
            let room = SAMPLE - matched.sample.len();
            matched.sample.extend(page.deliveries.into_iter().take(room));
            query.cursor = page.next;
            matched.has_more = query.cursor.is_some();
            if !matched.has_more || matched.count >= MAX_COUNTED {
                break;
            }
        }
        Ok(matched)
    }

    /// Starts a replay; whether it is a new one.
    pub async fn start_replay(
        &self,
        caller: &Caller,
        wanted: Wanted,
    ) -> Result<(Replay, bool), ServiceError> {
        let Wanted { only, filter, rate_per_second, force, idempotency_key } = wanted;
        let fingerprint = Sha256::digest(format!("{only:?} {filter:?} {rate_per_second} {force}")).into();
        let idempotency = idempotency_key.map(|key| Idempotency { key, fingerprint });
        let matched = self.match_replay(only.as_ref(), &filter).await?;
        let now = self.clock.now();
        let new = NewReplay {
            id: ReplayId::new(now, &entropy()),
            client: caller.client.clone(),
            only,
            filter,
            rate_per_second,
            force,
            matched: matched.count,
            matched_has_more: matched.has_more,
        };
        match self.store.start_replay(new, idempotency, now).await? {
            StartedReplay::Created(replay) => {
                tracing::info!(replay = %replay.id, matched = replay.matched, "a replay was started");
                self.replays_changed.notify_one();
                Ok((replay, true))
            }
            StartedReplay::Repeated(replay) => Ok((replay, false)),
            StartedReplay::KeyReused => Err(ServiceError::IdempotencyKeyReused),
        }
    }

    /// The replay of this id.
    pub async fn replay(&self, caller: &Caller, id: ReplayId) -> Result<Replay, ServiceError> {
        let replay = self.store.replay(id).await?.filter(|replay| caller.sees(&replay.client));
        replay.ok_or(ServiceError::NotFound { what: "replay" })
    }

    /// Up to `limit` of the replays that the caller sees before `before`, the newest first; and where to go on if there are more.
    pub async fn replays(
        &self,
        caller: &Caller,
        before: Option<ReplayId>,
        limit: usize,
    ) -> Result<(Vec<Replay>, Option<ReplayId>), ServiceError> {
        let mut found = self.store.replays(before, limit.saturating_add(1)).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|replay| replay.id);
        found.retain(|replay| caller.sees(&replay.client));
        Ok((found, next))
    }

    /// Up to `limit` items of a replay from the number `from` on, each with its delivery as that is now.
    pub async fn replay_items(
        &self,
        caller: &Caller,
        id: ReplayId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<(ReplayItem, Option<Delivery>)>, ServiceError> {
        self.replay(caller, id).await?;
        let mut items = Vec::new();
        for item in self.store.replay_items(id, from, limit).await? {
            let delivery = self.store.delivery(item.delivery).await?;
            items.push((item, delivery));
        }
        Ok(items)
    }

    /// Pauses, resumes or cancels a replay.
    pub async fn change_replay(
        &self,
        caller: &Caller,
        id: ReplayId,
        action: ReplayAction,
    ) -> Result<Replay, ServiceError> {
        self.replay(caller, id).await?;
        let replay = self.store.change_replay(id, action, self.clock.now()).await?;
        tracing::info!(replay = %id, state = replay.state.as_str(), "a replay was changed");
        self.replays_changed.notify_one();
        Ok(replay)
    }

    /// What says that there may be a replay to go on with.
    #[must_use]
    pub fn replays_changed(&self) -> &tokio::sync::Notify {
        &self.replays_changed
    }

    /// The replays that have deliveries to take up.
    pub async fn running_replays(&self) -> Result<Vec<ReplayId>, ServiceError> {
        Ok(self.store.running_replays().await?)
    }

    /// Goes on with a replay: takes up as many deliveries as its rate allows in the `part`th of the `parts` of a second.
    pub async fn advance_replay(&self, id: ReplayId, part: u32, parts: u32) -> Result<(), ServiceError> {
        let Some(replay) = self.store.replay(id).await? else { return Ok(()) };
        let until = |part: u32| replay.rate_per_second.saturating_mul(part).div_ceil(parts.max(1));
        let limit = until(part + 1).saturating_sub(until(part)) as usize;
        if limit > 0 {
            self.store.advance_replay(id, limit, self.clock.now()).await?;
        }
        Ok(())
    }
}
