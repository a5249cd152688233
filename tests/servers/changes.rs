//! A balancer over name servers whose records change, and that die and return.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use headless_lb::{Balancer, Changes, Dns, EmptyMode, EndpointSet};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    PORT, headless,
    name_server::NameServer,
    pods,
    zone::{self, Zone},
};

/// Short intervals, as the tests run in real time: other processes do not follow a paused clock.
fn balance(dns: Dns) -> Balancer {
    Balancer::builder(dns.deadline(Duration::from_secs(1)))
        .refresh_interval(Duration::from_millis(200))
        .min_interval(Duration::from_millis(50))
        .empty(EmptyMode::Confirm {
            answers: 3,
            over: Duration::from_millis(500),
        })
        .spawn()
}

fn set(endpoints: &EndpointSet) -> BTreeSet<SocketAddr> {
    endpoints.iter().map(|endpoint| endpoint.addr()).collect()
}

fn pod(index: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(zone::pod(index)), PORT)
}

/// Follows the changes up to the set `wanted`; the sets on the way to it.
async fn until(changes: &mut Changes, wanted: &BTreeSet<SocketAddr>) -> Vec<BTreeSet<SocketAddr>> {
    let mut seen = Vec::new();
    let follow = async {
        while let Some(change) = changes.next().await {
            seen.push(set(change.set()));
            if seen.last() == Some(wanted) {
                return;
            }
        }
        panic!("the balancer ended");
    };
    let found = timeout(Duration::from_secs(20), follow).await;
    assert!(
        found.is_ok(),
        "not seen after 20 s: {wanted:?}, but {seen:?}"
    );
    seen.pop();
    seen
}

/// Waits for `count` failed resolutions in a row, during which the set must stay `kept`.
async fn outlast(balancer: &Balancer, count: u32, kept: &BTreeSet<SocketAddr>) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while balancer.status().failures() < count {
        assert!(
            Instant::now() < deadline,
            "the failures are not seen: {}",
            balancer.status()
        );
        assert_eq!(&set(&balancer.endpoints()), kept);
        sleep(Duration::from_millis(5)).await;
    }
    println!("{}", balancer.status());
    assert_eq!(&set(&balancer.endpoints()), kept);
    assert!(balancer.pick().is_ok());
}

#[tokio::test]
async fn pods_that_come_and_go_are_seen_within_the_refresh_interval() {
    let knot = NameServer::knot(&Zone::new(30).pods("web", 3)).await;
    let balancer = balance(headless("web", [knot.address()]));
    let mut changes = balancer.subscribe();
    until(&mut changes, &pods(3, PORT)).await;

    let start = Instant::now();
    knot.change(&[&format!("set web.ns 30 A {}", zone::pod(3))]);
    assert_eq!(until(&mut changes, &pods(4, PORT)).await, []);
    println!("added after {:?}", start.elapsed());

    let start = Instant::now();
    knot.change(&[&format!("unset web.ns A {}", zone::pod(0))]);
    assert_eq!(
        until(&mut changes, &(&pods(4, PORT) - &pods(1, PORT))).await,
        []
    );
    println!("removed after {:?}", start.elapsed());
}

/// Knot answers NXDOMAIN with a constant negative TTL, as cluster DNS does: each answer is a fresh one and counts.
#[tokio::test]
async fn the_last_pod_goes_after_three_absences_and_the_next_one_is_seen_at_once() {
    let knot = NameServer::knot(&Zone::new(30).pods("web", 2)).await;
    let balancer = balance(headless("web", [knot.address()]));
    let mut changes = balancer.subscribe();
    until(&mut changes, &pods(2, PORT)).await;

    let start = Instant::now();
    knot.change(&["unset web.ns A"]);
    assert_eq!(until(&mut changes, &BTreeSet::new()).await, []);
    let emptied = start.elapsed();
    println!("empty after {emptied:?}");
    assert!(
        emptied >= Duration::from_millis(500),
        "believed too soon: {emptied:?}"
    );

    let start = Instant::now();
    knot.change(&[&format!("set web.ns 30 A {}", zone::pod(7))]);
    assert_eq!(until(&mut changes, &BTreeSet::from([pod(7)])).await, []);
    println!("back after {:?}", start.elapsed());
}

#[tokio::test]
async fn a_zone_that_bind_loads_again_is_seen() {
    let bind = NameServer::bind(&Zone::new(30).pods("web", 3), "").await;
    let balancer = balance(headless("web", [bind.address()]));
    let mut changes = balancer.subscribe();
    until(&mut changes, &pods(3, PORT)).await;
    bind.reload(&Zone::with_serial(30, 2).pods("web", 90));
    assert_eq!(until(&mut changes, &pods(90, PORT)).await, []);
}

#[tokio::test]
async fn a_killed_authority_changes_nothing_and_its_return_is_seen() {
    let mut knot = NameServer::knot(&Zone::new(30).pods("web", 300)).await;
    let balancer = balance(headless("web", [knot.address()]));
    let mut changes = balancer.subscribe();
    until(&mut changes, &pods(300, PORT)).await;

    knot.stop();
    outlast(&balancer, 3, &pods(300, PORT)).await;

    let start = Instant::now();
    knot.rewrite(&Zone::new(30).pods("web", 301));
    knot.start().await;
    assert_eq!(until(&mut changes, &pods(301, PORT)).await, []);
    println!("recovered after {:?}", start.elapsed());
}

/// The cache loses its upstream first, and then dies itself.
async fn outlive_upstream_and_cache(mut knot: NameServer, mut cache: NameServer) {
    let balancer = balance(headless("web", [cache.address()]));
    let mut changes = balancer.subscribe();
    until(&mut changes, &pods(3, PORT)).await;

    knot.stop();
    outlast(&balancer, 2, &pods(3, PORT)).await;
    cache.stop();
    outlast(&balancer, balancer.status().failures() + 2, &pods(3, PORT)).await;

    let start = Instant::now();
    knot.rewrite(&Zone::new(1).pods("web", 4));
    knot.start().await;
    cache.start().await;
    assert_eq!(until(&mut changes, &pods(4, PORT)).await, []);
    println!("recovered after {:?}", start.elapsed());
}

#[tokio::test]
async fn neither_an_unbound_without_upstream_nor_a_dead_one_changes_the_set() {
    let knot = NameServer::knot(&Zone::new(1).pods("web", 3)).await;
    let cache = NameServer::unbound(knot.address()).await;
    outlive_upstream_and_cache(knot, cache).await;
}

#[tokio::test]
async fn neither_a_dnsmasq_without_upstream_nor_a_dead_one_changes_the_set() {
    let knot = NameServer::knot(&Zone::new(1).pods("web", 3)).await;
    let cache = NameServer::dnsmasq(knot.address()).await;
    outlive_upstream_and_cache(knot, cache).await;
}

#[tokio::test]
async fn the_second_server_takes_over_while_the_first_is_dead() {
    let zone = Zone::new(30).pods("web", 3);
    let (mut first, second) = (NameServer::knot(&zone).await, NameServer::knot(&zone).await);
    let balancer = balance(headless("web", [first.address(), second.address()]));
    let mut changes = balancer.subscribe();
    until(&mut changes, &pods(3, PORT)).await;

    first.stop();
    let start = Instant::now();
    second.change(&[&format!("set web.ns 30 A {}", zone::pod(3))]);
    assert_eq!(until(&mut changes, &pods(4, PORT)).await, []);
    println!("taken over after {:?}", start.elapsed());
    assert_eq!(balancer.status().failures(), 0, "{}", balancer.status());
}
