//! The bound of the queue: a slot is reserved before a body is read, so that a picture which
//! cannot be accepted is never uploaded.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::quotas::Place;
use super::{Service, ServiceError};
use crate::domain::client::ClientId;

/// Requests under way.
pub(super) struct Intake {
    uploads: Lane,
    /// Apart, so that sources that hang keep nobody from uploading.
    sources: Lane,
    keys: Arc<Mutex<HashSet<(ClientId, String)>>>,
}

/// Those of one kind, and how many jobs of it may wait.
struct Lane {
    what: &'static str,
    capacity: u64,
    max_uploads: u64,
    receiving: Arc<AtomicU64>,
}

/// The right to submit one job; given back when dropped.
pub struct Slot {
    receiving: Arc<AtomicU64>,
    /// Among its client's jobs.
    place: Option<Place>,
}

impl Slot {
    /// Holds the client's place as long: a commit that goes on without its client is counted, too.
    #[must_use]
    pub fn with_place(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }
}

/// An idempotency key whose request is being received; free again when dropped.
pub struct KeyInUse {
    keys: Arc<Mutex<HashSet<(ClientId, String)>>>,
    key: (ClientId, String),
}

impl Lane {
    fn new(what: &'static str, capacity: u64, max_uploads: u64) -> Self {
        Self { what, capacity, max_uploads, receiving: Arc::default() }
    }

    /// `waiting` counts the jobs that wait by now.
    fn reserve(&self, waiting: impl Fn() -> u64) -> Result<Slot, ServiceError> {
        // A job counts as received until after it counts as waiting, and the order of these two reads
        // is the reverse: it may be seen twice for a moment, but never not at all.
        let mut receiving = self.receiving.load(Ordering::Acquire);
        while receiving.saturating_add(waiting()) < self.capacity {
            if receiving >= self.max_uploads {
                return Err(ServiceError::TooManyUploads { limit: self.max_uploads });
            }
            match self.receiving.compare_exchange(
                receiving,
                receiving + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(Slot { receiving: Arc::clone(&self.receiving), place: None }),
                Err(now) => receiving = now,
            }
        }
        Err(ServiceError::QueueFull { what: self.what, capacity: self.capacity, retry_after: None })
    }
}

impl Intake {
    pub(super) fn new(capacity: u64, source_capacity: u64, max_uploads: u64) -> Self {
        Self {
            uploads: Lane::new("jobs", capacity, max_uploads),
            sources: Lane::new("jobs whose picture is to be fetched", source_capacity, max_uploads),
            keys: Arc::default(),
        }
    }

    fn hold_key(&self, client: &ClientId, key: &str) -> Result<KeyInUse, ServiceError> {
        let key = (client.clone(), key.to_owned());
        if self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            Ok(KeyInUse { keys: Arc::clone(&self.keys), key })
        } else {
            Err(ServiceError::IdempotencyKeyInFlight)
        }
    }
}

impl Service {
    /// Reserves room for one job that brings its picture, before its body is read.
    pub fn reserve(&self) -> Result<Slot, ServiceError> {
        self.check_intake()?;
        self.intake.uploads.reserve(|| self.store.waiting().work).map_err(|error| match error {
            ServiceError::QueueFull { what, capacity, .. } => {
                let retry_after = self.drain.wait_for(1, self.clock.now());
                ServiceError::QueueFull { what, capacity, retry_after }
            }
            error => error,
        })
    }

    /// The same for one whose picture is to be fetched.
    pub fn reserve_source(&self) -> Result<Slot, ServiceError> {
        self.check_intake()?;
        self.intake.sources.reserve(|| self.store.waiting().fetches)
    }

    fn check_intake(&self) -> Result<(), ServiceError> {
        if !self.is_ready() {
            return Err(ServiceError::Stopping);
        }
        if self.paused().intake {
            return Err(ServiceError::Paused);
        }
        Ok(self.blobs.check_room()?)
    }

    /// Notes that a request with this idempotency key is being received, so that a second one meanwhile is told.
    pub fn hold_key(&self, client: &ClientId, key: &str) -> Result<KeyInUse, ServiceError> {
        self.intake.hold_key(client, key)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.receiving.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for KeyInUse {
    fn drop(&mut self) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_waiting_jobs_share_the_capacity() {
        let intake = Lane::new("jobs", 3, 3);
        let first = intake.reserve(|| 1).unwrap();
        let _second = intake.reserve(|| 1).unwrap();
        assert!(matches!(intake.reserve(|| 1), Err(ServiceError::QueueFull { capacity: 3, .. })));
        drop(first);
        assert!(intake.reserve(|| 1).is_ok());
        assert!(intake.reserve(|| u64::MAX).is_err());
    }

    #[test]
    fn uploads_have_a_bound_of_their_own() {
        let intake = Lane::new("jobs", 3, 1);
        let held = intake.reserve(|| 0).unwrap();
        assert!(matches!(intake.reserve(|| 0), Err(ServiceError::TooManyUploads { limit: 1 })));
        assert!(matches!(intake.reserve(|| 2), Err(ServiceError::QueueFull { capacity: 3, .. })));
        drop(held);
        assert!(intake.reserve(|| 2).is_ok());
    }

    #[test]
    fn many_at_once_never_exceed_the_capacity() {
        let intake = Lane::new("jobs", 10, 100);
        let slots: Vec<_> = std::thread::scope(|scope| {
            let takers: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| (0..5).filter_map(|_| intake.reserve(|| 0).ok()).collect::<Vec<_>>()))
                .collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        assert_eq!(slots.len(), 10);
    }

    #[test]
    fn a_key_is_held_once_for_each_client() {
        let intake = Intake::new(1, 1, 1);
        let held = intake.hold_key(&ClientId::dev(), "k").unwrap();
        assert!(matches!(intake.hold_key(&ClientId::dev(), "k"), Err(ServiceError::IdempotencyKeyInFlight)));
        drop(held);
        assert!(intake.hold_key(&ClientId::dev(), "k").is_ok());
    }
}
