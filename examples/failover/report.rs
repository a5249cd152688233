//! What a trial looked like, for people.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    goals,
    support::term::{aside, say},
    trial::Trial,
};

/// The most characters of a strip.
const WIDTH: u32 = 72;

/// Steps of the scale, from which the finest that fits is taken.
const STEPS: [u64; 5] = [50, 100, 200, 250, 500];

/// The timeline: what happened, then three strips on one scale.
pub(crate) fn timeline(trial: &Trial) {
    let seconds = |at: Instant| (at - trial.begin).as_secs_f32();
    for (at, what) in &trial.story.events {
        say(format!("{:>6.2} s  {what}", seconds(*at)));
    }
    let length = trial.end - trial.begin;
    let step = STEPS
        .map(Duration::from_millis)
        .into_iter()
        .find(|step| *step * WIDTH >= length)
        .unwrap_or(length / WIDTH);
    let slots = length.as_millis() / step.as_millis().max(1) + 1;
    let slots = u32::try_from(slots).unwrap_or(WIDTH);
    let span = |slot: u32| {
        let from = trial.begin + step * slot;
        from..from + step
    };

    println!();
    aside(format!("{:<9}{}", "", scale(slots, step)));
    let truth: String = (0..slots)
        .map(|slot| sign(last_before(&trial.story.truth, span(slot).end).flatten()))
        .collect();
    say(format!("{:<9}{truth}", "truth"));
    let said: String = (0..slots)
        .map(|slot| {
            let said = last_before(&trial.said, span(slot).end).flatten();
            sign(said.map(|(number, _)| number))
        })
        .collect();
    say(format!("{:<9}{said}", "library"));
    let writes: String = (0..slots)
        .map(|slot| {
            let mut last = None;
            for (at, number) in trial.written() {
                if span(slot).contains(&at) {
                    last = Some(number);
                }
            }
            let failed = || {
                let mut attempts = trial.log.attempts.iter();
                attempts.any(|attempt| span(slot).contains(&attempt.end))
            };
            match last {
                None if failed() => 'x',
                written => sign(written),
            }
        })
        .collect();
    say(format!("{:<9}{writes}", "writes"));
    aside(format!(
        "{:<9}0 1 2: pg-0 pg-1 pg-2   .: nobody, nothing   x: attempts, and none went well   one sign: {} ms",
        "",
        step.as_millis()
    ));
}

/// Counts and times of the whole trial.
pub(crate) fn summary(trial: &Trial) {
    println!();
    let total = trial.log.attempts.len();
    let written = trial.written().count();
    row(
        "writes",
        format!(
            "{written} of {total} acknowledged, {} on connections of their own",
            trial.log.connects.len()
        ),
    );
    if let Some(first) = trial.first_write() {
        row(
            "first",
            format!("{:.0} ms after the server took writes", ms(first)),
        );
    } else if trial.story.writable.is_some() {
        row("first", "none, though a server takes writes".to_owned());
    }
    row(
        "gap",
        format!(
            "{:.0} ms without an acknowledged write, at most",
            ms(trial.gap())
        ),
    );
    row(
        "stale",
        format!(
            "{} writes to a server that was not the primary any more",
            trial.stale_writes()
        ),
    );
    row(
        "switches",
        format!("{} seen, {} made", trial.switches(), trial.fault.switches()),
    );
    for (what, count) in trial.failures() {
        row("", format!("{count} x {what}"));
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn row(what: &str, text: String) {
    say(format!("{what:<9}{text}"));
}

/// The seconds above a strip.
fn scale(slots: u32, step: Duration) -> String {
    let mut scale = String::new();
    for slot in 0..slots {
        let at = step * slot;
        if at.subsec_nanos() == 0 && scale.len() <= slot as usize {
            scale.push_str(&at.as_secs().to_string());
        }
        while scale.len() <= slot as usize {
            scale.push(' ');
        }
    }
    scale
}

fn sign(number: Option<usize>) -> char {
    number
        .and_then(|number| char::from_digit(u32::try_from(number).ok()?, 10))
        .unwrap_or('.')
}

/// The last of a row of changes that was before `end`.
fn last_before<T: Copy>(changes: &[(Instant, T)], end: Instant) -> Option<T> {
    let before = changes.iter().take_while(|(at, _)| *at < end);
    before.last().map(|(_, what)| *what)
}

/// The last line, and before it what was missed: whether all is well.
pub(crate) fn outcome(trials: &[Trial]) -> bool {
    let (mut is_ok, mut stale, mut false_switches, mut first) = (true, 0, 0, Duration::ZERO);
    println!();
    for trial in trials {
        for missed in goals::missed(trial) {
            is_ok = false;
            say(format!("{}: MISSED {missed}", trial.fault.name()));
        }
        stale += trial.stale_writes();
        false_switches += trial.false_switches();
        first = first.max(trial.first_write().unwrap_or_default());
    }
    let one = trials.iter().all(|trial| trial.fault == trials[0].fault);
    println!(
        "\nfailover: {} fault={} first_write_ms={:.0} stale_writes={stale} false_switches={false_switches}",
        if is_ok { "ok" } else { "FAILED" },
        if one { trials[0].fault.name() } else { "all" },
        ms(first),
    );
    is_ok
}
