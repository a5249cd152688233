//! libpq's `target_session_attrs`, reproduced with policies, and checked against libpq itself.
//!
//! | attribute | policy | one primary, standbys | only standbys | only a primary | fenced primary, standbys | none |
//! |---|---|---|---|---|---|---|
//! | `any` | `RoundRobin` | any | standby | primary | any | - |
//! | `read-write` | `Primary` | primary | - | primary | - | - |
//! | `read-only` | `Replica` | standby | standby | - | standby (a) | - |
//! | `primary` | `Primary` | primary | - | primary | - (b) | - |
//! | `standby` | `Replica` | standby | standby | - | standby | - |
//! | `prefer-standby` | `PreferReplica` | standby | standby | primary | standby | - |
//!
//! (a) libpq takes the fenced primary too, as the first in its list. (b) libpq takes the fenced primary: it tells a
//! standby from a primary, not whether writes work. `Primary` means "takes writes".

use std::{
    net::SocketAddr,
    process::{Output, Stdio},
};

use headless_lb::{Balancer, Position, PreferReplica, Primary, Replica, RoundRobin};
use tokio::process::Command;

use crate::db::Db;

/// What is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Any,
    Primary,
    Standby,
    Nobody,
}

use Taken::{Any, Nobody, Standby};

const ATTRIBUTES: [&str; 6] = [
    "any",
    "read-write",
    "read-only",
    "primary",
    "standby",
    "prefer-standby",
];

fn policy(db: &Balancer, attribute: &str) -> Balancer {
    match attribute {
        "any" => db.with_policy(RoundRobin::new()),
        "read-write" | "primary" => db.with_policy(Primary),
        "read-only" | "standby" => db.with_policy(Replica(RoundRobin::new())),
        "prefer-standby" => db.with_policy(PreferReplica(RoundRobin::new())),
        other => unreachable!("{other}"),
    }
}

/// libpq's own answer, over these servers in this order.
async fn psql(servers: &[SocketAddr], attribute: &str) -> Output {
    let hosts: Vec<_> = servers.iter().map(|addr| addr.ip().to_string()).collect();
    let (hosts, port) = (hosts.join(","), servers[0].port());
    Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "SELECT host(inet_server_addr())"])
        .arg(format!(
            "host={hosts} port={port} user=app_trust dbname=postgres connect_timeout=5 \
             target_session_attrs={attribute}"
        ))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .expect("psql runs: install `postgresql-client`")
}

/// Checks one column: what our policies take, and what libpq says of it.
async fn column(db: &Db, primary: Option<usize>, expected: [Taken; 6]) {
    let all = db.cluster.servers().each_ref().map(|server| server.addr());
    for (attribute, expected) in ATTRIBUTES.into_iter().zip(expected) {
        let balancer = policy(&db.balancer, attribute);
        let libpq = psql(&all, attribute).await;
        if expected == Nobody {
            let picked = balancer.pick();
            if let Ok(pick) = &picked {
                // All are set aside: one is tried all the same, and it must be as dead for libpq.
                let alone = psql(&[pick.addr()], attribute).await;
                assert!(!alone.status.success(), "{attribute}: {}", pick.addr());
            }
            // Of a fenced primary libpq takes what is no primary to us.
            let differs = attribute == "primary" && primary.is_some();
            assert_eq!(libpq.status.success(), differs, "{attribute}: {libpq:?}");
            continue;
        }
        assert!(libpq.status.success(), "{attribute}: {libpq:?}");
        for _ in 0..6 {
            let pick = balancer
                .pick()
                .unwrap_or_else(|error| panic!("{attribute}: {error}"));
            let number = db.cluster.number_of(pick.addr());
            let is_primary = number == primary;
            match expected {
                Taken::Primary => assert!(is_primary, "{attribute}: {pick:?}"),
                Standby => assert!(!is_primary, "{attribute}: {pick:?}"),
                Any | Nobody => {}
            }
            let alone = psql(&[pick.addr()], attribute).await;
            assert!(alone.status.success(), "{attribute}: {pick:?} {alone:?}");
        }
    }
}

#[tokio::test]
async fn target_session_attrs_are_policies() {
    use Position::{Ejected, Primary as P, Replica as R, Unknown};

    let mut db = Db::start().await;
    db.positions([P, R, R]).await;
    let primary = Taken::Primary;
    column(
        &db,
        Some(0),
        [Any, primary, Standby, primary, Standby, Standby],
    )
    .await;

    db.cluster.server(0).fence(true).await.unwrap();
    db.positions([Unknown, R, R]).await;
    column(
        &db,
        Some(0),
        [Any, Nobody, Standby, Nobody, Standby, Standby],
    )
    .await;
    db.cluster.server(0).fence(false).await.unwrap();

    db.cluster.server_mut(1).stop().await.unwrap();
    db.cluster.server_mut(2).stop().await.unwrap();
    db.positions([P, Ejected, Ejected]).await;
    column(
        &db,
        Some(0),
        [primary, primary, Nobody, primary, Nobody, primary],
    )
    .await;

    db.cluster.server_mut(1).start().await.unwrap();
    db.cluster.server_mut(2).start().await.unwrap();
    db.positions([P, R, R]).await;
    db.cluster.server_mut(0).kill();
    db.positions([Ejected, R, R]).await;
    column(
        &db,
        None,
        [Standby, Nobody, Standby, Nobody, Standby, Standby],
    )
    .await;

    db.cluster.server_mut(1).kill();
    db.cluster.server_mut(2).kill();
    db.positions([Ejected, Ejected, Ejected]).await;
    column(&db, None, [Nobody; 6]).await;
}
