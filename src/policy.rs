//! Which endpoint: one question, answered from what is in memory.
//!
//! | Policy | Idea | Use it when |
//! |---|---|---|
//! | [`RoundRobin`] | each in turn | pods and requests are about equal, or shares must be exact |
//! | [`Random`] | any | clients are many or short-lived; nothing is remembered |
//! | [`LeastRequest`] | of two, the one with fewer requests in flight | requests cost unequally |
//! | [`First`] | one, as long as it is there | active/standby by rank |
//! | [`Primary`] | the accepted primary | writes to a replicated database |
//! | [`Replica`] | a policy over the replicas | reads that must not load the primary |
//! | [`PreferReplica`] | replicas, else anything | reads that must succeed |
//! | [`policy_fn`] | yours | the rest |

use std::{fmt, sync::Arc};

use crate::set::{Candidates, Choice};

mod first;
mod lag;
mod least_request;
mod random;
mod role;
mod round_robin;

pub use first::First;
pub use lag::FreshReplica;
pub use least_request::LeastRequest;
pub use random::Random;
pub use role::{PreferReplica, Primary, Replica};
pub use round_robin::RoundRobin;

/// Picks an endpoint.
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
}

impl<P: Policy + ?Sized> Policy for Arc<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        P::pick(self, candidates)
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
    use crate::set::EndpointSet;

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
    fn no_policy_picks_from_nothing() {
        let nothing = set_of(0);
        let policies: [Arc<dyn Policy>; 7] = [
            Arc::new(First::new()),
            Arc::new(LeastRequest::new()),
            Arc::new(PreferReplica(Random::new())),
            Arc::new(Primary),
            Arc::new(Random::new()),
            Arc::new(Replica(Random::new())),
            Arc::new(RoundRobin::new()),
        ];
        for policy in policies {
            assert!(policy.pick(nothing.available()).is_none());
        }
    }
}
