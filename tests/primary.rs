//! The view of the primary, on scripted nodes and a paused clock.

mod support;

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
    let mut driver = JoinSet::from_iter([driver]);
    let writer = db.primary().wait(SECOND).await.unwrap();
    driver.shutdown().await;
    timeout(SECOND, writer.lost()).await.unwrap();
    let error = db.primary().wait(SECOND).await.unwrap_err();
    assert_eq!(error.kind(), NoPrimaryKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_at_once_when_nobody_observes_any_more() {
    let nodes = Nodes::default();
    nodes.follow([1, 2, 3]);
    let (db, driver) = Balancer::builder(Script::new(pods(1..=3)))
        .probe(nodes.probe())
        .build();
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    let driver = tokio::spawn(driver);
    let view = db.primary();
    let start = Instant::now();
    let (error, ()) = tokio::join!(view.wait(10 * SECOND), async {
        sleep(SECOND).await;
        driver.abort();
    });
    assert_eq!(error.unwrap_err().kind(), NoPrimaryKind::Closed);
    assert_eq!(start.elapsed(), SECOND);
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

// ===== the driver: when probes ask =====

#[tokio::test(start_paused = true)]
async fn a_hint_makes_the_probes_look_at_once_and_many_make_them_look_once() {
    let (nodes, db) = cluster().await;
    let writer = db.primary().get().unwrap();
    sleep(10 * INTERVAL).await;
    nodes.claim(2, 5); // which a probe would see up to 300 ms later
    let before = nodes.asked();
    for _ in 0..100 {
        writer.report(Hint::NotPrimary);
    }
    timeout(60 * MILLISECOND, writer.lost()).await.unwrap();
    assert_eq!(db.primary().get().unwrap().addr(), pod(2));
    assert!(nodes.asked() <= before + 6, "{}", nodes.asked() - before);
}

#[tokio::test(start_paused = true)]
async fn a_hint_on_a_connection_of_an_older_epoch_asks_nobody() {
    let (nodes, db) = cluster().await;
    let old = db.primary().get().unwrap();
    fail_over(&nodes);
    old.lost().await;
    db.primary().wait(SECOND).await.unwrap();
    nodes.say(1, Role::Replica);
    sleep(10 * SECOND).await;
    let (before, start) = (nodes.asked(), Instant::now());
    while start.elapsed() < 4 * SECOND {
        old.report(Hint::NotPrimary);
        sleep(10 * MILLISECOND).await;
    }
    // Three nodes, four times a second.
    assert!(
        nodes.asked() - before <= 4 * 4 * 3 * 5 / 4,
        "{}",
        nodes.asked() - before
    );
}

#[tokio::test(start_paused = true)]
async fn probes_hurry_while_there_is_no_primary_and_are_calm_while_there_is() {
    let (nodes, db) = cluster().await;
    sleep(10 * SECOND).await;
    let asked_in = async |time: Duration| {
        let before = nodes.asked();
        sleep(time).await;
        nodes.asked() - before
    };
    let calm = asked_in(10 * SECOND).await;
    assert!(
        (96..=150).contains(&calm),
        "3 nodes x 4 a second x 10 s: {calm}"
    );
    nodes.follow([1]);
    let hurried = asked_in(2 * SECOND).await;
    assert!(
        (80..=150).contains(&hurried),
        "3 nodes x 20 a second x 2 s: {hurried}"
    );
    // T11: what the manager does after half a minute is seen within one interval.
    sleep(60 * SECOND).await;
    nodes.claim(3, 5);
    let start = Instant::now();
    db.primary().wait(SECOND).await.unwrap();
    assert!(
        start.elapsed() <= INTERVAL * 6 / 5 + 20 * MILLISECOND,
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn t11_no_primary_outlives_its_proof_when_every_probe_hangs() {
    let (nodes, db) = cluster().await;
    let writer = db.primary().get().unwrap();
    (1..=3).for_each(|host| nodes.hang(host));
    // An interval, two timeouts of half a second, and what lies between.
    timeout(1600 * MILLISECOND, writer.lost()).await.unwrap();
    assert!(writer.confirmed_ago() <= 1600 * MILLISECOND);
    let error = db.primary().get().unwrap_err().to_string();
    assert!(error.contains("no answer in time"), "{error}");
}

// ===== DNS =====

#[tokio::test(start_paused = true)]
async fn t04_writes_follow_the_promoted_node_while_dns_says_the_old_or_nothing() {
    let nodes = Nodes::default();
    nodes.claim(1, 4);
    nodes.follow([2, 3]);
    let script = Script::new(pods(1..=3));
    let db = over(&script, &nodes);
    let old = db.primary().wait(SECOND).await.unwrap();
    script.say(servfail());
    fail_over(&nodes);
    old.lost().await;
    let new = db.primary().wait(SECOND).await.unwrap();
    assert_eq!(new.addr(), pod(2));
    // Readiness lags: DNS takes the new primary away, and returns the old one.
    script.say(pods([1, 3]));
    sleep(20 * SECOND).await;
    assert!(new.is_current());
    assert_eq!(db.primary().get().unwrap().addr(), pod(2));
    assert!(
        db.endpoints().len() == 3,
        "it stays in the set: {}",
        db.endpoints()
    );
    script.say(pods(1..=3));
    sleep(60 * SECOND).await;
    assert!(new.is_current(), "nothing was switched");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_left_dns_and_does_not_return_is_the_primary_for_thirty_seconds_more() {
    let nodes = Nodes::default();
    nodes.claim(1, 4);
    nodes.follow([2, 3]);
    let script = Script::new(pods(1..=3));
    let db = over(&script, &nodes);
    let writer = db.primary().wait(SECOND).await.unwrap();
    script.say(pods([2, 3]));
    sleep(29 * SECOND).await;
    assert!(writer.is_current());
    timeout(8 * SECOND, writer.lost()).await.unwrap();
    sleep(SECOND).await;
    assert_eq!(db.endpoints().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn t07_with_one_address_and_no_primary_the_error_asks_for_not_ready_addresses() {
    let nodes = Nodes::default();
    nodes.follow([2]);
    let script = Script::new(pods([2]));
    let error = over(&script, &nodes)
        .primary()
        .wait(SECOND)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("does the service publish not-ready addresses?"),
        "{error}"
    );
    nodes.follow([1, 3]);
    script.say(pods(1..=3));
    let error = over(&script, &nodes)
        .primary()
        .wait(SECOND)
        .await
        .unwrap_err();
    assert!(!error.to_string().contains("not-ready"), "{error}");
}

// ===== what is told =====

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

// ===== reads =====

fn at(role: Role, position: u64) -> Observation {
    Observation::of(role)
        .in_term(Term::new(4))
        .at_position(position)
}

#[tokio::test(start_paused = true)]
async fn t10_a_replica_that_receives_nothing_leaves_the_bounded_readers_within_a_probe() {
    let nodes = Nodes::default();
    nodes.say(1, at(Role::Primary, 1000));
    nodes.say(2, at(Role::Replica, 1000));
    nodes.say(3, at(Role::Replica, 1000));
    let db = balancer(&nodes);
    db.primary().wait(SECOND).await.unwrap();
    let readers = db.with_policy(Replica(RoundRobin::new()).max_lag_bytes(100));
    sleep(2 * INTERVAL).await;
    let seen = || {
        (0..20)
            .map(|_| readers.pick().unwrap().addr())
            .collect::<HashSet<_>>()
    };
    assert_eq!(seen(), HashSet::from([pod(2), pod(3)]));
    // An idle primary: no lag, however long.
    sleep(60 * SECOND).await;
    assert_eq!(seen(), HashSet::from([pod(2), pod(3)]));
    nodes.say(1, at(Role::Primary, 5000));
    nodes.say(2, at(Role::Replica, 5000));
    sleep(2 * INTERVAL).await;
    assert_eq!(seen(), HashSet::from([pod(2)]));
    let late = db
        .endpoints()
        .iter()
        .find(|e| e.addr() == pod(3))
        .unwrap()
        .clone();
    assert_eq!(late.lag_bytes(), Some(4000));
    sleep(10 * SECOND).await;
    let lag = late.lag().unwrap();
    assert!(lag.abs_diff(10 * SECOND) <= 2 * INTERVAL, "{lag:?}");
}

#[tokio::test(start_paused = true)]
async fn one_reads_what_one_wrote_from_a_replica_that_has_it_or_from_the_primary() {
    let nodes = Nodes::default();
    nodes.say(1, at(Role::Primary, 1000));
    nodes.say(2, at(Role::Replica, 900));
    nodes.say(3, at(Role::Replica, 800));
    let db = balancer(&nodes).with_policy(Replica(RoundRobin::new()));
    let writer = db.primary().wait(SECOND).await.unwrap();
    sleep(2 * INTERVAL).await;
    let has = db
        .replica_at_least(&writer.wrote_at(900), SECOND)
        .await
        .unwrap();
    assert_eq!(has.addr(), pod(2));
    // It comes that far while one waits.
    let written = writer.wrote_at(1000);
    let (reader, ()) = tokio::join!(db.replica_at_least(&written, 10 * SECOND), async {
        sleep(2 * SECOND).await;
        nodes.say(3, at(Role::Replica, 1000));
    });
    assert_eq!(reader.unwrap().addr(), pod(3));
    // None comes that far.
    let start = Instant::now();
    let reader = db
        .replica_at_least(&writer.wrote_at(2000), SECOND)
        .await
        .unwrap();
    assert_eq!((reader.addr(), start.elapsed()), (pod(1), SECOND));
    // Another primary came since: what was written may be lost, and the replicas cannot tell.
    nodes.say(1, at(Role::Replica, 1000));
    nodes.say(
        2,
        Observation::of(Role::Primary)
            .in_term(Term::new(5))
            .at_position(950),
    );
    writer.lost().await;
    db.primary().wait(SECOND).await.unwrap();
    let start = Instant::now();
    let reader = db
        .replica_at_least(&writer.wrote_at(900), SECOND)
        .await
        .unwrap();
    assert_eq!((reader.addr(), start.elapsed()), (pod(2), Duration::ZERO));
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

#[tokio::test(start_paused = true)]
async fn a_write_of_a_later_term_is_not_read_from_the_primary_before() {
    let nodes = Nodes::default();
    nodes.say(1, at(Role::Primary, 1000));
    nodes.say(2, at(Role::Replica, 1000));
    nodes.say(3, at(Role::Replica, 1000));
    let db = balancer(&nodes);
    db.primary().wait(SECOND).await.unwrap();
    // Another process wrote to a primary that is not known here yet.
    let written = Written::in_term(Term::new(5), 900);
    db.replica_at_least(&written, SECOND).await.unwrap_err();
    let (reader, ()) = tokio::join!(db.replica_at_least(&written, 10 * SECOND), async {
        sleep(SECOND).await;
        nodes.say(2, at(Role::Primary, 1000).in_term(Term::new(5)));
    });
    assert_ne!(reader.unwrap().addr(), pod(1));
}

#[tokio::test(start_paused = true)]
async fn one_may_wait_for_a_replica_for_ever() {
    let (nodes, db) = cluster().await;
    let written = db.primary().get().unwrap().wrote_at(10);
    let (reader, ()) = tokio::join!(db.replica_at_least(&written, Duration::MAX), async {
        sleep(SECOND).await;
        nodes.say(1, at(Role::Primary, 10));
        nodes.say(3, at(Role::Replica, 10));
    });
    assert_eq!(reader.unwrap().addr(), pod(3));
    let forever = db.primary().wait(Duration::MAX).await;
    assert_eq!(forever.unwrap().addr(), pod(1));
}

#[tokio::test(start_paused = true)]
async fn a_hint_is_heard_behind_many_on_connections_of_an_older_epoch() {
    let (nodes, db) = cluster().await;
    let old = db.primary().get().unwrap();
    fail_over(&nodes);
    old.lost().await;
    let new = db.primary().wait(SECOND).await.unwrap();
    nodes.say(1, Role::Replica);
    sleep(10 * SECOND).await;
    nodes.claim(3, 6);
    for _ in 0..100 {
        old.report(Hint::NotPrimary);
        new.report(Hint::Overload);
    }
    new.report(Hint::NotPrimary);
    timeout(60 * MILLISECOND, new.lost()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handle_over_fresh_replicas_is_resolved_as_soon_as_one_is_known_to_be_fresh() {
    let nodes = Nodes::default();
    nodes.say(1, at(Role::Primary, 1000));
    nodes.say(2, at(Role::Replica, 9));
    nodes.say(3, at(Role::Replica, 9));
    let db = balancer(&nodes);
    db.primary().wait(SECOND).await.unwrap();
    sleep(SECOND).await;
    let readers = db.with_policy(Replica(RoundRobin::new()).max_lag_bytes(100));
    let start = Instant::now();
    let (resolved, ()) = tokio::join!(readers.resolved(), async {
        sleep(2 * SECOND).await;
        nodes.say(3, at(Role::Replica, 1000));
    });
    resolved.unwrap();
    assert!(start.elapsed() < 3 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_replica_in_an_older_term_is_no_reader_of_what_was_written_however_far_it_is() {
    let nodes = Nodes::default();
    nodes.say(1, at(Role::Primary, 1000));
    nodes.say(2, at(Role::Replica, 5000).in_term(Term::new(3)));
    nodes.follow([3]);
    let db = balancer(&nodes);
    let writer = db.primary().wait(SECOND).await.unwrap();
    sleep(2 * INTERVAL).await;
    let reader = db.replica_at_least(&writer.wrote_at(900), SECOND).await;
    assert_eq!(reader.unwrap().addr(), pod(1));
}
