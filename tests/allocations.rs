//! A pick allocates nothing, by any policy, and neither does the question who the primary is.
//!
//! The allocator counts for the whole process, so this file holds one test.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt;
use headless_lb::{
    Adaptive, Address, Balancer, Candidates, Choice, Driver, Endpoint, First, Fixed, LeastRequest,
    Maglev, PeakEwma, Policy, Position, Prefer, PreferReplica, Primary, Random, Rendezvous,
    Replica, Role, RoundRobin, Weighted, policy_fn, probe_fn,
};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const PICKS: u64 = 1_000;

#[test]
fn no_pick_and_no_view_of_the_primary_allocates() {
    let (db, _driver) = database();
    let by_pod = |endpoint: &Endpoint| endpoint.ordinal().map_or(f64::NAN, f64::from);
    let is_replica = |endpoint: &Endpoint| endpoint.name() != Some("db-0");
    let policies: [(&str, Arc<dyn Policy>); 21] = [
        ("Adaptive", Arc::new(Adaptive::new())),
        ("First", Arc::new(First::new())),
        (
            "First, failing back",
            Arc::new(First::new().fail_back(Duration::from_secs(1))),
        ),
        ("LeastRequest", Arc::new(LeastRequest::new())),
        ("LeastRequest, full", Arc::new(LeastRequest::new().full())),
        ("Maglev", Arc::new(Maglev::new())),
        ("Maglev, bounded", Arc::new(Maglev::new().bounded(1.25))),
        ("Or", Arc::new(Replica(Random::new()).or(Primary))),
        ("PeakEwma", Arc::new(PeakEwma::new())),
        (
            "Prefer",
            Arc::new(Prefer::by(is_replica, Weighted::by(by_pod))),
        ),
        (
            "policy_fn",
            Arc::new(policy_fn(|candidates| candidates.choose(0))),
        ),
        ("PreferReplica", Arc::new(PreferReplica(Random::new()))),
        ("Primary", Arc::new(Primary)),
        ("Random", Arc::new(Random::new())),
        ("Random, seeded", Arc::new(Random::seeded(1))),
        ("Rendezvous", Arc::new(Rendezvous::new())),
        (
            "Rendezvous, weighted and bounded",
            Arc::new(Rendezvous::new().weighted(by_pod).bounded(1.25)),
        ),
        ("Replica", Arc::new(Replica(LeastRequest::new()))),
        ("RoundRobin", Arc::new(RoundRobin::new())),
        ("Weighted", Arc::new(Weighted::by(by_pod))),
        (
            "Weighted, unprepared",
            Arc::new(Unprepared(Weighted::by(by_pod))),
        ),
    ];
    let _profiler = dhat::Profiler::builder().testing().build();
    for (name, policy) in policies {
        let db = db.with_policy(policy);
        assert_eq!(allocations(|| drop(db.pick().unwrap())), 0, "{name}: pick");
        assert_eq!(
            allocations(|| drop(db.pick_for("key").unwrap())),
            0,
            "{name}: pick_for"
        );
    }
    assert_eq!(
        allocations(|| drop(db.pod("db-2").unwrap())),
        0,
        "pod by name"
    );
    assert_eq!(
        allocations(|| drop(db.pod(2).unwrap())),
        0,
        "pod by ordinal"
    );
    let other = db.clone();
    assert_eq!(
        allocations(|| drop(other.clone().pick().unwrap())),
        0,
        "pick of a clone"
    );
    let primary = db.primary();
    assert_eq!(
        allocations(|| drop(primary.get().unwrap())),
        0,
        "get of the primary"
    );
    assert_eq!(
        allocations(|| drop(primary.wait(Duration::MAX).now_or_never().unwrap().unwrap())),
        0,
        "wait while there is a primary"
    );
    let writer = primary.get().unwrap();
    assert_eq!(
        allocations(|| assert!(writer.is_current())),
        0,
        "is_current"
    );
    assert_eq!(allocations(|| drop(writer.clone())), 0, "clone of a writer");
    // What is counted is counted: a list of picks is on the heap.
    assert!(allocations(|| drop(db.pick_many(2).unwrap())) >= PICKS);
}

/// A policy that never sees a set before it picks from it.
struct Unprepared<P>(P);

impl<P: Policy> Policy for Unprepared<P> {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        self.0.pick(candidates)
    }
}

/// Allocations of 1,000 calls, after one that warms up: the least of three looks, for the test harness has a thread
/// of its own, which allocates four blocks at some moment after it has started this one.
fn allocations(mut call: impl FnMut()) -> u64 {
    call();
    let mut look = || {
        let before = dhat::HeapStats::get().total_blocks;
        (0..PICKS).for_each(|_| call());
        dhat::HeapStats::get().total_blocks - before
    };
    (0..3).map(|_| look()).min().unwrap()
}

/// Five pods, the first of which is the primary. The driver has done its work: without it there would be no
/// primary.
fn database() -> (Balancer<Arc<SocketAddr>>, Driver) {
    let pod =
        |i: u8| Address::from(SocketAddr::from(([10, 0, 0, i], 5432))).named(format!("db-{i}"));
    let role = |endpoint: &Endpoint| {
        let role = if endpoint.name() == Some("db-0") {
            Role::Primary
        } else {
            Role::Replica
        };
        async move { Ok(role.into()) }
    };
    let builder = Balancer::builder(Fixed::new((0..5).map(pod))).probe(probe_fn(role));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (db, mut driver) =
            builder.build_with(|endpoint: &Arc<Endpoint>| Arc::new(endpoint.addr()));
        let observed = async {
            while !db
                .endpoints()
                .positions()
                .map(|(position, _)| position)
                .eq([
                    Position::Primary,
                    Position::Replica,
                    Position::Replica,
                    Position::Replica,
                    Position::Replica,
                ])
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = &mut driver => unreachable!("a handle is alive"),
            () = observed => {}
        }
        (db, driver)
    })
}
