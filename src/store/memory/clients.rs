//! Clients, looked for among all of them.

use std::sync::Arc;

use async_trait::async_trait;

use super::MemoryStore;
use crate::domain::api_key::KeyHash;
use crate::domain::client::{Client, ClientId};
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

    async fn waiting_of(&self, client: &ClientId, most: u64) -> Result<u64, StoreError> {
        let waits = |job: &&Job| job.client == *client && job.status == JobStatus::Queued;
        self.read(|books| (books.jobs.values().filter(waits).count() as u64).min(most))
    }
}
