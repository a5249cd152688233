//! GETs over the pods of a headless service: one handle, which is a tower service, and kept-alive
//! connections to each pod.
//!
//! Run it with `cargo run --example http_client`. Look at the shares: round robin is exact, so 90
//! requests over three pods are 30 each.

mod support;

use std::collections::BTreeMap;

use headless_lb::{Balancer, Dns, RoundRobin};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use support::{ClusterDns, Node, Result, Workload, term};
use tower::ServiceExt;

const URL: &str = "http://myservice.workshop.svc.cluster.local:8080/catalog/1";

#[tokio::main]
async fn main() -> Result<()> {
    // The cluster: nothing of this is in your program.
    let dns = ClusterDns::start().await?;
    let mut node = Node::claim().await?;
    let mut pods = Workload::deployment(&dns, "myservice.workshop", "proddetail");
    pods.scale(&mut node, 3).await?;

    // The client. In a cluster, leave out `name_servers`: they are in /etc/resolv.conf.
    let service =
        Dns::headless("myservice.workshop.svc.cluster.local", 8080)?.name_servers([dns.addr()]);
    let balancer = Balancer::builder(service)
        .policy(RoundRobin::new())
        .spawn_http();
    balancer.resolved().await?;
    println!("{balancer}");

    let mut shares = BTreeMap::new();
    for _ in 0..90 {
        let request = Request::get(URL).body(Full::<Bytes>::default())?;
        let response = balancer.clone().oneshot(request).await?;
        // Reading the body to its end gives the connection back to its pod's pool.
        let body = response.into_body().collect().await?.to_bytes();
        *shares
            .entry(String::from_utf8_lossy(&body).trim().to_owned())
            .or_default() += 1;
    }
    term::bars(&shares);
    Ok(())
}
