//! What a trial has to reach.

use std::time::Duration;

use crate::{fault::Fault, report::ms, trial::Trial};

/// Where the limits come from: what drivers reach when a connection breaks (0 to 100 ms), and what nobody
/// reaches without a limit of his own when it does not.
const BROKEN: Duration = Duration::from_millis(150);
const SILENT: Duration = Duration::from_millis(300);

/// One probe interval at its longest at 100 writes a second, and a few for the round trip.
const STALE: usize = 30;

/// What a trial missed, in words.
pub(crate) fn missed(trial: &Trial) -> Vec<String> {
    let mut missed = Vec::new();
    if let Some(limit) = first_write_within(trial.fault) {
        match trial.first_write() {
            Some(first) if first <= limit => {}
            Some(first) => missed.push(format!(
                "first write after {:.0} ms, not {:.0}",
                ms(first),
                ms(limit)
            )),
            None => missed.push("no write to the new primary".to_owned()),
        }
    }
    let (stale, most) = (trial.stale_writes(), stale_writes_at_most(trial.fault));
    if stale > most {
        missed.push(format!("{stale} stale writes, not {most}"));
    }
    if trial.false_switches() > 0 {
        missed.push(format!("{} false switches", trial.false_switches()));
    }
    if trial.switches() < trial.fault.switches() {
        missed.push("the switch was not seen".to_owned());
    }
    if let Some(count) = trial.failures().get("25006 at checkout") {
        missed.push(format!("{count} checkouts of a connection to a standby"));
    }
    if is_unnoticed(trial.fault) && !trial.failures().is_empty() {
        missed.push(format!("writes failed: {:?}", trial.failures()));
    }
    missed
}

fn first_write_within(fault: Fault) -> Option<Duration> {
    match fault {
        Fault::Crash | Fault::Pmkill | Fault::Switch | Fault::Double | Fault::Diverge => {
            Some(BROKEN)
        }
        Fault::Hang | Fault::Blackhole | Fault::Zombie | Fault::Split => Some(SILENT),
        // The probe's pace without a primary, and once more where the pace has slowed down.
        Fault::Fenced | Fault::Crashloop | Fault::Rebuild | Fault::Dns => Some(2 * SILENT),
        Fault::Saturate | Fault::Probekill | Fault::Lagstop | Fault::Starve => None,
    }
}

fn stale_writes_at_most(fault: Fault) -> usize {
    match fault {
        Fault::Split => STALE,
        _ => 0,
    }
}

/// Whether a program that writes must not notice.
fn is_unnoticed(fault: Fault) -> bool {
    matches!(fault, Fault::Saturate | Fault::Probekill | Fault::Lagstop)
}
