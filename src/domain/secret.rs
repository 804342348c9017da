//! Signing secrets as Standard Webhooks 1.0 writes them (`whsec_` and the base64 of 24 to 64 bytes), the same and others
//! sealed, and the keys that seal.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::hex::hex;

/// The reference verifiers take secrets with and without padding, so both are read; padding is written.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key of a callback's HMAC. It has no `Display`, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Vec<u8>);

/// The text is not a signing secret. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected whsec_ followed by the base64 of 24 to 64 bytes")]
pub struct SecretError;

impl SigningSecret {
    /// What a written secret begins with.
    pub const PREFIX: &'static str = "whsec_";

    /// A secret of 256 bits, the output size of the hash it keys (RFC 2104, section 3).
    #[must_use]
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(entropy.to_vec())
    }

    /// The secret with this key.
    pub fn from_bytes(key: Vec<u8>) -> Result<Self, SecretError> {
        if (24..=64).contains(&key.len()) { Ok(Self(key)) } else { Err(SecretError) }
    }

    /// The key's bytes.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret as it is handed to a receiver.
    #[must_use]
    pub fn expose_text(&self) -> String {
        format!("{}{}", Self::PREFIX, BASE64.encode(&self.0))
    }
}

impl FromStr for SigningSecret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let encoded = text.strip_prefix(Self::PREFIX).ok_or(SecretError)?;
        Self::from_bytes(BASE64.decode(encoded).map_err(|_| SecretError)?)
    }
}

/// The text where people read it, the key's bytes elsewhere.
impl Serialize for SigningSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&self.expose_text())
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for SigningSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
        } else {
            Vec::deserialize(deserializer).map(Self)
        }
    }
}

/// What seals: 256 bits. It has no `Display`, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct EncryptionKey([u8; 32]);

/// The text is not an encryption key. It does not repeat the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected the base64 of 32 bytes")]
pub struct EncryptionKeyError;

impl EncryptionKey {
    /// The key that this entropy is.
    #[must_use]
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self(entropy)
    }

    /// The key's bytes.
    #[must_use]
    pub fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as the operator keeps it.
    #[must_use]
    pub fn expose_text(&self) -> String {
        BASE64.encode(self.0)
    }
}

impl FromStr for EncryptionKey {
    type Err = EncryptionKeyError;

    fn from_str(text: &str) -> Result<Self, EncryptionKeyError> {
        let bytes = BASE64.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(EncryptionKeyError)
    }
}

impl fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EncryptionKey(…)")
    }
}

/// What an encryption key is known by; it follows from the key and tells nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// What a store keeps of the keys of its service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Keyring {
    /// The encryption keys under which something may be sealed.
    pub sealed_by: Vec<KeyId>,
    /// The seed of the Ed25519 key that signs callbacks.
    pub signing_key: Option<SealedSecret>,
}

/// A secret as it is kept: encrypted, unless it was written before there was a key.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret(Vec<u8>);

impl SealedSecret {
    /// What is behind it is the key itself.
    const PLAIN: u8 = 0;
    /// What its text begins with.
    const PREFIX: &'static str = "sealed_";

    /// A secret that is not encrypted.
    #[must_use]
    pub fn plain(secret: &SigningSecret) -> Self {
        Self([&[Self::PLAIN], secret.expose_bytes()].concat())
    }

    /// A secret sealed in the way that the first byte names; it is not 0.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, the first of which names how it is sealed.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret, if it is not encrypted.
    #[must_use]
    pub fn as_plain(&self) -> Option<SigningSecret> {
        let (&Self::PLAIN, key) = self.0.split_first()? else { return None };
        Some(SigningSecret(key.to_vec()))
    }
}

/// The text where people read it; that of one which is not encrypted is the secret's.
impl Serialize for SealedSecret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.0.serialize(serializer);
        }
        match self.as_plain() {
            Some(secret) => secret.serialize(serializer),
            None => serializer.serialize_str(&format!("{}{}", Self::PREFIX, BASE64.encode(&self.0))),
        }
    }
}

impl<'de> Deserialize<'de> for SealedSecret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Vec::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        match text.strip_prefix(Self::PREFIX) {
            Some(sealed) => BASE64.decode(sealed).map(Self).map_err(de::Error::custom),
            None => text.parse().map(|secret| Self::plain(&secret)).map_err(de::Error::custom),
        }
    }
}

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret(…)")
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_reads_back_and_is_not_shown() {
        let secret = SigningSecret::from_entropy([7; 32]);
        assert_eq!(secret.expose_text().parse(), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "SigningSecret(…)");
    }

    #[test]
    fn padding_is_optional_and_length_is_not() {
        let padded = SigningSecret::from_entropy([1; 32]).expose_text();
        assert!(padded.ends_with('='));
        assert!(padded.trim_end_matches('=').parse::<SigningSecret>().is_ok());
        let short = format!("whsec_{}", BASE64.encode([1; 23]));
        let long = format!("whsec_{}", BASE64.encode([1; 65]));
        for text in [short.as_str(), long.as_str(), "whsec_", "whsec_!!", &padded[6..]] {
            assert_eq!(text.parse::<SigningSecret>(), Err(SecretError), "{text}");
        }
    }
}
