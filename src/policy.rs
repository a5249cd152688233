//! Which endpoint: one question, answered from what is in memory.

use std::{fmt, sync::Arc};

use crate::{
    endpoint::Endpoint,
    set::{Candidates, Choice, EndpointSet},
};

mod adaptive;
mod bound;
mod first;
mod lag;
mod least_request;
mod maglev;
mod or;
mod peak_ewma;
mod prefer;
mod random;
mod rendezvous;
mod role;
mod round_robin;
mod tables;
mod weighted;

pub use adaptive::Adaptive;
pub use first::First;
pub use lag::FreshReplica;
pub use least_request::LeastRequest;
pub use maglev::Maglev;
pub use or::Or;
pub use peak_ewma::PeakEwma;
pub use prefer::Prefer;
pub use random::Random;
pub use rendezvous::Rendezvous;
pub use role::{PreferReplica, Primary, Replica};
pub use round_robin::RoundRobin;
pub use weighted::Weighted;

/// Picks an endpoint.
///
/// | Policy | Idea | Use it when |
/// |---|---|---|
/// | [`Adaptive`] | the lowest product of measured latency and requests in flight | anything with a latency: pods are unequal, shared, or restart |
/// | [`RoundRobin`] | each in turn | pods and requests are about equal, or shares must be exact |
/// | [`Random`] | any | clients are many or short-lived; nothing is remembered |
/// | [`LeastRequest`] | of two, the one with fewer requests in flight | requests cost unequally |
/// | [`PeakEwma`] | of two, the lower product of peak latency and requests in flight | coming from Finagle, Linkerd or tower |
/// | [`Weighted`] | each in turn, as often as its weight says | pods have known, unequal sizes |
/// | [`Rendezvous`] | the one that the key ranks highest | caches, data split by key; up to some hundred pods |
/// | [`Maglev`] | the one that a table has for the key | the same over hundreds of pods |
/// | [`First`] | one, as long as it is there | active/standby by rank |
/// | [`Primary`] | the accepted primary | writes to a replicated database |
/// | [`Replica`] | a policy over the replicas | reads that must not load the primary |
/// | [`PreferReplica`] | replicas, else anything | reads that must succeed |
/// | [`Prefer`] | a policy over some, else over the others | pods nearby, or of one version |
/// | [`Policy::or`] | another where the first picks nothing | |
/// | [`policy_fn`] | yours | the rest |
///
/// [`Adaptive`] is the default ([`Builder::policy`](crate::Builder::policy) says why). Each policy says when not to use it. Wrappers compose:
/// `Replica(Adaptive::new())`, `Prefer::label("eu-1a", Adaptive::new())`, `Replica(Adaptive::new()).or(Primary)`.
///
/// It runs on every request, on any thread, through `&self`: no lock, no allocation, no await. State
/// that belongs to an endpoint is on the endpoint and survives set changes; state of the policy
/// itself is in atomics.
///
/// ```
/// use headless_lb::{Candidates, Choice, Policy};
///
/// /// The least loaded of all: a scan.
/// struct Idlest;
///
/// impl Policy for Idlest {
///     fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
///         let (i, _) = candidates.iter().enumerate().min_by_key(|(_, endpoint)| endpoint.pending())?;
///         candidates.choose(i)
///     }
/// }
/// ```
pub trait Policy: Send + Sync + 'static {
    /// Picks one of the candidates, of which there is at least one; `None` if none of them will do, which the caller sees as
    /// [`PickError::NoCandidate`](crate::PickError::NoCandidate).
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>>;

    /// Whether it goes by latency: then requests through it are timed, which costs two readings of the clock
    /// for each (24 ns a reading, measured). Default: no. A wrapper passes on what the policy inside says. Whether a pod
    /// [hangs](crate::Ejection) is found out in either case.
    fn is_timed(&self) -> bool {
        false
    }

    /// Whether it means the endpoint that it picks and no other: by key or rank. (A role is kept in any case.) Then an endpoint that has
    /// just started is not [spared](crate::Builder::slow_start). Default: no. A wrapper passes on what the
    /// policy inside says.
    fn is_sticky(&self) -> bool {
        false
    }

    /// Prepares for a set that is about to be published: the place to compute a table, which
    /// [`pick`](Self::pick) finds by the [set's id](EndpointSet::id). Returns whether to be called for the next
    /// set too. Runs in the driver, or in [`with_policy`](crate::Balancer::with_policy) for the set that is there.
    /// Default: nothing to prepare. A wrapper passes it on.
    ///
    /// A pick may still see the set before, or one that was not prepared at all.
    fn prepare(&self, set: &EndpointSet) -> bool {
        let _ = set;
        false
    }

    /// This policy, and `other` where it picks nothing.
    ///
    /// ```
    /// use headless_lb::{LeastRequest, Policy, Primary, Random, Replica};
    /// use std::time::Duration;
    ///
    /// let fresh = Replica(LeastRequest::new()).max_lag(Duration::from_secs(1));
    /// let readers = fresh.or(Primary).or(Replica(Random::new()));
    /// # let _ = readers;
    /// ```
    fn or<Q: Policy>(self, other: Q) -> Or<Self, Q>
    where
        Self: Sized,
    {
        Or::new(self, other)
    }
}

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        P::pick(self, candidates)
    }

    fn is_timed(&self) -> bool {
        P::is_timed(self)
    }

    fn is_sticky(&self) -> bool {
        P::is_sticky(self)
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        P::prepare(self, set)
    }
}

impl<'a> Candidates<'a> {
    /// What the policy picks, as the balancer asks it: not about nothing, and again if its choice should not get
    /// its full share yet, being [on trial](crate::Endpoint::is_on_trial) or
    /// [new](crate::Endpoint::ramp), and there is another.
    #[inline]
    pub fn pick(self, policy: &(impl Policy + ?Sized)) -> Option<Choice<'a>> {
        if self.is_empty() {
            return None;
        }
        // Before the policy is asked: a view that is needed afterwards is copied for the call.
        if self.is_careful() {
            return self.pick_with_care(policy);
        }
        policy.pick(self)
    }

    #[cold]
    fn pick_with_care(self, policy: &(impl Policy + ?Sized)) -> Option<Choice<'a>> {
        let (first, is_sticky) = (policy.pick(self)?, policy.is_sticky());
        if first.endpoint().admits(is_sticky) {
            return Some(first);
        }
        let pick = |rest: Candidates<'_>| Some(policy.pick(rest)?.index());
        // Two looks are enough, as in Envoy: where most are new, somebody has to serve. Care is no reason to read from
        // the primary, or to pick one that is set aside: the second is among those at the same position.
        // And not one of those on trial that have their request, where any other is left.
        let is_free = |rest: Candidates<'_>| Some(rest.fitting(Endpoint::is_free, pick)?.index());
        let others = self.beside(first.index());
        Some(others.without(first.index(), is_free).unwrap_or(first))
    }
}

/// A [`Policy`] from a closure.
///
/// ```
/// use headless_lb::{EndpointSet, Policy, policy_fn};
/// use std::net::SocketAddr;
///
/// let last = policy_fn(|candidates| candidates.choose(candidates.len().checked_sub(1)?));
/// let set = EndpointSet::of([SocketAddr::from(([10, 0, 0, 1], 80))]);
/// assert!(last.pick(set.available()).is_some());
/// ```
pub fn policy_fn<F>(pick: F) -> PolicyFn<F>
where
    F: for<'a> Fn(Candidates<'a>) -> Option<Choice<'a>> + Send + Sync + 'static,
{
    PolicyFn { pick }
}

/// The policy that [`policy_fn`] makes.
#[derive(Clone, Copy)]
pub struct PolicyFn<F> {
    pick: F,
}

impl<F> Policy for PolicyFn<F>
where
    F: for<'a> Fn(Candidates<'a>) -> Option<Choice<'a>> + Send + Sync + 'static,
{
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        (self.pick)(candidates)
    }
}

impl<F> fmt::Debug for PolicyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PolicyFn")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::set::{EndpointSet, Position};

    pub(crate) fn set_of(n: u8) -> EndpointSet {
        EndpointSet::of((0..n).map(|i| SocketAddr::from(([10, 0, 0, i], 80))))
    }

    /// The last byte of the address that was picked.
    pub(crate) fn picked(policy: &impl Policy, candidates: Candidates<'_>) -> Option<u8> {
        match policy.pick(candidates)?.endpoint().addr() {
            SocketAddr::V4(addr) => Some(addr.ip().octets()[3]),
            SocketAddr::V6(_) => None,
        }
    }

    #[test]
    fn a_replica_that_starts_keeps_its_reads_where_the_primary_is_the_only_other() {
        let endpoints = set_of(2);
        let positions = [Position::Primary, Position::Replica];
        let members = std::iter::zip(positions, endpoints.iter().cloned());
        let set = EndpointSet::new(members).with_care(true);
        set.iter().nth(1).unwrap().set_ramp(0.1);
        let policy = PreferReplica(RoundRobin::new());
        for _ in 0..20 {
            let choice = set.available().pick(&policy).unwrap();
            assert_eq!(choice.index(), 1, "the reads are the replica's");
        }
    }

    #[test]
    fn a_replica_that_starts_is_spared_also_where_the_primary_stands_in_and_the_primary_keeps_its_writes()
     {
        use Position::{Primary as First, Replica as Second};
        let all = set_of(3);
        let members = std::iter::zip([First, Second, Second], all.iter().cloned());
        let set = EndpointSet::new(members).with_care(true);
        for starting in [0, 2] {
            set.iter().nth(starting).unwrap().set_ramp(0.1);
        }
        let picked = |policy: &dyn Policy| set.available().pick(policy).unwrap().index();
        assert!((0..100).all(|_| picked(&Primary) == 0));
        let readers = Replica(RoundRobin::new()).or(Primary);
        let spared = (0..1_000).filter(|_| picked(&readers) == 2).count();
        assert!((20..200).contains(&spared), "{spared} of 1,000");
    }

    #[test]
    fn wrappers_pass_on_what_the_policy_inside_wants() {
        fn check<P: Policy>(wrap: impl Fn(Arc<dyn Policy>) -> P) {
            let insides: [Arc<dyn Policy>; 3] = [
                Arc::new(Adaptive::new()),
                Arc::new(First::new()),
                Arc::new(Maglev::new()),
            ];
            let wants = |policy: &dyn Policy| {
                let set = set_of(3);
                (policy.is_timed(), policy.is_sticky(), policy.prepare(&set))
            };
            for inside in insides {
                let (timed, sticky, prepared) = wants(&wrap(Arc::clone(&inside)));
                assert_eq!((timed, sticky), (inside.is_timed(), inside.is_sticky()));
                // A wrapper may have tables of its own.
                assert!(prepared || !wants(&*inside).2);
            }
        }
        check(|inside| inside);
        check(Replica);
        check(PreferReplica);
        check(|inside| Replica(inside).or_primary());
        check(|inside| Prefer::label("a", inside));
        check(|inside| Random::new().or(inside));
    }

    #[test]
    fn no_policy_picks_from_nothing() {
        let nothing = set_of(0);
        let policies: [Arc<dyn Policy>; 15] = [
            Arc::new(Adaptive::new()),
            Arc::new(First::new()),
            Arc::new(LeastRequest::new()),
            Arc::new(LeastRequest::new().full()),
            Arc::new(Maglev::new()),
            Arc::new(PeakEwma::new()),
            Arc::new(Prefer::label("a", Maglev::new())),
            Arc::new(Random::new().or(First::new())),
            Arc::new(PreferReplica(Random::new())),
            Arc::new(Primary),
            Arc::new(Random::new()),
            Arc::new(Rendezvous::new().bounded(1.25)),
            Arc::new(Replica(Random::new())),
            Arc::new(RoundRobin::new()),
            Arc::new(Weighted::srv()),
        ];
        for policy in policies {
            assert!(policy.pick(nothing.available()).is_none());
        }
    }

    #[test]
    fn one_on_trial_is_spared_where_another_of_its_position_is_free() {
        use Position::{Primary, Replica};
        let all = set_of(3);
        let members = std::iter::zip([Primary, Replica, Replica], all.iter().cloned());
        let set = EndpointSet::new(members).with_care(true);
        let trial = set.iter().nth(2).unwrap();
        trial.set_trial(true);
        let _request = trial.begin();
        for policy in [
            Arc::new(RoundRobin::new()) as Arc<dyn Policy>,
            Arc::new(Random::seeded(1)),
            Arc::new(LeastRequest::seeded(1)),
            Arc::new(Weighted::srv()),
        ] {
            let picks = (0..300).map(|_| set.available().pick(&*policy).unwrap().index());
            let again = picks.filter(|&index| index == 2).count();
            assert_eq!(again, 0, "one request at a time");
        }
    }

    #[test]
    fn of_several_on_trial_none_gets_a_second_request_while_others_are_free() {
        let set = set_of(20).with_care(true);
        let trials = set.iter().take(2).inspect(|one| one.set_trial(true));
        let _requests: Vec<_> = trials.map(|one| one.begin()).collect();
        for policy in [
            Arc::new(RoundRobin::new()) as Arc<dyn Policy>,
            Arc::new(Random::seeded(1)),
            Arc::new(LeastRequest::seeded(1)),
            Arc::new(Weighted::srv()),
            Arc::new(Adaptive::seeded(1)),
        ] {
            let picks = (0..2_000).map(|_| set.available().pick(&*policy).unwrap().index());
            assert_eq!(picks.filter(|&index| index < 2).count(), 0);
        }
    }
}
