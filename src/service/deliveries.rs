//! What operators do about deliveries and destinations.

use super::view::{DeliveryView, Reader};
use super::{Service, ServiceError};
use crate::domain::client::{Caller, ClientId};
use crate::domain::delivery::{Delivery, DeliveryConflict, DeliveryState};
use crate::domain::destination::Standing;
use crate::domain::id::{DeliveryId, DestinationId};
use crate::store::StoreError;
pub use crate::store::{DeliveryPage, DeliveryQuery, DestinationStatus};

impl Service {
    /// A delivery as its reader sees it; one that waits, with how its destination stands.
    #[must_use]
    pub fn view_delivery(&self, delivery: &Delivery, reader: Reader<'_>) -> DeliveryView {
        let mut view = DeliveryView::new(delivery, reader);
        let waits = delivery.state == DeliveryState::Pending;
        let standing = waits.then(|| self.store.standing(delivery.destination_id())).flatten();
        view.destination_state = standing.map(Standing::as_str);
        view
    }

    /// A page of the deliveries that the caller sees.
    pub async fn deliveries(
        &self,
        caller: &Caller,
        query: DeliveryQuery,
    ) -> Result<DeliveryPage, ServiceError> {
        let client = caller.only().cloned().or(query.client);
        Ok(self.store.deliveries(DeliveryQuery { client, ..query }).await?)
    }

    /// Calls a delivery off that waits.
    pub async fn cancel_delivery(&self, caller: &Caller, id: DeliveryId) -> Result<Delivery, ServiceError> {
        self.delivery(caller, id).await?;
        Ok(self.store.cancel_delivery(id, self.clock.now()).await?)
    }

    /// Has a delivery sent again at once, with its whole schedule; one that arrived only with `force`.
    pub async fn send_again(
        &self,
        caller: &Caller,
        id: DeliveryId,
        force: bool,
    ) -> Result<Delivery, ServiceError> {
        self.delivery(caller, id).await?;
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
        caller: &Caller,
        id: DestinationId,
    ) -> Result<DestinationStatus, ServiceError> {
        let found = self.store.destination(id).await?;
        let own = found.filter(|status| caller.sees(&status.destination.client));
        own.ok_or(ServiceError::NotFound { what: "destination" })
    }

    /// Those of up to `limit` destinations behind `after`, by id, that the caller sees and that are `of` this client; and
    /// where to go on if there are more.
    pub async fn destinations(
        &self,
        caller: &Caller,
        of: Option<&ClientId>,
        after: Option<DestinationId>,
        limit: usize,
    ) -> Result<(Vec<DestinationStatus>, Option<DestinationId>), ServiceError> {
        let mut found = self.store.destinations(after, limit.saturating_add(1)).await?;
        let has_more = found.len() > limit;
        found.truncate(limit);
        let next = found.last().filter(|_| has_more).map(|status| status.destination.id);
        found.retain(|status| {
            let client = &status.destination.client;
            caller.sees(client) && of.is_none_or(|of| of == client)
        });
        Ok((found, next))
    }

    /// Sends nothing more to a destination; what waits for it goes on waiting.
    pub async fn pause_destination(
        &self,
        caller: &Caller,
        id: DestinationId,
    ) -> Result<DestinationStatus, ServiceError> {
        self.destination(caller, id).await?;
        let paused = self.store.pause_destination(id, self.clock.now()).await?;
        tracing::info!(destination = %paused.id, origin = paused.origin, "a destination was paused");
        self.destination(caller, id).await
    }

    /// Sends to a destination again, whatever held it back.
    pub async fn resume_destination(
        &self,
        caller: &Caller,
        id: DestinationId,
    ) -> Result<DestinationStatus, ServiceError> {
        self.destination(caller, id).await?;
        let resumed = self.store.resume_destination(id, self.clock.now()).await?;
        tracing::info!(destination = %resumed.id, origin = resumed.origin, "a destination was resumed");
        self.destination(caller, id).await
    }
}
