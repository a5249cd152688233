//! The less busy of two.

use super::Policy;
use crate::{
    draw::{Draw, below},
    set::{Candidates, Choice},
};

/// Of two endpoints drawn at random, the one with fewer requests in flight.
///
/// "The power of two choices" (Mitzenmacher, 2001), as in Envoy's `LEAST_REQUEST` and gRPC A48, drawn
/// without replacement as in Finagle: drawing one endpoint twice would compare it with itself. For
/// requests of unequal cost. It sees the load of its own client only: with hundreds of clients most
/// endpoints look idle and it becomes [`Random`](crate::Random). Draw two, not all: a pod that fails
/// fast looks idle, and a scan of all would send it nearly everything.
#[derive(Debug)]
pub struct LeastRequest {
    draw: Draw,
}

impl LeastRequest {
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

impl Policy for LeastRequest {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let n = candidates.len();
        let bits = self.draw.bits();
        let first = below((bits >> 32) as u32, n);
        let one = candidates.choose(first)?;
        let Some(others) = n.checked_sub(1).filter(|&others| others > 0) else {
            return Some(one);
        };
        // Draw from the others, and step over the first: both orders of a pair are equally likely.
        let second = below(bits as u32, others);
        let two = candidates.choose(if second >= first { second + 1 } else { second })?;
        Some(if two.endpoint().pending() < one.endpoint().pending() {
            two
        } else {
            one
        })
    }
}

impl Default for LeastRequest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{picked, set_of};

    #[test]
    fn of_two_the_idle_one_is_always_picked() {
        let set = set_of(2);
        let busy = set.iter().next().unwrap();
        let _request = busy.begin();
        let policy = LeastRequest::seeded(1);
        for _ in 0..100 {
            let choice = policy.pick(set.available()).unwrap();
            assert_ne!(
                choice.endpoint().id(),
                busy.id(),
                "drawn twice, it would win against itself"
            );
        }
    }

    #[test]
    fn idle_endpoints_share_evenly() {
        let (policy, set) = (LeastRequest::seeded(3), set_of(10));
        let mut shares = [0_i32; 10];
        (0..10_000)
            .for_each(|_| shares[usize::from(picked(&policy, set.available()).unwrap())] += 1);
        assert!(
            shares.iter().all(|share| (share - 1000).abs() < 150),
            "{shares:?}"
        );
    }

    #[test]
    fn the_busiest_of_all_is_never_picked() {
        let set = set_of(5);
        let busy = set.iter().nth(2).unwrap();
        let _requests = [busy.begin(), busy.begin()];
        let policy = LeastRequest::seeded(9);
        assert!(
            (0..1000).all(|_| policy.pick(set.available()).unwrap().endpoint().id() != busy.id())
        );
    }
}
