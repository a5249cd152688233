//! A program's four ways to the primary, as one.

use std::{error::Error, time::Duration};

use deadpool_postgres::ManagerConfig;
use headless_lb::{Balancer, Fixed, PgClient, PgConnector, Postgres, SqlxPrimary};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::Mutex;
use tokio_postgres::{Config, NoTls};

use crate::support::postgres::{Cluster, PASSWORD};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Where the connection is to, and whether that one takes writes.
pub(crate) const WRITE: &str = "INSERT INTO writes (id) VALUES ((random() * 1e15)::bigint) \
     RETURNING host(inet_server_addr())";

pub(crate) const WHERE: &str = "SELECT host(inet_server_addr())";

/// How a program comes to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One connection of tokio-postgres, kept and exchanged when it is not current any more.
    Kept,
    Deadpool,
    Bb8,
    Sqlx,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Kept, Self::Deadpool, Self::Bb8, Self::Sqlx];
}

/// All ways of one program.
#[derive(Debug)]
pub(crate) struct Adapters {
    pub(crate) connector: PgConnector<NoTls>,
    kept: Mutex<Option<PgClient>>,
    pub(crate) deadpool: deadpool_postgres::Pool,
    pub(crate) bb8: bb8::Pool<PgConnector<NoTls>>,
    pub(crate) sqlx: SqlxPrimary,
    within: Duration,
}

impl Adapters {
    /// As `app`, which waits so long for a primary.
    pub(crate) fn new(db: &Balancer, within: Duration) -> Self {
        let connector = PgConnector::new(db.primary(), config(), NoTls).within(within);
        let deadpool = connector.clone().deadpool(ManagerConfig::default());
        let login = PgConnectOptions::new_without_pgpass()
            .username("app")
            .password(PASSWORD)
            .database("postgres");
        let options = PgPoolOptions::new()
            .max_connections(8)
            .test_before_acquire(false);
        Self {
            kept: Mutex::default(),
            deadpool: deadpool
                .max_size(8)
                .build()
                .expect("no timeouts, so no runtime"),
            bb8: bb8::Pool::builder()
                .max_size(8)
                .connection_timeout(within)
                .build_unchecked(connector.clone()),
            connector,
            sqlx: SqlxPrimary::spawn(db.primary(), login, options),
            within,
        }
    }

    /// One statement on a connection that is handed out for it; its answer as text.
    pub(crate) async fn ask(&self, way: Way, statement: &str) -> Result<String, BoxError> {
        match way {
            Way::Kept => {
                let mut kept = self.kept.lock().await;
                if kept.as_ref().is_none_or(|client| !client.is_current()) {
                    *kept = Some(self.connector.connect().await?);
                }
                let client = kept.as_ref().ok_or("just connected")?;
                Ok(client.query_one(statement, &[]).await?.try_get(0)?)
            }
            Way::Deadpool => {
                let client = self.deadpool.get().await?;
                Ok(client.query_one(statement, &[]).await?.try_get(0)?)
            }
            Way::Bb8 => {
                let client = self.bb8.get().await?;
                Ok(client.query_one(statement, &[]).await?.try_get(0)?)
            }
            Way::Sqlx => {
                let pool = self.sqlx.pool(self.within).await?;
                let statement = sqlx::query_scalar(statement).fetch_one(&*pool);
                Ok(pool.run(statement).await??)
            }
        }
    }

    /// Has four connections idle in each pool, and one kept.
    pub(crate) async fn fill(&self) {
        for way in Way::ALL {
            let hold = || self.ask(way, "SELECT pg_sleep(0.1)::text");
            let held = tokio::join!(hold(), hold(), hold(), hold());
            assert!(held.0.is_ok() && held.3.is_ok(), "{way:?}: {held:?}");
        }
    }
}

/// Who `app` is.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config.user("app").password(PASSWORD).dbname("postgres");
    config
}

/// The servers behind the library, asked by its probe.
pub(crate) fn balancer(cluster: &Cluster) -> Balancer {
    Balancer::builder(Fixed::new(cluster.addresses()))
        .probe(Postgres::new("probe").password(PASSWORD))
        .spawn()
}

/// The first error of type `E` in the chain of causes.
pub(crate) fn cause<'e, E: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e E> {
    std::iter::successors(Some(error), |error| (*error).source())
        .find_map(|error| error.downcast_ref())
}

/// What PostgreSQL said, if it was that.
pub(crate) fn sqlstate(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = cause::<tokio_postgres::error::DbError>(error) {
        return Some(error.code().code().to_owned());
    }
    let error = cause::<sqlx::Error>(error)?.as_database_error()?;
    Some(error.code()?.into_owned())
}
