//! CPU time and latency per request, compared within rounds.

use std::process::ExitCode;

use crate::{
    Error, Verdicts,
    contestants::{self, CONTESTANTS, Contestant},
    limits,
    load::{Load, Run},
    pods::Pods,
};

/// Odd, so that one of them is the median. Fewer would not show a difference of 5 %.
const ROUNDS: usize = 11;

const LOADS: [Load; 2] = [
    Load {
        requests: 20_000,
        concurrency: 32,
    },
    Load {
        requests: 10_000,
        concurrency: 1,
    },
];

pub(crate) fn report() -> Result<ExitCode, Error> {
    let mut verdicts = Verdicts::default();
    for load in LOADS {
        let Load {
            requests,
            concurrency,
        } = load;
        println!(
            "concurrency {concurrency}: medians of {ROUNDS} rounds of {requests} requests; ratios to fixed, least and most of a round\n"
        );
        println!(
            "{:16} {:>7} {:>7}  {:13} {:>7} {:>7}",
            "client", "CPU us", "ratio", "", "p50 us", "ratio"
        );
        let rounds = rounds(load)?;
        for (place, contestant) in CONTESTANTS.iter().enumerate() {
            print_row(place, contestant, load, &rounds, &mut verdicts);
        }
        println!();
    }
    Ok(verdicts.conclude(ExitCode::SUCCESS))
}

/// Each round's runs, in the order of the contestants.
fn rounds(load: Load) -> Result<Vec<Vec<Run>>, Error> {
    let pods = Pods::start(contestants::most_pods())?;
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        // Another one begins each time, for what came before may leave traces.
        let mut runs = vec![None; CONTESTANTS.len()];
        for i in 0..CONTESTANTS.len() {
            let place = (round + i) % CONTESTANTS.len();
            runs[place] = Some(CONTESTANTS[place].run(&pods, load)?);
        }
        rounds.push(runs.into_iter().flatten().collect());
    }
    Ok(rounds)
}

fn print_row(
    place: usize,
    contestant: &Contestant,
    load: Load,
    rounds: &[Vec<Run>],
    verdicts: &mut Verdicts,
) {
    let fixed = contestant.fixed_place();
    let cpu = |run: &Run| run.cpu.as_secs_f64() * 1e6;
    let latency = |run: &Run| run.latency.as_secs_f64() * 1e6;
    let figures = |figure: &dyn Fn(&Run) -> f64| Figures {
        absolute: sorted(rounds.iter().map(|runs| figure(&runs[place]))),
        ratios: sorted(
            rounds
                .iter()
                .map(|runs| figure(&runs[place]) / figure(&runs[fixed])),
        ),
    };
    let (cpu, latency) = (figures(&cpu), figures(&latency));
    let ratio = median(&cpu.ratios);
    let row = format!("{} at {}", contestant.name, load.concurrency);
    let limit = limits::cpu(contestant.name, load.concurrency);
    println!(
        "{:16} {:>7.2} {ratio:>7.3}  {:13} {:>7.1} {:>7.3}{}",
        contestant.name,
        median(&cpu.absolute),
        format!("{:.2}..{:.2}", cpu.ratios[0], cpu.ratios[ROUNDS - 1]),
        median(&latency.absolute),
        median(&latency.ratios),
        verdicts.judge(&row, ratio, limit),
    );
}

/// One figure of one contestant, of each round, from the least to the most.
struct Figures {
    absolute: Vec<f64>,
    ratios: Vec<f64>,
}

fn sorted(figures: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
