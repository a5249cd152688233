//! The endpoint that a key has drawn highest.

use std::{collections::BTreeSet, fmt};

use super::{Policy, Random, bound::Bound, tables::Tables};
use crate::{
    endpoint::Endpoint,
    key::fold,
    set::{Candidates, Choice, EndpointSet},
};

/// The endpoint that the key ranks highest: for caches and for data that are split by key.
///
/// Every key ranks all endpoints by a hash of both ("highest random weight", Thaler and Ravishankar, 1998). So clients
/// that see the same endpoints agree, without a word between them; when an endpoint leaves, its keys move and no
/// other does, to the next in *their* rank, each key to another; and back when it returns. A request that an endpoint
/// refused goes the same way, and picks of [several](crate::Balancer::pick_many) are the key's replicas.
///
/// The key comes from [`pick_for`](crate::Balancer::pick_for) or
/// [`for_key`](crate::Balancer::for_key); without one, any endpoint is picked. An endpoint is known by its pod's name and its
/// port, so a StatefulSet's pod gets its keys back with another address; without a name, or with one that is made of
/// the address, by IP and port. (A name that is told later than the address counts from the next change of the set.)
///
/// A pick looks at each endpoint, 1 ns for each (measured). With hundreds, [`Maglev`](crate::Maglev) is faster, and moves
/// more keys. Not where few keys get most of the requests, unless [bounded](Self::bounded); not together with a
/// [subset](crate::Builder::subset), which differs from client to client.
///
/// ```
/// use headless_lb::{Balancer, Fixed, Rendezvous};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pods = (1..=3).map(|i| SocketAddr::from(([127, 0, 0, i], 6379)));
/// let cache = Balancer::builder(Fixed::new(pods)).policy(Rendezvous::new()).spawn();
/// cache.resolved().await?;
/// assert_eq!(cache.pick_for("cart-7")?.addr(), cache.pick_for("cart-7")?.addr());
/// # Ok(()) }
/// ```
pub struct Rendezvous {
    bound: Bound,
    weigh: Option<Weigh>,
    tables: Tables<Table>,
    keyless: Random,
}

type Weigh = Box<dyn Fn(&Endpoint) -> f64 + Send + Sync>;

/// What is looked at for each endpoint, in the order of the set.
struct Table {
    identities: Box<[u64]>,
    /// Empty where all weigh the same.
    weights: Box<[f64]>,
    /// Whether one pod is there under two addresses.
    has_twins: bool,
}

impl Rendezvous {
    /// Endpoints of equal weight, and no bound. Picks without a key draw from a generator of the calling thread.
    pub fn new() -> Self {
        Self::with_keyless(Random::new())
    }

    /// For tests and simulations: picks without a key draw a sequence that `seed` decides.
    pub fn seeded(seed: u64) -> Self {
        Self::with_keyless(Random::seeded(seed))
    }

    fn with_keyless(keyless: Random) -> Self {
        Self {
            bound: Bound::NONE,
            weigh: None,
            tables: Tables::default(),
            keyless,
        }
    }

    /// No endpoint gets a request while it has `times` the mean in flight, and at least four: the key's next endpoint does.
    ///
    /// Against hot keys, at the price that they are in more than one place. 1.25 is a good first value, and 1.25 to 2 make
    /// sense; below 1 counts as 1. Measured in requests of this client; that costs a look at the counters of all
    /// endpoints. Default: no bound.
    ///
    /// "Consistent Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam, 2018).
    #[must_use]
    pub fn bounded(mut self, times: f32) -> Self {
        self.bound = Bound::new(times);
        self
    }

    /// Gives endpoints keys in proportion to their weights. When one endpoint's weight changes, keys move to it or
    /// from it, and not between others. A weight that is not a positive number counts as 1. Asked for when a set is
    /// published. Default: all weigh the same.
    ///
    /// A draw `u` from 0 to 1 becomes `-weight / ln(u)` (Schindelhauer and Schomaker, 2005), which makes picks about five times dearer.
    #[must_use]
    pub fn weighted(mut self, weight: impl Fn(&Endpoint) -> f64 + Send + Sync + 'static) -> Self {
        self.weigh = Some(Box::new(weight));
        self
    }

    /// The key's first endpoint that is not full, or if all are, its first.
    fn ranked<'a>(
        &self,
        candidates: Candidates<'a>,
        score: impl Fn(usize) -> u64,
    ) -> Option<Choice<'a>> {
        let first = highest(candidates, &score, |_| true)?;
        self.unless_full(candidates, first, score)
    }

    fn unless_full<'a>(
        &self,
        candidates: Candidates<'a>,
        first: usize,
        score: impl Fn(usize) -> u64,
    ) -> Option<Choice<'a>> {
        let first = candidates.choose_at(first)?;
        let Some(full) = self.bound.of(candidates) else {
            return Some(first);
        };
        let set = candidates.set();
        let fits = |index| set.at(index).is_some_and(|one| one.pending() < full);
        if fits(first.index()) {
            return Some(first);
        }
        let next = highest(candidates, score, fits).and_then(|index| candidates.choose_at(index));
        Some(next.unwrap_or(first))
    }

    fn score(&self, key: u64, endpoint: &Endpoint) -> u64 {
        let draw = draw(key, endpoint.identity());
        match self.weigh {
            None => draw,
            Some(_) => weighted(draw, self.weight(endpoint)),
        }
    }

    fn weight(&self, endpoint: &Endpoint) -> f64 {
        let weight = self.weigh.as_ref().map_or(1.0, |weigh| weigh(endpoint));
        if weight.is_normal() && weight > 0.0 {
            weight
        } else {
            1.0
        }
    }
}

impl Policy for Rendezvous {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let Some(key) = candidates.key() else {
            return self.keyless.pick(candidates);
        };
        let set = candidates.set();
        self.tables.with(set, |table| {
            let Some(table) = table else {
                return self.ranked(candidates, |index| {
                    set.at(index)
                        .map_or(0, |endpoint| self.score(key, endpoint))
                });
            };
            let drawn = |index: usize| draw(key, table.identities[index]);
            if !table.weights.is_empty() {
                return self.ranked(candidates, |index| {
                    weighted(drawn(index), table.weights[index])
                });
            }
            if table.has_twins || candidates.is_reduced() {
                return self.ranked(candidates, drawn);
            }
            let range = candidates.range();
            let first = range.start + foremost(key, &table.identities[range])?;
            self.unless_full(candidates, first, drawn)
        })
    }

    fn is_sticky(&self) -> bool {
        true
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        self.tables.add(set, |_| {
            let identities: Box<[u64]> = set.iter().map(|endpoint| endpoint.identity()).collect();
            let distinct: BTreeSet<_> = identities.iter().collect();
            Table {
                has_twins: distinct.len() < identities.len(),
                identities,
                weights: match self.weigh {
                    None => Box::default(),
                    Some(_) => set.iter().map(|endpoint| self.weight(endpoint)).collect(),
                },
            }
        });
        true
    }
}

/// What the key draws for an endpoint.
#[inline]
fn draw(key: u64, identity: u64) -> u64 {
    fold(key ^ identity)
}

/// The draw in proportion to the weight: positive numbers are in the order of their bits.
#[inline]
fn weighted(draw: u64, weight: f64) -> u64 {
    // As many bits as a double holds, and never 0 nor 1.
    let unit = ((draw >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    (-weight / unit.ln()).to_bits()
}

/// The place of the highest draw: the loop that a pick consists of, hence nothing else in it.
#[inline]
fn foremost(key: u64, identities: &[u64]) -> Option<usize> {
    let (mut best, mut most) = (None, 0);
    for (i, &identity) in identities.iter().enumerate() {
        let score = draw(key, identity);
        if score >= most {
            (best, most) = (Some(i), score);
        }
    }
    best
}

/// The index in the set of the candidate with the highest score that fits.
#[inline]
fn highest(
    candidates: Candidates<'_>,
    score: impl Fn(usize) -> u64,
    fits: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (mut best, mut most) = (None, 0);
    candidates.each_index(|index| {
        let score = score(index);
        if score >= most && fits(index) {
            let is_twin = score == most;
            best = Some(if is_twin {
                lower(candidates.set(), best, index)
            } else {
                index
            });
            most = score;
        }
    });
    best
}

/// One pod under two addresses: every client takes the same.
#[cold]
fn lower(set: &EndpointSet, best: Option<usize>, other: usize) -> usize {
    let addr = |index: usize| set.at(index).map(|endpoint| endpoint.addr());
    best.into_iter()
        .chain([other])
        .min_by_key(|&index| addr(index))
        .unwrap_or(other)
}

impl Default for Rendezvous {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendezvous")
            .field("bound", &self.bound)
            .field("weighted", &self.weigh.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{picked, set_of};

    #[test]
    fn another_try_goes_to_the_keys_next_and_those_of_one_endpoint_scatter() {
        let (policy, set) = (Rendezvous::new(), set_of(12));
        policy.prepare(&set);
        let mut heirs = BTreeSet::new();
        for key in 0..500_u64 {
            let mut tried = Vec::new();
            let all = set.available().for_key(key);
            while let Some(choice) = policy.pick(all.excluding(&tried)) {
                let place = tried.partition_point(|&other| other < choice.index());
                assert_ne!(tried.get(place), Some(&choice.index()), "picked again");
                if tried == [3] {
                    heirs.insert(choice.index());
                }
                tried.insert(place, choice.index());
                if tried.len() == 12 {
                    break;
                }
            }
            assert_eq!(tried.len(), 12);
        }
        assert!(heirs.len() > 8, "{heirs:?}");
    }

    #[test]
    fn without_a_key_any_endpoint_is_picked() {
        let (policy, set) = (Rendezvous::seeded(1), set_of(5));
        let seen: BTreeSet<_> = (0..100).map(|_| picked(&policy, set.available())).collect();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn a_weight_that_is_none_counts_as_one() {
        let set = set_of(9);
        for weight in [f64::NAN, f64::INFINITY, -3.0, 0.0] {
            let (odd, plain) = (
                Rendezvous::new().weighted(move |_| weight),
                Rendezvous::new(),
            );
            odd.prepare(&set);
            for key in 0..100_u64 {
                let candidates = set.available().for_key(key);
                assert_eq!(picked(&odd, candidates), picked(&plain, candidates));
            }
        }
    }

    #[test]
    fn of_two_addresses_of_one_pod_every_client_takes_the_lower() {
        let pod = |ip: &str| {
            let addr = format!("{ip}:80").parse::<std::net::SocketAddr>();
            crate::endpoint::Address::from(addr.unwrap()).named("db-0")
        };
        let (v4, v6) = (pod("10.0.0.1"), pod("[fd00::1]"));
        for pods in [[v4.clone(), v6.clone()], [v6, v4]] {
            let set = EndpointSet::of(pods);
            let (prepared, unprepared) = (Rendezvous::new(), Rendezvous::new());
            prepared.prepare(&set);
            for key in 0..20_u64 {
                let candidates = set.available().for_key(key);
                assert_eq!(picked(&prepared, candidates), Some(1));
                assert_eq!(picked(&unprepared, candidates), Some(1));
            }
        }
    }
}
