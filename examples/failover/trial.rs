//! One trial: a cluster, a program that writes, a fault, and what came of it.
#![expect(
    clippy::disallowed_methods,
    reason = "what the library says is noted beside the story, and starving needs tasks"
)]

use std::{net::IpAddr, thread, time::Duration};

use headless_lb::{Balancer, Dns, Postgres};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, interval, sleep},
};

use super::{
    client::{Ending, Log, Program},
    driver::Driver,
    fault::Fault,
};
use crate::support::{
    ClusterDns, Result,
    dns::Service,
    postgres::{Cluster, Network, PASSWORD, Relay, Truth},
};

/// The headless service.
pub(crate) const SERVICE: &str = "db.prod";

/// The name that the program is given.
pub(crate) const NAME: &str = "_postgres._tcp.db.prod.svc.cluster.local";

/// Whom the program and the probe log in as: with SCRAM, as users do. That takes 0.2 s of the processor for each
/// login where nothing is optimized, so there they are those who need no password.
pub(crate) const APP: &str = if cfg!(debug_assertions) {
    "app_trust"
} else {
    "app"
};
pub(crate) const PROBE: &str = if cfg!(debug_assertions) {
    "probe_trust"
} else {
    "probe"
};

/// How long the program writes before the fault, and after the last thing that happens.
const BEFORE: u64 = 100;
const AFTER: Duration = Duration::from_secs(2);

/// How often the library is asked whom it names.
const LOOKS: Duration = Duration::from_millis(5);

/// More than a cold start takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<(Instant, String)>,
    /// When the server that should get the writes took one, and which that is, if it is decided.
    pub(crate) writable: Option<Instant>,
    pub(crate) heir: Option<usize>,
    /// The truth for people: who should take writes from when on, by number, `.` for nobody.
    pub(crate) truth: Vec<(Instant, char)>,
}

/// Where a fault happens.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: Cluster,
    pub(crate) service: Service<'a>,
    pub(crate) relays: Vec<Relay>,
    pub(crate) story: Story,
}

impl Stage<'_> {
    pub(crate) fn note(&mut self, what: &str) {
        self.story.events.push((Instant::now(), what.to_owned()));
    }

    /// Begins to watch a standby that is to be promoted.
    pub(crate) async fn candidate(&self, number: usize) -> Result<Truth> {
        Truth::of(self.cluster.server(number)).await
    }

    /// What a manager does: promotes a standby, and lets the other one follow it.
    pub(crate) async fn promote_after(
        &mut self,
        time: Duration,
        number: usize,
        truth: Truth,
    ) -> Result<()> {
        sleep(time).await;
        self.cluster.server(number).promote().await?;
        let writable = truth.writable().await?;
        self.is_writable(number, writable);
        self.cluster.follow(3 - number, number).await
    }

    pub(crate) fn is_writable(&mut self, number: usize, at: Instant) {
        self.story.writable = Some(at);
        self.story.heir = Some(number);
        self.story.truth.push((at, sign(Some(number))));
        self.story
            .events
            .push((at, format!("pg-{number}: takes writes")));
    }

    /// Keeps every worker of the runtime busy.
    pub(crate) async fn starve(&self, time: Duration) -> Result<()> {
        let mut busy = JoinSet::new();
        for _ in 0..Handle::current().metrics().num_workers() {
            busy.spawn(async move { thread::sleep(time) });
        }
        while let Some(done) = busy.join_next().await {
            done?;
        }
        Ok(())
    }
}

/// A server in one character.
pub(crate) fn sign(number: Option<usize>) -> char {
    number
        .and_then(|number| char::from_digit(u32::try_from(number).ok()?, 10))
        .unwrap_or('.')
}

/// What the library said: the number of the primary, and its generation.
pub(crate) type Said = (Instant, Option<(usize, u64)>);

/// A trial that is over.
#[derive(Debug)]
pub(crate) struct Trial {
    pub(crate) fault: Fault,
    /// When the program began, when the fault happened, and when the program ended.
    pub(crate) begin: Instant,
    pub(crate) at: Instant,
    pub(crate) end: Instant,
    pub(crate) story: Story,
    pub(crate) log: Log,
    /// What the driver alone did.
    pub(crate) alone: Option<Log>,
    pub(crate) said: Vec<Said>,
    /// The servers' addresses, by number; one that moved has its last.
    servers: [IpAddr; 3],
    old: [IpAddr; 3],
}

impl Trial {
    /// Runs one, with the driver alone beside the library if asked for.
    pub(crate) async fn run(fault: Fault, network: Network, is_compared: bool) -> Result<Self> {
        let dns = ClusterDns::start().await?.ttl(1);
        let cluster = Cluster::start_on(network).await?;
        let old = cluster
            .servers()
            .each_ref()
            .map(|server| server.addr().ip());
        let mut stage = Stage {
            cluster,
            service: dns.service(SERVICE),
            relays: Vec::new(),
            story: Story::default(),
        };
        let mut addresses = stage.cluster.addresses();
        if fault.is_relayed() {
            for (number, address) in addresses.iter_mut().enumerate() {
                let relay = stage.cluster.relay(number).await?;
                let name = stage.cluster.server(number).name();
                *address = headless_lb::Address::from(relay.addr()).named(name);
                stage.relays.push(relay);
            }
        }
        let driver = is_compared.then(|| Driver::start(&addresses));
        stage.service.ready(addresses);

        let source = Dns::srv(NAME)?.name_servers([dns.addr()]);
        let db = Balancer::builder(source).probe(probe()).spawn();
        db.primary().wait(PATIENCE).await?;
        let (stop, stopped) = watch::channel(false);
        let said = follow(&db, stopped);
        let mut program = Program::start(&db);
        let begin = Instant::now();
        stage.story.truth.push((begin, '0'));
        program.writes(BEFORE).await?;

        let at = Instant::now();
        if fault.stops_writes() {
            stage.story.truth.push((at, '.'));
        }
        fault.befall(&mut stage).await?;
        sleep(AFTER).await;
        let log = program.end().await?;
        let alone = match driver {
            Some(driver) => Some(driver.end().await?),
            None => None,
        };
        let end = Instant::now();
        let servers = stage
            .cluster
            .servers()
            .each_ref()
            .map(|server| server.addr().ip());
        stop.send_replace(true);
        let said = said.await?;
        Ok(Self {
            fault,
            begin,
            at,
            end,
            story: stage.story,
            log,
            alone,
            said,
            servers,
            old,
        })
    }

    /// The number of the server with this address.
    pub(crate) fn number(&self, ip: IpAddr) -> Option<usize> {
        let among = |ips: &[IpAddr; 3]| ips.iter().position(|one| *one == ip);
        among(&self.servers).or_else(|| among(&self.old))
    }

    /// The acknowledged writes: when, and by whom.
    pub(crate) fn written(&self, log: &Log) -> impl Iterator<Item = (Instant, usize)> {
        log.attempts
            .iter()
            .filter_map(|attempt| match attempt.ending {
                Ending::Written(ip) => Some((attempt.end, self.number(ip)?)),
                _ => None,
            })
    }

    /// From "the new primary takes writes" to the program's first write there.
    pub(crate) fn first_write(&self, log: &Log) -> Option<Duration> {
        let writable = self.story.writable?;
        let mut written = self.written(log);
        let heir = |number| match self.story.heir {
            Some(heir) => number == heir,
            None => number != 0,
        };
        let (at, _) = written.find(|(at, number)| heir(*number) && *at >= writable)?;
        Some(at - writable)
    }

    /// Writes that a server acknowledged after another one had taken over.
    pub(crate) fn stale_writes(&self, log: &Log) -> usize {
        let Some(writable) = self.story.writable else {
            return 0;
        };
        let heir = self.story.heir.or_else(|| {
            // Of two at once, it is the one that got the first.
            let mut written = self.written(log);
            let first = written.find(|(at, number)| *at >= writable && *number != 0)?;
            Some(first.1)
        });
        let stale = |(at, number): &(Instant, usize)| *at > writable && Some(*number) != heir;
        self.written(log).filter(stale).count()
    }

    /// The longest time without an acknowledged write.
    pub(crate) fn gap(&self, log: &Log) -> Duration {
        let ends: Vec<_> = self
            .written(log)
            .map(|(at, _)| at)
            .chain([self.end])
            .collect();
        let gaps = ends.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// From the fault until the work in flight on a server that fell silent was ended.
    pub(crate) fn fenced(&self) -> Option<Duration> {
        let mut attempts = self.log.attempts.iter();
        let in_flight = attempts.find(|attempt| {
            attempt.end > self.at && !matches!(attempt.ending, Ending::Written(_))
        })?;
        Some(in_flight.end - self.at)
    }

    /// Changes of primary that the library saw and nobody made.
    pub(crate) fn false_switches(&self) -> u64 {
        self.switches().saturating_sub(self.fault.switches())
    }

    /// Changes of primary that the library saw.
    pub(crate) fn switches(&self) -> u64 {
        let generations = self.said.iter().filter_map(|(_, said)| Some((*said)?.1));
        let (first, last) = (generations.clone().min(), generations.max());
        last.zip(first).map_or(0, |(last, first)| last - first)
    }
}

/// How the program finds the primary: one role that may log in.
pub(crate) fn probe() -> Postgres {
    Postgres::new(PROBE).password(PASSWORD)
}

/// Notes whom the library names, until it is told to stop.
fn follow(db: &Balancer, mut stopped: watch::Receiver<bool>) -> JoinHandle<Vec<Said>> {
    let view = db.primary();
    tokio::spawn(async move {
        let (mut said, mut ticks) = (Vec::<Said>::new(), interval(LOOKS));
        loop {
            tokio::select! {
                _ = stopped.changed() => return said,
                _ = ticks.tick() => {}
            }
            let primary = view.get().ok().and_then(|writer| {
                let number = writer.name()?.strip_prefix("pg-")?.parse().ok()?;
                Some((number, writer.generation()))
            });
            if said.last().is_none_or(|(_, last)| *last != primary) {
                said.push((Instant::now(), primary));
            }
        }
    })
}
