//! The goals of primary discovery, measured, in one table.
//!
//! `cargo run --release --all-features --example primary_goals [-- --quick]` measures them all, most on a real
//! PostgreSQL cluster to which every fault happens that a goal speaks of (5 min; `--quick` lets each happen once, 2 min).
//! The exit code is 0 only if all are met.
//!
//! Needs Linux, cargo, and Debian's package `postgresql`, but neither root nor a running database.

#[path = "../support/mod.rs"]
mod support;

#[path = "../failover/client.rs"]
mod client;
mod connects;
mod cost;
mod counting;
mod crates;
#[allow(dead_code, reason = "a trial would start it")]
#[path = "../failover/driver.rs"]
mod driver;
mod failovers;
#[allow(dead_code, reason = "not every fault shows a goal")]
#[path = "../failover/fault.rs"]
mod fault;
mod goal;
mod lag;
mod rejected;
mod scripted;
#[allow(dead_code, reason = "of two threads, nothing is measured here")]
#[path = "../../benches/pick/timing.rs"]
mod timing;
#[allow(dead_code, reason = "nobody looks at a timeline here")]
#[path = "../failover/trial.rs"]
mod trial;
mod view;
mod waiters;

use std::{env, process::ExitCode, time::Duration};

use goal::Goal;
use support::{
    Result,
    term::{Live, say, table},
};
use tokio::time::Instant;

const USAGE: &str = "\
usage: primary_goals [--quick] [--trials NUMBER] [--only NUMBER]

  --quick       each fault once, and short counts
  --trials N    how often each fault happens, 1 to 100; 3 if nothing is said
  --only N      the goal of this number alone, 1 to 12";

const GOALS: u32 = 12;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Args::parse(&args) {
        Ok(args) => primary_goals(&args),
        Err(error) => {
            eprintln!("primary_goals: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn primary_goals(args: &Args) -> ExitCode {
    match run_all(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nprimary_goals: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures them and prints the table: whether all are met.
async fn run_all(args: &Args) -> Result<bool> {
    let begin = Instant::now();
    let mut goals = Vec::new();
    for number in args.numbers.clone() {
        let live = Live::default();
        live.show(format_args!("G{number} ..."));
        // One that cannot be measured is missed; the others are worth knowing all the same.
        goals.extend(match measure(number, args, &live).await {
            Ok(measured) => measured,
            Err(error) => vec![Goal::unmeasured(number, &*error)],
        });
    }
    println!();
    let rows: Vec<_> = goals
        .iter()
        .map(|goal| {
            let verdict = if goal.is_met { "met" } else { "MISSED" };
            [
                goal.name(),
                goal.what.to_owned(),
                goal.target.to_owned(),
                goal.measured.clone(),
                verdict.to_owned(),
            ]
        })
        .collect();
    table(["", "goal", "target", "measured", "verdict"], &rows);
    println!();
    let missed: Vec<&Goal> = goals.iter().filter(|goal| !goal.is_met).collect();
    for goal in &missed {
        say(format!(
            "MISSED {}: {}: {}",
            goal.name(),
            goal.what,
            goal.measured
        ));
    }
    println!(
        "primary_goals: {} met={} missed={} trials={} seconds={}",
        if missed.is_empty() { "ok" } else { "FAILED" },
        goals.len() - missed.len(),
        missed.len(),
        args.trials,
        begin.elapsed().as_secs(),
    );
    Ok(missed.is_empty())
}

async fn measure(number: u32, args: &Args, live: &Live) -> Result<Vec<Goal>> {
    let (connects, counting) = match args.is_quick {
        true => (20, Duration::from_secs(10)),
        false => (50, Duration::from_secs(10)),
    };
    Ok(match number {
        3 => vec![connects::measure(connects).await?],
        7 => vec![view::measure().await?],
        8 => cost::measure(counting).await?,
        9 => vec![crates::measure()?],
        10 => vec![lag::measure().await?],
        11 => vec![waiters::measure(args.trials)?],
        12 => vec![rejected::measure().await?],
        _ => failovers::measure(number, args.trials, live).await?,
    })
}

struct Args {
    is_quick: bool,
    trials: u32,
    numbers: std::ops::RangeInclusive<u32>,
}

impl Args {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self {
            is_quick: false,
            trials: 3,
            numbers: 1..=GOALS,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = |most: u32| {
                let number = args.next().and_then(|number| number.parse().ok());
                let number = number.filter(|number| (1..=most).contains(number));
                number.ok_or_else(|| format!("{arg} needs a number from 1 to {most}"))
            };
            match arg.as_str() {
                "--quick" => (parsed.is_quick, parsed.trials) = (true, 1),
                "--trials" => parsed.trials = number(100)?,
                "--only" => {
                    let only = number(GOALS)?;
                    parsed.numbers = only..=only;
                }
                other => return Err(format!("{other} means nothing here").into()),
            }
        }
        Ok(parsed)
    }
}
