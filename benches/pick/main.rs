//! What one pick costs: nanoseconds, instructions, allocations.
//!
//! ```text
//! cargo bench --bench pick                        times on 1 and 2 threads, and allocations
//! cargo bench --bench pick -- --instructions      instructions, counted by valgrind
//! cargo bench --bench pick -- Adaptive Random     of these policies only
//! ```
//!
//! *given* is the policy alone, behind `dyn`, on a set that is at hand and, where it is about time, given the
//! time. *choice* is the load of the snapshot, the policy behind `dyn`, and the endpoint by reference.
//! *pick* is `Balancer::pick` and the drop of what it gave: an `Arc<Endpoint>` cloned, a request
//! counted in and out, and a service cloned, which is `()` or, in *pick, Arc*, an `Arc`.
//!
//! Times depend on what else the machine does: they are reported, and never fail the run.
//! Instructions and allocations do not, so the exit code is 1 if one of them is over its limit.

use std::process::ExitCode;

use contestants::{Row, Visitor, visit_each};
use timing::{alone, together};

mod callgrind;
mod contestants;
mod limits;
mod timing;
#[path = "../support/valgrind.rs"]
mod valgrind;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const SIZES: [usize; 7] = [3, 10, 20, 100, 128, 1_000, 10_000];

fn main() -> ExitCode {
    let has = |flag| std::env::args().any(|argument| argument == flag);
    if has(callgrind::COUNTED) {
        visit_each(&callgrind::SIZES, &mut callgrind::Counted);
        ExitCode::SUCCESS
    } else if !has("--bench") {
        visit_each(&[3], &mut Smoke);
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
    fn visit(&mut self, row: Row, pick: &(impl Fn() + Sync)) {
        assert_eq!(allocations(pick), 0, "allocations of {row}");
    }
}

fn report_times() -> ExitCode {
    println!("ns per pick, medians of unpreempted batches (batches kept/made)\n");
    println!(
        "{:30} {:>22} {:>8} {:>22} {:>6} {:>8} {:>7}",
        "policy, part, endpoints",
        "1 thread",
        "limit",
        "2 threads, each",
        "ratio",
        "limit",
        "allocs"
    );
    let mut times = Times::default();
    visit_each(&SIZES, &mut times);
    if times.over.is_empty() {
        println!("\npick: ok, all rows within their limits");
    } else {
        println!("\npick: over: {}", times.over.join("; "));
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
    fn visit(&mut self, row: Row, pick: &(impl Fn() + Sync)) {
        let (one, two, allocations) = (alone(pick), together(pick), allocations(pick));
        let ratio = one.median.zip(two.median).map(|(one, two)| two / one);
        let (limit, ratio_limit) = (limits::nanoseconds(row), limits::ratio(row));
        let exceeds = |figure: Option<f64>, limit: Option<f64>| {
            figure
                .zip(limit)
                .is_some_and(|(figure, limit)| figure > limit)
        };
        let mut excess = Vec::new();
        if exceeds(one.median, limit) {
            excess.push("1 thread");
        }
        if exceeds(ratio, ratio_limit) {
            excess.push("2 threads");
        }
        if allocations > 0 {
            excess.push("allocations");
            self.allocates = true;
        }
        let verdict = if excess.is_empty() {
            "ok".to_owned()
        } else {
            format!("over: {}", excess.join(", "))
        };
        if !excess.is_empty() {
            self.over.push(format!("{row} ({})", excess.join(", ")));
        }
        let number = |number: Option<f64>| {
            number.map_or_else(|| "-".to_owned(), |number| format!("{number:.2}"))
        };
        let (one, two) = (one.to_string(), two.to_string());
        let (ratio, limit, ratio_limit) = (number(ratio), number(limit), number(ratio_limit));
        println!(
            "{:30} {one:>22} {limit:>8} {two:>22} {ratio:>6} {ratio_limit:>8} {allocations:>7}  {verdict}",
            row.to_string()
        );
    }
}

/// Allocations of 1,000 picks after a warm-up.
fn allocations(pick: &impl Fn()) -> u64 {
    let _profiler = dhat::Profiler::builder().testing().build();
    pick();
    let before = dhat::HeapStats::get().total_blocks;
    (0..1_000).for_each(|_| pick());
    dhat::HeapStats::get().total_blocks - before
}
