//! The lane of pictures that are fetched. It has places of its own, so that a source which hangs holds up none that
//! are here.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Permit, Work};
use crate::service::fetch::Claim;
use crate::service::{Service, ServiceError};

pub(super) struct Fetches {
    service: Arc<Service>,
    room: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Fetches {
    pub(super) fn new(service: &Arc<Service>, stop: CancellationToken) -> Self {
        let room = Arc::new(Semaphore::new(service.fetches_at_once()));
        Self { service: Arc::clone(service), room, stop }
    }
}

impl Work for Fetches {
    type Item = Claim;

    fn service(&self) -> &Service {
        &self.service
    }

    fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    fn wake(&self) -> &Notify {
        &self.service.signals().fetches
    }

    async fn claim(&self, limit: usize) -> Result<Vec<Claim>, ServiceError> {
        self.service.claim_fetches(limit).await
    }

    async fn next_due(&self) -> Result<Option<Timestamp>, ServiceError> {
        self.service.next_fetch_due().await
    }

    fn run(&self, claim: Claim, _: Permit) -> impl Future<Output = ()> + Send + 'static {
        let (service, stop) = (Arc::clone(&self.service), self.stop.clone());
        async move { service.fetch(claim, &stop).await }
    }
}
