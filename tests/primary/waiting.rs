//! Waiting for a primary: in order, at a pace, in time.

use super::*;

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
