//! One attempt of a delivery: from a claim to its record.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::vault::{Context, VaultError};
use super::{Service, ServiceError};
use crate::clock::{Stopwatch, entropy, random_fraction};
use crate::domain::delivery::{Attempt, Delivery, ErrorClass, Failure, Fault, Verdict};
use crate::domain::event::Event;
use crate::domain::secret::SigningSecret;
use crate::domain::trace::TraceParent;
use crate::notify::webhook::sender::{Outcome, Request};
use crate::store::StoreError;
use crate::telemetry;

impl Service {
    /// Takes up to `limit` deliveries that are due.
    pub async fn claim_deliveries(&self, limit: usize) -> Result<Vec<(Delivery, Event)>, ServiceError> {
        let now = self.clock.now();
        Ok(self.store.claim_deliveries(self.worker, limit, self.settings.attempt_lease, now).await?)
    }

    /// Makes the attempt and records it. When `cut_off` comes first, the delivery is given back: whether
    /// it arrived is not known, so it is sent again, under the same id.
    pub async fn deliver(&self, delivery: Delivery, event: &Event, cut_off: &CancellationToken) {
        let recorded = tokio::select! {
            recorded = self.attempt_delivery(&delivery, event) => recorded,
            () = cut_off.cancelled() => {
                match self.store.give_back_delivery(delivery.id, delivery.token()).await {
                    // Its record was on its way already when it was cut off.
                    Err(StoreError::StaleDelivery(_)) => Ok(()),
                    other => other.map_err(ServiceError::from),
                }
            }
        };
        if let Err(error) = recorded {
            // Its lease runs out, and it is sent again.
            tracing::error!(delivery = %delivery.id, error = &error as &dyn std::error::Error, "an attempt was not recorded");
        }
    }

    async fn attempt_delivery(&self, delivery: &Delivery, event: &Event) -> Result<(), ServiceError> {
        let number = delivery.attempt_count + 1;
        let started_at = self.clock.now();
        let outcome = match self.send(delivery, event, number, started_at).await {
            Ok(outcome) => outcome,
            // It has its record, too: what cannot be sent is not to be tried in silence for ever.
            Err(error) => unsendable(&error),
        };
        let now = self.clock.now();
        let Outcome { duration, timings, remote_addr, response, error } = outcome;
        let mut attempt = Attempt {
            number,
            trigger: delivery.trigger,
            started_at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            timings,
            remote_addr,
            response,
            error,
            next_attempt_at: None,
        };
        let verdict = self.verdict(delivery, &attempt, now);
        if let Verdict::RetryAt(due) = verdict {
            attempt.next_attempt_at = Some(due);
        }
        log(delivery, &attempt, &verdict);
        count(delivery, duration, &verdict, now);
        // Its record is what makes the attempt known, so it waits for room.
        self.when_there_is_room(|| {
            let (attempt, verdict) = (attempt.clone(), verdict.clone());
            self.store.settle_delivery(delivery.id, delivery.token(), attempt, verdict, now)
        })
        .await?;
        self.changed.notify_waiters();
        Ok(())
    }

    /// Nothing is sent rather than something else under the event's id, or without its signature.
    async fn send(
        &self,
        delivery: &Delivery,
        event: &Event,
        number: u32,
        started_at: Timestamp,
    ) -> Result<Outcome, ServiceError> {
        let id = event.id.to_string();
        let body = self
            .callback_body(event)
            .map_err(|error| StoreError::Corrupt(format!("the event {id} cannot be written: {error}")))?;
        let stopwatch = Stopwatch::start();
        let origin = match self.permission(&delivery.client, &delivery.url).await {
            Ok(origin) => origin,
            Err(failure) => return Ok(Outcome::failed(stopwatch.elapsed(), failure)),
        };
        let secrets = self.secrets_of(delivery).await?;
        let headers = self.headers_of(delivery)?;
        let request = Request {
            url: &delivery.url,
            id: &id,
            timestamp: started_at.as_second(),
            attempt: number,
            secrets: &secrets,
            key: self.signing_key(),
            origin,
            headers: &headers,
            body: body.into(),
        };
        Ok(self.sender.attempt(&request).await)
    }

    /// What signs a delivery's attempts: its job's secret alone, or all that its client has at the moment.
    async fn secrets_of(&self, delivery: &Delivery) -> Result<Vec<SigningSecret>, ServiceError> {
        match &delivery.secret {
            None => {
                let active = self.signing_secrets(&delivery.client).await?;
                Ok(active.into_iter().map(|open| open.secret).collect())
            }
            Some(sealed) => Ok(vec![self.vault.open_secret(sealed, Context::OfJob(delivery.job_id))?]),
        }
    }

    /// The headers that its job wants sent along.
    fn headers_of(&self, delivery: &Delivery) -> Result<HeaderMap, ServiceError> {
        let mut headers = HeaderMap::new();
        for (name, sealed) in &delivery.headers {
            let value = self.vault.open(sealed, Context::Header(delivery.job_id, name))?;
            let value = if name == TraceParent::HEADER { next_step(value) } else { value };
            let damaged = |_| ServiceError::from(VaultError::Damaged);
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| VaultError::Damaged)?;
            let mut value = HeaderValue::from_bytes(&value).map_err(damaged)?;
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }

    /// What comes of an attempt: its own schedule, but for what the receiver asked for.
    fn verdict(&self, delivery: &Delivery, attempt: &Attempt, now: Timestamp) -> Verdict {
        if attempt.error.is_none() {
            return Verdict::Delivered;
        }
        if attempt.asks_to_abort() {
            return Verdict::Exhausted;
        }
        let policy = self.settings.delivery_retry.with(delivery.retry);
        let made = attempt.number.saturating_sub(delivery.earlier_attempts);
        match policy.next_attempt_at(now, made, random_fraction()) {
            None => Verdict::Exhausted,
            Some(due) => {
                // Never later than the longest delay: a receiver cannot put a callback off for ever.
                let latest = now.checked_add(policy.max_delay).unwrap_or(Timestamp::MAX);
                let asked = attempt.retry_after(now).map_or(due, |asked| asked.min(latest));
                Verdict::RetryAt(due.max(asked))
            }
        }
    }
}

/// An attempt is a step of its own. What is no trace is sent as it came.
fn next_step(value: Vec<u8>) -> Vec<u8> {
    let parent = str::from_utf8(&value).ok().and_then(|text| text.parse::<TraceParent>().ok());
    parent.map_or(value, |parent| parent.next(entropy()).to_string().into_bytes())
}

/// What an attempt comes to that this service cannot make.
fn unsendable(error: &ServiceError) -> Outcome {
    tracing::error!(error = error as &dyn std::error::Error, "a callback cannot be sent");
    let detail = format!("this service cannot send it: {error}");
    let failure = Failure { fault: Fault::Service, ..Failure::new(ErrorClass::Protocol, detail) };
    Outcome::failed(Duration::ZERO, failure)
}

/// One line with everything that was decided.
fn log(delivery: &Delivery, attempt: &Attempt, verdict: &Verdict) {
    tracing::info!(
        delivery = %delivery.id,
        job = %delivery.job_id,
        destination = delivery.destination(),
        attempt = attempt.number,
        duration_ms = attempt.duration_ms,
        status = attempt.response.as_ref().map(|response| response.status),
        error = attempt.error.as_ref().map(|error| error.class.as_str()),
        next_attempt_at = attempt.next_attempt_at.map(tracing::field::display),
        outcome = outcome(verdict),
        "delivery.attempt"
    );
}

fn count(delivery: &Delivery, duration: Duration, verdict: &Verdict, now: Timestamp) {
    metrics::counter!(telemetry::DELIVERIES_TOTAL, "outcome" => outcome(verdict)).increment(1);
    metrics::histogram!(telemetry::ATTEMPT_SECONDS).record(duration.as_secs_f64());
    if *verdict == Verdict::Delivered && delivery.earlier_attempts == 0 {
        let lag = now.duration_since(delivery.created_at).as_secs_f64();
        metrics::histogram!(telemetry::LAG_SECONDS).record(lag.max(0.0));
    }
}

fn outcome(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "delivered",
        Verdict::RetryAt(_) => "retry",
        Verdict::Exhausted => "exhausted",
    }
}
