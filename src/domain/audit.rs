//! What operators have done.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use serde::{Deserialize, Serialize};

use super::client::ClientId;
use super::id::AuditId;

/// One thing that an operator did, or tried to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Its id, which sorts by when it was begun.
    pub id: AuditId,
    /// When it was begun.
    #[serde(with = "millisecond::required")]
    pub at: Timestamp,
    /// Who.
    pub client: ClientId,
    /// What: method and route.
    pub action: String,
    /// On what: the path and its query, or the path of what was made.
    pub target: String,
    /// The request, as the log has it.
    pub request_id: String,
    /// The HTTP status that came of it; `None` while it is under way, and for one that the process did not survive.
    pub status: Option<u16>,
}
