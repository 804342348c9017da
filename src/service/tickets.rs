//! One-time tickets: what a page in a browser shows instead of an API key, where it can send no header.
//!
//! A ticket ends up in URLs, and with those in histories and logs. So it is good for one request, for half a minute, and for
//! looking alone. Tickets are in memory, as hashes: who restarts the service asks for another.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::quotas::{Exceeded, RETRY_TICKETS};
use super::{Service, ServiceError};
use crate::clock::entropy;
use crate::domain::client::{Caller, ClientId};

/// How long a ticket is good.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// How many of one client's may be good at once, and of all.
const MAX_OF_CLIENT: usize = 100;
const MAX_OF_ALL: usize = 10_000;
const PREFIX: &str = "tkt_";

/// A ticket: here, and nowhere else afterwards.
pub struct Ticket {
    /// What is shown.
    pub text: String,
    /// When it is good no more.
    pub expires_at: Timestamp,
}

struct Kept {
    caller: Caller,
    expires_at: Timestamp,
}

/// Those that are good.
#[derive(Default)]
pub(super) struct Tickets(Mutex<HashMap<[u8; 32], Kept>>);

impl Tickets {
    fn kept(&self) -> MutexGuard<'_, HashMap<[u8; 32], Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, hash: [u8; 32], new: Kept, now: Timestamp) -> bool {
        let mut kept = self.kept();
        let of = |client: &ClientId, kept: &HashMap<_, Kept>| {
            kept.values().filter(|one| one.caller.client == *client).count()
        };
        let is_full = |kept: &HashMap<_, Kept>| {
            kept.len() >= MAX_OF_ALL || of(&new.caller.client, kept) >= MAX_OF_CLIENT
        };
        if is_full(&kept) {
            kept.retain(|_, one| one.expires_at > now);
        }
        let has_room = !is_full(&kept);
        if has_room {
            kept.insert(hash, new);
        }
        has_room
    }

    fn take(&self, hash: &[u8; 32], now: Timestamp) -> Option<Caller> {
        self.kept().remove(hash).filter(|kept| kept.expires_at > now).map(|kept| kept.caller)
    }
}

fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

impl Service {
    /// A ticket for this caller.
    pub fn ticket(&self, caller: &Caller) -> Result<Ticket, ServiceError> {
        let text = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(entropy::<32>()));
        let now = self.clock.now();
        let expires_at = now.checked_add(LIFETIME).unwrap_or(Timestamp::MAX);
        if self.tickets.add(hash(&text), Kept { caller: caller.clone(), expires_at }, now) {
            return Ok(Ticket { text, expires_at });
        }
        let detail = format!("{MAX_OF_CLIENT} tickets of a client may be good at once");
        Err(ServiceError::QuotaExceeded(Exceeded::new("tickets", RETRY_TICKETS, detail)))
    }

    /// Who shows this ticket, which is good no more from now on; `None` for one that is good for nothing. A client that
    /// was revoked since is nobody, and one whose role was changed has the role of now.
    #[must_use]
    pub fn redeem(&self, ticket: &str) -> Option<Caller> {
        let caller = self.tickets.take(&hash(ticket), self.clock.now())?;
        match self.store.client(&caller.client) {
            Some(client) => client.can_call().then(|| client.caller()),
            // Who asks without a key is in no store.
            None => self.settings.dev.then_some(caller),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::at;

    fn kept(name: &str, expires_at: Timestamp) -> Kept {
        Kept { caller: Caller { client: name.parse().unwrap(), ..Caller::dev() }, expires_at }
    }

    #[test]
    fn a_ticket_is_good_once_and_not_for_long() {
        let tickets = Tickets::default();
        assert!(
            tickets.add([1; 32], kept("a", at(30)), at(0)) && tickets.add([2; 32], kept("a", at(30)), at(0))
        );
        assert_eq!(tickets.take(&[1; 32], at(29)).unwrap().client.as_str(), "a");
        assert_eq!(tickets.take(&[1; 32], at(29)), None);
        assert_eq!(tickets.take(&[2; 32], at(30)), None);
    }

    #[test]
    fn their_number_is_bounded_for_each_client() {
        let tickets = Tickets::default();
        let number = |n: usize| <[u8; 32]>::try_from(Sha256::digest(n.to_be_bytes()).as_slice()).unwrap();
        assert!((0..MAX_OF_CLIENT).all(|n| tickets.add(number(n), kept("a", at(30)), at(0))));
        assert!(!tickets.add(number(1000), kept("a", at(30)), at(0)));
        assert!(tickets.add(number(1001), kept("b", at(30)), at(0)));
        assert!(tickets.add(number(1000), kept("a", at(60)), at(30)), "what has expired leaves its place");
    }
}
