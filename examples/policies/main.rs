//! Policies in a simulated cluster: what each does to latency, errors and shares.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod client;
mod contestants;
mod engine;
mod incident;
mod peers;
mod pod;
mod report;
mod runner;
mod scenario;
mod subsets;
mod tally;
mod traffic;
mod world;

use std::process::ExitCode;

use contestants::{C3_OF_3, LEAST_REQUEST, PREQUAL, RANDOM, RAW_PEAK, ROUND_ROBIN};
use runner::Round;
use scenario::Scenario;

fn main() -> ExitCode {
    let all = [
        ROUND_ROBIN,
        RANDOM,
        LEAST_REQUEST,
        RAW_PEAK,
        C3_OF_3,
        PREQUAL,
    ];
    let mut rounds = vec![Round {
        scenario: check::scenario(10, 120),
        entries: check::CONTESTANTS
            .map(|(contestant, _)| (contestant, 1))
            .into(),
    }];
    for scenario in [
        Scenario::new("S1", 5, 50).load(0.9),
        Scenario::new("S1", 100, 100).load(0.9),
        Scenario::new("S1", 100, 100).load(0.9).subset(20),
    ] {
        rounds.push(Round {
            scenario,
            entries: all.map(|one| (one, 1)).into(),
        });
    }
    let mut ok = true;
    report::legend();
    runner::run_all(
        &rounds,
        1,
        2,
        |done, of, name| eprintln!("{done}/{of} {name}"),
        |outcome| {
            if outcome.round.scenario.name == "check" {
                for ((contestant, d), figures) in
                    std::iter::zip(check::CONTESTANTS, &outcome.figures)
                {
                    ok &= report::check(
                        contestant.name,
                        figures[0].mean / 10.0,
                        check::formula(d),
                        check::TOLERANCE,
                    );
                }
            }
            report::round(&outcome);
        },
    );
    println!("\npolicies: {} ", if ok { "ok" } else { "FAILED" });
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
