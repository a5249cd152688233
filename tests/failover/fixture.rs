//! The servers themselves: what the other tests stand on.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::support::postgres::{Cluster, Session, Truth, sqlstate};

#[tokio::test]
async fn a_standby_is_promoted_and_the_old_primary_rejoins() {
    let mut cluster = Cluster::start().await.unwrap();
    let truth = Truth::of(cluster.server(1)).await.unwrap();
    cluster.server_mut(0).kill();
    let promoted = Instant::now();
    cluster.server(1).promote().await.unwrap();
    let writable = truth.writable().await.unwrap();
    println!("writable after {:?}", writable - promoted);
    cluster.follow(2, 1).await.unwrap();
    cluster.rejoin(0, 1).await.unwrap();
    cluster.streaming(1, 2).await.unwrap();
    cluster.caught_up(0, 1).await.unwrap();
}

#[tokio::test]
async fn a_silent_relay_answers_no_connect_and_goes_on_when_healed() {
    let cluster = Cluster::start().await.unwrap();
    let relay = cluster.relay(0).await.unwrap();
    let before = Session::open(relay.addr(), "app").await.unwrap();
    relay.silence().await.unwrap();
    let wait = Duration::from_millis(300);
    assert!(timeout(wait, before.text("SELECT 1")).await.is_err());
    assert!(
        timeout(wait, Session::open(relay.addr(), "app"))
            .await
            .is_err()
    );
    relay.heal();
    assert_eq!(before.text("SELECT 2").await.unwrap(), "2");
}

#[tokio::test]
async fn a_full_server_says_so_to_all_but_superusers() {
    let cluster = Cluster::start().await.unwrap();
    let held = cluster.server(0).saturate("probe").await.unwrap();
    let refused = Session::open(cluster.server(0).addr(), "probe").await;
    assert_eq!(sqlstate(&*refused.unwrap_err()), Some("53300"));
    cluster.server(0).session().await.unwrap();
    drop(held);
}
