//! The part of the port that is about clients, and about what operators did.
//!
//! Every request asks who it comes from, so an engine has all clients in memory, as the last commit left them.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::StoreError;
use crate::domain::api_key::KeyHash;
use crate::domain::audit::AuditEntry;
use crate::domain::client::{Client, ClientId};
use crate::domain::id::AuditId;

/// The use-cases around clients that an engine implements.
#[async_trait]
pub trait ClientStore {
    /// Keeps a client, whose revision must be the next. From then on its keys are those of this record.
    async fn put_client(&self, client: Client) -> Result<(), StoreError>;

    /// The client of this name.
    fn client(&self, name: &ClientId) -> Option<Arc<Client>>;

    /// The client that has a key with this hash, revoked or not.
    fn client_of_key(&self, key: &KeyHash) -> Option<Arc<Client>>;

    /// Up to `limit` clients behind `after`, by name.
    fn clients(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Client>>;

    /// Notes what an operator does, or replaces the note of the same id. One that has come to its end is only written.
    async fn note_action(&self, entry: AuditEntry) -> Result<(), StoreError>;

    /// Up to `limit` notes before `before`, the newest first.
    async fn actions(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// Removes up to `limit` notes of before `end`, the oldest first; how many. Written.
    async fn forget_actions(&self, end: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// How many jobs of a client wait for a worker; counted up to `most`.
    async fn waiting_of(&self, client: &ClientId, most: u64) -> Result<u64, StoreError>;
}

/// All clients, by name and by key.
#[derive(Debug, Default)]
pub(super) struct Directory {
    by_name: BTreeMap<ClientId, Arc<Client>>,
    by_key: HashMap<KeyHash, Arc<Client>>,
}

impl Directory {
    pub(super) fn put(&mut self, client: Client) {
        let client = Arc::new(client);
        if let Some(before) = self.by_name.insert(client.name.clone(), Arc::clone(&client)) {
            for key in &before.keys {
                self.by_key.remove(&key.sha256);
            }
        }
        self.by_key.extend(client.keys.iter().map(|key| (key.sha256, Arc::clone(&client))));
    }

    pub(super) fn client(&self, name: &ClientId) -> Option<Arc<Client>> {
        self.by_name.get(name).cloned()
    }

    pub(super) fn of_key(&self, key: &KeyHash) -> Option<Arc<Client>> {
        self.by_key.get(key).cloned()
    }

    pub(super) fn list(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Client>> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_name
            .range((after, Bound::Unbounded))
            .take(limit)
            .map(|(_, client)| Arc::clone(client))
            .collect()
    }
}
