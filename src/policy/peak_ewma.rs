//! The quicker and less busy of two.

use super::Policy;
use crate::{
    draw::Draw,
    set::{Candidates, Choice},
};

/// Of two endpoints drawn at random, the one with the lower product of peak latency and requests in flight.
///
/// As in Finagle, tower and Linkerd: a moving average over 10 s that takes a slower answer at once
/// (`finagle/loadbalancer/PeakEwma.scala`), fading to zero while nothing is measured; 30 ms before the first
/// answer; a failure counts as one that took 5 s, or 20 times the mean (Linkerd's penalty: without one,
/// a pod that fails fast draws twice its share).
///
/// Use it to go on as before when coming from one of these. [`Adaptive`](crate::Adaptive) does better wherever both
/// were simulated: this one stays away from pods that were slow for a second, all clients from the same ones, and
/// crowds the others.
#[derive(Debug)]
pub struct PeakEwma {
    draw: Draw,
}

impl PeakEwma {
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

impl Policy for PeakEwma {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let (one, two) = candidates.choose_two(self.draw.bits())?;
        let Some(two) = two else { return Some(one) };
        let stamp = one.endpoint().stamp(candidates.now());
        let cost = |choice: &Choice<'_>| choice.endpoint().peak_cost(stamp);
        Some(if cost(&two) < cost(&one) { two } else { one })
    }

    fn is_timed(&self) -> bool {
        true
    }
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::time::Instant;

    use super::*;
    use crate::{
        endpoint::Endpoint,
        outcome::{Cause, Outcome},
        policy::tests::set_of,
    };

    const MS: Duration = Duration::from_millis(1);

    fn served(endpoint: &Arc<Endpoint>, now: Instant, took: Duration, outcome: Outcome) {
        let mut request = endpoint.begin();
        request.sent_at(now);
        request.record_at(now + took, outcome);
    }

    #[test]
    fn of_two_the_lower_product_of_latency_and_load_is_picked() {
        let (set, now) = (set_of(2), Instant::now());
        let [quick, slow] = [0, 1].map(|i| set.iter().nth(i).unwrap());
        served(quick, now, 10 * MS, Outcome::Success);
        served(slow, now, 25 * MS, Outcome::Success);
        let policy = PeakEwma::seeded(1);
        let picked = || {
            policy
                .pick(set.available().at(now + 25 * MS))
                .unwrap()
                .endpoint()
                .id()
        };
        assert!((0..50).all(|_| picked() == quick.id()), "10 * 1 < 25 * 1");
        let _one = quick.begin();
        assert!((0..50).all(|_| picked() == quick.id()), "10 * 2 < 25 * 1");
        let _two = quick.begin();
        assert!((0..50).all(|_| picked() == slow.id()), "10 * 3 > 25 * 1");
    }

    #[test]
    fn a_quick_failure_looks_like_the_slowest_answer() {
        let (set, now) = (set_of(2), Instant::now());
        let [well, ill] = [0, 1].map(|i| set.iter().nth(i).unwrap());
        served(well, now, 100 * MS, Outcome::Success);
        served(ill, now, MS, Cause::Status(500).into());
        let policy = PeakEwma::seeded(2);
        // 5 s fade below 100 ms after 10 s * ln 50 = 39 s; the other fades as well, but is measured again.
        for second in 0..39 {
            let now = now + Duration::from_secs(second);
            served(well, now, 100 * MS, Outcome::Success);
            let choice = policy.pick(set.available().at(now + 100 * MS)).unwrap();
            assert_eq!(choice.endpoint().id(), well.id(), "after {second} s");
        }
        let now = now + Duration::from_secs(41);
        served(well, now, 100 * MS, Outcome::Success);
        let choice = policy.pick(set.available().at(now)).unwrap();
        assert_eq!(choice.endpoint().id(), ill.id());
    }
}
