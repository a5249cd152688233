//! The service of an endpoint: made when the endpoint appears, and told what becomes of it.

use std::{mem, sync::Arc};

use tokio::time::Instant;

use super::{
    Registry,
    slot::{Presence, Slot},
};
use crate::endpoint::Endpoint;

/// Makes the service of an endpoint when the endpoint appears, and tells it what becomes of the
/// endpoint. Closures of the endpoint count; they tell nothing.
///
/// ```text
///   new_service (warm) ---> in the set ---> removed ---> retired
///                               ^              |
///                               +-- returned <-+
/// ```
///
/// All of it runs in the driver: return at once, connect and close elsewhere. Readers have the new set
/// before a service is told: no pick that begins later chooses a removed endpoint, and one may choose a
/// returned endpoint a moment early. A request of an earlier pick may still come to a removed service
/// and is best served, on a connection that is not kept.
///
/// When discovery ends, nothing is told: the handles that remain go on with the set they have, and the
/// services end with the last handle.
///
/// ```
/// use headless_lb::{Balancer, Endpoint, Fixed, NewService};
/// use std::{net::SocketAddr, sync::Arc};
/// use tokio::sync::watch;
///
/// struct Connect;
///
/// /// What the connections of one pod watch: whether to stay when idle, and whether to end.
/// #[derive(Clone)]
/// struct Pod(Arc<watch::Sender<&'static str>>);
///
/// impl NewService for Connect {
///     type Service = Pod;
///
///     fn new_service(&self, _endpoint: &Arc<Endpoint>) -> Pod {
///         Pod(Arc::new(watch::Sender::new("keep alive")))
///     }
///     fn removed(&self, pod: &Pod) {
///         pod.0.send_replace("close when idle");
///     }
///     fn returned(&self, pod: &Pod) {
///         pod.0.send_replace("keep alive");
///     }
///     fn retired(&self, pod: &Pod) {
///         pod.0.send_replace("close");
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pods = Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))]);
/// let balancer = Balancer::builder(pods).spawn_with(Connect);
/// # let _ = balancer; }
/// ```
pub trait NewService: Send + Sync + 'static {
    /// The service. Cloned for every request, so it should be a handle.
    type Service: Clone + Send + Sync + 'static;

    /// Makes it.
    fn new_service(&self, endpoint: &Arc<Endpoint>) -> Self::Service;

    /// Connects now, if the service can: true if it does, and will report the end of it
    /// ([`Balancer::reached`](crate::Balancer::reached),
    /// [`unreachable`](crate::Balancer::unreachable)), for which the endpoint waits before it is in the
    /// set. Called after [`new_service`](Self::new_service), and only with
    /// [`warm_up`](crate::Builder::warm_up). Default: false, the endpoint waits for nothing.
    fn warm(&self, service: &Self::Service) -> bool {
        let _ = service;
        false
    }

    /// The endpoint is not in the set any more: idle connections have no use, what is in flight may
    /// end. Default: nothing.
    fn removed(&self, service: &Self::Service) {
        let _ = service;
    }

    /// The endpoint was removed, and is in the set again. Default: nothing.
    fn returned(&self, service: &Self::Service) {
        let _ = service;
    }

    /// The endpoint is gone for good: what is still in flight ends now, [`linger`](crate::Builder::linger)
    /// after it was removed. At once if it disappeared before it was in the set at all.
    /// Default: nothing.
    fn retired(&self, service: &Self::Service) {
        let _ = service;
    }
}

impl<F, S> NewService for F
where
    F: Fn(&Arc<Endpoint>) -> S + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
{
    type Service = S;

    fn new_service(&self, endpoint: &Arc<Endpoint>) -> S {
        self(endpoint)
    }
}

/// What became of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Removed,
    Returned,
    Retired,
}

impl<N: NewService> Registry<N> {
    /// Tells services what became of their endpoints since the last call, in order.
    ///
    /// Call it after each event, when the readers have what [`publish`](Self::publish) gave, if it gave
    /// anything: the end of a linger changes no set.
    pub fn tell_services(&mut self) {
        for (fate, service) in mem::take(&mut self.fates) {
            match fate {
                Fate::Removed => self.new_service.removed(&service),
                Fate::Returned => self.new_service.returned(&service),
                Fate::Retired => self.new_service.retired(&service),
            }
        }
    }

    /// Retires what was removed so long ago.
    pub(super) fn end_lingers(&mut self, now: Instant) {
        let linger = self.config.linger;
        let is_over = |slot: &mut Slot<_>| matches!(slot.presence, Presence::Absent { since } if since + linger <= now);
        let slots = self.slots.extract_if(.., is_over);
        let drained = self.draining.extract_if(.., |(end, _)| *end <= now);
        let services = slots
            .map(|slot| slot.service)
            .chain(drained.map(|(_, service)| service));
        self.fates
            .extend(services.map(|service| (Fate::Retired, service)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::{
        endpoint::Address,
        outcome::Cause,
        registry::{
            Config,
            by_hand::{ByHand, addr},
        },
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn of(hosts: impl IntoIterator<Item = u8>) -> ByHand {
        let mut hand = ByHand::new(Config::default(), true);
        hand.answer(hosts);
        assert_eq!(hand.told(), [], "there is nothing to tell of what is new");
        hand
    }

    #[test]
    fn a_service_is_told_that_its_endpoint_left_and_when_it_is_gone_for_good() {
        let mut hand = of(1..=3);
        hand.answer([1, 3]);
        assert_eq!(hand.told(), [("removed", 2)]);
        assert_eq!(hand.registry.slot_deadline, Some(hand.now + 30 * SECOND));
        hand.wait(29 * SECOND);
        assert_eq!(hand.told(), []);
        let generation = hand.set.generation();
        hand.wait(SECOND);
        assert_eq!(hand.told(), [("retired", 2)]);
        assert_eq!(hand.set.generation(), generation, "no set changed");
        hand.wait(60 * SECOND);
        assert_eq!(hand.told(), []);
    }

    #[test]
    fn a_service_whose_endpoint_returns_is_told_and_is_not_retired() {
        let mut hand = of(1..=3);
        hand.answer([1, 3]);
        hand.wait(20 * SECOND);
        hand.answer(1..=3);
        assert_eq!(hand.told(), [("removed", 2), ("returned", 2)]);
        hand.wait(60 * SECOND);
        assert_eq!(hand.told(), []);
    }

    #[test]
    fn all_services_are_told_when_emptiness_is_believed() {
        let mut hand = of(1..=2);
        for _ in 0..3 {
            assert_eq!(hand.told(), [], "doubt tells nothing");
            hand.wait(5 * SECOND);
            hand.nothing();
        }
        let mut told = hand.told();
        told.sort_unstable();
        assert_eq!(told, [("removed", 1), ("removed", 2)]);
        hand.wait(30 * SECOND);
        assert_eq!(hand.told().len(), 2);
    }

    #[test]
    fn a_pod_that_closed_its_listener_may_still_end_its_responses() {
        let mut hand = of(1..=3);
        hand.answer([1, 3]);
        hand.wait(10 * SECOND);
        hand.refused(2);
        assert_eq!(hand.told(), [("removed", 2)]);
        hand.wait(19 * SECOND);
        assert_eq!(hand.told(), []);
        assert_eq!(hand.registry.slot_deadline, Some(hand.now + SECOND));
        hand.wait(SECOND);
        assert_eq!(hand.told(), [("retired", 2)]);
    }

    #[test]
    fn the_service_of_a_pod_whose_address_another_has_drains_beside_the_new_one() {
        let mut hand = of([]);
        let named = |second: &'static str| {
            [("db-0", 1), ("db-1", 2), (second, 3)]
                .into_iter()
                .map(|(name, host)| Address::from(addr(host)).named(name))
        };
        hand.listed(named("db-2"));
        hand.listed(named("db-3"));
        assert_eq!(hand.told(), [("removed", 3)]);
        assert_eq!(hand.hosts(), [1, 2, 3]);
        hand.wait(30 * SECOND);
        assert_eq!(hand.told(), [("retired", 3)]);
        assert_eq!(hand.hosts(), [1, 2, 3]);
    }

    #[test]
    fn a_connect_that_ends_late_revives_nothing() {
        let mut hand = of(1..=3);
        let late = hand.endpoint(2);
        hand.refused(2);
        hand.answer([1, 3]);
        assert_eq!(hand.told(), [("removed", 2)]);
        hand.reached(2);
        assert_eq!((hand.hosts(), hand.told()), (vec![1, 3], vec![]));
        hand.wait(30 * SECOND);
        assert_eq!(hand.told(), [("retired", 2)]);
        late.unreachable(Cause::Refused);
        hand.reached(2);
        assert_eq!((hand.hosts(), hand.told()), (vec![1, 3], vec![]));
    }
}
