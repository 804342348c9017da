//! API keys: `dk_` and 256 random bits in base64url, and what is kept of them.
//!
//! A key is as hard to guess as its SHA-256 is to find by trying, so a plain hash keeps it: the slow hashes of
//! passwords make up for entropy that passwords lack. Looking a key up by its hash tells nothing of it by the time
//! that takes, since who tries keys cannot choose their hashes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hex::hash;
use super::id::ApiKeyId;

/// SHA-256 (FIPS 180-4) of a key's text.
pub type KeyHash = [u8; 32];

/// Characters at a key's end by which people tell keys apart; those before them are out of reach all the same.
const HINT: usize = 4;

/// A key. It has no `Display`, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// The text is not an API key. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected dk_ followed by the base64url of 32 bytes")]
pub struct ApiKeyError;

impl ApiKey {
    /// What every key begins with, so that scanners for leaked secrets find it.
    pub const PREFIX: &'static str = "dk_";

    /// The key that this entropy is.
    #[must_use]
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(format!("{}{}", Self::PREFIX, URL_SAFE_NO_PAD.encode(entropy)))
    }

    /// The key as its client sends it.
    #[must_use]
    pub fn expose_text(&self) -> &str {
        &self.0
    }

    /// By what it is found again.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        Sha256::digest(&self.0).into()
    }

    /// What is kept of it.
    #[must_use]
    pub fn record(&self, id: ApiKeyId, now: Timestamp) -> KeyRecord {
        let hint = self.0.get(self.0.len() - HINT..).unwrap_or_default().to_owned();
        KeyRecord { id, sha256: self.hash(), created_at: now, hint }
    }
}

impl FromStr for ApiKey {
    type Err = ApiKeyError;

    fn from_str(text: &str) -> Result<Self, ApiKeyError> {
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(ApiKeyError)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| ApiKeyError)?;
        if bytes.len() == 32 { Ok(Self(text.to_owned())) } else { Err(ApiKeyError) }
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// What is kept of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    /// Its id, by which it is revoked.
    pub id: ApiKeyId,
    /// See [`ApiKey::hash`].
    #[serde(with = "hash")]
    pub sha256: KeyHash,
    /// When it was made.
    #[serde(with = "millisecond::required")]
    pub created_at: Timestamp,
    /// Its last characters.
    pub hint: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::job::tests::at;

    #[test]
    fn a_key_reads_back_and_is_shown_nowhere() {
        let key = ApiKey::from_entropy([0xfb; 32]);
        let text = key.expose_text();
        assert_eq!(text.len(), 3 + 43);
        assert_eq!(text.parse(), Ok(key.clone()));
        let record = key.record(ApiKeyId::from_bytes([1; 16]), at(1));
        assert!(text.ends_with(&record.hint) && record.hint.len() == 4);
        let shown = format!("{key:?} {record:?} {}", serde_json::to_string(&record).unwrap());
        assert!(!shown.contains(&text[..text.len() - 4]), "{shown}");
        assert_ne!(record.sha256, ApiKey::from_entropy([0xfa; 32]).hash());
    }

    #[test]
    fn other_texts_are_no_keys_and_are_not_repeated() {
        let short = format!("dk_{}", URL_SAFE_NO_PAD.encode([1; 31]));
        for text in ["", "dk_", "dk_!", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &short] {
            let error = text.parse::<ApiKey>().unwrap_err().to_string();
            assert!(text.len() < 4 || !error.contains(text), "{error}");
        }
    }
}
