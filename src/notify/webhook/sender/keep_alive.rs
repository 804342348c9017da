//! Whose connections are kept for the next attempt.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use url::Url;

use crate::clock::Stopwatch;

/// How long a connection is kept without use. Common servers close theirs after 5 s or more, so a request rarely meets
/// a connection that is being closed.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// How many connections are kept for one origin.
pub(super) const IDLE_PER_ORIGIN: usize = 32;
/// For how many origins connections are kept at a time. Without a limit, callbacks to very many receivers would keep
/// as many connections open, and take the file descriptors that everything else needs.
const ORIGINS: usize = 64;

/// The low half of a place is a time, the high half a hash.
const LOW: u64 = u32::MAX as u64;

/// The origins that may keep connections: those that came first, until they are not called for a while.
pub(super) struct KeepAlive {
    watch: Stopwatch,
    hasher: RandomState,
    /// Half an origin's hash, and when it was last called, in milliseconds.
    places: [AtomicU64; ORIGINS],
}

impl KeepAlive {
    pub(super) fn new() -> Self {
        Self {
            watch: Stopwatch::start(),
            hasher: RandomState::new(),
            places: [const { AtomicU64::new(0) }; ORIGINS],
        }
    }

    /// Whether a connection to the URL's origin may be kept.
    pub(super) fn admits(&self, url: &Url) -> bool {
        self.admits_at(url, self.watch.elapsed())
    }

    fn admits_at(&self, url: &Url, elapsed: Duration) -> bool {
        let origin = self.hasher.hash_one((url.scheme(), url.host_str(), url.port())) & !LOW;
        // Places that nobody has had yet are free from the beginning.
        let now = millis(elapsed + 2 * IDLE_TIMEOUT) & LOW;
        let take =
            |place: &AtomicU64, seen| match place.compare_exchange(seen, origin | now, Relaxed, Relaxed) {
                Ok(_) => true,
                Err(other) => other & !LOW == origin,
            };
        let mut free = None;
        for place in &self.places {
            let seen = place.load(Relaxed);
            if seen & !LOW == origin {
                return take(place, seen);
            }
            if free.is_none() && now.wrapping_sub(seen) & LOW > millis(IDLE_TIMEOUT) {
                free = Some((place, seen));
            }
        }
        free.is_some_and(|(place, seen)| take(place, seen))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(number: usize) -> Url {
        Url::parse(&format!("https://{number}.example.com/")).unwrap()
    }

    #[test]
    fn the_origins_that_came_first_keep_connections_until_they_fall_silent() {
        let keep_alive = KeepAlive::new();
        let start = Duration::ZERO;
        assert!((0..ORIGINS).all(|number| keep_alive.admits_at(&origin(number), start)));
        assert!(!keep_alive.admits_at(&origin(ORIGINS), start));
        assert!(keep_alive.admits_at(&origin(7), start + IDLE_TIMEOUT));
        // One place of those that fell silent, and not the place of the one that did not.
        let later = start + IDLE_TIMEOUT + Duration::from_millis(1);
        assert!((0..ORIGINS - 1).all(|number| keep_alive.admits_at(&origin(ORIGINS + number), later)));
        assert!(keep_alive.admits_at(&origin(7), later));
        assert!(!keep_alive.admits_at(&origin(8), later));
    }

    #[test]
    fn paths_share_a_place_and_ports_do_not() {
        let keep_alive = KeepAlive::new();
        for number in 0..2 * ORIGINS {
            let url = Url::parse(&format!("https://example.com/{number}")).unwrap();
            assert!(keep_alive.admits_at(&url, Duration::ZERO));
        }
        let admitted = (1..=ORIGINS).filter(|port| {
            let url = Url::parse(&format!("https://example.com:{port}/")).unwrap();
            keep_alive.admits_at(&url, Duration::ZERO)
        });
        assert_eq!(admitted.count(), ORIGINS - 1);
    }
}
