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
mod fault;
mod goals;
mod report;
mod trial;

use std::{env, process::ExitCode};

use fault::Fault;
use support::{
    Result,
    postgres::Network,
    term::{Live, aside, heading},
};
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
            let live = Live::default();
            live.show(format_args!(
                "three servers, a program that writes, a fault ..."
            ));
            let trial = Trial::run(fault, Network::plain()?).await?;
            drop(live);
            report::timeline(&trial);
            report::summary(&trial);
            trials.push(trial);
        }
    }
    Ok(report::outcome(&trials))
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
