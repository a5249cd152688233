//! A real PostgreSQL cluster loses its primary, and a program goes on writing.
//!
//! `cargo run --release --all-features --example failover` shows a crash; `-- --fault hang` another fault, `-- all` all of
//! them and what was to be reached. Three servers with streaming replication on 127.0.0.2 to .4 stand behind
//! a DNS server that answers as cluster DNS does; a program writes 100 rows a second through the library, over one
//! connection to whoever is the primary; the fault happens, and a second later a standby is promoted.
//!
//! Look at the three strips: who could take writes, who the library said it was, and who took the program's
//! writes. All times are relative to the moment when the promoted server took its first write.
//!
//! Needs Linux and Debian's package `postgresql`, but neither root nor a running database.

#[path = "../support/mod.rs"]
mod support;

mod client;
mod driver;
mod fault;
mod goals;
mod report;
mod steady;
mod trial;

use std::{env, pin::pin, process::ExitCode, time::Duration};

use fault::Fault;
use steady::Steady;
use support::{
    Result,
    postgres::Network,
    term::{Live, aside, heading, say},
};
use tokio::time::{Instant, interval};
use trial::Trial;

const USAGE: &str = "usage: failover [all] [--fault NAME] [--trials N]";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        usage();
        return ExitCode::SUCCESS;
    }
    match Args::parse(&args) {
        Ok(args) => failover(&args),
        Err(error) => {
            eprintln!("failover: {error}");
            usage();
            ExitCode::from(2)
        }
    }
}

fn usage() {
    println!("{USAGE}\n");
    for fault in Fault::ALL {
        println!("  {:<10} {}", fault.name(), fault.explanation());
    }
}

#[tokio::main]
async fn failover(args: &Args) -> ExitCode {
    match run_all(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nfailover: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the trials and sums them up: whether all is well.
async fn run_all(args: &Args) -> Result<bool> {
    let mut trials = Vec::new();
    for &fault in args.faults {
        for number in 1..=args.trials {
            heading(match args.trials {
                1 => fault.name().to_owned(),
                trials => format!("{}, {number} of {trials}", fault.name()),
            });
            aside(fault.explanation());
            let trial = watched(Trial::run(fault, Network::plain()?, true)).await?;
            report::timeline(&trial);
            report::summary(&trial);
            trials.push(trial);
        }
    }

    report::medians(&trials);

    // With all faults the goals decide, which are of all trials; with one, what that one missed.
    let mut missed = Vec::new();
    if args.faults.len() > 1 {
        heading("side by side");
        report::side_by_side(&trials);
        let steady = watched(Steady::measure(Network::plain()?)).await?;
        missed.extend(
            goals::table_of(&trials, &steady)
                .into_iter()
                .map(str::to_owned),
        );
    }
    println!();
    for trial in &trials {
        let name = trial.fault.name();
        missed.extend(
            goals::missed(trial)
                .into_iter()
                .map(|what| format!("{name}: {what}")),
        );
    }
    for what in &missed {
        say(format!("MISSED  {what}"));
    }
    report::last_line(&trials, missed.is_empty());
    Ok(missed.is_empty())
}

/// Tells how long it takes, on a terminal.
async fn watched<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let (live, begin) = (Live::default(), Instant::now());
    let mut redraw = interval(Duration::from_millis(100));
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = redraw.tick() => {
                let seconds = begin.elapsed().as_secs_f32();
                live.show(format_args!("{seconds:.1} s: three servers, 100 writes a second, a fault .."));
            }
        }
    }
}

struct Args {
    faults: &'static [Fault],
    trials: u32,
}

impl Args {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self {
            faults: &Fault::ALL[..1],
            trials: 1,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "all" => parsed.faults = &Fault::ALL,
                "--fault" => {
                    let name = args.next().ok_or("--fault needs a name")?;
                    let named = Fault::ALL.iter().position(|fault| fault.name() == name);
                    let at = named.ok_or_else(|| format!("no fault is called {name}"))?;
                    parsed.faults = &Fault::ALL[at..=at];
                }
                "--trials" => {
                    let number = args.next().and_then(|number| number.parse().ok());
                    parsed.trials = number
                        .filter(|number| (1..=100).contains(number))
                        .ok_or("--trials needs a number from 1 to 100")?;
                }
                other => return Err(format!("{other} means nothing here").into()),
            }
        }
        Ok(parsed)
    }
}
