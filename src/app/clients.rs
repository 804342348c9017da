//! Clients of a data folder on which no service runs: how the first one comes to be.

use std::path::PathBuf;

use tokio::runtime::Handle;

use super::files::open_store;
use super::{StartError, backup};
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::api_key::ApiKey;
use crate::domain::client::{Client, ClientId, ClientLimits, Role};
use crate::domain::id::ApiKeyId;
use crate::service::clients::{self, ClientError, NewKey};
use crate::store::sled::OpenError;
use crate::store::{ClientStore as _, Store as _, StoreError};

/// What to do with the clients of a data folder.
#[derive(Debug, Clone)]
pub enum Change {
    /// Nothing: they are listed.
    List,
    /// A new one, with a key.
    Create(ClientId, Role, ClientLimits),
    /// One more key.
    AddKey(ClientId),
    /// None of its keys is good any more.
    Revoke(ClientId),
    /// One key is good no more.
    RevokeKey(ClientId, ApiKeyId),
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// All clients, or the one that was changed.
    pub clients: Vec<Client>,
    /// The key that was made: here, and nowhere else afterwards.
    pub key: Option<(ApiKeyId, ApiKey)>,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no store, and so no client.
    #[error("there is no store in {}; name another folder with --data-dir", .0.display())]
    NoStore(PathBuf),
    /// A running service has the folder.
    #[error(
        "{} is in use by a running service: ask that one, with its --url and an operator's key in DARKROOM_TOKEN \
         (under --dev without a key)",
        .0.display()
    )]
    InUse(PathBuf),
    /// The folder does not open.
    #[error(transparent)]
    Open(#[from] StartError),
    /// It was refused.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Error {
    /// Whether a client or a key is named that does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Client(ClientError::Unknown | ClientError::UnknownKey))
    }
}

/// Opens the store of the configuration's data folder, does this, and closes it. Only a new client makes a folder.
pub async fn change(config: Config, clock: Clock, change: Change) -> Result<Outcome, Error> {
    let work = move || {
        let folder = config.storage.data_dir.clone();
        if !matches!(change, Change::Create(..)) && !config.storage.store_dir().exists() {
            return Err(Error::NoStore(folder));
        }
        backup::refuse_unfinished(&config.storage)?;
        let (store, _) =
            open_store(&config, backup::source(&config), &clock).map_err(|error| match error {
                StartError::Store(OpenError::Locked(_)) => Error::InUse(folder),
                error => error.into(),
            })?;
        let runtime = Handle::current();
        let done = runtime.block_on(async {
            let one = |client: &Client, key| Outcome { clients: vec![client.clone()], key };
            let made = |NewKey { client, record, key }| one(&client, Some((record.id, key)));
            Ok(match change {
                Change::List => {
                    let all = store.clients(None, usize::MAX);
                    Outcome { clients: all.iter().map(|client| (**client).clone()).collect(), key: None }
                }
                Change::Create(name, role, limits) => {
                    made(clients::create(&store, &clock, name, role, limits).await?)
                }
                Change::AddKey(name) => made(clients::add_key(&store, &clock, &name).await?),
                Change::Revoke(name) => one(&*clients::revoke(&store, &clock, &name).await?, None),
                Change::RevokeKey(name, id) => one(&*clients::revoke_key(&store, &name, id).await?, None),
            })
        });
        runtime.block_on(store.close());
        done
    };
    let failed = |error: tokio::task::JoinError| ClientError::from(StoreError::Engine(error.into())).into();
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(failed(error)))
}
