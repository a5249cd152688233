//! What health checks do to the set: those that fail are set aside, while enough others are well.

use std::sync::Arc;

use tokio::time::Instant;

use super::{NewService, Registry};
use crate::{check::Checked, endpoint::Endpoint, probe::ProbeError};

impl<N: NewService> Registry<N> {
    /// A health check of the endpoint with this id ended. True if it is healthy or unhealthy only now.
    pub fn on_checked(&mut self, now: Instant, id: u64, result: Result<(), ProbeError>) -> bool {
        let (rise, fall) = (self.config.check_rise, self.config.check_fall);
        let slot = self.slots.iter_mut().find(|slot| slot.endpoint.id() == id);
        let is_news = slot.is_some_and(|slot| slot.checked.update(now, result, rise, fall));
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

    /// What the checks of this endpoint amount to.
    pub(crate) fn health_of(&self, id: u64) -> Option<(&Arc<Endpoint>, &Checked)> {
        let slot = self.slots.iter().find(|slot| slot.endpoint.id() == id)?;
        Some((&slot.endpoint, &slot.checked))
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
