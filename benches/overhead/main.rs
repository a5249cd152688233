//! What balancing costs a client: CPU time and instructions per request, beside those of a client of
//! one fixed pod; and memory.
//!
//! ```text
//! cargo bench --bench overhead                        CPU time and median latency
//! cargo bench --bench overhead -- --instructions      instructions, counted by valgrind
//! cargo bench --bench overhead -- --memory            memory per pod and connection, the same way
//! ```
//!
//! *raw* is a bare hyper connection for each worker (for HTTP/2, one for all), *fixed* the legacy
//! `Client` of hyper-util, each to one pod; *balanced-n* is ours over n pods. All send the same `GET`
//! and read an answer of 13 bytes to its end, on a runtime of one thread. The pods are another process.
//!
//! Each client runs in a fresh process. Clients are compared within a round, in which each runs once: the
//! ratio is the median of the rounds' ratios to *fixed*, so what slows down a whole round does not count.
//!
//! Times depend on what else the machine does: they are reported, and never fail the run.
//! Instructions do not, so the exit code is 1 if they are over their limit.

use std::{env, process::ExitCode};

use contestants::CONTESTANTS;
use load::Load;
use pods::Pods;

mod contestants;
mod instructions;
mod limits;
mod load;
mod memory;
mod pinned;
mod pods;
mod times;
#[path = "../support/valgrind.rs"]
mod valgrind;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The flags by which this program, started by itself, knows what to be.
const CLIENT: &str = "--client";
const HOLDER: &str = "--holder";
const PODS: &str = "--pods";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let done = match arguments.first().map(String::as_str) {
        Some(CLIENT) => contestants::be_client(&arguments[1..]),
        Some(HOLDER) => memory::be_holder(arguments),
        Some(PODS) => pods::be_pods(&arguments[1..]),
        _ if !has("--bench") => try_each(),
        _ if has("--instructions") => instructions::report(),
        _ if has("--memory") => memory::report(),
        _ => times::report(),
    };
    done.unwrap_or_else(|error| {
        println!("overhead: failed: {error}");
        ExitCode::FAILURE
    })
}

/// `cargo test --benches`: each client does its work, and no time is measured.
fn try_each() -> Result<ExitCode, Error> {
    let pods = Pods::start(contestants::most_pods())?;
    let load = Load {
        requests: 60,
        concurrency: 2,
    };
    for contestant in CONTESTANTS {
        let run = contestant.run(&pods, load)?;
        assert!(!run.cpu.is_zero(), "{}: {run:?}", contestant.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// What was measured against its limits.
#[derive(Default)]
struct Verdicts {
    over: Vec<String>,
}

impl Verdicts {
    /// The last columns of a row: limit, aim, and what comes of them.
    fn judge(&mut self, row: &str, ratio: f64, limit: Option<limits::Limit>) -> String {
        let Some(limit) = limit else {
            return String::new();
        };
        let verdict = if ratio >= limit.below {
            self.over.push(row.to_owned());
            "over"
        } else if ratio > limit.aim {
            "ok, above its aim"
        } else {
            "ok"
        };
        format!("  < {:.2}, aim {:.2}  {verdict}", limit.below, limit.aim)
    }

    /// Prints the last line. What is over its limit ends with `over`.
    fn conclude(&self, over: ExitCode) -> ExitCode {
        if self.over.is_empty() {
            println!("overhead: ok, all rows within their limits");
            return ExitCode::SUCCESS;
        }
        println!("overhead: over: {}", self.over.join("; "));
        over
    }
}
