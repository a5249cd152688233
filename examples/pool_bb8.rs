//! A pool of bb8 whose connections are to the primary, through a switchover.
//!
//! `cargo run --all-features --example pool_bb8`. Look at the strips: no write goes to pg-0 after it stopped, though it
//! comes back at its address as a standby; and no checkout asks the server anything.
//!
//! Needs Linux and Debian's package `postgresql`, but neither root nor a running database.

mod support;

use std::process::ExitCode;

use headless_lb::{Balancer, Fixed, PgConnector, Postgres};
use support::{
    Result, outcome,
    postgres::{Cluster, PASSWORD},
    switchover::{Outcome, WRITE, switchover},
};
use tokio_postgres::{Config, NoTls};

#[tokio::main]
async fn main() -> ExitCode {
    outcome("pool_bb8", run().await)
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
    let pool = bb8::Pool::builder().build(primary).await?;

    switchover(&mut cluster, async || {
        let client = pool.get().await?;
        let written = client.query_one(WRITE, &[]).await;
        if let Err(error) = &written {
            client.report(error); // the probes look at once
        }
        Ok(written?.try_get(0)?)
    })
    .await
}
