//! Any endpoint.

use super::Policy;
use crate::{
    draw::{Draw, below},
    set::{Candidates, Choice},
};

/// Any endpoint, each with the same probability.
///
/// Nothing is remembered, so it is right from the first request: for very many or short-lived clients.
/// With few clients its shares are uneven over short windows; prefer [`RoundRobin`](crate::RoundRobin)
/// or [`LeastRequest`](crate::LeastRequest).
#[derive(Debug)]
pub struct Random {
    draw: Draw,
}

impl Random {
    /// Draws from a generator of the calling thread.
    pub fn new() -> Self {
        Self {
            draw: Draw::from_thread(),
        }
    }

    /// Draws a sequence that `seed` decides, for tests and simulations; slower when threads share it.
    pub fn seeded(seed: u64) -> Self {
        Self {
            draw: Draw::seeded(seed),
        }
    }
}

impl Policy for Random {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        candidates.choose(below((self.draw.bits() >> 32) as u32, candidates.len()))
    }
}

impl Default for Random {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{picked, set_of};

    #[test]
    fn shares_are_even_within_five_standard_deviations() {
        let (policy, set) = (Random::seeded(42), set_of(10));
        let mut shares = [0_i32; 10];
        (0..10_000)
            .for_each(|_| shares[usize::from(picked(&policy, set.available()).unwrap())] += 1);
        // Binomial: mean 1,000, standard deviation 30. Seeded, so this cannot fail by chance.
        assert!(
            shares.iter().all(|share| (share - 1000).abs() < 150),
            "{shares:?}"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_picks() {
        let set = set_of(50);
        let picks = |seed| {
            let policy = Random::seeded(seed);
            (0..20)
                .map(|_| picked(&policy, set.available()))
                .collect::<Vec<_>>()
        };
        assert_eq!(picks(1), picks(1));
        assert_ne!(picks(1), picks(2));
    }
}
