//! The hyper-util client that a program already has, balanced by a layer around it: each request goes
//! to another pod, and the client goes on keeping its connections, now one pool a pod.
//!
//! Run it with `cargo run --example hyper_client --features hyper-client`. Look at the shares, and at
//! what becomes of those of a pod that crashed while DNS still lists it: a request without a body
//! goes to another pod, and the one that refused is set aside.

mod support;

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use headless_lb::{Balancer, ClientPod, Dns, RoundRobin};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use support::{ClusterDns, Node, Result, Workload, outcome, term};
use tower::{ServiceBuilder, ServiceExt};

const REQUESTS: u64 = 90;

/// Your client, as it is.
type Own = Client<HttpConnector, Empty<Bytes>>;

#[tokio::main]
async fn main() -> ExitCode {
    outcome("hyper_client", run().await)
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
    let client: Own = Client::builder(TokioExecutor::new()).build_http();
    let balanced = ServiceBuilder::new()
        .layer(
            Balancer::builder(service)
                .policy(RoundRobin::new())
                .client_layer(),
        )
        .service(client);

    term::heading("Three pods: each request goes to the next.");
    let before = shares(&balanced).await?;
    term::bars(&before);
    let victim = pods.crash().await?;
    // Until the client has heard that its idle connections to the pod are closed.
    tokio::time::sleep(Duration::from_millis(50)).await;
    term::heading(format!("{victim} crashed, and DNS does not know yet."));
    let after = shares(&balanced).await?;
    term::bars(&after);

    let (before, after) = (before.into_values(), after.into_values());
    let (before, after): (Vec<_>, Vec<_>) = (before.collect(), after.collect());
    if before != [REQUESTS / 3; 3] || after.len() != 2 {
        return Err(format!("before={before:?} after={after:?}").into());
    }
    Ok(format!("requests={} failed=0 pods=3,2", 2 * REQUESTS))
}

/// How many requests each pod answered.
async fn shares(balanced: &Balancer<ClientPod<Own>>) -> Result<BTreeMap<String, u64>> {
    let mut shares = BTreeMap::new();
    for _ in 0..REQUESTS {
        let request = Request::get("http://myservice.workshop/catalog/1").body(Empty::new())?;
        let response = balanced.clone().oneshot(request).await?;
        let body = response.into_body().collect().await?.to_bytes();
        let pod = String::from_utf8_lossy(&body).trim().to_owned();
        *shares.entry(pod).or_default() += 1;
    }
    Ok(shares)
}
