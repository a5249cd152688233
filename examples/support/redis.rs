//! Real Redis servers on the loopback network, and what can befall them.

use std::{net::SocketAddr, time::Duration};

use headless_lb::Address;
use tokio::time::{Instant, sleep};

use super::Result;

mod network;
mod server;

pub(crate) use network::Network;
pub(crate) use server::{Sentinel, Server};

/// More than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// A master and two replicas: `redis-0`, `redis-1` and `redis-2`.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) servers: [Server; 3],
    network: Network,
}

impl Cluster {
    /// Starts three servers with these options, and waits until the second and the third follow the first.
    pub(crate) async fn start(options: &[&str]) -> Result<Self> {
        let network = Network::claim()?;
        let servers = [0, 1, 2].map(|number| {
            Server::new(&format!("redis-{number}"), network.address(number), options)
        });
        let [mut first, mut second, mut third] = servers;
        for server in [&mut first, &mut second, &mut third] {
            server.start().await?;
        }
        for replica in [&second, &third] {
            replica.follow(first.addr()).await?;
        }
        for replica in [&second, &third] {
            replica.followed(&first).await?;
        }
        Ok(Self {
            servers: [first, second, third],
            network,
        })
    }

    /// What DNS says of them.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let servers = self.servers.iter();
        servers
            .map(|server| Address::from(server.addr()).named(server.name()))
            .collect()
    }

    /// An address for one more.
    pub(crate) fn spare(&self, number: usize) -> SocketAddr {
        self.network.address(3 + number)
    }
}

/// Waits until `holds`.
///
/// # Errors
///
/// With `what`, when that takes too long.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held = holds().await;
        if matches!(held, Ok(true)) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("{what}: not after {PATIENCE:?} ({held:?})").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
}
