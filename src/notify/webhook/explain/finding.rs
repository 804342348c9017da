//! What can be found out about a callback.

use std::fmt;

use serde::Serialize;

use super::BodyChange;
use crate::notify::webhook::signature::{HEADER_TIMESTAMP, TOLERANCE_SECONDS};

/// What was found out about a callback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether a receiver that follows the standard takes it.
    pub verified: bool,
    /// What there is to say, about one that verifies as well.
    pub findings: Vec<Finding>,
}

/// One thing that is as it should not be, or what a signature was found to be of. Secrets and signatures are
/// counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Finding {
    /// There is nothing to compare with.
    NoSecret,
    /// Not `whsec_` and the base64 of 24 to 64 bytes.
    MalformedSecret {
        /// Which.
        secret: usize,
    },
    /// A header is not there under its name.
    MissingHeader {
        /// Its name.
        header: &'static str,
        /// The name of one that seems to be meant.
        found_as: Option<String>,
    },
    /// A header came several times.
    RepeatedHeader {
        /// Its name.
        header: &'static str,
    },
    /// A header is not visible ASCII.
    NotText {
        /// Its name.
        header: &'static str,
    },
    /// What was signed is in another header.
    OtherHeader {
        /// The one that a receiver reads.
        header: &'static str,
        /// The one that fits.
        instead: String,
    },
    /// The timestamp is no whole number.
    TimestampNotSeconds,
    /// The timestamp is a thousand times too large.
    TimestampInMilliseconds,
    /// Signed too long ago.
    TooOld {
        /// How long.
        age_seconds: i64,
    },
    /// Signed in the future.
    TooNew {
        /// How far.
        ahead_seconds: i64,
    },
    /// There is no body.
    EmptyBody,
    /// Two spaces follow each other in the header, or one begins or ends it.
    EmptySignature {
        /// Which.
        position: usize,
    },
    /// An ed25519 signature, which no secret verifies.
    Asymmetric {
        /// Which.
        position: usize,
    },
    /// A signature is neither base64 nor hexadecimal.
    Unreadable {
        /// Which.
        position: usize,
    },
    /// A signature has no `v1,` before it.
    NoScheme {
        /// Which.
        position: usize,
    },
    /// A signature has something else before it.
    OtherScheme {
        /// Which.
        position: usize,
        /// What.
        prefix: String,
    },
    /// A signature is not written in base64, or not all of it.
    Miswritten {
        /// Which.
        position: usize,
        /// How it is written.
        form: Form,
    },
    /// A signature fits. What else was found says under which condition.
    Matches {
        /// Which signature.
        signature: usize,
        /// Which secret.
        secret: usize,
    },
    /// The secret was read as another key.
    KeyMisread {
        /// Which.
        secret: usize,
        /// How.
        reading: KeyReading,
    },
    /// Something else was signed.
    OtherContent {
        /// What.
        content: Content,
    },
    /// The body is not the one that was signed.
    BodyChanged {
        /// How it was changed.
        change: BodyChange,
    },
    /// The signature is that of another attempt.
    OtherAttempt {
        /// How far after this timestamp that was signed.
        off_seconds: i64,
    },
    /// Nothing that was tried fits.
    NothingFits,
}

/// How a signature is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// In hexadecimal.
    Hex,
    /// In base64 with `-` and `_`.
    UrlSafe,
    /// In base64 without `=`.
    Unpadded,
    /// Its end is missing.
    Truncated,
}

/// How a secret was read that was read wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyReading {
    /// As it should be, but it was given here without `whsec_`.
    PrefixMissing,
    /// As base64 with `-` and `_`.
    UrlSafe,
    /// All of its text was the key.
    WholeText,
    /// The text after `whsec_` was the key.
    TextAfterPrefix,
    /// Its text with the line end of its file was the key.
    LineEndIncluded,
}

/// What was signed instead of id, timestamp and body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The body alone, as GitHub does.
    BodyAlone,
    /// Timestamp and body, as Stripe does.
    TimestampAndBody,
    /// Id and body.
    IdAndBody,
    /// Timestamp before id.
    Swapped,
    /// All three, with no dots between them.
    NoDots,
    /// The timestamp in seconds, while the header has milliseconds.
    Seconds,
    /// The id that the body has.
    IdOfBody,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSecret => f.write_str("no secret was given, so only the headers were looked at"),
            Self::MalformedSecret { secret } => {
                write!(f, "secret {secret} is not whsec_ followed by the base64 of 24 to 64 bytes")
            }
            Self::MissingHeader { header, found_as: None } => write!(f, "the header {header} is missing"),
            Self::MissingHeader { header, found_as: Some(name) } => {
                write!(f, "the header {header} is missing; it came as {name}, which not every verifier reads")
            }
            Self::RepeatedHeader { header } => {
                write!(f, "the header {header} came several times; verifiers read one of them, or join them")
            }
            Self::NotText { header } => write!(f, "the header {header} is not visible ASCII"),
            Self::OtherHeader { header, instead } => {
                write!(f, "what was signed is not in the first {header}, but in another {instead}")
            }
            Self::TimestampNotSeconds => {
                write!(f, "the header {HEADER_TIMESTAMP} is not a whole number of Unix seconds")
            }
            Self::TimestampInMilliseconds => {
                write!(f, "the header {HEADER_TIMESTAMP} is too large for Unix seconds: are these milliseconds?")
            }
            Self::TooOld { age_seconds } => write!(
                f,
                "it was signed {age_seconds} s ago, at most {TOLERANCE_SECONDS} are accepted: an old request was \
                 repeated or kept for long, or the clock here is ahead"
            ),
            Self::TooNew { ahead_seconds } => write!(
                f,
                "it was signed {ahead_seconds} s in the future, at most {TOLERANCE_SECONDS} are accepted: the clock \
                 here is behind, or the sender's is ahead"
            ),
            Self::EmptyBody => f.write_str("the body is empty: something else may have read it before"),
            Self::EmptySignature { position } => {
                write!(f, "signature {position} is empty: one space belongs between two; some verifiers fail on this")
            }
            Self::Asymmetric { position } => {
                write!(f, "signature {position} is an ed25519 one: the sender's public key verifies it, no secret does")
            }
            Self::Unreadable { position } => {
                write!(f, "signature {position} is neither base64 nor hexadecimal of 32 bytes")
            }
            Self::NoScheme { position } => write!(f, "signature {position} does not begin with v1,"),
            Self::OtherScheme { position, prefix } => {
                write!(f, "signature {position} begins with {prefix} and not with v1, as those that a secret verifies")
            }
            Self::Miswritten { position, form } => write!(f, "signature {position} {form}"),
            Self::Matches { signature, secret } => {
                write!(f, "signature {signature} was made with secret {secret}")
            }
            Self::KeyMisread { secret, reading } => write!(f, "secret {secret} {reading}"),
            Self::OtherContent { content } => {
                write!(f, "signed was {content}, instead of the id, the timestamp and the body with dots between them")
            }
            Self::BodyChanged { change } => {
                write!(f, "the body is not the one that was signed: {change}. Verify its bytes as they came in")
            }
            Self::OtherAttempt { off_seconds } => write!(
                f,
                "the signature is that of another attempt, {} s {}: id, timestamp and signature must come from one request",
                off_seconds.unsigned_abs(),
                if *off_seconds < 0 { "earlier" } else { "later" }
            ),
            Self::NothingFits => f.write_str(
                "no signature fits any secret: another secret was used, or the id or the body was changed in a way \
                 that was not tried",
            ),
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hex => "is written in hexadecimal instead of base64",
            Self::UrlSafe => "is written in base64 with - and _ instead of + and /",
            Self::Unpadded => "lacks the = that ends its base64",
            Self::Truncated => "is cut off: its beginning fits, its end is missing",
        })
    }
}

impl fmt::Display for KeyReading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PrefixMissing => "is the right one, but was given here without the whsec_ before it",
            Self::UrlSafe => "was read as base64 with - and _ instead of + and /",
            Self::WholeText => {
                "was used as it is written, instead of what the base64 after whsec_ decodes to"
            }
            Self::TextAfterPrefix => {
                "was used as the text after whsec_, instead of what this base64 decodes to"
            }
            Self::LineEndIncluded => {
                "was used as text with the line end of its file, instead of being decoded"
            }
        })
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BodyAlone => "the body alone",
            Self::TimestampAndBody => "the timestamp and the body",
            Self::IdAndBody => "the id and the body",
            Self::Swapped => "the timestamp before the id, and the body",
            Self::NoDots => "the id, the timestamp and the body without dots",
            Self::Seconds => "the timestamp in seconds, while the header has milliseconds",
            Self::IdOfBody => "the id that the body has, which the header has not",
        })
    }
}
