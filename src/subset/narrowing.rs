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

    /// These of the set refuse connections, or are ill. Tells whether other pods are chosen now.
    pub(crate) fn on_refusing(&mut self, refusing: BTreeSet<IpAddr>) -> bool {
        if refusing == self.refusing {
            return false;
        }
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

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn pod(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    fn answer(hosts: impl IntoIterator<Item = u8>) -> Resolution {
        Resolution::new(hosts.into_iter().map(pod))
    }

    fn peers(count: u8) -> impl Iterator<Item = IpAddr> {
        (1..=count).map(|host| IpAddr::from([10, 1, 0, host]))
    }

    fn hosts<'a>(addresses: impl IntoIterator<Item = &'a Address>) -> Vec<u8> {
        let last = |address: &Address| match address.socket() {
            SocketAddr::V4(socket) => socket.ip().octets()[3],
            SocketAddr::V6(_) => panic!("{address} is not of this test"),
        };
        addresses.into_iter().map(last).collect()
    }

    fn ip(host: u8) -> IpAddr {
        pod(host).ip()
    }

    fn rendezvous(size: usize) -> Narrowing {
        Narrowing::by_rendezvous("me".into(), Some(size))
    }

    /// Among fifty clients, five pods each; the matching is solved.
    fn matched(now: Instant) -> Narrowing {
        let mut narrowing = Narrowing::by_peers(IpAddr::from([10, 1, 0, 1]), Some(5));
        narrowing.on_peers(peers(50));
        narrowing.on_answer(&answer(1..=100));
        let problem = narrowing.problem(now).unwrap();
        narrowing.on_solved(problem.solve());
        narrowing
    }

    #[test]
    fn an_incomplete_answer_adds_and_never_removes() {
        let mut narrowing = rendezvous(5);
        let all = hosts(narrowing.on_answer(&answer(1..=50)).addresses());
        let part = narrowing.on_answer(&answer([all[0], 51, 52]).partial());
        assert!(part.is_partial());
        assert_eq!(
            hosts(part.addresses())[0],
            all[0],
            "nothing else is confirmed"
        );
        // All that are known compete for the places still.
        let known = (1..=52).map(ip);
        let nearest: BTreeSet<_> = nearest("me".into(), known, 5).into_iter().collect();
        let chosen: BTreeSet<_> = narrowing.chosen().iter().map(ip_of).collect();
        assert_eq!(chosen, nearest);
    }

    #[test]
    fn an_answer_that_lacks_more_than_half_is_believed_when_it_comes_again() {
        let mut narrowing = rendezvous(10);
        let before = narrowing.on_answer(&answer(1..=100));
        assert_eq!(narrowing.on_answer(&answer(1..=40)), before);
        assert_eq!(
            narrowing.on_answer(&answer(1..=100)),
            before,
            "a replica that lagged"
        );
        assert_eq!(narrowing.on_answer(&answer(1..=40)), before);
        let after = narrowing.on_answer(&answer(1..=40));
        assert!(hosts(after.addresses()).iter().all(|&host| host <= 40));
        assert_eq!(after.addresses().len(), 10);
    }

    #[test]
    fn names_ports_and_times_to_live_pass_through() {
        let mut narrowing = rendezvous(1);
        let named = [8080, 9090].map(|port| {
            Address::from(SocketAddr::from(([10, 0, 0, 1], port))).named(format!("db-{port}"))
        });
        let whole = Resolution::new(named.clone())
            .valid_for(Duration::from_secs(7))
            .of_record("SRV");
        assert_eq!(
            narrowing.on_answer(&whole),
            whole,
            "two ports of one address are one pod"
        );
    }

    #[test]
    fn a_pod_that_refuses_has_a_spare_until_an_answer_finds_it_well() {
        let mut narrowing = rendezvous(3);
        let row = hosts(narrowing.on_answer(&answer(1..=50)).addresses());
        let order = nearest("me".into(), (1..=50).map(ip), 6);
        assert!(narrowing.on_refusing([order[0]].into()));
        let with_spare: BTreeSet<_> = order[..4].iter().copied().collect();
        let chosen = |narrowing: &Narrowing| -> BTreeSet<_> {
            narrowing.chosen().iter().map(ip_of).collect()
        };
        assert_eq!(chosen(&narrowing), with_spare, "who refuses stays");
        assert!(
            narrowing.on_refusing([order[0], order[3]].into()),
            "the spare refuses too"
        );
        assert_eq!(chosen(&narrowing), order[..5].iter().copied().collect());
        assert!(!narrowing.on_refusing(BTreeSet::new()));
        assert_eq!(
            chosen(&narrowing).len(),
            5,
            "its back-off may just have ended"
        );
        assert_eq!(hosts(narrowing.on_answer(&answer(1..=50)).addresses()), row);
    }

    #[test]
    fn a_client_that_is_cut_off_does_not_take_all_pods() {
        let mut narrowing = rendezvous(3);
        narrowing.on_answer(&answer(1..=50));
        for _ in 0..10 {
            let all = narrowing.chosen().iter().map(ip_of).collect();
            narrowing.on_refusing(all);
        }
        assert_eq!(narrowing.chosen().len(), 3 * STRETCH);
    }

    #[test]
    fn without_peers_it_is_the_nearest_and_then_the_matching() {
        let (now, own) = (Instant::now(), IpAddr::from([10, 1, 0, 1]));
        let mut narrowing = Narrowing::by_peers(own, Some(5));
        let alone = narrowing.on_answer(&answer(1..=100));
        let order = nearest(own.into(), (1..=100).map(ip), 5);
        assert!(
            alone
                .addresses()
                .iter()
                .all(|address| order.contains(&ip_of(address)))
        );
        assert!(narrowing.problem(now).is_none(), "nobody is known");
        narrowing.on_peers([]);
        assert!(narrowing.problem(now).is_none(), "no peers are no news");
        narrowing.on_peers(peers(50));
        assert_eq!(
            narrowing.chosen(),
            alone.addresses(),
            "while it is computed"
        );
        let problem = narrowing.problem(now).unwrap();
        narrowing.on_solved(problem.solve());
        let quota = Quota::of(50, 100, Some(5));
        let matching = Matching::new(peers(50), (1..=100).map(ip), quota);
        let mine: BTreeSet<_> = matching.pods_of(own).collect();
        assert_eq!(
            narrowing
                .chosen()
                .iter()
                .map(ip_of)
                .collect::<BTreeSet<_>>(),
            mine
        );
    }

    #[test]
    fn a_client_that_is_not_listed_yet_counts_itself() {
        let own = IpAddr::from([10, 1, 0, 99]);
        let mut narrowing = Narrowing::by_peers(own, Some(5));
        narrowing.on_answer(&answer(1..=100));
        narrowing.on_peers(peers(50));
        let problem = narrowing.problem(Instant::now()).unwrap();
        assert_eq!(problem.clients.len(), 51);
        assert_eq!(problem.solve().0.len(), 5);
    }

    #[test]
    fn a_lone_client_takes_all_pods_at_once() {
        let own = IpAddr::from([10, 1, 0, 1]);
        let mut narrowing = Narrowing::by_peers(own, Some(5));
        narrowing.on_peers([own]);
        assert_eq!(narrowing.on_answer(&answer(1..=100)).addresses().len(), 100);
        assert!(narrowing.problem(Instant::now()).is_none());
    }

    #[test]
    fn it_is_solved_once_a_second_and_at_once_when_a_pod_of_it_is_gone() {
        let now = Instant::now();
        let mut narrowing = matched(now);
        assert_eq!(narrowing.due(), None);
        let mine = hosts(&narrowing.chosen());
        let other = (1..=100).find(|host| !mine.contains(host)).unwrap();
        narrowing.on_answer(&answer((1..=100).filter(|&host| host != other)));
        assert_eq!(narrowing.due(), Some(now + PACE));
        assert!(narrowing.problem(now).is_none());
        let gone = [other, mine[0]];
        let left = narrowing.on_answer(&answer((1..=100).filter(|host| !gone.contains(host))));
        assert_eq!(
            hosts(left.addresses()),
            mine[1..],
            "until it is solved anew"
        );
        let problem = narrowing.problem(now).unwrap();
        assert!(
            narrowing.problem(now + PACE).is_none(),
            "it is being solved"
        );
        narrowing.on_solved(problem.solve());
        assert_eq!(narrowing.chosen().len(), 5);
        assert!(
            narrowing.problem(now + PACE).is_none(),
            "nothing changed since"
        );
    }

    #[test]
    fn what_the_registry_dropped_is_not_chosen_again() {
        let mut narrowing = matched(Instant::now());
        let mine = hosts(&narrowing.chosen());
        narrowing.forget(|address| ip_of(address) == ip(mine[0]));
        assert_eq!(hosts(&narrowing.chosen()), mine[1..]);
        narrowing.forget(|_| true);
        assert!(narrowing.chosen().is_empty());
    }
}
