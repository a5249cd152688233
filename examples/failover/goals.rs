//! What is to be reached, and what was.

use std::time::Duration;

use crate::{
    fault::Fault,
    report::ms,
    steady::Steady,
    support::term::{heading, table},
    trial::Trial,
};

/// Where a connection breaks, drivers reach 0 to 100 ms. Where it falls silent they reach seconds, if they were
/// told a limit, and else nothing at all.
const BROKEN: Duration = Duration::from_millis(150);
const BROKEN_MEDIAN: Duration = Duration::from_millis(60);
const SILENT: Duration = Duration::from_millis(300);

/// Work in flight on a server that hangs: one probe interval, two timeouts and a fast retry after the fault.
const FENCED: Duration = Duration::from_millis(1350);

/// Of a median one can speak from so many trials on.
const ENOUGH: usize = 5;

/// At 100 writes a second, one probe interval of 250 ms. Its jitter of 20 % can make it 30 in a bad case.
const STALE: usize = 25;

/// One goal: what it is, what was reached, and whether that is enough.
struct Goal {
    name: &'static str,
    what: &'static str,
    target: String,
    reached: String,
    is_met: bool,
}

/// The table of all goals, and the names of those that were missed.
pub(crate) fn table_of(trials: &[Trial], steady: &Steady) -> Vec<&'static str> {
    let goals = [
        broken(trials),
        silent(trials),
        fenced(trials),
        hanging(steady),
        stale(trials),
        checkouts(trials),
        switches(trials),
        reads(steady),
        probes(steady),
    ];
    heading("goals");
    let rows = goals.each_ref().map(|goal| {
        [
            goal.name.to_owned(),
            goal.what.to_owned(),
            goal.target.clone(),
            goal.reached.clone(),
            if goal.is_met { "ok" } else { "MISSED" }.to_owned(),
        ]
    });
    table(["", "what", "target", "reached", ""], &rows);
    let missed = goals.iter().filter(|goal| !goal.is_met);
    missed.map(|goal| goal.name).collect()
}

fn broken(trials: &[Trial]) -> Goal {
    let first = first_writes(trials, &[Fault::Crash, Fault::Pmkill]);
    let (p50, p99) = (percentile(&first, 50), percentile(&first, 99));
    let median_is_met = first.len() < ENOUGH || p50 <= BROKEN_MEDIAN;
    Goal {
        name: "G1",
        what: "crash, pmkill: first write",
        target: format!("p50 {:.0} ms, p99 {:.0} ms", ms(BROKEN_MEDIAN), ms(BROKEN)),
        reached: format!(
            "p50 {:.0} ms, p99 {:.0} ms of {}",
            ms(p50),
            ms(p99),
            first.len()
        ),
        is_met: median_is_met && p99 <= BROKEN,
    }
}

fn silent(trials: &[Trial]) -> Goal {
    let first = first_writes(trials, &[Fault::Hang, Fault::Blackhole, Fault::Zombie]);
    let p99 = percentile(&first, 99);
    Goal {
        name: "G2",
        what: "hang, blackhole, zombie: first write",
        target: format!("p99 {:.0} ms", ms(SILENT)),
        reached: format!(
            "p50 {:.0} ms, p99 {:.0} ms of {}",
            ms(percentile(&first, 50)),
            ms(p99),
            first.len()
        ),
        is_met: p99 <= SILENT,
    }
}

fn fenced(trials: &[Trial]) -> Goal {
    let silent = of(trials, &[Fault::Hang, Fault::Blackhole, Fault::Zombie]);
    // One that had nothing in flight at the fault has nothing to fence.
    let mut fenced: Vec<_> = silent.filter_map(Trial::fenced).collect();
    fenced.sort_unstable();
    let p99 = percentile(&fenced, 99);
    Goal {
        name: "G2",
        what: "the same: work in flight is ended",
        target: format!("{:.0} ms after the fault", ms(FENCED)),
        reached: format!("p99 {:.0} ms of {}", ms(p99), fenced.len()),
        is_met: !fenced.is_empty() && p99 <= FENCED,
    }
}

fn hanging(steady: &Steady) -> Goal {
    let added = steady.hanging.0.saturating_sub(steady.before.0);
    Goal {
        name: "G3",
        what: "a connect while a server hangs",
        target: "1 ms added".to_owned(),
        reached: format!(
            "{:.3} ms added (connect {:.1} ms, before {:.1} ms)",
            ms(added),
            ms(steady.hanging.1),
            ms(steady.before.1)
        ),
        is_met: added < Duration::from_millis(1),
    }
}

fn stale(trials: &[Trial]) -> Goal {
    let most = |fault| {
        let trials = trials.iter().filter(|trial| trial.fault == fault);
        let stale = trials.map(|trial| trial.stale_writes(&trial.log));
        stale.max().unwrap_or_default()
    };
    let (split, zombie) = (most(Fault::Split), most(Fault::Zombie));
    Goal {
        name: "G4",
        what: "writes to the old primary",
        target: format!("split {STALE}, zombie 0"),
        reached: format!("split {split}, zombie {zombie}"),
        is_met: split <= STALE && zombie == 0,
    }
}

fn checkouts(trials: &[Trial]) -> Goal {
    let most = |what| {
        let count = |trial: &Trial| trial.log.failures().get(what).copied();
        let counts = of(trials, &[Fault::Switch]).filter_map(count);
        counts.max().unwrap_or_default()
    };
    let (checkout, in_flight) = (most("25006 at checkout"), most("25006"));
    Goal {
        name: "G5",
        what: "switch: refused as read-only",
        target: "0 at checkout, 1 in flight".to_owned(),
        reached: format!("{checkout} at checkout, {in_flight} in flight"),
        is_met: checkout == 0 && in_flight <= 1,
    }
}

fn switches(trials: &[Trial]) -> Goal {
    let count = trials.iter().map(Trial::false_switches).sum::<u64>();
    Goal {
        name: "G6",
        what: "false switches, all faults",
        target: "0".to_owned(),
        reached: format!("{count} in {} trials", trials.len()),
        is_met: count == 0,
    }
}

fn reads(steady: &Steady) -> Goal {
    let is_judged = !cfg!(debug_assertions);
    Goal {
        name: "G7",
        what: "get(), is_current()",
        target: "50 ns, 5 ns".to_owned(),
        reached: format!(
            "{:.1} ns, {:.1} ns{}",
            steady.view,
            steady.is_current,
            if is_judged {
                ""
            } else {
                " (not optimized: not judged)"
            }
        ),
        is_met: !is_judged || (steady.view <= 50.0 && steady.is_current <= 5.0),
    }
}

fn probes(steady: &Steady) -> Goal {
    let time = steady.server_time.as_secs_f64() * 1e6;
    Goal {
        name: "G8",
        what: "probes of one server",
        // Jittered by 20 %, and every fourth asks for a row.
        target: "4.5 a second, 1 connection, 30 us".to_owned(),
        reached: format!(
            "{:.1} a second, {} connection, {time:.0} us",
            steady.probes_a_second, steady.connections
        ),
        is_met: steady.probes_a_second <= 4.5 && steady.connections == 1 && time <= 30.0,
    }
}

/// What one trial missed, in words: the goals of its fault, and what holds for all.
pub(crate) fn missed(trial: &Trial) -> Vec<String> {
    let mut missed = Vec::new();
    if let Some(limit) = first_write_within(trial.fault) {
        match trial.first_write(&trial.log) {
            Some(first) if first <= limit => {}
            Some(first) => missed.push(format!(
                "first write after {:.0} ms, not {:.0}",
                ms(first),
                ms(limit)
            )),
            None => missed.push("no write to the new primary".to_owned()),
        }
    }
    let stale = trial.stale_writes(&trial.log);
    let most = if trial.fault == Fault::Split {
        STALE
    } else {
        0
    };
    if stale > most {
        missed.push(format!("{stale} stale writes, not {most}"));
    }
    if trial.false_switches() > 0 {
        missed.push(format!("{} false switches", trial.false_switches()));
    }
    if trial.switches() < trial.fault.switches() {
        missed.push("the switch was not seen".to_owned());
    }
    let failures = trial.log.failures();
    if let Some(count) = failures.get("25006 at checkout") {
        missed.push(format!(
            "{count} checkouts of a connection that takes no writes"
        ));
    }
    if trial.fault.is_unnoticed() && !failures.is_empty() {
        missed.push(format!("writes failed: {failures:?}"));
    }
    missed
}

fn first_write_within(fault: Fault) -> Option<Duration> {
    match fault {
        Fault::Crash | Fault::Pmkill | Fault::Switch | Fault::Double | Fault::Diverge => {
            Some(BROKEN)
        }
        Fault::Hang | Fault::Blackhole | Fault::Zombie | Fault::Split => Some(SILENT),
        // A first claim is given 250 ms, lest another one comes.
        Fault::Fenced | Fault::Crashloop | Fault::Rebuild => Some(2 * SILENT),
        // As soon as DNS is asked again: 5 s at the latest.
        Fault::Dns => Some(Duration::from_secs(6)),
        Fault::Saturate | Fault::Probekill | Fault::Lagstop | Fault::Starve => None,
    }
}

fn of<'t>(trials: &'t [Trial], faults: &'t [Fault]) -> impl Iterator<Item = &'t Trial> {
    trials.iter().filter(|trial| faults.contains(&trial.fault))
}

/// Ascending. One that never came counts as the longest.
pub(crate) fn first_writes(trials: &[Trial], faults: &[Fault]) -> Vec<Duration> {
    let first = |trial: &Trial| trial.first_write(&trial.log).unwrap_or(Duration::MAX);
    let mut all: Vec<_> = of(trials, faults).map(first).collect();
    all.sort_unstable();
    all
}

/// Of values in ascending order, the nearest rank.
pub(crate) fn percentile(values: &[Duration], percent: usize) -> Duration {
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}
