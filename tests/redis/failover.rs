//! Who the primary is while masters hang, die, come back and are replaced.

use std::time::Duration;

use headless_lb::{Balancer, Primary, RedisPrimary};
use redis::{AsyncConnectionConfig, AsyncTypedCommands, RedisConnectionInfo, RedisResult};
use tokio::time::{Instant, sleep};

use crate::{
    balancer, eventually, primary_is,
    support::redis::{Cluster, PATIENCE, Sentinel, Server, until},
};

/// Patient: a server may hold writes back while it hands over.
fn handle(balancer: &Balancer) -> RedisPrimary {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    RedisPrimary::new(balancer.primary(), RedisConnectionInfo::default()).config(config)
}

async fn count(server: &Server, key: &str) -> u32 {
    let count: Option<u32> = server.ask(&["GET", key]).await.expect("the server answers");
    count.unwrap_or(0)
}

/// Writes until `over`, and counts what was acknowledged and what was not.
async fn write_until(mut redis: RedisPrimary, over: impl AsyncFn() -> bool) -> (u32, Vec<String>) {
    let (mut acknowledged, mut failed) = (0, Vec::new());
    let deadline = Instant::now() + PATIENCE;
    while !over().await {
        assert!(Instant::now() < deadline, "{acknowledged} {failed:?}");
        let written: RedisResult<_> = redis.incr("count", 1).await;
        match written {
            Ok(_) => acknowledged += 1,
            Err(error) => failed.push(error.to_string()),
        }
        sleep(Duration::from_millis(5)).await;
    }
    (acknowledged, failed)
}

#[tokio::test]
async fn a_coordinated_failover_costs_no_command() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let [old, new, _] = &cluster.servers;
    let (ip, port) = (new.addr().ip().to_string(), new.addr().port().to_string());
    let redis = handle(&balancer);
    redis.clone().set("before", 1).await.unwrap();
    let () = old.ask(&["FAILOVER", "TO", &ip, &port]).await.unwrap();
    let (acknowledged, failed) =
        write_until(redis, async || count(new, "count").await >= 100).await;
    assert_eq!(failed, Vec::<String>::new());
    assert_eq!(count(new, "count").await, acknowledged);
    primary_is(&balancer, &cluster, 1).await;
}

#[tokio::test]
async fn a_master_that_hangs_is_replaced_and_is_no_primary_when_it_wakes_up() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let [old, new, _] = &cluster.servers;
    let redis = handle(&balancer);
    redis.clone().set("before", 1).await.unwrap();
    old.freeze().unwrap();
    new.promote().await.unwrap();
    primary_is(&balancer, &cluster, 1).await;
    old.thaw().unwrap();
    let woken = Instant::now();
    let primaries = balancer.with_policy(Primary);
    let over = async || {
        let picked = primaries.pick().expect("there is one all the time");
        assert_eq!(picked.addr(), new.addr());
        woken.elapsed() > Duration::from_secs(1)
    };
    let (acknowledged, failed) = write_until(redis, over).await;
    assert_eq!(failed, Vec::<String>::new());
    assert_eq!(count(new, "count").await, acknowledged);
    assert_eq!(count(old, "count").await, 0, "it takes no write any more");
}

#[tokio::test]
async fn a_replica_that_comes_back_as_a_master_with_an_old_file_does_not_replace_the_primary() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let writer = balancer.primary().get().unwrap();
    let id = cluster.servers[0].info("master_replid").await.unwrap();
    let [_, _, replica] = &mut cluster.servers;
    replica.kill();
    replica.start().await.unwrap();
    assert_eq!(replica.info("role").await.unwrap(), "master");
    // It has what it was sent when it began to follow, and says what a promoted replica says.
    assert_eq!(replica.info("master_replid2").await.unwrap(), id);
    let addr = replica.addr();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let primary = balancer.primary().get().unwrap().addr();
        assert!(primary != addr && primary == cluster.servers[0].addr());
        sleep(Duration::from_millis(5)).await;
    }
    assert!(writer.is_current(), "nor was the primary lost meanwhile");
}

#[tokio::test]
async fn a_failover_by_sentinel_is_followed_and_the_old_master_comes_back_as_a_replica() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer);
    redis.set("before", 1).await.unwrap();
    let master = cluster.servers[0].addr();
    let sentinel = Sentinel::watch(master, cluster.spare(0)).await.unwrap();
    cluster.servers[0].kill();
    sleep(Duration::from_millis(50)).await; // until the end of the connection is known
    // The command waits for Sentinel's decision, and is done where that leads.
    redis.set("after", 2).await.unwrap();
    let new = balancer.primary().get().unwrap().addr();
    assert_ne!(new, master);
    // It tells so itself when it has led the other replica there, which is later.
    until("Sentinel names the new master", async || {
        Ok(sentinel.tells("ip").await? == new.ip().to_string())
    })
    .await
    .unwrap();
    let server = cluster
        .servers
        .iter()
        .find(|server| server.addr() == new)
        .unwrap();
    assert_eq!(count(server, "after").await, 2);

    // The old one comes back empty, as a master: nobody else may see that for the primary.
    cluster.servers[0].start().await.unwrap();
    eventually(&balancer, async || {
        let primary = balancer.primary().get().unwrap().addr();
        assert_eq!(primary, new, "{}", sentinel.log());
        cluster.servers[0]
            .info("role")
            .await
            .is_ok_and(|role| role == "slave")
    })
    .await;
    redis.set("later", 3).await.unwrap();
    assert_eq!(balancer.primary().get().unwrap().addr(), new);
}

#[tokio::test]
async fn a_master_that_comes_back_empty_before_the_failover_does_not_come_between() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer);
    redis.set("before", 1).await.unwrap();
    let [old, new, _] = &mut cluster.servers;
    old.kill();
    new.promote().await.unwrap();
    old.start().await.unwrap();
    assert_eq!(old.info("role").await.unwrap(), "master");
    let start = Instant::now();
    let mut written = 0;
    while start.elapsed() < Duration::from_secs(1) {
        match redis.incr("count", 1).await {
            Ok(_) => written += 1,
            // It was in flight when the master was killed.
            Err(error) => assert_eq!(written, 0, "{error}"),
        }
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count(new, "count").await, written);
    assert_eq!(count(old, "count").await, 0);
}
