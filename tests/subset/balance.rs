//! How even the shares are, and how little moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use headless_lb::subset::{ClientId, Matching, Quota, nearest};
use proptest::prelude::*;

pub(super) fn ips(net: u8, count: u16) -> Vec<IpAddr> {
    let ip = |host: u16| {
        let [high, low] = host.to_be_bytes();
        Ipv4Addr::new(10, net, high, low).into()
    };
    (0..count).map(ip).collect()
}

type Pairs = BTreeSet<(IpAddr, IpAddr)>;

fn matched(clients: &[IpAddr], pods: &[IpAddr], quota: Quota) -> Pairs {
    let matching = Matching::new(clients.iter().copied(), pods.iter().copied(), quota);
    matching.pairs().collect()
}

fn by_rendezvous(clients: &[IpAddr], pods: &[IpAddr], size: usize) -> Pairs {
    let row = |&client: &IpAddr| {
        let row = nearest(ClientId::from(client), pods.iter().copied(), size);
        row.into_iter().map(move |pod| (client, pod))
    };
    clients.iter().flat_map(row).collect()
}

/// The largest share of a pod and the mean.
fn largest_and_mean(pairs: &Pairs, pods: &[IpAddr]) -> (usize, f64) {
    let mut loads = BTreeMap::new();
    for (_, pod) in pairs {
        *loads.entry(pod).or_insert(0) += 1;
    }
    let mean = pairs.len() as f64 / count(pods) as f64;
    (loads.into_values().max().unwrap_or(0), mean)
}

/// New connections, in percent of those before.
fn moved(before: &Pairs, after: &Pairs) -> f64 {
    after.difference(before).count() as f64 * 100.0 / before.len() as f64
}

/// The largest is 5 % above the mean at most, or what whole numbers make of 2 %.
#[test]
fn shares_among_peers_are_even() {
    let sizes = [
        (1000, 1000, None),
        (100, 100, None),
        (37, 211, None),
        (37, 211, Some(20)),
        (700, 90, None),
        (90, 700, None),
        (300, 300, Some(50)),
    ];
    for (clients, pods, size) in sizes {
        let (clients, pods) = (ips(1, clients), ips(2, pods));
        let quota = Quota::of(clients.len(), pods.len(), size);
        let pairs = matched(&clients, &pods, quota);
        assert_eq!(
            pairs.len(),
            clients.len() * quota.size(),
            "all have their pods"
        );
        let (largest, mean) = largest_and_mean(&pairs, &pods);
        let rounded = (1.02 * mean).ceil();
        assert!(
            largest as f64 <= (1.05 * mean).max(rounded),
            "{} x {}: {largest} of mean {mean}",
            clients.len(),
            pods.len()
        );
    }
}

/// 0.2 % of 1,000 pods: twice what the pod itself has.
#[test]
fn a_pod_that_comes_or_goes_moves_little() {
    let (clients, pods) = (ips(1, 1000), ips(2, 1000));
    let quota = Quota::of(1000, 1000, None);
    let before = matched(&clients, &pods, quota);
    let alone = by_rendezvous(&clients, &pods, 20);
    let change = |pods: &[IpAddr]| {
        let quota = Quota::after(Some(quota), clients.len(), pods.len(), None);
        let among = moved(&before, &matched(&clients, pods, quota));
        (among, moved(&alone, &by_rendezvous(&clients, pods, 20)))
    };
    let mean = |changes: &[(f64, f64)]| {
        let n = changes.len() as f64;
        let sum = |of: fn(&(f64, f64)) -> f64| changes.iter().map(of).sum::<f64>() / n;
        (sum(|change| change.0), sum(|change| change.1))
    };
    let comes = ips(3, 5)
        .into_iter()
        .map(|new| change(&[&pods[..], &[new]].concat()));
    let comes = mean(&comes.collect::<Vec<_>>());
    let goes: Vec<_> = (0..5)
        .map(|i| change(&[&pods[..i * 190], &pods[i * 190 + 1..]].concat()))
        .collect();
    let goes = mean(&goes);
    assert!(
        comes.0 <= 0.2 && goes.0 <= 0.2,
        "among peers {comes:?}, {goes:?}"
    );
    // 0.1 % is the pod's own share.
    assert!((0.07..=0.13).contains(&comes.1) && (0.07..=0.13).contains(&goes.1));
}

/// As published for gRPC's A68: what each client draws for itself is as uneven as chance makes it.
#[test]
fn shares_by_rendezvous_are_as_uneven_as_chance() {
    let (clients, pods) = (ips(1, 1000), ips(2, 1000));
    let (largest, mean) = largest_and_mean(&by_rendezvous(&clients, &pods, 20), &pods);
    // The largest of 1,000 binomial(1000, 0.02): 34.7 on average, 31 to 42 in 99.8 % of all sets.
    assert!(
        (1.5..=2.1).contains(&(largest as f64 / mean)),
        "{largest} of {mean}"
    );
}

/// DNS tells of a change one replica after the other: ten peers are unknown to some clients, another ten to
/// others; and half of all keep an older cap.
#[test]
fn clients_that_disagree_stay_nearly_even() {
    const VIEWS: usize = 4;
    let quota = Quota::of(1000, 1000, None);
    let older = Quota::after(Some(Quota::of(1030, 1000, None)), 1000, 1000, None);
    assert_eq!((quota.cap(), older.cap()), (21, 22));
    let share = |net: u8, missing: usize, caps: [Quota; 2]| {
        let (clients, pods) = (ips(net, 1000), ips(net + 100, 1000));
        let mut pairs = Pairs::new();
        for view in 0..VIEWS {
            // Nobody lacks itself.
            let lacks =
                |client: usize| (client + 17 * view) % 100 < missing && client % VIEWS != view;
            let peers = (0..1000)
                .filter(|&client| !lacks(client))
                .map(|client| clients[client]);
            let matching = Matching::new(peers, pods.iter().copied(), caps[view % 2]);
            for &client in clients.iter().skip(view).step_by(VIEWS) {
                pairs.extend(matching.pods_of(client).map(|pod| (client, pod)));
            }
        }
        assert_eq!(pairs.len(), 20_000);
        let (largest, mean) = largest_and_mean(&pairs, &pods);
        largest as f64 / mean
    };
    // One pod of a thousand decides, so the mean of several sets of addresses.
    let mean = |missing, caps| (1..=3).map(|net| share(net, missing, caps)).sum::<f64>() / 3.0;
    let (peers, caps) = (mean(1, [quota; 2]), mean(0, [quota, older]));
    let both = mean(1, [quota, older]);
    assert!(
        peers <= 1.18 && caps <= 1.18 && both <= 1.2,
        "{peers} {caps} {both}"
    );
    // Or they would not disagree at all.
    assert!(peers > 1.05 && caps > 1.05);
}

#[test]
fn more_clients_move_few_of_the_others() {
    let pods = ips(2, 300);
    let (few, more) = (ips(1, 300), ips(1, 330));
    let quota = Quota::of(300, 300, Some(20));
    let before = matched(&few, &pods, quota);
    let mut after = matched(&more, &pods, Quota::after(Some(quota), 330, 300, Some(20)));
    after.retain(|(client, _)| few.contains(client));
    assert!(moved(&before, &after) <= 4.0, "{}", moved(&before, &after));
}

/// Addresses of either family.
fn addresses(most: usize) -> impl Strategy<Value = Vec<IpAddr>> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::from(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::from(Ipv6Addr::from_bits(bits)));
    proptest::collection::vec(prop_oneof![v4, v6], 1..most)
}

fn count(addresses: &[IpAddr]) -> usize {
    addresses.iter().collect::<BTreeSet<_>>().len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everybody_has_as_many_pods_as_told_and_no_pod_far_above_its_cap(
        clients in addresses(60), pods in addresses(60), size in 1_usize..30,
    ) {
        let quota = Quota::of(count(&clients), count(&pods), Some(size));
        let pairs = matched(&clients, &pods, quota);
        for client in &clients {
            prop_assert_eq!(pairs.iter().filter(|pair| pair.0 == *client).count(), quota.size());
        }
        let (largest, _) = largest_and_mean(&pairs, &pods);
        prop_assert!(largest <= quota.cap() + 1, "{} above {}", largest, quota.cap());
    }

    #[test]
    fn order_and_repetition_of_an_answer_mean_nothing(
        clients in addresses(40), pods in addresses(40), size in 1_usize..20, turn in 0_usize..40,
    ) {
        let quota = Quota::of(count(&clients), count(&pods), Some(size));
        let turned = |list: &[IpAddr]| {
            let mut turned = list.to_vec();
            turned.rotate_left(turn % list.len());
            turned.push(list[0]);
            turned.reverse();
            turned
        };
        prop_assert_eq!(
            matched(&clients, &pods, quota),
            matched(&turned(&clients), &turned(&pods), quota)
        );
        let client = ClientId::from(clients[0]);
        prop_assert_eq!(
            nearest(client, pods.iter().copied(), size),
            nearest(client, turned(&pods), size)
        );
    }

    #[test]
    fn by_rendezvous_one_pod_moves_one_place(pods in addresses(60), size in 1_usize..30) {
        let client = ClientId::from("me");
        let all: BTreeSet<_> = nearest(client, pods.iter().copied(), size).into_iter().collect();
        let gone = pods[0];
        let left = pods.iter().copied().filter(|pod| *pod != gone);
        let left: BTreeSet<_> = nearest(client, left, size).into_iter().collect();
        prop_assert!(left.difference(&all).count() <= usize::from(all.contains(&gone)));
    }
}
