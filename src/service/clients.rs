//! Clients: who calls, and what operators do to clients and their keys.
//!
//! The functions over a store alone are for a data folder on which no service runs.

use std::sync::Arc;

use super::{Service, ServiceError};
use crate::clock::{Clock, entropy};
use crate::domain::api_key::ApiKey;
pub use crate::domain::api_key::KeyRecord;
pub use crate::domain::client::{Caller, Client, ClientId, ClientLimits, Role, TooManyKeys};
pub use crate::domain::id::ApiKeyId;
use crate::store::{Store, StoreError};

/// How many clients there may be: all of them are in memory.
const MAX_CLIENTS: usize = 10_000;
/// How often a change is tried that meets others.
const MAX_TRIES: usize = 5;

/// A key that is good for nothing, or no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the API key is unknown or was revoked")]
pub struct InvalidKey;

/// Why a client was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The name is taken, also by one that was revoked.
    #[error("there is a client of this name already; names are not given away twice")]
    Exists,
    /// It was revoked, for good.
    #[error("the client was revoked, and gets no new keys; create another one")]
    Revoked,
    /// There is no such client.
    #[error("there is no such client")]
    Unknown,
    /// The client has no such key.
    #[error("the client has no such key")]
    UnknownKey,
    /// Nobody could make another operator over the network.
    #[error("it is the last operator that can call; create another one first")]
    LastOperator,
    /// It has as many keys as it may.
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
    /// There are as many clients as there may be.
    #[error("there are {MAX_CLIENTS} clients, which is as many as there may be")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A client, and a key that was made for it: here, and nowhere else afterwards.
pub struct NewKey {
    /// The client as it is now.
    pub client: Arc<Client>,
    /// What is kept of the key.
    pub record: KeyRecord,
    /// The key.
    pub key: ApiKey,
}

/// A new client, with its first key.
pub async fn create(
    store: &dyn Store,
    clock: &Clock,
    name: ClientId,
    role: Role,
    limits: ClientLimits,
) -> Result<NewKey, ClientError> {
    if store.client(&name).is_some() {
        return Err(ClientError::Exists);
    }
    if store.clients(None, MAX_CLIENTS).len() >= MAX_CLIENTS {
        return Err(ClientError::TooMany);
    }
    let mut client = Client::new(name, role, limits, clock.now());
    let (key, record) = new_key(clock);
    client.add_key(record.clone())?;
    store.put_client(client.clone()).await.map_err(|error| match error {
        StoreError::Outdated => ClientError::Exists,
        error => error.into(),
    })?;
    tracing::info!(client = client.name.as_str(), role = role.as_str(), "a client was created");
    Ok(NewKey { client: Arc::new(client), record, key })
}

/// One more key for a client, so that it can change to it before the older one goes.
pub async fn add_key(store: &dyn Store, clock: &Clock, name: &ClientId) -> Result<NewKey, ClientError> {
    let (key, record) = new_key(clock);
    let client = change(store, name, |client| {
        if client.revoked_at.is_some() {
            return Err(ClientError::Revoked);
        }
        Ok(client.add_key(record.clone())?)
    })
    .await?;
    tracing::info!(client = name.as_str(), key = %record.id, "a client got a key");
    Ok(NewKey { client, record, key })
}

/// None of a client's keys is good any more, from this moment on.
pub async fn revoke(store: &dyn Store, clock: &Clock, name: &ClientId) -> Result<Arc<Client>, ClientError> {
    let client = change(store, name, |client| {
        client.revoked_at = client.revoked_at.or(Some(clock.now()));
        Ok(())
    })
    .await?;
    tracing::info!(client = name.as_str(), "a client was revoked");
    Ok(client)
}

/// One key is good no more, from this moment on.
pub async fn revoke_key(
    store: &dyn Store,
    name: &ClientId,
    id: ApiKeyId,
) -> Result<Arc<Client>, ClientError> {
    let remove =
        |client: &mut Client| if client.remove_key(id) { Ok(()) } else { Err(ClientError::UnknownKey) };
    let client = change(store, name, remove).await?;
    tracing::info!(client = name.as_str(), key = %id, "a key was revoked");
    Ok(client)
}

/// Whether anybody could call a service on this store.
pub fn any_can_call(store: &dyn Store) -> bool {
    store.clients(None, usize::MAX).iter().any(|client| client.can_call())
}

async fn change(
    store: &dyn Store,
    name: &ClientId,
    change: impl Fn(&mut Client) -> Result<(), ClientError>,
) -> Result<Arc<Client>, ClientError> {
    for _ in 0..MAX_TRIES {
        let mut client = store.client(name).as_deref().ok_or(ClientError::Unknown)?.clone();
        change(&mut client)?;
        client.revision += 1;
        match store.put_client(client.clone()).await {
            Err(StoreError::Outdated) => {}
            kept => return Ok(kept.map(|()| Arc::new(client))?),
        }
    }
    Err(StoreError::Outdated.into())
}

fn new_key(clock: &Clock) -> (ApiKey, KeyRecord) {
    let (key, now) = (ApiKey::from_entropy(entropy()), clock.now());
    let record = key.record(ApiKeyId::new(now, &entropy()), now);
    (key, record)
}

impl Service {
    /// Who asks with this key. Who brings none is nobody, but under `serve --dev`.
    pub fn authenticate(&self, key: Option<&str>) -> Result<Option<Caller>, InvalidKey> {
        let Some(text) = key else { return Ok(self.settings.dev.then(Caller::dev)) };
        let hash = text.parse::<ApiKey>().map_err(|_| InvalidKey)?.hash();
        let client = self.store.client_of_key(&hash).filter(|client| client.accepts(&hash));
        client.map(|client| Some(client.caller())).ok_or(InvalidKey)
    }

    /// The client of this name.
    pub fn client(&self, name: &ClientId) -> Result<Arc<Client>, ServiceError> {
        Ok(self.store.client(name).ok_or(ClientError::Unknown)?)
    }

    /// Up to `limit` clients behind `after`, by name.
    #[must_use]
    pub fn clients(&self, after: Option<&ClientId>, limit: usize) -> Vec<Arc<Client>> {
        self.store.clients(after, limit)
    }

    /// A new client, with its first key.
    pub async fn create_client(
        &self,
        name: ClientId,
        role: Role,
        limits: ClientLimits,
    ) -> Result<NewKey, ServiceError> {
        Ok(create(&*self.store, &self.clock, name, role, limits).await?)
    }

    /// One more key for a client.
    pub async fn add_key(&self, name: &ClientId) -> Result<NewKey, ServiceError> {
        Ok(add_key(&*self.store, &self.clock, name).await?)
    }

    /// None of a client's keys is good any more.
    pub async fn revoke_client(&self, name: &ClientId) -> Result<Arc<Client>, ServiceError> {
        self.check_operator_left(name, None)?;
        Ok(revoke(&*self.store, &self.clock, name).await?)
    }

    /// One key is good no more.
    pub async fn revoke_key(&self, name: &ClientId, id: ApiKeyId) -> Result<Arc<Client>, ServiceError> {
        self.check_operator_left(name, Some(id))?;
        Ok(revoke_key(&*self.store, name, id).await?)
    }

    /// Whether an operator can call when this client, or this key of it, no longer can.
    fn check_operator_left(&self, name: &ClientId, key: Option<ApiKeyId>) -> Result<(), ClientError> {
        let Some(client) = self.store.client(name) else { return Ok(()) };
        let is_operator = |client: &Client| client.role == Role::Operator && client.can_call();
        let keeps_one = key.is_some_and(|id| client.keys.iter().any(|key| key.id != id));
        // Under `serve --dev` who has no key is one.
        if self.settings.dev || !is_operator(&client) || keeps_one {
            return Ok(());
        }
        let others = self.store.clients(None, usize::MAX);
        let is_left = others.iter().any(|other| other.name != *name && is_operator(other));
        if is_left { Ok(()) } else { Err(ClientError::LastOperator) }
    }
}
