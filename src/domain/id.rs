//! Identifiers: a prefix that names the kind, then a `UUIDv7` (RFC 9562) as 32 hexadecimal digits.
//!
//! Version 7 sorts by creation time, so a range of ids is a range of time.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::{Builder, Uuid};

/// The random part of an id: 74 of these 80 bits are used.
pub type Entropy = [u8; 10];

/// The text is not an id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {prefix} followed by 32 hexadecimal digits")]
pub struct IdError {
    /// The prefix that was expected, `job_` for example.
    pub prefix: &'static str,
}

fn uuid_v7(now: Timestamp, entropy: &Entropy) -> Uuid {
    // A clock before 1970 would be a broken machine; it must not panic, and order does not matter then.
    let millis = u64::try_from(now.as_millisecond()).unwrap_or(0);
    Builder::from_unix_timestamp_millis(millis, entropy).into_uuid()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id, ordered by `now`.
            #[must_use]
            pub fn new(now: Timestamp, entropy: &Entropy) -> Self {
                Self(uuid_v7(now, entropy))
            }

            /// When it was made, to the millisecond.
            #[must_use]
            pub fn created_at(&self) -> Timestamp {
                // The first 48 bits of a version 7 UUID (RFC 9562, section 5.7): less than 2^63.
                let [a, b, c, d, e, f, ..] = *self.0.as_bytes();
                let millis = i64::from_be_bytes([0, 0, a, b, c, d, e, f]);
                Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
            }

            /// The id as 16 bytes, most significant first: their order is the ids' order.
            #[must_use]
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// The id with these 16 bytes.
            #[must_use]
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    // `Uuid` reads four spellings; ours is one, so that an id has one spelling.
                    .filter(|hex| hex.len() == 32 && !hex.contains(|c: char| c.is_ascii_uppercase()))
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or(IdError { prefix: $prefix })
            }
        }

        /// The text where people read it, the 16 bytes elsewhere.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    Uuid::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

id!(
    /// A job: one accepted picture and what becomes of it.
    JobId,
    "job_"
);
id!(
    /// An event: something that happened to a job, kept in the event log. It is the callback's `webhook-id`.
    EventId,
    "evt_"
);
id!(
    /// A delivery: one event on its way to one destination.
    DeliveryId,
    "dlv_"
);
id!(
    /// A destination: where callbacks of a client go. It follows from client and origin, and not from the time.
    DestinationId,
    "dst_"
);
id!(
    /// A replay: a durable operation that sends many deliveries again.
    ReplayId,
    "rpl_"
);
id!(
    /// A signing secret of a client.
    SecretId,
    "sec_"
);
id!(
    /// An entry of the audit record.
    AuditId,
    "aud_"
);
id!(
    /// An API key of a client.
    ApiKeyId,
    "key_"
);
id!(
    /// A worker: unique per process start, so that a restarted process is never taken for its predecessor.
    WorkerId,
    "wrk_"
);
id!(
    /// A request over HTTP: the `X-Request-Id` where the client brought none.
    RequestId,
    "req_"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_sorts_by_time() {
        let early = JobId::new(Timestamp::from_millisecond(1_000).unwrap(), &[0xff; 10]);
        let late = JobId::new(Timestamp::from_millisecond(1_001).unwrap(), &[0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(JobId::from_bytes(*early.as_bytes()), early);
        assert_eq!(late.created_at(), Timestamp::from_millisecond(1_001).unwrap());
    }

    /// Stores hold them so: a change is another layout of records.
    #[test]
    fn where_nobody_reads_it_an_id_is_its_bytes() {
        let id = JobId::from_bytes([7; 16]);
        let bytes = postcard::to_allocvec(&id).unwrap();
        assert_eq!(bytes, [&[16][..], &[7; 16]].concat());
        assert_eq!(postcard::from_bytes(&bytes), Ok(id));
    }

    #[test]
    fn other_kinds_and_other_spellings_are_refused() {
        let id = JobId::new(Timestamp::from_millisecond(1_000).unwrap(), &[0xab; 10]).to_string();
        assert!(id.parse::<EventId>().is_err());
        assert!(id.to_uppercase().parse::<JobId>().is_err());
        let hyphenated = format!("job_{}", Uuid::nil().hyphenated());
        for text in ["", "job_", "job_zz", "abc", hyphenated.as_str()] {
            assert_eq!(text.parse::<JobId>(), Err(IdError { prefix: "job_" }), "{text}");
        }
    }
}
