//! When probes ask: at their pace, in a hurry, and for a hint.

use super::*;

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
async fn a_primary_is_confirmed_by_an_answer_from_now_on_and_not_by_the_last_one() {
    let (nodes, db) = cluster().await;
    let writer = db.primary().get().unwrap();
    sleep(10 * INTERVAL).await;
    let asked = Instant::now();
    writer.report(Hint::NotPrimary);
    assert!(writer.confirmed().await);
    assert!(asked.elapsed() <= 60 * MILLISECOND);
    assert!(writer.confirmed_ago() <= asked.elapsed());
    nodes.say(1, Observation::of(Role::Primary).fenced_by("a setting"));
    writer.report(Hint::NotPrimary);
    assert!(!writer.confirmed().await, "it is fenced");
    assert!(!writer.confirmed().await, "and stays so");
}

#[tokio::test(start_paused = true)]
async fn a_primary_that_hangs_is_not_confirmed_and_who_asked_is_told_when_it_is_lost() {
    let (nodes, db) = cluster().await;
    let writer = db.primary().get().unwrap();
    (1..=3).for_each(|host| nodes.hang(host));
    let answer = timeout(1600 * MILLISECOND, writer.confirmed()).await;
    assert!(!answer.unwrap());
}
