//! What DNS says, and that the primary does not depend on it.

use super::*;

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
