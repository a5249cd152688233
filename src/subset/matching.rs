//! Who takes which pods, when all clients know of each other.

use std::{iter, net::IpAddr};

use super::{
    Quota,
    hash::{ClientId, Eye, distinct, id},
};

/// The nearest so many pods of each client are looked at first: enough for nearly all of them.
const REACH: u64 = 4;

/// Which client takes which pods: the same answer in every process that knows the same addresses.
///
/// Pairs of a client and a pod are gone through from the nearest to the farthest; a pair is taken if the client
/// lacks pods and the pod has room. Both sides prefer who is near, so this is the one stable matching of them
/// (Gale and Shapley's, where either side may propose), and a small change of either list stays a small change
/// of the answer.
///
/// ```
/// use headless_lb::subset::{Matching, Quota};
/// use std::net::{IpAddr, Ipv4Addr};
///
/// let ips = |net| (0..100).map(move |i| IpAddr::from(Ipv4Addr::new(10, net, 0, i)));
/// let quota = Quota::of(100, 100, None);
/// let matching = Matching::new(ips(1), ips(2), quota);
/// assert!(ips(1).all(|client| matching.pods_of(client).count() == quota.size()));
/// assert!(matching.loads().all(|clients| clients <= quota.cap()));
/// ```
#[derive(Clone, Debug)]
pub struct Matching {
    /// Ascending.
    clients: Vec<IpAddr>,
    /// Ascending.
    pods: Vec<IpAddr>,
    /// For each client, places in `pods`.
    rows: Vec<Vec<u32>>,
    /// How many clients each pod has.
    taken: Vec<u32>,
}

/// Ascending by distance; among equals by addresses.
type Pair = (u64, u32, u32);

impl Matching {
    /// Matches. Order and duplicates mean nothing.
    ///
    /// Takes about 10 ms for 1,000 clients of 1,000 pods (release build): not for a task that others wait for.
    pub fn new(
        clients: impl IntoIterator<Item = IpAddr>,
        pods: impl IntoIterator<Item = IpAddr>,
        quota: Quota,
    ) -> Self {
        let (clients, pods) = (distinct(clients), distinct(pods));
        let mut matching = Self {
            rows: vec![Vec::with_capacity(quota.size()); clients.len()],
            taken: vec![0; pods.len()],
            clients,
            pods,
        };
        let size = quota.size().min(matching.pods.len());
        if size == matching.pods.len() {
            // Nothing to choose. Above all, nothing to search: the cap is no reason to leave a pod out.
            let all: Vec<u32> = (0..).take(size).collect();
            matching.rows.fill(all);
            matching.taken.fill(matching.clients.len() as u32);
        } else {
            matching.solve(size, quota.cap());
        }
        matching
    }

    fn solve(&mut self, size: usize, mut cap: usize) {
        let eyes: Vec<Eye> = self
            .clients
            .iter()
            .map(|&ip| ClientId::from(ip).eye())
            .collect();
        let pods: Vec<u64> = self.pods.iter().map(|&ip| id(ip)).collect();
        let mut pairs: Vec<Pair> = Vec::new();

        // Nearest first, in rings, each four times as wide as those within it: a pair of a client that has all
        // it wants need not be sorted, and that is nearly all of them.
        let width = (u64::MAX / pods.len() as u64).saturating_mul(REACH * size as u64);
        let mut ring = 0..=width;
        while self.is_short(size) {
            self.collect(&mut pairs, &eyes, &pods, size, |distance, _| {
                ring.contains(&distance)
            });
            self.take(&pairs, size, cap);
            if *ring.end() == u64::MAX {
                break;
            }
            ring = *ring.end() + 1..=ring.end().saturating_mul(4);
        }

        // Where every pod with room is taken already, the least taken make room, each for one more.
        while self.is_short(size) {
            cap += 1;
            let open: Vec<bool> = self
                .taken
                .iter()
                .map(|&taken| (taken as usize) < cap)
                .collect();
            self.collect(&mut pairs, &eyes, &pods, size, |_, pod| open[pod as usize]);
            pairs.retain(|&(_, client, pod)| !self.rows[client as usize].contains(&pod));
            self.take(&pairs, size, cap);
        }
    }

    fn is_short(&self, size: usize) -> bool {
        self.rows.iter().any(|row| row.len() < size)
    }

    /// The pairs that `is_wanted`, of clients that are short.
    fn collect(
        &self,
        pairs: &mut Vec<Pair>,
        eyes: &[Eye],
        pods: &[u64],
        size: usize,
        is_wanted: impl Fn(u64, u32) -> bool,
    ) {
        pairs.clear();
        for ((client, eye), row) in (0..).zip(eyes).zip(&self.rows) {
            if row.len() >= size {
                continue;
            }
            for (pod, &id) in (0..).zip(pods) {
                let distance = eye.distance(id);
                if is_wanted(distance, pod) {
                    pairs.push((distance, client, pod));
                }
            }
        }
        pairs.sort_unstable();
    }

    fn take(&mut self, pairs: &[Pair], size: usize, cap: usize) {
        for &(_, client, pod) in pairs {
            let (row, taken) = (
                &mut self.rows[client as usize],
                &mut self.taken[pod as usize],
            );
            if row.len() < size && (*taken as usize) < cap {
                row.push(pod);
                *taken += 1;
            }
        }
    }

    /// The pods of this client; none if it is not among the clients.
    pub fn pods_of(&self, client: IpAddr) -> impl Iterator<Item = IpAddr> + '_ {
        let place = self.clients.binary_search(&client.to_canonical()).ok();
        let row = place.map_or(&[][..], |place| &self.rows[place]);
        row.iter().map(|&pod| self.pods[pod as usize])
    }

    /// How many clients each pod has, in the order of their addresses.
    pub fn loads(&self) -> impl Iterator<Item = usize> + '_ {
        self.taken.iter().map(|&taken| taken as usize)
    }

    /// All pairs of a client and a pod of it.
    pub fn pairs(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        iter::zip(&self.clients, &self.rows).flat_map(move |(&client, row)| {
            row.iter()
                .map(move |&pod| (client, self.pods[pod as usize]))
        })
    }
}

/// The nearest `size` pods of one client, nearest first: what it takes when it knows of no other
/// (gRPC's A68, rendezvous hashing).
///
/// ```
/// use headless_lb::subset::{ClientId, nearest};
/// use std::net::{IpAddr, Ipv4Addr};
///
/// let pods = || (0..50).map(|i| IpAddr::from(Ipv4Addr::new(10, 0, 0, i)));
/// let mine = nearest(ClientId::from("checkout-7"), pods(), 20);
/// // A pod that leaves moves nothing else.
/// let later = nearest(ClientId::from("checkout-7"), pods().filter(|pod| *pod != mine[3]), 20);
/// assert_eq!(later[..3], mine[..3]);
/// assert_eq!(later[3..19], mine[4..]);
/// ```
pub fn nearest(
    client: ClientId,
    pods: impl IntoIterator<Item = IpAddr>,
    size: usize,
) -> Vec<IpAddr> {
    let eye = client.eye();
    let pods = distinct(pods).into_iter();
    let mut order: Vec<_> = pods.map(|pod| (eye.distance(id(pod)), pod)).collect();
    if size < order.len() {
        order.select_nth_unstable(size);
        order.truncate(size);
    }
    order.sort_unstable();
    order.into_iter().map(|(_, pod)| pod).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ips(net: u8, count: u16) -> Vec<IpAddr> {
        let ip = |host: u16| {
            let [high, low] = host.to_be_bytes();
            Ipv4Addr::new(10, net, high, low).into()
        };
        (0..count).map(ip).collect()
    }

    /// The rule as it is told: all pairs, nearest first.
    fn plainly(clients: &[IpAddr], pods: &[IpAddr], quota: Quota) -> Vec<(IpAddr, IpAddr)> {
        let mut pairs = Vec::new();
        for &client in clients {
            let eye = ClientId::from(client).eye();
            pairs.extend(pods.iter().map(|&pod| (eye.distance(id(pod)), client, pod)));
        }
        pairs.sort_unstable();
        let mut taken: Vec<(IpAddr, IpAddr)> = Vec::new();
        for (_, client, pod) in pairs {
            let row = taken.iter().filter(|pair| pair.0 == client).count();
            let load = taken.iter().filter(|pair| pair.1 == pod).count();
            if row < quota.size() && load < quota.cap() {
                taken.push((client, pod));
            }
        }
        taken.sort_unstable();
        taken
    }

    #[test]
    fn rings_give_what_going_through_all_pairs_gives() {
        for (clients, pods, size) in [
            (30, 60, 5),
            (60, 30, 8),
            (25, 25, 20),
            (3, 80, 20),
            (50, 7, 2),
        ] {
            let (clients, pods) = (ips(1, clients), ips(2, pods));
            let quota = Quota::of(clients.len(), pods.len(), Some(size));
            let plain = plainly(&clients, &pods, quota);
            let matching = Matching::new(clients.clone(), pods.clone(), quota);
            let mut pairs: Vec<_> = matching.pairs().collect();
            pairs.sort_unstable();
            // Beyond that, those who were short went over the cap.
            assert!(plain.iter().all(|pair| pairs.binary_search(pair).is_ok()));
            assert_eq!(pairs.len(), clients.len() * size);
            let short = pairs.len() - plain.len();
            let above = matching
                .loads()
                .map(|load| load.saturating_sub(quota.cap()));
            assert!(above.sum::<usize>() <= short, "{short} short");
        }
    }

    #[test]
    fn who_is_short_takes_the_least_taken() {
        // Two of three pods each, for two clients, with room for one at each pod: one place is missing.
        let (clients, pods) = (ips(1, 2), ips(2, 3));
        let quota = Quota::of(2, 3, Some(2)); // 1.02 * 4 / 3, rounded up: 2
        assert_eq!(quota.cap(), 2);
        let mut matching = Matching::new(clients, pods, quota);
        matching.rows.fill(Vec::new());
        matching.taken.fill(0);
        matching.solve(2, 1);
        let mut loads: Vec<_> = matching.loads().collect();
        loads.sort_unstable();
        assert_eq!(loads, [1, 1, 2]);
        assert!(
            matching
                .rows
                .iter()
                .all(|row| row.len() == 2 && row[0] != row[1])
        );
    }

    #[test]
    fn nobody_and_nothing_are_no_trouble() {
        let none = Matching::new([], [], Quota::of(0, 0, None));
        assert_eq!(none.pairs().count(), 0);
        let unused = Matching::new([], ips(2, 50), Quota::of(30, 50, Some(20)));
        assert!(unused.loads().all(|load| load == 0));
        let lonely = Matching::new(ips(1, 30), [], Quota::of(30, 0, Some(20)));
        assert_eq!(lonely.pairs().count(), 0);
        assert!(nearest(ClientId::from("a"), [], 20).is_empty());
    }
}
