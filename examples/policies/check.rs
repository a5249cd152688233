//! The simulation is checked before it is believed: least of `d` queues has a formula.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use headless_lb::{Candidates, policy_fn};
use rand::{Rng, SeedableRng};

use super::{
    client::Chooser,
    contestants::{Contestant, LEAST_REQUEST},
    engine::SECOND,
    scenario::Scenario,
    traffic::Stream,
};

/// One client in front of 500 pods with one worker each, and no network.
pub(crate) fn scenario(warm: u64, run: u64) -> Scenario {
    let mut scenario = Scenario::new("check", 1, 500)
        .workers(1)
        .load(LOAD)
        .lasts(warm, run);
    scenario.hop = 0;
    scenario.deadline = 1_000 * SECOND;
    scenario
}

const LOAD: f64 = 0.9;
pub(crate) const TOLERANCE: f64 = 0.005;

/// With the number of choices of each.
pub(crate) const CONTESTANTS: [(Contestant, i32); 2] = [(LEAST_REQUEST, 2), (LEAST_OF_3, 3)];

/// The library draws two; the formula holds for three as well, so this one checks the simulation alone.
const LEAST_OF_3: Contestant = Contestant::new("least of 3", |seed, _| {
    let state = AtomicU64::new(seed);
    let policy = policy_fn(move |candidates: Candidates<'_>| {
        let mut stream = Stream::seed_from_u64(state.fetch_add(1, Relaxed));
        let mut draw = || stream.next_u64() as usize % candidates.len();
        let three = [draw(), draw(), draw()];
        let least = three
            .into_iter()
            .min_by_key(|&i| candidates.get(i).map(|endpoint| endpoint.pending()));
        candidates.choose(least?)
    });
    Chooser::Policy(Box::new(policy))
});

/// Mean time in the system, in units of mean work, where each request joins the shortest of `d` random
/// queues: the sum over i >= 1 of load^((d^i - d) / (d - 1)) (Mitzenmacher, 2001).
pub(crate) fn formula(d: i32) -> f64 {
    let term = |i: i32| LOAD.powi((d.pow(i as u32) - d) / (d - 1));
    (1..=8).map(term).sum()
}
