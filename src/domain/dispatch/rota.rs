//! Turns.

use std::collections::{HashMap, VecDeque};

use crate::domain::client::ClientId;
use crate::domain::id::DestinationId;

/// One client after another, and of each one destination after another.
#[derive(Debug, Default)]
pub(super) struct Rota {
    clients: VecDeque<ClientId>,
    lanes: HashMap<ClientId, VecDeque<DestinationId>>,
}

impl Rota {
    pub(super) fn push(&mut self, client: &ClientId, id: DestinationId) {
        if let Some(lanes) = self.lanes.get_mut(client) {
            lanes.push_back(id);
        } else {
            self.lanes.insert(client.clone(), VecDeque::from([id]));
            self.clients.push_back(client.clone());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, client: &ClientId, id: DestinationId) -> bool {
        let Some(lanes) = self.lanes.get_mut(client) else { return false };
        let Some(at) = lanes.iter().position(|one| *one == id) else { return false };
        lanes.remove(at);
        if lanes.is_empty() {
            self.lanes.remove(client);
            self.clients.retain(|one| one != client);
        }
        true
    }

    pub(super) fn pop(&mut self) -> Option<DestinationId> {
        let client = self.clients.pop_front()?;
        let lanes = self.lanes.get_mut(&client)?;
        let id = lanes.pop_front();
        if lanes.is_empty() {
            self.lanes.remove(&client);
        } else {
            self.clients.push_back(client);
        }
        id
    }
}
