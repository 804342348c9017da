//! The record of what operators do.
//!
//! A note is durable before its action is begun, so that none goes without one, also where the process dies on the way;
//! what came of it is added afterwards.

use super::{Service, ServiceError};
use crate::clock::entropy;
pub use crate::domain::audit::AuditEntry;
use crate::domain::client::Caller;
use crate::domain::id::AuditId;

/// Notes that one step of purging removes.
const AT_ONCE: usize = 1000;

impl Service {
    /// Notes that this caller is about to do something.
    pub async fn note(
        &self,
        caller: &Caller,
        action: String,
        target: String,
        request_id: String,
    ) -> Result<AuditEntry, ServiceError> {
        let now = self.clock.now();
        let (id, client) = (AuditId::new(now, &entropy()), caller.client.clone());
        let entry = AuditEntry { id, at: now, client, action, target, request_id, status: None };
        self.store.note_action(entry.clone()).await?;
        Ok(entry)
    }

    /// Adds what came of it. The action is done by then, so that a failure is no more than logged.
    pub async fn note_outcome(&self, entry: AuditEntry, status: u16) {
        let id = entry.id;
        if let Err(error) = self.store.note_action(AuditEntry { status: Some(status), ..entry }).await {
            tracing::error!(%id, %error, "what came of an operator's action was not noted");
        }
    }

    /// Up to `limit` notes before `before`, the newest first.
    pub async fn audit_entries(
        &self,
        before: Option<AuditId>,
        limit: usize,
    ) -> Result<Vec<AuditEntry>, ServiceError> {
        Ok(self.store.actions(before, limit).await?)
    }

    /// Removes notes that are older than they are kept; whether there may be more.
    pub async fn forget_audit(&self) -> Result<bool, ServiceError> {
        let end =
            self.clock.now().checked_sub(self.settings.keep_audit).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Ok(self.store.forget_actions(end, AT_ONCE).await? == AT_ONCE)
    }
}
