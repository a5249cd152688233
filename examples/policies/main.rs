//! Policies in a simulated cluster: what each does to latency, errors and shares.
//!
//! `cargo run --release --example policies` runs the quick form, under a minute on two cores; `-- --full` all of it.
//! Clients and pods live in virtual time, event by event; the policies, their estimates, the sets and what
//! ejects from them are the library's own objects. It is checked against a formula first. What must
//! hold is a table at the end, and the exit code is 0 only if all of it does. One seed gives the same bytes
//! on standard output, for any number of threads.

#[path = "../support/mod.rs"]
mod support;

mod catalogue;
mod check;
mod client;
mod contestants;
mod engine;
mod goals;
mod incident;
mod peers;
mod pod;
mod report;
mod runner;
mod scenario;
mod subsets;
mod tally;
#[cfg(test)]
mod tests;
mod traffic;
mod world;

use std::{
    env,
    io::{self, IsTerminal, Write},
    process::ExitCode,
    thread,
};

use catalogue::{FLOOR, Form, LEFT_OUT};
use goals::Verdict;
use runner::{Outcome, Round};
use support::{
    Result,
    term::{aside, heading, say},
};
use tokio::time::Instant;

const USAGE: &str = "\
usage: policies [--quick | --full] [--only TEXT] [--seed 1] [--threads N]

  --quick         under a minute on two cores; the default
  --full          every scenario at full length, goals as medians of eight seeds
  --only TEXT     the scenarios whose names contain it, as in `--only S7`
  --seed N        the first seed
  --threads N     how many runs at once; by default one for each processor";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Args::parse(&args) {
        Ok(args) => policies(&args),
        Err(error) => {
            eprintln!("policies: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn policies(args: &Args) -> ExitCode {
    let mut rounds = vec![check::round()];
    rounds.extend(catalogue::rounds(args.form));
    rounds.retain(|round| round.scenario.name.contains(&args.only));
    introduce(args);

    let (mut is_sound, mut verdicts) = (true, Vec::new());
    let (mut mix, mut floor, mut summary) = (Vec::new(), Vec::new(), Vec::new());
    let mut requests = 0;
    let progress = Progress::new();
    runner::run_all(
        &rounds,
        args.seed,
        args.threads,
        |done, all, name| progress.show(done, all, name),
        |outcome| {
            progress.clear();
            requests += outcome.requests();
            match outcome.round.scenario.name.as_str() {
                "check" => {
                    heading("check: the least of d queues has a formula");
                    is_sound &= check::report(&outcome);
                }
                name if name.starts_with("mix") => mix.push(outcome),
                name if name.starts_with(FLOOR) => floor.push(outcome),
                _ => {
                    report::round(&outcome);
                    verdicts.extend(goals::judge(&outcome));
                    summary.extend(report::summary_row(&outcome));
                }
            }
        },
    );
    progress.clear();
    report::mix(&mix);
    report::floor(&floor);
    let floored = floor.iter().flat_map(goals::judge);
    verdicts.extend(goals::worst("k of n pods fail", floored));
    report::summary(&summary);
    heading("goals: medians over seeds");
    goals::report(&verdicts);
    let repeats = repeats(&rounds, args.seed);
    say(format!(
        "G12: the same seed gave {} figures, on one thread and on two",
        if repeats { "the same" } else { "OTHER" }
    ));
    aside(
        "Measured elsewhere: connections that move when pods come and go (G9) by the example `subset`, the cost of a pick (G11) by `benches/pick`.",
    );
    if args.form == Form::Quick {
        aside(LEFT_OUT);
    }
    conclude(args, is_sound, repeats, &verdicts, requests)
}

fn introduce(args: &Args) {
    heading(format!(
        "policies: a simulation in virtual time, {:?} form, seed {}",
        args.form, args.seed
    ));
    report::legend();
}

/// Whether a round gives the same figures again, and on another number of threads.
fn repeats(rounds: &[Round], seed: u64) -> bool {
    let Some(round) = rounds.iter().find(|round| round.scenario.name != "check") else {
        return true;
    };
    let mut small = round.clone();
    small.scenario = small.scenario.lasts(1, 2);
    let small = [small];
    let figures = |threads| {
        let mut text = String::new();
        let tell = |outcome: Outcome<'_>| text = format!("{:?}", outcome.figures);
        runner::run_all(&small, seed, threads, |_, _, _| {}, tell);
        text
    };
    figures(1) == figures(2)
}

/// The last line: the goals that do not hold, by name.
fn conclude(
    args: &Args,
    is_sound: bool,
    repeats: bool,
    verdicts: &[Verdict],
    requests: u64,
) -> ExitCode {
    let mut missed: Vec<&str> = verdicts
        .iter()
        .filter(|verdict| !verdict.holds)
        .map(|verdict| verdict.id)
        .collect();
    missed.extend((!is_sound).then_some("check"));
    missed.extend((!repeats).then_some("G12"));
    missed.dedup();
    let held = verdicts.iter().filter(|verdict| verdict.holds).count();
    let form = format!("{:?}", args.form).to_lowercase();
    let figures = format!(
        "form={form} seed={} requests={requests} bounds_held={held} bounds={}",
        args.seed,
        verdicts.len()
    );
    if missed.is_empty() {
        println!("\npolicies: ok {figures}");
        ExitCode::SUCCESS
    } else {
        println!("\npolicies: FAILED {figures} missed={}", missed.join(","));
        ExitCode::FAILURE
    }
}

/// What is done, on standard error, where it does not change what a seed prints.
struct Progress {
    begin: Instant,
    is_live: bool,
}

impl Progress {
    fn new() -> Self {
        Self {
            begin: Instant::now(),
            is_live: io::stderr().is_terminal(),
        }
    }

    fn show(&self, done: usize, all: usize, name: &str) {
        let seconds = self.begin.elapsed().as_secs();
        if self.is_live {
            eprint!("\r\x1b[2K   {done} of {all} runs, {seconds} s: {name}");
            // A terminal that is gone has nobody to tell.
            let _ = io::stderr().flush();
        } else if done == all || done.is_multiple_of(50) {
            eprintln!("   {done} of {all} runs, {seconds} s: {name}");
        }
    }

    fn clear(&self) {
        if self.is_live {
            eprint!("\r\x1b[2K");
        }
    }
}

struct Args {
    form: Form,
    only: String,
    seed: u64,
    threads: usize,
}

impl Args {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self {
            form: Form::Quick,
            only: String::new(),
            seed: 1,
            threads: thread::available_parallelism().map_or(1, Into::into),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--quick" => parsed.form = Form::Quick,
                "--full" => parsed.form = Form::Full,
                "--only" => parsed.only.clone_from(value()?),
                "--seed" => parsed.seed = value()?.parse()?,
                "--threads" => parsed.threads = value()?.parse()?,
                _ => return Err(format!("what is {arg}?").into()),
            }
        }
        Ok(parsed)
    }
}
