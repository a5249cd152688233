//! The view of the primary, on scripted nodes and a paused clock.

#[path = "primary/dns.rs"]
mod dns;
#[path = "primary/probing.rs"]
mod probing;
#[path = "primary/reads.rs"]
mod reads;
mod support;
#[path = "primary/waiting.rs"]
mod waiting;

use std::{collections::HashSet, future::pending, time::Duration};

use headless_lb::{
    Balancer, Hint, NoPrimaryKind, Observation, PreferReplica, Primary, ProbeFailure, Replica,
    Role, RoundRobin, Term, Written,
};
use support::{
    roles::{INTERVAL, Nodes},
    script::{Script, pod, pods, servfail},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Node 1 is the primary in term 4 of three.
async fn cluster() -> (Nodes, Balancer) {
    let nodes = Nodes::default();
    nodes.claim(1, 4);
    nodes.follow([2, 3]);
    let db = balancer(&nodes);
    let first = db.primary().wait(SECOND).await;
    assert_eq!(first.expect("node 1 claims it").addr(), pod(1));
    (nodes, db)
}

fn balancer(nodes: &Nodes) -> Balancer {
    over(&Script::new(pods(1..=3)), nodes)
}

fn over(script: &Script, nodes: &Nodes) -> Balancer {
    Balancer::builder(script.clone())
        .seed(support::seed())
        .probe(nodes.probe())
        .spawn()
}

/// Node 1 is gone, and node 2 is promoted.
fn fail_over(nodes: &Nodes) {
    nodes.fail(1, ProbeFailure::Refused);
    nodes.claim(2, 5);
}

#[tokio::test(start_paused = true)]
async fn a_writer_knows_that_it_was_lost_and_the_next_one_is_of_a_newer_generation() {
    let (nodes, db) = cluster().await;
    let old = db.primary().get().unwrap();
    assert!(old.is_current());
    fail_over(&nodes);
    timeout(2 * INTERVAL, old.lost()).await.unwrap();
    assert!(!old.is_current());
    let new = db.primary().wait(SECOND).await.unwrap();
    assert_eq!(new.addr(), pod(2));
    assert!(new.generation() == old.generation() + 1 && new.epoch() > old.epoch());
    assert!(new.is_current());
    old.lost().await; // also when it was lost before the call
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_returns_in_its_term_keeps_its_generation_and_its_old_connections_are_lost()
{
    let (nodes, db) = cluster().await;
    let before = db.primary().get().unwrap();
    nodes.fail(1, ProbeFailure::Recovering);
    before.lost().await;
    assert_eq!(db.primary().get().unwrap_err().kind(), NoPrimaryKind::None);
    nodes.claim(1, 4);
    let after = db.primary().wait(2 * SECOND).await.unwrap();
    assert_eq!(after.generation(), before.generation());
    assert!(after.epoch() > before.epoch() && !before.is_current());
}

#[tokio::test(start_paused = true)]
async fn work_ends_when_its_primary_is_lost_and_says_whether_it_had_begun() {
    let (nodes, db) = cluster().await;
    let writer = db.primary().get().unwrap();
    assert_eq!(writer.run(async { 7 }).await.unwrap(), 7);
    let in_flight = async { writer.run(pending::<()>()).await.unwrap_err() };
    let (fenced, ()) = tokio::join!(in_flight, async { fail_over(&nodes) });
    assert!(fenced.maybe_committed());
    assert_eq!(fenced.endpoint().addr(), pod(1));
    let later = writer.run(async { panic!("it must not begin") }).await;
    assert!(!later.unwrap_err().maybe_committed());
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_the_error_says_so_at_once() {
    let db = Balancer::builder(Script::new(pods(1..=3))).spawn();
    db.resolved().await.unwrap();
    let error = db.primary().get().unwrap_err();
    assert_eq!(error.kind(), NoPrimaryKind::Unprobed);
    assert!(error.to_string().contains("no probe"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_kept_writer_keeps_discovery_going_and_its_end_is_told() {
    let (nodes, db) = cluster().await;
    let writer = db.primary().get().unwrap();
    drop(db);
    sleep(10 * SECOND).await;
    assert!(writer.is_current() && writer.confirmed_ago() <= 2 * INTERVAL);
    let asked = nodes.asked();
    drop(writer);
    sleep(10 * SECOND).await;
    assert!(nodes.asked() <= asked + 3, "nobody is left to ask for");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_the_primary_when_nobody_observes_any_more() {
    let nodes = Nodes::default();
    nodes.claim(1, 4);
    let (db, driver) = Balancer::builder(Script::new(pods(1..=3)))
        .probe(nodes.probe())
        .build();
    let mut driver = JoinSet::from_iter([driver]);
    let writer = db.primary().wait(SECOND).await.unwrap();
    driver.shutdown().await;
    timeout(SECOND, writer.lost()).await.unwrap();
    let error = db.primary().wait(SECOND).await.unwrap_err();
    assert_eq!(error.kind(), NoPrimaryKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn changes_of_the_primary_begin_with_what_is_now_and_end_with_the_last_balancer() {
    let (nodes, db) = cluster().await;
    let mut changes = db.primary().subscribe();
    assert_eq!(changes.next().await.unwrap().unwrap().addr(), pod(1));
    fail_over(&nodes);
    loop {
        match changes.next().await.unwrap() {
            Ok(writer) => break assert_eq!(writer.addr(), pod(2)),
            Err(error) => assert_eq!(error.kind(), NoPrimaryKind::None),
        }
    }
    drop(db);
    assert!(timeout(SECOND, changes.next()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn t05_of_two_claims_the_lower_term_gets_neither_writes_nor_reads_and_the_reason_is_told() {
    let (nodes, db) = cluster().await;
    nodes.claim(2, 5); // and 1 goes on in term 4
    sleep(SECOND).await;
    assert_eq!(db.primary().get().unwrap().addr(), pod(2));
    for policy in [
        db.with_policy(Primary),
        db.with_policy(PreferReplica(RoundRobin::new())),
        db.clone(),
    ] {
        for _ in 0..20 {
            assert_ne!(policy.pick().unwrap().addr(), pod(1));
        }
    }
    nodes.fail(2, ProbeFailure::Refused);
    sleep(SECOND).await;
    let error = db.primary().get().unwrap_err();
    assert_eq!(error.kind(), NoPrimaryKind::None);
    for part in [
        "term 4 rejected, term 5 was seen on 10.0.0.2",
        "connection refused",
        "forget_term()",
    ] {
        assert!(
            error.to_string().contains(part),
            "`{part}` is not in: {error}"
        );
    }
    let text = db.with_policy(Primary).pick().unwrap_err().to_string();
    assert!(
        text.contains("term 4 rejected"),
        "a pick says it too: {text}"
    );
    // The operator restored a backup, and says so.
    db.primary().forget_term();
    let restored = db.primary().wait(SECOND).await.unwrap();
    assert_eq!(restored.addr(), pod(1));
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_was_lost_and_returns_is_told_to_those_who_follow() {
    let (nodes, db) = cluster().await;
    let mut changes = db.primary().subscribe();
    let first = changes.next().await.unwrap().unwrap();
    nodes.fail(1, ProbeFailure::Recovering);
    assert!(changes.next().await.unwrap().is_err());
    nodes.claim(1, 4);
    let again = timeout(SECOND, changes.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(again.generation(), first.generation());
    assert!(again.is_current() && !first.is_current());
}

#[tokio::test(start_paused = true)]
async fn a_primary_in_a_new_term_has_lost_its_old_writers() {
    let (nodes, db) = cluster().await;
    let old = db.primary().get().unwrap();
    nodes.claim(1, 6); // it was restarted, and promoted between two probes
    timeout(2 * INTERVAL, old.lost()).await.unwrap();
    let new = db.primary().get().unwrap();
    assert_eq!((new.addr(), new.term()), (pod(1), Some(Term::new(6))));
    assert!(new.is_current() && new.generation() == old.generation() + 1);
}
