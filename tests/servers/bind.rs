//! BIND as the authority: the same sizes, other limits, and no glue for large sets.

use std::process::Command;

use headless_lb::{Resolve, ResolveErrorKind};
use tokio::time::Instant;

use crate::{
    PORT, headless,
    name_server::NameServer,
    pods,
    process::NAMED,
    sizes, sockets, srv,
    wire::{self, A, NOERROR, SERVFAIL, SRV, Transport},
    zone::{self, Zone, name, srv_name},
};

/// Since 9.18.28 BIND takes no more than 100 records of one name and type unless told.
fn has_a_limit() -> bool {
    let defaults = Command::new(NAMED.path())
        .arg("-C")
        .output()
        .expect("named can be run");
    String::from_utf8_lossy(&defaults.stdout).contains("max-records-per-type")
}

async fn bind_without_limit(zone: &Zone) -> NameServer {
    let options = if has_a_limit() {
        "max-records-per-type 0;"
    } else {
        ""
    };
    NameServer::bind(zone, options).await
}

#[tokio::test]
async fn sets_that_udp_cuts_come_whole_over_tcp() {
    let bind = bind_without_limit(&sizes::zone()).await;
    sizes::come_whole(bind.address()).await;
}

/// BIND cuts by whole sets: above the limit it says "truncated" over TCP too, and sends no record at all.
#[tokio::test]
async fn a_set_above_the_limit_is_a_failure_that_names_the_limit() {
    let bind = bind_without_limit(&Zone::new(30).pods("web", 4200)).await;
    let raw = wire::ask(bind.address(), &name("web"), A, Transport::Tcp)
        .await
        .expect("an answer");
    assert_eq!(
        (raw.rcode, raw.truncated, raw.answers.len()),
        (NOERROR, true, 0)
    );

    let error = headless("web", [bind.address()])
        .resolve()
        .await
        .expect_err("too large");
    assert!(!error.is_empty(), "{error}");
    assert_eq!(error.kind(), ResolveErrorKind::Truncated, "{error}");
    assert!(error.to_string().contains("4,090"), "{error}");
}

/// From 100 SRV records on BIND adds no glue, without a sign: TC=0.
#[tokio::test]
async fn glue_that_bind_leaves_out_is_asked_for() {
    let bind = bind_without_limit(&Zone::new(30).srv("web", 700)).await;
    let raw = wire::ask(bind.address(), &srv_name("web"), SRV, Transport::Tcp).await;
    let raw = raw.expect("an answer");
    assert_eq!(
        (raw.truncated, raw.answers.len(), raw.glue().len()),
        (false, 700, 0)
    );

    let start = Instant::now();
    let found = srv("web", [bind.address()]).resolve().await.expect("pods");
    println!("700 SRV records without glue in {:?}", start.elapsed());
    assert!(!found.is_partial());
    assert!(sockets(&found) == pods(700, zone::PORT), "other pods");
}

#[tokio::test]
async fn by_default_bind_serves_100_pods_and_refuses_a_zone_with_more() {
    let whole = NameServer::bind(&Zone::new(30).pods("web", 100), "").await;
    let found = headless("web", [whole.address()])
        .resolve()
        .await
        .expect("pods");
    assert!(sockets(&found) == pods(100, PORT), "other pods");
    if !has_a_limit() {
        return; // an older BIND serves 101 as well
    }

    let over = NameServer::bind_without_zone(&Zone::new(30).pods("web", 101), "").await;
    let raw = wire::ask(over.address(), &name("web"), A, Transport::Udp)
        .await
        .expect("an answer");
    assert_eq!(raw.rcode, SERVFAIL);
    let error = headless("web", [over.address()])
        .resolve()
        .await
        .expect_err("no zone");
    assert_eq!(error.kind(), ResolveErrorKind::ServFail, "{error}");
}
