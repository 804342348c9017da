//! Accepting a job whose picture is to be fetched: nothing is asked of its source before the answer.

use std::sync::Arc;

use super::{Accepted, Fields, accepted, check_fields, fingerprint};
use crate::clock::entropy;
use crate::domain::client::ClientId;
use crate::domain::id::JobId;
use crate::domain::job::Source;
use crate::service::error::FieldError;
use crate::service::intake::Slot;
use crate::service::vault::Context;
use crate::service::{Service, ServiceError};
use crate::store::{Idempotency, StoreError, Submission};

/// A request for a job whose picture is elsewhere.
pub struct SourceRequest {
    /// Who asks.
    pub client: ClientId,
    /// Where the picture is.
    pub source_url: Option<String>,
    /// The other fields.
    pub fields: Fields,
    /// What was found to be wrong with the fields when they were read.
    pub faults: Vec<FieldError>,
    /// The `Idempotency-Key`.
    pub idempotency_key: Option<String>,
}

impl Service {
    /// Accepts a job whose picture is to be fetched. It is durable when this returns.
    pub async fn submit_source(&self, slot: Slot, request: SourceRequest) -> Result<Accepted, ServiceError> {
        let SourceRequest { client, source_url, fields, mut faults, idempotency_key } = request;
        let is_named = faults.iter().any(|fault| fault.field == "source_url");
        let mut refuse = |code, detail: &str| {
            faults.push(FieldError { field: "source_url".to_owned(), code, detail: detail.to_owned() });
        };
        let guard = self.fetching.guard();
        if guard.is_none() {
            refuse("disabled", "this service fetches no pictures; send the picture itself");
        } else if source_url.is_none() && !is_named {
            refuse("required", "where the picture is fetched from");
        }
        let callback_url = fields.callback_url.as_deref().map(|text| self.guard.parse(text)).transpose();
        let Some((guard, source_url)) = guard.zip(source_url).filter(|_| faults.is_empty()) else {
            let has_callback = fields.callback_url.is_some();
            let url = callback_url.ok().flatten();
            if let Err(ServiceError::Invalid(more)) =
                check_fields(&fields, &self.settings.presets, url, self.clock.now())
            {
                // One that may not be called is there all the same, and is told of once the rest is right.
                let is_missed =
                    |fault: &FieldError| fault.field == "callback_url" && fault.code == "required";
                faults.extend(more.into_iter().filter(|fault| !(has_callback && is_missed(fault))));
            }
            return Err(ServiceError::Invalid(faults));
        };
        let url = guard.parse(&source_url).map_err(ServiceError::SourceRefused)?;
        let callback_url = callback_url?;
        if let Some(url) = &callback_url {
            self.check_host(url).await?;
        }
        let now = self.clock.now();
        let wanted = check_fields(&fields, &self.settings.presets, callback_url, now)?;
        // A signature in it may be guessed from a plain hash.
        let picture = self.vault.digest(url.as_str().as_bytes());
        let idempotency = idempotency_key
            .map(|key| Idempotency { key, fingerprint: fingerprint(&picture, &wanted, &self.vault) });
        let id = JobId::new(now, &entropy());
        let sealed = self.vault.seal(url.as_str().as_bytes(), Context::Source(id));
        let job = self.new_job(id, client, Source::new(&url, sealed), wanted);
        let submission = Submission { job, idempotency };
        let store = Arc::clone(&self.store);
        // On a task of its own, as the slot counts until the job counts as waiting.
        let commit = tokio::spawn(async move {
            let submitted = store.submit_source(submission, now).await;
            drop(slot);
            submitted
        });
        accepted(commit.await.map_err(|error| StoreError::Engine(error.into()))??)
    }
}
