//! Where a job stands.

use serde::{Deserialize, Serialize};

use crate::domain::event::EventKind;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobStatus {
    /// Waits for a worker.
    Queued,
    /// A worker holds its lease.
    Processing,
    /// Its artifacts are stored.
    Completed,
    /// It ended without its artifacts; `error` says why.
    Failed,
    /// It was called off before its end.
    Cancelled,
}

impl JobStatus {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 5] =
        [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the name in the API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether the job's story is over.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        self.ending().is_some()
    }

    /// The event that tells of this ending; `None` while the story goes on.
    #[must_use]
    pub fn ending(self) -> Option<EventKind> {
        match self {
            Self::Queued | Self::Processing => None,
            Self::Completed => Some(EventKind::JobCompleted),
            Self::Failed => Some(EventKind::JobFailed),
            Self::Cancelled => Some(EventKind::JobCancelled),
        }
    }
}
