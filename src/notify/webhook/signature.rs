//! Signatures as Standard Webhooks 1.0 defines them: HMAC-SHA256 over `{id}.{timestamp}.{body}`, or Ed25519.
//!
//! The id stays the same over all attempts, the timestamp is the attempt's own, so each is signed anew.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use jiff::Timestamp;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use super::ed25519::{PrivateKey, PublicKey};
use crate::domain::secret::SigningSecret;

/// Names the event; the receiver recognises repetitions by it.
pub const HEADER_ID: &str = "webhook-id";
/// When this attempt was signed, in Unix seconds.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// One signature per active secret and key, separated by single spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";
/// Which attempt this is, from 1. It is not signed.
pub const HEADER_ATTEMPT: &str = "webhook-attempt";

/// How far a timestamp may lie from the receiver's clock, either way; the reference verifiers' value.
pub const TOLERANCE_SECONDS: i64 = 300;

const SCHEME: &str = "v1";
const ASYMMETRIC_SCHEME: &str = "v1a";

/// Why a callback does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header that is needed is not there, or is not text.
    #[error("the header {0} is missing or is not text")]
    MissingHeader(&'static str),
    /// The timestamp is not a number.
    #[error("the header {HEADER_TIMESTAMP} is not a whole number of Unix seconds")]
    BadTimestamp,
    /// Signed too long ago: a repetition by a third party, or a receiver whose clock is ahead.
    #[error(
        "signed {age_seconds} s ago, at most {TOLERANCE_SECONDS} are accepted: \
         an old request was repeated, or the clock here is ahead"
    )]
    TooOld {
        /// How old the signature is by the receiver's clock.
        age_seconds: i64,
    },
    /// Signed in the future: one of the two clocks is wrong.
    #[error(
        "signed {ahead_seconds} s in the future, at most {TOLERANCE_SECONDS} are accepted: \
         the clock here is behind, or the sender's is ahead"
    )]
    TooNew {
        /// How far the signature lies ahead of the receiver's clock.
        ahead_seconds: i64,
    },
    /// No signature of the known scheme fits.
    #[error(
        "no {SCHEME} signature matches: another secret was used, \
         or the body is not byte for byte the one that was signed"
    )]
    NoMatch,
    /// No signature of the asymmetric scheme fits.
    #[error(
        "no {ASYMMETRIC_SCHEME} signature matches: it was signed with another key or with none, \
         or the body is not byte for byte the one that was signed"
    )]
    NoMatchForKey,
}

/// The signature of one body under one secret, `v1,` and base64.
#[must_use]
pub fn sign(secret: &SigningSecret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut signature = String::new();
    let head = format!("{id}.{timestamp}.");
    append(&mut signature, SCHEME, mac(secret.expose_bytes(), &[head.as_bytes(), body]));
    signature
}

/// The HMAC-SHA256 of the parts, one after another.
pub(super) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of every length (RFC 2104, section 2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// The value of [`HEADER_SIGNATURE`]: one signature per secret, so that during a rotation both the old
/// and the new one verify. Exactly one space between them: some receivers split at each.
#[must_use]
pub fn header(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    header_with(None, secrets, id, timestamp, body)
}

/// The same, and after the secrets' signatures that of a private key, which anyone can verify. It comes last, for
/// receivers that know secrets alone.
#[must_use]
pub fn header_with(
    key: Option<&PrivateKey>,
    secrets: &[SigningSecret],
    id: &str,
    timestamp: i64,
    body: &[u8],
) -> String {
    let prefix = format!("{id}.{timestamp}.");
    let mut signatures = String::new();
    for secret in secrets {
        append(&mut signatures, SCHEME, mac(secret.expose_bytes(), &[prefix.as_bytes(), body]));
    }
    if let Some(key) = key {
        append(&mut signatures, ASYMMETRIC_SCHEME, key.sign(&[prefix.as_bytes(), body].concat()));
    }
    signatures
}

fn append(signatures: &mut String, scheme: &str, signature: impl AsRef<[u8]>) {
    if !signatures.is_empty() {
        signatures.push(' ');
    }
    signatures.push_str(scheme);
    signatures.push(',');
    BASE64.encode_string(signature, signatures);
}

/// Checks a callback as a receiver does that shares a secret.
///
/// # Errors
///
/// Says why the callback cannot be trusted.
pub fn verify(
    secret: &SigningSecret,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), VerifyError> {
    let signed = Signed::read(headers, now)?;
    let expected = sign(secret, signed.id, signed.timestamp, body);
    // Every entry is compared in full; entries of other schemes differ in their first bytes.
    let matched = signed
        .signatures
        .split(' ')
        .map(|candidate| candidate.as_bytes().ct_eq(expected.as_bytes()))
        .fold(Choice::from(0), |any, one| any | one);
    if bool::from(matched) { Ok(()) } else { Err(VerifyError::NoMatch) }
}

/// Checks a callback as a receiver does that has the public key.
///
/// # Errors
///
/// Says why the callback cannot be trusted.
pub fn verify_with_key(
    key: &PublicKey,
    headers: &HeaderMap,
    body: &[u8],
    now: Timestamp,
) -> Result<(), VerifyError> {
    let signed = Signed::read(headers, now)?;
    let message = [format!("{}.{}.", signed.id, signed.timestamp).as_bytes(), body].concat();
    let matched = signed
        .signatures
        .split(' ')
        .filter_map(|candidate| candidate.strip_prefix(ASYMMETRIC_SCHEME)?.strip_prefix(','))
        .filter_map(|encoded| BASE64.decode(encoded).ok())
        .any(|signature| key.verify(&message, &signature));
    if matched { Ok(()) } else { Err(VerifyError::NoMatchForKey) }
}

/// What a callback's headers say of its signatures.
struct Signed<'h> {
    id: &'h str,
    timestamp: i64,
    signatures: &'h str,
}

impl<'h> Signed<'h> {
    fn read(headers: &'h HeaderMap, now: Timestamp) -> Result<Self, VerifyError> {
        let id = text(headers, HEADER_ID)?;
        let written = text(headers, HEADER_TIMESTAMP)?;
        let timestamp: i64 = written.parse().map_err(|_| VerifyError::BadTimestamp)?;
        // The text is what is signed, so there is one way only to write a number.
        if timestamp.to_string() != written {
            return Err(VerifyError::BadTimestamp);
        }
        let signatures = text(headers, HEADER_SIGNATURE)?;
        check_age(timestamp, now)?;
        Ok(Self { id, timestamp, signatures })
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, VerifyError> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(VerifyError::MissingHeader(name))
}

pub(super) fn check_age(timestamp: i64, now: Timestamp) -> Result<(), VerifyError> {
    let age_seconds = now.as_second().saturating_sub(timestamp);
    if age_seconds > TOLERANCE_SECONDS {
        return Err(VerifyError::TooOld { age_seconds });
    }
    if age_seconds < -TOLERANCE_SECONDS {
        return Err(VerifyError::TooNew { ahead_seconds: age_seconds.saturating_neg() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;

    fn secret() -> SigningSecret {
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn signed(signature: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_ID, HeaderValue::from_static(ID));
        headers.insert(HEADER_TIMESTAMP, HeaderValue::from(TIMESTAMP));
        headers.insert(HEADER_SIGNATURE, HeaderValue::from_str(signature).unwrap());
        headers
    }

    fn verdict(signature: &str) -> Result<(), VerifyError> {
        verify(&secret(), &signed(signature), BODY, at(TIMESTAMP))
    }

    #[test]
    fn the_vectors_of_the_reference_libraries() {
        assert_eq!(sign(&secret(), ID, TIMESTAMP, BODY), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(
            sign(
                &"whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD".parse().unwrap(),
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                br#"{"email":"test@example.com","username":"test_user"}"#,
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }

    #[test]
    fn the_vector_of_the_asymmetric_scheme() {
        let key: PrivateKey =
            "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
                .parse()
                .unwrap();
        let expected =
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";
        assert_eq!(header_with(Some(&key), &[], ID, TIMESTAMP, BODY), expected);
    }

    #[test]
    fn who_has_the_public_key_needs_no_secret_and_the_other_way_round() {
        let key = PrivateKey::from_entropy([5; 32]);
        let value = header_with(Some(&key), &[secret(), secret()], ID, TIMESTAMP, BODY);
        let schemes: Vec<_> = value.split(' ').map(|token| token.split_once(',').unwrap().0).collect();
        assert_eq!(schemes, ["v1", "v1", "v1a"]);
        assert_eq!(verdict(&value), Ok(()));
        let check = |key: &PrivateKey, value: &str, body: &[u8]| {
            verify_with_key(&key.public(), &signed(value), body, at(TIMESTAMP))
        };
        assert_eq!(check(&key, &value, BODY), Ok(()));
        assert_eq!(check(&key, &value, b"{}"), Err(VerifyError::NoMatchForKey));
        assert_eq!(check(&PrivateKey::from_entropy([6; 32]), &value, BODY), Err(VerifyError::NoMatchForKey));
        for other in ["v1", "v1a", "v1b", ""] {
            let value = value.replace("v1a,", other);
            assert_eq!(check(&key, &value, BODY), Err(VerifyError::NoMatchForKey), "{other}");
        }
        assert_eq!(
            verify_with_key(&key.public(), &signed(&value), BODY, at(TIMESTAMP + 301)),
            Err(VerifyError::TooOld { age_seconds: 301 })
        );
    }

    #[test]
    fn during_a_rotation_either_secret_verifies() {
        let next = SigningSecret::from_entropy([9; 32]);
        let value = header(&[secret(), next.clone()], ID, TIMESTAMP, BODY);
        assert_eq!(value.split(' ').count(), 2);
        for key in [secret(), next] {
            assert_eq!(verify(&key, &signed(&value), BODY, at(TIMESTAMP)), Ok(()));
        }
        let stranger = SigningSecret::from_entropy([8; 32]);
        assert_eq!(verify(&stranger, &signed(&value), BODY, at(TIMESTAMP)), Err(VerifyError::NoMatch));
    }

    #[test]
    fn what_was_tampered_with_does_not_verify() {
        let signature = sign(&secret(), ID, TIMESTAMP, BODY);
        let headers = signed(&signature);
        assert_eq!(verify(&secret(), &headers, b"{}", at(TIMESTAMP)), Err(VerifyError::NoMatch));
        for (name, value) in [(HEADER_ID, "msg_other"), (HEADER_TIMESTAMP, "1614265331")] {
            let mut tampered = headers.clone();
            tampered.insert(name, HeaderValue::from_static(value));
            assert_eq!(
                verify(&secret(), &tampered, BODY, at(TIMESTAMP)),
                Err(VerifyError::NoMatch),
                "{name}"
            );
        }
    }

    #[test]
    fn the_tolerance_holds_to_the_second_on_both_sides() {
        let headers = signed(&sign(&secret(), ID, TIMESTAMP, BODY));
        let check = |now| verify(&secret(), &headers, BODY, at(now));
        assert_eq!(check(TIMESTAMP + 300), Ok(()));
        assert_eq!(check(TIMESTAMP - 300), Ok(()));
        assert_eq!(check(TIMESTAMP + 301), Err(VerifyError::TooOld { age_seconds: 301 }));
        assert_eq!(check(TIMESTAMP - 301), Err(VerifyError::TooNew { ahead_seconds: 301 }));
    }

    #[test]
    fn partial_and_malformed_signatures_are_refused() {
        let signature = sign(&secret(), ID, TIMESTAMP, BODY);
        for end in 0..signature.len() {
            assert_eq!(verdict(&signature[..end]), Err(VerifyError::NoMatch), "{}", &signature[..end]);
        }
        let bare = signature.trim_start_matches("v1,");
        for text in [bare, &format!("{signature}="), &format!("v1,{signature}"), &format!(",{bare}")] {
            assert_eq!(verdict(text), Err(VerifyError::NoMatch), "{text}");
        }
    }

    #[test]
    fn other_schemes_are_ignored_and_never_accepted() {
        let signature = sign(&secret(), ID, TIMESTAMP, BODY);
        assert_eq!(verdict(&format!("v1a,AAAA {signature} v2,BBBB")), Ok(()));
        assert_eq!(verdict(&signature.replace("v1,", "v2,")), Err(VerifyError::NoMatch));
        assert_eq!(verdict(&signature.replace("v1,", "v1a,")), Err(VerifyError::NoMatch));
    }

    #[test]
    fn missing_and_unreadable_headers_are_named() {
        let headers = signed(&sign(&secret(), ID, TIMESTAMP, BODY));
        for name in [HEADER_ID, HEADER_TIMESTAMP, HEADER_SIGNATURE] {
            let mut without = headers.clone();
            without.remove(name);
            let verdict = verify(&secret(), &without, BODY, at(TIMESTAMP));
            assert_eq!(verdict, Err(VerifyError::MissingHeader(name)));
        }
        for value in ["", "soon", "1614265330.5", "+1614265330", "01614265330", "99999999999999999999"] {
            let mut odd = headers.clone();
            odd.insert(HEADER_TIMESTAMP, HeaderValue::from_static(value));
            assert_eq!(
                verify(&secret(), &odd, BODY, at(TIMESTAMP)),
                Err(VerifyError::BadTimestamp),
                "{value}"
            );
        }
        let mut extreme = headers;
        extreme.insert(HEADER_TIMESTAMP, HeaderValue::from(i64::MIN));
        assert!(matches!(
            verify(&secret(), &extreme, BODY, at(TIMESTAMP)),
            Err(VerifyError::TooOld { age_seconds: i64::MAX })
        ));
    }
}
