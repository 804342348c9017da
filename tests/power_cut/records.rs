//! What is written, and what is said of it. A record's content follows from its id, so that whoever reads it back
//! knows what it must be.

use darkroom::blobs::ORIGINAL;
use darkroom::domain::client::ClientId;
use darkroom::domain::delivery::{
    Attempt, Delivery, DeliveryState, ErrorClass, Failure, ResponseHead, Verdict,
};
use darkroom::domain::event::{Event, EventKind};
use darkroom::domain::id::{DeliveryId, EventId, JobId};
use darkroom::domain::image::{Format, Handling, Variant};
use darkroom::domain::job::{Artifact, Callback, Input, Job, JobError, JobStatus, NewJob, Priority};
use darkroom::domain::retry::RetryOverride;
use darkroom::store::{Ending, Idempotency, Submission};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The most that a client may send as metadata, and that is kept of a receiver's answer.
const METADATA_BYTES: usize = 4096;
const HEADER_BYTES: usize = 2048;
const BODY_BYTES: usize = 4096;
const PICTURE_BYTES: usize = 32 * 1024;
const MAX_ATTEMPTS: usize = 10;

/// A step that the store acknowledged: what it returned, as far as it must still hold later.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// A job stands here, or further on.
    Job { id: JobId, status: JobStatus, revision: u64, token: u64 },
    /// So many attempts are recorded, and what they came to.
    Delivery { id: DeliveryId, attempts: u32, state: DeliveryState },
    /// The log has this event in this place.
    Event { seq: u64, id: EventId },
}

impl From<&Job> for Said {
    fn from(job: &Job) -> Self {
        Self::Job { id: job.id, status: job.status, revision: job.revision, token: job.lease_token }
    }
}

impl From<&Delivery> for Said {
    fn from(delivery: &Delivery) -> Self {
        Self::Delivery { id: delivery.id, attempts: delivery.attempt_count, state: delivery.state }
    }
}

impl From<&Event> for Said {
    fn from(event: &Event) -> Self {
        Self::Event { seq: event.seq, id: event.id }
    }
}

/// A job with all that a client can send, and its idempotency key.
pub fn submission(id: JobId) -> Submission {
    let original = picture(id, ORIGINAL);
    let job = NewJob {
        id,
        client: ClientId::dev(),
        input: Input {
            filename: Some(format!("{}.jpg", text(&id, "filename", 60))),
            format: Format::Jpeg,
            bytes: original.len() as u64,
            width: 4032,
            height: 3024,
            sha256: Sha256::digest(&original).into(),
        },
        variants: Variant::defaults(),
        preset: None,
        handling: Handling::default(),
        callback: callback(id),
        priority: Priority::Normal,
        start_at: None,
        deadline_ms: None,
        tags: (0..4).map(|tag| text(&id, &format!("tag {tag}"), 64)).collect(),
        metadata: Some(metadata(id)),
    };
    let fingerprint = Sha256::digest(text(&id, "fingerprint", 64)).into();
    Submission { job, idempotency: Some(Idempotency { key: text(&id, "key", 64), fingerprint }) }
}

fn callback(id: JobId) -> Option<Callback> {
    let events = match chance(&id, "callback", 8) {
        0 => return None,
        1..=3 => EventKind::OF_JOBS.to_vec(),
        _ => EventKind::TERMINAL.to_vec(),
    };
    let url = format!("https://hooks.example/{}", text(&id, "url", 200)).parse().unwrap();
    Some(Callback {
        url,
        events,
        secret: None,
        headers: Vec::new(),
        retry: RetryOverride::default(),
        latest: None,
    })
}

fn metadata(id: JobId) -> String {
    let frame = r#"{"note":""}"#.len();
    let length = chance(&id, "metadata", METADATA_BYTES - frame + 1);
    format!(r#"{{"note":"{}"}}"#, text(&id, "note", length))
}

/// The bytes of a job's picture of this name.
pub fn picture(id: JobId, name: &str) -> Vec<u8> {
    text(&id, name, chance(&id, name, PICTURE_BYTES) + 1).into_bytes()
}

/// What a job notes of the picture it made as `variant`.
pub fn artifact(id: JobId, variant: &Variant) -> Artifact {
    let bytes = picture(id, &variant.name);
    Artifact {
        name: variant.name.clone(),
        format: Format::Jpeg,
        bytes: bytes.len() as u64,
        width: 800,
        height: 600,
        sha256: Sha256::digest(&bytes).into(),
    }
}

/// How a try ends: most succeed, some fail, and some first tries are to be repeated.
pub fn ending(job: &Job, now: Timestamp) -> Ending {
    let error = |retryable| JobError {
        code: "processing-failed".to_owned(),
        title: "The picture could not be processed".to_owned(),
        detail: text(&job.id, "error", 500),
        retryable,
    };
    match chance(&job.id, "ending", 8) {
        0 => Ending::Failed(error(false)),
        1 if job.lease_token == 1 => Ending::RetryAt(error(true), now),
        2 if job.lease_token == 1 => Ending::GivenBack(None),
        _ => Ending::Completed,
    }
}

/// The attempt of this number, with an answer as long as is kept, and what it comes to.
pub fn attempt(id: DeliveryId, number: u32, now: Timestamp) -> (Attempt, Verdict) {
    let (verdict, status) = match chance(&id, "failed attempts", MAX_ATTEMPTS + 1) {
        failed if number as usize > failed => (Verdict::Delivered, 200),
        _ if number as usize == MAX_ATTEMPTS => (Verdict::Exhausted, 503),
        _ => (Verdict::RetryAt(now), 503),
    };
    let part = |what: &str, length| text(&id, &format!("{what} {number}"), length);
    let failure = Failure::new(ErrorClass::Http, format!("the receiver answered {status}"));
    let attempt = Attempt {
        number,
        started_at: now,
        duration_ms: u64::from(number),
        trigger: darkroom::domain::delivery::Trigger::default(),
        timings: darkroom::domain::delivery::Timings::default(),
        remote_addr: Some(([192, 0, 2, 1], 443).into()),
        response: Some(ResponseHead {
            status,
            headers: vec![("x-answer".to_owned(), part("header", HEADER_BYTES))],
            body: part("body", BODY_BYTES),
            truncated: true,
        }),
        error: (status != 200).then_some(failure),
        next_attempt_at: (verdict == Verdict::RetryAt(now)).then_some(now),
    };
    (attempt, verdict)
}

/// A number below `bound` that follows from the id.
fn chance(id: &impl ToString, what: &str, bound: usize) -> usize {
    let hash = Sha256::digest(format!("{} {what}", id.to_string()));
    usize::from(u16::from_be_bytes([hash[0], hash[1]])) % bound
}

/// `length` characters that follow from the id, and that no other place has.
fn text(id: &impl ToString, what: &str, length: usize) -> String {
    let block = Sha256::digest(format!("{} {what} text", id.to_string()));
    let hex: String = block.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = hex.repeat(length / hex.len() + 1);
    text.truncate(length);
    text
}
