//! Who calls.

use serde::{Deserialize, Serialize};

/// The name of a client; every job belongs to one, and idempotency keys are its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientId(String);

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
