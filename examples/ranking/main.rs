//! Which policy is best when a pod is slow, or fails fast? The simulation's ranking, tried on real servers.
//!
//! `cargo run --release --example ranking` runs it: for each policy ten HTTP pods and clients of its own, all policies at
//! the same time, over loopback and under the same traffic: a request comes at random moments, 70 % of what ten healthy pods can do,
//! and takes 20 ms of a pod's one worker on average, exponentially distributed. One pod is ten times slower than the others, or answers
//! 503 at once. Retries, hedges and ejection are off, for they hide what the policy does; one row has ejection, to compare.
//!
//! Look at p99 and at the share of the odd pod. The exit code is 0 only if the ranking of the simulation holds:
//! where a pod is slow, `Adaptive` and `PeakEwma` beat `LeastRequest`, and that beats `RoundRobin`; where one fails fast, `Adaptive` and
//! `PeakEwma` give it less than its fair share.
//!
//! Quantiles of a few thousand requests on a busy machine are rough: build with `--release`, and look at two runs before believing
//! a small difference.

#[path = "../support/mod.rs"]
mod support;

mod contestants;
mod fleet;
mod load;
mod ranking;

use std::{process::ExitCode, time::Duration};

use contestants::Contestant;
use fleet::{Fleet, Odd};
use load::{Figures, Traffic};
use support::{
    Result, outcome,
    term::{Live, aside, heading, say},
};
use tokio::{task::JoinSet, time::Instant};

const USAGE: &str = "\
usage: ranking [--seconds 12] [--seed 1]

  --seconds N   how long each of the four rounds is measured, 4 to 120; 3 s more to warm up
  --seed N      other traffic";

/// Before it is measured: the clients learn, and a pod that is slow gets its queue.
const WARM_UP: Duration = Duration::from_secs(3);

/// A request that leaves so late shows in the latencies of all policies alike.
const LATE: Duration = Duration::from_millis(20);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (mut seconds, mut seed) = (12, 1);
    for pair in arguments.chunks(2) {
        let number = pair.get(1).and_then(|number| number.parse::<u64>().ok());
        match (pair[0].as_str(), number) {
            ("--seconds", Some(number @ 4..=120)) => seconds = number,
            ("--seed", Some(number)) => seed = number,
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    outcome("ranking", run(Duration::from_secs(seconds), seed).await)
}

async fn run(time: Duration, seed: u64) -> Result<String> {
    let mut rounds = Vec::new();
    for odd in [Odd::Slow, Odd::Failing] {
        for clients in [1, 10] {
            heading(format!(
                "One pod of ten {odd}; {clients} client{}",
                if clients == 1 { "" } else { "s" }
            ));
            let traffic = Traffic::of(seed, clients, WARM_UP, time);
            let figures = undisturbed(&traffic, odd, clients).await?;
            ranking::show(&figures);
            rounds.push(((odd, clients), figures));
        }
    }
    heading("Does the ranking hold?");
    let broken = ranking::check(&rounds);
    for line in &broken {
        say(format!("no: {line}"));
    }
    if !broken.is_empty() {
        return Err(format!("{} of the expectations do not hold", broken.len()).into());
    }
    say("yes, in every round");
    let slow = &rounds[1].1;
    let p99 = |name: &str| ranking::of(slow, name).p99().as_millis();
    Ok(format!(
        "rounds={} slow_p99_ms_10_clients: round_robin={} least_request={} peak_ewma={} adaptive={}",
        rounds.len(),
        p99("RoundRobin"),
        p99("LeastRequest"),
        p99("PeakEwma"),
        p99("Adaptive"),
    ))
}

/// A round in which the traffic came when it was due: on a busy machine that takes more than one try.
async fn undisturbed(
    traffic: &Traffic,
    odd: Odd,
    clients: usize,
) -> Result<Vec<(&'static str, Figures)>> {
    for _ in 0..3 {
        let figures = round(traffic, odd, clients).await?;
        let Some(late) = figures.iter().map(|(_, one)| one.late).max() else {
            break;
        };
        if late <= LATE {
            return Ok(figures);
        }
        aside(format!(
            "once more: a hundredth of the requests left {late:.0?} late, for the machine was busy"
        ));
    }
    Err("the machine is too busy: requests leave too late three times in a row".into())
}

/// All contestants at the same time, so that what the machine does meets all of them.
async fn round(
    traffic: &Traffic,
    odd: Odd,
    clients: usize,
) -> Result<Vec<(&'static str, Figures)>> {
    let mut ready = Vec::new();
    for contestant in Contestant::ALL {
        let fleet = Fleet::start(odd).await?;
        let clients = contestant.clients(&fleet, clients).await?;
        ready.push((contestant, fleet, clients));
    }
    let mut runs = JoinSet::new();
    let start = Instant::now() + Duration::from_millis(500);
    for (contestant, fleet, clients) in ready {
        let traffic = traffic.clone();
        runs.spawn(async move {
            let figures = load::run(&fleet, clients, &traffic, start).await;
            (contestant, figures)
        });
    }
    let live = Live::default();
    let end = start + traffic.length();
    while Instant::now() < end {
        let left = (end - Instant::now()).as_secs();
        live.show(format_args!("{left:3} s to go"));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(live);
    let mut done = Vec::new();
    while let Some(run) = runs.join_next().await {
        done.push(run?);
    }
    done.sort_by_key(|(contestant, _)| *contestant as usize);
    aside(format!("{} requests each", traffic.measured()));
    Ok(done
        .into_iter()
        .map(|(contestant, figures)| (contestant.name(), figures))
        .collect())
}
