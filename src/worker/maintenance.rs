//! What time asks for, whether or not anybody works: deadlines, scheduled starts, and removing what is no longer kept.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::service::{Service, ServiceError};

/// Purging steps after which others get a turn.
const STEPS_IN_A_ROW: usize = 50;

/// How long a deadline may have passed unseen that was set since the last look.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Ends jobs at their deadlines even while every worker is busy. The claims of a worker that is free do the same.
pub(super) async fn keep_deadlines(service: Arc<Service>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let next = service.next_due().await.map(|due| due.deadline);
        match next {
            Ok(Some(due)) if due <= service.clock().now() => {
                pause_after(service.sweep_jobs().await, &stop).await;
            }
            Ok(due) => {
                let due = due.unwrap_or(Timestamp::MAX);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = service.clock().sleep_until(due) => {}
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
            Err(error) => pause_after(Err(error), &stop).await,
        }
    }
}

/// Removes what is no longer kept, now and at every interval, and looks through one shard for orphans each time.
pub(super) async fn remove_old(service: Arc<Service>, every: Duration, stop: CancellationToken) {
    let mut shard = 0_u8;
    while !stop.is_cancelled() {
        let work = async {
            for _ in 0..STEPS_IN_A_ROW {
                if !service.purge().await? {
                    break;
                }
            }
            for _ in 0..STEPS_IN_A_ROW {
                if !service.forget_audit().await? {
                    break;
                }
            }
            service.remove_orphans(shard).await
        };
        pause_after(work.await, &stop).await;
        shard = shard.wrapping_add(1);
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(every) => {}
        }
    }
}

pub(super) async fn pause_after(result: Result<(), ServiceError>, stop: &CancellationToken) {
    if let Err(error) = result {
        if !error.is_full() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "maintenance failed, and is tried again"
            );
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(super::RETRY_CLAIM) => {}
        }
    }
}
