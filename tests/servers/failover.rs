//! Two name servers, of which the first is dead, refuses or fails.

use std::time::Duration;

use headless_lb::{Resolve, ResolveErrorKind};
use tokio::time::Instant;

use crate::{
    PORT, headless, name_server::NameServer, pods, process::free_address, sockets, zone::Zone,
};

async fn healthy() -> NameServer {
    NameServer::knot(&Zone::new(30).pods("web", 3)).await
}

#[tokio::test]
async fn a_dead_first_server_costs_about_a_second_once() {
    let healthy = healthy().await;
    let dns = headless("web", [free_address(), healthy.address()]);
    let start = Instant::now();
    let found = dns.resolve().await.expect("the second server answers");
    let first = start.elapsed();
    assert_eq!(sockets(&found), pods(3, PORT));

    let start = Instant::now();
    dns.resolve().await.expect("the second server answers");
    let second = start.elapsed();
    println!("first {first:?}, then {second:?}");
    assert!(first < Duration::from_secs(3), "{first:?}");
    assert!(
        second < Duration::from_millis(300),
        "the good server is not remembered: {second:?}"
    );
}

#[tokio::test]
async fn a_refusing_or_failing_first_server_costs_next_to_nothing() {
    let healthy = healthy().await;
    for first in [NameServer::refusing().await, NameServer::failing().await] {
        let dns = headless("web", [first.address(), healthy.address()]);
        let start = Instant::now();
        let found = dns.resolve().await.expect("the second server answers");
        println!("{:?}", start.elapsed());
        assert_eq!(sockets(&found), pods(3, PORT));
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test]
async fn a_server_that_says_there_is_nothing_is_believed() {
    let healthy = healthy().await;
    let empty = NameServer::knot(&Zone::new(30)).await;
    let dns = headless("web", [empty.address(), healthy.address()]);
    let error = dns
        .resolve()
        .await
        .expect_err("the first server has no such name");
    assert_eq!(error.kind(), ResolveErrorKind::NxDomain, "{error}");
    assert_eq!(error.negative_ttl(), Some(Duration::from_secs(30)));
}

#[tokio::test]
async fn when_all_servers_fail_the_error_says_how_and_nothing_is_empty() {
    let (refusing, failing) = (NameServer::refusing().await, NameServer::failing().await);
    for (server, kind) in [
        (&refusing, ResolveErrorKind::Refused),
        (&failing, ResolveErrorKind::ServFail),
    ] {
        let error = headless("web", [server.address()])
            .resolve()
            .await
            .expect_err("no answer");
        assert_eq!(error.kind(), kind, "{error}");
    }
    let dead = free_address();
    let dns = headless("web", [dead, refusing.address(), failing.address()]);
    let error = dns.resolve().await.expect_err("no answer");
    assert!(!error.is_empty(), "{error}");
    for server in [dead, refusing.address(), failing.address()] {
        assert!(error.to_string().contains(&server.to_string()), "{error}");
    }
}
