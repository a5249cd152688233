//! Instructions per update, counted by valgrind: the same on any machine, however busy.

use std::{hint::black_box, process::ExitCode};

use crate::{Update, driver::Driver, named, valgrind, wanted};

/// The flag by which this program, under valgrind, knows what to do.
pub(crate) const COUNTED: &str = "--counted";

const SIZES: [usize; 2] = [10, 1_000];
/// What differs from one to the next is where in the set something changes.
const UPDATES: usize = 20;

/// The program under valgrind: each row ends with a dump of the count.
pub(crate) fn run_all() {
    for update in wanted() {
        for n in SIZES {
            run(update, n);
        }
    }
}

#[inline(never)]
fn run(update: &Update, n: usize) {
    black_box((update.run)(&mut Driver::new(n, UPDATES)));
}

/// Runs this program under valgrind, and reads what it counted.
pub(crate) fn report() -> ExitCode {
    if !valgrind::is_installed() {
        println!("publish: skipped, instructions are counted by valgrind, which is not installed");
        return ExitCode::SUCCESS;
    }
    let options = [
        "--collect-atstart=no",
        // Whole names: valgrind takes no wildcard at the start of what it dumps after.
        "--toggle-collect=publish::driver::Driver::turn",
        "--dump-after=publish::callgrind::run",
    ];
    let mut arguments = named();
    arguments.push(COUNTED.to_owned());
    let counts = match valgrind::instructions("publish", &options, &arguments) {
        Ok(counts) => counts,
        Err(error) => {
            println!("publish: failed to count instructions: {error}");
            return ExitCode::FAILURE;
        }
    };
    println!("instructions per update, mean of {UPDATES}\n");
    print!("{:24}", "endpoints");
    SIZES.iter().for_each(|n| print!("{n:>12}"));
    println!();
    for (update, row) in wanted().zip(counts.chunks_exact(SIZES.len())) {
        print!("{:24}", update.title);
        row.iter()
            .for_each(|count| print!("{:>12}", count / UPDATES as u64));
        println!();
    }
    println!("\npublish: ok");
    ExitCode::SUCCESS
}
