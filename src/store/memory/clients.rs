//! Clients, looked for among all of them.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::MemoryStore;
use crate::domain::api_key::KeyHash;
use crate::domain::audit::AuditEntry;
use crate::domain::client::{Client, ClientId};
use crate::domain::id::AuditId;
use crate::domain::job::{Job, JobStatus};
use crate::store::{ClientStore, StoreError};

#[async_trait]
impl ClientStore for MemoryStore {
    async fn put_client(&self, client: Client) -> Result<(), StoreError> {
        self.step(|books| {
            let stored = books.clients.get(&client.name).map_or(0, |stored| stored.revision);
            if client.revision != stored + 1 {
                return Err(StoreError::Outdated);
            }
            books.clients.insert(client.name.clone(), client);
            Ok(())
        })
    }

    fn client(&self, name: &ClientId) -> Option<Arc<Client>> {
        self.lock().clients.get(name).cloned().map(Arc::new)
    }

    fn client_of_key(&self, key: &KeyHash) -> Option<Arc<Client>> {
        let books = self.lock();
        let has_it = |client: &&Client| client.keys.iter().any(|known| known.sha256 == *key);
        books.clients.values().find(has_it).cloned().map(Arc::new)
    }

    fn clients(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Client>> {
        let books = self.lock();
        let behind = books.clients.values().filter(|client| after.is_none_or(|after| client.name > *after));
        behind.take(limit).cloned().map(Arc::new).collect()
    }

    async fn note_action(&self, entry: AuditEntry) -> Result<(), StoreError> {
        self.step(|books| {
            books.actions.insert(entry.id, entry);
            Ok(())
        })
    }

    async fn actions(&self, before: Option<AuditId>, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let older = |entry: &&AuditEntry| before.is_none_or(|before| entry.id < before);
        self.read(|books| books.actions.values().rev().filter(older).take(limit).cloned().collect())
    }

    async fn forget_actions(&self, end: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.step(|books| {
            let old = books.actions.keys().filter(|id| id.created_at() < end).take(limit);
            let old: Vec<_> = old.copied().collect();
            old.iter().for_each(|id| drop(books.actions.remove(id)));
            Ok(old.len())
        })
    }

    async fn waiting_of(&self, client: &ClientId, most: u64) -> Result<u64, StoreError> {
        let waits = |job: &&Job| job.client == *client && job.status == JobStatus::Queued;
        self.read(|books| (books.jobs.values().filter(waits).count() as u64).min(most))
    }
}
