//! One primary follows the other.

use std::{collections::BTreeMap, pin::pin, sync::Arc, task::Poll, time::Duration};

use futures_util::poll;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    adapters::{Adapters, BoxError, WHERE, WRITE, Way, balancer, builder, sqlstate},
    support::postgres::Cluster,
};

const SECOND: Duration = Duration::from_secs(1);

/// More than a busy machine takes for what should be a few milliseconds.
const SOON: Duration = Duration::from_millis(250);

/// Of two servers that both take writes, the one with the higher timeline is the primary. The sockets to the
/// other stay whole, and its pings pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_no_checkout_is_to_a_deposed_primary_whose_sockets_survive() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let db = balancer(&cluster);
    let old = db.primary().wait(10 * SECOND).await?;
    assert_eq!(old.addr(), cluster.server(0).addr());
    let adapters = Arc::new(Adapters::new(&db, 10 * SECOND));
    adapters.fill().await;
    let mut in_flight = JoinSet::new();
    for way in Way::ALL {
        let adapters = Arc::clone(&adapters);
        in_flight.spawn(async move {
            let ended = adapters.ask(way, "SELECT pg_sleep(60)::text").await;
            (
                way,
                ended.map_err(|error| error.to_string()),
                Instant::now(),
            )
        });
    }
    sleep(SOON).await;
    let old_pool = adapters.sqlx.pool(SECOND).await?;
    assert!(old_pool.size() > 0);

    cluster.server(1).promote().await?;
    timeout(10 * SECOND, old.lost()).await?;
    let lost = Instant::now();
    let new = cluster.server(1).addr().ip().to_string();
    for way in Way::ALL {
        for _ in 0..20 {
            assert_eq!(adapters.ask(way, WRITE).await?, new, "{way:?}");
        }
    }
    while let Some(ended) = timeout(10 * SECOND, in_flight.join_next()).await? {
        let (way, ended, at) = ended?;
        println!("{way:?}: {ended:?}");
        assert!(ended.is_err() && at < lost + SOON, "{way:?}");
    }
    // Also the one that was in use: nobody waits for its answer.
    let closed = async {
        while old_pool.size() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SECOND, closed).await?;
    let refused = old_pool.acquire().await.unwrap_err();
    assert!(matches!(refused, sqlx::Error::PoolClosed), "{refused}");
    // Nothing idle is left there: what remains sleeps on, for nobody has told the server to stop.
    let left =
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = 'app_trust' AND state = 'idle'";
    let session = cluster.server(0).session().await?;
    session
        .until(left, "connections to the old primary are kept")
        .await
}

/// The old primary comes back as a standby, at its address, while programs write all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_g05_in_a_switchover_no_checkout_meets_a_standby() -> Result<(), BoxError> {
    let mut cluster = Cluster::start().await?;
    let db = balancer(&cluster);
    db.primary().wait(10 * SECOND).await?;
    let adapters = Arc::new(Adapters::new(&db, 10 * SECOND));
    adapters.fill().await;
    let (stop, stopped) = watch::channel(false);
    let mut programs = JoinSet::new();
    for way in Way::ALL {
        programs.spawn(write_until(stopped.clone(), Arc::clone(&adapters), way));
    }
    sleep(SOON).await;

    cluster.server_mut(0).stop().await?;
    cluster.server(1).promote().await?;
    let promoted = Instant::now();
    cluster.rejoin(0, 1).await?;
    sleep(2 * SECOND).await;
    stop.send_replace(true);
    let new = cluster.server(1).addr().ip().to_string();
    while let Some(log) = programs.join_next().await {
        let log = log?;
        println!("{log:?}, promoted {:?} ago", promoted.elapsed());
        assert!(!log.errors.contains_key("25006"), "{log:?}");
        assert_eq!(log.places.len(), 2, "{log:?}");
        assert_eq!(
            log.places.last().map(|place| &place.0),
            Some(&new),
            "{log:?}"
        );
        // Only what the server ended while it stopped, and nothing once the new one was found.
        let by_server = |kind: &&String| kind.len() != 5 || kind.starts_with("57P0");
        assert!(log.errors.keys().all(|kind| by_server(&kind)), "{log:?}");
        assert_eq!(log.late, 0, "{log:?}");
    }
    Ok(())
}

/// What a program saw.
#[derive(Debug)]
struct Log {
    #[expect(dead_code, reason = "shown")]
    way: Way,
    /// Who took its writes, one after the other, and how many.
    places: Vec<(String, u32)>,
    /// By SQLSTATE, or by text.
    errors: BTreeMap<String, u32>,
    /// Of these, how many after the first write to another server.
    late: u32,
}

async fn write_until(stopped: watch::Receiver<bool>, adapters: Arc<Adapters>, way: Way) -> Log {
    let mut log = Log {
        way,
        places: Vec::new(),
        errors: BTreeMap::new(),
        late: 0,
    };
    while !*stopped.borrow() {
        match adapters.ask(way, WRITE).await {
            Ok(place) => match log.places.last_mut() {
                Some((last, count)) if *last == place => *count += 1,
                _ => log.places.push((place, 1)),
            },
            Err(error) => {
                let kind = sqlstate(&*error).unwrap_or_else(|| error.to_string());
                *log.errors.entry(kind).or_default() += 1;
                log.late += u32::from(log.places.len() > 1);
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    log
}

/// Before any task had its turn to close a connection: the epoch alone is moved, by the end of discovery.
#[tokio::test]
async fn a_checkout_in_the_moment_of_the_loss_gets_no_connection() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let (db, driver) = builder(&cluster).build();
    let adapters = Adapters::new(&db, 10 * SECOND);
    let mut driver = Box::pin(driver);
    let old_pool = tokio::select! {
        () = &mut driver => return Err("discovery has ended".into()),
        old_pool = async {
            adapters.fill().await;
            let pool = adapters.sqlx.pool(SECOND).await;
            // It takes connections back in the background.
            while pool.as_ref().is_ok_and(|pool| pool.num_idle() == 0) {
                sleep(Duration::from_millis(1)).await;
            }
            pool
        } => old_pool?,
    };
    assert!(adapters.deadpool.status().available > 0);
    assert!(adapters.bb8.state().idle_connections > 0);
    assert!(old_pool.num_idle() > 0);

    drop(driver);
    let deadpool = poll!(pin!(adapters.deadpool.get()));
    assert!(!matches!(deadpool, Poll::Ready(Ok(_))));
    let bb8 = poll!(pin!(adapters.bb8.get()));
    assert!(!matches!(bb8, Poll::Ready(Ok(_))));
    let sqlx = poll!(pin!(old_pool.acquire()));
    assert!(!matches!(sqlx, Poll::Ready(Ok(_))));
    Ok(())
}

/// A crash and a restart in the same role: the connections died with the server, and it is the same primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_backend_costs_what_was_in_flight_and_no_checkout() -> Result<(), BoxError> {
    let cluster = Cluster::start().await?;
    let db = balancer(&cluster);
    let before = db.primary().wait(10 * SECOND).await?;
    let adapters = Adapters::new(&db, 10 * SECOND);
    adapters.fill().await;
    cluster.server(0).kill_backend().await?;
    timeout(10 * SECOND, before.lost()).await?;
    let place = cluster.server(0).addr().ip().to_string();
    for way in Way::ALL {
        let asked = async {
            loop {
                match adapters.ask(way, WHERE).await {
                    Ok(place) => return place,
                    Err(error) => println!("{way:?}: {error}"),
                }
            }
        };
        assert_eq!(timeout(10 * SECOND, asked).await?, place, "{way:?}");
    }
    let after = db.primary().get()?;
    assert_eq!(after.generation(), before.generation());
    Ok(())
}

/// Its kernel goes on accepting connections, and answers nothing; when it wakes it believes that it is the primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_primary_holds_up_no_checkout_and_gets_none_when_it_wakes() -> Result<(), BoxError>
{
    let cluster = Cluster::start().await?;
    let db = balancer(&cluster);
    let old = db.primary().wait(10 * SECOND).await?;
    let adapters = Arc::new(Adapters::new(&db, 10 * SECOND));
    adapters.fill().await;
    cluster.server(0).freeze()?;
    let mut waiting = JoinSet::new();
    for way in Way::ALL {
        let adapters = Arc::clone(&adapters);
        // The first is in flight when the server stops.
        waiting.spawn(async move {
            let first = adapters.ask(way, WRITE).await.map_err(|e| e.to_string());
            let second = adapters.ask(way, WRITE).await.map_err(|e| e.to_string());
            (way, first, second)
        });
    }
    timeout(10 * SECOND, old.lost()).await?;
    cluster.server(1).promote().await?;
    let new = cluster.server(1).addr().ip().to_string();
    while let Some(ended) = timeout(10 * SECOND, waiting.join_next()).await? {
        let (way, first, second) = ended?;
        println!("{way:?}: {first:?}, then {second:?}");
        assert!(first.is_err(), "{way:?}: {first:?}");
        assert_eq!(second.as_ref(), Ok(&new), "{way:?}");
    }
    cluster.server(0).thaw()?;
    for _ in 0..50 {
        for way in Way::ALL {
            assert_eq!(adapters.ask(way, WRITE).await?, new, "{way:?}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
