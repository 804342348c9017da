//! What happened, as the event log keeps it and every channel tells it.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::client::ClientId;
use super::delivery::Delivery;
use super::destination::Destination;
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
    /// A callback did not arrive, and its schedule has ended.
    DeliveryExhausted,
    /// A destination is left alone: it failed for days, or its receiver asked for it.
    DestinationSuspended,
    /// A destination is tried as others are again.
    DestinationResumed,
}

impl EventKind {
    /// The kinds a callback may ask for.
    pub const OF_JOBS: [Self; 7] = [
        Self::JobQueued,
        Self::JobStarted,
        Self::JobCompleted,
        Self::JobFailed,
        Self::JobCancelled,
        Self::JobDeleted,
        Self::JobRestored,
    ];

    /// All kinds.
    pub const ALL: [Self; 10] = [
        Self::JobQueued,
        Self::JobStarted,
        Self::JobCompleted,
        Self::JobFailed,
        Self::JobCancelled,
        Self::JobDeleted,
        Self::JobRestored,
        Self::DeliveryExhausted,
        Self::DestinationSuspended,
        Self::DestinationResumed,
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
            Self::DeliveryExhausted => "delivery.exhausted",
            Self::DestinationSuspended => "destination.suspended",
            Self::DestinationResumed => "destination.resumed",
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
        Self::OF_JOBS.into_iter().find(|kind| kind.as_str() == name || kind.short_name() == name)
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
    /// When.
    #[serde(with = "jiff::fmt::serde::timestamp::millisecond::required")]
    pub at: Timestamp,
    /// The public base URL when it happened. It is kept so that the event reads the same at every
    /// attempt and in every feed, whatever the configuration says by then.
    pub source: String,
    /// What it happened to, as that was right after.
    #[serde(alias = "job")]
    pub subject: Subject,
}

/// What an event is about. A job or a delivery is without its secret, which may change while the event does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A job.
    Job(Box<Job>),
    /// A delivery.
    Delivery(Box<Delivery>),
    /// A destination.
    Destination(Box<Destination>),
}

impl Event {
    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        match &self.subject {
            Subject::Job(job) => &job.client,
            Subject::Delivery(delivery) => &delivery.client,
            Subject::Destination(destination) => &destination.client,
        }
    }

    /// The job that it belongs to.
    #[must_use]
    pub fn job_id(&self) -> Option<JobId> {
        match &self.subject {
            Subject::Job(job) => Some(job.id),
            Subject::Delivery(delivery) => Some(delivery.job_id),
            Subject::Destination(_) => None,
        }
    }
}

/// How a subject is written: with a number for its kind, but plainly as JSON, which older backups have for jobs.
#[derive(Serialize, Deserialize)]
enum Tagged {
    Job(Box<Job>),
    Delivery(Box<Delivery>),
    Destination(Box<Destination>),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Job(Box<Job>),
    Delivery(Box<Delivery>),
    Destination(Box<Destination>),
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tag = |tag, kind: &'static str| (tag, kind);
        let is_text = serializer.is_human_readable();
        let (number, kind) = match self {
            Self::Job(_) => tag(0, "Job"),
            Self::Delivery(_) => tag(1, "Delivery"),
            Self::Destination(_) => tag(2, "Destination"),
        };
        match self {
            Self::Job(it) if is_text => it.serialize(serializer),
            Self::Delivery(it) if is_text => it.serialize(serializer),
            Self::Destination(it) if is_text => it.serialize(serializer),
            Self::Job(it) => serializer.serialize_newtype_variant("Subject", number, kind, it),
            Self::Delivery(it) => serializer.serialize_newtype_variant("Subject", number, kind, it),
            Self::Destination(it) => serializer.serialize_newtype_variant("Subject", number, kind, it),
        }
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(if deserializer.is_human_readable() {
            match Untagged::deserialize(deserializer)? {
                Untagged::Job(job) => Self::Job(job),
                Untagged::Delivery(delivery) => Self::Delivery(delivery),
                Untagged::Destination(destination) => Self::Destination(destination),
            }
        } else {
            match Tagged::deserialize(deserializer)? {
                Tagged::Job(job) => Self::Job(job),
                Tagged::Delivery(delivery) => Self::Delivery(delivery),
                Tagged::Destination(destination) => Self::Destination(destination),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_in_both_forms() {
        for kind in EventKind::OF_JOBS {
            assert_eq!(EventKind::parse(kind.as_str()), Some(kind));
            assert_eq!(EventKind::parse(kind.short_name()), Some(kind));
        }
        assert_eq!(EventKind::parse("job."), None);
        assert_eq!(EventKind::parse("exploded"), None);
        assert_eq!(EventKind::parse("delivery.exhausted"), None, "no callback asks for it");
    }
}
