//! unbound and dnsmasq between the library and its authority.

use std::{net::SocketAddr, time::Duration};

use headless_lb::{Resolve, ResolveErrorKind};
use tokio::time::{Instant, sleep};

use crate::{
    PORT, headless,
    name_server::NameServer,
    pods, sockets, srv,
    wire::{self, SRV, Transport},
    zone::{self, Zone, srv_name},
};

async fn caches(authority: SocketAddr) -> [(&'static str, NameServer); 2] {
    [
        ("unbound", NameServer::unbound(authority).await),
        ("dnsmasq", NameServer::dnsmasq(authority).await),
    ]
}

#[tokio::test]
async fn the_ttl_counts_down_and_the_answer_stays() {
    let knot = NameServer::knot(&Zone::new(30).pods("web", 3)).await;
    for (cache, server) in caches(knot.address()).await {
        let dns = headless("web", [server.address()]);
        let first = dns.resolve().await.expect(cache);
        assert_eq!(first.ttl(), Some(Duration::from_secs(30)), "{cache}");
        let later = loop {
            let later = dns.resolve().await.expect(cache);
            if later.ttl() < first.ttl() {
                break later;
            }
            sleep(Duration::from_millis(50)).await;
        };
        assert!(
            later.ttl() >= Some(Duration::from_secs(27)),
            "{cache}: {:?}",
            later.ttl()
        );
        assert_eq!(sockets(&later), pods(3, PORT), "{cache}");
    }
}

#[tokio::test]
async fn sets_of_thousands_come_whole_through_a_cache() {
    let zone = Zone::new(30).pods("web500", 500).pods("web4090", 4090);
    let knot = NameServer::knot(&zone).await;
    for (cache, server) in caches(knot.address()).await {
        for (service, size) in [("web500", 500), ("web4090", 4090)] {
            let dns = headless(service, [server.address()]);
            for round in ["first", "cached"] {
                let start = Instant::now();
                let found = dns.resolve().await.expect(cache);
                println!(
                    "{cache}: {size} A records, {round}, in {:?}",
                    start.elapsed()
                );
                assert!(!found.is_partial(), "{cache}, {round}");
                assert!(
                    sockets(&found) == pods(size, PORT),
                    "{cache}, {round}: other pods"
                );
            }
        }
    }
}

/// The cache takes the authority's failure over, and no part of the set.
#[tokio::test]
async fn a_set_above_the_limit_is_a_failure_behind_a_cache_too() {
    let knot = NameServer::knot(&Zone::new(30).pods("web", 4200)).await;
    for (cache, server) in caches(knot.address()).await {
        let error = headless("web", [server.address()])
            .resolve()
            .await
            .expect_err(cache);
        assert_eq!(error.kind(), ResolveErrorKind::ServFail, "{cache}: {error}");
    }
}

/// unbound strips all glue; dnsmasq strips it from answers out of its cache.
#[tokio::test]
async fn glue_that_a_cache_strips_is_asked_for() {
    let knot = NameServer::knot(&Zone::new(30).srv("few", 3).srv("many", 500)).await;
    for (cache, server) in caches(knot.address()).await {
        for (service, size) in [("few", 3), ("many", 500)] {
            let dns = srv(service, [server.address()]);
            for _ in 0..2 {
                let start = Instant::now();
                let found = dns.resolve().await.expect(cache);
                println!("{cache}: {size} SRV records in {:?}", start.elapsed());
                assert!(!found.is_partial(), "{cache}");
                assert!(
                    sockets(&found) == pods(size, zone::PORT),
                    "{cache}: other pods"
                );
                assert!(
                    found.addresses().iter().all(|pod| pod.name().is_some()),
                    "{cache}"
                );
            }
        }
        let raw = wire::ask(server.address(), &srv_name("few"), SRV, Transport::Udp).await;
        assert_eq!(
            raw.expect("an answer").glue().len(),
            0,
            "{cache} kept the glue"
        );
    }
}

#[tokio::test]
async fn a_cached_absence_hides_new_pods_until_it_ends() {
    const HOLDS: u64 = 2;
    let knot = NameServer::knot(&Zone::new(2)).await;
    for (index, (cache, server)) in caches(knot.address()).await.into_iter().enumerate() {
        let service = format!("web{index}");
        let cached = headless(&service, [server.address()]);
        let direct = headless(&service, [knot.address()]);
        let start = Instant::now();
        let error = cached.resolve().await.expect_err(cache);
        assert_eq!(error.kind(), ResolveErrorKind::NxDomain, "{cache}");
        assert_eq!(
            error.negative_ttl(),
            Some(Duration::from_secs(HOLDS)),
            "{cache}"
        );

        knot.change(&[&format!("set {service}.ns 30 A {}", zone::pod(0))]);
        assert_eq!(
            sockets(&direct.resolve().await.expect("no cache")),
            pods(1, PORT)
        );
        let error = cached.resolve().await.expect_err("the absence is cached");
        println!(
            "{cache}: cached absence with negative TTL {:?}",
            error.negative_ttl()
        );
        assert_eq!(error.kind(), ResolveErrorKind::NxDomain, "{cache}");
        assert!(
            error.negative_ttl() <= Some(Duration::from_secs(HOLDS)),
            "{cache}"
        );

        let found = loop {
            match cached.resolve().await {
                Ok(found) => break found,
                Err(error) => assert!(error.is_empty(), "{cache}: {error}"),
            }
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{cache}: still hidden"
            );
            sleep(Duration::from_millis(50)).await;
        };
        println!("{cache}: seen after {:?}", start.elapsed());
        assert_eq!(sockets(&found), pods(1, PORT), "{cache}");
    }
}
