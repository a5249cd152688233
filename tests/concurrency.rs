//! Threads pick while the set is swapped thousands of times.
//!
//! The driver runs on a paused clock, which jumps from one question to the next: sets are swapped as
//! fast as it can publish them, while threads of the operating system pick for real.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use headless_lb::{
    Balancer, Endpoint, EndpointSet, Fixed, LeastRequest, Prefer, Random, Rendezvous, Resolution,
    Resolve, ResolveError, RoundRobin, Weighted,
};

const SWAPS: u64 = 10_000;
const THREADS: usize = 3;

/// A window over the natural numbers, as addresses, that moves on with every answer and changes its
/// width: an endpoint's number tells in which sets it can be.
#[derive(Default)]
struct Window {
    answers: AtomicU32,
}

impl Resolve for Window {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        let answer = self.answers.fetch_add(1, Relaxed);
        // Neither end ever goes back, and most of the set stays: else the registry doubts the answer.
        let (start, end) = (2 * answer + answer % 2, 2 * answer + 8 + answer % 3);
        Ok((start..end).map(address).collect())
    }
}

fn address(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 80))
}

fn number(endpoint: &Endpoint) -> u32 {
    match endpoint.addr() {
        SocketAddr::V4(addr) => u32::from(*addr.ip()) & 0xff_ffff,
        SocketAddr::V6(_) => unreachable!("the window has none"),
    }
}

#[test]
fn a_pick_is_of_the_set_now_or_the_one_before_with_the_service_of_its_endpoint() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let builder = Balancer::builder(Window::default())
        .min_interval(Duration::from_millis(1))
        .refresh_interval(Duration::from_millis(1))
        .linger(Duration::from_millis(20));
    let (balancer, driver) = runtime.block_on(async {
        builder.build_with(|endpoint: &Arc<Endpoint>| Arc::new(endpoint.addr()))
    });
    let done = AtomicBool::new(false);
    let is_even = |endpoint: &Endpoint| number(endpoint).is_multiple_of(2);
    let weight = |endpoint: &Endpoint| f64::from(1 + number(endpoint) % 3);
    let picked = thread::scope(|scope| {
        let policies = [
            balancer.clone(),
            balancer.with_policy(Random::new()),
            balancer.with_policy(LeastRequest::new()),
            // Of these, each set has a table of its own.
            balancer.with_policy(Rendezvous::new()).for_key("user-7"),
            balancer.with_policy(Prefer::by(is_even, Weighted::by(weight))),
        ];
        let threads = policies.map(|balancer| {
            let done = &done;
            scope.spawn(move || pick_until(done, &balancer))
        });
        runtime.block_on(async {
            let swapped = async {
                while balancer.endpoints().generation() < SWAPS {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::select! {
                () = driver => unreachable!("a handle is alive"),
                () = swapped => {}
            }
        });
        done.store(true, Relaxed);
        threads.map(|thread| thread.join().unwrap())
    });
    let swaps_seen: usize = picked.iter().map(BTreeMap::len).sum();
    assert!(swaps_seen > 100, "threads saw {swaps_seen} endpoints only");
    for endpoint in picked
        .iter()
        .flat_map(BTreeMap::values)
        .chain(balancer.endpoints().iter())
    {
        assert_eq!(endpoint.pending(), 0, "{endpoint} still counts requests");
    }
}

/// Picks, and checks every pick against the sets before and after it. Returns what was picked.
fn pick_until(
    done: &AtomicBool,
    balancer: &Balancer<Arc<SocketAddr>>,
) -> BTreeMap<u64, Arc<Endpoint>> {
    let (mut picked, mut held) = (BTreeMap::new(), Vec::new());
    while !done.load(Relaxed) {
        let before = balancer.endpoints();
        let Ok(pick) = balancer.pick() else {
            assert!(before.is_empty(), "no pick from {before}");
            continue;
        };
        let after = balancer.endpoints();
        assert_eq!(
            **pick.service(),
            pick.addr(),
            "the service is another endpoint's"
        );
        assert!(
            is_from(&before, &after, pick.endpoint()),
            "{} was picked between {before} and {after}",
            pick.endpoint()
        );
        picked
            .entry(pick.endpoint().id())
            .or_insert_with(|| Arc::clone(pick.endpoint()));
        // Some picks stay for a while, over several sets.
        held.push(pick);
        if held.len() == 16 {
            held.drain(..8);
        }
    }
    picked
}

fn is_from(before: &EndpointSet, after: &EndpointSet, endpoint: &Arc<Endpoint>) -> bool {
    let has = |set: &EndpointSet| set.iter().any(|member| Arc::ptr_eq(member, endpoint));
    if after.generation() - before.generation() <= 1 {
        return has(before) || has(after);
    }
    // Sets came and went unseen; windows only move on.
    let first = before.iter().map(|member| number(member)).min();
    let last = after.iter().map(|member| number(member)).max();
    (first..=last).contains(&Some(number(endpoint)))
}

#[test]
fn round_robin_on_many_threads_keeps_shares_within_the_number_of_its_walks() {
    const PODS: u8 = 7;
    const PICKS: usize = 20_000;
    let pods = Fixed::new((0..PODS).map(|i| SocketAddr::from(([10, 0, 0, i], 80))));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let balancer = runtime.block_on(async {
        let (balancer, driver) = Balancer::builder(pods).policy(RoundRobin::new()).build();
        tokio::select! {
            () = driver => unreachable!("a handle is alive"),
            resolved = balancer.resolved() => resolved.unwrap(),
        }
        balancer
    });
    let walk = || {
        let mut shares = BTreeMap::<SocketAddr, usize>::new();
        for _ in 0..PICKS {
            *shares.entry(balancer.pick().unwrap().addr()).or_default() += 1;
        }
        shares
    };
    let mut shares = BTreeMap::<SocketAddr, usize>::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(walk)).collect();
        for (pod, share) in threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
        {
            *shares.entry(pod).or_default() += share;
        }
    });
    assert_eq!(shares.len(), usize::from(PODS));
    let (least, most) = (
        shares.values().min().unwrap(),
        shares.values().max().unwrap(),
    );
    assert!(
        most - least <= THREADS,
        "each walk is exact to one: {shares:?}"
    );
    assert_eq!(shares.values().sum::<usize>(), THREADS * PICKS);
    assert!(
        balancer
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.pending() == 0)
    );
}
