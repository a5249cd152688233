//! Reads: from replicas that are fresh enough, and of what one has written.

use super::*;

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
    let written = Instant::now();
    // A look at the primary, and then one at each replica, each up to a fifth of an interval late.
    let looks = 2 * INTERVAL * 6 / 5 + 10 * MILLISECOND;
    sleep(looks).await;
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
    let longest = written.elapsed();
    assert!(lag <= longest && lag + looks >= longest, "{lag:?}");
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
