//! What a failover costs programs that find the primary in other ways: the same faults, at the same time.
//!
//! `cargo run --release --all-features --example failover_peers [-- --fault NAME]` lets six faults befall a real PostgreSQL
//! cluster, one after the other (2 min). Each time all clients write to the same servers, each a row every 10 ms: libpq and
//! tokio-postgres with the three hosts and `target_session_attrs=read-write`, and the library. They connect again
//! when a write fails; a write may take 2 s. A standby is promoted 1 s after the fault (at once in `split`, after the
//! shutdown in `switch`).
//!
//! Look at *first write*, from the moment when the promoted server took a write, and at *stale*: rows that the old
//! primary acknowledged after it, which are lost.
//!
//! Needs Linux and Debian's packages `postgresql` and, for libpq's part, `python3-psycopg`.

#[path = "../support/mod.rs"]
mod support;

#[path = "../failover/client.rs"]
mod client;
mod contest;
#[allow(dead_code, reason = "a trial would start it")]
#[path = "../failover/driver.rs"]
mod driver;
#[allow(dead_code, reason = "drivers do not notice the other faults")]
#[path = "../failover/fault.rs"]
mod fault;
mod multi_host;
mod peer;
mod report;
mod script;
#[allow(dead_code, reason = "of the trial, a contest uses the stage")]
#[path = "../failover/trial.rs"]
mod trial;

use std::{env, process::ExitCode};

use fault::Fault;
use support::{
    Result,
    term::{Live, aside, heading, say},
};

const FAULTS: [Fault; 6] = [
    Fault::Crash,
    Fault::Switch,
    Fault::Hang,
    Fault::Blackhole,
    Fault::Split,
    Fault::Zombie,
];

const USAGE: &str = "usage: failover_peers [--fault crash|switch|hang|blackhole|split|zombie]";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let faults: Vec<Fault> = match args[..] {
        [] => FAULTS.to_vec(),
        ["--fault", name] => FAULTS
            .into_iter()
            .filter(|fault| fault.name() == name)
            .collect(),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => Vec::new(),
    };
    if faults.is_empty() {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    }
    compare(&faults)
}

#[tokio::main]
async fn compare(faults: &[Fault]) -> ExitCode {
    match run_all(faults).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nfailover_peers: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}

/// Lets all faults happen, and compares: whether the library did well.
async fn run_all(faults: &[Fault]) -> Result<bool> {
    let versions = script::versions().await;
    match &versions {
        Some(versions) => say(format!(
            "{versions}; tokio-postgres 0.7; headless-lb, probes every 250 ms"
        )),
        None => say(
            "left out: psycopg and libpq. /usr/bin/python3 has no psycopg 3: install Debian's `python3-psycopg`",
        ),
    }
    let mut contests = Vec::new();
    for &fault in faults {
        heading(fault.name());
        aside(fault.explanation());
        let live = Live::default();
        live.show(format_args!("three servers, all clients at once ..."));
        let outcomes = contest::run(fault, versions.is_some()).await?;
        drop(live);
        report::fault(&outcomes);
        contests.push((fault, outcomes));
    }
    report::all(&contests);
    Ok(report::last_line(&contests))
}
