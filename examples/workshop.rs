//! The headless-service workshop in half a minute: scale a service up, down and to nothing, kill a
//! pod, and see what a client of it sees.
//!
//! Run it with `cargo run --example workshop`. It needs no cluster: cluster DNS, the pods and the
//! client all live in this program, on loopback. A constant load of 100 GETs a second runs through
//! all of it. Look at `failed`, at how soon the set follows DNS, and at the shares of the pods. The
//! last line sums it up, and the exit code is 0 only if nothing failed and the client saw exactly
//! what the cluster did.

mod support;

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use headless_lb::{Balancer, Dns, EmptyMode, RoundRobin};
use support::{
    ClusterDns, Node, Result, Workload,
    client::{Client, Counts, Http},
    load::Load,
    observer::{Observer, sequence},
    term::{Live, aside, bars, heading, say, table},
};
use tokio::time::{Instant, sleep};

const SERVICE: &str = "myservice.workshop.svc.cluster.local";
const SRV: &str = "_http._tcp.catalog.workshop.svc.cluster.local";

/// The host goes into the `host` header; which pod is dialled, and on which port, is the balancer's
/// business.
const URL: &str = "http://myservice.workshop:8080/catalog/1";
const SRV_URL: &str = "http://catalog.workshop/catalog/1";

/// 100 a second.
const PERIOD: Duration = Duration::from_millis(10);

/// How often the client asks DNS. The default is 5 s; the workshop is in a hurry.
const REFRESH: Duration = Duration::from_secs(1);

/// How long a real cluster goes on listing a pod that crashed: until its readiness is known to be
/// lost.
const NOTICED: Duration = Duration::from_millis(1500);

/// How long a stage lasts under load once the client has seen it.
const PAUSE: Duration = Duration::from_secs(1);

#[tokio::main]
async fn main() -> ExitCode {
    match workshop().await {
        Ok(outcome) => {
            println!("\nworkshop: ok {outcome}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("\nworkshop: FAILED {error}");
            ExitCode::FAILURE
        }
    }
}

async fn workshop() -> Result<String> {
    let dns = ClusterDns::start().await?;
    let mut node = Node::claim().await?;
    let counts = Arc::new(Counts::default());

    heading("1. One pod. The name resolves to the pod itself: no virtual IP, no proxy.");
    let mut pods = Workload::deployment(&dns, "myservice.workshop", "proddetail");
    pods.scale(&mut node, 1).await?;
    let source = Dns::headless(SERVICE, 8080)?.name_servers([dns.addr()]);
    let mut act = Act::begin(source, URL, pods, &counts).await?;
    act.look();
    act.calls(1).await;

    heading("2. Scale to 3: nobody tells the client; DNS does.");
    act.scale(&mut node, 3).await?;
    act.look();
    act.calls(300).await;

    heading("3. Kill a pod without warning: its connections break, and DNS does not know yet.");
    act.crash().await?;
    act.calls(300).await;
    aside(
        "A request that no pod has seen goes to another pod by itself. One that was written\n\
         before its connection broke may have been acted on: sending it again is the caller's\n\
         choice. This client sends only GETs and chose to (tower::retry); it counts them: retried.",
    );

    heading("4. Scale to 1: a pod leaves DNS first, finishes what it has in hand, and ends.");
    act.scale(&mut node, 1).await?;
    act.calls(100).await;

    heading("5. Scale to 0: DNS says NXDOMAIN, and the client wants to hear it more than once.");
    aside(
        "NXDOMAIN is also what a wrong name, a name server behind the times and known bugs\n\
         answer, and dropping the last pods by mistake is an outage. So a set that works is given\n\
         up after 3 answers over 10 s (here 3 s; at once if all its pods refuse connections). The\n\
         pod's preStop hook keeps it serving meanwhile. Then there is no pod to ask: no_pods.",
    );
    act.drain().await?;
    act.look();

    heading("6. Back to 1: the first answer that lists a pod is believed at once.");
    act.scale(&mut node, 1).await?;
    act.look();
    act.calls(1).await;

    heading("7. The same by SRV: DNS tells the names of a StatefulSet's pods, and their ports.");
    let mut pods = Workload::stateful_set(&dns, "catalog.workshop", "catalog");
    pods.scale(&mut node, 1).await?;
    let source = Dns::srv(SRV)?.name_servers([dns.addr()]);
    let mut srv = Act::begin(source, SRV_URL, pods, &counts).await?;
    srv.scale(&mut node, 3).await?;
    srv.look();
    srv.calls(300).await;
    srv.crash().await?;
    srv.scale(&mut node, 1).await?;
    srv.look();

    heading("How soon the client saw what DNS said:");
    table(
        ["service", "change", "seen after"],
        &[&*act.steps, &*srv.steps].concat(),
    );

    let (endpoints, srv) = (act.end().await?, srv.end().await?);
    if counts.failed() > 0 {
        let first = counts.first_failure().unwrap_or("unknown");
        return Err(format!(
            "{counts} endpoints={endpoints} srv={srv}; the first failure: {first}"
        )
        .into());
    }
    let (requests, no_pods, retried) = (counts.requests(), counts.no_pods(), counts.retried());
    Ok(format!(
        "requests={requests} failed=0 endpoints={endpoints} no_pods={no_pods} retried={retried} srv={srv}"
    ))
}

/// One service, a client of it under constant load, and what either of them did and saw.
struct Act<'a> {
    pods: Workload<'a>,
    balancer: Balancer<Http>,
    client: Client,
    counts: Arc<Counts>,
    observer: Observer,
    load: Load,
    did: Vec<usize>,
    steps: Vec<[String; 3]>,
}

impl<'a> Act<'a> {
    async fn begin(
        source: Dns,
        url: &str,
        pods: Workload<'a>,
        counts: &Arc<Counts>,
    ) -> Result<Self> {
        let balancer = Balancer::builder(source)
            .policy(RoundRobin::new())
            .refresh_interval(REFRESH)
            .empty(EmptyMode::Confirm {
                answers: 3,
                over: Duration::from_secs(3),
            })
            .spawn_http();
        balancer.resolved().await?;
        let client = Client::new(balancer.clone(), url, counts);
        let load = Load::start(PERIOD, {
            let client = client.clone();
            move || {
                let client = client.clone();
                async move { drop(client.get().await) }
            }
        });
        Ok(Self {
            did: vec![pods.len()],
            steps: Vec::new(),
            observer: Observer::of(&balancer).await?,
            counts: Arc::clone(counts),
            pods,
            balancer,
            client,
            load,
        })
    }

    /// Prints what the client knows about the service.
    fn look(&self) {
        say(&self.balancer);
    }

    /// Changes the number of pods, and waits until the client has seen it.
    async fn scale(&mut self, node: &mut Node, replicas: usize) -> Result<()> {
        let asked = Instant::now();
        self.pods.scale(node, replicas).await?;
        self.seen(asked).await
    }

    /// Scales to nothing; the pods serve until the client has seen it.
    async fn drain(&mut self) -> Result<()> {
        let leaving = self.pods.drain();
        self.seen(Instant::now()).await?;
        for pod in leaving {
            pod.stop().await;
        }
        Ok(())
    }

    /// Kills a pod. The cluster takes a while to notice, then DNS drops it.
    async fn crash(&mut self) -> Result<()> {
        let victim = self.pods.crash().await?;
        let seconds = NOTICED.as_secs_f32();
        say(format!(
            "{victim} is gone; DNS lists it for another {seconds} s."
        ));
        self.pause(NOTICED).await;
        say(format!("Meanwhile: {}", self.counts));
        let noticed = Instant::now();
        self.pods.publish();
        self.seen(noticed).await
    }

    /// Notes what the cluster did, and waits until the client's set is as large.
    async fn seen(&mut self, since: Instant) -> Result<()> {
        let (before, now) = (self.did.last().copied().unwrap_or(0), self.pods.len());
        self.did.push(now);
        let took = self.observer.until(now, since, &self.counts).await?;
        let name = self.pods.name().to_owned();
        let took = format!("{:.2} s", took.as_secs_f32());
        self.steps.push([name, format!("{before} > {now}"), took]);
        self.pause(PAUSE).await;
        Ok(())
    }

    /// Lets the load run, with its counters on show.
    async fn pause(&self, how_long: Duration) {
        let (live, end) = (Live::default(), Instant::now() + how_long);
        while Instant::now() < end {
            live.show(format_args!("{}", self.counts));
            sleep(Duration::from_millis(100).min(how_long)).await;
        }
    }

    /// Calls besides the load, eight at a time, and shows which pods answered.
    async fn calls(&self, n: usize) {
        let pods = stream::iter(0..n)
            .map(|_| self.client.get())
            .buffer_unordered(8);
        let shares = pods.fold(BTreeMap::new(), async |mut shares, pod| {
            *shares
                .entry(pod.unwrap_or_else(|| "(failed)".to_owned()))
                .or_default() += 1;
            shares
        });
        bars(&shares.await);
    }

    /// Stops the load. The sizes that the client saw, if they are those that the cluster had.
    async fn end(mut self) -> Result<String> {
        self.load.stop().await;
        let (did, saw) = (sequence(&self.did), sequence(self.observer.sizes()));
        if did != saw {
            return Err(format!("the cluster had {did} pods, the client saw {saw}").into());
        }
        Ok(saw)
    }
}
