//! G1, G2, G4, G5, G6: what a program that writes notices of each fault, on real servers.

use std::time::Duration;

use crate::{
    client::Ending,
    fault::Fault::{
        self, Blackhole, Crash, Crashloop, Hang, Pmkill, Probekill, Saturate, Split, Starve,
        Switch, Zombie,
    },
    goal::{Goal, Times, within},
    support::{Result, postgres::Network, term::Live},
    trial::Trial,
};

/// One interval of the probe, 250 ms, at 100 writes a second. Its jitter of 20 % can make it 30 in a bad case.
const STALE: usize = 25;

/// Which faults show which goal.
const SHOWN_BY: [(u32, &[Fault]); 5] = [
    (1, &[Crash, Pmkill]),
    (2, &[Hang, Blackhole]),
    (4, &[Split, Zombie]),
    (5, &[Switch]),
    (6, &[Crashloop, Saturate, Probekill, Starve]),
];

/// Lets each fault that shows the goal happen so often.
pub(crate) async fn measure(number: u32, trials: u32, live: &Live) -> Result<Vec<Goal>> {
    let faults = SHOWN_BY.iter().find(|(shown, _)| *shown == number);
    let (_, faults) = faults.ok_or("no fault shows this goal")?;
    let mut all = Vec::new();
    for &fault in *faults {
        for trial in 1..=trials {
            live.show(format_args!(
                "G{number}: {}, {trial} of {trials}",
                fault.name()
            ));
            all.push(Trial::run(fault, Network::claim()?, false).await?);
        }
    }
    let shown = match number {
        1 => vec![after_a_crash(&all)],
        2 => vec![after_silence(&all), fenced(&all)],
        4 => vec![stale(&all)],
        5 => vec![refused(&all)],
        _ => vec![false_switches(&all)],
    };
    Ok(shown)
}

fn after_a_crash(trials: &[Trial]) -> Goal {
    let times = first_writes(trials);
    Goal {
        number: 1,
        what: "crash: first write after writable",
        target: "median 60 ms, p99 150 ms",
        is_met: times.len() == trials.len()
            && within(times.median(), Duration::from_millis(60))
            && within(times.p99(), Duration::from_millis(150)),
        measured: times.in_ms(),
    }
}

fn after_silence(trials: &[Trial]) -> Goal {
    let times = first_writes(trials);
    Goal {
        number: 2,
        what: "hang, black hole: first write",
        target: "p99 300 ms",
        is_met: times.len() == trials.len() && within(times.p99(), Duration::from_millis(300)),
        measured: times.in_ms(),
    }
}

/// From the fault until the work that it caught in flight was ended.
fn fenced(trials: &[Trial]) -> Goal {
    let ended = |trial: &Trial| {
        let mut attempts = trial.log.attempts.iter();
        let caught = attempts.find(|attempt| {
            attempt.end > trial.at && !matches!(attempt.ending, Ending::Written(_))
        });
        Some(caught?.end - trial.at)
    };
    let times: Times = trials.iter().filter_map(ended).collect();
    Goal {
        number: 2,
        what: "... work in flight ended after",
        // An interval at its longest, two timeouts of the probe, and once more at the fast pace.
        target: "1350 ms",
        is_met: within(times.worst(), Duration::from_millis(1350)),
        measured: times.in_ms(),
    }
}

fn stale(trials: &[Trial]) -> Goal {
    let worst = |fault| {
        let of_it = trials.iter().filter(|trial| trial.fault == fault);
        of_it
            .map(|trial| trial.stale_writes(&trial.log))
            .max()
            .unwrap_or(0)
    };
    let (split, zombie) = (worst(Split), worst(Zombie));
    let moved = trials
        .iter()
        .all(|trial| trial.first_write(&trial.log).is_some());
    Goal {
        number: 4,
        what: "stale writes: split, zombie",
        target: "25, 0",
        is_met: split <= STALE && zombie == 0 && moved,
        measured: format!("{split}, {zombie} at most, n {}", trials.len()),
    }
}

fn refused(trials: &[Trial]) -> Goal {
    let count = |what: &str| {
        let counts = trials.iter().map(|trial| {
            let failures = trial.log.failures();
            failures.get(what).copied().unwrap_or(0)
        });
        counts.max().unwrap_or(0)
    };
    let (at_checkout, in_flight) = (count("25006 at checkout"), count("25006"));
    let moved = trials
        .iter()
        .all(|trial| trial.first_write(&trial.log).is_some());
    Goal {
        number: 5,
        what: "switchover: 25006 at checkout, in flight",
        target: "0, 1",
        is_met: at_checkout == 0 && in_flight <= 1 && moved,
        measured: format!("{at_checkout}, {in_flight} at most, n {}", trials.len()),
    }
}

fn false_switches(trials: &[Trial]) -> Goal {
    let count: u64 = trials.iter().map(Trial::false_switches).sum();
    Goal {
        number: 6,
        what: "false switches: crash recovery, full, probe killed, starved",
        target: "0",
        is_met: count == 0,
        measured: format!("{count}, n {}", trials.len()),
    }
}

fn first_writes(trials: &[Trial]) -> Times {
    trials
        .iter()
        .filter_map(|trial| trial.first_write(&trial.log))
        .collect()
}
