//! The PostgreSQL probe against real servers.
//!
//! They come from Debian's packages. Missing servers fail the tests.

#![expect(
    unreachable_pub,
    reason = "nothing is reachable from outside a test; `pub` says what a module offers"
)]

#[path = "../examples/support/mod.rs"]
mod support;

#[path = "support/authority.rs"]
mod authority;

#[path = "postgres_probe/faults.rs"]
mod faults;
#[path = "postgres_probe/logins.rs"]
mod logins;
#[path = "postgres_probe/roles.rs"]
mod roles;
#[path = "postgres_probe/secured.rs"]
mod secured;

use std::{sync::Arc, time::Duration};

use headless_lb::{
    Balancer, Endpoint, Fixed, Observation, Postgres, Probe, ProbeError, probe::PostgresSession,
};
use support::postgres::{Cluster, PASSWORD, Server};
use tokio::time::{Instant, sleep, timeout};

/// More than any answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn probe() -> Postgres {
    Postgres::new("probe").password(PASSWORD)
}

/// A server as discovery finds it.
async fn endpoint(server: &Server) -> Arc<Endpoint> {
    let address = headless_lb::Address::from(server.addr()).named(server.name());
    let found = Balancer::builder(Fixed::new([address])).spawn();
    found.resolved().await.expect("the server answers");
    let found = found.endpoints();
    Arc::clone(found.iter().next().expect("the server answers"))
}

/// As the driver opens: with one limit on all of it. Here a generous one.
async fn open<P: Probe>(
    probe: &P,
    server: &Server,
) -> Result<(P::Session, Option<Observation>), ProbeError> {
    let endpoint = endpoint(server).await;
    let opening = timeout(PATIENCE, probe.open(&endpoint)).await;
    opening.expect("an answer")
}

async fn opened(server: &Server) -> (PostgresSession, Observation) {
    let (session, seen) = open(&probe(), server).await.expect("the server answers");
    (session, seen.expect("the server answers"))
}

/// What keeps a session from being opened.
async fn refused<P: Probe>(probe: &P, server: &Server) -> ProbeError {
    open(probe, server).await.err().expect("a refusal")
}

/// The text behind a failure.
fn why(error: &ProbeError) -> String {
    std::error::Error::source(error)
        .expect("the server answers")
        .to_string()
}

/// Asks until the answer is as it should be.
async fn ask_until(
    session: &mut PostgresSession,
    server: &Server,
    right: impl Fn(&Observation) -> bool,
) -> Observation {
    let (probe, endpoint) = (probe(), endpoint(server).await);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = probe
            .observe(&endpoint, session)
            .await
            .expect("the server answers");
        if right(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "still {seen:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
