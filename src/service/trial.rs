//! Trying a callback before it matters: a signed event that is about nothing.

use super::error::FieldError;
use super::{Service, ServiceError, view};
use crate::clock::{Stopwatch, entropy};
use crate::domain::client::ClientId;
use crate::domain::delivery::{Attempt, Trigger};
use crate::domain::id::EventId;
use crate::domain::secret::SigningSecret;
use crate::notify::webhook::guard::Refused;
use crate::notify::webhook::sender::{Outcome, Request};

/// Trials that may be under way at once: each holds a request open for as long as an attempt may take.
pub(super) const MAX_TRIALS: usize = 16;

/// What became of a trial.
#[derive(Debug)]
pub struct Trial {
    /// Why nothing was sent.
    pub refused: Option<Refused>,
    /// What was sent, and how that went.
    pub sent: Option<Sent>,
}

/// What was sent.
#[derive(Debug)]
pub struct Sent {
    /// The `webhook-id`.
    pub id: String,
    /// The `webhook-timestamp`.
    pub timestamp: i64,
    /// The body, which is what is signed.
    pub body: String,
    /// How it went.
    pub attempt: Attempt,
}

impl Service {
    /// Sends a signed event to a URL as a delivery's attempt would be sent; nothing of it is kept.
    pub async fn try_callback(
        &self,
        client: &ClientId,
        url: &str,
        secret: Option<&str>,
    ) -> Result<Trial, ServiceError> {
        let secrets = match secret.map(str::parse::<SigningSecret>).transpose() {
            Ok(Some(own)) => vec![own],
            Ok(None) => {
                let active = self.signing_secrets(client).await?;
                active.into_iter().map(|open| open.secret).collect()
            }
            Err(error) => {
                let field = FieldError {
                    field: "secret".to_owned(),
                    code: "not_a_secret",
                    detail: error.to_string(),
                };
                return Err(ServiceError::Invalid(vec![field]));
            }
        };
        let url = match self.guard.parse(url) {
            Ok(url) => url,
            Err(refused) => return Ok(Trial { refused: Some(refused), sent: None }),
        };
        let _place =
            self.trials.try_acquire().map_err(|_| ServiceError::TooManyTrials { limit: MAX_TRIALS })?;
        let started_at = self.clock.now();
        let id = EventId::new(started_at, &entropy()).to_string();
        let body = view::test_event(&id, started_at, &self.settings.base_url);
        let stopwatch = Stopwatch::start();
        let permission = self.permission(client, &url).await;
        let request = Request {
            url: &url,
            id: &id,
            timestamp: started_at.as_second(),
            attempt: 1,
            secrets: &secrets,
            key: self.signing_key(),
            origin: permission.as_ref().ok().copied().flatten(),
            headers: &http::HeaderMap::new(),
            body: body.clone().into(),
        };
        let outcome = match &permission {
            Ok(_) => self.sender.attempt(&request).await,
            Err(failure) => Outcome::failed(stopwatch.elapsed(), failure.clone()),
        };
        let Outcome { duration, timings, remote_addr, response, error } = outcome;
        let attempt = Attempt {
            number: 1,
            trigger: Trigger::Manual,
            started_at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            timings,
            remote_addr,
            response,
            error,
            next_attempt_at: None,
        };
        let timestamp = started_at.as_second();
        Ok(Trial { refused: None, sent: Some(Sent { id, timestamp, body, attempt }) })
    }
}
