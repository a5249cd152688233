//! What is shown, and what must hold.

use crate::{
    fleet::{Odd, PODS},
    load::Figures,
    support::term::table,
};

type Named = (&'static str, Figures);

pub(crate) fn show(figures: &[Named]) {
    let ms = |time: std::time::Duration| format!("{:.0}", time.as_secs_f64() * 1e3);
    let longest = figures.iter().map(|(_, one)| one.p99()).max();
    let longest = longest.unwrap_or_default().as_secs_f64().max(1e-3);
    let rows: Vec<_> = figures
        .iter()
        .map(|(name, one)| {
            let bar = (one.p99().as_secs_f64() / longest * 30.0).ceil() as usize;
            [
                (*name).to_owned(),
                ms(one.quantile(0.5)),
                ms(one.p99()),
                "#".repeat(bar),
                format!("{:.2} %", one.failures() * 100.0),
                format!("{:.1} %", one.odd_share() * 100.0),
            ]
        })
        .collect();
    table(
        [
            "policy",
            "p50 ms",
            "p99 ms",
            "",
            "failed",
            "odd pod's share",
        ],
        &rows,
    );
}

pub(crate) fn of<'a>(figures: &'a [Named], name: &str) -> &'a Figures {
    let found = figures.iter().find(|(other, _)| *other == name);
    &found.expect("a contestant of this name").1
}

/// What does not hold of what the simulation says.
pub(crate) fn check(rounds: &[((Odd, usize), Vec<Named>)]) -> Vec<String> {
    let mut broken = Vec::new();
    for ((odd, clients), figures) in rounds {
        let mut expect = |holds: bool, what: String| {
            if !holds {
                broken.push(format!("a pod {odd}, {clients} clients: {what}"));
            }
        };
        match odd {
            Odd::Slow => {
                for (better, worse) in [
                    ("Adaptive", "LeastRequest"),
                    ("PeakEwma", "LeastRequest"),
                    ("LeastRequest", "RoundRobin"),
                ] {
                    // Failures are the slowest of all: they weigh first where there are some.
                    let cost = |name| {
                        let one = of(figures, name);
                        ((one.failures() * 100.0).round() as u64, one.p99())
                    };
                    let (first, second) = (cost(better), cost(worse));
                    expect(
                        first < second,
                        format!("{better} {first:?} is not better than {worse} {second:?}"),
                    );
                }
            }
            Odd::Failing => {
                for name in ["Adaptive", "PeakEwma", "RoundRobin + ejection"] {
                    let (share, fair) = (of(figures, name).odd_share(), 1.0 / PODS as f64);
                    expect(
                        share < fair,
                        format!("{name} gives it {share:.3}, more than its {fair:.3}"),
                    );
                }
            }
        }
    }
    broken
}
