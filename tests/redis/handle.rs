//! `RedisPrimary`: where commands go, and what becomes of them.

use std::{error::Error, time::Duration};

use headless_lb::{Balancer, Fenced, Fixed, NoPrimary, Redis, RedisPrimary, Tls};
use redis::{
    AsyncConnectionConfig, AsyncTypedCommands, RedisConnectionInfo, RedisError, RedisResult,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    balancer,
    certificates::{Certificates, NAME},
    eventually, lone, primary_is,
    support::redis::{Cluster, Server, until},
};

fn handle(balancer: &Balancer) -> RedisPrimary {
    RedisPrimary::new(balancer.primary(), RedisConnectionInfo::default())
}

/// The cause of ours that an error carries.
fn cause<E: Error + 'static>(error: &RedisError) -> Option<&E> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(cause) = error.downcast_ref() {
            return Some(cause);
        }
        next = error.source();
    }
    None
}

/// Whether a server has this key.
async fn has(server: &Server, key: &str) -> bool {
    server
        .ask::<bool>(&["EXISTS", key])
        .await
        .expect("the server answers")
}

/// The first server becomes a replica of the second, which no longer follows it.
async fn switch(cluster: &Cluster) {
    let [old, new, _] = &cluster.servers;
    new.promote().await.expect("the server answers");
    old.follow(new.addr()).await.expect("the server answers");
}

#[tokio::test]
async fn t08_after_the_master_was_demoted_the_next_command_goes_to_the_new_one() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer);
    redis.set("before", 1).await.unwrap();
    let old = cluster.servers[0].connect().await.unwrap();
    switch(&cluster).await;
    // At once: no probe has looked yet, and the connection to the old one is open.
    redis.set("after", 2).await.unwrap();
    assert!(has(&cluster.servers[1], "after").await);
    primary_is(&balancer, &cluster, 1).await;
    let refused: RedisResult<String> = redis::cmd("SET")
        .arg("key")
        .arg(3)
        .query_async(&mut old.clone())
        .await;
    assert_eq!(
        refused.unwrap_err().code(),
        Some("READONLY"),
        "the socket itself goes on"
    );
}

#[tokio::test]
async fn a_script_that_was_refused_has_had_its_effects_and_is_not_repeated() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer);
    redis.set("before", 1).await.unwrap();
    let script = "redis.call('PUBLISH', 'said', 1) return redis.call('SET', 'after', 2)";
    let published = async |number: usize| {
        let server = &cluster.servers[number];
        let calls = server.info("cmdstat_publish").await;
        calls.ok().filter(|calls| !calls.is_empty())
    };
    switch(&cluster).await;
    let mut eval = redis::cmd("eval");
    let done: RedisResult<String> = eval.arg(script).arg(0).query_async(&mut redis).await;
    assert!(published(0).await.is_some(), "the replica ran a part of it");
    let refused = done.unwrap_err();
    assert_eq!(refused.code(), Some("READONLY"), "{refused}");
    assert!(!has(&cluster.servers[1], "after").await);
    primary_is(&balancer, &cluster, 1).await;
    redis.set("after", 2).await.unwrap();
}

#[tokio::test]
async fn a_pipeline_that_was_refused_tells_and_the_next_one_goes_to_the_new_master() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer);
    let mut pipeline = redis::pipe();
    pipeline.get("key").set("key", 1);
    let _: (Option<String>, String) = pipeline.query_async(&mut redis).await.unwrap();
    switch(&cluster).await;
    let refused: RedisResult<(Option<String>, String)> = pipeline.query_async(&mut redis).await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().contains("ReadOnly"), "{refused}");
    // The refusal was a hint: no need to wait for the probe's interval.
    primary_is(&balancer, &cluster, 1).await;
    let _: (Option<String>, String) = pipeline.query_async(&mut redis).await.unwrap();
}

#[tokio::test]
async fn a_command_in_flight_when_the_primary_is_lost_may_have_been_done_and_is_not_repeated() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let patient = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut redis = handle(&balancer).config(patient);
    redis.set("before", 1).await.unwrap();
    let [old, new, _] = &cluster.servers;
    old.freeze().unwrap();
    let mut other = redis.clone();
    let (hung, ()) = tokio::join!(other.incr("count", 1), async {
        sleep(Duration::from_millis(50)).await;
        new.promote().await.unwrap();
    });
    let hung = hung.unwrap_err();
    assert!(cause::<Fenced>(&hung).unwrap().maybe_committed(), "{hung}");
    assert!(hung.to_string().contains("may have taken effect"), "{hung}");
    assert!(!has(new, "count").await, "sent once, to the one that hangs");
    redis.set("after", 2).await.unwrap();
    assert!(has(new, "after").await);
    // It wakes up with a command in its socket, and goes on as the master that it was.
    old.thaw().unwrap();
    for _ in 0..100 {
        redis.incr("later", 1).await.unwrap();
        sleep(Duration::from_millis(5)).await;
    }
    assert!(!has(old, "later").await);
    assert_eq!(new.ask::<u32>(&["GET", "later"]).await.unwrap(), 100);
}

#[tokio::test]
async fn a_command_waits_for_a_primary_and_then_says_that_there_is_none() {
    let mut cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer).wait(Duration::from_millis(500));
    redis.set("before", 1).await.unwrap();
    cluster.servers[0].kill();
    eventually(&balancer, async || balancer.primary().get().is_err()).await;
    let start = Instant::now();
    // All of them wait at the same time.
    let mut waiting = JoinSet::new();
    for _ in 0..50 {
        let mut redis = redis.clone();
        waiting.spawn(async move { redis.set("none", 2).await.unwrap_err() });
    }
    for none in waiting.join_all().await {
        assert!(cause::<NoPrimary>(&none).is_some(), "{none}");
        assert!(none.to_string().contains("no primary"), "{none}");
    }
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );

    let mut redis = redis.wait(Duration::from_secs(10));
    let (set, ()) = tokio::join!(redis.set("after", 3), async {
        sleep(Duration::from_millis(100)).await;
        cluster.servers[2].promote().await.unwrap();
    });
    set.unwrap();
    assert!(has(&cluster.servers[2], "after").await);
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_at_once() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let app = RedisConnectionInfo::default()
        .set_username("app")
        .set_password("wrong");
    let mut redis = RedisPrimary::new(balancer.primary(), app);
    let start = Instant::now();
    let refused = redis.set("key", 1).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{refused}");
    assert!(cause::<NoPrimary>(&refused).is_none(), "{refused}");
}

#[tokio::test]
async fn clones_share_one_connection_which_ends_with_the_last_of_them() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let () = cluster.servers[0]
        .ask(&["ACL", "SETUSER", "app", "on", "nopass", "~*", "+@all"])
        .await
        .unwrap();
    let app = RedisConnectionInfo::default()
        .set_username("app")
        .set_password("any");
    let redis = RedisPrimary::new(balancer.primary(), app);
    let mut tasks = JoinSet::new();
    for _ in 0..200 {
        let mut redis = redis.clone();
        tasks.spawn(async move { redis.incr("count", 1).await.unwrap() });
    }
    let mut counts = tasks.join_all().await;
    counts.sort_unstable();
    assert_eq!(counts, (1..=200).collect::<Vec<_>>());
    let connections = async || {
        let clients: String = cluster.servers[0].ask(&["CLIENT", "LIST"]).await.unwrap();
        let ours = clients.lines().filter(|line| line.contains("user=app "));
        ours.count()
    };
    assert_eq!(connections().await, 1);
    // Nobody waits any more for what this one waits for.
    let mut blocked = redis.clone();
    let mut forever = redis::cmd("BLPOP");
    forever.arg("nothing").arg(0);
    let waited = forever.query_async::<redis::Value>(&mut blocked);
    timeout(Duration::from_millis(100), waited)
        .await
        .unwrap_err();
    drop((blocked, redis));
    until("the connection has ended", async || {
        Ok(connections().await == 0)
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn killed_connections_are_made_anew_and_the_primary_stays_the_primary() {
    let cluster = Cluster::start(&[]).await.unwrap();
    let balancer = balancer(&cluster).await;
    let mut redis = handle(&balancer);
    redis.set("before", 1).await.unwrap();
    let writer = balancer.primary().get().unwrap();
    for round in 0..20 {
        let kill = ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
        let _: u32 = cluster.servers[0].ask(&kill).await.unwrap();
        // The end of the connection is on its way to us.
        sleep(Duration::from_millis(20)).await;
        redis.set("round", round).await.unwrap();
    }
    assert!(writer.is_current(), "no connection that ends is a failover");
}

#[tokio::test]
async fn over_tls_the_primary_must_prove_its_name() {
    let (ours, others) = (Certificates::new().unwrap(), Certificates::new().unwrap());
    let (server, _network) = lone(&[&ours.options(6380)]).await;
    let mut addr = server.addr();
    addr.set_port(6380);
    let tls = Tls::service(ours.trusted().unwrap(), NAME).unwrap();
    let balancer = Balancer::builder(Fixed::new([addr]))
        .probe(Redis::new().tls(tls.clone()))
        .spawn();
    balancer
        .primary()
        .wait(Duration::from_secs(10))
        .await
        .unwrap();
    let mut redis = handle(&balancer).tls(tls);
    redis.set("key", 1).await.unwrap();
    assert!(has(&server, "key").await);
    let strange = Tls::service(others.trusted().unwrap(), NAME).unwrap();
    // At once: it will be no better in the ten seconds that a command waits.
    let mut redis = redis.tls(strange);
    let unproved = timeout(Duration::from_secs(5), redis.set("other", 2))
        .await
        .unwrap();
    assert!(unproved.unwrap_err().to_string().contains("certificate"));
    assert!(!has(&server, "other").await);
}
