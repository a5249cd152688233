//! Runs are independent of each other: any number of threads, always the same results.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
};

use super::{contestants::Contestant, goals::Goal, scenario::Scenario, tally::Figures, world};

/// A scenario, who goes through it with how many seeds, and what must come out.
#[derive(Clone)]
pub(crate) struct Round {
    pub(crate) scenario: Scenario,
    pub(crate) entries: Vec<(Contestant, u64)>,
    pub(crate) goals: Vec<Goal>,
}

/// What came out for each entry of a round, seed by seed.
pub(crate) struct Outcome<'a> {
    pub(crate) round: &'a Round,
    pub(crate) figures: Vec<Vec<Figures>>,
}

/// Runs all, on so many threads; tells each round as soon as it and those before it are done.
///
/// `progress` is told, in any order, how many of all runs are done.
pub(crate) fn run_all<'a>(
    rounds: &'a [Round],
    first_seed: u64,
    threads: usize,
    mut progress: impl FnMut(usize, usize, &str),
    mut tell: impl FnMut(Outcome<'a>),
) {
    let runs: Vec<(&Round, &Contestant, u64)> = rounds
        .iter()
        .flat_map(|round| round.entries.iter().map(move |entry| (round, entry)))
        .flat_map(|(round, (contestant, seeds))| {
            (0..*seeds).map(move |seed| (round, contestant, first_seed + seed))
        })
        .collect();
    let done: Vec<OnceLock<Figures>> = runs.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (next, runs, done, ended) = (&next, &runs, &done, ended.clone());
            scope.spawn(move || {
                while let Some((i, (round, contestant, seed))) = {
                    let i = next.fetch_add(1, Relaxed);
                    runs.get(i).map(|run| (i, *run))
                } {
                    let figures = world::run(&round.scenario, contestant, seed);
                    done[i].get_or_init(|| figures);
                    if ended.send(i).is_err() {
                        return;
                    }
                }
            });
        }
        drop(ended);
        let (mut told, mut first) = (rounds.iter(), 0);
        let mut waiting = told.next();
        for (count, i) in (1..).zip(end) {
            progress(count, runs.len(), &runs[i].0.scenario.name);
            while let Some(round) = waiting {
                let runs = round
                    .entries
                    .iter()
                    .map(|(_, seeds)| *seeds as usize)
                    .sum::<usize>();
                let of_round = &done[first..first + runs];
                if of_round.iter().any(|figures| figures.get().is_none()) {
                    break;
                }
                let mut figures = of_round.iter().filter_map(OnceLock::get).cloned();
                let of_entry = |(_, seeds): &(Contestant, u64)| {
                    figures.by_ref().take(*seeds as usize).collect()
                };
                tell(Outcome {
                    round,
                    figures: round.entries.iter().map(of_entry).collect(),
                });
                first += runs;
                waiting = told.next();
            }
        }
    });
}

impl Outcome<'_> {
    /// How many requests were simulated and counted.
    pub(crate) fn requests(&self) -> u64 {
        let figures = self.figures.iter().flatten();
        figures.map(|figures| figures.requests).sum()
    }
}
