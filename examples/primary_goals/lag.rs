//! G10: how far behind a standby is, in bytes and in time, against what the servers say.

use std::{sync::Arc, time::Duration};

use headless_lb::{Balancer, Endpoint, Fixed};
use tokio::time::{Instant, sleep};

use crate::{
    goal::{Goal, ms},
    support::{
        Result,
        postgres::{Cluster, Session},
    },
    trial::{PATIENCE, probe},
};

/// The probe's interval at its longest, and its round trip on a busy machine.
const ONE_PROBE: Duration = Duration::from_millis(350);

/// How long the primary is idle, and how often the lag is looked at meanwhile.
const IDLE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(10);

const WRITE: &str = "INSERT INTO writes (id) SELECT max(id) + n FROM writes, generate_series(1, 50000) AS n GROUP BY n";

pub(crate) async fn measure() -> Result<Goal> {
    let cluster = Cluster::start().await?;
    let db = Balancer::builder(Fixed::new(cluster.addresses()))
        .probe(probe())
        .spawn();
    db.primary().wait(PATIENCE).await?;
    let (fresh, dead) = (endpoint(&db, "pg-1")?, endpoint(&db, "pg-2")?);
    // Whoever asks makes the probe look each time.
    let _ = (fresh.lag_bytes(), dead.lag_bytes());
    let primary = cluster.server(0).session().await?;
    primary
        .execute("INSERT INTO writes (id) VALUES (1)")
        .await?;
    cluster.caught_up(1, 0).await?;
    cluster.caught_up(2, 0).await?;
    cluster.server(2).stop_receiver().await?;
    sleep(2 * ONE_PROBE).await;

    let missing = Instant::now();
    primary.execute(WRITE).await?;
    let written = Instant::now();
    let standby = cluster.server(2).session().await?;
    let exact = exact_after(&dead, &primary, &standby).await?;
    cluster.caught_up(1, 0).await?;
    sleep(ONE_PROBE).await;

    // The primary writes nothing now. A lag is as of the last question, so it is judged when it moves.
    let (mut off, mut of_the_fresh) = (Duration::ZERO, Duration::ZERO);
    let (mut is_known, mut before) = (true, dead.lag());
    let end = Instant::now() + IDLE;
    while Instant::now() < end {
        sleep(LOOK).await;
        let (Some(behind), Some(fresh)) = (dead.lag(), fresh.lag()) else {
            is_known = false;
            continue;
        };
        of_the_fresh = of_the_fresh.max(fresh);
        if before.replace(behind) != Some(behind) {
            // The first row that it lacks was written between these two moments.
            let (most, least) = (missing.elapsed(), written.elapsed());
            let early = least.saturating_sub(behind + LOOK);
            off = off.max(early).max(behind.saturating_sub(most));
        }
    }
    let bytes = dead.lag_bytes();
    let in_time = exact.is_some_and(|after| after <= ONE_PROBE);
    Ok(Goal {
        number: 10,
        what: "lag of a dead receiver: bytes exact after; time off by",
        target: "one probe (350 ms); one interval (350 ms)",
        is_met: in_time && is_known && off <= ONE_PROBE && of_the_fresh.is_zero(),
        measured: match (exact, is_known) {
            (Some(exact), true) => format!(
                "{:.0} ms ({} bytes); {:.0} ms; idle and fresh: {:.0} ms",
                ms(exact),
                bytes.unwrap_or(0),
                ms(off),
                ms(of_the_fresh)
            ),
            (Some(exact), false) => format!("{:.0} ms; unknown now and then", ms(exact)),
            (None, _) => "never".to_owned(),
        },
    })
}

/// How long it took until the library said what the servers say.
async fn exact_after(
    dead: &Arc<Endpoint>,
    primary: &Session,
    standby: &Session,
) -> Result<Option<Duration>> {
    let begin = Instant::now();
    let replayed = standby
        .text("SELECT pg_last_wal_replay_lsn()::text")
        .await?;
    while begin.elapsed() < PATIENCE {
        // Idle, it writes something now and then all the same.
        let query = format!("SELECT (pg_current_wal_lsn() - '{replayed}'::pg_lsn)::text");
        let truth: u64 = primary.text(&query).await?.parse()?;
        if dead.lag_bytes() == Some(truth) {
            return Ok(Some(begin.elapsed()));
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(None)
}

fn endpoint(db: &Balancer, name: &str) -> Result<Arc<Endpoint>> {
    let endpoints = db.endpoints();
    let found = endpoints
        .iter()
        .find(|endpoint| endpoint.name() == Some(name));
    Ok(Arc::clone(found.ok_or("a server is missing")?))
}
