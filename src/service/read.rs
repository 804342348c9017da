//! What can be looked at. Another client's things are not there.

use tokio::fs::File;

use super::view::Reader;
use super::{Service, ServiceError, view};
use crate::blobs::ORIGINAL;
use crate::domain::client::{Caller, ClientId};
use crate::domain::delivery::{Attempt, Delivery};
use crate::domain::event::{Event, EventKind};
use crate::domain::id::{DeliveryId, JobId};
use crate::domain::image::Format;
use crate::domain::job::Job;
pub use crate::store::{JobPage, JobQuery, NextDue};

/// Events that are read at once,
const EVENTS_AT_ONCE: usize = 200;
/// and how often for one page: a filter that hardly anything fits is answered with an empty one and where to go on.
const MOST_READS: usize = 20;

/// Which events.
#[derive(Debug, Clone)]
pub struct EventQuery {
    /// Of this client alone.
    pub client: Option<ClientId>,
    /// Behind this `seq`.
    pub after: u64,
    /// How many at most.
    pub limit: usize,
    /// Of these kinds; `None`: of all.
    pub kinds: Option<Vec<EventKind>>,
    /// Of this job alone.
    pub job: Option<JobId>,
}

/// A page of events.
#[derive(Debug, Clone)]
pub struct EventPage {
    /// In the order of the log.
    pub events: Vec<Event>,
    /// Up to which `seq` was looked: where to go on.
    pub read: u64,
    /// Whether more may follow at once.
    pub has_more: bool,
}

/// A stored picture, opened.
pub struct OpenArtifact {
    /// Its bytes.
    pub file: File,
    /// How many.
    pub bytes: u64,
    /// Their format.
    pub format: Format,
    /// SHA-256 (FIPS 180-4) of them.
    pub sha256: [u8; 32],
}

impl Service {
    /// The job of this id.
    pub async fn job(&self, caller: &Caller, id: JobId) -> Result<Job, ServiceError> {
        let job = self.store.job(id).await?.filter(|job| caller.sees(&job.client));
        job.ok_or(ServiceError::NotFound { what: "job" })
    }

    /// A job as its reader sees it, with its live progress.
    #[must_use]
    pub fn view_job(&self, job: &Job, reader: Reader<'_>) -> view::JobView {
        view::JobView::new(job, reader, self.progress_of(job.id))
    }

    /// A page of the jobs that the caller sees.
    pub async fn jobs(&self, caller: &Caller, query: JobQuery) -> Result<JobPage, ServiceError> {
        let client = caller.only().cloned().or(query.client);
        Ok(self.store.jobs(JobQuery { client, ..query }).await?)
    }

    /// Opens the original or an artifact of a job.
    pub async fn artifact(
        &self,
        caller: &Caller,
        id: JobId,
        name: &str,
    ) -> Result<OpenArtifact, ServiceError> {
        self.open_artifact(&self.job(caller, id).await?, name).await
    }

    pub(super) async fn open_artifact(&self, job: &Job, name: &str) -> Result<OpenArtifact, ServiceError> {
        const NOT_FOUND: ServiceError = ServiceError::NotFound { what: "artifact" };
        let (format, sha256) = if name == ORIGINAL {
            let input = job.input.as_ref().ok_or(NOT_FOUND)?;
            (input.format, input.sha256)
        } else {
            let artifact = job.artifacts.iter().find(|artifact| artifact.name == name).ok_or(NOT_FOUND)?;
            (artifact.format, artifact.sha256)
        };
        // The name is one that the job has, so it can be no path of the client's making.
        let (file, bytes) = self.blobs.get(job.id, name).await?;
        Ok(OpenArtifact { file, bytes, format, sha256 })
    }

    /// The deliveries of a job, oldest first.
    pub async fn deliveries_of(&self, caller: &Caller, job: JobId) -> Result<Vec<Delivery>, ServiceError> {
        self.job(caller, job).await?;
        Ok(self.store.deliveries_of(job).await?)
    }

    /// The delivery of this id.
    pub async fn delivery(&self, caller: &Caller, id: DeliveryId) -> Result<Delivery, ServiceError> {
        const NOT_FOUND: ServiceError = ServiceError::NotFound { what: "delivery" };
        let delivery = self.store.delivery(id).await?.ok_or(NOT_FOUND)?;
        self.job(caller, delivery.job_id).await.map_err(|error| match error {
            ServiceError::NotFound { .. } => NOT_FOUND,
            other => other,
        })?;
        Ok(delivery)
    }

    /// The attempts of a delivery, oldest first.
    pub async fn attempts_of(&self, caller: &Caller, id: DeliveryId) -> Result<Vec<Attempt>, ServiceError> {
        self.delivery(caller, id).await?;
        Ok(self.store.attempts_of(id).await?)
    }

    /// The events that fit, of those that the caller sees, in the order of the log.
    pub async fn events(&self, caller: &Caller, query: EventQuery) -> Result<EventPage, ServiceError> {
        if let Some(job) = query.job {
            self.job(caller, job).await?;
        }
        let mut page = EventPage { events: Vec::new(), read: query.after, has_more: true };
        // Where all fit, one more than is asked for tells whether there are more.
        let all_fit = query.kinds.is_none().then(|| query.limit.saturating_add(1));
        for read_before in 0..MOST_READS {
            let wanted =
                all_fit.filter(|_| read_before == 0).map_or(EVENTS_AT_ONCE, |all| all.min(EVENTS_AT_ONCE));
            let events = match query.job {
                Some(job) => self.store.events_of(job, page.read, wanted).await?,
                None => self.store.events_after(page.read, wanted).await?,
            };
            let read = events.len();
            let fits = |event: &Event| {
                caller.sees(event.client())
                    && query.client.as_ref().is_none_or(|client| client == event.client())
                    && query.kinds.as_ref().is_none_or(|kinds| kinds.contains(&event.kind))
            };
            for event in events {
                if page.events.len() == query.limit {
                    return Ok(page);
                }
                page.read = event.seq;
                page.events.extend(Some(event).filter(fits));
            }
            if read < wanted {
                page.has_more = false;
                break;
            }
        }
        Ok(page)
    }

    /// When there is next something to claim.
    pub async fn next_due(&self) -> Result<NextDue, ServiceError> {
        Ok(self.store.next_due().await?)
    }
}
