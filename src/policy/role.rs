//! By role: the primary, the replicas.

use super::Policy;
use crate::set::{Candidates, Choice, EndpointSet};

/// The accepted primary; nothing if there is none.
///
/// Needs a [`Probe`](crate::Probe). There is no fallback: a write that goes to a replica fails, and
/// one that goes to a second primary is lost.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a policy without state: its name is its constructor"
)]
pub struct Primary;

impl Policy for Primary {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        candidates.primaries().choose(0)
    }
}

/// A policy over the replicas; nothing if there is none.
///
/// ```
/// use headless_lb::{LeastRequest, Replica};
/// use std::time::Duration;
///
/// let readers = Replica(LeastRequest::new());
/// let fresh = Replica(LeastRequest::new()).max_lag(Duration::from_secs(1)).or_primary();
/// # let _ = (readers, fresh);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a wrapper: its name is its constructor"
)]
pub struct Replica<P>(pub P);

impl<P: Policy> Policy for Replica<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let replicas = candidates.replicas();
        // As the balancer does: no policy is asked about nothing.
        if replicas.is_empty() {
            None
        } else {
            self.0.pick(replicas)
        }
    }

    fn is_timed(&self) -> bool {
        self.0.is_timed()
    }

    fn is_sticky(&self) -> bool {
        self.0.is_sticky()
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        self.0.prepare(set)
    }
}

/// A policy over the replicas; over the primary and pods of unknown role if there is no replica.
#[derive(Clone, Copy, Debug, Default)]
#[expect(
    clippy::exhaustive_structs,
    reason = "a wrapper: its name is its constructor"
)]
pub struct PreferReplica<P>(pub P);

impl<P: Policy> Policy for PreferReplica<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        self.0.pick(candidates.replicas().or(candidates))
    }

    fn is_timed(&self) -> bool {
        self.0.is_timed()
    }

    fn is_sticky(&self) -> bool {
        self.0.is_sticky()
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        self.0.prepare(set)
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, net::SocketAddr, sync::Arc};

    use tokio::time::Instant;

    use super::*;
    use crate::{
        endpoint::Endpoint,
        policy::{RoundRobin, tests::picked},
        set::Position,
    };

    fn set_of(positions: &[Position]) -> EndpointSet {
        let endpoint = |i| {
            let addr = SocketAddr::from(([10, 0, 0, i], 80));
            Arc::new(Endpoint::new(addr.into(), Instant::now()))
        };
        EndpointSet::new(iter::zip(positions.iter().copied(), (0..).map(endpoint)))
    }

    #[test]
    fn primary_is_the_one_at_the_primary_position_and_nothing_else() {
        use Position::{Ejected, Primary as First, Replica as Second, Unknown};
        assert_eq!(
            picked(&Primary, set_of(&[Second, First, Unknown]).available()),
            Some(1)
        );
        assert_eq!(
            picked(&Primary, set_of(&[Second, Unknown]).available()),
            None
        );
        assert_eq!(picked(&Primary, set_of(&[Ejected]).available()), None);
    }

    #[test]
    fn replica_never_falls_back_to_the_primary_and_prefer_replica_does() {
        use Position::{Primary as First, Replica as Second};
        let both = set_of(&[First, Second]);
        let alone = set_of(&[First]);
        assert_eq!(
            picked(&Replica(RoundRobin::new()), both.available()),
            Some(1)
        );
        assert_eq!(picked(&Replica(RoundRobin::new()), alone.available()), None);
        assert_eq!(
            picked(&PreferReplica(RoundRobin::new()), both.available()),
            Some(1)
        );
        assert_eq!(
            picked(&PreferReplica(RoundRobin::new()), alone.available()),
            Some(0)
        );
    }
}
