//! gRPC: a client that tonic generated takes the balancer as its channel, and every call goes to the
//! next pod, not every connection. tonic is this program's; the library needs none of it.
//!
//! Run it with `cargo run --example grpc --features http2`. Look at the shares: exact for one client, and
//! while one of the three pods goes away no call fails.

mod pod;
#[path = "../support/mod.rs"]
mod support;

use std::{process::ExitCode, sync::atomic::Ordering::Relaxed, time::Duration};

use headless_lb::{Balancer, Dns, Http, HttpPod, RoundRobin};
use pod::Pod;
use support::{ClusterDns, Node, Result, outcome, term};
use tokio::{task::JoinSet, time::sleep};
use tonic::Status;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const CALLS: u64 = 90;
const CALLERS: u64 = 8;

/// What tonic generated; its channel is the balancer.
type Client = HealthClient<Balancer<HttpPod>>;

#[tokio::main]
async fn main() -> ExitCode {
    outcome("grpc", run().await)
}

async fn run() -> Result<String> {
    // The cluster: nothing of this is in your program.
    let dns = ClusterDns::start().await?;
    let (mut node, mut running) = (Node::claim().await?, JoinSet::new());
    let mut pods = Vec::new();
    for name in ["health-0", "health-1", "health-2"] {
        pods.push(Pod::start(name, &mut node, &mut running)?);
    }
    let service = dns.service("health.workshop");
    service.ready(pods.iter().map(|pod| pod.addr));

    // In a cluster, leave out `name_servers`: they are in /etc/resolv.conf.
    let name = Dns::headless("health.workshop.svc.cluster.local", 8080)?;
    let balancer = Balancer::builder(name.name_servers([dns.addr()]))
        .policy(RoundRobin::new())
        .spawn_http_with(Http::new().http2());
    let client = HealthClient::with_origin(balancer, "http://health.workshop".parse()?);

    term::heading("One client, one call after the other:");
    call(client.clone(), CALLS).await?;
    let even = shares(&pods);

    term::heading(format!(
        "{CALLERS} callers, while {} goes away:",
        pods[0].name
    ));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(call(client.clone(), 10 * CALLS));
    }
    sleep(Duration::from_millis(50)).await;
    service.ready(pods[1..].iter().map(|pod| pod.addr));
    pods[0].sigterm.send_replace(());
    let failed = callers.join_all().await;
    let failed: Vec<_> = failed.into_iter().filter_map(Result::err).collect();
    let during = shares(&pods);

    if even != [CALLS / 3; 3] || !failed.is_empty() || during[0] >= during[1] {
        return Err(format!("even={even:?} during={during:?} failed={failed:?}").into());
    }
    let calls = CALLS + CALLERS * 10 * CALLS;
    Ok(format!("calls={calls} failed=0 pods=3,2"))
}

/// So many unary calls.
async fn call(mut client: Client, calls: u64) -> Result<(), Status> {
    for _ in 0..calls {
        client.check(HealthCheckRequest::default()).await?;
    }
    Ok(())
}

/// How many calls each pod had since the last look, as bars.
fn shares(pods: &[Pod]) -> Vec<u64> {
    let counts = pods.iter().map(|pod| pod.calls.swap(0, Relaxed));
    let counts: Vec<u64> = counts.collect();
    let named = pods.iter().map(|pod| pod.name.to_owned());
    term::bars(&named.zip(counts.iter().copied()).collect());
    counts
}
