//! What it costs to ask who the primary is, and whether it still is: nanoseconds, instructions, allocations.
//!
//! ```text
//! cargo bench --bench primary                        times on 1 and 2 threads, and allocations
//! cargo bench --bench primary -- --instructions      instructions, counted by valgrind
//! ```
//!
//! *get* is `PrimaryView::get` and the drop of the `Writer` that it gave, *wait* is `PrimaryView::wait` while
//! there is a primary, made, polled once and dropped, and *is current* is `Writer::is_current`. *publishing*: the same
//! while a new set is published every millisecond.
//!
//! Times depend on what else the machine does: they are reported, and never fail the run.
//! Instructions and allocations do not, so the exit code is 1 if one of them is over its limit.

use std::process::ExitCode;

use contestants::{Row, Visitor, visit_publishing, visit_quiet};
use timing::{alone, together};

mod callgrind;
mod contestants;
mod limits;
#[path = "../pick/timing.rs"]
mod timing;
#[path = "../support/valgrind.rs"]
mod valgrind;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() -> ExitCode {
    let has = |flag| std::env::args().any(|argument| argument == flag);
    if has(callgrind::COUNTED) {
        visit_quiet(&mut callgrind::Counted);
        ExitCode::SUCCESS
    } else if !has("--bench") {
        visit_quiet(&mut Smoke);
        assert!(visit_publishing(&mut Pause) > 0, "nothing was published");
        ExitCode::SUCCESS
    } else if has("--instructions") {
        callgrind::report()
    } else {
        report_times()
    }
}

/// `cargo test --benches`: everything runs, no time is measured.
struct Smoke;

impl Visitor for Smoke {
    fn visit(&mut self, row: Row, question: &(impl Fn() + Sync)) {
        assert_eq!(allocations(question), 0, "allocations of {row}");
    }
}

/// The same, while the publisher allocates: a little longer than it needs to begin.
struct Pause;

impl Visitor for Pause {
    fn visit(&mut self, _: Row, question: &(impl Fn() + Sync)) {
        for _ in 0..10 {
            std::thread::sleep(std::time::Duration::from_millis(1));
            question();
        }
    }
}

fn report_times() -> ExitCode {
    println!("ns per question, medians of unpreempted batches (batches kept/made)\n");
    println!(
        "{:30} {:>22} {:>8} {:>22} {:>6} {:>7}",
        "question", "1 thread", "limit", "2 threads, each", "ratio", "allocs"
    );
    let mut times = Times::default();
    visit_quiet(&mut times);
    let published = visit_publishing(&mut times);
    println!("\n{published} sets were published in the second half");
    if times.over.is_empty() {
        println!("primary: ok, all rows within their limits");
    } else {
        println!("primary: over: {}", times.over.join("; "));
    }
    if times.allocates {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[derive(Default)]
struct Times {
    over: Vec<String>,
    allocates: bool,
}

impl Visitor for Times {
    fn visit(&mut self, row: Row, question: &(impl Fn() + Sync)) {
        let (one, two) = (alone(question), together(question));
        // The allocator counts for the whole process, and who publishes allocates.
        let allocations = (!row.publishing).then(|| allocations(question));
        let ratio = one.median.zip(two.median).map(|(one, two)| two / one);
        let limit = limits::nanoseconds(row);
        let mut excess = Vec::new();
        if one.median.is_some_and(|one| one > limit) {
            excess.push("time");
        }
        if allocations.is_some_and(|allocations| allocations > 0) {
            excess.push("allocations");
            self.allocates = true;
        }
        let verdict = if excess.is_empty() {
            "ok".to_owned()
        } else {
            self.over.push(format!("{row} ({})", excess.join(", ")));
            format!("over: {}", excess.join(", "))
        };
        let (one, two) = (one.to_string(), two.to_string());
        let dash = || "-".to_owned();
        let ratio = ratio.map_or_else(dash, |ratio| format!("{ratio:.2}"));
        let allocations = allocations.map_or_else(dash, |count| count.to_string());
        println!(
            "{:30} {one:>22} {limit:>8.0} {two:>22} {ratio:>6} {allocations:>7}  {verdict}",
            row.to_string()
        );
    }
}

/// Allocations of 1,000 questions after a warm-up.
fn allocations(question: &impl Fn()) -> u64 {
    let _profiler = dhat::Profiler::builder().testing().build();
    question();
    let before = dhat::HeapStats::get().total_blocks;
    (0..1_000).for_each(|_| question());
    dhat::HeapStats::get().total_blocks - before
}
