//! The stage between the source and the registry: narrows answers to this client's pods.

use std::{
    collections::BTreeSet,
    env,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

use super::Driver;
use crate::{
    balancer::{Balancer, Changes},
    draw::process_seed,
    endpoint::Address,
    registry::{Published, Status},
    resolve::{Resolution, ResolveError},
    set::Position,
    subset::{ClientId, Narrowing, Problem, Row},
};

/// Where the pod's own address is found, if the deployment says it (`fieldRef: status.podIP`).
const POD_IP: &str = "POD_IP";

/// Lets everything through by default.
#[derive(Debug, Default)]
pub(crate) struct Subsetting {
    narrowing: Option<Narrowing>,
    peers: Option<Peers>,
    /// The matching, while it is computed.
    job: Option<JoinHandle<Row>>,
    /// Those of the set that get no requests.
    aside: BTreeSet<IpAddr>,
    /// The registry is to be told which pods are chosen.
    is_news: bool,
}

/// Those who share the pods with this client.
#[derive(Debug)]
struct Peers {
    balancer: Balancer<()>,
    driver: Driver,
    changes: Changes,
    own: Option<IpAddr>,
    size: Option<usize>,
}

impl Subsetting {
    pub(crate) fn by_rendezvous(client: ClientId, size: Option<usize>) -> Self {
        Self {
            narrowing: Some(Narrowing::by_rendezvous(client, size)),
            ..Self::default()
        }
    }

    pub(crate) fn by_peers(
        (balancer, driver): (Balancer<()>, Driver),
        own: Option<IpAddr>,
        size: Option<usize>,
    ) -> Self {
        let changes = balancer.subscribe();
        Self {
            peers: Some(Peers {
                balancer,
                driver,
                changes,
                own,
                size,
            }),
            ..Self::default()
        }
    }

    /// The part of an answer that is this client's.
    pub(super) fn narrow(
        &mut self,
        answer: Result<Resolution, ResolveError>,
    ) -> Result<Resolution, ResolveError> {
        let resolution = answer?;
        let Some(pod) = resolution.addresses().first().map(Address::socket) else {
            return Ok(resolution);
        };
        if self.narrowing.is_none()
            && let Some(peers) = &self.peers
        {
            let mut narrowing = Narrowing::by_peers(peers.own(pod), peers.size);
            narrowing.on_peers(peers.ips());
            self.narrowing = Some(narrowing);
        }
        let Some(narrowing) = &mut self.narrowing else {
            return Ok(resolution);
        };
        let narrowed = narrowing.on_answer(&resolution);
        // What the registry might wait with: those who leave for being not chosen leave at once.
        self.is_news |= !resolution.is_partial();
        Ok(narrowed)
    }

    /// The registry published a set.
    pub(super) fn follow<S>(&mut self, published: &Published<S>) {
        let Some(narrowing) = &mut self.narrowing else {
            return;
        };
        let set = published.snapshot().set();
        let holds = |socket| set.iter().any(|endpoint| endpoint.addr() == socket);
        let removed = published.removed().iter().map(|endpoint| endpoint.addr());
        let gone: Vec<SocketAddr> = removed.filter(|&socket| !holds(socket)).collect();
        if set.is_empty() {
            narrowing.forget(|_| true);
        } else if !gone.is_empty() {
            // Not for being left out by the choice: the registry knows that they are gone.
            let mut chosen = narrowing.chosen();
            chosen.retain(|address| gone.contains(&address.socket()));
            if !chosen.is_empty() {
                narrowing.forget(|address| chosen.contains(address));
                self.is_news = true;
            }
        }
        let ip = |socket: SocketAddr| socket.ip().to_canonical();
        let (mut refusing, mut open) = (BTreeSet::new(), BTreeSet::new());
        for (position, endpoint) in set.positions() {
            let side = match position {
                Position::Ejected | Position::Rejected => &mut refusing,
                Position::Primary | Position::Replica | Position::Unknown => &mut open,
            };
            side.insert(ip(endpoint.addr()));
        }
        // One that shares its address with another is as good as that.
        refusing.retain(|ip| !open.contains(ip));
        self.aside = refusing;
    }

    /// What is thought of the pods may have changed. In a panic those that are ill get requests again, for among so
    /// few there is nobody else; but beyond the subset there may be many.
    pub(super) fn look(&mut self, status: &Status) {
        let Some(narrowing) = &mut self.narrowing else {
            return;
        };
        let ill = status.conditions().iter().filter(|one| one.is_ignored());
        let ill = ill.map(|one| one.endpoint.addr().ip().to_canonical());
        let lacking = self.aside.iter().copied().chain(ill).collect();
        self.is_news |= narrowing.on_refusing(lacking);
    }

    /// The pods that are chosen, when that is for other reasons than an answer. Never completes without a subset.
    ///
    /// Cancel safe: all that is under way goes on.
    pub(super) async fn next(&mut self) -> Vec<Address> {
        loop {
            if let Some(narrowing) = &mut self.narrowing {
                if std::mem::take(&mut self.is_news) {
                    return narrowing.chosen();
                }
                if let Some(problem) = narrowing.problem(Instant::now()) {
                    // Milliseconds of computing, while requests wait for nothing on this task but also on this
                    // thread.
                    self.job = Some(spawn_blocking(move || Problem::solve(problem)));
                }
            }
            let due = self.narrowing.as_ref().and_then(Narrowing::due);
            let pause = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            let solved = async {
                match &mut self.job {
                    Some(job) => job.await,
                    None => std::future::pending().await,
                }
            };
            let asked = async {
                match &mut self.peers {
                    Some(peers) => peers.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ips = asked => {
                    if let Some(narrowing) = &mut self.narrowing {
                        narrowing.on_peers(ips);
                        self.is_news = true;
                    }
                }
                row = solved => {
                    self.job = None;
                    self.solved(row.ok());
                }
                () = pause => {}
            }
        }
    }

    /// Without a row the runtime is shutting down, and the set stays as it is.
    fn solved(&mut self, row: Option<Row>) {
        match (&mut self.narrowing, row) {
            (Some(narrowing), Some(row)) => {
                narrowing.on_solved(row);
                self.is_news = true;
            }
            (Some(narrowing), None) => narrowing.on_unsolved(),
            (None, _) => {}
        }
    }
}

impl Peers {
    /// Their addresses, when they are others than before.
    async fn changed(&mut self) -> Vec<IpAddr> {
        tokio::select! {
            // Never over while a handle is here.
            () = &mut self.driver => std::future::pending().await,
            Some(_) = self.changes.next() => self.ips(),
        }
    }

    fn ips(&self) -> Vec<IpAddr> {
        let peers = self.balancer.endpoints();
        peers.iter().map(|peer| peer.addr().ip()).collect()
    }

    /// Under which address this client is known.
    fn own(&self, pod: SocketAddr) -> IpAddr {
        let told = || env::var(POD_IP).ok()?.parse().ok();
        let own = self.own.or_else(told).or_else(|| route_to(pod));
        // Without a route there is nobody to connect to either; until there is, any address will do.
        own.unwrap_or_else(|| Ipv6Addr::from(u128::from(process_seed())).into())
    }
}

/// The address from which the kernel would send there. It sends nothing.
fn route_to(pod: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match pod {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(pod).ok()?;
    let own = socket.local_addr().ok()?.ip();
    (!own.is_unspecified()).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_address_is_that_of_the_way_to_a_pod() {
        // To loopback goes what comes from loopback, whatever networks the machine has.
        let own = route_to(SocketAddr::from(([127, 0, 0, 2], 80)));
        assert_eq!(own, Some(Ipv4Addr::LOCALHOST.into()));
    }
}
