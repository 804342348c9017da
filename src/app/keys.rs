//! What signs and what seals: found, made at the first start, and checked against what the store holds.

use std::collections::BTreeSet;

use tokio::runtime::Handle;

use super::StartError;
use crate::clock::{Clock, entropy};
use crate::config::{Config, Storage};
use crate::domain::secret::{EncryptionKey, KeyId, Keyring};
use crate::notify::webhook::ed25519::PrivateKey;
use crate::service::keyfile;
use crate::service::secrets::{self, Keys, SecretsError, Signing};
use crate::service::vault::{Context, Vault};
use crate::store::{Store, StoreError};

/// Opens or makes all of them. It blocks, on a thread of the runtime that may.
pub(super) fn open(config: &Config, store: &dyn Store, clock: &Clock) -> Result<Keys, StartError> {
    let runtime = Handle::current();
    let mut keyring = runtime.block_on(store.keyring())?;
    let vault = vault(&config.storage, store, &mut keyring)?;
    let ed25519 = ed25519(config.callbacks.ed25519, &vault, &mut keyring)?;
    if runtime.block_on(store.keyring())? != keyring {
        // Before anything is sealed with a key, it is known to be needed.
        runtime.block_on(store.set_keyring(keyring))?;
    }
    let file = config.storage.signing_secret_file();
    let signing = match config.callbacks.signing_secret.parse() {
        Ok(secret) => Signing::Configured(secret),
        Err(_) => {
            let prepared = runtime.block_on(secrets::prepare(store, &vault, &file, clock));
            prepared.map_err(|error| match error {
                SecretsError::Io(source) => StartError::Data { path: file.clone(), source },
                SecretsError::NotASecret => StartError::SigningSecret(file.clone()),
                SecretsError::Store(error) => StartError::Unusable(error),
                error => StartError::Secrets(error),
            })?;
            Signing::Kept { file }
        }
    };
    Ok(Keys { vault, signing, ed25519 })
}

/// The configured key, or that of the file; without either one is made, unless something is sealed already.
fn vault(storage: &Storage, store: &dyn Store, keyring: &mut Keyring) -> Result<Vault, StartError> {
    let file = storage.encryption_key_file();
    let data = |source| StartError::Data { path: file.clone(), source };
    let on_file = keyfile::read(&file).map_err(data)?;
    let on_file = on_file.map(|text| text.parse::<EncryptionKey>()).transpose();
    let on_file = on_file.map_err(|_| StartError::EncryptionKey(file.clone()))?;
    let mut keys: Vec<_> = storage.encryption_key().into_iter().chain(on_file).collect();
    let has_current = !keys.is_empty();
    keys.extend(storage.previous_encryption_keys());

    let known: Vec<_> = keys.iter().map(Vault::id_of).collect();
    if keyring.sealed_by.iter().any(|id| !known.contains(id)) {
        let needed = Handle::current().block_on(sealed_by(store))?;
        if let Some(id) = needed.iter().find(|id| !known.contains(id)) {
            return Err(StartError::SealedElsewhere { id: *id, file });
        }
        keyring.sealed_by.retain(|id| needed.contains(id));
    }
    if !has_current {
        let made = EncryptionKey::from_entropy(entropy());
        keyfile::write(&file, &made.expose_text()).map_err(data)?;
        keys.insert(0, made);
    }
    let (current, previous) = keys.split_first().ok_or(StartError::EncryptionKey(file))?;
    let vault = Vault::new(current, previous);
    if !keyring.sealed_by.contains(&vault.current()) {
        keyring.sealed_by.push(vault.current());
    }
    Ok(vault)
}

/// The keys that something in the store is sealed with. It reads all of the store.
async fn sealed_by(store: &dyn Store) -> Result<BTreeSet<KeyId>, StoreError> {
    let mut ids = BTreeSet::new();
    let mut export = store.export().await?;
    while let Some(records) = export.next().await? {
        ids.extend(records.iter().flat_map(|record| record.sealed()).filter_map(Vault::sealed_by));
    }
    Ok(ids)
}

/// The key pair that was made when it was first wanted. It is kept when it is not wanted any more.
fn ed25519(wanted: bool, vault: &Vault, keyring: &mut Keyring) -> Result<Option<PrivateKey>, StartError> {
    let damaged = |error| StartError::Secrets(SecretsError::Vault(error));
    let seed = match &keyring.signing_key {
        Some(sealed) => vault.open(sealed, Context::SigningKey).map_err(damaged)?,
        None if wanted => entropy::<32>().to_vec(),
        None => return Ok(None),
    };
    if keyring.signing_key.as_ref().and_then(Vault::sealed_by) != Some(vault.current()) {
        keyring.signing_key = Some(vault.seal(&seed, Context::SigningKey));
    }
    let seed = seed.try_into().map_err(|_| damaged(crate::service::vault::VaultError::Damaged))?;
    Ok(wanted.then(|| PrivateKey::from_entropy(seed)))
}
