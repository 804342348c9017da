//! Examples: answers that a service has served, which a test compares with what it serves now.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

/// Where the examples come from.
pub(super) const BASE_URL: &str = "https://img.example";
pub(super) const REQUEST_ID: &str = "req_01936a0c4b1e7d0c8f3a5b6c7d8e9f01";

static EXAMPLES: LazyLock<BTreeMap<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// What the operation with this id has answered.
pub(super) fn of(operation: &str) -> Option<Value> {
    EXAMPLES.get(operation).cloned()
}
