//! Tables and bars.

use super::{
    catalogue::QUOTED,
    contestants::OWN,
    engine::{MILLI, SECOND},
    runner::Outcome,
    scenario::Scenario,
    subsets::Subset,
    support::term::{aside, heading, say, table},
    tally::Figures,
};

/// What the columns mean, once.
pub(crate) fn legend() {
    aside(
        "p50, p99, p99.9  milliseconds, of requests that succeeded; the bars are the p99\n\
         err              share of requests that failed; 1 s without an answer is a failure (S8: 5 s)\n\
         even, 1 s        requests of the busiest pod / mean: over the run; second by second\n\
         odd              what the odd pods got (slow, failing, new) / their fair share\n\
         conns            pairs of client and pod that were used\n\
         rif              requests in flight at a pod: 99th percentile / most\n\
         idle             picks of a pod at which the client had nothing in flight: so often it chose blindly\n\
         aside            a refused connect sets the pod aside, and the request goes elsewhere\n\
         ejection         five failures in a row set the pod aside for 30 s\n\
         a name with *    is not the library's; s20: each client uses the 20 pods nearest by hash",
    );
}

/// One scenario, its contestants below each other.
pub(crate) fn round(outcome: &Outcome<'_>) {
    let scenario = &outcome.round.scenario;
    heading(&scenario.name);
    aside(about(scenario));
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
                extras(figures),
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

/// What few have.
fn extras(figures: &Figures) -> String {
    if let Some(disagree) = figures.disagree {
        let percent = disagree * 100.0;
        return format!("{percent:.1}% disagree, {} changes", figures.changes);
    }
    match (figures.retries, figures.probes > 0.0) {
        (0, false) => String::new(),
        (0, true) => format!("{:.1} probes", figures.probes),
        (retries, _) => format!("{retries} retries"),
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

/// The floor under ejection: how many pods were left, for each number of pods and of those that fail.
pub(crate) fn floor(outcomes: &[Outcome<'_>]) {
    let Some(first) = outcomes.first() else {
        return;
    };
    heading(
        "ejection while k of n pods fail: fewest that were available to a client, for k = 1, 2 ... n",
    );
    let mut sizes: Vec<u32> = outcomes.iter().map(|one| one.round.scenario.pods).collect();
    sizes.dedup();
    let mut rows: Vec<[String; 3]> = Vec::new();
    for (at, (contestant, _)) in first.round.entries.iter().enumerate() {
        for &pods in &sizes {
            let same = outcomes
                .iter()
                .filter(|one| one.round.scenario.pods == pods);
            let left = |outcome: &Outcome<'_>| {
                let fewest = outcome.figures[at].iter().map(|figures| figures.fewest);
                format!("{:>2}", fewest.fold(1.0, f64::min) * f64::from(pods))
            };
            let left: Vec<String> = same.map(left).collect();
            rows.push([contestant.name.into(), pods.to_string(), left.join(" ")]);
        }
    }
    table(["", "n", "available"], &rows);
}

/// What the summary says of a scenario, if it does.
pub(crate) fn summary_row(outcome: &Outcome<'_>) -> Option<Vec<String>> {
    let name = &outcome.round.scenario.name;
    QUOTED.contains(&name.as_str()).then_some(())?;
    let cell = |own: &str| {
        let mut entries = std::iter::zip(&outcome.round.entries, &outcome.figures);
        let found = entries.find(|((contestant, _), _)| contestant.name == own);
        found.map_or_else(String::new, |(_, seeds)| {
            let Figures { p99, errors, .. } = seeds[0];
            match errors {
                0.0 => format!("{p99:.0}"),
                _ => format!("{p99:.0} ({})", percent(errors)),
            }
        })
    };
    let cells = OWN.iter().map(|own| cell(own.name));
    Some(std::iter::once(name.clone()).chain(cells).collect())
}

/// The scenarios that are quoted, as Markdown.
pub(crate) fn summary(rows: &[Vec<String>]) {
    if rows.is_empty() {
        return;
    }
    heading("summary: p99 in ms (requests that failed) of the library's policies, first seed");
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let mut head = vec![String::new()];
    head.extend(OWN.iter().map(|own| own.name.to_owned()));
    println!("{}", line(&head));
    println!("|{}", "---|".repeat(head.len()));
    for row in rows {
        println!("{}", line(row));
    }
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
