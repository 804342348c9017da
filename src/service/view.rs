//! What clients see: the API's JSON, which is also what events and callbacks carry.
//!
//! These types are the contract; the domain's may change without it. Links show what is legal now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::blobs::ORIGINAL;
use crate::domain::delivery::DeliveryState;
use crate::domain::event::{Event, EventKind, Subject};
use crate::domain::hex::hex;
use crate::domain::id::{EventId, JobId};
use crate::domain::image::{Format, Placeholder};
use crate::domain::job::{Artifact, Callback, Job, JobError, JobStatus, Priority};

mod deliveries;
mod input;
mod reader;
pub mod schema;

pub use deliveries::{AttemptView, DeliveryView, DestinationView, ReplayItemView, ReplayView};
use input::InputView;
pub use reader::{Access, Reader, Rules, parameters};

/// Links by their relation.
pub type Links = BTreeMap<String, Link>;

/// A link: where one can go from here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Link {
    /// The relation, the same as its key.
    pub rel: String,
    /// Absolute URL, or a template of one (RFC 6570).
    pub href: String,
    /// The HTTP method.
    pub method: &'static str,
    /// The media type that is found there.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub media_type: Option<&'static str>,
    /// Whether `href` is a template.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub templated: bool,
}

/// Collects links.
#[derive(Debug)]
pub struct LinkBuilder<'a> {
    reader: Reader<'a>,
    links: Links,
}

impl<'a> LinkBuilder<'a> {
    /// Links that this reader may follow; others are left out.
    #[must_use]
    pub fn new(reader: Reader<'a>) -> Self {
        Self { reader, links: Links::new() }
    }

    /// Adds a link to fetch something.
    #[must_use]
    pub fn get(self, rel: &str, path: &str) -> Self {
        self.add(rel, path, "GET", None)
    }

    /// Adds a link to fetch something of a known media type.
    #[must_use]
    pub fn get_typed(self, rel: &str, path: &str, media_type: &'static str) -> Self {
        self.add(rel, path, "GET", Some(media_type))
    }

    /// Adds a link to do something.
    #[must_use]
    pub fn post(self, rel: &str, path: &str) -> Self {
        self.add(rel, path, "POST", None)
    }

    /// Adds a link to remove something.
    #[must_use]
    pub fn delete(self, rel: &str, path: &str) -> Self {
        self.add(rel, path, "DELETE", None)
    }

    /// The links.
    #[must_use]
    pub fn build(self) -> Links {
        self.links
    }

    fn add(mut self, rel: &str, path: &str, method: &'static str, media_type: Option<&'static str>) -> Self {
        if !self.reader.may(method, path) {
            return self;
        }
        let href = format!("{}{path}", self.reader.base());
        let templated = path.contains('{');
        self.links.insert(rel.to_owned(), Link { rel: rel.to_owned(), href, method, media_type, templated });
        self
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct Progress {
    /// 0 to 100, by artifacts made.
    #[schema(maximum = 100)]
    pub percent: u8,
    /// What is being done.
    pub stage: Option<&'static str>,
}

impl Progress {
    /// So many artifacts of so many, and what is being done.
    #[must_use]
    pub fn running(made: usize, wanted: usize, stage: Option<&'static str>) -> Self {
        let percent = (100 * made.min(wanted)).checked_div(wanted).unwrap_or(0);
        Self { percent: u8::try_from(percent).unwrap_or(100), stage }
    }

    fn of(job: &Job, live: Option<Self>) -> Self {
        match job.status {
            JobStatus::Completed => Self { percent: 100, stage: None },
            _ => live.unwrap_or_else(|| Self::running(job.artifacts.len(), job.variants.len(), None)),
        }
    }
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    #[schema(value_type = JobId)]
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    client: Option<String>,
    #[schema(value_type = JobStatus)]
    status: &'static str,
    active: bool,
    revision: u64,
    #[schema(format = DateTime)]
    created_at: String,
    #[schema(format = DateTime)]
    started_at: Option<String>,
    #[schema(format = DateTime)]
    finished_at: Option<String>,
    #[schema(format = DateTime)]
    start_at: Option<String>,
    #[schema(format = DateTime)]
    deadline_at: Option<String>,
    #[schema(format = DateTime)]
    cancel_requested_at: Option<String>,
    #[schema(format = DateTime)]
    deleted_at: Option<String>,
    #[schema(format = DateTime)]
    purge_at: Option<String>,
    attempt: u32,
    #[schema(value_type = Priority)]
    priority: &'static str,
    progress: Progress,
    input: InputView,
    // Events of before there were presets and placeholders keep their bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    preset: Option<String>,
    artifacts: Vec<ArtifactView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    placeholder: Option<PlaceholderView>,
    callback: Option<CallbackView>,
    tags: Vec<String>,
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    error: Option<ErrorView>,
    #[serde(rename = "_links")]
    links: Links,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Artifact)]
struct ArtifactView {
    name: String,
    #[schema(schema_with = schema::picture_type)]
    media_type: &'static str,
    bytes: u64,
    width: u32,
    height: u32,
    #[schema(schema_with = schema::sha256)]
    sha256: String,
    #[schema(format = "uri")]
    url: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Placeholder)]
struct PlaceholderView {
    thumbhash: String,
    #[schema(schema_with = schema::colour)]
    dominant_color: String,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Callback)]
struct CallbackView {
    #[schema(format = "uri")]
    url: String,
    #[schema(value_type = Vec<schema::CallbackEvent>)]
    events: Vec<&'static str>,
    /// Their names alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    max_attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_initial_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    retry_max_ms: Option<u64>,
    #[schema(schema_with = schema::callback_status)]
    status: &'static str,
    attempts: u32,
    #[schema(format = DateTime)]
    next_attempt_at: Option<String>,
    #[schema(format = DateTime)]
    delivered_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = JobError)]
struct ErrorView {
    code: String,
    title: String,
    detail: String,
    retryable: bool,
}

impl JobView {
    /// The job for this reader, with its progress if it runs.
    #[must_use]
    pub fn new(job: &Job, reader: Reader<'_>, live: Option<Progress>) -> Self {
        Self {
            id: job.id.to_string(),
            client: reader.owner(&job.client),
            status: job.status.as_str(),
            active: job.deleted_at.is_none(),
            revision: job.revision,
            created_at: time(job.created_at),
            started_at: job.started_at.map(time),
            finished_at: job.finished_at.map(time),
            start_at: job.due_at.map(time),
            deadline_at: job.deadline_at.map(time),
            cancel_requested_at: job.cancel_requested_at.map(time),
            deleted_at: job.deleted_at.map(time),
            purge_at: job.purge_at.map(time),
            attempt: job.attempt,
            priority: job.priority.as_str(),
            progress: Progress::of(job, live),
            input: InputView::of(job),
            artifacts: job
                .artifacts
                .iter()
                .map(|artifact| artifact_view(job, artifact, reader.base()))
                .collect(),
            preset: job.preset.clone(),
            placeholder: job.placeholder.as_ref().map(placeholder_view),
            callback: job.callback.as_ref().map(|callback| callback_view(job, callback)),
            tags: job.tags.clone(),
            // Checked to be JSON when it came in.
            metadata: job.metadata.clone().and_then(|text| RawValue::from_string(text).ok()),
            error: job.error.as_ref().map(error_view),
            links: job_links(job, reader),
        }
    }

    /// The strong validator of RFC 9110, section 8.8.3, quotes included. While the job runs, its live progress
    /// is part of it, which no revision counts.
    #[must_use]
    pub fn etag(&self) -> String {
        let Progress { percent, stage } = self.progress;
        if self.status == JobStatus::Processing.as_str() {
            return format!("\"{}-{}-{percent}{}\"", self.id, self.revision, stage.unwrap_or_default());
        }
        // An attempt that is under way is no change that is kept, and counts in no revision.
        let sending = self.callback.as_ref().is_some_and(|it| it.status == DeliveryState::Sending.as_str());
        format!("\"{}-{}{}\"", self.id, self.revision, if sending { "-sending" } else { "" })
    }

    /// Makes the links to its pictures ones that need no key: `query` says of a name what is to be added.
    fn sign(&mut self, query: impl Fn(&str) -> String) {
        for artifact in &mut self.artifacts {
            artifact.url = format!("{}?{}", artifact.url, query(&artifact.name));
        }
        let made = self.artifacts.iter().map(|artifact| artifact.name.as_str());
        for name in made.chain([ORIGINAL]) {
            if let Some(link) = self.links.get_mut(name).filter(|link| link.media_type.is_some()) {
                link.href = format!("{}?{}", link.href, query(name));
            }
        }
    }

    /// Where the job is.
    #[must_use]
    pub fn href(&self) -> &str {
        self.links.get("self").map_or("", |link| link.href.as_str())
    }
}

fn job_links(job: &Job, reader: Reader<'_>) -> Links {
    let path = format!("/v1/jobs/{}", job.id);
    let links = LinkBuilder::new(reader).get("self", &path).get("collection", "/v1/jobs");
    let mut links = links.get("events", &format!("{path}/events"));
    if job.callback.is_some() {
        links = links.get("deliveries", &format!("{path}/deliveries"));
    }
    if job.deleted_at.is_some() {
        return links.post("restore", &format!("{path}/restore")).build();
    }
    links = links.delete("delete", &path);
    if !job.status.is_terminal() && job.cancel_requested_at.is_none() {
        links = links.post("cancel", &format!("{path}/cancel"));
    }
    if matches!(job.status, JobStatus::Failed | JobStatus::Cancelled) {
        links = links.post("retry", &format!("{path}/retry"));
    }
    if job.input.is_some() || !job.artifacts.is_empty() {
        links = links.post("links", &format!("{path}/links"));
    }
    if let Some(input) = &job.input {
        links = links.get_typed(ORIGINAL, &artifact_path(job, ORIGINAL), input.format.media_type());
    }
    for artifact in &job.artifacts {
        links = links.get_typed(
            &artifact.name,
            &artifact_path(job, &artifact.name),
            artifact.format.media_type(),
        );
    }
    links.build()
}

fn artifact_path(job: &Job, name: &str) -> String {
    format!("/v1/jobs/{}/artifacts/{name}", job.id)
}

fn artifact_view(job: &Job, artifact: &Artifact, base: &str) -> ArtifactView {
    ArtifactView {
        name: artifact.name.clone(),
        media_type: artifact.format.media_type(),
        bytes: artifact.bytes,
        width: artifact.width,
        height: artifact.height,
        sha256: hex(&artifact.sha256),
        url: format!("{base}{}", artifact_path(job, &artifact.name)),
    }
}

fn placeholder_view(Placeholder { thumbhash, dominant_color }: &Placeholder) -> PlaceholderView {
    PlaceholderView { thumbhash: thumbhash.clone(), dominant_color: dominant_color.to_string() }
}

fn callback_view(job: &Job, callback: &Callback) -> CallbackView {
    let latest = callback.latest.as_ref();
    // Before there is an event to deliver, its delivery is still to come; unless there can be none any more.
    let untold = if job.status.is_terminal() { "none" } else { DeliveryState::Pending.as_str() };
    CallbackView {
        url: callback.url.to_string(),
        events: callback.events.iter().map(|kind| kind.short_name()).collect(),
        headers: callback.headers.iter().map(|(name, _)| name.clone()).collect(),
        max_attempts: callback.retry.max_attempts,
        retry_initial_ms: callback.retry.initial_ms,
        retry_max_ms: callback.retry.max_delay_ms,
        status: latest.map_or(untold, |latest| latest.state.as_str()),
        attempts: latest.map_or(0, |latest| latest.attempts),
        next_attempt_at: latest.and_then(|latest| latest.next_attempt_at).map(time),
        delivered_at: latest.and_then(|latest| latest.delivered_at).map(time),
    }
}

fn error_view(error: &JobError) -> ErrorView {
    let JobError { code, title, detail, retryable } = error.clone();
    ErrorView { code, title, detail, retryable }
}

/// An event: a CloudEvent (CloudEvents 1.0, JSON format) and a Standard Webhooks payload at once.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    #[schema(schema_with = schema::spec_version)]
    specversion: &'static str,
    #[schema(value_type = EventId)]
    id: String,
    #[schema(format = "uri")]
    source: String,
    #[serde(rename = "type")]
    #[schema(value_type = EventKind)]
    kind: &'static str,
    subject: String,
    #[schema(format = DateTime)]
    time: String,
    #[schema(format = DateTime)]
    timestamp: String,
    seq: u64,
    datacontenttype: &'static str,
    data: DataView,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EventData)]
#[serde(untagged)]
enum DataView {
    Job(Box<JobView>),
    Delivery(Box<DeliveryView>),
    Destination(Box<DestinationView>),
}

impl EventView {
    /// The event as it always was: nothing of it depends on when or where it is read.
    #[must_use]
    pub fn new(event: &Event) -> Self {
        let base = event.source.as_str();
        let reader = Reader::of_events(base);
        let (kind, subject, data) = match &event.subject {
            Subject::Job(job) => {
                ("jobs", job.id.to_string(), DataView::Job(Box::new(JobView::new(job, reader, None))))
            }
            Subject::Delivery(it) => {
                ("deliveries", it.id.to_string(), DataView::Delivery(Box::new(DeliveryView::new(it, reader))))
            }
            Subject::Destination(it) => {
                let view = DestinationView::new(it, None, reader);
                ("destinations", it.id.to_string(), DataView::Destination(Box::new(view)))
            }
        };
        Self {
            specversion: "1.0",
            id: event.id.to_string(),
            source: format!("{base}/v1/{kind}"),
            kind: event.kind.as_str(),
            subject,
            time: time(event.at),
            timestamp: time(event.at),
            seq: event.seq,
            datacontenttype: "application/json",
            data,
        }
    }
}

/// The body of an event's callbacks.
pub fn event_body(event: &Event) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&EventView::new(event))
}

/// The same with links to pictures that need no key.
pub(super) fn signed_event_body(
    event: &Event,
    query: impl Fn(JobId, &str) -> String,
) -> serde_json::Result<Vec<u8>> {
    let mut view = EventView::new(event);
    if let (DataView::Job(view), Subject::Job(job)) = (&mut view.data, &event.subject) {
        view.sign(|name| query(job.id, name));
    }
    serde_json::to_vec(&view)
}

/// The event of a trial: about nothing, and otherwise as events are.
pub(super) fn test_event(id: &str, at: Timestamp, base: &str) -> String {
    let at = time(at);
    serde_json::json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("{base}/v1/callbacks/test"),
        "type": "callback.test",
        "subject": id,
        "time": at,
        "timestamp": at,
        "datacontenttype": "application/json",
        "data": {},
    })
    .to_string()
}

/// RFC 3339, UTC, milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// A file name for an artifact that a browser saves.
#[must_use]
pub fn download_name(job: &str, name: &str, format: Format) -> String {
    format!("{job}-{name}.{}", format.extension())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::EventKind;
    use crate::domain::id::EventId;
    use crate::domain::job::tests::{at, new_job};

    fn event() -> Event {
        let mut job = Job::accepted(new_job(1), at(1));
        job.metadata = Some(r#"{"b":1,"a":[2.50]}"#.to_owned());
        Event {
            id: EventId::new(at(2), &[3; 10]),
            seq: 41,
            kind: EventKind::JobCompleted,
            at: at(2),
            source: "https://img.example".to_owned(),
            subject: Subject::Job(Box::new(job.snapshot())),
        }
    }

    #[test]
    fn an_event_is_a_cloud_event_around_the_job() {
        let body: serde_json::Value = serde_json::from_slice(&event_body(&event()).unwrap()).unwrap();
        assert_eq!(body["specversion"], "1.0");
        assert_eq!(body["type"], "job.completed");
        assert_eq!(body["subject"], body["data"]["id"]);
        assert_eq!(body["time"], "1970-01-01T00:00:02.000Z");
        assert_eq!(body["seq"], 41);
        let href = body["data"]["_links"]["self"]["href"].as_str().unwrap();
        assert!(href.starts_with("https://img.example/v1/jobs/job_"), "{href}");
    }

    #[test]
    fn a_body_is_the_same_each_time_and_keeps_the_clients_own_data_to_the_letter() {
        let body = String::from_utf8(event_body(&event()).unwrap()).unwrap();
        assert_eq!(body.as_bytes(), event_body(&event()).unwrap());
        assert!(body.contains(r#""metadata":{"b":1,"a":[2.50]}"#), "{body}");
        assert!(!body.contains("whsec_"));
    }

    #[test]
    fn a_callback_that_will_never_be_told_anything_waits_for_nothing() {
        let mut job = Job::accepted(new_job(1), at(1));
        let status = |job: &Job| {
            JobView::new(job, Reader::of_events(""), None).callback.map(|callback| callback.status)
        };
        assert_eq!(status(&job), Some("pending"));
        job.status = JobStatus::Completed;
        assert_eq!(status(&job), Some("none"));
    }

    #[test]
    fn progress_counts_artifacts() {
        assert_eq!(Progress::running(1, 3, Some("encode")).percent, 33);
        assert_eq!(Progress::running(0, 0, None).percent, 0);
        assert_eq!(Progress::running(9, 3, None).percent, 100);
    }
}
