//! Some endpoints rather than the others.

use std::{fmt, sync::Arc};

use super::{Policy, tables::Tables};
use crate::{
    endpoint::Endpoint,
    set::{Candidates, Choice, EndpointSet, Part},
};

/// A policy over some endpoints while any of them is available, else over the others: those in one's own zone, on the new
/// version, or with a disk.
///
/// All or nothing: one preferred endpoint that is left gets everything. Where that is too much for it,
/// [`Adaptive`](crate::Adaptive) without a preference keeps traffic near by itself, as far as near is faster.
///
/// The preferred endpoints are a set of their own for the policy inside, so shares among them are what they would be
/// without the others.
///
/// ```
/// use headless_lb::{Adaptive, Address, EndpointSet, Policy, Prefer};
/// use std::net::SocketAddr;
///
/// let pod = |i| Address::from(SocketAddr::from(([10, 0, 0, i], 80)));
/// let set = EndpointSet::of([pod(1).labelled("eu-1a"), pod(2).labelled("eu-1b")]);
/// let near = Prefer::label("eu-1a", Adaptive::new());
/// assert_eq!(near.pick(set.available()).and_then(|choice| choice.endpoint().label()), Some("eu-1a"));
///
/// let far = Prefer::label("us-2c", Adaptive::new());
/// assert!(far.pick(set.available()).is_some());
/// ```
pub struct Prefer<P> {
    policy: P,
    is_preferred: Box<dyn Fn(&Endpoint) -> bool + Send + Sync>,
    tables: Tables<Part>,
}

impl<P> Prefer<P> {
    /// Endpoints with this [label](Endpoint::label). DNS tells none: a resolver of your own does
    /// ([`Address::labelled`](crate::Address::labelled)).
    pub fn label(label: impl Into<Arc<str>>, policy: P) -> Self {
        let label = label.into();
        Self::by(move |endpoint| endpoint.label() == Some(&label), policy)
    }

    /// Endpoints that `is_preferred` holds for. It is asked when a set is published: for what belongs to an
    /// endpoint, not for its load.
    pub fn by(is_preferred: impl Fn(&Endpoint) -> bool + Send + Sync + 'static, policy: P) -> Self {
        Self {
            policy,
            is_preferred: Box::new(is_preferred),
            tables: Tables::default(),
        }
    }
}

impl<P: Policy> Policy for Prefer<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let index = |some: Candidates<'_>| Some(self.policy.pick(some)?.index());
        let preferred = self.tables.with(candidates.set(), |part| match part {
            Some(part) => candidates.within(part, index),
            None => candidates.fitting(&self.is_preferred, index),
        });
        preferred.or_else(|| self.policy.pick(candidates))
    }

    fn is_timed(&self) -> bool {
        self.policy.is_timed()
    }

    fn is_sticky(&self) -> bool {
        self.policy.is_sticky()
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        self.policy.prepare(set);
        self.tables.add(set, |_| {
            let part = set.part(&self.is_preferred);
            self.policy.prepare(part.set());
            part
        });
        true
    }
}

impl<P: fmt::Debug> fmt::Debug for Prefer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Prefer").field(&self.policy).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{
        endpoint::Address,
        policy::{Maglev, Replica, RoundRobin, tests::picked},
        set::Position,
    };

    /// Sixty pods, every third of them in zone `a`.
    fn zones() -> EndpointSet {
        EndpointSet::of((0..60_u8).map(|i| {
            let pod = Address::from(SocketAddr::from(([10, 0, 0, i], 80)));
            pod.labelled(["a", "b", "b"][usize::from(i % 3)])
        }))
    }

    fn near() -> Prefer<RoundRobin> {
        Prefer::label("a", RoundRobin::new())
    }

    #[test]
    fn the_preferred_share_among_themselves_as_if_there_were_no_others() {
        let (policy, set) = (near(), zones());
        policy.prepare(&set);
        let mut shares = [0; 60];
        (0..200).for_each(|_| shares[usize::from(picked(&policy, set.available()).unwrap())] += 1);
        let expected = std::array::from_fn(|i| if i % 3 == 0 { 10 } else { 0 });
        assert_eq!(shares, expected);
    }

    #[test]
    fn the_others_serve_while_none_of_the_preferred_is_available() {
        let (policy, all) = (near(), zones());
        let set = EndpointSet::new(all.iter().map(|endpoint| {
            let position = match endpoint.label() {
                Some("a") => Position::Ejected,
                _ => Position::Unknown,
            };
            (position, Arc::clone(endpoint))
        }));
        for _ in 0..2 {
            assert!((0..60).all(|_| picked(&policy, set.available()).unwrap() % 3 > 0));
            policy.prepare(&set);
        }
    }

    #[test]
    fn another_try_and_a_narrowed_view_prefer_too() {
        let all = zones();
        let set = EndpointSet::new(all.iter().enumerate().map(|(i, endpoint)| {
            let position = if i < 20 {
                Position::Replica
            } else {
                Position::Unknown
            };
            (position, Arc::clone(endpoint))
        }));
        for prepare in [false, true] {
            let policy = Replica(near());
            if prepare {
                policy.prepare(&set);
            }
            let mut tried = Vec::new();
            for k in 0..20 {
                let rest = set.available().excluding(&tried);
                let choice = policy.pick(rest).unwrap();
                // Zone `a` has seven of the first twenty.
                assert_eq!(choice.endpoint().label() == Some("a"), k < 7, "try {k}");
                let place = tried.partition_point(|&other| other < choice.index());
                assert_ne!(tried.get(place), Some(&choice.index()), "picked again");
                tried.insert(place, choice.index());
            }
            assert!(
                policy
                    .pick(set.available().replicas().excluding(&tried))
                    .is_none()
            );
        }
    }

    #[test]
    fn a_policy_inside_that_prepares_does_so_for_the_preferred_and_for_all() {
        let (policy, set) = (Prefer::label("a", Maglev::new()), zones());
        assert!(policy.prepare(&set));
        // The same as over a set that has no others.
        let alone = EndpointSet::of((0..20).map(|i| SocketAddr::from(([10, 0, 0, i * 3], 80))));
        let maglev = Maglev::new();
        maglev.prepare(&alone);
        for key in 0..100_u64 {
            let home = picked(&policy, set.available().for_key(key));
            assert_eq!(home, picked(&maglev, alone.available().for_key(key)));
        }
    }

    #[test]
    fn one_inside_another_keeps_its_tables_while_the_next_set_is_prepared() {
        let is_even =
            |endpoint: &Endpoint| endpoint.addr().ip().to_string().ends_with(['0', '2', '4']);
        let policy = Prefer::label("a", Prefer::by(is_even, Maglev::new()));
        let (now, next) = (zones(), zones());
        policy.prepare(&now);
        let homes = |set: &EndpointSet| -> Vec<_> {
            let home = |key: u64| picked(&policy, set.available().for_key(key));
            (0..200).map(home).collect()
        };
        let before = homes(&now);
        // The driver does so before it publishes the set.
        policy.prepare(&next);
        assert_eq!(homes(&now), before);
        assert_eq!(homes(&next), before);
    }
}
