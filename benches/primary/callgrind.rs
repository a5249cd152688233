//! Instructions per question, counted by valgrind: the same on any machine, however busy.

use std::{process::ExitCode, slice::ChunksExact};

use crate::{
    contestants::{Row, Visitor, visit_quiet},
    limits,
    timing::picks,
    valgrind,
};

/// The flag by which this program, under valgrind, knows what to do.
pub(crate) const COUNTED: &str = "--counted";

/// A long run minus a short one leaves the questions alone: entry, exit and whatever happens once cancel out.
const SHORT: u32 = 500;
const LONG: u32 = 2_500;

/// The program under valgrind: two runs of each row, each of which ends with a dump of the count.
pub(crate) struct Counted;

impl Visitor for Counted {
    fn visit(&mut self, _: Row, question: &(impl Fn() + Sync)) {
        // Not counted: a thread's first load takes its slots.
        (0..10).for_each(|_| question());
        picks(question, SHORT);
        picks(question, LONG);
    }
}

/// Runs this program under valgrind, and reads what it counted.
pub(crate) fn report() -> ExitCode {
    if !valgrind::is_installed() {
        println!("primary: skipped, instructions are counted by valgrind, which is not installed");
        return ExitCode::SUCCESS;
    }
    let options = [
        "--collect-atstart=no",
        // Whole names: valgrind takes no wildcard at the start of what it dumps after.
        "--toggle-collect=primary::timing::picks",
        "--dump-after=primary::timing::picks",
    ];
    let counts = match valgrind::instructions("primary", &options, &[COUNTED.to_owned()]) {
        Ok(counts) => counts,
        Err(error) => {
            println!("primary: failed to count instructions: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("instructions per question, the loop around it included\n");
    println!("{:30} {:>12} {:>8}", "question", "instructions", "limit");
    let mut table = Table {
        counts: counts.chunks_exact(2),
        over: Vec::new(),
    };
    visit_quiet(&mut table);
    if table.over.is_empty() {
        println!("\nprimary: ok, all rows within their limits");
        return ExitCode::SUCCESS;
    }
    println!("\nprimary: over: {}", table.over.join("; "));
    ExitCode::FAILURE
}

struct Table<'a> {
    counts: ChunksExact<'a, u64>,
    over: Vec<String>,
}

impl Visitor for Table<'_> {
    fn visit(&mut self, row: Row, _: &(impl Fn() + Sync)) {
        let pair = self.counts.next().expect("valgrind visits the same rows");
        let each = (pair[1] - pair[0]).div_ceil(u64::from(LONG - SHORT));
        let limit = limits::instructions(row);
        let verdict = if each > limit {
            self.over.push(row.to_string());
            "over"
        } else {
            "ok"
        };
        println!("{:30} {each:>12} {limit:>8}  {verdict}", row.to_string());
    }
}
