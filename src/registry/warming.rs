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
    pub(super) fn enter(&self, now: Instant, endpoint: &Arc<Endpoint>) -> (N::Service, Presence) {
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
            self.relisted = true;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{Config, EmptyMode, by_hand::ByHand};

    const SECOND: Duration = Duration::from_secs(1);

    /// Hosts 1 to `n` in the set, and a warm-up of 3 s.
    fn of(n: u8) -> ByHand {
        let config = Config {
            warm_up: Some(3 * SECOND),
            empty: EmptyMode::Immediate,
            ..Config::default()
        };
        let mut hand = ByHand::new(config, true);
        hand.answer(1..=n);
        assert_eq!(hand.set.len(), usize::from(n), "the first waits for nobody");
        assert_eq!(hand.told(), []);
        hand
    }

    fn warming(hand: &ByHand) -> usize {
        hand.registry.status().warming()
    }

    #[test]
    fn a_new_endpoint_joins_when_a_connect_succeeds() {
        let mut hand = of(2);
        hand.answer(1..=3);
        assert_eq!((hand.hosts(), hand.told()), (vec![1, 2], vec![("warm", 3)]));
        assert!(
            hand.registry
                .status()
                .to_string()
                .starts_with("web: 2 endpoints, 1 warming")
        );
        hand.wait(SECOND);
        hand.answer(1..=3);
        hand.reached(1);
        assert_eq!((hand.hosts(), warming(&hand)), (vec![1, 2], 1));
        hand.reached(3);
        assert_eq!((hand.hosts(), warming(&hand)), (vec![1, 2, 3], 0));
        assert_eq!(hand.told(), []);
        assert_eq!(hand.registry.status().added(), 3);
    }

    #[test]
    fn one_that_refuses_is_set_aside_as_any_other() {
        let mut hand = of(2);
        hand.answer(1..=3);
        hand.refused(3);
        assert_eq!(hand.position(3), Some(Position::Ejected));
        hand.wait(SECOND);
        assert_eq!(hand.position(3), Some(Position::Unknown));
    }

    #[test]
    fn one_that_hangs_joins_at_the_deadline() {
        let mut hand = of(2);
        hand.answer(1..=3);
        assert_eq!(hand.registry.slot_deadline, Some(hand.now + 3 * SECOND));
        hand.wait(Duration::from_millis(2999));
        assert_eq!(hand.hosts(), [1, 2]);
        hand.wait(Duration::from_millis(1));
        assert_eq!(hand.position(3), Some(Position::Unknown));
        assert!(!hand.endpoint(3).is_warming(), "nobody waits any more");
    }

    #[test]
    fn nobody_waits_where_no_other_takes_requests() {
        // Each of these refuses connections.
        let mut hand = of(2);
        hand.refused(1);
        hand.refused(2);
        hand.answer(1..=3);
        assert_eq!(hand.hosts(), [1, 2, 3]);
        // The others refuse while one waits.
        let mut hand = of(2);
        hand.answer(1..=3);
        hand.refused(1);
        assert_eq!(hand.hosts(), [1, 2]);
        hand.refused(2);
        assert_eq!(hand.position(3), Some(Position::Unknown));
        // After zero replicas.
        let mut hand = of(1);
        hand.nothing();
        assert!(hand.hosts().is_empty());
        hand.answer([2]);
        assert_eq!((hand.hosts(), hand.told()), (vec![2], vec![("removed", 1)]));
    }

    #[test]
    fn removals_wait_for_nobody_but_leave_no_empty_set() {
        let mut hand = of(3);
        hand.answer([2, 3, 4]);
        assert_eq!((hand.hosts(), warming(&hand)), (vec![2, 3], 1));
        assert_eq!(hand.told(), [("warm", 4), ("removed", 1)]);
        // Both others go too, once that is said twice.
        hand.answer([4]);
        assert_eq!(hand.hosts(), [2, 3]);
        hand.answer([4]);
        assert_eq!(hand.hosts(), [4]);
    }

    #[test]
    fn one_that_disappears_while_it_waits_is_gone_whatever_its_connect_does() {
        let mut hand = of(2);
        hand.answer(1..=3);
        hand.answer(1..=2);
        assert_eq!(hand.told(), [("warm", 3), ("retired", 3)]);
        assert_eq!(warming(&hand), 0);
        hand.reached(3);
        hand.wait(10 * SECOND);
        assert_eq!((hand.hosts(), hand.told()), (vec![1, 2], vec![]));
        assert_eq!(hand.registry.status().removed(), 0, "it was never added");
        // So does one that waits when emptiness is believed.
        hand.answer(1..=3);
        hand.nothing();
        assert_eq!((hand.hosts(), warming(&hand)), (vec![], 0));
        assert!(hand.told().contains(&("retired", 3)));
    }

    #[test]
    fn an_answer_that_may_lag_drops_no_waiting_endpoint() {
        let mut hand = of(2);
        hand.answer(1..=6);
        // Four of six are missing.
        hand.answer(1..=2);
        assert_eq!(warming(&hand), 4);
        hand.answer(1..=6);
        assert_eq!(hand.told().len(), 4, "each was asked once to connect");
        for host in 3..=6 {
            hand.reached(host);
        }
        assert_eq!(hand.hosts(), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn one_that_returns_is_known_and_does_not_wait() {
        let mut hand = of(3);
        hand.answer(1..=2);
        hand.answer(1..=3);
        assert_eq!(hand.hosts(), [1, 2, 3]);
        assert_eq!(hand.told(), [("removed", 3), ("returned", 3)]);
    }

    #[test]
    fn a_service_that_does_not_connect_by_itself_does_not_wait_and_nobody_asks_without_warm_up() {
        let config = Config {
            warm_up: Some(3 * SECOND),
            ..Config::default()
        };
        let mut hand = ByHand::new(config, false);
        hand.answer([1]);
        hand.answer([1, 2]);
        assert_eq!((hand.hosts(), hand.told()), (vec![1, 2], vec![("warm", 2)]));
        for off in [None, Some(Duration::ZERO)] {
            let config = Config {
                warm_up: off,
                ..Config::default()
            };
            let mut hand = ByHand::new(config, true);
            hand.answer([1]);
            hand.answer([1, 2]);
            assert_eq!((hand.hosts(), hand.told()), (vec![1, 2], vec![]));
        }
    }
}
