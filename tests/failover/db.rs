//! A balancer over a cluster, as a program has it.

use std::time::Duration;

use headless_lb::{Address, Balancer, Dns, Position};
use tokio::time::{Instant, sleep};

use crate::{
    support::{ClusterDns, postgres::Cluster},
    trials::trial::{NAME, SERVICE, probe},
};

/// More than any change takes to be seen, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A cluster, its name, and a balancer that has found the primary.
pub(crate) struct Db {
    pub(crate) balancer: Balancer,
    pub(crate) dns: ClusterDns,
    pub(crate) cluster: Cluster,
}

impl Db {
    pub(crate) async fn start() -> Self {
        let cluster = Cluster::start().await.expect("three servers start");
        Self::over(cluster).await
    }

    /// Over a cluster whose primary is whoever it is.
    pub(crate) async fn over(cluster: Cluster) -> Self {
        let dns = ClusterDns::start().await.expect("a free port").ttl(1);
        let balancer = balancer(&dns, cluster.addresses());
        let primary = balancer.primary().wait(PATIENCE).await;
        primary.expect("the primary is found");
        Self {
            balancer,
            dns,
            cluster,
        }
    }

    /// Waits until the balancer's set has these positions, by server.
    pub(crate) async fn positions(&self, expected: [Position; 3]) {
        let seen = || {
            ["pg-0", "pg-1", "pg-2"].map(|name| {
                let set = self.balancer.endpoints();
                let mut all = set.positions();
                let found = all.find(|(_, endpoint)| endpoint.name() == Some(name));
                found.map(|(position, _)| position)
            })
        };
        let deadline = Instant::now() + PATIENCE;
        while seen() != expected.map(Some) {
            assert!(
                Instant::now() < deadline,
                "not {expected:?}:\n{}",
                self.balancer
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until this server is the accepted primary.
    pub(crate) async fn primary_is(&self, number: usize) {
        let name = self.cluster.server(number).name();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let primary = self.balancer.primary().get();
            if primary
                .as_ref()
                .is_ok_and(|primary| primary.name() == Some(name))
            {
                return;
            }
            assert!(Instant::now() < deadline, "not {name}: {primary:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A balancer that probes these.
pub(crate) fn balancer(dns: &ClusterDns, addresses: Vec<Address>) -> Balancer {
    dns.service(SERVICE).ready(addresses);
    let source = Dns::srv(NAME)
        .expect("a service name")
        .name_servers([dns.addr()]);
    Balancer::builder(source).probe(probe()).spawn()
}
