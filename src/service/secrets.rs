//! The secrets that sign a client's callbacks: kept sealed in the store, open in memory, and rotated.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::vault::{Context, Vault, VaultError};
use super::{Service, ServiceError, keyfile};
use crate::clock::{Clock, entropy};
use crate::domain::client::ClientId;
use crate::domain::hex::hex;
use crate::domain::id::SecretId;
use crate::domain::rotation::{ClientSecrets, TooManySecrets};
use crate::domain::secret::SigningSecret;
use crate::notify::webhook::ed25519::{PrivateKey, PublicKey};
use crate::store::{Store, StoreError};

/// How long the secret before it signs along with one that was put into the file by hand.
const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// What signs, and what seals.
pub struct Keys {
    /// Seals.
    pub vault: Vault,
    /// Signs callbacks whose job brought no secret.
    pub signing: Signing,
    /// Signs all of them besides.
    pub ed25519: Option<PrivateKey>,
}

/// Where the clients' secrets come from.
pub enum Signing {
    /// The configuration has the one.
    Configured(SigningSecret),
    /// The store has them; this file has the newest, for the one client that asks without an API key.
    Kept {
        /// Which.
        file: PathBuf,
    },
}

/// A secret of a client, open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSecret {
    /// Its id and when it was made; one of the configuration has neither.
    pub made: Option<(SecretId, Timestamp)>,
    /// When it stops signing.
    pub expires_at: Option<Timestamp>,
    /// The secret.
    pub secret: SigningSecret,
}

impl OpenSecret {
    /// The beginning of the hash of its text: tells secrets apart, and tells nobody what they are.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex(&Sha256::digest(self.secret.expose_text())[..4])
    }

    fn is_active(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| end > now)
    }
}

/// What the service knows of its clients' secrets.
pub(super) struct Secrets {
    signing: Signing,
    /// As the store has them, so that an attempt reads nothing.
    known: RwLock<HashMap<ClientId, Arc<[OpenSecret]>>>,
    changing: Mutex<()>,
}

impl Secrets {
    pub(super) fn new(signing: Signing) -> Self {
        Self { signing, known: RwLock::default(), changing: Mutex::default() }
    }

    fn known(&self, client: &ClientId) -> Option<Arc<[OpenSecret]>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(client).cloned()
    }

    fn learn(&self, client: &ClientId, secrets: Vec<OpenSecret>) -> Arc<[OpenSecret]> {
        let secrets: Arc<[OpenSecret]> = secrets.into();
        self.known
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client.clone(), Arc::clone(&secrets));
        secrets
    }
}

/// Why the secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// They do not open.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The file failed.
    #[error("a file could not be read or written")]
    Io(#[from] io::Error),
    /// The file holds something else.
    #[error("it does not hold a signing secret (whsec_…)")]
    NotASecret,
    /// There would be too many.
    #[error(transparent)]
    TooMany(#[from] TooManySecrets),
}

/// Makes store and file agree when a service starts: the file's secret is the newest one, and one that was put there
/// by hand becomes it. All are sealed with the newest key. It blocks on the file.
pub async fn prepare(
    store: &dyn Store,
    vault: &Vault,
    file: &std::path::Path,
    clock: &Clock,
) -> Result<(), SecretsError> {
    let (client, now) = (ClientId::dev(), clock.now());
    let stored = store.secrets(&client).await?;
    let mut record = stored.unwrap_or_else(|| ClientSecrets::none(client.clone()));
    let mut secrets = open(vault, &record)?;
    let on_file = keyfile::read(file)?.map(|text| text.parse().map_err(|_| SecretsError::NotASecret));
    let on_file: Option<SigningSecret> = on_file.transpose()?;
    let is_new = |secret: &SigningSecret| secrets.iter().all(|open| open.secret != *secret);
    let new = on_file.clone().filter(is_new).or_else(|| secrets.is_empty().then(random));
    if let Some(new) = &new {
        if on_file.is_some() && record.revision > 0 {
            tracing::warn!(
                "the file {} holds another signing secret, which signs from now on",
                file.display()
            );
        }
        add(&mut record, vault, new, after(now, OVERLAP), now)?;
        store.set_secrets(record.clone()).await?;
        secrets = open(vault, &record)?;
    } else {
        reseal(store, vault, record).await?;
    }
    for other in store.clients(None, usize::MAX).iter().filter(|other| other.name != client) {
        if let Some(record) = store.secrets(&other.name).await? {
            reseal(store, vault, record).await?;
        }
    }
    match secrets.first() {
        Some(newest) if on_file.as_ref() != Some(&newest.secret) => {
            Ok(keyfile::write(file, &newest.secret.expose_text())?)
        }
        _ => Ok(()),
    }
}

/// Seals with the newest key what an older one has sealed, so that the older one can go.
async fn reseal(store: &dyn Store, vault: &Vault, mut record: ClientSecrets) -> Result<(), SecretsError> {
    if record.secrets.iter().all(|one| Vault::sealed_by(&one.sealed) == Some(vault.current())) {
        return Ok(());
    }
    let secrets = open(vault, &record)?;
    for (one, open) in record.secrets.iter_mut().zip(&secrets) {
        one.sealed = vault.seal(open.secret.expose_bytes(), Context::OfClient(&record.client, one.id));
    }
    record.revision += 1;
    Ok(store.set_secrets(record).await?)
}

impl Service {
    /// What signs a client's callbacks now, newest first.
    pub async fn signing_secrets(&self, client: &ClientId) -> Result<Vec<OpenSecret>, ServiceError> {
        if let Signing::Configured(secret) = &self.secrets.signing {
            return Ok(vec![OpenSecret { made: None, expires_at: None, secret: secret.clone() }]);
        }
        let now = self.clock.now();
        let all = match self.secrets.known(client) {
            Some(known) => known,
            None => self.read_secrets(client).await?,
        };
        Ok(all.iter().filter(|secret| secret.is_active(now)).cloned().collect())
    }

    /// Whether they can be rotated.
    #[must_use]
    pub fn keeps_secrets(&self) -> bool {
        matches!(self.secrets.signing, Signing::Kept { .. })
    }

    /// A new secret signs the client's callbacks from now on, and the one before it for as long as `overlap`.
    pub async fn rotate_secret(
        &self,
        client: &ClientId,
        overlap: Duration,
    ) -> Result<OpenSecret, ServiceError> {
        let Signing::Kept { file } = &self.secrets.signing else {
            return Err(ServiceError::SecretConfigured);
        };
        self.read_secrets(client).await?;
        let _alone = self.secrets.changing.lock().await;
        let now = self.clock.now();
        let stored = self.store.secrets(client).await?;
        let mut record = stored.unwrap_or_else(|| ClientSecrets::none(client.clone()));
        let secret = random();
        add(&mut record, &self.vault, &secret, after(now, overlap), now)?;
        self.store.set_secrets(record.clone()).await?;
        let secrets = self.secrets.learn(client, open(&self.vault, &record)?);
        if *client == ClientId::dev() {
            let (file, text) = (file.clone(), secret.expose_text());
            let written = tokio::task::spawn_blocking(move || keyfile::write(&file, &text)).await;
            if let Err(error) = written.map_err(io::Error::other).and_then(|written| written) {
                // It signs all the same; the next start writes the file.
                tracing::error!(%error, "the new signing secret is not in its file");
            }
        }
        tracing::info!(client = client.as_str(), active = secrets.len(), "the signing secret was rotated");
        secrets.first().cloned().ok_or_else(|| StoreError::NotFound.into())
    }

    /// The key that signs all callbacks besides, as receivers need it.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        self.ed25519.as_ref().map(PrivateKey::public)
    }

    /// The key that signs all callbacks besides.
    pub(super) fn signing_key(&self) -> Option<&PrivateKey> {
        self.ed25519.as_ref()
    }

    /// A client has a secret from its first callback on.
    async fn read_secrets(&self, client: &ClientId) -> Result<Arc<[OpenSecret]>, ServiceError> {
        let _alone = self.secrets.changing.lock().await;
        if let Some(known) = self.secrets.known(client) {
            return Ok(known);
        }
        let record = match self.store.secrets(client).await? {
            Some(record) => record,
            None => {
                let (now, mut record) = (self.clock.now(), ClientSecrets::none(client.clone()));
                add(&mut record, &self.vault, &random(), now, now)?;
                self.store.set_secrets(record.clone()).await?;
                record
            }
        };
        Ok(self.secrets.learn(client, open(&self.vault, &record)?))
    }
}

/// 256 bits of the operating system's.
fn random() -> SigningSecret {
    SigningSecret::from_entropy(entropy())
}

fn after(now: Timestamp, overlap: Duration) -> Timestamp {
    now.checked_add(overlap).unwrap_or(Timestamp::MAX)
}

fn add(
    record: &mut ClientSecrets,
    vault: &Vault,
    secret: &SigningSecret,
    until: Timestamp,
    now: Timestamp,
) -> Result<(), TooManySecrets> {
    let id = SecretId::new(now, &entropy());
    let sealed = vault.seal(secret.expose_bytes(), Context::OfClient(&record.client, id));
    record.rotate(id, sealed, until, now)
}

fn open(vault: &Vault, record: &ClientSecrets) -> Result<Vec<OpenSecret>, VaultError> {
    let opened = record.secrets.iter().map(|one| {
        let secret = vault.open_secret(&one.sealed, Context::OfClient(&record.client, one.id))?;
        Ok(OpenSecret { made: Some((one.id, one.created_at)), expires_at: one.expires_at, secret })
    });
    opened.collect()
}
