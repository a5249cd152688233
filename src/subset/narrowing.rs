//! What one client makes of the answers: which of the pods are in its set.
//!
//! No I/O and no clock: answers, peers and positions in; the chosen pods and a problem to solve out.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Matching, Quota,
    hash::{ClientId, distinct},
    nearest,
};
use crate::{endpoint::Address, resolve::Resolution};

/// The matching is solved again at most so often: answers of 1,000 pods and of 1,000 peers differ all the time
/// during a rollout, and each difference is small.
const PACE: Duration = Duration::from_secs(1);
/// While the peers are unknown; see [`Quota`].
const UNKNOWN_SIZE: usize = 20;
/// The set never holds more than so many times the subset. Three of four pods may refuse, as when zones fail; beyond that it
/// is this client who is cut off, and when it is not any more it should not connect to all of the pods.
const STRETCH: usize = 4;

/// Which pods are this client's. Fed by the driver.
#[derive(Debug)]
pub(crate) struct Narrowing {
    client: ClientId,
    /// Of the client among its peers; `None` by rendezvous.
    own: Option<IpAddr>,
    size: Option<usize>,
    /// All that are known, ascending.
    pods: Vec<Address>,
    /// Their addresses without ports, ascending, each once.
    ips: Vec<IpAddr>,
    /// The last whole answer lacked more than half of them.
    doubted: bool,
    /// Ascending; none: unknown.
    peers: Arc<[IpAddr]>,
    quota: Option<Quota>,
    /// The last solution.
    row: Option<Row>,
    /// Pods or peers are not those of the last solution.
    is_outdated: bool,
    is_solving: bool,
    started: Option<Instant>,
    /// Instead of pods that refuse: the next nearest.
    spares: BTreeSet<IpAddr>,
    /// Those of the set that take no connections.
    refusing: BTreeSet<IpAddr>,
}

/// What to solve, anywhere but on the driver's task.
#[derive(Debug)]
pub(crate) struct Problem {
    own: IpAddr,
    clients: Arc<[IpAddr]>,
    pods: Vec<IpAddr>,
    quota: Quota,
}

/// The pods of one client.
#[derive(Debug)]
pub(crate) struct Row(BTreeSet<IpAddr>);

impl Problem {
    pub(crate) fn solve(self) -> Row {
        let clients = self.clients.iter().copied();
        let matching = Matching::new(clients, self.pods, self.quota);
        Row(matching.pods_of(self.own).collect())
    }
}

impl Narrowing {
    pub(crate) fn by_rendezvous(client: ClientId, size: Option<usize>) -> Self {
        Self {
            client,
            own: None,
            size,
            pods: Vec::new(),
            ips: Vec::new(),
            doubted: false,
            peers: Arc::default(),
            quota: None,
            row: None,
            is_outdated: false,
            is_solving: false,
            started: None,
            spares: BTreeSet::new(),
            refusing: BTreeSet::new(),
        }
    }

    pub(crate) fn by_peers(own: IpAddr, size: Option<usize>) -> Self {
        Self {
            own: Some(own.to_canonical()),
            ..Self::by_rendezvous(own.into(), size)
        }
    }

    // ===== events =====

    /// The source answered with records: tells what the registry is to make of it.
    ///
    /// Doubt shrinks nothing here either: an incomplete answer adds, and one that lacks more than half of what
    /// is known removes when the next does too.
    pub(crate) fn on_answer(&mut self, answer: &Resolution) -> Resolution {
        let mut pods = answer.addresses().to_vec();
        pods.sort_unstable();
        pods.dedup();
        let before = &self.pods;
        let untold = before.iter().filter(|address| {
            let told = pods.binary_search_by_key(&address.socket(), Address::socket);
            told.is_err()
        });
        let untold: Vec<_> = untold.cloned().collect();
        let large = untold.len() * 2 > before.len();
        let believed = !answer.is_partial() && (!large || self.doubted);
        self.doubted = large && !answer.is_partial() && !self.doubted;
        let listed = answer.is_partial().then(|| pods.clone());
        if !believed {
            pods.extend(untold);
            pods.sort_unstable();
        }
        self.set_pods(pods);
        self.spares.clear();
        self.extend();
        let mut chosen = self.chosen();
        if let Some(listed) = listed {
            // What it does not list it does not confirm.
            chosen.retain(|address| listed.binary_search(address).is_ok());
        }
        answer.clone().only(chosen)
    }

    /// Other peers are there. An empty list is not believed.
    pub(crate) fn on_peers(&mut self, peers: impl IntoIterator<Item = IpAddr>) {
        let mut peers = distinct(peers);
        if peers.is_empty() {
            return;
        }
        if let Some(own) = self.own
            && let Err(place) = peers.binary_search(&own)
        {
            peers.insert(place, own);
        }
        if *peers != *self.peers {
            self.peers = peers.into();
            self.is_outdated = true;
            self.requote();
        }
    }

    /// The registry published a set: these refuse connections. Tells whether other pods are chosen now.
    pub(crate) fn on_refusing(&mut self, refusing: BTreeSet<IpAddr>) -> bool {
        self.refusing = refusing;
        self.extend()
    }

    /// The registry dropped these by itself: nobody confirmed them for too long, or there are none any more.
    pub(crate) fn forget(&mut self, gone: impl Fn(&Address) -> bool) {
        let mut pods = std::mem::take(&mut self.pods);
        pods.retain(|address| !gone(address));
        self.set_pods(pods);
    }

    /// The problem is solved.
    pub(crate) fn on_solved(&mut self, row: Row) {
        self.is_solving = false;
        self.row = Some(row);
        self.spares.clear();
        self.extend();
    }

    /// It never will be.
    pub(crate) fn on_unsolved(&mut self) {
        self.is_solving = false;
    }

    // ===== what the driver asks =====

    /// When to ask for a problem.
    pub(crate) fn due(&self) -> Option<Instant> {
        if !self.is_outdated || self.is_solving || !self.has_choice() {
            return None;
        }
        let started = self.started?;
        Some(if self.is_broken() {
            started
        } else {
            started + PACE
        })
    }

    /// The problem to solve, if one is due.
    pub(crate) fn problem(&mut self, now: Instant) -> Option<Problem> {
        if !self.is_outdated || self.is_solving || !self.has_choice() {
            return None;
        }
        if self.due().is_some_and(|due| now < due) {
            return None;
        }
        self.is_outdated = false;
        self.is_solving = true;
        self.started = Some(now);
        Some(Problem {
            own: self.own?,
            clients: Arc::clone(&self.peers),
            pods: self.ips.clone(),
            quota: self.quota?,
        })
    }

    /// The pods of the set.
    pub(crate) fn chosen(&self) -> Vec<Address> {
        let row = self.row();
        let mut chosen = self.pods.clone();
        chosen.retain(|address| {
            let ip = ip_of(address);
            row.contains(&ip) || self.spares.contains(&ip)
        });
        chosen
    }

    // ===== inside =====

    fn set_pods(&mut self, pods: Vec<Address>) {
        self.pods = pods;
        let ips = distinct(self.pods.iter().map(ip_of));
        if ips != self.ips {
            self.ips = ips;
            self.is_outdated = true;
            self.requote();
        }
    }

    fn requote(&mut self) {
        if !self.peers.is_empty() {
            let (peers, pods) = (self.peers.len(), self.ips.len());
            self.quota = Some(Quota::after(self.quota, peers, pods, self.size));
        }
    }

    /// Whether the peers are known, and not all pods are everybody's.
    fn has_choice(&self) -> bool {
        self.own.is_some()
            && self
                .quota
                .is_some_and(|quota| quota.size() < self.ips.len())
    }

    /// A pod of the solution is gone, or there is no solution.
    fn is_broken(&self) -> bool {
        let row = self.row.as_ref();
        row.is_none_or(|Row(row)| row.is_empty() || !row.iter().all(|&ip| self.knows(ip)))
    }

    fn knows(&self, pod: IpAddr) -> bool {
        self.ips.binary_search(&pod).is_ok()
    }

    /// This client's pods, without spares: the solution where there is one, and while a better one is sought what
    /// is left of it.
    fn row(&self) -> BTreeSet<IpAddr> {
        let pods = self.ips.iter().copied();
        let size = match self.quota {
            Some(quota) if quota.size() >= pods.len() => return pods.collect(),
            Some(quota) => quota.size(),
            None => self.size.unwrap_or(UNKNOWN_SIZE),
        };
        let row = self.row.iter().flat_map(|Row(row)| row).copied();
        let left: BTreeSet<_> = row.filter(|&ip| self.knows(ip)).collect();
        if !left.is_empty() {
            return left;
        }
        nearest(self.client, pods, size).into_iter().collect()
    }

    /// Adds spares until as many pods take connections as the subset has. Tells whether there are more now.
    fn extend(&mut self) -> bool {
        if self.refusing.is_empty() {
            return false;
        }
        let row = self.row();
        let limit = row.len() * (STRETCH - 1);
        let refuses = |ip: &IpAddr| self.refusing.contains(ip);
        let mut lacking = row.iter().filter(|ip| refuses(ip)).count();
        let others = self.ips.iter().copied().filter(|ip| !row.contains(ip));
        let mut spares = BTreeSet::new();
        for spare in nearest(self.client, others, limit) {
            if lacking == 0 {
                break;
            }
            lacking -= usize::from(!refuses(&spare));
            spares.insert(spare);
        }
        let before = self.spares.len();
        self.spares.append(&mut spares);
        self.spares.len() > before
    }
}

fn ip_of(address: &Address) -> IpAddr {
    address.socket().ip().to_canonical()
}
