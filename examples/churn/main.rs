//! What callers notice when pods are replaced, killed, hang or fall silent.
//!
//! `cargo run --release --example churn -- all` runs it: three pods as processes of their own, a DNS
//! server (TTL 1 s), and a constant load of GETs with a POST as every tenth request, through a balancer
//! with default settings. Callers wait 1 s at most. Look at `failed`, and at how long the trouble shows
//! in the p99. The exit code is 0 only if no GET failed, no POST failed that no pod had received, and
//! no POST was received twice. A POST that broke off after it was written may have been done: it is
//! counted as unknown, and allowed.
//!
//! Needs Linux, but neither root nor a cluster.

#[path = "../support/mod.rs"]
mod support;

mod load;
mod pod;
mod report;
mod scenario;
mod stats;

use std::{env, process::ExitCode, time::Duration};

use headless_lb::{Balancer, Dns};
use rand::{Rng, rngs::SmallRng};
use scenario::{Deployment, Plan, Scenario};
use stats::{Counts, Latency, Receipts};
use support::{
    ClusterDns, Node, Result,
    client::Http,
    term::{aside, heading},
};
use tokio::time::Instant;

const USAGE: &str = "\
usage: churn rolling|kill|hang|blackhole|all [--rate 300] [--seconds 15] [--seed NUMBER]

  rolling         replace every pod: DNS change and SIGTERM at once
  kill            kill -9 a pod; DNS lists it for another 3 s
  hang            SIGSTOP a pod; DNS as above
  blackhole       a pod's address answers nothing, not even a SYN; DNS as above
  all             one after the other
  --rate N        requests a second, 10 to 2000
  --seconds N     how long each scenario is under load, 6 to 600
  --seed N        repeats the moment of a fault and its victim";

const SERVICE: &str = "catalog.churn";
const TTL: u32 = 1;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [mode, number, addr] = &args[..]
        && mode == pod::MODE
    {
        return match pod::run(number, addr) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("pod {number} at {addr}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match Args::parse(&args) {
        Ok(args) => churn(&args),
        Err(error) => {
            eprintln!("churn: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn churn(args: &Args) -> ExitCode {
    match run_all(args).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("\nchurn: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the scenarios and sums them up: whether all is well.
async fn run_all(args: &Args) -> Result<bool> {
    let dns = ClusterDns::start().await?.ttl(TTL);
    let mut node = Node::claim().await?;
    let (mut counts, mut p99) = (Counts::default(), Duration::ZERO);
    for &scenario in args.scenarios {
        let (these, latency) = run(scenario, args, &dns, &mut node).await?;
        counts += these;
        p99 = p99.max(latency.during);
    }
    let scenario = match args.scenarios {
        [one] => one.name(),
        _ => "all",
    };
    println!(
        "\nchurn: {} scenario={scenario} requests={} failed={} posts_failed_unsent={} \
         posts_unknown={} posts_doubled={} retried={} p99_ms={:.0}",
        if counts.is_ok() { "ok" } else { "FAILED" },
        counts.requests,
        counts.failed,
        counts.posts_failed_unsent,
        counts.posts_unknown,
        counts.posts_doubled,
        counts.retried,
        report::ms(p99),
    );
    Ok(counts.is_ok())
}

/// One scenario, with pods and a client of its own.
async fn run(
    scenario: Scenario,
    args: &Args,
    dns: &ClusterDns,
    node: &mut Node,
) -> Result<(Counts, Latency)> {
    heading(format!(
        "{}: {} requests a second for {} s (--seed {})",
        scenario.name(),
        args.rate,
        args.seconds,
        args.seed
    ));
    aside(scenario.explanation());

    let mut pods = Deployment::start(dns, SERVICE, node).await?;
    let name = format!("{SERVICE}.svc.cluster.local");
    let source = Dns::headless(&name, 8080)?.name_servers([dns.addr()]);
    let balancer: Balancer<Http> = Balancer::builder(source).spawn_http();
    balancer.resolved().await?;

    let length = Duration::from_secs(args.seconds.into());
    let plan = Plan::draw(scenario, args.seed, length);
    let begin = Instant::now();
    let (calls, fault) = tokio::try_join!(
        load::run(&balancer, args.rate, args.seconds, begin),
        pods.suffer(scenario, &plan, begin),
    )?;
    // Its connections close, as those of a client that ends; then the pods can tell what they received.
    drop(balancer);
    let receipts = Receipts::new(args.rate * args.seconds, &pods.end().await?);

    let counts = Counts::of(&calls, &receipts);
    let latency = Latency::of(&calls, &fault);
    report::timeline(&calls, &fault, args.seconds);
    report::summary(&calls, &counts, &latency);
    Ok((counts, latency))
}

struct Args {
    scenarios: &'static [Scenario],
    rate: u32,
    seconds: u32,
    seed: u32,
}

impl Args {
    fn parse(args: &[String]) -> Result<Self> {
        let mut parsed = Self {
            scenarios: &[],
            rate: 300,
            seconds: 15,
            seed: rand::make_rng::<SmallRng>().next_u32(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut number = || -> Result<u32> {
                let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
                let number = value.parse();
                number.map_err(|_| format!("{arg} needs a number, not {value}").into())
            };
            match arg.as_str() {
                "--rate" => parsed.rate = number()?,
                "--seconds" => parsed.seconds = number()?,
                "--seed" => parsed.seed = number()?,
                "all" => parsed.scenarios = &Scenario::ALL,
                name => {
                    let named = Scenario::ALL.iter().position(|one| one.name() == name);
                    let at = named.ok_or_else(|| format!("no scenario is called {name}"))?;
                    parsed.scenarios = &Scenario::ALL[at..=at];
                }
            }
        }
        if parsed.scenarios.is_empty() {
            return Err("which scenario?".into());
        }
        if !(10..=2000).contains(&parsed.rate) || !(6..=600).contains(&parsed.seconds) {
            return Err("--rate is 10 to 2000, --seconds 6 to 600".into());
        }
        Ok(parsed)
    }
}
