//! A small cluster to point other programs at: DNS for one headless service whose pods come and go.
//!
//! Run it with `cargo run --example playground`, then in a second terminal the `watch` command that
//! it prints. It scales 1, 3, 2, 0, 1 .. every four seconds and ends after two minutes, or with
//! Ctrl-C.

mod support;

use std::time::Duration;

use support::{ClusterDns, Node, Result, Workload, term};

const STEP: Duration = Duration::from_secs(4);
const STEPS: usize = 30;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let dns = ClusterDns::start().await?;
    let mut node = Node::claim().await?;
    let mut pods = Workload::deployment(&dns, "myservice.workshop", "proddetail");

    let (name, server) = ("myservice.workshop.svc.cluster.local", dns.addr());
    term::heading("A cluster of one service. Watch it from another terminal:");
    term::say(format!(
        "cargo run --example watch -- {name}:8080 --server {server}"
    ));
    term::say(format!(
        "cargo run --example watch -- _http._tcp.{name} --srv --server {server}"
    ));

    for replicas in [1, 3, 2, 0].into_iter().cycle().take(STEPS) {
        pods.scale(&mut node, replicas).await?;
        term::say(format!("{replicas} ready"));
        tokio::select! {
            () = tokio::time::sleep(STEP) => {}
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
        }
    }
    Ok(())
}
