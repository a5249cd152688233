//! Instructions per pick, counted by valgrind: the same on any machine, however busy.

use std::process::ExitCode;

use crate::{
    contestants::{Row, Visitor, named, visit_each},
    limits,
    timing::picks,
    valgrind,
};

/// The flag by which this program, under valgrind, knows what to do.
pub(crate) const COUNTED: &str = "--counted";
pub(crate) const SIZES: [usize; 2] = [10, 1_000];

/// A long run minus a short one leaves picks alone: entry, exit and whatever happens once cancel out.
const SHORT: u32 = 500;
const LONG: u32 = 2_500;

/// The program under valgrind: two runs of each row, each of which ends with a dump of the count.
pub(crate) struct Counted;

impl Visitor for Counted {
    fn visit(&mut self, _: Row, pick: &(impl Fn() + Sync)) {
        // Not counted: the first pick of a thread draws its seed and its lane.
        (0..10).for_each(|_| pick());
        picks(pick, SHORT);
        picks(pick, LONG);
    }
}

/// Runs this program under valgrind, and reads what it counted.
pub(crate) fn report() -> ExitCode {
    if !valgrind::is_installed() {
        println!("pick: skipped, instructions are counted by valgrind, which is not installed");
        return ExitCode::SUCCESS;
    }
    let options = [
        "--collect-atstart=no",
        // Whole names: valgrind takes no wildcard at the start of what it dumps after.
        "--toggle-collect=pick::timing::picks",
        "--dump-after=pick::timing::picks",
    ];
    let mut arguments = named();
    arguments.push(COUNTED.to_owned());
    let counts = match valgrind::instructions("pick", &options, &arguments) {
        Ok(counts) => counts,
        Err(error) => {
            println!("pick: failed to count instructions: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("instructions per pick, the loop around it included\n");
    println!(
        "{:30} {:>12} {:>8}",
        "policy, part, endpoints", "instructions", "limit"
    );
    let mut table = Table {
        counts: counts.chunks_exact(2),
        over: Vec::new(),
    };
    visit_each(&SIZES, &mut table);
    if table.over.is_empty() {
        println!("\npick: ok, all rows within their limits");
        return ExitCode::SUCCESS;
    }
    println!("\npick: over: {}", table.over.join("; "));
    ExitCode::FAILURE
}

struct Table<'a> {
    counts: std::slice::ChunksExact<'a, u64>,
    over: Vec<String>,
}

impl Visitor for Table<'_> {
    fn visit(&mut self, row: Row, _: &(impl Fn() + Sync)) {
        let pair = self.counts.next().expect("valgrind visits the same rows");
        let per_pick = (pair[1] - pair[0]).div_ceil(u64::from(LONG - SHORT));
        let limit = limits::instructions(row);
        let verdict = if limit.is_some_and(|limit| per_pick > limit) {
            self.over.push(row.to_string());
            "over"
        } else {
            "ok"
        };
        let limit = limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
        println!(
            "{:30} {per_pick:>12} {limit:>8}  {verdict}",
            row.to_string()
        );
    }
}
