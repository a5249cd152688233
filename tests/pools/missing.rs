//! No primary, or one that is none.

use std::time::Duration;

use bb8::RunError;
use headless_lb::{NoPrimary, NoPrimaryKind, PgConnectError, PgConnector, SqlxPrimary};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::{
    io::copy_bidirectional,
    net::{TcpStream, UnixListener},
    time::{Instant, sleep, timeout},
};
use tokio_postgres::NoTls;

use crate::{
    adapters::{Adapters, BoxError, WHERE, Way, cause, config},
    believed::{Believed, NONE},
    support::postgres::{Cluster, PASSWORD},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// As when a node was demoted and restarted within one interval of the probe.
#[tokio::test]
async fn t01_a_connect_that_lands_on_a_standby_is_not_handed_out() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let believed = Believed::in_primary(1);
    let db = believed.balancer(cluster.addresses());
    db.primary().wait(SECOND).await?;
    let impatient = Adapters::new(&db, SECOND);
    let error = impatient.connector.connect().await.unwrap_err();
    assert!(matches!(error, PgConnectError::Standby(_)), "{error}");
    for way in [Way::Kept, Way::Deadpool, Way::Bb8] {
        let error = impatient.ask(way, WHERE).await.unwrap_err();
        println!("{way:?}: {error:?}");
    }
    let sqlx = timeout(SECOND, impatient.ask(Way::Sqlx, WHERE)).await;
    assert!(sqlx.is_err(), "{sqlx:?}");

    // Whoever waits goes to the true one as soon as it is known.
    let patient = Adapters::new(&db, 10 * SECOND);
    let place = cluster.server(0).addr().ip().to_string();
    for way in Way::ALL {
        believed.set(1);
        sleep(150 * MILLISECOND).await;
        let (asked, ()) = tokio::join!(patient.ask(way, WHERE), async {
            sleep(200 * MILLISECOND).await;
            believed.set(0);
        });
        match asked {
            Ok(asked) => assert_eq!(asked, place, "{way:?}"),
            // Its program is told that nothing was written.
            Err(error) => assert_eq!(way, Way::Sqlx, "{error}"),
        }
        assert_eq!(patient.ask(way, WHERE).await?, place, "{way:?}");
    }
    Ok(())
}

#[tokio::test]
async fn without_a_primary_each_pool_says_so_and_why() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let db = Believed::in_primary(NONE).balancer(cluster.addresses());
    let within = 200 * MILLISECOND;
    let adapters = Adapters::new(&db, within);
    for way in [Way::Kept, Way::Deadpool, Way::Sqlx] {
        let start = Instant::now();
        let error = adapters.ask(way, WHERE).await.unwrap_err();
        assert!(start.elapsed() < SECOND, "{way:?}");
        let missing = cause::<NoPrimary>(&*error);
        let missing = missing.unwrap_or_else(|| panic!("{way:?}: {error:?}"));
        assert_eq!(missing.kind(), NoPrimaryKind::TimedOut(within));
        for server in cluster.servers() {
            let text = missing.to_string();
            assert!(text.contains(server.name()), "{text}");
        }
    }
    let error = adapters.bb8.get().await.unwrap_err();
    assert!(matches!(error, RunError::TimedOut), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once_and_a_port_of_its_own_refused() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let db = Believed::in_primary(0).balancer(cluster.addresses());
    let start = Instant::now();
    let connector = |config| PgConnector::new(db.primary(), config, NoTls);
    let mut wrong = config();
    wrong.user("app").password("wrong");
    let error = connector(wrong).connect().await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("pg-0") && text.contains("password"), "{text}");
    let mut elsewhere = config();
    elsewhere.port(6432);
    let error = connector(elsewhere).connect().await.unwrap_err();
    assert!(matches!(error, PgConnectError::Config(_)), "{error}");
    let mut same = config();
    same.host("pg.prod.svc.cluster.local")
        .port(cluster.server(0).addr().port());
    connector(same)
        .connect()
        .await?
        .simple_query("SELECT 1")
        .await?;
    assert!(start.elapsed() < 5 * SECOND);
    Ok(())
}

/// A login may bring a Unix socket (`postgres://%2Frun%2Fpostgresql/shop`), before which sqlx looks at no host.
#[tokio::test]
async fn t01_a_pool_of_sqlx_over_a_unix_socket_gives_no_connection() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let db = Believed::in_primary(0).balancer(cluster.addresses());
    let addr = cluster.server(0).addr();
    let place = tempfile::tempdir()?;
    let path = place.path().join(format!(".s.PGSQL.{}", addr.port()));
    let listener = UnixListener::bind(path)?;
    // Another server, for all that anybody knows; it takes writes.
    let served = async {
        let (mut local, _) = listener.accept().await?;
        let mut remote = TcpStream::connect(addr).await?;
        copy_bidirectional(&mut local, &mut remote).await
    };
    let login = PgConnectOptions::new()
        .username("app")
        .password(PASSWORD)
        .database("postgres")
        .socket(place.path());
    let primary = SqlxPrimary::spawn(db.primary(), login, PgPoolOptions::new());
    let pool = primary.pool(10 * SECOND).await?;
    let asked = tokio::select! {
        asked = timeout(SECOND, pool.acquire()) => asked?,
        _ = served => return Err("a connection to nobody knows whom".into()),
    };
    assert!(matches!(asked, Err(sqlx::Error::Io(_))), "{asked:?}");
    Ok(())
}
