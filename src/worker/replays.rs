//! Replays go on in small steps, each at its rate.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::maintenance::pause_after;
use crate::service::{Service, ServiceError};

/// Steps of a second, in which its deliveries are taken up evenly.
const STEPS_PER_SECOND: u32 = 10;

/// How often it is looked for a replay that nobody told of.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Goes on with every replay that is running, also with those of an earlier process.
pub(super) async fn advance(service: Arc<Service>, stop: CancellationToken) {
    for part in (0..STEPS_PER_SECOND).cycle() {
        if stop.is_cancelled() {
            return;
        }
        match step(&service, part).await {
            Ok(Some(pause)) => {
                let next = service.clock().now().checked_add(pause).unwrap_or(jiff::Timestamp::MAX);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = service.clock().sleep_until(next) => {}
                }
            }
            Ok(None) => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = service.replays_changed().notified() => {}
                    // Whoever started one may have gone before it could tell.
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            Err(error) => pause_after(Err(error), &stop).await,
        }
    }
}

/// One step of each; how long to wait for the next, if any is running.
async fn step(service: &Service, part: u32) -> Result<Option<Duration>, ServiceError> {
    let running = service.running_replays().await?;
    for id in &running {
        // One that fails holds up none of the others.
        if let Err(error) = service.advance_replay(*id, part, STEPS_PER_SECOND).await {
            if error.is_full() {
                return Err(error);
            }
            tracing::error!(replay = %id, error = &error as &dyn std::error::Error, "a replay could not go on");
        }
    }
    Ok((!running.is_empty()).then_some(Duration::from_secs(1) / STEPS_PER_SECOND))
}
