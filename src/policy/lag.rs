//! By role and by how far behind: the replicas that are fresh enough.

use std::time::Duration;

use super::{Policy, Replica};
use crate::{
    endpoint::Endpoint,
    set::{Candidates, Choice, EndpointSet},
};

/// A policy over the replicas that lack little enough of the primary's data; nothing if there is none.
///
/// The lag is what the probe last saw: the primary's position less the replica's, taken by one observer of both. So it
/// is right for a replica that receives nothing any more, and for a primary that writes nothing; what a
/// replica says of itself is wrong in both. It is up to one probe interval old. A replica whose lag is not known is
/// not taken.
///
/// Needs a probe that tells positions, such as `Postgres` and `Redis`.
#[derive(Clone, Copy, Debug)]
pub struct FreshReplica<P> {
    policy: P,
    bytes: u64,
    time: Duration,
    or_primary: bool,
}

impl<P> Replica<P> {
    /// Takes only replicas that lack at most so many bytes.
    pub fn max_lag_bytes(self, bytes: u64) -> FreshReplica<P> {
        self.bounded().max_lag_bytes(bytes)
    }

    /// Takes only replicas that lack nothing that was written longer ago than this.
    pub fn max_lag(self, lag: Duration) -> FreshReplica<P> {
        self.bounded().max_lag(lag)
    }

    /// Takes the primary where there is no replica. Default: nothing is picked then.
    pub fn or_primary(self) -> FreshReplica<P> {
        self.bounded().or_primary()
    }

    fn bounded(self) -> FreshReplica<P> {
        FreshReplica {
            policy: self.0,
            bytes: u64::MAX,
            time: Duration::MAX,
            or_primary: false,
        }
    }
}

impl<P> FreshReplica<P> {
    /// Takes only replicas that lack at most so many bytes. Default: any known number.
    #[must_use]
    pub fn max_lag_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Takes only replicas that lack nothing that was written longer ago than this. Default: any known time.
    #[must_use]
    pub fn max_lag(mut self, lag: Duration) -> Self {
        self.time = lag;
        self
    }

    /// Takes the primary where no replica is fresh enough. Default: nothing is picked then.
    #[must_use]
    pub fn or_primary(mut self) -> Self {
        self.or_primary = true;
        self
    }

    fn is_fresh(&self, endpoint: &Endpoint) -> bool {
        let bytes = self.bytes == u64::MAX
            || endpoint
                .lag_bytes()
                .is_some_and(|bytes| bytes <= self.bytes);
        let time = self.time == Duration::MAX || endpoint.lag().is_some_and(|lag| lag <= self.time);
        bytes && time
    }
}

impl<P: Policy> Policy for FreshReplica<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let replicas = candidates.replicas();
        let picked = if replicas.is_empty() {
            None
        } else {
            replicas.fitting(
                |endpoint| self.is_fresh(endpoint),
                |some| Some(self.policy.pick(some)?.index()),
            )
        };
        picked.or_else(|| candidates.primaries().choose(0).filter(|_| self.or_primary))
    }

    fn is_timed(&self) -> bool {
        self.policy.is_timed()
    }

    fn is_sticky(&self) -> bool {
        self.policy.is_sticky()
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        self.policy.prepare(set)
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, net::SocketAddr, sync::Arc};

    use tokio::time::Instant;

    use super::*;
    use crate::{
        policy::{First, RoundRobin},
        set::Position,
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// A primary and replicas with these lags: in bytes, and in seconds.
    fn set_of(lags: &[Option<(u64, u64)>]) -> EndpointSet {
        let endpoint = |i| {
            let addr = SocketAddr::from(([10, 0, 0, i], 80));
            Arc::new(Endpoint::new(addr.into(), Instant::now()))
        };
        let primary = iter::once((Position::Primary, endpoint(0)));
        let replicas = iter::zip(1.., lags).map(|(i, lag)| {
            let replica = endpoint(i);
            let (bytes, seconds) = (lag.map(|lag| lag.0), lag.map(|lag| lag.1));
            replica.replicated(Some(7), bytes, seconds.map(Duration::from_secs));
            (Position::Replica, replica)
        });
        EndpointSet::new(primary.chain(replicas))
    }

    fn hosts(policy: &impl Policy, set: &EndpointSet) -> Vec<Option<u8>> {
        let host = |choice: Choice<'_>| match choice.endpoint().addr() {
            SocketAddr::V4(addr) => addr.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        };
        (0..4)
            .map(|_| policy.pick(set.available()).map(host))
            .collect()
    }

    #[test]
    fn a_replica_beyond_a_bound_and_one_of_unknown_lag_are_not_taken() {
        let set = set_of(&[Some((10, 0)), Some((5000, 0)), None, Some((10, 60))]);
        let by_bytes = Replica(RoundRobin::new()).max_lag_bytes(100);
        assert!(
            hosts(&by_bytes, &set)
                .iter()
                .all(|host| [Some(1), Some(4)].contains(host))
        );
        let by_time = Replica(RoundRobin::new()).max_lag(SECOND);
        assert!(
            hosts(&by_time, &set)
                .iter()
                .all(|host| [Some(1), Some(2)].contains(host))
        );
        let by_both = by_bytes.max_lag(SECOND);
        assert_eq!(hosts(&by_both, &set), [Some(1); 4]);
    }

    #[test]
    fn the_primary_is_taken_only_on_demand_and_only_where_no_replica_is_fresh() {
        let set = set_of(&[Some((5000, 9)), None]);
        assert_eq!(
            hosts(&Replica(First::new()).max_lag_bytes(100), &set),
            [None; 4]
        );
        let or_primary = Replica(First::new()).max_lag_bytes(100).or_primary();
        assert_eq!(hosts(&or_primary, &set), [Some(0); 4]);
        let fresh = set_of(&[Some((50, 0)), None]);
        assert_eq!(hosts(&or_primary, &fresh), [Some(1); 4]);
    }

    #[test]
    fn endpoints_that_a_request_tried_stay_left_out() {
        let set = set_of(&[Some((1, 0)), Some((5000, 0)), Some((2, 0))]);
        let policy = Replica(First::new()).max_lag_bytes(100);
        let rest = set.available().excluding(&[1]);
        let picked = policy.pick(rest).map(|choice| choice.index());
        assert_eq!(picked, Some(3));
        assert!(policy.pick(set.available().excluding(&[1, 3])).is_none());
    }

    #[test]
    fn who_goes_by_the_lag_makes_probes_look_at_it() {
        let set = set_of(&[Some((1, 0))]);
        assert!(set.iter().all(|endpoint| !endpoint.wants_position()));
        let policy = Replica(First::new()).max_lag_bytes(100);
        policy.pick(set.available());
        let wanted = set.iter().map(|endpoint| endpoint.wants_position());
        assert_eq!(wanted.collect::<Vec<_>>(), [false, true]);
    }
}
