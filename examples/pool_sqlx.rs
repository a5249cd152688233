//! A pool of sqlx for each primary, through a switchover.
//!
//! `cargo run --all-features --example pool_sqlx`. Look at the strips: no write goes to pg-0 after it stopped, though it
//! comes back at its address as a standby. The program asks for the pool each time, and lets it run its work, so
//! that what is in flight ends with the reign.
//!
//! Needs Linux and Debian's package `postgresql`, but neither root nor a running database.

mod support;

use std::{process::ExitCode, time::Duration};

use headless_lb::{Balancer, Fixed, Postgres, SqlxPrimary};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use support::{
    Result, outcome,
    postgres::{Cluster, PASSWORD},
    switchover::{Outcome, WRITE, switchover},
};

#[tokio::main]
async fn main() -> ExitCode {
    outcome("pool_sqlx", run().await)
}

async fn run() -> Result<Outcome> {
    // The cluster: nothing of this is in your program.
    let mut cluster = Cluster::start().await?;

    // The program. In a cluster: `Dns::srv("_postgres._tcp.pg.prod.svc.cluster.local")`.
    let db = Balancer::builder(Fixed::new(cluster.addresses()))
        .probe(Postgres::new("probe").password(PASSWORD))
        .spawn();
    let login = PgConnectOptions::new()
        .username("app")
        .password(PASSWORD)
        .database("postgres");
    let primary = SqlxPrimary::spawn(db.primary(), login, PgPoolOptions::new());

    switchover(&mut cluster, async || {
        let pool = primary.pool(Duration::from_secs(10)).await?;
        let write = sqlx::query_scalar(WRITE).fetch_one(&*pool);
        Ok(pool.run(write).await??)
    })
    .await
}
