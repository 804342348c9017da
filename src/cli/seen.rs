//! How often each event came in.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest as _, Sha256};

/// Of so many ids the latest are remembered.
const MAX_IDS: usize = 10_000;

/// Counts ids. Each is kept as its digest: an id may be as long as its sender likes.
#[derive(Default)]
pub(super) struct Seen {
    times: HashMap<[u8; 32], u64>,
    /// The ids in the order in which they first came.
    order: VecDeque<[u8; 32]>,
}

impl Seen {
    /// How often this id came in, this time included.
    pub(super) fn count(&mut self, id: &str) -> u64 {
        let key = Sha256::digest(id).into();
        let times = self.times.entry(key).or_default();
        *times += 1;
        let times = *times;
        if times == 1 {
            self.order.push_back(key);
            if self.order.len() > MAX_IDS
                && let Some(oldest) = self.order.pop_front()
            {
                self.times.remove(&oldest);
            }
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_is_counted_and_the_oldest_is_forgotten() {
        let mut seen = Seen::default();
        assert_eq!([seen.count("a"), seen.count("a"), seen.count("b")], [1, 2, 1]);
        for n in 0..MAX_IDS - 1 {
            seen.count(&n.to_string());
        }
        assert_eq!(seen.times.len(), MAX_IDS);
        assert_eq!([seen.count("b"), seen.count("a")], [2, 1]);
        assert_eq!((seen.times.len(), seen.order.len()), (MAX_IDS, MAX_IDS));
    }
}
