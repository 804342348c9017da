//! What happened to a job, as the event log keeps it and every channel tells it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::id::{EventId, JobId};
use super::job::Job;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventKind {
    /// The job was accepted.
    JobQueued,
    /// A worker took the job up.
    JobStarted,
    /// The artifacts are there.
    JobCompleted,
    /// The job ended without its artifacts.
    JobFailed,
    /// The job was called off.
    JobCancelled,
    /// The job was hidden from lists, until it is restored or purged.
    JobDeleted,
    /// A deletion was taken back.
    JobRestored,
}

impl EventKind {
    /// The kinds a callback may ask for.
    pub const ALL: [Self; 7] = [
        Self::JobQueued,
        Self::JobStarted,
        Self::JobCompleted,
        Self::JobFailed,
        Self::JobCancelled,
        Self::JobDeleted,
        Self::JobRestored,
    ];

    /// The kinds a callback gets when it asks for none: how the job ended.
    pub const TERMINAL: [Self; 3] = [Self::JobCompleted, Self::JobFailed, Self::JobCancelled];

    /// The event's `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobQueued => "job.queued",
            Self::JobStarted => "job.started",
            Self::JobCompleted => "job.completed",
            Self::JobFailed => "job.failed",
            Self::JobCancelled => "job.cancelled",
            Self::JobDeleted => "job.deleted",
            Self::JobRestored => "job.restored",
        }
    }

    /// The name within `callback_events`: the `type` without `job.`.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        self.as_str().trim_start_matches("job.")
    }

    /// Reads a name as `callback_events` has it, with or without `job.`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name || kind.short_name() == name)
    }
}

/// One entry of the event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Also the `webhook-id` of its callbacks.
    pub id: EventId,
    /// The place in the log: durable, increasing, never used twice.
    pub seq: u64,
    /// What happened.
    pub kind: EventKind,
    /// To which job.
    pub job_id: JobId,
    /// When.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub at: Timestamp,
    /// The public base URL when it happened. It is kept so that the event reads the same at every
    /// attempt and in every feed, whatever the configuration says by then.
    pub source: String,
    /// The job as it was right after.
    pub job: Job,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_in_both_forms() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
            assert_eq!(EventKind::parse(kind.short_name()), Some(kind));
        }
        assert_eq!(EventKind::parse("job."), None);
        assert_eq!(EventKind::parse("exploded"), None);
    }
}
