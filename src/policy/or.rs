//! One policy, and where it picks nothing another.

use super::Policy;
use crate::set::{Candidates, Choice, EndpointSet};

/// One policy, and where it picks nothing another: what [`Policy::or`] makes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Or<P, Q> {
    first: P,
    second: Q,
}

impl<P, Q> Or<P, Q> {
    pub(super) fn new(first: P, second: Q) -> Self {
        Self { first, second }
    }
}

impl<P: Policy, Q: Policy> Policy for Or<P, Q> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let picked = self.first.pick(candidates);
        picked.or_else(|| self.second.pick(candidates))
    }

    fn is_timed(&self) -> bool {
        self.first.is_timed() || self.second.is_timed()
    }

    /// If either is: to lead a request elsewhere that was meant for one endpoint is the greater harm.
    fn is_sticky(&self) -> bool {
        self.first.is_sticky() || self.second.is_sticky()
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        let (first, second) = (self.first.prepare(set), self.second.prepare(set));
        first || second
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        policy::{
            Adaptive, Maglev, Primary, Random, Replica, RoundRobin,
            tests::{picked, set_of},
        },
        set::Position,
    };

    #[test]
    fn the_second_is_asked_where_the_first_picks_nothing() {
        let policy = Replica(RoundRobin::new()).or(Primary).or(Random::new());
        let all = set_of(2);
        let at = |positions: [Position; 2]| {
            EndpointSet::new(positions.into_iter().zip(all.iter().map(Arc::clone)))
        };
        use Position::{Primary as First, Replica as Second, Unknown};
        assert_eq!(picked(&policy, at([First, Second]).available()), Some(1));
        let fallback = at([First, Unknown]);
        assert!((0..20).all(|_| picked(&policy, fallback.available()) == Some(0)));
        assert!(picked(&policy, all.available()).is_some());
    }

    #[test]
    fn both_are_prepared() {
        let second = Arc::new(Maglev::new());
        let (policy, set) = (Maglev::new().or(Arc::clone(&second)), set_of(100));
        policy.prepare(&set);
        let prepared = Maglev::new();
        prepared.prepare(&set);
        for key in 0..100_u64 {
            // Without its table it would pick as `Rendezvous` does.
            let candidates = set.available().for_key(key);
            assert_eq!(picked(&second, candidates), picked(&prepared, candidates));
        }
    }

    #[test]
    fn what_either_wants_it_wants() {
        let wants = |policy: &dyn Policy| {
            let set = set_of(3);
            (policy.is_timed(), policy.is_sticky(), policy.prepare(&set))
        };
        assert_eq!(
            wants(&Random::new().or(Adaptive::new())),
            (true, false, false)
        );
        assert_eq!(wants(&Maglev::new().or(Random::new())), (false, true, true));
        assert_eq!(
            wants(&Random::new().or(RoundRobin::new())),
            (false, false, false)
        );
    }
}
