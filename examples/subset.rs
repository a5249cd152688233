//! Who takes which pods, when every client takes only some: how even it is, and how much moves when pods or
//! clients come and go.
//!
//! `cargo run --release --example subset` shows four sizes; `-- --full` adds 1,000 clients of 1,000 pods (10 s in
//! a debug build). No network: it runs the library's own choice of pods, for all clients at once. Compare the two
//! ways of choosing: by rendezvous each client chooses for itself, by peers they share. The exit code is 1 if
//! the shares of peers are uneven, or if more moves than must.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::{IpAddr, Ipv4Addr},
    process::ExitCode,
    time::Duration,
};

use headless_lb::subset::{ClientId, Matching, Quota, nearest};
use support::{
    Result, outcome,
    term::{Live, aside, bars, heading, say, table},
};
use tokio::time::Instant;

/// Goal: no pod has more than 5 % above the mean, or what whole numbers make of 2 %.
const EVEN: f64 = 1.05;
/// Goal: when one pod of M comes or goes, at most 2/M of all connections are new. 1/M is the pod itself.
const MOVED: f64 = 2.0;
/// Pods that come or go one after the other: one alone would be luck.
const TRIALS: usize = 8;

fn main() -> ExitCode {
    let mut sizes = vec![(100, 100), (100, 400), (400, 100), (37, 211)];
    if env::args().any(|arg| arg == "--full") {
        sizes.push((1_000, 1_000));
    }
    let results = sizes.iter().map(|&(clients, pods)| show(clients, pods));
    let failures: Vec<String> = results.flatten().collect();
    let result: Result<String> = if failures.is_empty() {
        Ok(format!("sizes={} even=yes calm=yes", sizes.len()))
    } else {
        Err(failures.join("; ").into())
    };
    outcome("subset", result)
}

/// Prints what one size gives, and returns what is not as it should be.
fn show(clients: u16, pods: u16) -> Vec<String> {
    let (clients, pods) = (Side::new(1, clients), Side::new(2, pods));
    let quota = Quota::of(clients.0.len(), pods.0.len(), None);
    let all = clients.0.len() * pods.0.len();
    heading(format!(
        "{} clients of {} pods, {} pods each: {} connections instead of {all}",
        clients.0.len(),
        pods.0.len(),
        quota.size(),
        clients.0.len() * quota.size(),
    ));
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for way in [Way::Rendezvous, Way::Peers] {
        let (report, time) = Report::of(way, quota, &clients, &pods);
        say("");
        aside(format!("{way:?}: how many pods have so many clients"));
        bars(&report.spread);
        rows.push(report.row(way, time));
        if let Way::Peers = way {
            failures.extend(report.failures(clients.0.len(), pods.0.len(), quota));
        }
    }
    say("");
    table(
        [
            "",
            "max/mean",
            "connections",
            "new: +1 pod",
            "-1 pod",
            "10 % of pods replaced",
            "clients +10 %",
            "to choose",
        ],
        &rows,
    );
    failures
}

/// The addresses of clients or of pods.
#[derive(Clone)]
struct Side(Vec<IpAddr>);

impl Side {
    fn new(net: u8, count: u16) -> Self {
        Self((0..count).map(|host| ip(net, host)).collect())
    }

    /// With `count` more, that were not there before.
    fn with(mut self, net: u8, from: usize, count: usize) -> Self {
        self.0
            .extend((from..from + count).map(|host| ip(net, host as u16)));
        self
    }

    fn without(mut self, from: usize, count: usize) -> Self {
        self.0.drain(from..from + count);
        self
    }
}

fn ip(net: u8, host: u16) -> IpAddr {
    let [high, low] = host.to_be_bytes();
    Ipv4Addr::new(10, net, high, low).into()
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Rendezvous,
    Peers,
}

impl Way {
    /// All connections, as all clients choose.
    fn connect(self, quota: Quota, clients: &Side, pods: &Side) -> BTreeSet<(IpAddr, IpAddr)> {
        match self {
            Self::Rendezvous => {
                let row = |&client: &IpAddr| {
                    let pods =
                        nearest(ClientId::from(client), pods.0.iter().copied(), quota.size());
                    pods.into_iter().map(move |pod| (client, pod))
                };
                clients.0.iter().flat_map(row).collect()
            }
            Self::Peers => {
                let (clients, pods) = (clients.0.iter().copied(), pods.0.iter().copied());
                Matching::new(clients, pods, quota).pairs().collect()
            }
        }
    }

    /// The share of connections that are new after a change, of those that were there, without those of new
    /// clients; in percent.
    fn moved(self, quota: Quota, before: (&Side, &Side), after: (&Side, &Side)) -> f64 {
        let quota_after = match self {
            Self::Rendezvous => quota,
            Self::Peers => Quota::after(Some(quota), after.0.0.len(), after.1.0.len(), None),
        };
        let old = self.connect(quota, before.0, before.1);
        let known: BTreeSet<_> = before.0.0.iter().collect();
        let new = self.connect(quota_after, after.0, after.1);
        let moved = new
            .difference(&old)
            .filter(|(client, _)| known.contains(client));
        moved.count() as f64 * 100.0 / old.len() as f64
    }
}

struct Report {
    even: f64,
    max: usize,
    connections: usize,
    spread: BTreeMap<String, u64>,
    added: f64,
    removed: f64,
    replaced: f64,
    more_clients: f64,
}

impl Report {
    /// With the time that one choice takes: of one client by rendezvous, of all clients by peers.
    fn of(way: Way, quota: Quota, clients: &Side, pods: &Side) -> (Self, Duration) {
        let live = Live::default();
        let start = Instant::now();
        let connections = way.connect(quota, clients, pods);
        let time = match way {
            Way::Rendezvous => start.elapsed() / clients.0.len() as u32,
            Way::Peers => start.elapsed(),
        };
        let mut loads: BTreeMap<IpAddr, usize> = pods.0.iter().map(|&pod| (pod, 0)).collect();
        for (_, pod) in &connections {
            *loads.entry(*pod).or_default() += 1;
        }
        let max = loads.values().copied().max().unwrap_or(0);
        let (count, before) = (pods.0.len(), (clients, pods));
        let mean_of = |change: &dyn Fn(usize) -> f64| {
            let each = (0..TRIALS).map(|trial| {
                live.show(format_args!("{way:?}: change {} of {TRIALS}", trial + 1));
                change(trial)
            });
            each.sum::<f64>() / TRIALS as f64
        };
        let added = mean_of(&|trial| {
            let after = pods.clone().with(2, count + trial, 1);
            way.moved(quota, before, (clients, &after))
        });
        let removed = mean_of(&|trial| {
            let after = pods.clone().without(trial * count / TRIALS, 1);
            way.moved(quota, before, (clients, &after))
        });
        let replaced = pods
            .clone()
            .without(0, count / 10)
            .with(2, count, count / 10);
        let replaced = way.moved(quota, before, (clients, &replaced));
        let more = clients.0.len();
        let more = clients.clone().with(1, more, more / 10);
        let more_clients = way.moved(quota, before, (&more, pods));
        let report = Self {
            even: (max * count) as f64 / connections.len() as f64,
            max,
            connections: connections.len(),
            spread: spread(loads.values().copied()),
            added,
            removed,
            replaced,
            more_clients,
        };
        (report, time)
    }

    fn row(&self, way: Way, time: Duration) -> [String; 8] {
        let percent = |share: f64| format!("{share:.2} %");
        [
            format!("{way:?}"),
            format!("{:.2}", self.even),
            self.connections.to_string(),
            percent(self.added),
            percent(self.removed),
            percent(self.replaced),
            percent(self.more_clients),
            format!("{:.2} ms", time.as_secs_f64() * 1e3),
        ]
    }

    fn failures(&self, clients: usize, pods: usize, quota: Quota) -> Vec<String> {
        let mut failures = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                failures.push(format!("{clients} x {pods}: {what}"));
            }
        };
        check(
            self.even <= EVEN || self.max <= quota.cap(),
            format!("max/mean {:.3}", self.even),
        );
        let limit = MOVED * 100.0 / pods as f64;
        check(
            self.added <= limit,
            format!("+1 pod moved {:.2} %, at most {limit:.2}", self.added),
        );
        check(
            self.removed <= limit,
            format!("-1 pod moved {:.2} %, at most {limit:.2}", self.removed),
        );
        failures
    }
}

/// How many pods have how many clients, in about ten steps.
fn spread(loads: impl Iterator<Item = usize> + Clone) -> BTreeMap<String, u64> {
    let (least, most) = (
        loads.clone().min().unwrap_or(0),
        loads.clone().max().unwrap_or(0),
    );
    let step = (most - least) / 10 + 1;
    let mut spread = BTreeMap::new();
    for from in (least..=most).step_by(step) {
        spread.insert(name(from, step), 0);
    }
    for load in loads {
        *spread
            .entry(name(load - (load - least) % step, step))
            .or_default() += 1;
    }
    spread
}

fn name(from: usize, step: usize) -> String {
    if step == 1 {
        format!("{from:>4}")
    } else {
        format!("{from:>4}-{:<4}", from + step - 1)
    }
}
