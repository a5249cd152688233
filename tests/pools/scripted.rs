//! Switches at moments that no real server lets a test choose.

use std::{pin::pin, time::Duration};

use futures_util::poll;
use headless_lb::{Balancer, PgConnector, SqlxPrimary};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{
    task::yield_now,
    time::{sleep, timeout},
};
use tokio_postgres::NoTls;

use crate::{
    adapters::{BoxError, config},
    believed::{Believed, NONE},
    greeter::Greeter,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Two servers, of which the first is the primary.
async fn pair(greets: bool) -> Result<(Greeter, Greeter, Believed, Balancer), BoxError> {
    let (old, new) = (Greeter::start(greets).await?, Greeter::start(true).await?);
    let believed = Believed::in_primary(0);
    let db = believed.balancer(vec![old.addr.into(), new.addr.into()]);
    db.primary().wait(SECOND).await?;
    Ok((old, new, believed, db))
}

async fn switched_to(db: &Balancer, new: &Greeter) -> Result<(), BoxError> {
    while db.primary().wait(SECOND).await?.addr() != new.addr {
        sleep(MILLISECOND).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_connect_that_hangs_when_its_primary_is_lost_goes_to_the_next() -> Result<(), BoxError> {
    let (mut old, new, believed, db) = pair(false).await?;
    let connector = PgConnector::new(db.primary(), config(), NoTls);
    let (client, ()) = tokio::join!(connector.connect(), async {
        old.accepted.recv().await;
        believed.set(1);
    });
    assert_eq!(client?.writer().addr(), new.addr);
    timeout(SECOND, old.left()).await?;
    Ok(())
}

/// Both have happened when the program looks again: the server has greeted, and the primary is another.
#[tokio::test]
async fn a_connect_that_straddled_a_switch_is_dropped() -> Result<(), BoxError> {
    let (mut old, new, believed, db) = pair(false).await?;
    let connector = PgConnector::new(db.primary(), config(), NoTls);
    let mut connect = pin!(connector.connect());
    loop {
        assert!(poll!(&mut connect).is_pending());
        if timeout(MILLISECOND, old.accepted.recv()).await.is_ok() {
            break;
        }
    }
    // It sends its startup message.
    assert!(poll!(&mut connect).is_pending());
    believed.set(1);
    switched_to(&db, &new).await?;
    old.greets.send_replace(true);
    sleep(50 * MILLISECOND).await;
    assert_eq!(connect.await?.writer().addr(), new.addr);
    timeout(SECOND, old.left()).await?;
    Ok(())
}

#[tokio::test]
async fn a_statement_that_is_begun_after_the_loss_is_never_sent() -> Result<(), BoxError> {
    let (old, _new, believed, db) = pair(true).await?;
    let connector = PgConnector::new(db.primary(), config(), NoTls);
    for _ in 0..20 {
        believed.set(0);
        while db.primary().wait(SECOND).await?.addr() != old.addr {
            sleep(MILLISECOND).await;
        }
        let client = connector.connect().await?;
        believed.set(1);
        while client.writer().is_current() {
            yield_now().await;
        }
        let error = timeout(SECOND, client.simple_query("INSERT")).await?;
        assert!(error.unwrap_err().is_closed());
        timeout(SECOND, old.left()).await?;
    }
    assert_eq!(old.heard(), 0);
    Ok(())
}

fn sqlx_primary(db: &Balancer) -> SqlxPrimary {
    let login = PgConnectOptions::new_without_pgpass();
    SqlxPrimary::spawn(db.primary(), login, PgPoolOptions::new())
}

#[tokio::test]
async fn a_pool_of_sqlx_is_exchanged_although_nobody_asks_for_one() -> Result<(), BoxError> {
    let (_old, new, believed, db) = pair(true).await?;
    let primary = sqlx_primary(&db);
    let first = primary.pool(SECOND).await?;
    assert_eq!(
        primary.pool(SECOND).await?.writer().epoch(),
        first.writer().epoch()
    );
    believed.set(1);
    timeout(SECOND, first.close_event()).await?;
    let second = primary.pool(SECOND).await?;
    assert_eq!(second.writer().addr(), new.addr);
    assert!(!second.is_closed());
    // Lost, with nobody to follow.
    believed.set(NONE);
    timeout(SECOND, second.close_event()).await?;
    primary.pool(100 * MILLISECOND).await.unwrap_err();
    Ok(())
}

#[tokio::test]
async fn discovery_ends_with_the_last_handle_and_the_last_connection() -> Result<(), BoxError> {
    let (_old, _new, believed, db) = pair(true).await?;
    let connector = PgConnector::new(db.primary(), config(), NoTls);
    let client = connector.connect().await?;
    let primary = sqlx_primary(&db);
    let pool = primary.pool(SECOND).await?;
    drop((db, connector, primary));
    sleep(200 * MILLISECOND).await;
    assert!(believed.is_asked(), "a connection and a pool are left");
    drop((client, pool));
    let ended = async {
        while believed.is_asked() {
            sleep(MILLISECOND).await;
        }
    };
    timeout(SECOND, ended).await?;
    Ok(())
}
