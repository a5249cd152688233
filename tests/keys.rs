//! Policies by key: shares, what moves when pods come and go, bounds, and that every process agrees.

use std::{collections::VecDeque, env, net::SocketAddr, process::Command};

use headless_lb::{Address, Balancer, EndpointSet, Fixed, Maglev, Policy, Rendezvous};
use proptest::{prelude::*, test_runner::Config};
use rand_distr::{Distribution, Zipf};
use rand_xoshiro::{Xoshiro256PlusPlus, rand_core::SeedableRng};

fn addr(host: u16) -> SocketAddr {
    let [high, low] = host.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 80))
}

fn set_of(hosts: impl IntoIterator<Item = u16>) -> EndpointSet {
    EndpointSet::of(hosts.into_iter().map(addr))
}

/// What the policy picks for a key.
fn picked(policy: &impl Policy, set: &EndpointSet, key: u64) -> SocketAddr {
    let choice = policy.pick(set.available().for_key(key));
    choice.expect("there are candidates").endpoint().addr()
}

/// The pods of the keys from 0 on.
fn homes(policy: &impl Policy, set: &EndpointSet, keys: u64) -> Vec<SocketAddr> {
    policy.prepare(set);
    (0..keys).map(|key| picked(policy, set, key)).collect()
}

/// The largest share of a pod, as a multiple of the mean.
fn largest_share(homes: &[SocketAddr], n: u16) -> f64 {
    let count = |host| homes.iter().filter(|&&home| home == addr(host)).count();
    let largest = (0..n).map(count).max().unwrap_or(0);
    largest as f64 * f64::from(n) / homes.len() as f64
}

#[test]
fn keys_are_spread_evenly() {
    // 5,000 keys a pod: standard deviation 70, so 5 % are 3.5 of them for one pod, and the keys are always the same.
    let set = set_of(0..20);
    let rendezvous = largest_share(&homes(&Rendezvous::new(), &set, 100_000), 20);
    assert!(rendezvous < 1.05, "{rendezvous}");
    let maglev = largest_share(&homes(&Maglev::new(), &set, 100_000), 20);
    assert!(maglev < 1.05, "{maglev}");
}

#[test]
fn the_keys_of_a_pod_that_left_are_spread_evenly_over_the_others() {
    fn check(name: &str, policy: &impl Policy) {
        let before = homes(policy, &set_of(0..20), 200_000);
        let after = homes(policy, &set_of(1..20), 200_000);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(home, _)| **home == addr(0));
        let heirs: Vec<SocketAddr> = moved.map(|(_, heir)| *heir).collect();
        for host in 1..20 {
            // About 526: standard deviation 23.
            let share = heirs.iter().filter(|&&heir| heir == addr(host)).count();
            assert!(
                share.abs_diff(heirs.len() / 19) < 100,
                "{name}: {host} got {share}"
            );
        }
    }
    check("rendezvous", &Rendezvous::new());
    check("maglev", &Maglev::new());
}

/// How many keys move when this one of `hosts` leaves: as a multiple of those that must, were they spread evenly.
fn moved_by(hosts: &[u16], gone: u16, keys: u64) -> f64 {
    let all = homes(&Maglev::new(), &set_of(hosts.iter().copied()), keys);
    let rest = hosts.iter().copied().filter(|&host| host != gone);
    let after = homes(&Maglev::new(), &set_of(rest), keys);
    let moved = all
        .iter()
        .zip(&after)
        .filter(|(before, after)| before != after);
    moved.count() as f64 * hosts.len() as f64 / keys as f64
}

#[test]
fn with_hundreds_of_pods_maglev_moves_a_few_keys_more_and_never_all() {
    for n in [200, 655, 656, 1_000, 2_000] {
        let hosts: Vec<u16> = (0..n).collect();
        let moved = moved_by(&hosts, n / 3, 200_000);
        assert!(moved <= 8.0, "{moved} of {n}");
    }
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn when_a_pod_leaves_or_joins_rendezvous_moves_its_keys_and_no_others(
        hosts in prop::collection::btree_set(any::<u16>(), 2..60),
        gone in any::<prop::sample::Index>(),
    ) {
        let hosts: Vec<u16> = hosts.into_iter().collect();
        let gone = hosts[gone.index(hosts.len())];
        let all = homes(&Rendezvous::new(), &set_of(hosts.iter().copied()), 500);
        let rest = hosts.iter().copied().filter(|&host| host != gone);
        let after = homes(&Rendezvous::new(), &set_of(rest), 500);
        for (before, after) in all.iter().zip(&after) {
            prop_assert!(before == after || *before == addr(gone));
        }
    }

    #[test]
    fn when_a_pod_leaves_or_joins_maglev_moves_at_most_two_of_n_keys(
        hosts in prop::collection::btree_set(any::<u16>(), 10..130),
        gone in any::<prop::sample::Index>(),
    ) {
        // So many keys that chance adds little: 1.8 of n move with 130 pods.
        let hosts: Vec<u16> = hosts.into_iter().collect();
        let gone = hosts[gone.index(hosts.len())];
        let moved = moved_by(&hosts, gone, 40_000);
        prop_assert!(moved <= 2.0, "{moved} of {}", hosts.len());
    }

    #[test]
    fn the_order_of_a_set_means_nothing_and_prepared_or_not_neither(
        hosts in Just((0..30).collect::<Vec<u16>>()).prop_shuffle(),
        keys in any::<u64>(),
    ) {
        let (ordered, shuffled) = (set_of(0..30), set_of(hosts));
        let (prepared, raw) = (Rendezvous::new(), Rendezvous::new());
        let (one, other) = (Maglev::new(), Maglev::new());
        let weight = |endpoint: &headless_lb::Endpoint| (endpoint.addr().to_string().len() % 3) as f64;
        let (weighed, unprepared) = (Rendezvous::new().weighted(weight), Rendezvous::new().weighted(weight));
        prepared.prepare(&shuffled);
        weighed.prepare(&shuffled);
        one.prepare(&ordered);
        other.prepare(&shuffled);
        for key in (0..200).map(|i| keys.wrapping_add(i)) {
            prop_assert_eq!(picked(&prepared, &shuffled, key), picked(&raw, &ordered, key));
            prop_assert_eq!(picked(&one, &ordered, key), picked(&other, &shuffled, key));
            prop_assert_eq!(picked(&weighed, &shuffled, key), picked(&unprepared, &ordered, key));
        }
    }
}

/// A million requests whose keys are Zipf distributed, 200 of them in flight at a time.
fn assert_bounded(policy: &impl Policy) {
    const N: u16 = 20;
    let set = set_of(0..N);
    policy.prepare(&set);
    let keys = Zipf::new(10_000.0, 1.1).expect("a valid exponent");
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let (mut in_flight, mut largest) = (VecDeque::new(), 0);
    for _ in 0..1_000_000 {
        let key = keys.sample(&mut rng) as u64;
        let choice = policy.pick(set.available().for_key(key)).expect("a choice");
        let pending = choice.endpoint().pending() + 1;
        let bound = (1.25 * (in_flight.len() + 1) as f64 / f64::from(N)).ceil();
        assert!(
            f64::from(pending) <= bound.max(4.0),
            "{pending} over {bound}"
        );
        largest = largest.max(pending);
        let endpoint = set.iter().find(|one| one.id() == choice.endpoint().id());
        in_flight.push_back(endpoint.expect("of this set").begin());
        if in_flight.len() > 200 {
            in_flight.pop_front();
        }
    }
    assert_eq!(largest, 13, "the hottest key fills its pod");
}

#[test]
fn no_pod_gets_more_than_its_bound_of_a_million_zipf_keys_by_rendezvous() {
    assert_bounded(&Rendezvous::new().bounded(1.25));
}

#[test]
fn no_pod_gets_more_than_its_bound_of_a_million_zipf_keys_by_maglev() {
    assert_bounded(&Maglev::new().bounded(1.25));
}

#[test]
fn keys_are_shared_out_by_weight() {
    let policy = Rendezvous::new().weighted(|endpoint| match endpoint.addr() {
        SocketAddr::V4(addr) => f64::from(addr.ip().octets()[3]),
        SocketAddr::V6(_) => f64::NAN,
    });
    let homes = homes(&policy, &set_of(1..=4), 400_000);
    for host in 1..=4 {
        let share = homes.iter().filter(|&&home| home == addr(host)).count();
        let expected = 40_000 * usize::from(host);
        assert!(share.abs_diff(expected) < expected / 100, "{host}: {share}");
    }
}

#[test]
fn when_one_weight_grows_keys_move_to_it_and_not_between_others() {
    let weighted = |first: f64| {
        Rendezvous::new().weighted(move |endpoint| {
            if endpoint.addr() == addr(0) {
                first
            } else {
                1.0
            }
        })
    };
    let set = set_of(0..10);
    let (before, after) = (
        homes(&weighted(1.0), &set, 5_000),
        homes(&weighted(3.0), &set, 5_000),
    );
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(before, after)| before == after || *after == addr(0))
    );
    // Weights that are all the same are as good as none.
    assert_eq!(before, homes(&Rendezvous::new(), &set, 5_000));
}

#[tokio::test]
async fn a_handle_for_a_key_picks_for_it_whatever_is_asked_of_it() {
    let pods = Fixed::new((0..20).map(addr));
    let cache = Balancer::builder(pods).policy(Rendezvous::new()).spawn();
    cache.resolved().await.expect("a fixed list");
    for key in 0..50_u64 {
        let home = cache.pick_for(key).expect("a pod").addr();
        let handle = cache.for_key(key);
        assert_eq!(handle.pick().expect("a pod").addr(), home);
        assert_eq!(handle.clone().pick().expect("a pod").addr(), home);
        let other = handle.with_policy(Rendezvous::new());
        assert_eq!(other.pick().expect("a pod").addr(), home);
        // The key's ranks, which are the same each time.
        let ranks = |handle: &Balancer| -> Vec<SocketAddr> {
            let picks = handle.pick_many(5).expect("pods");
            picks.iter().map(|pick| pick.addr()).collect()
        };
        assert_eq!(ranks(&handle), ranks(&other));
        assert_eq!(ranks(&handle)[0], home);
        // Another key is another key.
        assert_eq!(
            handle.for_key(key + 1).pick().expect("a pod").addr(),
            cache.pick_for(key + 1).expect("a pod").addr()
        );
    }
}

/// Pods with names and without, and what is picked of them for some keys.
fn told() -> String {
    let named = (0..5).map(|i| Address::from(addr(i)).named(format!("cache-{i}")));
    let set = EndpointSet::of(named.chain((5..10).map(|i| addr(i).into())));
    let (rendezvous, maglev) = (Rendezvous::new(), Maglev::new());
    rendezvous.prepare(&set);
    maglev.prepare(&set);
    let keys = 0..12_u64;
    let host = |addr: SocketAddr| addr.to_string()["10.0.0.".len()..].replace(":80", "");
    let by = |picked: &dyn Fn(u64) -> SocketAddr| {
        keys.clone()
            .map(|key| host(picked(key)))
            .collect::<Vec<_>>()
            .join(" ")
    };
    format!(
        "rendezvous {}, maglev {}",
        by(&|key| picked(&rendezvous, &set, key)),
        by(&|key| picked(&maglev, &set, key))
    )
}

const TELL: &str = "HEADLESS_LB_TELL_HOMES";

#[test]
fn every_process_and_every_version_picks_the_same_pods() {
    if env::var_os(TELL).is_some() {
        println!("homes: {}", told());
        return;
    }
    // A change of these moves keys of users.
    assert_eq!(
        told(),
        "rendezvous 3 7 8 6 0 6 6 3 4 2 3 3, maglev 6 5 4 6 2 0 4 9 2 4 1 3"
    );
    let child = Command::new(env::current_exe().expect("this program"))
        .args([
            "--exact",
            "every_process_and_every_version_picks_the_same_pods",
            "--nocapture",
        ])
        .env(TELL, "1")
        .output()
        .expect("a second process");
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(output.contains(&format!("homes: {}", told())), "{output}");
}
