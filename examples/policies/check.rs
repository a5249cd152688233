//! The simulation is checked before it is believed: least of `d` queues has a formula.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use headless_lb::{Candidates, policy_fn};
use rand::{Rng, SeedableRng};

use super::{
    client::Chooser,
    contestants::{Contestant, LEAST_REQUEST},
    engine::{MILLI, SECOND},
    runner::{Outcome, Round},
    scenario::Scenario,
    support::term::say,
    tally::Figures,
    traffic::Stream,
};

/// The round of the check.
pub(crate) fn round() -> Round {
    Round {
        scenario: scenario(3, 8),
        entries: CONTESTANTS.map(|(contestant, _)| (contestant, 1)).into(),
        goals: Vec::new(),
    }
}

/// One client in front of so many pods with one worker each, and no network. The formula is for infinitely
/// many: 500 are still 0.3 % above it.
fn scenario(warm: u64, run: u64) -> Scenario {
    let mut scenario = Scenario::new("check", 1, PODS)
        .workers(1)
        .load(LOAD)
        .lasts(warm, run);
    scenario.hop = 0;
    scenario.deadline = 1_000 * SECOND;
    scenario
}

const PODS: u32 = 2_000;
const LOAD: f64 = 0.9;
const TOLERANCE: f64 = 0.005;

/// With the number of choices of each.
const CONTESTANTS: [(Contestant, i32); 2] = [(LEAST_REQUEST, 2), (LEAST_OF_3, 3)];

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
fn formula(load: f64, d: i32) -> f64 {
    let term = |i: i32| load.powi((d.pow(i as u32) - d) / (d - 1));
    (1..=8).map(term).sum()
}

/// Judges what came out; whether it holds.
pub(crate) fn report(outcome: &Outcome<'_>) -> bool {
    let scenario = &outcome.round.scenario;
    let results = std::iter::zip(CONTESTANTS, &outcome.figures);
    let check = |((contestant, d), seeds): ((Contestant, i32), &Vec<Figures>)| {
        let figures = &seeds[0];
        // What was drawn, not what was meant: 0.1 % more load is 0.4 % more time.
        let load = figures.work / (scenario.run as f64 * f64::from(PODS));
        let mean = figures.mean / (scenario.mean_work as f64 / MILLI as f64);
        let expected = formula(load, d);
        let off = mean / expected - 1.0;
        let holds = off.abs() <= TOLERANCE;
        say(format!(
            "{:<14} mean time {mean:.3}, by the formula {expected:.3} at load {load:.4} ({:.3} at {LOAD}): {:+.2} %{}",
            contestant.name,
            formula(LOAD, d),
            off * 100.0,
            if holds { "" } else { ", TOO FAR" }
        ));
        holds
    };
    let held: Vec<bool> = results.map(check).collect();
    held.into_iter().all(|holds| holds)
}
