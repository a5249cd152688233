//! The library against real name servers and web servers, as child processes on the loopback network.
//!
//! They come from Debian's packages; `tests/run` installs them. A missing program fails its tests.
#![expect(
    unreachable_pub,
    reason = "nothing is reachable from outside a test; `pub` says what a module offers"
)]

#[path = "../support/authority.rs"]
mod authority;
mod process;
#[path = "../support/wire.rs"]
mod wire;

mod name_server;
mod nginx;
mod sizes;
mod zone;

mod bind;
mod caches;
mod changes;
mod clients;
mod failover;
mod knot;
mod pods;
mod protocols;

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use headless_lb::{Dns, Resolution};

/// The port that A records are given.
const PORT: u16 = 80;

/// Large sets without glue take a second, and longer than the default deadline on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service by its A records, asked of `servers`.
fn headless<const N: usize>(service: &str, servers: [SocketAddr; N]) -> Dns {
    let dns = Dns::headless(&zone::name(service), PORT).expect("a service name");
    dns.name_servers(servers).deadline(PATIENCE)
}

/// A service by its SRV records, asked of `servers`.
fn srv<const N: usize>(service: &str, servers: [SocketAddr; N]) -> Dns {
    let dns = Dns::srv(&zone::srv_name(service)).expect("a service name");
    dns.name_servers(servers).deadline(PATIENCE)
}

fn sockets(resolution: &Resolution) -> BTreeSet<SocketAddr> {
    resolution
        .addresses()
        .iter()
        .map(headless_lb::Address::socket)
        .collect()
}

/// Pods 0 to `count`, at a port.
fn pods(count: u16, port: u16) -> BTreeSet<SocketAddr> {
    (0..count)
        .map(|index| SocketAddr::new(IpAddr::V4(zone::pod(index)), port))
        .collect()
}
