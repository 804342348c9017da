//! Signatures as Standard Webhooks 1.0 defines them: HMAC-SHA256 over `{id}.{timestamp}.{body}`.
//!
//! The id stays the same over all attempts, the timestamp is the attempt's own, so each is signed anew.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use jiff::Timestamp;
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq as _};

use crate::domain::secret::SigningSecret;

/// Names the event; the receiver recognises repetitions by it.
pub const HEADER_ID: &str = "webhook-id";
/// When this attempt was signed, in Unix seconds.
pub const HEADER_TIMESTAMP: &str = "webhook-timestamp";
/// One signature per active secret, separated by single spaces.
pub const HEADER_SIGNATURE: &str = "webhook-signature";
/// Which attempt this is, from 1. It is not signed.
pub const HEADER_ATTEMPT: &str = "webhook-attempt";

/// How far a timestamp may lie from the receiver's clock, either way; the reference verifiers' value.
pub const TOLERANCE_SECONDS: i64 = 300;

const SCHEME: &str = "v1";

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
}

/// The signature of one body under one secret, `v1,` and base64.
#[must_use]
pub fn sign(secret: &SigningSecret, id: &str, timestamp: i64, body: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "HMAC is defined for keys of every length (RFC 2104, section 2)")]
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_bytes()).expect("a key of any length");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("{SCHEME},{}", BASE64.encode(mac.finalize().into_bytes()))
}

/// The value of [`HEADER_SIGNATURE`]: one signature per secret, so that during a rotation both the old
/// and the new one verify. Exactly one space between them: some receivers split at each.
#[must_use]
pub fn header(secrets: &[SigningSecret], id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<_> = secrets.iter().map(|secret| sign(secret, id, timestamp, body)).collect();
    signatures.join(" ")
}

/// Checks a callback as a receiver does.
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
    let id = text(headers, HEADER_ID)?;
    let timestamp = text(headers, HEADER_TIMESTAMP)?.parse().map_err(|_| VerifyError::BadTimestamp)?;
    let signatures = text(headers, HEADER_SIGNATURE)?;
    check_age(timestamp, now)?;

    let expected = sign(secret, id, timestamp, body);
    // Every entry is compared in full; entries of other schemes differ in their first bytes.
    let matched = signatures
        .split(' ')
        .map(|candidate| candidate.as_bytes().ct_eq(expected.as_bytes()))
        .fold(Choice::from(0), |any, one| any | one);
    if bool::from(matched) { Ok(()) } else { Err(VerifyError::NoMatch) }
}

fn text<'h>(headers: &'h HeaderMap, name: &'static str) -> Result<&'h str, VerifyError> {
    headers.get(name).and_then(|value| value.to_str().ok()).ok_or(VerifyError::MissingHeader(name))
}

fn check_age(timestamp: i64, now: Timestamp) -> Result<(), VerifyError> {
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
        for value in ["", "soon", "1614265330.5", "99999999999999999999"] {
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
