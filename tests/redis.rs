//! The library against real Redis servers, as child processes on the loopback network.
//!
//! They come from Debian's packages; `tests/run` installs them. A missing program fails its tests.

#[path = "../examples/support/mod.rs"]
mod support;

#[path = "redis/certificates.rs"]
mod certificates;
#[path = "redis/facts.rs"]
mod facts;
#[path = "redis/failover.rs"]
mod failover;
#[path = "redis/handle.rs"]
mod handle;
#[path = "redis/refusals.rs"]
mod refusals;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use headless_lb::{
    Balancer, Endpoint, Fixed, Observation, Probe, ProbeError, Redis, probe::RedisSession,
};
use support::redis::{Cluster, Network, PATIENCE, Server};
use tokio::time::{Instant, sleep};

/// A server, and the network whose first address it has.
async fn lone(options: &[&str]) -> (Server, Network) {
    let network = Network::claim().expect("a loopback network is free");
    let mut server = Server::new("redis-0", network.address(0), options);
    server.start().await.expect("the server starts");
    (server, network)
}

/// A probe's session with one server.
struct Asking {
    probe: Redis,
    endpoint: Arc<Endpoint>,
    session: RedisSession,
}

impl Asking {
    async fn open(probe: Redis, addr: SocketAddr) -> Result<(Self, Observation), ProbeError> {
        let endpoint = endpoint(addr).await;
        let (session, seen) = probe.open(&endpoint).await?;
        let seen = seen.expect("the first answer comes with the session");
        let asking = Self {
            probe,
            endpoint,
            session,
        };
        Ok((asking, seen))
    }

    async fn ask(&mut self) -> Result<Observation, ProbeError> {
        self.probe.observe(&self.endpoint, &mut self.session).await
    }

    async fn signalled(&mut self) {
        self.probe.signalled(&mut self.session).await;
    }
}

/// What is said when a session opens.
async fn seen(probe: Redis, addr: SocketAddr) -> Result<Observation, ProbeError> {
    Asking::open(probe, addr).await.map(|(_, seen)| seen)
}

/// Only a balancer makes endpoints.
async fn endpoint(addr: SocketAddr) -> Arc<Endpoint> {
    let balancer = Balancer::builder(Fixed::new([addr])).spawn();
    balancer.resolved().await.expect("the list is fixed");
    Arc::clone(balancer.endpoints().iter().next().expect("it has one"))
}

/// A balancer over all servers that has found the master.
async fn balancer(cluster: &Cluster) -> Balancer {
    let balancer = Balancer::builder(Fixed::new(cluster.addresses()))
        .probe(Redis::new())
        .spawn();
    primary_is(&balancer, cluster, 0).await;
    balancer
}

async fn primary_is(balancer: &Balancer, cluster: &Cluster, number: usize) {
    let addr = cluster.servers[number].addr();
    eventually(balancer, async || {
        balancer
            .primary()
            .get()
            .is_ok_and(|writer| writer.addr() == addr)
    })
    .await;
}

async fn eventually(balancer: &Balancer, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "not in time:\n{balancer}");
        sleep(Duration::from_millis(5)).await;
    }
}
