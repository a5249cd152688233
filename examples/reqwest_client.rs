//! reqwest and a headless service, in two ways. Its connections to the addresses that a balancer gives:
//! one line, and a connection that is kept takes every request. Its requests through the balancer: each
//! is balanced.
//!
//! Run it with `cargo run --example reqwest_client --features reqwest`. Compare the shares.

mod support;

use std::{collections::BTreeMap, process::ExitCode};

use headless_lb::{Balancer, Dns, ReqwestResolver, RoundRobin};
use reqwest::{Body, Client, Response};
use support::{ClusterDns, Node, Result, Workload, outcome, term};
use tower::ServiceExt;

const URL: &str = "http://myservice.workshop/catalog/1";
const REQUESTS: u64 = 90;

#[tokio::main]
async fn main() -> ExitCode {
    outcome("reqwest_client", run().await)
}

async fn run() -> Result<String> {
    // The cluster: nothing of this is in your program.
    let dns = ClusterDns::start().await?;
    let mut node = Node::claim().await?;
    let mut pods = Workload::deployment(&dns, "myservice.workshop", "proddetail");
    pods.scale(&mut node, 3).await?;
    // In a cluster, leave out `name_servers`: they are in /etc/resolv.conf.
    let service =
        Dns::headless("myservice.workshop.svc.cluster.local", 8080)?.name_servers([dns.addr()]);
    let builder = Balancer::builder(service).policy(RoundRobin::new());

    term::heading("The resolver: reqwest asks it once for each connection, and keeps that.");
    let balancer = builder.spawn();
    let client = Client::builder()
        .dns_resolver(ReqwestResolver::new().host("myservice.workshop", &balancer))
        .no_proxy()
        .build()?;
    let mut by_connection = BTreeMap::new();
    for _ in 0..REQUESTS {
        count(&mut by_connection, client.get(URL).send().await?).await?;
    }
    term::bars(&by_connection);

    term::heading("The balancer: reqwest makes the request, the balancer sends it.");
    let balancer = builder.spawn_http();
    let mut by_request = BTreeMap::new();
    for _ in 0..REQUESTS {
        let request: http::Request<Body> = client.get(URL).build()?.try_into()?;
        let response = balancer.clone().oneshot(request).await?.map(Body::wrap);
        count(&mut by_request, Response::from(response)).await?;
    }
    term::bars(&by_request);

    // Who asks again before his connection is back makes another: most are with one pod, not always all.
    let pinned = by_connection.into_values().max().unwrap_or_default();
    if pinned <= REQUESTS / 2 || by_request.values().any(|&n| n != REQUESTS / 3) {
        let shares = format!("{by_request:?}");
        return Err(format!("{pinned} of {REQUESTS} by connection; by request {shares}").into());
    }
    let (requests, balanced) = (2 * REQUESTS, by_request.len());
    Ok(format!(
        "requests={requests} pinned={pinned} balanced_over={balanced}"
    ))
}

/// Who answered.
async fn count(shares: &mut BTreeMap<String, u64>, response: Response) -> Result<()> {
    let pod = response.error_for_status()?.text().await?;
    *shares.entry(pod.trim().to_owned()).or_default() += 1;
    Ok(())
}
