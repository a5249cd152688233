//! A policy of one's own: a canary. The youngest pod gets one request of ten until it has proved
//! itself; the others share the rest.
//!
//! Run it with `cargo run --example custom_policy`. Look at the last pod's share, before and after
//! the canary is over. The same set, the same connections and the same DNS questions serve both
//! handles: a policy belongs to the handle.

mod support;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use headless_lb::{Balancer, Candidates, Dns, Policy, RoundRobin, policy_fn};
use support::{ClusterDns, Node, Result, Workload, term};

/// How many requests of the canary's are one of its own.
const ONE_IN: usize = 10;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let dns = ClusterDns::start().await?;
    let mut node = Node::claim().await?;
    let mut pods = Workload::stateful_set(&dns, "catalog.workshop", "catalog");
    pods.scale(&mut node, 3).await?;

    let service =
        Dns::srv("_http._tcp.catalog.workshop.svc.cluster.local")?.name_servers([dns.addr()]);
    let balancer = Balancer::builder(service)
        .policy(canary())
        .refresh_interval(Duration::from_secs(1))
        .spawn();
    balancer.resolved().await?;

    let mut changes = balancer.subscribe();
    pods.scale(&mut node, 4).await?;
    while balancer.endpoints().len() < 4 {
        changes.next().await.ok_or("the balancer ended")?;
    }

    term::heading("A canary: the youngest pod gets one request of ten.");
    term::bars(&shares(&balancer)?);
    term::heading("The canary is over: another handle on the same set, with round robin.");
    term::bars(&shares(&balancer.with_policy(RoundRobin::new()))?);
    Ok(())
}

/// A pick runs on every request, on any thread: state is an atomic, and a set of pods is scanned
/// only if it is small.
fn canary() -> impl Policy {
    let turn = AtomicUsize::new(0);
    policy_fn(move |candidates| {
        let turn = turn.fetch_add(1, Relaxed);
        let youngest = youngest(candidates)?;
        let others = candidates.len() - 1;
        if others == 0 || turn.is_multiple_of(ONE_IN) {
            return candidates.choose(youngest);
        }
        let other = turn % others;
        candidates.choose(if other < youngest { other } else { other + 1 })
    })
}

fn youngest(candidates: Candidates<'_>) -> Option<usize> {
    let ages = candidates
        .iter()
        .enumerate()
        .map(|(i, endpoint)| (endpoint.since(), endpoint.id(), i));
    ages.max().map(|(_, _, i)| i)
}

fn shares(balancer: &Balancer) -> Result<BTreeMap<String, u64>> {
    let mut shares = BTreeMap::new();
    for _ in 0..1000 {
        let pick = balancer.pick()?;
        *shares.entry(pick.endpoint().to_string()).or_default() += 1;
    }
    Ok(shares)
}
