//! Make before break: a new endpoint may wait for its first connect, while others take the requests.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    NewService, Registry,
    lifecycle::Fate,
    slot::{Presence, Slot},
};
use crate::{endpoint::Endpoint, set::Position};

impl<N: NewService> Registry<N> {
    /// Makes the service of a new endpoint. The endpoint waits if that is wanted, others take requests
    /// meanwhile, and the service connects by itself.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        endpoint: &Arc<Endpoint>,
    ) -> (N::Service, Presence) {
        let deadline = self.config.warm_up.filter(|_| self.has_available());
        // Before the service can dial: that connect must not be missed.
        endpoint.set_warming(deadline.is_some());
        let service = self.new_service.new_service(endpoint);
        match deadline {
            Some(deadline) if self.new_service.warm(&service) => {
                let until = now + deadline;
                (service, Presence::Warming { until })
            }
            _ => {
                endpoint.set_warming(false);
                (service, Presence::Live)
            }
        }
    }

    /// Takes the waiting endpoints that are `ready` into the set.
    pub(super) fn admit(&mut self, ready: impl Fn(&Slot<N::Service>) -> bool) {
        if self.status.warming == 0 {
            return;
        }
        for slot in self
            .slots
            .iter_mut()
            .filter(|slot| slot.is_warming() && ready(slot))
        {
            slot.presence = Presence::Live;
            slot.endpoint.set_warming(false);
            self.added.push(Arc::clone(&slot.endpoint));
            self.status.added += 1;
            self.dirty = true;
        }
    }

    /// Drops the waiting endpoints that are `gone`: a connect that ends later finds nothing to change.
    pub(super) fn stop_warming(&mut self, gone: impl Fn(&Slot<N::Service>) -> bool) {
        if self.status.warming == 0 {
            return;
        }
        let gone = self
            .slots
            .extract_if(.., |slot| slot.is_warming() && gone(slot));
        self.fates
            .extend(gone.map(|slot| (Fate::Retired, slot.service)));
    }

    /// Whether an endpoint of the set takes requests.
    pub(super) fn has_available(&self) -> bool {
        self.sizes[..Position::Ejected as usize]
            .iter()
            .any(|&size| size > 0)
    }
}
