//! What an update of the set costs the driver, from an answer or a report to the stored snapshot.
//!
//! ```text
//! cargo bench --bench publish                        CPU microseconds
//! cargo bench --bench publish -- --instructions      instructions, counted by valgrind
//! cargo bench --bench publish -- "one changed"       of this update only
//! ```
//!
//! The registry takes the answer, makes the snapshot if there is a new one, and it is stored where
//! readers load it, with the status: what the driver does, without its events. Answers come shuffled,
//! as from cluster DNS; they are built outside the timed part, as the resolver hands them over.
//!
//! Prints medians of thread CPU time beside the limits. Times depend on what else the machine does, so
//! they never fail the run; a store or an allocation of a new snapshot when nothing changed does.

use std::{process::ExitCode, time::Duration};

use driver::Driver;

mod callgrind;
mod driver;
#[path = "../support/valgrind.rs"]
mod valgrind;

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Every update of a batch is timed by itself, so a preemption between two of them costs nothing.
const UPDATES: usize = 200;

struct Update {
    title: &'static str,
    run: fn(&mut Driver) -> Vec<Duration>,
}

const fn of(title: &'static str, run: fn(&mut Driver) -> Vec<Duration>) -> Update {
    Update { title, run }
}

const ALL: [Update; 9] = [
    of("none changed", |driver| driver.answers(|_| 0)),
    of("one changed", |driver| driver.answers(|_| 1)),
    of("half changed", |driver| driver.answers(|n| n / 2)),
    of("all changed, and again", Driver::everything_changes),
    of("role moved", Driver::role_moves),
    of("one ejected", Driver::one_is_ejected),
    of("one lingered out", Driver::one_lingers_out),
    of("all checked at once", Driver::all_are_checked),
    of("cold start, all probed", Driver::starts_probed),
];

/// Those that the command line names, or all.
fn wanted() -> impl Iterator<Item = &'static Update> {
    let named = named();
    let is_wanted = move |update: &&Update| {
        named.is_empty() || named.iter().any(|start| update.title.starts_with(start))
    };
    ALL.iter().filter(is_wanted)
}

fn named() -> Vec<String> {
    let arguments = std::env::args().skip(1);
    arguments
        .filter(|argument| !argument.starts_with('-'))
        .collect()
}

fn main() -> ExitCode {
    let has = |flag| std::env::args().any(|argument| argument == flag);
    if has(callgrind::COUNTED) {
        callgrind::run_all();
        ExitCode::SUCCESS
    } else if !has("--bench") {
        report_times(&[10], 3);
        ExitCode::SUCCESS
    } else if has("--instructions") {
        callgrind::report()
    } else {
        report_times(&SIZES, UPDATES);
        ExitCode::SUCCESS
    }
}

fn report_times(sizes: &[usize], updates: usize) {
    println!("CPU us per update, median of {updates} (95th percentile)\n");
    print!("{:24}", "endpoints");
    sizes.iter().for_each(|n| print!("{n:>24}"));
    println!();
    let mut over = Vec::new();
    for Update { title, run } in wanted() {
        print!("{title:24}");
        for &n in sizes {
            let mut times = run(&mut Driver::new(n, updates));
            times.sort();
            let at = |share: f64| times[(times.len() as f64 * share) as usize].as_secs_f64() * 1e6;
            let (median, slow) = (at(0.5), at(0.95));
            let limit = limit(title, n);
            let shown = limit.map_or(String::new(), |limit| format!(" <= {limit}"));
            print!("{:>24}", format!("{median:.2} ({slow:.1}){shown}"));
            if limit.is_some_and(|limit| median > limit) {
                over.push(format!("{title}, {n} endpoints"));
            }
        }
        println!();
    }
    if over.is_empty() {
        println!("\npublish: ok, all rows within their limits");
    } else {
        println!("\npublish: over: {}", over.join("; "));
    }
}

/// The limit on the median, in microseconds.
fn limit(title: &str, n: usize) -> Option<f64> {
    match (title, n) {
        ("none changed", 1_000) => Some(5.0),
        ("one changed", 1_000) => Some(30.0),
        _ => None,
    }
}
