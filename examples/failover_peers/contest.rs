//! One fault, and all clients at once on the same servers.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use headless_lb::{Address, Balancer, Dns};
use tokio::time::{Instant, sleep_until};

use crate::{
    client::{Ending, Log, Program},
    fault::Fault,
    multi_host,
    peer::{NUMBERS, Peer},
    script::{self, Connections},
    support::{
        ClusterDns, Result,
        postgres::{Cluster, Network},
    },
    trial::{NAME, PATIENCE, SERVICE, Stage, Story, probe},
};

/// Every client writes so many rows before the fault: a trial in which one does not says nothing.
const BEFORE: usize = 50;

/// A usual limit on a connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Who takes part beside the library: only if psycopg is installed, the first three.
const PEERS: [(&str, Kind); 5] = [
    ("psycopg", Kind::Script(Connections::Held, None)),
    (
        "psycopg, connect_timeout=2",
        Kind::Script(Connections::Held, Some(CONNECT_TIMEOUT)),
    ),
    (
        "libpq, a connection per write, connect_timeout=2",
        Kind::Script(Connections::Each, Some(CONNECT_TIMEOUT)),
    ),
    ("tokio-postgres", Kind::Driver(None)),
    (
        "tokio-postgres, connect_timeout=2",
        Kind::Driver(Some(CONNECT_TIMEOUT)),
    ),
];

#[derive(Clone, Copy)]
enum Kind {
    Script(Connections, Option<Duration>),
    Driver(Option<Duration>),
}

/// What became of one client.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) name: &'static str,
    /// From "the promoted server takes writes" to the first write there.
    pub(crate) first: Option<Duration>,
    /// Acknowledged by the old primary after that moment.
    pub(crate) stale: usize,
    pub(crate) failures: BTreeMap<String, usize>,
}

/// The name under which the library takes part.
pub(crate) const OURS: &str = "headless-lb";

/// Lets one fault befall all clients at once, the library last.
pub(crate) async fn run(fault: Fault, with_scripts: bool) -> Result<Vec<Outcome>> {
    let dns = ClusterDns::start().await?.ttl(1);
    let mut stage = Stage {
        cluster: Cluster::start_on(Network::claim()?).await?,
        service: dns.service(SERVICE),
        relays: Vec::new(),
        story: Story::default(),
    };
    let mut addresses = stage.cluster.addresses();
    if fault.is_relayed() {
        for (number, address) in addresses.iter_mut().enumerate() {
            let relay = stage.cluster.relay(number).await?;
            let name = stage.cluster.server(number).name();
            *address = Address::from(relay.addr()).named(name);
            stage.relays.push(relay);
        }
    }
    let hosts: Vec<SocketAddr> = addresses.iter().map(Address::socket).collect();
    stage.service.ready(addresses);

    let source = Dns::srv(NAME)?.name_servers([dns.addr()]);
    let db = Balancer::builder(source).probe(probe()).spawn();
    db.primary().wait(PATIENCE).await?;
    let mut program = Program::start(&db);
    let mut peers = start(&hosts, with_scripts)?;
    for peer in &mut peers {
        peer.writes(BEFORE).await?;
    }
    program.writes(BEFORE as u64).await?;

    let end = Instant::now() + window(fault);
    fault.befall(&mut stage).await?;
    sleep_until(end).await;
    let mut outcomes = Vec::new();
    for peer in peers {
        outcomes.push(judge(&stage, peer.name, &peer.end())?);
    }
    outcomes.push(judge(&stage, OURS, &program.end().await?)?);
    Ok(outcomes)
}

fn start(hosts: &[SocketAddr], with_scripts: bool) -> Result<Vec<Peer>> {
    let mut peers = Vec::new();
    for ((name, kind), number) in PEERS.into_iter().zip(1..) {
        // Numbers of rows that no other client writes.
        let first = number * NUMBERS;
        match kind {
            Kind::Script(connections, time) if with_scripts => {
                peers.push(script::start(name, hosts, connections, time, first)?);
            }
            Kind::Script(..) => {}
            Kind::Driver(time) => peers.push(multi_host::start(name, hosts, time, first)),
        }
    }
    Ok(peers)
}

fn judge(stage: &Stage<'_>, name: &'static str, log: &Log) -> Result<Outcome> {
    let story = &stage.story;
    let (writable, heir) = story.writable.zip(story.heir).ok_or("nobody took over")?;
    let heir = stage.cluster.server(heir).addr().ip();
    let (mut first, mut stale) = (None, 0);
    for attempt in &log.attempts {
        match attempt.ending {
            Ending::Written(server) if server == heir => {
                // The clocks of two programs are read some microseconds apart.
                first.get_or_insert_with(|| attempt.end.saturating_duration_since(writable));
            }
            Ending::Written(_) => stale += usize::from(attempt.end > writable),
            _ => {}
        }
    }
    Ok(Outcome {
        name,
        first,
        stale,
        failures: log.failures(),
    })
}

/// How long clients have after the fault: more than any has needed that came back at all. A zombie wakes
/// after 10 s.
fn window(fault: Fault) -> Duration {
    Duration::from_secs(match fault {
        Fault::Crash | Fault::Switch => 8,
        Fault::Split => 12,
        Fault::Zombie => 24,
        _ => 20,
    })
}
