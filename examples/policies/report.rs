//! Tables and bars.

use super::{
    engine::{MILLI, SECOND},
    runner::Outcome,
    scenario::Scenario,
    subsets::Subset,
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
    let subset = match scenario.subset {
        None => String::new(),
        Some(Subset::Nearest(k)) => format!(", the nearest {k} each"),
        Some(Subset::Matched(k)) => format!(", {k} each as matched"),
    };
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

/// The mix: the p99 of each case for each contestant, and how far from the best on average.
pub(crate) fn mix(outcomes: &[Outcome<'_>]) {
    let Some(first) = outcomes.first() else {
        return;
    };
    heading("mix: p99 in ms; x best: relative to the best of each row, geometric mean");
    let names = first.round.entries.iter().map(|(one, _)| one.name);
    let mut head: Vec<String> = vec![String::new()];
    head.extend(names.map(Into::into));
    let mut rows = vec![head];
    let mut logs = vec![0.0; first.figures.len()];
    for outcome in outcomes {
        let p99: Vec<f64> = outcome.figures.iter().map(|seeds| seeds[0].p99).collect();
        let best = p99.iter().copied().fold(f64::INFINITY, f64::min);
        let mut row = vec![outcome.round.scenario.name.replace("mix: ", "")];
        for (log, (p99, seeds)) in logs.iter_mut().zip(p99.iter().zip(&outcome.figures)) {
            *log += (p99 / best).ln();
            let errors = if seeds[0].errors > 0.0 { "!" } else { "" };
            row.push(format!("{p99:.1}{errors}"));
        }
        rows.push(row);
    }
    let mut last = vec!["x best".to_owned()];
    last.extend(
        logs.iter()
            .map(|log| format!("{:.2}", (log / outcomes.len() as f64).exp())),
    );
    rows.push(last);
    columns(&rows);
    aside("! some requests failed");
}

/// Columns as wide as their widest cell, however many there are.
fn columns(rows: &[Vec<String>]) {
    for row in rows {
        let padded = row.iter().enumerate().map(|(at, cell)| {
            let width = rows.iter().map(|row| row[at].len()).max().unwrap_or(0);
            format!("{cell:<width$}  ")
        });
        say(padded.collect::<String>().trim_end());
    }
}
