//! The view of the primary, on scripted nodes and a paused clock.

mod support;

use std::{future::pending, sync::Arc, time::Duration};

use headless_lb::{Balancer, NoPrimaryKind, ProbeFailure};
use support::{
    roles::{INTERVAL, Nodes},
    script::{Script, pod, pods},
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
    let first = db.primary().wait(SECOND).await.unwrap();
    assert_eq!(first.addr(), pod(1));
    (nodes, db)
}

fn balancer(nodes: &Nodes) -> Balancer {
    Balancer::builder(Script::new(pods(1..=3)))
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
async fn waiting_ends_in_time_with_an_error_that_names_every_endpoint() {
    let nodes = Nodes::default();
    nodes.follow([1, 2, 3]);
    let db = balancer(&nodes);
    let start = Instant::now();
    let error = db.primary().wait(3 * SECOND).await.unwrap_err();
    assert_eq!(start.elapsed(), 3 * SECOND);
    assert_eq!(error.kind(), NoPrimaryKind::TimedOut(3 * SECOND));
    for host in 1..=3 {
        assert!(
            error.to_string().contains(&pod(host).to_string()),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_probe_the_error_says_so_at_once() {
    let db = Balancer::builder(Script::new(pods(1..=3))).spawn();
    db.resolved().await.unwrap();
    let error = db.primary().get().unwrap_err();
    assert_eq!(error.kind(), NoPrimaryKind::Unprobed);
    assert!(error.to_string().contains("no probe"), "{error}");
}

/// T9 and G11.
#[tokio::test(start_paused = true)]
async fn t09_a_thousand_who_wait_are_served_in_order_sixteen_in_ten_milliseconds() {
    let nodes = Nodes::default();
    nodes.follow([1, 2, 3]);
    let db = balancer(&nodes);
    db.primary().wait(SECOND).await.unwrap_err();
    let (served, mut order) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for number in 0..1000 {
        let (primary, served) = (db.primary(), served.clone());
        tasks.spawn(async move {
            primary.wait(10 * SECOND).await.unwrap();
            served.send((number, Instant::now())).unwrap();
        });
    }
    sleep(MILLISECOND).await;
    let one_more = db.primary().wait(10 * SECOND).await.unwrap_err();
    assert_eq!(one_more.kind(), NoPrimaryKind::TooManyWaiters);
    let mut changes = db.primary().subscribe();
    changes.next().await.unwrap().unwrap_err();
    nodes.claim(2, 5);
    changes.next().await.unwrap().unwrap();
    let accepted = Instant::now();
    tasks.join_all().await;
    drop(served);
    let mut times = Vec::new();
    while let Some((number, at)) = order.recv().await {
        assert_eq!(number, times.len(), "first come, first served");
        times.push(at);
    }
    assert!(times[0] - accepted <= 10 * MILLISECOND);
    assert!(
        times[999] - accepted <= 700 * MILLISECOND,
        "{:?}",
        times[999] - accepted
    );
    for window in times.windows(17) {
        assert!(window[16] - window[0] >= 10 * MILLISECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn one_who_gave_up_waiting_costs_the_others_no_turn() {
    let nodes = Nodes::default();
    nodes.follow([1, 2, 3]);
    let db = balancer(&nodes);
    let mut tasks = JoinSet::new();
    for number in 0..100 {
        let primary = db.primary();
        let patience = if number % 2 == 0 { SECOND } else { 10 * SECOND };
        tasks.spawn(async move { primary.wait(patience).await.is_ok() });
    }
    sleep(2 * SECOND).await;
    nodes.claim(2, 5);
    let start = Instant::now();
    let served = tasks.join_all().await.into_iter().filter(|ok| *ok).count();
    assert_eq!(served, 50);
    // Up to an interval of the probe, and four batches.
    assert!(start.elapsed() < 2 * INTERVAL + 40 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn t03_waiting_for_an_accepted_primary_takes_no_time_while_another_node_hangs() {
    let (nodes, db) = cluster().await;
    nodes.hang(3);
    for _ in 0..50 {
        sleep(100 * MILLISECOND).await;
        let start = Instant::now();
        db.primary().wait(SECOND).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
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
    let driver = tokio::spawn(driver);
    let writer = db.primary().wait(SECOND).await.unwrap();
    let waiting = Arc::new(db.primary());
    driver.abort();
    timeout(SECOND, writer.lost()).await.unwrap();
    let error = waiting.wait(SECOND).await.unwrap_err();
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
