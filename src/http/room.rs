//! Room for connections: how many there may be, how many of one address, and which one goes when there is none left.
//!
//! A connection without a request under way is worth the least: its client may come back to it, or may be one that
//! opened ten thousand to keep others out. So when all places are taken, the one that has been without for longest
//! makes room for the newcomer. One with a request under way is never closed for that.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::telemetry;

/// What [`Turns::since`] is while a request is under way.
const BUSY: u64 = u64::MAX;

/// The places of all connections.
pub(super) struct Room {
    permits: Arc<Semaphore>,
    /// 0: as many as there are places.
    per_address: usize,
    open: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
    /// Somebody has become idle.
    idle: Notify,
}

/// A connection, as the others see it.
struct Open {
    address: IpAddr,
    turns: Arc<Turns>,
}

/// Whether a connection is of use, and since when it is not.
struct Turns {
    /// Counted in turns of all connections, which is order enough.
    since: AtomicU64,
    cut_off: CancellationToken,
}

impl Room {
    pub(super) fn new(places: usize, per_address: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(places)),
            per_address,
            open: Mutex::default(),
            next: AtomicU64::new(0),
            idle: Notify::new(),
        }
    }

    /// A place, as soon as there is one; `None` when this address has its fill. It is idle until told otherwise, and
    /// its connection is to end with `cut_off`.
    pub(super) async fn admit(
        self: &Arc<Self>,
        peer: SocketAddr,
        cut_off: CancellationToken,
    ) -> Option<Place> {
        let address = neighbourhood(peer.ip());
        if self.per_address > 0 {
            let theirs = self.open().values().filter(|open| open.address == address).count();
            if theirs >= self.per_address {
                return None;
            }
        }
        let permit = self.permit().await?;
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = Arc::new(Turns { since: AtomicU64::new(key), cut_off });
        self.open().insert(key, Open { address, turns: Arc::clone(&turns) });
        Some(Place { room: Arc::clone(self), key, peer, turns, _permit: permit })
    }

    async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
                return Some(permit);
            }
            let permit = Arc::clone(&self.permits).acquire_owned();
            if self.evict() {
                return permit.await.ok();
            }
            tokio::select! {
                permit = permit => return permit.ok(),
                () = self.idle.notified() => {}
            }
        }
    }

    /// Closes the connection that has been idle for longest, if one is.
    pub(super) fn evict(&self) -> bool {
        let open = self.open();
        let turns = loop {
            let idle = open.values().map(|open| (open.turns.since.load(Ordering::Relaxed), &open.turns));
            let longest = idle.filter(|(since, _)| *since != BUSY).min_by_key(|(since, _)| *since);
            let Some((since, turns)) = longest else { return false };
            // Unless a request has begun on it by now; and so that it is not chosen again while it ends.
            let chosen = turns.since.compare_exchange(since, BUSY, Ordering::Relaxed, Ordering::Relaxed);
            if chosen.is_ok() {
                break turns;
            }
        };
        turns.cut_off.cancel();
        metrics::counter!(telemetry::CONNECTIONS_EVICTED).increment(1);
        true
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    key: u64,
    peer: SocketAddr,
    turns: Arc<Turns>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    pub(super) fn peer(&self) -> SocketAddr {
        self.peer
    }

    pub(super) fn cut_off(&self) -> &CancellationToken {
        &self.turns.cut_off
    }

    pub(super) fn is_busy(&self) {
        self.turns.since.store(BUSY, Ordering::Relaxed);
    }

    pub(super) fn is_idle(&self) {
        self.turns.since.store(self.room.next.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        self.room.idle.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.open().remove(&self.key);
    }
}

/// What counts as one address: who has one of IPv6 has 2^64.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 1)
    }

    async fn admitted(room: &Arc<Room>, from: &str) -> Place {
        room.admit(peer(from), CancellationToken::new()).await.unwrap()
    }

    #[tokio::test]
    async fn the_one_that_is_idle_for_longest_makes_room() {
        let room = Arc::new(Room::new(3, 0));
        let [first, second, third] =
            [admitted(&room, "::1").await, admitted(&room, "::1").await, admitted(&room, "::1").await];
        first.is_busy();
        second.is_busy();
        second.is_idle();
        let mut fourth = std::pin::pin!(admitted(&room, "::1"));
        assert!(fourth.as_mut().now_or_never().is_none());
        let is_cut = |place: &Place| place.cut_off().is_cancelled();
        assert_eq!([is_cut(&first), is_cut(&second), is_cut(&third)], [false, false, true]);
        drop(third);
        let fourth = fourth.await;
        fourth.is_busy();
        second.is_busy();

        // All are busy: the next one waits until one of them no longer is.
        let mut fifth = std::pin::pin!(admitted(&room, "::1"));
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(!is_cut(&first) && !is_cut(&second) && !is_cut(&fourth));
        second.is_idle();
        assert!(fifth.as_mut().now_or_never().is_none());
        assert!(is_cut(&second));
        drop(second);
        fifth.await;
    }

    #[tokio::test]
    async fn an_address_has_no_more_than_its_share() {
        let room = Arc::new(Room::new(10, 2));
        let admit = |from| room.admit(peer(from), CancellationToken::new());
        let first = admit("2001:db8::1").await;
        let _second = admit("2001:db8::2").await.unwrap();
        assert!(admit("2001:db8::3").await.is_none());
        let _other = [admit("2001:db8:0:1::3").await.unwrap(), admit("192.0.2.1").await.unwrap()];
        let _mapped = admit("::ffff:192.0.2.1").await.unwrap();
        assert!(admit("192.0.2.1").await.is_none());
        drop(first);
        assert!(admit("2001:db8::3").await.is_some());
    }
}
