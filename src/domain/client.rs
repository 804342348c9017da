//! Who calls: clients, what they may do, and by which keys they are known.

use std::str::FromStr;

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::api_key::{KeyHash, KeyRecord};
use super::id::ApiKeyId;

/// The name of a client; every job belongs to one, and idempotency keys are its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

/// The name is not one that a client can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client's name has 1 to 64 characters of a-z, 0-9, - and _")]
pub struct InvalidClientId;

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(name: &str) -> Result<Self, InvalidClientId> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(valid) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidClientId)
        }
    }
}

impl ClientId {
    /// The one client of `serve --dev`, which asks for no API key.
    #[must_use]
    pub fn dev() -> Self {
        Self("dev".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Works on what is its own.
    Client,
    /// Sees and acts on everything, and runs the service.
    Operator,
}

impl Role {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Client, Self::Operator];

    /// The name that users see.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Operator => "operator",
        }
    }

    /// The role of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// Who asks for something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose jobs new ones become, and whose idempotency keys and signing secrets are meant.
    pub client: ClientId,
    /// What it may do.
    pub role: Role,
}

impl Caller {
    /// Who asks without a key under `serve --dev`.
    #[must_use]
    pub fn dev() -> Self {
        Self { client: ClientId::dev(), role: Role::Operator }
    }

    /// Whether what belongs to `owner` is there for this caller.
    #[must_use]
    pub fn sees(&self, owner: &ClientId) -> bool {
        self.role == Role::Operator || self.client == *owner
    }

    /// The one client whose things are there for this caller; `None`: those of all.
    #[must_use]
    pub fn only(&self) -> Option<&ClientId> {
        match self.role {
            Role::Operator => None,
            Role::Client => Some(&self.client),
        }
    }
}

/// What one client may use. `None` is what the configuration says, 0 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientLimits {
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Jobs that wait for a worker at once.
    pub waiting_jobs: Option<u32>,
    /// Bytes of pictures in a minute.
    pub upload_bytes_per_minute: Option<u64>,
}

impl ClientLimits {
    /// The highest number of requests or jobs.
    pub const MOST: u32 = 1_000_000_000;
    /// The highest number of bytes.
    pub const MOST_BYTES: u64 = 1 << 50;
}

/// A client, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its name, by which it is found.
    pub name: ClientId,
    /// What it may do.
    pub role: Role,
    /// Grows with every change that is kept.
    pub revision: u64,
    /// When it was created.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// When it was revoked, for good: what it has done stays its own, so its name is not given away again.
    #[serde(with = "millisecond::optional")]
    pub revoked_at: Option<Timestamp>,
    /// What it may use.
    pub limits: ClientLimits,
    /// Its keys, the oldest first; one that is revoked is gone.
    pub keys: Vec<KeyRecord>,
}

/// As many keys exist as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client has {} keys, which is as many as it may have; revoke one first", Client::MAX_KEYS)]
pub struct TooManyKeys;

impl Client {
    /// How many keys a client may have: two for a rotation, and some to tell its programs apart.
    pub const MAX_KEYS: usize = 10;

    /// A new client, without a key.
    #[must_use]
    pub fn new(name: ClientId, role: Role, limits: ClientLimits, now: Timestamp) -> Self {
        Self { name, role, revision: 1, created_at: now, revoked_at: None, limits, keys: Vec::new() }
    }

    /// Whether a request with its key `key` is its own.
    #[must_use]
    pub fn accepts(&self, key: &KeyHash) -> bool {
        self.revoked_at.is_none() && self.keys.iter().any(|known| known.sha256 == *key)
    }

    /// Whether any key of its is good.
    #[must_use]
    pub fn can_call(&self) -> bool {
        self.revoked_at.is_none() && !self.keys.is_empty()
    }

    /// Who asks with one of its keys.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller { client: self.name.clone(), role: self.role }
    }

    /// One more key is good.
    pub fn add_key(&mut self, key: KeyRecord) -> Result<(), TooManyKeys> {
        if self.keys.len() >= Self::MAX_KEYS {
            return Err(TooManyKeys);
        }
        self.keys.push(key);
        Ok(())
    }

    /// That key is good no more; `false` if there is none.
    pub fn remove_key(&mut self, id: ApiKeyId) -> bool {
        let before = self.keys.len();
        self.keys.retain(|key| key.id != id);
        self.keys.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::api_key::ApiKey;
    use crate::domain::job::tests::at;

    #[test]
    fn a_client_sees_its_own_and_an_operator_everything() {
        let (a, b): (ClientId, ClientId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let client = Caller { client: a.clone(), role: Role::Client };
        assert!(client.sees(&a) && !client.sees(&b));
        assert_eq!(client.only(), Some(&a));
        let operator = Caller { role: Role::Operator, ..client };
        assert!(operator.sees(&a) && operator.sees(&b));
        assert_eq!(operator.only(), None);
    }

    #[test]
    fn a_key_is_good_until_it_or_its_client_is_revoked() {
        let mut client = Client::new("a".parse().unwrap(), Role::Client, ClientLimits::default(), at(1));
        assert!(!client.can_call());
        let key = |n| ApiKey::from_entropy([n; 32]);
        for n in 0..10 {
            client.add_key(key(n).record(ApiKeyId::from_bytes([n; 16]), at(1))).unwrap();
        }
        assert_eq!(client.add_key(key(10).record(ApiKeyId::from_bytes([10; 16]), at(1))), Err(TooManyKeys));
        assert!(client.accepts(&key(1).hash()) && !client.accepts(&key(10).hash()));
        assert!(client.remove_key(ApiKeyId::from_bytes([1; 16])));
        assert!(!client.remove_key(ApiKeyId::from_bytes([1; 16])));
        assert!(!client.accepts(&key(1).hash()) && client.accepts(&key(2).hash()));
        client.revoked_at = Some(at(2));
        assert!(!client.accepts(&key(2).hash()) && !client.can_call());
    }

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!("dev".parse(), Ok(ClientId::dev()));
        for bad in ["", "Dev", "a b", "a/b", &"a".repeat(65)] {
            assert_eq!(bad.parse::<ClientId>(), Err(InvalidClientId), "{bad}");
        }
    }
}
