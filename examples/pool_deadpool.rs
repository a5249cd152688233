//! A pool of deadpool-postgres whose connections are to the primary, through a switchover.
//!
//! `cargo run --all-features --example pool_deadpool`. Look at the strips: no write goes to pg-0 after it stopped,
//! though it comes back at its address as a standby; and no checkout asks the server anything.
//!
//! Needs Linux and Debian's package `postgresql`, but neither root nor a running database.

mod support;

use std::process::ExitCode;

use deadpool_postgres::ManagerConfig;
use headless_lb::{Balancer, Fixed, PgConnector, Postgres};
use support::{
    Result, outcome,
    postgres::{Cluster, PASSWORD},
    switchover::{Outcome, WRITE, switchover},
};
use tokio_postgres::{Config, NoTls};

#[tokio::main]
async fn main() -> ExitCode {
    outcome("pool_deadpool", run().await)
}

async fn run() -> Result<Outcome> {
    // The cluster: nothing of this is in your program.
    let mut cluster = Cluster::start().await?;

    // The program. In a cluster: `Dns::srv("_postgres._tcp.pg.prod.svc.cluster.local")`.
    let db = Balancer::builder(Fixed::new(cluster.addresses()))
        .probe(Postgres::new("probe").password(PASSWORD))
        .spawn();
    let mut login = Config::new();
    login.user("app").password(PASSWORD).dbname("postgres");
    let primary = PgConnector::new(db.primary(), login, NoTls);
    let pool = primary.deadpool(ManagerConfig::default()).build()?;

    switchover(&mut cluster, async || {
        let client = pool.get().await?;
        let statement = client.prepare_cached(WRITE).await?;
        Ok(client.query_one(&statement, &[]).await?.try_get(0)?)
    })
    .await
}
