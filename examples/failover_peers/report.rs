//! Tables for people.

use std::time::Duration;

use crate::{
    contest::{OURS, Outcome},
    fault::Fault,
    support::term::{aside, heading, say, table},
};

/// What the library holds itself to: a silent primary is superseded one interval of the probe after the promotion at
/// most, 250 ms with 20 % jitter. At 100 writes a second that is also the most that a split costs.
const FIRST_WRITE: Duration = Duration::from_millis(300);
const STALE_IN_A_SPLIT: usize = 30;

/// One fault: a row for each client.
pub(crate) fn fault(outcomes: &[Outcome]) {
    println!();
    let rows: Vec<_> = outcomes
        .iter()
        .map(|outcome| {
            let failures = outcome.failures.iter();
            let failures: Vec<String> = failures
                .map(|(what, count)| format!("{count} x {what}"))
                .collect();
            [
                outcome.name.to_owned(),
                first(outcome),
                outcome.stale.to_string(),
                failures.join(", "),
            ]
        })
        .collect();
    table(["client", "first write", "stale", "failed writes"], &rows);
}

/// All of it: a row for each client, a column for each fault.
pub(crate) fn all(contests: &[(Fault, Vec<Outcome>)]) {
    heading("first write after the promoted server took one (stale writes)");
    let Some((_, clients)) = contests.first() else {
        return;
    };
    let width = clients.iter().map(|client| client.name.len()).max();
    let width = width.unwrap_or(0);
    let line = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>16}")).collect();
        format!("{name:<width$}{cells}")
    };
    let faults = contests.iter().map(|(fault, _)| fault.name().to_owned());
    aside(line("", faults.collect()));
    for (row, client) in clients.iter().enumerate() {
        let cells = contests.iter().map(|(_, outcomes)| {
            let outcome = &outcomes[row];
            match outcome.stale {
                0 => first(outcome),
                stale => format!("{} ({stale})", first(outcome)),
            }
        });
        say(line(client.name, cells.collect()));
    }
}

/// Whether the library did what it holds itself to.
pub(crate) fn last_line(contests: &[(Fault, Vec<Outcome>)]) -> bool {
    let (mut slowest, mut stale, mut missed) = (Duration::ZERO, 0, Vec::new());
    for (fault, outcomes) in contests {
        let Some(ours) = outcomes.iter().find(|outcome| outcome.name == OURS) else {
            continue;
        };
        stale += ours.stale;
        slowest = slowest.max(ours.first.unwrap_or_default());
        let allowed = match fault {
            Fault::Split => STALE_IN_A_SPLIT,
            _ => 0,
        };
        if ours.first.is_none_or(|first| first > FIRST_WRITE) || ours.stale > allowed {
            missed.push(fault.name());
        }
    }
    println!();
    if !missed.is_empty() {
        say(format!("{OURS}: MISSED in {}", missed.join(", ")));
    }
    println!(
        "failover_peers: {} faults={} clients={} first_write_ms={} stale_writes={stale}",
        if missed.is_empty() { "ok" } else { "FAILED" },
        contests.len(),
        contests.first().map_or(0, |(_, outcomes)| outcomes.len()),
        slowest.as_millis(),
    );
    missed.is_empty()
}

fn first(outcome: &Outcome) -> String {
    match outcome.first {
        Some(first) => format!("{:.2} s", first.as_secs_f64()),
        None => "never".to_owned(),
    }
}
