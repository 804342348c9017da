//! Ed25519 keys as Standard Webhooks 1.0 writes them: `whsk_` and `whpk_`, and their signatures, `v1a`.
//!
//! Who verifies needs no secret, so one key serves all receivers and can be published.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// The length of a seed, and of a public key.
const KEY_LENGTH: usize = 32;

/// The text is not a key of this kind. It does not repeat the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a private key, or one whose halves do not fit.
    #[error("expected whsk_ followed by the base64 of an Ed25519 seed and its public key, 64 bytes together")]
    Private,
    /// Not a public key.
    #[error("expected whpk_ followed by the base64 of an Ed25519 public key, 32 bytes")]
    Public,
}

/// Signs callbacks. It has no `Display`, and `Debug` does not show it. Clones share the key.
#[derive(Clone)]
pub struct PrivateKey {
    seed: [u8; KEY_LENGTH],
    pair: Arc<Ed25519KeyPair>,
}

impl PrivateKey {
    /// What a written private key begins with.
    pub const PREFIX: &'static str = "whsk_";

    /// The key that this entropy is the seed of.
    #[must_use]
    pub fn from_entropy(seed: [u8; KEY_LENGTH]) -> Self {
        #[expect(clippy::expect_used, reason = "each 32 bytes are a seed (RFC 8032, section 5.1.5)")]
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).expect("a seed of 32 bytes");
        Self { seed, pair: Arc::new(pair) }
    }

    /// The key that receivers verify with.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut public = [0; KEY_LENGTH];
        public.copy_from_slice(self.pair.public_key().as_ref());
        PublicKey(public)
    }

    /// The signature of a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    /// The key as the operator keeps it.
    #[must_use]
    pub fn expose_text(&self) -> String {
        format!("{}{}", Self::PREFIX, BASE64.encode([self.seed, self.public().0].concat()))
    }
}

impl FromStr for PrivateKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text, Self::PREFIX).ok_or(KeyError::Private)?;
        let (seed, public) = bytes.split_first_chunk().ok_or(KeyError::Private)?;
        let key = Self::from_entropy(*seed);
        if key.public().0 == public { Ok(key) } else { Err(KeyError::Private) }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

/// Verifies what its [`PrivateKey`] signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_LENGTH]);

impl PublicKey {
    /// What a written public key begins with.
    pub const PREFIX: &'static str = "whpk_";

    /// The key's bytes, as a JSON Web Key has them in `x`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; KEY_LENGTH] {
        &self.0
    }

    /// Whether this is the message's signature under this key.
    #[must_use]
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, signature).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = decode(text, Self::PREFIX).and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or(KeyError::Public)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, BASE64.encode(self.0))
    }
}

fn decode(text: &str, prefix: &str) -> Option<Vec<u8>> {
    BASE64.decode(text.strip_prefix(prefix)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRIVATE: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";

    #[test]
    fn keys_read_back_and_the_private_one_is_not_shown() {
        let key: PrivateKey = PRIVATE.parse().unwrap();
        assert_eq!(key.expose_text(), PRIVATE);
        assert_eq!(key.public().to_string(), PUBLIC);
        assert_eq!(PUBLIC.parse(), Ok(key.public()));
        assert_eq!(format!("{key:?}"), "PrivateKey(…)");
        let made = PrivateKey::from_entropy([7; 32]);
        assert_eq!(made.expose_text().parse::<PrivateKey>().unwrap().public(), made.public());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let mismatched = format!("whsk_{}", BASE64.encode([1; 64]));
        let short = format!("whsk_{}", BASE64.encode([1; 32]));
        let long = format!("{}AAAA", PRIVATE.trim_end_matches('='));
        for text in ["", "whsk_", "whsk_!", &mismatched, &short, &long, PUBLIC, &PRIVATE[5..]] {
            assert_eq!(text.parse::<PrivateKey>().unwrap_err(), KeyError::Private, "{text}");
        }
        for text in ["", "whpk_", "whpk_AAAA", PRIVATE, &PUBLIC[5..]] {
            assert_eq!(text.parse::<PublicKey>(), Err(KeyError::Public), "{text}");
        }
    }

    #[test]
    fn a_signature_fits_its_message_and_its_key_alone() {
        let key = PrivateKey::from_entropy([1; 32]);
        let signature = key.sign(b"message");
        assert!(key.public().verify(b"message", &signature));
        assert!(!key.public().verify(b"massage", &signature));
        assert!(!PrivateKey::from_entropy([2; 32]).public().verify(b"message", &signature));
        assert!(!key.public().verify(b"message", &signature[..63]));
        assert!(!key.public().verify(b"message", b""));
    }
}
