//! Signing secrets as Standard Webhooks 1.0 writes them: `whsec_` and the base64 of 24 to 64 bytes.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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
        let key = BASE64.decode(encoded).map_err(|_| SecretError)?;
        if !(24..=64).contains(&key.len()) {
            return Err(SecretError);
        }
        Ok(Self(key))
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
