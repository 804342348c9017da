//! Links to pictures for those who have no API key: signed, and good for a time.
//!
//! The signature is over the job, the picture's name and the time, by a key that follows from the encryption key; nothing
//! of a link is kept. A link ends with its time, and while its job is deleted.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

use super::error::FieldError;
use super::read::OpenArtifact;
use super::{Service, ServiceError, view};
use crate::blobs::ORIGINAL;
use crate::domain::client::Caller;
use crate::domain::event::Event;
use crate::domain::id::JobId;
use crate::domain::image::Format;
use crate::domain::job::{Job, TransitionError};
use crate::store::StoreError;

/// Links that were asked for.
#[derive(Debug)]
pub struct SignedLinks {
    /// Whose pictures.
    pub job: JobId,
    /// Until when they are good, to the second.
    pub until: Timestamp,
    /// Name, format, and path with query.
    pub pictures: Vec<(String, Format, String)>,
}

/// What a signed link says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// `expires`
    pub expires: &'a str,
    /// `signature`
    pub signature: &'a str,
}

impl Service {
    /// Signs links to these pictures of a job, or to all that it has.
    pub async fn sign_links(
        &self,
        caller: &Caller,
        id: JobId,
        names: Option<&[String]>,
        lasts: Duration,
    ) -> Result<SignedLinks, ServiceError> {
        let job = self.job(caller, id).await?;
        if job.deleted_at.is_some() {
            return Err(StoreError::from(TransitionError::Deleted).into());
        }
        let has = pictures(&job);
        if has.is_empty() {
            return Err(StoreError::from(TransitionError::WrongState(job.status)).into());
        }
        let unknown = |name: &&String| !has.iter().any(|(known, _)| known == *name);
        if let Some(name) = names.unwrap_or_default().iter().find(unknown) {
            let shown: String = name.chars().take(64).collect();
            let detail = format!("the job has no {shown:?}; it has {}", listed(&has));
            let field = "artifacts".to_owned();
            return Err(ServiceError::Invalid(vec![FieldError { field, code: "unknown", detail }]));
        }
        let until = until(self.clock.now(), lasts);
        let wanted = |name: &String| names.is_none_or(|names| names.contains(name));
        let signed = has.into_iter().filter(|(name, _)| wanted(name)).map(|(name, format)| {
            let path = format!("/v1/jobs/{id}/artifacts/{name}?{}", self.signed_query(id, &name, until));
            (name, format, path)
        });
        Ok(SignedLinks { job: id, until, pictures: signed.collect() })
    }

    /// Opens a picture for whoever has a signed link to it, and says how much longer the link is good.
    pub async fn signed_artifact(
        &self,
        id: JobId,
        name: &str,
        link: Signed<'_>,
    ) -> Result<(OpenArtifact, Duration), ServiceError> {
        let signature = URL_SAFE_NO_PAD.decode(link.signature).unwrap_or_default();
        if !self.vault.is_signed(&signed_text(id, name, link.expires), &signature) {
            return Err(ServiceError::LinkInvalid);
        }
        // What we signed is a time.
        let until = link.expires.parse().ok().and_then(|at| Timestamp::from_second(at).ok());
        let left = until.and_then(|until| Duration::try_from(until.duration_since(self.clock.now())).ok());
        let left = left.filter(|left| !left.is_zero());
        let left = left.ok_or(ServiceError::LinkExpired("its time is up"))?;
        let job = self.store.job(id).await?.ok_or(ServiceError::NotFound { what: "job" })?;
        if job.deleted_at.is_some() {
            return Err(ServiceError::LinkExpired("the job was deleted"));
        }
        Ok((self.open_artifact(&job, name).await?, left))
    }

    /// The body of an event's callbacks. Who receives them need not have a key, so the links to pictures are signed, unless
    /// that is configured otherwise; from the time of the event, so that each attempt sends the same bytes.
    pub(super) fn callback_body(&self, event: &Event) -> serde_json::Result<Vec<u8>> {
        let Some(lasts) = self.settings.callback_links else { return view::event_body(event) };
        let until = until(event.at, lasts);
        view::signed_event_body(event, |job, name| self.signed_query(job, name, until))
    }

    fn signed_query(&self, job: JobId, name: &str, until: Timestamp) -> String {
        let expires = until.as_second().to_string();
        let signature = self.vault.sign_link(&signed_text(job, name, &expires));
        format!("expires={expires}&signature={}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn signed_text(job: JobId, name: &str, expires: &str) -> String {
    format!("{job}/{name}/{expires}")
}

fn until(from: Timestamp, lasts: Duration) -> Timestamp {
    from.checked_add(lasts).unwrap_or(Timestamp::MAX)
}

fn pictures(job: &Job) -> Vec<(String, Format)> {
    let original = job.input.as_ref().map(|input| (ORIGINAL.to_owned(), input.format));
    let made = job.artifacts.iter().map(|artifact| (artifact.name.clone(), artifact.format));
    original.into_iter().chain(made).collect()
}

fn listed(pictures: &[(String, Format)]) -> String {
    pictures.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}
