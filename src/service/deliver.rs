//! One attempt of a delivery: from a claim to its record.

use tokio_util::sync::CancellationToken;

use super::{Service, ServiceError, view};
use crate::clock::random_fraction;
use crate::domain::delivery::{Attempt, Delivery, Verdict};
use crate::domain::event::Event;
use crate::notify::webhook::sender::{Outcome, Request};
use crate::store::StoreError;

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
                match self.store.give_back_delivery(delivery.id, delivery.lease_token, self.clock.now()).await {
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
        let id = event.id.to_string();
        // Nothing is sent rather than something else under the event's id.
        let body = view::event_body(event)
            .map_err(|error| StoreError::Corrupt(format!("the event {id} cannot be written: {error}")))?;
        let secret = delivery.secret.as_ref().unwrap_or(&self.signing_secret);
        let outcome = self
            .sender
            .attempt(&Request {
                url: &delivery.url,
                id: &id,
                timestamp: started_at.as_second(),
                attempt: number,
                secrets: std::slice::from_ref(secret),
                body: body.into(),
            })
            .await;
        let now = self.clock.now();
        let verdict = self.verdict(&outcome, number, now);
        let Outcome { duration, remote_addr, response, error } = outcome;
        let attempt = Attempt {
            number,
            started_at,
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            remote_addr,
            response,
            error,
            next_attempt_at: match verdict {
                Verdict::RetryAt(due) => Some(due),
                Verdict::Delivered | Verdict::Exhausted => None,
            },
        };
        log(delivery, &attempt, &verdict);
        // Its record is what makes the attempt known, so it waits for room.
        self.when_there_is_room(|| {
            let (attempt, verdict) = (attempt.clone(), verdict.clone());
            self.store.settle_delivery(delivery.id, delivery.lease_token, attempt, verdict, now)
        })
        .await?;
        Ok(())
    }

    fn verdict(&self, outcome: &Outcome, attempts: u32, now: jiff::Timestamp) -> Verdict {
        if outcome.error.is_none() {
            return Verdict::Delivered;
        }
        match self.settings.delivery_retry.next_attempt_at(now, attempts, random_fraction()) {
            Some(due) => Verdict::RetryAt(due),
            None => Verdict::Exhausted,
        }
    }
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
        outcome = match verdict {
            Verdict::Delivered => "delivered",
            Verdict::RetryAt(_) => "retry",
            Verdict::Exhausted => "exhausted",
        },
        "delivery.attempt"
    );
}
