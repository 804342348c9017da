//! What operators do about deliveries and destinations.

use super::view::DeliveryView;
use super::{Service, ServiceError};
use crate::domain::client::ClientId;
use crate::domain::delivery::{Delivery, DeliveryConflict, DeliveryState};
use crate::domain::destination::Standing;
use crate::domain::id::{DeliveryId, DestinationId};
use crate::store::StoreError;
pub use crate::store::{DeliveryPage, DeliveryQuery, DestinationStatus};

impl Service {
    /// A delivery as clients see it; one that waits, with how its destination stands.
    #[must_use]
    pub fn view_delivery(&self, delivery: &Delivery) -> DeliveryView {
        let mut view = DeliveryView::new(delivery, &self.settings.base_url);
        let waits = delivery.state == DeliveryState::Pending;
        let standing = waits.then(|| self.store.standing(delivery.destination_id())).flatten();
        view.destination_state = standing.map(Standing::as_str);
        view
    }

    /// A page of deliveries.
    pub async fn deliveries(&self, query: DeliveryQuery) -> Result<DeliveryPage, ServiceError> {
        Ok(self.store.deliveries(query).await?)
    }

    /// Calls a delivery off that waits.
    pub async fn cancel_delivery(&self, client: &ClientId, id: DeliveryId) -> Result<Delivery, ServiceError> {
        self.delivery(client, id).await?;
        Ok(self.store.cancel_delivery(id, self.clock.now()).await?)
    }

    /// Has a delivery sent again at once, with its whole schedule; one that arrived only with `force`.
    pub async fn send_again(
        &self,
        client: &ClientId,
        id: DeliveryId,
        force: bool,
    ) -> Result<Delivery, ServiceError> {
        self.delivery(client, id).await?;
        self.store.send_again(id, force, self.clock.now()).await.map_err(|error| match error {
            StoreError::Delivery(DeliveryConflict(DeliveryState::Delivered)) => {
                ServiceError::AlreadyDelivered
            }
            other => other.into(),
        })
    }

    /// The destination of this id.
    pub async fn destination(
        &self,
        client: &ClientId,
        id: DestinationId,
    ) -> Result<DestinationStatus, ServiceError> {
        let found = self.store.destination(id).await?;
        let own = found.filter(|status| status.destination.client == *client);
        own.ok_or(ServiceError::NotFound { what: "destination" })
    }

    /// Up to `limit` of a client's destinations behind `after`, by id; and where to go on if there are more.
    pub async fn destinations(
        &self,
        client: &ClientId,
        after: Option<DestinationId>,
        limit: usize,
    ) -> Result<(Vec<DestinationStatus>, Option<DestinationId>), ServiceError> {
        let mut found = self.store.destinations(after, limit.saturating_add(1)).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|status| status.destination.id);
        found.retain(|status| status.destination.client == *client);
        Ok((found, next))
    }

    /// Sends nothing more to a destination; what waits for it goes on waiting.
    pub async fn pause_destination(
        &self,
        client: &ClientId,
        id: DestinationId,
    ) -> Result<DestinationStatus, ServiceError> {
        self.destination(client, id).await?;
        let paused = self.store.pause_destination(id, self.clock.now()).await?;
        tracing::info!(destination = %paused.id, origin = paused.origin, "a destination was paused");
        self.destination(client, id).await
    }

    /// Sends to a destination again, whatever held it back.
    pub async fn resume_destination(
        &self,
        client: &ClientId,
        id: DestinationId,
    ) -> Result<DestinationStatus, ServiceError> {
        self.destination(client, id).await?;
        let resumed = self.store.resume_destination(id, self.clock.now()).await?;
        tracing::info!(destination = %resumed.id, origin = resumed.origin, "a destination was resumed");
        self.destination(client, id).await
    }
}
