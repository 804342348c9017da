//! Who calls.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a client; every job belongs to one, and idempotency keys are its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

/// The name is not one that a client can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client's name has 1 to 64 characters of a-z, 0-9, - and _")]
pub struct InvalidClientId;

impl FromStr for ClientId {
    type Err = InvalidClientId;

    fn from_str(name: &str) -> Result<Self, InvalidClientId> {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if (1..=64).contains(&name.len()) && name.bytes().all(valid) {
            Ok(Self(name.to_owned()))
        } else {
            Err(InvalidClientId)
        }
    }
}

impl ClientId {
    /// The one client of `serve --dev`, which asks for no API key.
    #[must_use]
    pub fn dev() -> Self {
        Self("dev".to_owned())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert_eq!("dev".parse(), Ok(ClientId::dev()));
        for bad in ["", "Dev", "a b", "a/b", &"a".repeat(65)] {
            assert_eq!(bad.parse::<ClientId>(), Err(InvalidClientId), "{bad}");
        }
    }
}
