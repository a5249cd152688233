//! What the probe says of servers in each state.

use std::time::Duration;

use headless_lb::{ProbeFailure, Redis, Role};
use tokio::time::timeout;

use crate::{
    Asking, lone, seen,
    support::redis::{Cluster, Server, until},
};

#[tokio::test]
async fn a_master_and_its_replica_tell_role_position_and_the_same_lineage() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let [master, replica, _] = &cluster.servers;
    let () = master.ask(&["SET", "key", "value"]).await.unwrap();
    replica.followed(master).await.unwrap();
    let first = seen(Redis::new(), master.addr()).await.unwrap();
    let second = seen(Redis::new(), replica.addr()).await.unwrap();
    assert_eq!(
        (first.role(), second.role()),
        (Role::Primary, Role::Replica)
    );
    assert!(first.position() >= second.position() && second.position() > Some(0));
    assert_eq!(second.points_to(), Some(master.addr()));
    assert_eq!(first.points_to(), None);
    assert!(
        first
            .lineage()
            .is_some_and(|lineage| lineage.previous().is_none())
    );
    assert_eq!(first.lineage(), second.lineage());
    assert_eq!(first.fence(), None);
}

#[tokio::test]
async fn a_promoted_replica_supersedes_the_master_it_had_on_the_session_that_was_open() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let [master, replica, _] = &cluster.servers;
    let (_, old) = Asking::open(Redis::new(), master.addr()).await.unwrap();
    let (mut asking, _) = Asking::open(Redis::new(), replica.addr()).await.unwrap();
    replica.promote().await.unwrap();
    let new = asking.ask().await.unwrap();
    assert_eq!(new.role(), Role::Primary);
    let (old, new) = (old.lineage().unwrap(), new.lineage().unwrap());
    assert_ne!(new.id(), old.id());
    assert_eq!(new.previous(), Some(old.id()));
}

#[tokio::test]
async fn the_lineage_of_a_lone_master_changes_with_its_first_replica() {
    let (master, network) = lone(&[]).await;
    let (mut asking, before) = Asking::open(Redis::new(), master.addr()).await.unwrap();
    let mut replica = Server::new("redis-1", network.address(1), &[]);
    replica.start().await.unwrap();
    replica.follow(master.addr()).await.unwrap();
    replica.followed(&master).await.unwrap();
    let after = asking.ask().await.unwrap();
    assert_eq!(after.role(), before.role());
    assert_ne!(after.lineage(), before.lineage());
    let follower = seen(Redis::new(), replica.addr()).await.unwrap();
    assert_eq!(after.lineage(), follower.lineage());
}

#[tokio::test]
async fn a_master_that_comes_back_empty_is_of_another_lineage() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let [master, _, _] = &mut cluster.servers;
    let before = seen(Redis::new(), master.addr()).await.unwrap();
    master.kill();
    let refused = seen(Redis::new(), master.addr()).await.unwrap_err();
    assert_eq!(refused.failure(), ProbeFailure::Refused);
    master.start().await.unwrap();
    let after = seen(Redis::new(), master.addr()).await.unwrap();
    assert_eq!(after.role(), Role::Primary);
    let (before, after) = (before.lineage().unwrap(), after.lineage().unwrap());
    assert!(after.id() != before.id() && after.previous() != Some(before.id()));
}

#[tokio::test]
async fn a_replica_without_its_master_has_no_position() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let [master, replica, _] = &mut cluster.servers;
    let (mut asking, _) = Asking::open(Redis::new(), replica.addr()).await.unwrap();
    master.kill();
    until("the link is down", async || {
        Ok(replica.info("master_link_status").await? == "down")
    })
    .await
    .unwrap();
    // Without data to serve, too, it tells its role: `-MASTERDOWN` is not for `ROLE`.
    let () = replica
        .ask(&["CONFIG", "SET", "replica-serve-stale-data", "no"])
        .await
        .unwrap();
    for _ in 0..2 {
        let seen = asking.ask().await.unwrap();
        assert_eq!((seen.role(), seen.position()), (Role::Replica, None));
    }
}

#[tokio::test]
async fn a_master_without_the_replicas_it_must_have_is_fenced() {
    let (master, _network) = lone(&["--min-replicas-to-write 1"]).await;
    let fenced = seen(Redis::new(), master.addr()).await.unwrap();
    assert_eq!(fenced.role(), Role::Primary);
    assert!(fenced.fence().unwrap().contains("min-replicas-to-write"));
    let refused = master
        .ask::<String>(&["SET", "key", "value"])
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("NOREPLICAS"), "{refused}");
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_starting_though_it_answers_role() {
    let (mut server, _network) = lone(&[]).await;
    let () = server.ask(&["DEBUG", "POPULATE", "2000"]).await.unwrap();
    let () = server.ask(&["SAVE"]).await.unwrap();
    server.kill();
    // 1 ms for each key, and commands after each: it loads for two seconds at least.
    let slow = "--key-load-delay 1000 --loading-process-events-interval-bytes 1024";
    server.add(slow);
    server.spawn().unwrap();
    until("it answers", async || {
        Ok(!server.ask::<Vec<redis::Value>>(&["ROLE"]).await?.is_empty())
    })
    .await
    .unwrap();
    let starting = seen(Redis::new(), server.addr()).await.unwrap_err();
    assert_eq!(starting.failure(), ProbeFailure::Starting);
    until("it has loaded", async || {
        Ok(server.info("loading").await? == "0")
    })
    .await
    .unwrap();
    assert_eq!(
        seen(Redis::new(), server.addr()).await.unwrap().role(),
        Role::Primary
    );
}

#[tokio::test]
async fn a_killed_session_says_so_at_once_and_another_one_opens() {
    let (server, _network) = lone(&[]).await;
    let (mut asking, _) = Asking::open(Redis::new(), server.addr()).await.unwrap();
    let idle = timeout(Duration::from_millis(100), asking.signalled()).await;
    assert!(idle.is_err(), "it had nothing to say");
    // As Sentinel does on a node that it has reconfigured.
    let _: u32 = server
        .ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
        .await
        .unwrap();
    timeout(Duration::from_secs(5), asking.signalled())
        .await
        .unwrap();
    let ended = asking.ask().await.unwrap_err();
    assert!(ended.failure() == ProbeFailure::Closed && !ended.is_definitive());
    assert_eq!(
        seen(Redis::new(), server.addr()).await.unwrap().role(),
        Role::Primary
    );
}
