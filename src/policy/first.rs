//! One endpoint, as long as it is there.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::time::Instant;

use super::Policy;
use crate::{
    endpoint::Endpoint,
    set::{Candidates, Choice},
};

/// The same endpoint, as long as it is available; then the lowest in rank.
///
/// Rank is the StatefulSet ordinal, then the address; or [what you say](Self::by). Never the order of a DNS answer, which cluster
/// DNS shuffles. For active/standby services. It is *not* role detection, and two clients may hold
/// different firsts while their views differ, for a TTL or longer: for databases use [`Primary`](crate::Primary).
///
/// Use one policy for each balancer: it remembers one endpoint.
///
/// It does not fail back: an endpoint of lower rank that returns waits until the current one is gone, unless
/// [told otherwise](Self::fail_back).
///
/// ```
/// use headless_lb::{Endpoint, First};
/// use std::time::Duration;
///
/// // Whoever is in this zone, and of these the first.
/// let rank = |endpoint: &Endpoint| u64::from(endpoint.label() != Some("eu-1a"));
/// let policy = First::by(rank).fail_back(Duration::from_secs(30));
/// # let _ = policy;
/// ```
#[derive(Default)]
pub struct First {
    rank: Option<Rank>,
    /// The id of the endpoint in use; 0 before the first pick. Written by picks, on a change only.
    current: AtomicU64,
    /// Where among the candidates it was found last: a hint, checked on every use.
    found_at: AtomicUsize,
    fail_back: Option<FailBack>,
}

type Rank = Box<dyn Fn(&Endpoint) -> u64 + Send + Sync>;

impl First {
    /// Starts with the lowest in rank: ordinal, then address.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts with the one to which `rank` gives the lowest number; of equals, by ordinal and address.
    pub fn by(rank: impl Fn(&Endpoint) -> u64 + Send + Sync + 'static) -> Self {
        Self {
            rank: Some(Box::new(rank)),
            ..Self::default()
        }
    }

    /// Goes back to the lowest in rank when it has been available for so long, without a break that this policy saw. Default:
    /// never, for every change of the one in use may cost what it holds in memory.
    ///
    /// Time is read while a better one waits, and only then.
    #[must_use]
    pub fn fail_back(mut self, after: Duration) -> Self {
        self.fail_back = Some(FailBack {
            after,
            ..FailBack::default()
        });
        self
    }

    fn rank(&self, endpoint: &Endpoint) -> impl Ord + use<> {
        let told = self.rank.as_ref().map(|rank| rank(endpoint));
        (
            told,
            endpoint.ordinal().unwrap_or(u32::MAX),
            endpoint.addr(),
        )
    }

    /// The place of the lowest in rank, and its id.
    fn best(&self, candidates: Candidates<'_>) -> Option<(usize, u64)> {
        let (place, endpoint) = candidates
            .iter()
            .enumerate()
            .min_by_key(|(_, endpoint)| self.rank(endpoint))?;
        Some((place, endpoint.id()))
    }

    /// Takes this one into use.
    fn change<'a>(
        &self,
        candidates: Candidates<'a>,
        (place, id): (usize, u64),
    ) -> Option<Choice<'a>> {
        self.found_at.store(place, Relaxed);
        // Two threads that lose the endpoint together compute the same successor from the same set.
        self.current.store(id, Release);
        if let Some(fail_back) = &self.fail_back {
            fail_back.forget();
        }
        candidates.choose(place)
    }

    /// A better one than that in use, if it is time to go to it.
    fn failed_back<'a>(&self, candidates: Candidates<'a>, current: u64) -> Option<Choice<'a>> {
        let fail_back = self.fail_back.as_ref()?;
        if candidates.is_reduced() {
            return None;
        }
        let best = || self.best(candidates).map_or(current, |(_, id)| id);
        if !fail_back.is_due(candidates, current, best) {
            return None;
        }
        self.change(candidates, self.best(candidates)?)
    }
}

impl Policy for First {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let current = self.current.load(Acquire);
        let is_current = |endpoint: &Endpoint| endpoint.id() == current;
        let hinted = self.found_at.load(Relaxed);
        let place = match candidates.get(hinted) {
            Some(endpoint) if is_current(endpoint) => Some(hinted),
            _ => candidates.iter().position(is_current),
        };
        if let Some(place) = place {
            if place != hinted && !candidates.is_reduced() {
                self.found_at.store(place, Relaxed);
            }
            let back = self.failed_back(candidates, current);
            return back.or_else(|| candidates.choose(place));
        }
        let best = self.best(candidates)?;
        if candidates.is_reduced() {
            // A second choice of one request is no change of mind.
            return candidates.choose(best.0);
        }
        self.change(candidates, best)
    }

    fn is_sticky(&self) -> bool {
        true
    }
}

impl fmt::Debug for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("First")
            .field("current", &self.current)
            .field("fail_back", &self.fail_back.as_ref().map(|one| one.after))
            .finish_non_exhaustive()
    }
}

/// Whether a better endpoint has been there for long enough. Threads that look at once see nearly the same.
#[derive(Debug, Default)]
struct FailBack {
    after: Duration,
    /// The id of the set that was looked at last.
    seen: AtomicU64,
    /// The id of the better endpoint that waits; 0 if there is none.
    waiting: AtomicU64,
    /// Since when, in milliseconds after `zero`.
    since: AtomicU64,
    zero: OnceLock<Instant>,
}

impl FailBack {
    /// Another endpoint is in use: who is better than that is to be found out.
    fn forget(&self) {
        self.waiting.store(0, Relaxed);
        self.seen.store(0, Release);
    }

    fn is_due(&self, candidates: Candidates<'_>, current: u64, best: impl Fn() -> u64) -> bool {
        let millis = || {
            let now = candidates.now();
            let zero = *self.zero.get_or_init(|| now);
            u64::try_from(now.saturating_duration_since(zero).as_millis()).unwrap_or(u64::MAX)
        };
        let set = candidates.set().id();
        if self.seen.load(Acquire) != set {
            let best = Some(best()).filter(|&best| best != current).unwrap_or(0);
            if best != 0 && self.waiting.load(Relaxed) != best {
                self.since.store(millis(), Relaxed);
            }
            self.waiting.store(best, Relaxed);
            self.seen.store(set, Release);
        }
        let waiting = self.waiting.load(Relaxed);
        if waiting == 0 || waiting == current {
            return false;
        }
        let waited = millis().saturating_sub(self.since.load(Relaxed));
        u128::from(waited) >= self.after.as_millis()
    }
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

    fn hosts_of(all: &EndpointSet, hosts: &[u8]) -> EndpointSet {
        let is_here = |host: u8| hosts.contains(&host);
        let members = all.iter().filter(|endpoint| match endpoint.addr() {
            SocketAddr::V4(addr) => is_here(addr.ip().octets()[3]),
            SocketAddr::V6(_) => false,
        });
        EndpointSet::new(members.map(|endpoint| (Position::Unknown, Arc::clone(endpoint))))
    }

    #[test]
    fn a_rank_of_ones_own_decides_before_the_ordinal() {
        let policy = First::by(|endpoint| 9 - u64::from(endpoint.addr().ip() == host(2)));
        assert_eq!(picked(&policy, set_of(4).available()), Some(2));
    }

    fn host(last: u8) -> std::net::IpAddr {
        std::net::IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn it_fails_back_to_one_that_was_there_without_a_break_for_as_long_as_it_should() {
        let policy = First::new().fail_back(Duration::from_secs(30));
        let (start, all) = (Instant::now(), set_of(3));
        let (both, rest) = (hosts_of(&all, &[0, 1, 2]), hosts_of(&all, &[1, 2]));
        let at = |second, set: &EndpointSet| {
            let now = start + Duration::from_secs(second);
            picked(&policy, set.available().at(now))
        };
        assert_eq!(at(0, &both), Some(0));
        assert_eq!(at(1, &rest), Some(1));
        // It is back, and leaves again before its time.
        assert_eq!((at(2, &both), at(20, &both)), (Some(1), Some(1)));
        assert_eq!(at(21, &rest), Some(1));
        // A change of the others is no break.
        let fewer = hosts_of(&all, &[0, 1]);
        assert_eq!(
            (at(22, &both), at(40, &fewer), at(51, &both)),
            (Some(1), Some(1), Some(1))
        );
        assert_eq!((at(52, &both), at(53, &both)), (Some(0), Some(0)));
        // And as often as that happens.
        assert_eq!((at(60, &rest), at(61, &both)), (Some(1), Some(1)));
        assert_eq!((at(90, &both), at(91, &both)), (Some(1), Some(0)));
    }

    #[test]
    fn another_try_of_a_request_does_not_fail_back() {
        let policy = First::new().fail_back(Duration::ZERO);
        let all = set_of(3);
        let (both, rest) = (hosts_of(&all, &[0, 1, 2]), hosts_of(&all, &[1, 2]));
        assert_eq!(picked(&policy, rest.available()), Some(1));
        let tried = [both.iter().position(|e| e.addr().ip() == host(2)).unwrap()];
        assert_eq!(picked(&policy, both.available().excluding(&tried)), Some(1));
        assert_eq!(picked(&policy, both.available()), Some(0));
    }
}
