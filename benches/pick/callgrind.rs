//! Instructions per pick, counted by valgrind: the same on any machine, however busy.

use std::{
    env, fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use crate::{
    contestants::{Row, Visitor, visit_each},
    limits,
    timing::picks,
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
    let found = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        println!("pick: skipped, instructions are counted by valgrind, which is not installed");
        return ExitCode::SUCCESS;
    }
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pick");
    let counts = match count(&directory) {
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

/// The instructions of each call of [`picks`], in order.
fn count(directory: &Path) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    let status = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", "--collect-atstart=no"])
        .args([
            // Whole names: valgrind takes no wildcard at the start of what it dumps after.
            "--toggle-collect=pick::timing::picks",
            "--dump-after=pick::timing::picks",
        ])
        .arg(format!(
            "--callgrind-out-file={}",
            directory.join("out").display()
        ))
        .arg(env::current_exe()?)
        .arg(COUNTED)
        .stdout(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(format!("valgrind: {status}").into());
    }
    // Dumps are numbered from 1; the file without a number is what came after the last.
    let total = |text: String| -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix("totals: ")?.parse().ok())
    };
    let dumps = (1..)
        .map(|number| directory.join(format!("out.{number}")))
        .take_while(|dump| dump.exists());
    dumps
        .map(|dump| Ok(total(fs::read_to_string(dump)?).ok_or("a dump without totals")?))
        .collect()
}
