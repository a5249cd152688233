//! Which pods a client uses, where it does not use all: by the library's own rules.

use std::net::{IpAddr, Ipv4Addr};

use headless_lb::subset::{ClientId, Matching, Quota, nearest};

use super::client::{address_of, number_of};

/// How clients choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Subset {
    /// Each takes the nearest by hash.
    Nearest(u32),
    /// All of them share the pods evenly.
    Matched(u32),
}

/// The pods of each client, ascending.
pub(crate) fn subsets(clients: u32, pods: u32, subset: Subset) -> Vec<Vec<u32>> {
    let all = || (0..pods).map(|pod| address_of(pod).ip());
    let row = |ips: &mut dyn Iterator<Item = IpAddr>| {
        let mut row: Vec<u32> = ips.map(number_of).collect();
        row.sort_unstable();
        row
    };
    match subset {
        Subset::Nearest(k) => (0..clients)
            .map(|client| {
                let id = ClientId::from(own(client));
                row(&mut nearest(id, all(), k as usize).into_iter())
            })
            .collect(),
        Subset::Matched(k) => {
            let quota = Quota::of(clients as usize, pods as usize, Some(k as usize));
            let matching = Matching::new((0..clients).map(own), all(), quota);
            let of_client = |client| row(&mut matching.pods_of(own(client)));
            (0..clients).map(of_client).collect()
        }
    }
}

/// The most clients that a pod has, relative to the mean.
pub(crate) fn spread(subsets: &[Vec<u32>], pods: u32) -> f64 {
    let mut clients = vec![0_u32; pods as usize];
    for &pod in subsets.iter().flatten() {
        clients[pod as usize] += 1;
    }
    let most = clients.iter().max().map_or(0, |&most| most);
    let pairs: usize = subsets.iter().map(Vec::len).sum();
    f64::from(most) * f64::from(pods) / pairs as f64
}

/// The address of a client.
fn own(client: u32) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0xac10_0000 | client))
}
