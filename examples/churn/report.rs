//! What a scenario looked like, for people.

use std::time::Duration;

use crate::{
    load::Call,
    scenario::Fault,
    stats::{Counts, Latency, due, percentile, reasons, shares},
    support::term::{bars, say, table},
};

/// How many characters the answers of one row take.
const WIDTH: usize = 30;

/// A short run has rows of half a second.
const SHORT: u32 = 10;

/// One row for each second: what was sent then, what became of it, and which pods answered.
pub(crate) fn timeline(calls: &[Call], fault: &Fault, seconds: u32) {
    let (row, rows) = match seconds <= SHORT {
        true => (Duration::from_millis(500), seconds * 2),
        false => (Duration::from_secs(1), seconds),
    };
    let rows: Vec<_> = (0..rows)
        .map(|i| {
            let span = row * i..row * (i + 1);
            let events = fault.events.iter().filter(|(at, _)| span.contains(at));
            let events: Vec<_> = events
                .map(|(at, what)| format!("{:.2}: {what}", at.as_secs_f32()))
                .collect();
            let calls = due(calls, span.clone());
            let failed = |post| {
                let failed = calls
                    .iter()
                    .filter(|call| !call.is_served() && call.is_post() == post);
                failed.count()
            };
            let (gets, posts) = (failed(false), failed(true));
            [
                format!("{:>6.1}", span.start.as_secs_f32()),
                format!("{:>4}", calls.len()),
                format!("{:>4}", calls.len() - gets - posts),
                format!("{gets:>10}"),
                format!("{posts:>11}"),
                format!("{:>6.1}", ms(percentile(50, calls))),
                format!("{:>6.1}", ms(percentile(99, calls))),
                format!("{:<WIDTH$}", answers(calls)),
                events.join(", "),
            ]
        })
        .collect();
    table(
        [
            "second",
            "sent",
            "  ok",
            "GET failed",
            "POST failed",
            "p50 ms",
            "p99 ms",
            "answered by pod (x: none)",
            "",
        ],
        &rows,
    );
}

/// `111111222222333333x`: each character stands for an equal part of the calls, but whatever happened
/// at all has one.
fn answers(calls: &[Call]) -> String {
    let failed = calls.iter().filter(|call| !call.is_served()).count();
    let pods = shares(calls)
        .into_iter()
        .map(|(pod, count)| (pod.to_string(), count as usize));
    pods.chain([("x".to_owned(), failed)])
        .filter(|(_, count)| *count > 0)
        .map(|(sign, count)| sign.repeat(((count * WIDTH + calls.len() / 2) / calls.len()).max(1)))
        .collect()
}

/// Counts, latencies and shares of the whole scenario.
pub(crate) fn summary(calls: &[Call], counts: &Counts, latency: &Latency) {
    let recovery = match latency.recovery {
        None => "not within this run".to_owned(),
        Some(after) => format!(
            "{:.2} s after the fault: then p99 within 2x of before, in each 250 ms for 2 s",
            after.as_secs_f32()
        ),
    };
    let rows = [
        ("failed", format!("{} GETs", counts.failed)),
        (
            "failed POSTs",
            format!(
                "{} that no pod received, {} whose outcome is unknown",
                counts.posts_failed_unsent, counts.posts_unknown
            ),
        ),
        (
            "retried",
            format!(
                "{} times a request came to a second pod, or to one again; {} POSTs did",
                counts.retried, counts.posts_doubled
            ),
        ),
        (
            "p99",
            format!(
                "{:.1} ms before, {:.1} ms during, {:.1} ms after the fault",
                ms(latency.before),
                ms(latency.during),
                ms(latency.after)
            ),
        ),
        (
            "slowest good",
            format!("{:.1} ms", ms(latency.slowest_good)),
        ),
        ("recovered", recovery),
    ];
    println!();
    for (what, text) in rows {
        say(format!("{what:<14}{text}"));
    }
    for (count, reason) in reasons(calls).into_iter().take(4) {
        say(format!("{count:>12}x {reason}"));
    }
    let shares = shares(calls).into_iter();
    bars(&shares.map(|(pod, n)| (format!("pod {pod}"), n)).collect());
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
