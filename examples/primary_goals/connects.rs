//! G3: what a connect costs while another node hangs.

use std::time::Duration;

use headless_lb::{Balancer, Fixed};
use tokio::time::{Instant, sleep};

use crate::{
    goal::{Goal, Times, ms},
    support::{
        Result,
        postgres::{Cluster, Session},
    },
    trial::{PATIENCE, probe},
};

/// Two timeouts of the probe and two intervals: then the library knows.
const NOTICED: Duration = Duration::from_millis(1500);

/// Rounds with and without a node that hangs, in turn: what else the machine does befalls both.
const ROUNDS: u32 = 4;

/// So many connects in each round.
pub(crate) async fn measure(connects: u32) -> Result<Goal> {
    let cluster = Cluster::start().await?;
    let db = Balancer::builder(Fixed::new(cluster.addresses()))
        .probe(probe())
        .spawn();
    db.primary().wait(PATIENCE).await?;
    let (mut healthy, mut hung, mut waits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        connect(&db, connects, &mut healthy, &mut waits).await?;
        cluster.server(2).freeze()?;
        // Both before and after it is noticed.
        connect(&db, connects / 2, &mut hung, &mut waits).await?;
        sleep(NOTICED).await;
        connect(&db, connects / 2, &mut hung, &mut waits).await?;
        cluster.server(2).thaw()?;
        sleep(NOTICED).await;
    }
    let [healthy, hung, waits]: [Times; 3] =
        [healthy, hung, waits].map(|times| times.into_iter().collect());
    let median = |times: &Times| times.median().map_or(f64::NAN, ms);
    let added = median(&hung) - median(&healthy);
    let wait = waits.p99().map_or(f64::NAN, ms);
    Ok(Goal {
        number: 3,
        what: "connect while a node hangs: added; wait",
        target: "1 ms; 1 ms",
        is_met: added < 1.0 && wait < 1.0,
        measured: format!(
            "{added:+.2} ms to {:.1} ms; p99 {wait:.3} ms, n {}",
            median(&healthy),
            hung.len()
        ),
    })
}

async fn connect(
    db: &Balancer,
    times: u32,
    connects: &mut Vec<Duration>,
    waits: &mut Vec<Duration>,
) -> Result<()> {
    for _ in 0..times {
        let begin = Instant::now();
        let primary = db.primary().wait(PATIENCE).await?;
        waits.push(begin.elapsed());
        let session = Session::open(primary.addr(), "app_trust").await?;
        connects.push(begin.elapsed());
        drop(session);
    }
    Ok(())
}
