//! Secrets at rest: sealed with AES-256-GCM (NIST SP 800-38D), under keys that are in no store.
//!
//! A sealed secret is the scheme's number, the key's id, a random nonce, and ciphertext with its tag. What it is and
//! whose goes into the tag, so that it opens in no other place. A key with random nonces is good for 2^32 secrets.

use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::domain::client::ClientId;
use crate::domain::id::{JobId, SecretId};
use crate::domain::secret::{EncryptionKey, KeyId, SealedSecret, SigningSecret};

const AES_GCM: u8 = 1;

/// What a sealed secret is, and whose.
#[derive(Debug, Clone, Copy)]
pub enum Context<'a> {
    /// Signs the callbacks of a job.
    OfJob(JobId),
    /// Where a job's picture is fetched from.
    Source(JobId),
    /// The value of a header of a job's callbacks.
    Header(JobId, &'a str),
    /// Signs the callbacks of a client.
    OfClient(&'a ClientId, SecretId),
    /// The seed of the key that signs everyone's.
    SigningKey,
}

impl Context<'_> {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::OfJob(job) => format!("{job}/secret"),
            Self::Source(job) => format!("{job}/source"),
            Self::Header(job, name) => format!("{job}/header/{name}"),
            Self::OfClient(client, id) => format!("client/{}/{id}", client.as_str()),
            Self::SigningKey => "signing-key".to_owned(),
        }
        .into_bytes()
    }
}

/// Why a secret does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It was sealed with a key that is not at hand.
    #[error("a secret was sealed with the encryption key {0}, which is not configured")]
    UnknownKey(KeyId),
    /// It is not what was sealed, or not there.
    #[error("a sealed secret is damaged, or was sealed elsewhere")]
    Damaged,
}

/// The keys. Clones share them.
#[derive(Clone)]
pub struct Vault(Arc<[Key]>);

struct Key {
    id: KeyId,
    cipher: RandomizedNonceKey,
    digest: [u8; 32],
    links: [u8; 32],
}

impl Key {
    /// Each use has a key of its own, by HMAC as a pseudo-random function (NIST SP 800-108).
    fn new(key: &EncryptionKey) -> Self {
        let [id, cipher, digest, links] = [&b"id"[..], b"seal", b"digest", b"links"]
            .map(|usage| mac(key.expose_bytes(), &[b"darkroom/", usage]));
        let [a, b, c, d, e, f, g, h, ..] = id;
        #[expect(clippy::expect_used, reason = "it refuses keys of another length only")]
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &cipher).expect("a key of 32 bytes");
        Self { id: KeyId([a, b, c, d, e, f, g, h]), cipher, digest, links }
    }
}

impl Vault {
    /// The first key seals; all of them open.
    #[must_use]
    pub fn new(current: &EncryptionKey, previous: &[EncryptionKey]) -> Self {
        Self([current].into_iter().chain(previous).map(Key::new).collect())
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn current(&self) -> KeyId {
        self.sealing().id
    }

    /// What a key is known by.
    #[must_use]
    pub fn id_of(key: &EncryptionKey) -> KeyId {
        Key::new(key).id
    }

    /// The key that a secret was sealed with.
    #[must_use]
    pub fn sealed_by(sealed: &SealedSecret) -> Option<KeyId> {
        let (&AES_GCM, rest) = sealed.as_bytes().split_first()? else { return None };
        rest.first_chunk().copied().map(KeyId)
    }

    /// Seals a secret for its place.
    #[must_use]
    pub fn seal(&self, secret: &[u8], context: Context<'_>) -> SealedSecret {
        let key = self.sealing();
        let mut sealed = secret.to_vec();
        #[expect(clippy::expect_used, reason = "it fails without randomness, or beyond 64 GiB")]
        let nonce = key
            .cipher
            .seal_in_place_append_tag(Aad::from(context.bytes()), &mut sealed)
            .expect("the operating system gives random bytes");
        SealedSecret::from_bytes([&[AES_GCM][..], &key.id.0, nonce.as_ref(), &sealed].concat())
    }

    /// Opens a secret in its place. One that an older version left unsealed is open already.
    pub fn open(&self, sealed: &SealedSecret, context: Context<'_>) -> Result<Vec<u8>, VaultError> {
        if let Some(plain) = sealed.as_plain() {
            return Ok(plain.expose_bytes().to_vec());
        }
        let id = Self::sealed_by(sealed).ok_or(VaultError::Damaged)?;
        let key = self.0.iter().find(|key| key.id == id).ok_or(VaultError::UnknownKey(id))?;
        let rest = sealed.as_bytes().get(1 + id.0.len()..).and_then(<[u8]>::split_first_chunk::<NONCE_LEN>);
        let (nonce, ciphertext) = rest.ok_or(VaultError::Damaged)?;
        let mut secret = ciphertext.to_vec();
        let opened = key.cipher.open_in_place(
            Nonce::assume_unique_for_key(*nonce),
            Aad::from(context.bytes()),
            &mut secret,
        );
        let length = opened.map_err(|_| VaultError::Damaged)?.len();
        secret.truncate(length);
        Ok(secret)
    }

    /// Opens one that signs.
    pub fn open_secret(
        &self,
        sealed: &SealedSecret,
        context: Context<'_>,
    ) -> Result<SigningSecret, VaultError> {
        SigningSecret::from_bytes(self.open(sealed, context)?).map_err(|_| VaultError::Damaged)
    }

    /// A hash that only who has the key can make: one of guessable text tells nobody else the text.
    #[must_use]
    pub fn digest(&self, text: &[u8]) -> [u8; 32] {
        mac(&self.sealing().digest, &[text])
    }

    /// What shows later that a link was made here (HMAC-SHA256, RFC 2104).
    #[must_use]
    pub fn sign_link(&self, link: &str) -> [u8; 32] {
        mac(&self.sealing().links, &[link.as_bytes()])
    }

    /// Whether it does: by any of the keys, so that links outlive a rotation.
    #[must_use]
    pub fn is_signed(&self, link: &str, signature: &[u8]) -> bool {
        let by = |key: &Key| mac(&key.links, &[link.as_bytes()]).ct_eq(signature).into();
        self.0.iter().any(by)
    }

    fn sealing(&self) -> &Key {
        // `new` puts it there.
        &self.0[0]
    }
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> EncryptionKey {
        EncryptionKey::from_entropy([n; 32])
    }

    fn job(n: u8) -> JobId {
        JobId::from_bytes([n; 16])
    }

    #[test]
    fn what_is_sealed_opens_in_its_place_and_nowhere_else() {
        let vault = Vault::new(&key(1), &[]);
        let sealed = vault.seal(b"Bearer token", Context::Header(job(1), "authorization"));
        assert_eq!(vault.open(&sealed, Context::Header(job(1), "authorization")).unwrap(), b"Bearer token");
        for elsewhere in [
            Context::Header(job(2), "authorization"),
            Context::Header(job(1), "x-key"),
            Context::OfJob(job(1)),
            Context::SigningKey,
        ] {
            assert_eq!(vault.open(&sealed, elsewhere), Err(VaultError::Damaged), "{elsewhere:?}");
        }
        assert!(!sealed.as_bytes().windows(6).any(|bytes| bytes == b"Bearer"));
        assert_ne!(vault.seal(b"Bearer token", Context::SigningKey), sealed);
    }

    #[test]
    fn what_was_altered_or_cut_off_does_not_open() {
        let vault = Vault::new(&key(1), &[]);
        let bytes = vault.seal(&[7; 32], Context::SigningKey).as_bytes().to_vec();
        for place in [0, 1, 9, 21, bytes.len() - 1] {
            let mut altered = bytes.clone();
            altered[place] ^= 4;
            assert!(vault.open(&SealedSecret::from_bytes(altered), Context::SigningKey).is_err(), "{place}");
        }
        for length in 0..bytes.len() {
            let cut = SealedSecret::from_bytes(bytes[..length].to_vec());
            assert!(vault.open(&cut, Context::SigningKey).is_err(), "{length}");
        }
    }

    #[test]
    fn older_keys_open_and_the_newest_seals() {
        let sealed = Vault::new(&key(1), &[]).seal(&[7; 32], Context::SigningKey);
        let both = Vault::new(&key(2), &[key(1)]);
        assert_eq!(both.open(&sealed, Context::SigningKey).unwrap(), [7; 32]);
        let again = both.seal(&[7; 32], Context::SigningKey);
        assert_eq!(Vault::sealed_by(&again), Some(both.current()));
        let other = Vault::new(&key(2), &[]);
        assert_eq!(
            other.open(&sealed, Context::SigningKey),
            Err(VaultError::UnknownKey(Vault::id_of(&key(1))))
        );
    }

    #[test]
    fn a_links_signature_outlives_a_rotation_and_fits_nothing_else() {
        let signature = Vault::new(&key(1), &[]).sign_link("a");
        let both = Vault::new(&key(2), &[key(1)]);
        assert!(both.is_signed("a", &signature) && !both.is_signed("b", &signature));
        assert!(!both.is_signed("a", &signature[..31]) && !both.is_signed("a", &[]));
        assert!(!Vault::new(&key(2), &[]).is_signed("a", &signature));
        assert_ne!(both.digest(b"a"), both.sign_link("a"));
    }

    #[test]
    fn what_was_never_sealed_is_open() {
        let secret = SigningSecret::from_entropy([3; 32]);
        let plain = SealedSecret::plain(&secret);
        assert_eq!(Vault::new(&key(1), &[]).open_secret(&plain, Context::OfJob(job(1))), Ok(secret));
        assert_eq!(Vault::sealed_by(&plain), None);
    }
}
