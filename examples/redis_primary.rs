//! redis-rs over three real Redis servers: commands go to the master, whoever that is. It is handed over, killed, and
//! comes back as a master of its own, and the program goes on writing.
//!
//! Run it with `cargo run --example redis_primary --features redis`. It needs `redis-server` from Debian's package of that
//! name, and takes ten seconds. Look at who was written to in each phase, and at the old master at the end.

mod support;

use std::{collections::BTreeMap, fmt::Display, process::ExitCode, time::Duration};

use headless_lb::{Balancer, Dns, Redis, RedisPrimary};
use redis::{AsyncConnectionConfig, AsyncTypedCommands, RedisConnectionInfo};
use support::{
    ClusterDns, Result, outcome,
    redis::{Cluster, Server},
    term,
};
use tokio::time::{Instant, sleep};

const SERVICE: &str = "redis.workshop";
const WRITES: u32 = 100;

#[tokio::main]
async fn main() -> ExitCode {
    outcome("redis_primary", run().await)
}

async fn run() -> Result<impl Display> {
    // The cluster: nothing of this is in your program.
    let mut cluster = Cluster::start(&[]).await?;
    let dns = ClusterDns::start().await?;
    let servers = cluster.servers.each_ref().map(Server::addr);
    dns.service(SERVICE).ready(servers);

    // In a cluster, leave out `name_servers`: they are in /etc/resolv.conf.
    let name = Dns::headless(&format!("{SERVICE}.svc.cluster.local"), 6379)?;
    let pods = Balancer::builder(name.name_servers([dns.addr()]))
        .probe(Redis::new())
        .spawn();
    // While a master hands over it holds writes back, for longer than the 500 ms that redis-rs waits by default.
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(5)));
    let redis = RedisPrimary::new(pods.primary(), RedisConnectionInfo::default()).config(patient);
    let mut program = Program {
        redis,
        pods,
        written: 0,
        failed: Vec::new(),
        longest: Duration::ZERO,
    };

    term::heading("Three servers, and the first is the master");
    program.write().await?;

    term::heading("The master hands over to the second: FAILOVER");
    let second = servers[1].ip().to_string();
    let () = cluster.servers[0]
        .ask(&["FAILOVER", "TO", &second, "6379"])
        .await?;
    program.write().await?;
    cluster.servers[2].followed(&cluster.servers[1]).await?;

    term::heading("The second is killed, and half a second later the third is promoted");
    cluster.servers[1].kill();
    let third = &cluster.servers[2];
    let promoting = async {
        sleep(Duration::from_millis(500)).await;
        third.promote().await
    };
    let (written, promoted) = tokio::join!(program.write(), promoting);
    written.and(promoted)?;

    term::heading("The second comes back, as a master of its own");
    cluster.servers[1].start().await?;
    let role = cluster.servers[1].info("role").await?;
    program.write().await?;
    term::say(
        "Rejected: the second has other data now, and so has the first, which follows it again.",
    );
    let stale: Option<u32> = cluster.servers[1].ask(&["GET", "last"]).await?;

    let last: u32 = cluster.servers[2].ask(&["GET", "last"]).await?;
    let Program {
        written,
        failed,
        longest,
        ..
    } = program;
    let is_good = last == written && role == "master" && stale != Some(last) && failed.len() <= 1;
    let numbers = format!(
        "written={written} failed={} longest_ms={}",
        failed.len(),
        longest.as_millis()
    );
    if is_good {
        return Ok(numbers);
    }
    Err(format!("{numbers} last={last} stale={stale:?} role={role} {failed:?}").into())
}

/// Your program: it writes.
struct Program {
    redis: RedisPrimary,
    pods: Balancer,
    written: u32,
    failed: Vec<String>,
    longest: Duration,
}

impl Program {
    /// So many writes, one after the other, and who took them.
    async fn write(&mut self) -> Result<()> {
        let mut takers = BTreeMap::new();
        let live = term::Live::default();
        for done in 0..WRITES {
            live.show(format_args!("{done} of {WRITES}"));
            let start = Instant::now();
            match self.redis.set("last", self.written + 1).await {
                Ok(()) => {
                    self.written += 1;
                    let taker = self.pods.primary().get()?;
                    *takers.entry(taker.addr().to_string()).or_default() += 1;
                }
                // It may have been done: that is yours to decide. Here it is written again, by the next one.
                Err(error) => self.failed.push(error.to_string()),
            }
            self.longest = self.longest.max(start.elapsed());
            sleep(Duration::from_millis(10)).await;
        }
        drop(live);
        term::bars(&takers);
        for error in &self.failed {
            term::aside(format!("a write was in flight: {error}"));
        }
        term::aside(&self.pods);
        Ok(())
    }
}
