//! Knot DNS as the authority: sizes, limits, glue.

use std::time::Duration;

use headless_lb::{Resolve, ResolveErrorKind};
use tokio::time::Instant;

use crate::{
    PORT, headless,
    name_server::NameServer,
    pods, sizes, sockets, srv,
    wire::{self, A, NOERROR, SERVFAIL, SRV, Transport},
    zone::{self, Zone, name, pod_name, srv_name},
};

#[tokio::test]
async fn sets_that_udp_cuts_come_whole_over_tcp() {
    let knot = NameServer::knot(&sizes::zone()).await;
    sizes::come_whole(knot.address()).await;
}

#[tokio::test]
async fn a_set_above_the_limit_is_a_failure_and_no_empty_service() {
    let knot = NameServer::knot(&Zone::new(30).pods("web", 4200)).await;
    let raw = wire::ask(knot.address(), &name("web"), A, Transport::Tcp)
        .await
        .expect("an answer");
    assert_eq!(
        (raw.rcode, raw.truncated, raw.answers.len()),
        (SERVFAIL, false, 0)
    );

    let error = headless("web", [knot.address()])
        .resolve()
        .await
        .expect_err("too large");
    assert!(!error.is_empty(), "{error}");
    assert_eq!(error.kind(), ResolveErrorKind::ServFail, "{error}");
}

#[tokio::test]
async fn srv_records_with_their_glue_give_ports_and_names() {
    let knot = NameServer::knot(&Zone::new(30).srv("web", 700)).await;
    let raw = wire::ask(knot.address(), &srv_name("web"), SRV, Transport::Tcp).await;
    assert_eq!(raw.expect("an answer").glue().len(), 700);

    let found = srv("web", [knot.address()]).resolve().await.expect("pods");
    assert!(!found.is_partial());
    assert!(sockets(&found) == pods(700, zone::PORT), "other pods");
    for address in found.addresses() {
        let dashed = address.socket().ip().to_string().replace('.', "-");
        assert_eq!(address.name(), Some(dashed.as_str()));
    }
}

/// Knot leaves out the glue that does not fit and does not say so: TC=0.
#[tokio::test]
async fn glue_that_is_missing_without_a_sign_is_asked_for() {
    let knot = NameServer::knot(&Zone::new(30).srv("some", 800).srv("many", 1000)).await;
    for (service, size) in [("some", 800), ("many", 1000)] {
        let raw = wire::ask(knot.address(), &srv_name(service), SRV, Transport::Tcp).await;
        let raw = raw.expect("an answer");
        let glue = raw.glue().len();
        assert_eq!(
            (raw.rcode, raw.truncated, raw.answers.len()),
            (NOERROR, false, size.into())
        );
        assert!(glue < size.into(), "{glue} glue records");

        let start = Instant::now();
        let found = srv(service, [knot.address()])
            .resolve()
            .await
            .expect("pods");
        println!(
            "{size} SRV records, {glue} with glue, in {:?}",
            start.elapsed()
        );
        assert!(!found.is_partial());
        assert!(
            sockets(&found) == pods(size, zone::PORT),
            "{size}: other pods"
        );
    }
}

/// With a TTL of 30 s: nothing on our side may keep the answer that long.
#[tokio::test]
async fn a_change_of_records_is_in_the_next_answer() {
    let knot = NameServer::knot(&Zone::new(30).srv("web", 2)).await;
    let dns = srv("web", [knot.address()]);
    let port = zone::PORT;
    assert_eq!(sockets(&dns.resolve().await.expect("pods")), pods(2, port));

    let (first, third) = (pod_name(0), pod_name(2));
    knot.change(&[
        &format!("set {third}.web.ns 30 A {}", zone::pod(2)),
        &format!("set _http._tcp.web.ns 30 SRV 0 1 {port} {third}.web.ns"),
        &format!("unset _http._tcp.web.ns SRV 0 1 {port} {first}.web.ns"),
        &format!("unset {first}.web.ns A"),
    ]);
    let found = dns.resolve().await.expect("pods");
    assert_eq!(sockets(&found), &pods(3, port) - &pods(1, port));

    knot.change(&["unset _http._tcp.web.ns SRV"]);
    let error = dns.resolve().await.expect_err("no pods");
    assert!(error.is_empty(), "{error}");
}

/// A Service of type ExternalName is a CNAME, with the records of its target in the same message.
#[tokio::test]
async fn an_alias_leads_to_the_pods_and_bounds_how_long_they_hold() {
    let zone = Zone::new(30).pods("web", 3).alias("shop", 7, "web");
    let knot = NameServer::knot(&zone).await;
    let found = headless("shop", [knot.address()])
        .resolve()
        .await
        .expect("pods");
    assert_eq!(sockets(&found), pods(3, PORT));
    assert_eq!(found.ttl(), Some(Duration::from_secs(7)));
}
