//! Whether every delivery is accounted for, and what is counted.

use jiff::Timestamp;

use super::{Service, ServiceError};
use crate::domain::destination::Standing;
use crate::store::{Audit, Ledger};
use crate::telemetry;

/// Destinations that are looked at for one count.
const MAX_DESTINATIONS: usize = 10_000;

impl Service {
    /// How many deliveries there are, by where they stand.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.store.ledger()
    }

    /// Counts every record anew, and checks that all fits together. It takes time in proportion to the store.
    pub async fn recount(&self) -> Result<Audit, ServiceError> {
        Ok(self.store.audit().await?)
    }

    /// When the oldest of the deliveries was made that have not arrived.
    async fn oldest_undelivered(&self) -> Result<Option<Timestamp>, ServiceError> {
        Ok(self.store.oldest_undelivered().await?)
    }

    /// What is counted, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<Option<String>, ServiceError> {
        let Some(handle) = telemetry::metrics() else { return Ok(None) };
        let ledger = self.ledger();
        for (state, count) in [
            ("accepted", ledger.accepted),
            ("delivered", ledger.delivered),
            ("waiting", ledger.waiting),
            ("exhausted", ledger.exhausted),
            ("cancelled", ledger.cancelled),
        ] {
            gauge(telemetry::LEDGER, Some(("state", state)), count);
        }
        gauge(telemetry::LEDGER_BALANCED, None, u64::from(ledger.is_balanced()));
        gauge(telemetry::UNDELIVERED, Some(("state", "waiting")), ledger.waiting);
        gauge(telemetry::UNDELIVERED, Some(("state", "exhausted")), ledger.exhausted);
        let now = self.clock.now();
        let age = self.oldest_undelivered().await?.map_or(0, |at| now.duration_since(at).as_secs().max(0));
        gauge(telemetry::UNDELIVERED_OLDEST, None, age.unsigned_abs());
        let standings = self.store.standings(MAX_DESTINATIONS).await?;
        let held = [Standing::Suspended, Standing::Disabled, Standing::Paused];
        let held = held.iter().filter_map(|standing| standings.get(standing)).sum();
        gauge(telemetry::SUSPENDED, None, held);
        let waiting = self.store.waiting();
        gauge(telemetry::QUEUE_DEPTH, None, waiting.work);
        gauge(telemetry::FETCH_QUEUE_DEPTH, None, waiting.fetches);
        let (used, budget) = self.imaging.budget().usage();
        gauge(telemetry::IMAGING_MEMORY_USED, None, used);
        gauge(telemetry::IMAGING_MEMORY_BUDGET, None, budget);
        handle.run_upkeep();
        Ok(Some(handle.render()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn gauge(name: &'static str, label: Option<(&'static str, &'static str)>, value: u64) {
    match label {
        Some((key, label)) => metrics::gauge!(name, key => label).set(value as f64),
        None => metrics::gauge!(name).set(value as f64),
    }
}
