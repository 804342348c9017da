//! Clients: on disk by name, and in memory as the last commit left them. What operators did, by time.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use super::engine::{Engine, Writes};
use super::writer::{Durability, Shared};
use super::{SledStore, keys, records};
use crate::domain::api_key::KeyHash;
use crate::domain::audit::AuditEntry;
use crate::domain::client::{Client, ClientId};
use crate::domain::id::AuditId;
use crate::domain::job::{JobStatus, Priority};
use crate::store::clients::Directory;
use crate::store::{ClientStore, StoreError};

#[async_trait]
impl ClientStore for SledStore {
    async fn put_client(&self, client: Client) -> Result<(), StoreError> {
        self.writer
            .write(Durability::Synced, move |tx| {
                let key = keys::client(&client.name);
                let stored = tx.get::<Client>(&key)?.map_or(0, |stored| stored.revision);
                if client.revision != stored + 1 {
                    return Err(StoreError::Outdated);
                }
                tx.put(key, &client)
            })
            .await
    }

    fn client(&self, name: &ClientId) -> Option<Arc<Client>> {
        read(&self.shared, |clients| clients.client(name))
    }

    fn client_of_key(&self, key: &KeyHash) -> Option<Arc<Client>> {
        read(&self.shared, |clients| clients.of_key(key))
    }

    fn clients(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Client>> {
        read(&self.shared, |clients| clients.list(after, limit))
    }

    async fn note_action(&self, entry: AuditEntry) -> Result<(), StoreError> {
        let durability = if entry.status.is_some() { Durability::Written } else { Durability::Synced };
        self.writer.write(durability, move |tx| tx.put(keys::action(entry.id), &entry)).await
    }

    async fn actions(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let mut range = keys::all(keys::ACTION);
        range.end = before.map_or(range.end, keys::action);
        self.read(move |shared| {
            let entries = shared.engine.scan(range).rev().take(limit);
            entries.map(|entry| records::decode(&entry?.1)).collect()
        })
        .await
    }

    async fn forget_actions(&self, end: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.writer
            .write(Durability::Written, move |tx| {
                let mut range = keys::all(keys::ACTION);
                // The first id of that time.
                range.end = keys::action(AuditId::new(end, &[0; 10]));
                let old = tx.keys(range, limit)?;
                let count = old.len();
                old.into_iter().for_each(|key| tx.delete(key));
                Ok(count)
            })
            .await
    }

    async fn waiting_of(&self, client: &ClientId, most: u64) -> Result<u64, StoreError> {
        // Those that are ready lie in the client's stretch of the queue, and all others in its list.
        let list = keys::job_list_prefix(client, false, Some(JobStatus::Queued));
        let queue = Priority::ALL.map(|priority| keys::job_ready_prefix(client, priority));
        let ranges: Vec<_> =
            [list].iter().chain(&queue).map(|prefix| keys::ids(prefix, None, None)).collect();
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        self.read(move |shared| {
            let entries = ranges.into_iter().flat_map(|range| shared.engine.scan(range)).take(most);
            entries.into_iter().try_fold(0, |count, entry| entry.map(|_| count + 1))
        })
        .await
    }
}

fn read<T>(shared: &Shared, read: impl FnOnce(&Directory) -> T) -> T {
    read(&shared.clients.read().unwrap_or_else(PoisonError::into_inner))
}

/// All of them, when the store is opened.
pub(super) fn load(engine: &Engine) -> Result<Directory, StoreError> {
    let mut clients = Directory::default();
    for entry in engine.scan(keys::all(keys::CLIENT)) {
        clients.put(records::decode(&entry?.1)?);
    }
    Ok(clients)
}

/// Those that a commit changes.
pub(super) fn changed(writes: &Writes) -> Vec<Client> {
    let values = writes.range(keys::all(keys::CLIENT)).filter_map(|(_, value)| value.as_deref());
    // Encoded a moment ago.
    values.filter_map(|value| records::decode(value).ok()).collect()
}

/// From now on they are known so.
pub(super) fn learn(shared: &Shared, changed: Vec<Client>) {
    if !changed.is_empty() {
        let mut clients = shared.clients.write().unwrap_or_else(PoisonError::into_inner);
        changed.into_iter().for_each(|client| clients.put(client));
    }
}
