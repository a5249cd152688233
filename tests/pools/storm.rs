//! Many at once.

use std::time::Duration;

use headless_lb::PgConnector;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_postgres::NoTls;

use crate::{
    adapters::{BoxError, config},
    believed::{Believed, NONE},
    greeter::Greeter,
};

const SECOND: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_millis(10);

/// A thousand tasks connect by one connector, with a primary there or not; when the server accepted each.
async fn accepted(waiting: bool) -> Result<Vec<Instant>, BoxError> {
    let mut server = Greeter::start(true).await?;
    let believed = Believed::in_primary(if waiting { NONE } else { 0 });
    let db = believed.balancer(vec![server.addr.into()]);
    db.resolved().await?;
    if !waiting {
        db.primary().wait(SECOND).await?;
    }
    let connector = PgConnector::new(db.primary(), config(), NoTls);
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let connector = connector.clone();
        tasks.spawn(async move { connector.connect().await.map(drop) });
    }
    if waiting {
        sleep(20 * WINDOW).await;
        assert!(
            server.accepted.try_recv().is_err(),
            "nobody knows a primary"
        );
        believed.set(0);
    }
    for connected in tasks.join_all().await {
        connected?;
    }
    let accepted = std::iter::from_fn(|| server.accepted.try_recv().ok());
    Ok(accepted.collect())
}

/// The moments are the server's, which may see a batch as late as the next: no three of them in one
/// window. How exact connects begin, the pace's own tests say.
fn assert_paced(accepted: &[Instant]) {
    assert_eq!(accepted.len(), 1000, "each connects once");
    let most = accepted
        .iter()
        .map(|from| {
            accepted
                .iter()
                .filter(|at| (*from..*from + WINDOW).contains(at))
                .count()
        })
        .max();
    let all = accepted[999] - accepted[0];
    println!("at most {most:?} in 10 ms, all within {all:?}");
    assert!(most.is_some_and(|most| most <= 32), "{most:?}");
    // 1,000 are 63 batches.
    assert!(all >= 60 * WINDOW, "{all:?}");
}

#[tokio::test]
async fn t09_a_thousand_who_wait_for_a_primary_connect_sixteen_in_ten_milliseconds()
-> Result<(), BoxError> {
    assert_paced(&accepted(true).await?);
    Ok(())
}

/// As when one primary follows the other at once, so that nobody waits.
#[tokio::test]
async fn t09_a_thousand_who_find_a_primary_connect_no_faster() -> Result<(), BoxError> {
    assert_paced(&accepted(false).await?);
    Ok(())
}
