//! G11: a thousand who wait for a primary, in real time.

use std::{thread, time::Duration};

use headless_lb::{NoPrimaryKind, Observation, Role, Term};
use tokio::{
    runtime,
    task::JoinSet,
    time::{Instant, sleep},
};

use crate::{
    goal::{Goal, Times, ms, within},
    scripted::Nodes,
    support::Result,
};

const WAITERS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(20);

/// What one round saw.
struct Round {
    first: Duration,
    last: Duration,
    /// The most within 10 ms.
    crowd: usize,
    refused_at_once: bool,
}

pub(crate) fn measure(rounds: u32) -> Result<Goal> {
    let mut all = Vec::new();
    for _ in 0..rounds {
        // On a thread of its own: what else this program does must not wake them late, and then together.
        let round = thread::scope(|scope| scope.spawn(run).join());
        all.push(round.map_err(|_panic| "a round panicked")??);
    }
    let firsts: Times = all.iter().map(|round| round.first).collect();
    let lasts: Times = all.iter().map(|round| round.last).collect();
    let crowd = all.iter().map(|round| round.crowd).max().unwrap_or(0);
    Ok(Goal {
        number: 11,
        what: "1,000 waiters: first, last, at once",
        // A thousand tasks are woken in 630 ms: what else the machine does meanwhile is not the library's.
        target: "10 ms, 700 ms (median), 16 in 10 ms",
        is_met: within(firsts.median(), Duration::from_millis(10))
            && within(lasts.median(), Duration::from_millis(700))
            && crowd <= 16
            && all.iter().all(|round| round.refused_at_once),
        measured: format!(
            "{:.1} ms, {:.0} ms (worst {:.0}), {crowd} at most, n {rounds}",
            firsts.median().map_or(f64::NAN, ms),
            lasts.median().map_or(f64::NAN, ms),
            lasts.worst().map_or(f64::NAN, ms),
        ),
    })
}

fn run() -> Result<Round> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        let nodes = Nodes::saying([const { Some(Observation::of(Role::Replica)) }; 3]);
        let db = nodes.balancer(Duration::from_millis(50));
        let mut tasks = JoinSet::new();
        for _ in 0..WAITERS {
            let primary = db.primary();
            tasks.spawn(async move {
                let served = primary.wait(PATIENCE).await;
                served.map(|_| Instant::now())
            });
        }
        sleep(Duration::from_millis(500)).await;
        let begin = Instant::now();
        let one_more = db.primary().wait(PATIENCE).await.err();
        let refused_at_once = one_more.map(|error| error.kind())
            == Some(NoPrimaryKind::TooManyWaiters)
            && begin.elapsed() < Duration::from_millis(10);

        let mut changes = db.primary().subscribe();
        nodes.say(1, Observation::of(Role::Primary).in_term(Term::new(2)));
        while !matches!(changes.next().await, Some(Ok(_))) {}
        let accepted = Instant::now();
        let mut times = Vec::new();
        while let Some(served) = tasks.join_next().await {
            times.push(served??.saturating_duration_since(accepted));
        }
        times.sort();
        let crowd = |from: &Duration| {
            let soon =
                |time: &&Duration| *time >= from && **time < *from + Duration::from_millis(10);
            times.iter().filter(soon).count()
        };
        Ok(Round {
            first: times[0],
            last: times[WAITERS - 1],
            crowd: times.iter().map(crowd).max().unwrap_or(0),
            refused_at_once,
        })
    })
}
