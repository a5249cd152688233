//! What it costs while nothing happens, and while a server hangs.

use std::{fs, hint::black_box, time::Duration};

use headless_lb::{Address, Balancer, Dns};
use tokio::time::{Instant, sleep};

use crate::{
    support::{
        ClusterDns, Result,
        postgres::{Cluster, Network, Relay, Session},
    },
    trial::{APP, NAME, PATIENCE, PROBE, SERVICE, probe},
};

const WATCHED: Duration = Duration::from_secs(5);

/// Longer than the probes of a server that hangs take to fail.
const HANGS: Duration = Duration::from_secs(2);

/// Numbers of a cluster to which nothing happens.
#[derive(Debug)]
pub(crate) struct Steady {
    /// Messages to one server, and its time for each.
    pub(crate) probes_a_second: f64,
    pub(crate) server_time: Duration,
    /// Connections to one server.
    pub(crate) connections: u32,
    /// Of asking who the primary is, and whether it still is, in nanoseconds.
    pub(crate) view: f64,
    pub(crate) is_current: f64,
    /// Medians of waiting for the primary and of a connect to it, before and while another server hangs.
    pub(crate) before: (Duration, Duration),
    pub(crate) hanging: (Duration, Duration),
}

impl Steady {
    pub(crate) async fn measure(network: Network) -> Result<Self> {
        let cluster = Cluster::start_on(network).await?;
        // Nobody but the probe goes through this one.
        let relay = cluster.relay(2).await?;
        let mut addresses = cluster.addresses();
        addresses[2] = Address::from(relay.addr()).named("pg-2");
        let dns = ClusterDns::start().await?.ttl(1);
        dns.service(SERVICE).ready(addresses);
        let source = Dns::srv(NAME)?.name_servers([dns.addr()]);
        let db = Balancer::builder(source).probe(probe()).spawn();
        db.primary().wait(PATIENCE).await?;
        sleep(Duration::from_secs(1)).await;

        let (probes_a_second, server_time, connections) = probes(&cluster, &relay).await?;
        let (view, is_current) = reads(&db)?;
        let before = connects(&db).await?;
        cluster.server(2).freeze()?;
        sleep(HANGS).await;
        let hanging = connects(&db).await?;
        Ok(Self {
            probes_a_second,
            server_time,
            connections,
            view,
            is_current,
            before,
            hanging,
        })
    }
}

/// Messages a second, the server's time for each, and connections.
async fn probes(cluster: &Cluster, relay: &Relay) -> Result<(f64, Duration, u32)> {
    let session = cluster.server(2).session().await?;
    let backends = format!("FROM pg_stat_activity WHERE usename = '{PROBE}'");
    let connections = session.text(&format!("SELECT count(*) {backends}")).await?;
    let pid = session.text(&format!("SELECT min(pid) {backends}")).await?;
    // Its first field is the time on a processor, in nanoseconds.
    let on_cpu = || -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
        Ok(stat.split(' ').next().unwrap_or_default().parse()?)
    };
    let (asked, busy, begin) = (relay.asked(), on_cpu()?, Instant::now());
    sleep(WATCHED).await;
    let (asked, busy) = (relay.asked() - asked, on_cpu()? - busy);
    Ok((
        asked as f64 / begin.elapsed().as_secs_f64(),
        Duration::from_nanos(busy / asked.max(1)),
        connections.parse()?,
    ))
}

/// Nanoseconds of `primary().get()` and of `is_current()`: the best of several rounds, since others run too.
fn reads(db: &Balancer) -> Result<(f64, f64)> {
    const CALLS: u32 = 100_000;
    let best = |call: &dyn Fn()| {
        let rounds = (0..10).map(|_| {
            let begin = Instant::now();
            call();
            begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS)
        });
        rounds.fold(f64::INFINITY, f64::min)
    };
    let (view, primary) = (db.primary(), db.primary().get()?);
    let get = best(&|| {
        for _ in 0..CALLS {
            black_box(black_box(&view).get().is_ok());
        }
    });
    let is_current = best(&|| {
        for _ in 0..CALLS {
            black_box(black_box(&primary).is_current());
        }
    });
    Ok((get, is_current))
}

/// The medians of waiting for the primary, and of a connect to it.
async fn connects(db: &Balancer) -> Result<(Duration, Duration)> {
    const CONNECTS: usize = 41;
    let (mut waits, mut connects) = (Vec::new(), Vec::new());
    for _ in 0..CONNECTS {
        let begin = Instant::now();
        let primary = db.primary().wait(PATIENCE).await?;
        waits.push(begin.elapsed());
        let begin = Instant::now();
        Session::open(primary.addr(), APP).await?;
        connects.push(begin.elapsed());
    }
    waits.sort_unstable();
    connects.sort_unstable();
    Ok((waits[CONNECTS / 2], connects[CONNECTS / 2]))
}
