//! What a trial looked like, for people.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    client::Log,
    goals,
    support::term::{aside, heading, say, table},
    trial::{Trial, sign},
};

/// The most characters of a strip.
const WIDTH: u32 = 72;

/// Steps of the scale in milliseconds, from which the finest that fits is taken.
const STEPS: [u64; 5] = [50, 100, 200, 250, 500];

/// The timeline: what happened, then strips on one scale.
pub(crate) fn timeline(trial: &Trial) {
    for (at, what) in &trial.story.events {
        say(format!(
            "{:>6.2} s  {what}",
            (*at - trial.begin).as_secs_f32()
        ));
    }
    let scale = Scale::of(trial);
    println!();
    aside(format!("{:<11}{}", "second", scale.seconds()));
    strip("truth", &scale, |_, to| {
        last_before(&trial.story.truth, to).unwrap_or('.')
    });
    strip("library", &scale, |_, to| {
        let said = last_before(&trial.said, to).flatten();
        sign(said.map(|(number, _)| number))
    });
    strip("writes", &scale, |from, to| {
        writes(trial, &trial.log, from, to)
    });
    if let Some(alone) = &trial.alone {
        strip("driver", &scale, |from, to| writes(trial, alone, from, to));
    }
    aside(format!(
        "{:<11}0 1 2: pg-0 pg-1 pg-2   .: nobody   ?: two at once   x: failed   one sign is {} ms",
        "",
        scale.step.as_millis()
    ));
}

/// Counts and times of the whole trial.
pub(crate) fn summary(trial: &Trial) {
    println!();
    row("library", &told(trial, &trial.log));
    if let Some(alone) = &trial.alone {
        row("driver", &told(trial, alone));
    }
    row(
        "switches",
        &format!("{} seen, {} made", trial.switches(), trial.fault.switches()),
    );
    for (what, count) in trial.log.failures() {
        row("", &format!("{count} x {what}"));
    }
}

/// The library and the driver alone, fault by fault.
pub(crate) fn side_by_side(trials: &[Trial]) {
    let rows: Vec<_> = trials
        .iter()
        .map(|trial| {
            let [library, driver] = [Some(&trial.log), trial.alone.as_ref()].map(|log| {
                let Some(log) = log else {
                    return ["-"; 3].map(str::to_owned);
                };
                let first = match (trial.first_write(log), trial.story.writable) {
                    (Some(first), _) => format!("{:.0}", ms(first)),
                    (None, Some(_)) => "never".to_owned(),
                    (None, None) => "-".to_owned(),
                };
                let stale = trial.stale_writes(log).to_string();
                [first, format!("{:.0}", ms(trial.gap(log))), stale]
            });
            let [a, b, c] = library;
            let [d, e, f] = driver;
            [trial.fault.name().to_owned(), a, d, b, e, c, f]
        })
        .collect();
    table(
        [
            "",
            "first write ms",
            "driver alone",
            "gap ms",
            "driver alone",
            "stale",
            "driver alone",
        ],
        &rows,
    );
}

/// What several trials of one fault have in common, if there are several.
pub(crate) fn medians(trials: &[Trial]) {
    let mut faults: Vec<_> = trials.iter().map(|trial| trial.fault).collect();
    faults.dedup();
    let rows: Vec<_> = faults
        .into_iter()
        .filter_map(|fault| {
            let these = trials.iter().filter(|trial| trial.fault == fault);
            let number = these.clone().count();
            let first = goals::first_writes(trials, &[fault]);
            let mut gaps: Vec<_> = these.clone().map(|trial| trial.gap(&trial.log)).collect();
            gaps.sort_unstable();
            let stale = these.map(|trial| trial.stale_writes(&trial.log)).max()?;
            let of = |values: &[Duration], percent| {
                let value = goals::percentile(values, percent);
                if value == Duration::MAX {
                    "-".to_owned()
                } else {
                    format!("{:.0}", ms(value))
                }
            };
            (number > 1).then(|| {
                [
                    fault.name().to_owned(),
                    number.to_string(),
                    of(&first, 50),
                    of(&first, 99),
                    of(&gaps, 50),
                    of(&gaps, 99),
                    stale.to_string(),
                ]
            })
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    heading("all trials");
    table(
        [
            "",
            "trials",
            "first write p50 ms",
            "p99",
            "gap p50 ms",
            "p99",
            "stale at most",
        ],
        &rows,
    );
}

/// `failover: ok fault=crash first_write_ms=62 stale_writes=0 false_switches=0`
pub(crate) fn last_line(trials: &[Trial], is_ok: bool) {
    let first = trials
        .iter()
        .filter_map(|trial| trial.first_write(&trial.log));
    let stale = trials.iter().map(|trial| trial.stale_writes(&trial.log));
    let false_switches = trials.iter().map(Trial::false_switches);
    let fault = match trials {
        [one, rest @ ..] if rest.iter().all(|trial| trial.fault == one.fault) => one.fault.name(),
        _ => "all",
    };
    println!(
        "\nfailover: {} fault={fault} first_write_ms={:.0} stale_writes={} false_switches={}",
        if is_ok { "ok" } else { "FAILED" },
        ms(first.max().unwrap_or_default()),
        stale.sum::<usize>(),
        false_switches.sum::<u64>(),
    );
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// `first write after 62 ms, gap 1104 ms, 0 stale, 311 of 317 written, 2 connects`
fn told(trial: &Trial, log: &Log) -> String {
    let first = match (trial.first_write(log), trial.story.writable) {
        (Some(first), _) => format!("first write after {:.0} ms, ", ms(first)),
        (None, Some(_)) => "no write any more, ".to_owned(),
        (None, None) => String::new(),
    };
    format!(
        "{first}gap {:.0} ms, {} stale, {} of {} written, {} connects",
        ms(trial.gap(log)),
        trial.stale_writes(log),
        trial.written(log).count(),
        log.attempts.len(),
        log.connects.len()
    )
}

fn row(what: &str, text: &str) {
    say(format!("{what:<11}{text}"));
}

/// Slots of equal length over a trial.
struct Scale {
    begin: Instant,
    step: Duration,
    slots: u32,
}

impl Scale {
    fn of(trial: &Trial) -> Self {
        let length = trial.end - trial.begin;
        let mut steps = STEPS.map(Duration::from_millis).into_iter();
        let step = steps.find(|step| *step * WIDTH >= length);
        let step = step.unwrap_or(length / WIDTH);
        let slots = length.as_millis() / step.as_millis().max(1);
        Self {
            begin: trial.begin,
            step,
            slots: u32::try_from(slots).unwrap_or(WIDTH),
        }
    }

    fn spans(&self) -> impl Iterator<Item = (Instant, Instant)> {
        (0..self.slots).map(|slot| {
            let from = self.begin + self.step * slot;
            (from, from + self.step)
        })
    }

    /// The number of each second where it begins.
    fn seconds(&self) -> String {
        let mut text = String::new();
        for slot in 0..self.slots as usize {
            let at = self.step * u32::try_from(slot).unwrap_or_default();
            if text.len() == slot {
                match at.subsec_nanos() {
                    0 => text.push_str(&at.as_secs().to_string()),
                    _ => text.push(' '),
                }
            }
        }
        text
    }
}

fn strip(name: &str, scale: &Scale, sign: impl Fn(Instant, Instant) -> char) {
    let signs: String = scale.spans().map(|(from, to)| sign(from, to)).collect();
    row(name, &signs);
}

/// Who acknowledged the last write of a slot; `x` if there were attempts, and none went well.
fn writes(trial: &Trial, log: &Log, from: Instant, to: Instant) -> char {
    let slot = from..to;
    let mut written = trial.written(log).filter(|(at, _)| slot.contains(at));
    match written.next() {
        Some(first) => sign(Some(written.last().unwrap_or(first).1)),
        None if log
            .attempts
            .iter()
            .any(|attempt| slot.contains(&attempt.end)) =>
        {
            'x'
        }
        None => '.',
    }
}

/// The last of a row of changes that was before `end`.
fn last_before<T: Copy>(changes: &[(Instant, T)], end: Instant) -> Option<T> {
    let before = changes.iter().take_while(|(at, _)| *at < end);
    before.last().map(|(_, what)| *what)
}
