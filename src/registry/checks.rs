//! What health checks do to the set: those that fail are set aside, while enough others are well.

use std::{collections::BTreeMap, sync::Arc};

use tokio::time::Instant;

use super::{HealthEvent, NewService, Registry, slot::Slot};
use crate::{endpoint::Endpoint, probe::ProbeError};

impl<N: NewService> Registry<N> {
    /// A health check of the endpoint with this id ended. True if it is healthy or unhealthy only now.
    pub fn on_checked(&mut self, now: Instant, id: u64, result: Result<(), ProbeError>) -> bool {
        self.on_all_checked(now, [(id, result)])
    }

    /// Several ended, all by now. True if any endpoint is healthy or unhealthy only now.
    ///
    /// Each endpoint's health comes to the same as with [`on_checked`](Self::on_checked) for each result, in order. What
    /// follows for the set is found once: one look at all endpoints, where that takes one for each change.
    ///
    /// ```
    /// use headless_lb::{ProbeError, Resolution, registry::{Config, Registry}};
    /// use std::net::SocketAddr;
    /// use tokio::time::Instant;
    ///
    /// let now = Instant::now();
    /// let mut registry = Registry::new("web.default", Config::default(), |_: &_| (), now);
    /// registry.on_asked(now);
    /// let pods = (1..=9).map(|host| SocketAddr::from(([10, 0, 0, host], 80)));
    /// registry.on_answer(now, Ok(Resolution::new(pods)));
    /// let all = registry.publish().expect("the set changed").into_snapshot();
    ///
    /// // Three pods fail, for the third time in a row.
    /// let ids: Vec<u64> = all.set().iter().take(3).map(|endpoint| endpoint.id()).collect();
    /// for is_news in [false, false, true] {
    ///     let failures = ids.iter().map(|&id| (id, Err(ProbeError::passing("no answer"))));
    ///     assert_eq!(registry.on_all_checked(now, failures), is_news);
    /// }
    /// let one = registry.publish().expect("one set without the three").into_snapshot();
    /// assert_eq!(one.set().available().len(), 6);
    /// ```
    pub fn on_all_checked(
        &mut self,
        now: Instant,
        results: impl IntoIterator<Item = (u64, Result<(), ProbeError>)>,
    ) -> bool {
        let mut by_id: BTreeMap<u64, Vec<Result<(), ProbeError>>> = BTreeMap::new();
        for (id, result) in results {
            by_id.entry(id).or_default().push(result);
        }
        let (rise, fall) = (self.config.check_rise, self.config.check_fall);
        let mut is_news = false;
        for slot in &mut self.slots {
            if by_id.is_empty() {
                break;
            }
            for result in by_id.remove(&slot.id).unwrap_or_default() {
                if slot.checked.update(now, result, rise, fall) {
                    is_news = true;
                    self.health_events.push(slot.told_of_checks());
                }
            }
        }
        if is_news {
            self.update(now);
        }
        is_news
    }

    /// Endpoints that fail their health checks, each with since when and the last failure; those that left and may
    /// return included.
    pub fn unhealthy(&self) -> impl Iterator<Item = (&Endpoint, Instant, &ProbeError)> {
        self.slots.iter().filter_map(|slot| {
            let unhealthy = slot.checked.unhealthy()?;
            Some((&*slot.endpoint, unhealthy.since, &*unhealthy.error))
        })
    }
}

impl<S> Slot<S> {
    /// What its last check changed.
    fn told_of_checks(&self) -> HealthEvent {
        let endpoint = Arc::clone(&self.endpoint);
        match self.checked.unhealthy() {
            Some(unhealthy) => HealthEvent::FailsChecks {
                endpoint,
                error: Arc::clone(&unhealthy.error),
            },
            None => HealthEvent::PassesChecks { endpoint },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, time::Duration};

    use super::*;
    use crate::{
        probe::Role,
        registry::{
            Config,
            by_hand::{ByHand, addr},
        },
        set::Position,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn of(n: u8, config: Config) -> ByHand {
        let mut hand = ByHand::new(config, true);
        hand.answer(1..=n);
        hand
    }

    fn failure() -> Result<(), ProbeError> {
        Err(ProbeError::passing("as scripted"))
    }

    /// As often as it takes.
    fn fails(hand: &mut ByHand, host: u8) {
        assert_eq!(
            [(); 3].map(|()| hand.checked(host, failure())),
            [false, false, true]
        );
    }

    fn recovers(hand: &mut ByHand, host: u8) {
        assert_eq!([(); 2].map(|()| hand.checked(host, Ok(()))), [false, true]);
    }

    fn ejected(hand: &ByHand) -> Vec<u8> {
        let is_ejected = |host: &u8| hand.position(*host) == Some(Position::Ejected);
        hand.hosts().into_iter().filter(is_ejected).collect()
    }

    #[test]
    fn one_that_fails_its_checks_is_set_aside_and_returns_when_it_passes_them() {
        let mut hand = of(3, Config::default());
        fails(&mut hand, 2);
        assert_eq!(ejected(&hand), [2]);
        let status = hand.registry.status();
        assert_eq!((status.endpoints(), status.unhealthy()), (3, 1));
        assert!(
            status
                .to_string()
                .starts_with("web: 3 endpoints, 1 unhealthy")
        );
        recovers(&mut hand, 2);
        assert!(ejected(&hand).is_empty());
        assert_eq!(hand.registry.status().unhealthy(), 0);
    }

    #[test]
    fn it_is_known_since_when_and_why() {
        let mut hand = of(2, Config::default());
        fails(&mut hand, 2);
        let since = hand.now;
        hand.wait(SECOND);
        hand.checked(2, Err(ProbeError::passing("still")));
        let unhealthy: Vec<_> = hand.registry.unhealthy().collect();
        let [(endpoint, at, error)] = unhealthy[..] else {
            panic!("{unhealthy:?}");
        };
        assert_eq!((endpoint.addr(), at), (addr(2), since));
        assert_eq!(error.source().unwrap().to_string(), "still");
    }

    #[test]
    fn results_that_come_together_make_one_set_and_each_is_told() {
        let mut hand = of(10, Config::default());
        let results = |hand: &ByHand| {
            let result = |host| match host {
                1..=4 => (hand.endpoint(host).id(), failure()),
                _ => (hand.endpoint(host).id(), Ok(())),
            };
            (1..=10).map(result).collect::<Vec<_>>()
        };
        let generation = hand.set.generation();
        for is_news in [false, false, true] {
            let results = results(&hand);
            assert_eq!(hand.registry.on_all_checked(hand.now, results), is_news);
            hand.hear();
        }
        assert_eq!(ejected(&hand), [1, 2, 3, 4]);
        assert_eq!(hand.set.generation(), generation + 1);
        let told = hand.registry.take_health_events().into_iter();
        let mut told: Vec<_> = told
            .map(|event| match event {
                HealthEvent::FailsChecks { endpoint, .. } => endpoint.addr(),
                other => panic!("{other:?}"),
            })
            .collect();
        told.sort_unstable();
        assert_eq!(told, [1, 2, 3, 4].map(addr));
    }

    #[test]
    fn two_results_of_one_endpoint_count_in_their_order() {
        let mut hand = of(3, Config::default());
        let id = hand.endpoint(2).id();
        let fails = || (id, failure());
        let row = [fails(), fails(), (id, Ok(())), fails(), fails()];
        assert!(!hand.registry.on_all_checked(hand.now, row));
        assert!(hand.registry.on_all_checked(hand.now, [fails()]));
        hand.hear();
        assert_eq!(ejected(&hand), [2]);
    }

    #[test]
    fn what_changes_no_health_publishes_nothing() {
        let mut hand = of(2, Config::default());
        let generation = hand.set.generation();
        hand.checked(1, failure());
        hand.checked(1, failure());
        hand.checked(1, Ok(()));
        assert_eq!(hand.set.generation(), generation);
        assert!(
            !hand.registry.on_checked(hand.now, u64::MAX, failure()),
            "nobody knows it"
        );
    }

    #[test]
    fn where_most_fail_nobody_is_set_aside_until_half_are_well() {
        let mut hand = of(3, Config::default());
        for host in 1..=3 {
            fails(&mut hand, host);
        }
        assert!(ejected(&hand).is_empty());
        assert_eq!(hand.registry.status().unhealthy(), 3);
        recovers(&mut hand, 3);
        assert!(ejected(&hand).is_empty() && hand.registry.status().is_panic());
        recovers(&mut hand, 2);
        assert_eq!(ejected(&hand), [1]);
        let mut hand = of(1, Config::default());
        fails(&mut hand, 1);
        assert!(ejected(&hand).is_empty(), "a single endpoint");
    }

    #[test]
    fn one_that_refuses_connections_counts_for_nothing_that_is_well() {
        let mut hand = of(3, Config::default());
        fails(&mut hand, 1);
        hand.refused(2);
        // One of three is left: checks do not count.
        assert_eq!(ejected(&hand), [2]);
        hand.refused(3);
        // The checks of 2 and 3 succeed, and their connects fail: 1 is the best there is.
        assert_eq!(ejected(&hand), [2, 3]);
        hand.wait(SECOND);
        assert_eq!(ejected(&hand), [1]);
    }

    #[test]
    fn a_new_endpoint_is_healthy_and_one_that_returns_is_what_it_was() {
        let mut hand = of(3, Config::default());
        fails(&mut hand, 2);
        hand.answer([1, 3]);
        assert_eq!(
            hand.registry.status().unhealthy(),
            0,
            "it is not in the set"
        );
        hand.answer(1..=4);
        assert_eq!(ejected(&hand), [2]);
    }

    #[test]
    fn a_check_moves_no_primary_and_not_the_last_replica() {
        let config = Config {
            probe_interval: Some(SECOND),
            ..Config::default()
        };
        let mut hand = of(3, config);
        hand.observed(1, Ok(Role::Primary.into()));
        hand.observed(2, Ok(Role::Replica.into()));
        hand.observed(3, Ok(Role::Replica.into()));
        fails(&mut hand, 1);
        assert_eq!(hand.position(1), Some(Position::Primary));
        fails(&mut hand, 2);
        assert_eq!(ejected(&hand), [2]);
        fails(&mut hand, 3);
        assert_eq!(hand.position(2), Some(Position::Replica));
        assert_eq!(hand.position(3), Some(Position::Replica));
        recovers(&mut hand, 2);
        assert_eq!(ejected(&hand), [3]);
    }
}
