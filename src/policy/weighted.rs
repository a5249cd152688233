//! Each endpoint in turn, some more often.

use std::{fmt, ops::Range};

use super::{Policy, round_robin::Turns, tables::Tables};
use crate::{
    endpoint::Endpoint,
    set::{Candidates, Choice, EndpointSet},
};

/// Each endpoint in turn, and as often as its weight says: for pods of known, unequal sizes.
///
/// The schedule is gRPC's "static stride" (gRFC A58): an endpoint of half the weight skips every other of its turns, and
/// endpoints of equal weight skip different ones. So shares are exact over some rounds and smooth within; nothing is drawn, and threads walk
/// lanes of their own, as in [`RoundRobin`](crate::RoundRobin).
///
/// Weights are asked for when a set is published. Only their ratios count, and none counts for less than a hundredth
/// or more than ten times the mean. What is no positive number is unknown and counts as the mean; with
/// fewer than two that are known, all are equal.
///
/// Not against pods that are slow for a second now and then, of which a weight does not know: in the simulation of 5 clients and 50 such
/// pods 1.4 % of the requests fail and p99 is 866 ms. [`Adaptive`](crate::Adaptive) goes by what it measures.
///
/// ```
/// use headless_lb::{EndpointSet, Policy, Weighted};
/// use std::net::SocketAddr;
///
/// let set = EndpointSet::of((1..=2).map(|i| SocketAddr::from(([10, 0, 0, i], 80))));
/// let large = SocketAddr::from(([10, 0, 0, 2], 80));
/// let policy = Weighted::by(move |endpoint| if endpoint.addr() == large { 3.0 } else { 1.0 });
/// policy.prepare(&set); // the balancer does this
///
/// let picks = (0..400).filter_map(|_| policy.pick(set.available()));
/// let large = picks.filter(|choice| choice.endpoint().addr() == large).count();
/// assert!((299..=301).contains(&large));
/// ```
pub struct Weighted {
    weigh: Box<dyn Fn(&Endpoint) -> f64 + Send + Sync>,
    turns: Turns,
    tables: Tables<Table>,
}

/// The largest weight; gRPC's.
const FULL: u64 = 65_535;

/// How far apart the turns of neighbours are shifted: about half of all.
const SHIFT: u64 = 32_767;

/// No weight counts for less than this part of the mean, nor for more than so many times it.
const LEAST: f64 = 0.01;
const MOST: f64 = 10.0;

impl Weighted {
    /// By the weight that a function gives to each endpoint.
    pub fn by(weight: impl Fn(&Endpoint) -> f64 + Send + Sync + 'static) -> Self {
        Self {
            weigh: Box::new(weight),
            turns: Turns::random(),
            tables: Tables::default(),
        }
    }

    /// By the weights of the SRV records ([`Endpoint::weight`]).
    ///
    /// Those that Kubernetes' DNS makes are the same for all pods of a service, which is round robin: for name servers
    /// where somebody writes them.
    pub fn srv() -> Self {
        Self::by(|endpoint| endpoint.weight().map_or(0.0, f64::from))
    }

    /// For tests and simulations: the walks start where `seed` says.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.turns = Turns::seeded(seed);
        self
    }

    fn table(&self, set: &EndpointSet) -> Table {
        Table::of(set, set.iter().map(|endpoint| (self.weigh)(endpoint)))
    }

    /// As `Table::of` would have it for these alone, without the memory for it.
    #[cold]
    fn unprepared<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let set = candidates.set();
        let raw = || set.iter().map(|endpoint| (self.weigh)(endpoint));
        let Some(scale) = Scale::of(raw()) else {
            return self.stride(candidates, |_| FULL, FULL);
        };
        let weight = |index: usize| {
            let weight = set.at(index).map_or(0.0, |endpoint| (self.weigh)(endpoint));
            scale.of_full(weight)
        };
        let most = most(candidates, weight);
        self.stride(candidates, weight, most)
    }

    /// Takes turns until one is not skipped. That of the heaviest never is, so a round is enough.
    #[inline]
    fn stride<'a>(
        &self,
        candidates: Candidates<'a>,
        weight: impl Fn(usize) -> u64,
        most: u64,
    ) -> Option<Choice<'a>> {
        let Range { start, .. } = candidates.range();
        let n = candidates.span();
        for _ in 0..=n {
            let turn = self.turns.next();
            let (round, place) = (turn.checked_div(n)?, turn.checked_rem(n)?);
            let Some(choice) = candidates.choose_at(start + place) else {
                // This request tried it.
                continue;
            };
            let weight = weight(start + place) * FULL / most.max(1);
            if takes_turn(place as u64, round as u64, weight.min(FULL)) {
                return Some(choice);
            }
        }
        // Other requests on this lane took the turns between.
        candidates.choose_from(0)
    }
}

/// Whether the endpoint at `place` takes its turn of this round. gRFC A58, "Static Stride Scheduler".
#[inline]
fn takes_turn(place: u64, round: u64, weight: u64) -> bool {
    (weight * round + place * SHIFT) % FULL >= FULL - weight
}

/// The largest weight of the candidates.
fn most(candidates: Candidates<'_>, weight: impl Fn(usize) -> u64) -> u64 {
    let mut most = 1;
    candidates.each_index(|index| most = most.max(weight(index)));
    most
}

impl Policy for Weighted {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        self.tables.with(candidates.set(), |table| {
            let Some(table) = table else {
                return self.unprepared(candidates);
            };
            let weight = |index: usize| u64::from(table.weights[index]);
            let most = if candidates.has(table.heaviest) {
                FULL
            } else {
                most(candidates, weight)
            };
            self.stride(candidates, weight, most)
        })
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        self.tables.add(set, |_| self.table(set));
        true
    }
}

/// In the order of the set.
struct Table {
    /// In 65,535ths of the heaviest one that is available.
    weights: Box<[u16]>,
    heaviest: usize,
}

impl Table {
    fn of(set: &EndpointSet, raw: impl Iterator<Item = f64> + Clone) -> Self {
        let Some(scale) = Scale::of(raw.clone()) else {
            return Self {
                weights: vec![u16::MAX; set.len()].into(),
                heaviest: set.available().range().start,
            };
        };
        let raw: Vec<u64> = raw.map(|weight| scale.of_full(weight)).collect();
        let available = set.available().range();
        let heaviest = available.max_by_key(|&index| raw[index]).unwrap_or(0);
        let most = raw.get(heaviest).map_or(1, |&most| most.max(1));
        // One that is set aside may be heavier.
        let scaled = |weight: u64| (weight * FULL / most).min(FULL) as u16;
        Self {
            weights: raw.into_iter().map(scaled).collect(),
            heaviest,
        }
    }
}

/// The mean of the known weights.
#[derive(Clone, Copy)]
struct Scale {
    mean: f64,
}

impl Scale {
    /// None if fewer than two are known.
    fn of(raw: impl Iterator<Item = f64>) -> Option<Self> {
        let known = raw.filter(|weight| is_known(*weight));
        let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), one| (sum + one, count + 1));
        (count >= 2).then_some(Self {
            mean: sum / f64::from(count),
        })
    }

    /// A weight on a scale that ends with the largest that any may have.
    fn of_full(self, weight: f64) -> u64 {
        let times = if is_known(weight) {
            (weight / self.mean).clamp(LEAST, MOST)
        } else {
            1.0
        };
        (times / MOST * RESOLUTION).round() as u64
    }
}

/// As fine as it gets without an overflow in what is computed with it.
const RESOLUTION: f64 = (1_u64 << 40) as f64;

fn is_known(weight: f64) -> bool {
    weight.is_normal() && weight > 0.0
}

impl fmt::Debug for Weighted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Weighted")
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc};

    use super::*;
    use crate::{
        endpoint::Address,
        policy::tests::{picked, set_of},
        set::Position,
    };

    fn host(endpoint: &Endpoint) -> u8 {
        match endpoint.addr() {
            SocketAddr::V4(addr) => addr.ip().octets()[3],
            SocketAddr::V6(_) => 0,
        }
    }

    fn by(weights: &'static [f64]) -> Weighted {
        Weighted::by(|endpoint| weights[usize::from(host(endpoint))])
    }

    fn shares(policy: &Weighted, set: &EndpointSet, picks: usize) -> Vec<usize> {
        let mut shares = vec![0; set.len()];
        (0..picks).for_each(|_| {
            let host = picked(policy, set.available()).unwrap();
            shares[usize::from(host)] += 1;
        });
        shares
    }

    #[test]
    fn turns_are_taken_as_the_formula_says() {
        // By hand: with half the weight, (32,767 g + 32,767 i) mod 65,535 >= 32,768. At place 0 that is
        // 0, 32,767, 65,534, 32,766, 65,533, 32,765 for g from 0 on: no, no, yes, no, yes, no.
        let taken = |place, weight| (0..6).map(move |round| takes_turn(place, round, weight));
        let half: Vec<_> = taken(0, 32_767).collect();
        assert_eq!(half, [false, false, true, false, true, false]);
        // One place further: 32,767, 65,534, 32,766, 65,533, 32,765, 65,532.
        let next: Vec<_> = taken(1, 32_767).collect();
        assert_eq!(next, [false, true, false, true, false, true]);
        assert!(taken(5, FULL).all(|taken| taken), "the heaviest skips none");
    }

    #[test]
    fn shares_are_in_proportion_to_the_weights_prepared_or_not() {
        let set = set_of(4);
        let policy = by(&[1.0, 2.0, 3.0, 4.0]).seeded(1);
        for _ in 0..2 {
            let shares = shares(&policy, &set, 20_000);
            for (share, expected) in shares.iter().zip([2_000_usize, 4_000, 6_000, 8_000]) {
                assert!(share.abs_diff(expected) <= expected / 100, "{shares:?}");
            }
            policy.prepare(&set);
        }
    }

    #[test]
    fn an_unknown_weight_counts_as_the_mean_and_with_fewer_than_two_known_ones_all_are_equal() {
        let set = set_of(4);
        for odd in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
            let policy =
                Weighted::by(move |endpoint| [1.0, 3.0, odd, odd][usize::from(host(endpoint))]);
            policy.prepare(&set);
            let some = shares(&policy, &set, 8_000);
            for (share, expected) in some.iter().zip([1_000_usize, 3_000, 2_000, 2_000]) {
                assert!(
                    share.abs_diff(expected) <= expected / 100,
                    "{odd}: {some:?}"
                );
            }
            let alone =
                Weighted::by(move |endpoint| [9.0, odd, odd, odd][usize::from(host(endpoint))]);
            alone.prepare(&set);
            assert_eq!(shares(&alone, &set, 8_000), [2_000; 4], "{odd}");
        }
    }

    #[test]
    fn no_weight_counts_for_less_than_a_hundredth_of_the_mean_or_more_than_ten_times_it() {
        // The mean is about 5,000: 50 and 50,000 are the limits.
        let set = set_of(20);
        let policy = Weighted::by(|endpoint| match host(endpoint) {
            0 => 1e5,
            _ => 1.0,
        });
        policy.prepare(&set);
        let shares = shares(&policy, &set, 20_380);
        // 10 to 0.01, nineteen times.
        assert!(shares[0].abs_diff(20_000) <= 100, "{shares:?}");
        assert!(
            shares[1..].iter().all(|share| share.abs_diff(20) <= 2),
            "{shares:?}"
        );
    }

    #[test]
    fn those_that_are_left_share_by_weight_though_the_heaviest_is_away() {
        let all = set_of(4);
        let policy = by(&[1.0, 2.0, 3.0, 60.0]);
        let is_away = |endpoint: &Endpoint| host(endpoint) == 3;
        let set = EndpointSet::new(all.iter().map(|endpoint| {
            let position = if is_away(endpoint) {
                Position::Ejected
            } else {
                Position::Replica
            };
            (position, Arc::clone(endpoint))
        }));
        policy.prepare(&set);
        assert_eq!(shares(&policy, &set, 6_000), [1_000, 2_000, 3_000, 0]);
        // Tried by a request, too.
        let policy = by(&[1.0, 2.0, 3.0, 60.0]);
        policy.prepare(&all);
        let tried = [all.iter().position(|endpoint| is_away(endpoint)).unwrap()];
        let mut shares = [0_usize; 4];
        for _ in 0..6_000 {
            let rest = all.available().excluding(&tried);
            shares[usize::from(picked(&policy, rest).unwrap())] += 1;
        }
        assert!(
            shares[0].abs_diff(1_000) < 20 && shares[2].abs_diff(3_000) < 20,
            "{shares:?}"
        );
    }

    #[test]
    fn the_weights_of_srv_records_count_and_a_new_one_with_the_next_set() {
        let pod =
            |host, weight| Address::from(SocketAddr::from(([10, 0, 0, host], 80))).weighted(weight);
        let set = EndpointSet::of([pod(0, 100), pod(1, 300)]);
        let policy = Weighted::srv();
        policy.prepare(&set);
        assert_eq!(shares(&policy, &set, 4_000), [1_000, 3_000]);
        set.iter()
            .for_each(|endpoint| endpoint.set_weight(Some(50)));
        policy.prepare(&set);
        assert_eq!(shares(&policy, &set, 4_000), [2_000, 2_000]);
    }
}
