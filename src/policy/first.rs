//! One endpoint, as long as it is there.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

use super::Policy;
use crate::{
    endpoint::Endpoint,
    set::{Candidates, Choice},
};

/// The same endpoint, as long as it is available; then the lowest in rank.
///
/// Rank is the StatefulSet ordinal, then the address: never the order of a DNS answer, which cluster
/// DNS shuffles. For active/standby services. It is *not* role detection, and two clients may hold
/// different firsts while their views differ: for databases use [`Primary`](crate::Primary).
///
/// It does not fail back: an endpoint of lower rank that returns waits until the current one is gone.
#[derive(Debug, Default)]
pub struct First {
    /// The id of the endpoint in use; 0 before the first pick. Written by picks, on a change only.
    current: AtomicU64,
    /// Where among the candidates it was found last: a hint, checked on every use.
    found_at: AtomicUsize,
}

impl First {
    /// Starts with the lowest in rank.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Policy for First {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let current = self.current.load(Acquire);
        let is_current = |choice: &Choice<'_>| choice.endpoint().id() == current;
        let hinted = candidates
            .choose(self.found_at.load(Relaxed))
            .filter(is_current);
        if hinted.is_some() {
            return hinted;
        }
        let (place, endpoint) = candidates
            .iter()
            .enumerate()
            .min_by_key(|(_, endpoint)| (endpoint.id() != current, rank(endpoint)))?;
        if candidates.is_reduced() {
            // A second choice of one request is no change of mind.
            return candidates.choose(place);
        }
        self.found_at.store(place, Relaxed);
        // Two threads that lose the endpoint together compute the same successor from the same set.
        self.current.store(endpoint.id(), Release);
        candidates.choose(place)
    }

    fn is_sticky(&self) -> bool {
        true
    }
}

fn rank(endpoint: &Endpoint) -> impl Ord + use<> {
    (endpoint.ordinal().unwrap_or(u32::MAX), endpoint.addr())
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use super::*;
    use crate::{
        endpoint::Address,
        policy::tests::{picked, set_of},
        set::{EndpointSet, Position},
    };

    #[test]
    fn it_stays_with_one_endpoint_and_moves_to_the_next_in_rank() {
        let (policy, set) = (First::new(), set_of(4));
        assert!((0..10).all(|_| picked(&policy, set.available()) == Some(0)));
        let place = |host| {
            set.iter()
                .position(|e| e.addr().ip().to_string() == host)
                .unwrap()
        };
        // Another try of one request goes elsewhere, and changes nothing.
        let tried = [place("10.0.0.0")];
        assert_eq!(picked(&policy, set.available().excluding(&tried)), Some(1));
        assert_eq!(picked(&policy, set.available()), Some(0));
        let without = |gone: u8| {
            let rest = set
                .iter()
                .filter(|e| e.addr().ip().to_string() != format!("10.0.0.{gone}"));
            EndpointSet::new(rest.map(|e| (Position::Unknown, Arc::clone(e))))
        };
        assert_eq!(picked(&policy, without(0).available()), Some(1));
        // It stays there although the lower rank is back.
        assert_eq!(picked(&policy, set.available()), Some(1));
    }

    #[test]
    fn the_ordinal_decides_before_the_address() {
        let pod =
            |host, name: &str| Address::from(SocketAddr::from(([10, 0, 0, host], 80))).named(name);
        let set = EndpointSet::of([pod(1, "db-2"), pod(2, "db-0"), pod(3, "db-1")]);
        assert_eq!(picked(&First::new(), set.available()), Some(2));
    }
}
