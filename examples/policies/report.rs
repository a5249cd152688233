//! Tables and bars.

use super::{
    engine::{MILLI, SECOND},
    runner::Outcome,
    scenario::Scenario,
    support::term::{aside, heading, say, table},
};

/// What the columns mean, once.
pub(crate) fn legend() {
    aside(
        "p50, p99, p99.9: ms, of requests that succeeded. err: share of requests that failed, 1 s without answer included.\n\
         even: requests of the busiest pod / mean, over the run and in one second. odd: what odd pods got / their fair share.\n\
         conns: pairs of client and pod that were used. rif: 99th percentile and most requests in flight at a pod.\n\
         idle: picks whose client had nothing in flight there: so often it chose blindly. * not the library's.",
    );
}

/// One scenario, its contestants below each other.
pub(crate) fn round(outcome: &Outcome<'_>) {
    let scenario = &outcome.round.scenario;
    heading(format!("{}: {}", scenario.name, about(scenario)));
    let longest = outcome.figures.iter().map(|seeds| seeds[0].p99);
    let longest = longest.fold(1.0, f64::max);
    let rows: Vec<[String; 13]> = std::iter::zip(&outcome.round.entries, &outcome.figures)
        .map(|((contestant, _), seeds)| {
            let figures = &seeds[0];
            [
                contestant.name.into(),
                format!("{:.1}", figures.p50),
                format!("{:.1}", figures.p99),
                format!("{:.1}", figures.p999),
                percent(figures.errors),
                format!("{:.2}", figures.max_mean),
                format!("{:.1}", figures.max_mean_second),
                figures
                    .odd
                    .map_or_else(String::new, |odd| format!("{odd:.2}")),
                figures.connections.to_string(),
                format!("{}/{}", figures.load_p99, figures.load_max),
                format!("{:.0}%", figures.idle * 100.0),
                extras(figures.retries, figures.probes),
                "#".repeat((figures.p99 / longest * 20.0).ceil() as usize),
            ]
        })
        .collect();
    table(
        [
            "", "p50", "p99", "p99.9", "err", "even", "1 s", "odd", "conns", "rif", "idle", "",
            "p99",
        ],
        &rows,
    );
}

fn about(scenario: &Scenario) -> String {
    let subset = scenario
        .subset
        .map_or_else(String::new, |k| format!(", {k} each"));
    format!(
        "{} clients, {} pods{subset}, {:.0} requests/s, load {}, {} ms {:?}; {} + {} s",
        scenario.clients,
        scenario.pods,
        scenario.rate(),
        scenario.load,
        scenario.mean_work / MILLI,
        scenario.work,
        scenario.warm / SECOND,
        scenario.run / SECOND,
    )
}

fn extras(retries: u64, probes: f64) -> String {
    match (retries, probes > 0.0) {
        (0, false) => String::new(),
        (0, true) => format!("{probes:.1} probes"),
        _ => format!("{retries} retries"),
    }
}

/// As many digits as it takes to see that it is not nothing.
pub(crate) fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0".into(),
        percent if percent < 0.1 => format!("{percent:.4}%"),
        percent => format!("{percent:.2}%"),
    }
}

/// The check against the formula; whether it holds.
pub(crate) fn check(name: &str, mean: f64, expected: f64, tolerance: f64) -> bool {
    let off = mean / expected - 1.0;
    let holds = off.abs() <= tolerance;
    say(format!(
        "{name}: mean time {mean:.3}, by the formula {expected:.3}: {:+.2} %{}",
        off * 100.0,
        if holds { "" } else { ", TOO FAR" }
    ));
    holds
}
