//! What hurts people today, each as a test of its number. (T1 stands with the pools, T8 with Redis.)
#![expect(
    clippy::disallowed_methods,
    reason = "those who wait are tasks, as in a program"
)]

use std::time::Duration;

use headless_lb::{Balancer, Dns, Hint, NoPrimaryKind, Position, Replica, RoundRobin};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    db::{Db, PATIENCE, balancer},
    support::{
        ClusterDns,
        postgres::{Cluster, PASSWORD, Session, Truth},
    },
    trials::trial::{APP, NAME, SERVICE, probe},
};

/// Writes over a new connection to whoever is the primary: the number of the server that took it.
async fn write(db: &Db) -> Option<usize> {
    let primary = db.balancer.primary().wait(PATIENCE).await.ok()?;
    let session = Session::open(primary.addr(), APP).await.ok()?;
    let write = session.text(
        "INSERT INTO writes (id) SELECT count(*) FROM writes RETURNING host(inet_server_addr())",
    );
    let server = primary.run(write).await.ok()?.ok()?;
    db.cluster
        .number_of((server.parse::<std::net::IpAddr>().ok()?, 0).into())
}

#[tokio::test]
async fn t02_a_name_and_a_role_give_a_writable_connection_in_under_15_lines() {
    let cluster = Cluster::start().await.unwrap();
    let dns = ClusterDns::start().await.unwrap();
    dns.service(SERVICE).ready(cluster.addresses());
    let server = dns.addr();

    // The program begins here.
    let db = Balancer::builder(Dns::srv(NAME).unwrap().name_servers([server]))
        .probe(probe())
        .spawn();
    let primary = db.primary().wait(Duration::from_secs(10)).await.unwrap();
    let (client, connection) = tokio_postgres::Config::new()
        .host(primary.addr().ip().to_string())
        .port(primary.addr().port())
        .user(APP)
        .password(PASSWORD)
        .dbname("postgres")
        .connect(tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(async move { primary.run(connection).await });
    // The program ends here.

    let written = client
        .execute("INSERT INTO writes (id) VALUES (1)", &[])
        .await;
    assert_eq!(written.unwrap(), 1);
    let code = include_str!("pains.rs")
        .split_once("program begins here.\n")
        .unwrap()
        .1;
    let code = code.split_once("    // The program ends").unwrap().0;
    assert!(code.lines().count() < 15, "{code}");
}

#[tokio::test]
async fn t03_a_hung_node_costs_the_others_nothing() {
    let mut db = Db::start().await;
    db.positions([Position::Primary, Position::Replica, Position::Replica])
        .await;
    let before = connects(&db).await;
    db.cluster.server(2).freeze().unwrap();
    // Long enough for its probes to fail.
    sleep(Duration::from_secs(2)).await;
    let after = connects(&db).await;
    println!("waits and connects before {before:?}, after {after:?}");
    assert!(after.0 < Duration::from_millis(1), "{:?}", after.0);
    assert!(
        after.1 < 2 * before.1 + Duration::from_millis(5),
        "{:?}",
        after.1
    );
    db.cluster.server_mut(2).kill();
}

/// The medians of waiting for the primary, and of a connect to it.
async fn connects(db: &Db) -> (Duration, Duration) {
    let (mut waits, mut connects) = (Vec::new(), Vec::new());
    for _ in 0..41 {
        let begin = Instant::now();
        let primary = db.balancer.primary().wait(PATIENCE).await;
        waits.push(begin.elapsed());
        let begin = Instant::now();
        let primary = primary.expect("another server hangs, not the primary");
        let session = Session::open(primary.addr(), APP).await;
        session.expect("the primary takes connections");
        connects.push(begin.elapsed());
    }
    waits.sort_unstable();
    connects.sort_unstable();
    (waits[20], connects[20])
}

#[tokio::test]
async fn t04_writes_follow_the_promoted_node_whatever_dns_says() {
    let db = Db::start().await;
    let Db {
        balancer,
        dns,
        mut cluster,
    } = db;
    // First it says that there is nobody, then nothing at all.
    dns.service(SERVICE)
        .ready(Vec::<headless_lb::Address>::new());
    cluster.server_mut(0).kill();
    let dns_says_nobody = Instant::now();
    cluster.server(1).promote().await.unwrap();
    let primary = loop {
        let primary = balancer.primary().wait(PATIENCE).await.unwrap();
        if primary.name() == Some("pg-1") {
            break primary;
        }
        primary.lost().await;
    };
    println!("pg-1 after {:?}", dns_says_nobody.elapsed());
    Session::open(primary.addr(), APP).await.unwrap();
    drop(dns);
    cluster.follow(2, 1).await.unwrap();
    cluster.streaming(1, 1).await.unwrap();
    cluster.server_mut(1).kill();
    cluster.server(2).promote().await.unwrap();
    let moved = async {
        primary.lost().await;
        balancer.primary().wait(PATIENCE).await
    };
    let primary = timeout(PATIENCE, moved).await.unwrap().unwrap();
    assert_eq!(primary.name(), Some("pg-2"));
}

#[tokio::test]
async fn t05_of_two_primaries_only_the_newer_gets_anything() {
    let db = Db::start().await;
    db.cluster.server(1).promote().await.unwrap();
    db.primary_is(1).await;
    db.positions([Position::Rejected, Position::Primary, Position::Replica])
        .await;
    let readers = db.balancer.with_policy(Replica(RoundRobin::new()));
    let anyone = db.balancer.with_policy(RoundRobin::new());
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        for reader in [&readers, &anyone] {
            let pick = reader.pick().unwrap();
            assert_ne!(pick.endpoint().name(), Some("pg-0"), "{}", db.balancer);
        }
        assert_eq!(db.balancer.primary().get().unwrap().name(), Some("pg-1"));
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(write(&db).await, Some(1));
}

#[tokio::test]
async fn a_primary_that_is_lost_and_returns_is_told_to_those_who_follow() {
    let db = Db::start().await;
    let mut changes = db.balancer.primary().subscribe();
    let first = changes.next().await.unwrap().unwrap();
    // Not a crash: its recovery may be over before a probe that lost its session has opened another.
    db.cluster.server(0).freeze().unwrap();
    timeout(PATIENCE, first.lost()).await.expect("lost");
    db.cluster.server(0).thaw().unwrap();
    let again = async {
        loop {
            if let Ok(primary) = changes.next().await.unwrap()
                && primary.epoch() > first.epoch()
            {
                return primary;
            }
        }
    };
    let again = timeout(PATIENCE, again).await.expect("told");
    assert_eq!(again.addr(), first.addr());
    assert_eq!(again.generation(), first.generation());
}

#[tokio::test]
async fn t06_no_default_believes_in_the_ordinal() {
    let mut cluster = Cluster::start().await.unwrap();
    let dns = ClusterDns::start().await.unwrap();
    dns.service(SERVICE).ready(cluster.addresses());
    let source = Dns::srv(NAME).unwrap().name_servers([dns.addr()]);
    let unprobed = Balancer::builder(source).spawn();
    unprobed.resolved().await.unwrap();
    let error = unprobed.primary().get().unwrap_err();
    assert_eq!(error.kind(), NoPrimaryKind::Unprobed);

    cluster.server_mut(0).stop().await.unwrap();
    cluster.server(2).promote().await.unwrap();
    cluster.rejoin(0, 2).await.unwrap();
    cluster.follow(1, 2).await.unwrap();
    let db = Db::over(cluster).await;
    assert_eq!(write(&db).await, Some(2));
    db.positions([Position::Replica, Position::Replica, Position::Primary])
        .await;
}

#[tokio::test]
async fn t07_with_hardly_an_address_the_error_asks_for_not_ready_ones() {
    let cluster = Cluster::start().await.unwrap();
    let dns = ClusterDns::start().await.unwrap().ttl(1);
    // Readiness follows the role, and it was the primary that the service listed last.
    let standby = cluster.addresses().split_off(2);
    let balancer = balancer(&dns, standby);
    let error = balancer
        .primary()
        .wait(Duration::from_secs(2))
        .await
        .unwrap_err();
    println!("{error}");
    assert!(
        error.to_string().contains("publish not-ready addresses?"),
        "{error}"
    );
}

#[tokio::test]
async fn t09_a_thousand_who_wait_start_at_a_pace() {
    let mut db = Db::start().await;
    let primary = db.balancer.primary().get().unwrap();
    db.cluster.server_mut(0).kill();
    primary.lost().await;
    let mut waiting = JoinSet::new();
    for _ in 0..1000 {
        let view = db.balancer.primary();
        waiting.spawn(async move { view.wait(PATIENCE).await.map(|_| Instant::now()) });
    }
    sleep(Duration::from_millis(300)).await;
    let truth = Truth::of(db.cluster.server(1)).await.unwrap();
    db.cluster.server(1).promote().await.unwrap();
    let writable = truth.writable().await.unwrap();
    let mut starts = Vec::new();
    while let Some(start) = waiting.join_next().await {
        starts.push(start.unwrap().unwrap());
    }
    starts.sort_unstable();
    let all = *starts.last().unwrap() - starts[0];
    println!(
        "the first after {:?}, the last {all:?} later",
        starts[0].saturating_duration_since(writable)
    );
    assert_eq!(starts.len(), 1000);
    // 62 turns of 10 ms lie between. The exact pace is tested under a paused clock (`tests/primary.rs`).
    assert!(all > Duration::from_millis(500), "{all:?}");
    assert!(all < Duration::from_secs(5), "{all:?}");
    let most = starts
        .iter()
        .enumerate()
        .map(|(i, start)| {
            starts[i..].partition_point(|other| *other < *start + Duration::from_millis(10))
        })
        .max();
    // One turn that is late falls together with the next.
    assert!(most.is_some_and(|most| most <= 48), "{most:?} in 10 ms");
}

#[tokio::test]
async fn t10_a_replica_that_receives_nothing_leaves_the_fresh_ones() {
    let db = Db::start().await;
    db.positions([Position::Primary, Position::Replica, Position::Replica])
        .await;
    let bound = 1_000_000;
    let readers = db
        .balancer
        .with_policy(Replica(RoundRobin::new()).max_lag_bytes(bound));
    until_picked(&readers, &["pg-1", "pg-2"]).await;
    db.cluster.server(2).stop_receiver().await.unwrap();
    // An idle primary has no lag to speak of, however long nothing happens.
    sleep(Duration::from_secs(1)).await;
    until_picked(&readers, &["pg-1", "pg-2"]).await;

    let session = db.cluster.server(0).session().await.unwrap();
    session
        .execute("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 4000)")
        .await
        .unwrap();
    db.cluster.caught_up(1, 0).await.unwrap();
    let passed = Instant::now();
    until_picked(&readers, &["pg-1"]).await;
    println!("left after {:?}", passed.elapsed());
    assert!(
        passed.elapsed() < Duration::from_secs(3),
        "{:?}",
        passed.elapsed()
    );

    let truth = session
        .text("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
        .await
        .unwrap();
    let standby = db.cluster.server(2).session().await.unwrap();
    let replayed = standby
        .text("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn")
        .await
        .unwrap();
    let lag = truth.parse::<u64>().unwrap() - replayed.parse::<u64>().unwrap();
    let set = db.balancer.endpoints();
    let seen = set.iter().find(|endpoint| endpoint.name() == Some("pg-2"));
    let seen = seen.unwrap().lag_bytes().unwrap();
    println!("{lag} bytes behind, {seen} seen");
    // The primary writes a little by itself.
    assert!(seen.abs_diff(lag) < 20_000, "{seen} is not {lag}");
}

/// Waits until the readers are exactly these.
async fn until_picked(readers: &Balancer, expected: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut picked = Vec::new();
        for _ in 0..8 {
            picked.extend(
                readers
                    .pick()
                    .ok()
                    .and_then(|pick| pick.endpoint().name().map(str::to_owned)),
            );
        }
        picked.sort_unstable();
        picked.dedup();
        if picked == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{picked:?} are not {expected:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn t11_no_claim_outlives_its_lease_and_waiting_is_no_spinning() {
    let mut db = Db::start().await;
    let primary = db.balancer.primary().get().unwrap();
    db.cluster.server(0).freeze().unwrap();
    let frozen = Instant::now();
    timeout(PATIENCE, primary.lost()).await.unwrap();
    println!("lost after {:?}", frozen.elapsed());
    // An interval, two timeouts and a fast retry are 1.35 s.
    assert!(
        frozen.elapsed() < Duration::from_secs(4),
        "{:?}",
        frozen.elapsed()
    );
    assert!(!primary.is_current());
    db.balancer.primary().get().unwrap_err();
    primary.report(Hint::Connection);

    let view = db.balancer.primary();
    let waited = tokio::spawn(async move {
        let primary = view.wait(PATIENCE).await.unwrap();
        (primary.name().map(str::to_owned), Instant::now())
    });
    let truth = Truth::of(db.cluster.server(1)).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    db.cluster.server(1).promote().await.unwrap();
    let writable = truth.writable().await.unwrap();
    let (name, found) = waited.await.unwrap();
    println!(
        "found {:?} after it takes writes",
        found.saturating_duration_since(writable)
    );
    assert_eq!(name.as_deref(), Some("pg-1"));
    // The goal is 100 ms.
    assert!(found.saturating_duration_since(writable) < Duration::from_secs(1));
    db.cluster.server_mut(0).kill();
}
