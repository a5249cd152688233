//! Instructions per request, of the client alone, in user space.

use std::process::ExitCode;

use crate::{
    Error, Verdicts,
    contestants::{self, CONTESTANTS, Contestant},
    limits,
    load::Load,
    pods::Pods,
    valgrind,
};

/// A long run minus a short one leaves requests alone: start, connects and end cancel out.
const SHORT: u32 = 400;
const LONG: u32 = 2_000;
const CONCURRENCIES: [u32; 2] = [1, 8];

pub(crate) fn report() -> Result<ExitCode, Error> {
    if !valgrind::is_installed() {
        println!("overhead: skipped, instructions are counted by valgrind, which is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let pods = Pods::start(contestants::most_pods())?;
    let mut verdicts = Verdicts::default();
    for concurrency in CONCURRENCIES {
        println!("concurrency {concurrency}\n");
        println!("{:16} {:>12} {:>7}", "client", "instructions", "ratio");
        let counts = CONTESTANTS
            .iter()
            .map(|contestant| count(contestant, &pods, concurrency))
            .collect::<Result<Vec<_>, _>>()?;
        for (contestant, count) in CONTESTANTS.iter().zip(&counts) {
            let ratio = *count as f64 / counts[contestant.fixed_place()] as f64;
            let row = format!("{} at {concurrency}", contestant.name);
            let limit = limits::instructions(contestant.name);
            let verdict = verdicts.judge(&row, ratio, limit);
            println!("{:16} {count:>12} {ratio:>7.3}{verdict}", contestant.name);
        }
        println!();
    }
    Ok(verdicts.conclude(ExitCode::FAILURE))
}

fn count(contestant: &Contestant, pods: &Pods, concurrency: u32) -> Result<u64, Error> {
    let of = |requests| -> Result<u64, Error> {
        let load = Load {
            requests,
            concurrency,
        };
        let arguments = contestant.arguments(pods, load);
        Ok(valgrind::instructions("overhead", &[], &arguments)?[0])
    };
    Ok((of(LONG)? - of(SHORT)?) / u64::from(LONG - SHORT))
}
