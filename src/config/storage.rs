//! Where everything lasts, and what seals it.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, require};
use crate::domain::secret::{EncryptionKey, EncryptionKeyError};

/// Section `[storage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Storage {
    pub data_dir: PathBuf,
    pub cache_mib: u64,
    pub reserve_mib: u64,
    pub encryption_key: Hidden,
    pub previous_encryption_keys: Vec<Hidden>,
}

/// Text that is not shown.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

impl Storage {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        // An empty variable is none.
        let is_key = |key: &Hidden| key.0.is_empty() || key.0.parse::<EncryptionKey>().is_ok();
        require(is_key(&self.encryption_key), "storage.encryption_key", || EncryptionKeyError.to_string())?;
        require(self.previous_encryption_keys.iter().all(is_key), "storage.previous_encryption_keys", || {
            format!("{EncryptionKeyError}, each")
        })
    }

    /// Where the store's files are.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Where the pictures are.
    #[must_use]
    pub fn blobs_dir(&self) -> PathBuf {
        self.data_dir.join("blobs")
    }

    /// The key that seals secrets, if it is configured.
    #[must_use]
    pub fn encryption_key(&self) -> Option<EncryptionKey> {
        self.encryption_key.0.parse().ok()
    }

    /// Those that sealed before it.
    #[must_use]
    pub fn previous_encryption_keys(&self) -> Vec<EncryptionKey> {
        self.previous_encryption_keys.iter().filter_map(|key| key.0.parse().ok()).collect()
    }

    /// Where an encryption key that was made here is kept.
    #[must_use]
    pub fn encryption_key_file(&self) -> PathBuf {
        self.data_dir.join("encryption-key")
    }

    /// Where a signing secret that was made here is kept.
    #[must_use]
    pub fn signing_secret_file(&self) -> PathBuf {
        self.data_dir.join("signing-secret")
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Sources};

    const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

    fn load(name: &str, value: &str) -> Result<Config, crate::config::ConfigError> {
        let environment = [(name.to_owned(), value.to_owned())].into();
        Config::load(Sources { environment, ..Sources::default() })
    }

    #[test]
    fn keys_come_by_the_environment_and_do_not_show() {
        let config = load("DARKROOM_STORAGE__ENCRYPTION_KEY", KEY).unwrap();
        assert_eq!(config.storage.encryption_key().unwrap().expose_text(), KEY);
        assert!(!format!("{config:?}").contains("AQEB"));
        let previous = load("DARKROOM_STORAGE__PREVIOUS_ENCRYPTION_KEYS", &format!("{KEY},{KEY}")).unwrap();
        assert_eq!(previous.storage.previous_encryption_keys().len(), 2);
        assert!(!format!("{previous:?}").contains("AQEB"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        for name in ["ENCRYPTION_KEY", "PREVIOUS_ENCRYPTION_KEYS"] {
            for wrong in ["hunter2", "aHVudGVyMg==", &KEY[4..]] {
                let text = load(&format!("DARKROOM_STORAGE__{name}"), wrong).unwrap_err().to_string();
                assert!(text.contains(&format!("storage.{}", name.to_lowercase())), "{text}");
                assert!(!text.contains(wrong), "{text}");
            }
        }
    }
}
