//! Every policy, part and size, as closures to measure.

use std::{cell::Cell, fmt, hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use headless_lb::{
    Adaptive, Balancer, Builder, Candidates, Endpoint, EndpointSet, First, Fixed, LeastRequest,
    NewService, Observation, Outcome, PeakEwma, Policy, Position, ProbeError, Random, Replica,
    Resolution, Role, RoundRobin, probe_fn,
    registry::{Config, Registry, Snapshot},
};
use tokio::time::Instant;

/// What is done with each of them.
pub(crate) trait Visitor {
    fn visit(&mut self, row: Row, pick: &(impl Fn() + Sync));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policies {
    Adaptive,
    First,
    LeastRequest,
    LeastRequestFull,
    PeakEwma,
    Random,
    Replica,
    RoundRobin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The policy alone, on a set at hand and given the time.
    Given,
    Choice,
    Pick,
    PickArc,
}

/// One line of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) policy: Policies,
    pub(crate) part: Part,
    pub(crate) n: usize,
}

const ALL: [Policies; 8] = [
    Policies::RoundRobin,
    Policies::Random,
    Policies::LeastRequest,
    Policies::LeastRequestFull,
    Policies::PeakEwma,
    Policies::Adaptive,
    Policies::First,
    Policies::Replica,
];

/// The policies that the command line names; none: all.
pub(crate) fn named() -> Vec<String> {
    let arguments = std::env::args().skip(1);
    arguments
        .filter(|argument| !argument.starts_with('-'))
        .collect()
}

/// Visits every policy and part with each number of endpoints.
pub(crate) fn visit_each(sizes: &[usize], visitor: &mut impl Visitor) {
    let named = named();
    let is_wanted = |policy: &Policies| {
        let name = policy.to_string();
        named.is_empty() || named.iter().any(|start| name.starts_with(start.as_str()))
    };
    for policy in ALL.into_iter().filter(is_wanted) {
        for &n in sizes {
            let row = |part| Row { policy, part, n };
            visitor.visit(row(Part::Given), &given(policy, n));
            visitor.visit(row(Part::Choice), &choice(policy, n));
            // The driver takes observations one by one: with 10,000 pods, that is minutes.
            if policy != Policies::Replica || n <= 1_000 {
                visitor.visit(row(Part::Pick), &pick(policy, n, |_: &Arc<Endpoint>| ()));
            }
        }
        let row = Row {
            policy,
            part: Part::PickArc,
            n: sizes[sizes.len() / 4],
        };
        visitor.visit(
            row,
            &pick(policy, row.n, |endpoint: &Arc<Endpoint>| {
                Arc::new(endpoint.addr())
            }),
        );
    }
}

/// The policy alone: no load of a snapshot, no clock.
fn given(policy: Policies, n: usize) -> impl Fn() + Sync {
    let (set, policy) = (Arc::clone(snapshot(n, policy).set()), policy.boxed());
    let start = measured(&set, &*policy);
    move || {
        let choice = policy.pick(at(set.available(), start, &*policy));
        black_box(choice.map(|choice| choice.endpoint()));
    }
}

/// The choice alone: over the snapshots that a balancer loads, made by the registry that makes them.
fn choice(policy: Policies, n: usize) -> impl Fn() + Sync {
    let (snapshot, policy) = (ArcSwap::from_pointee(snapshot(n, policy)), policy.boxed());
    let start = measured(snapshot.load().set(), &*policy);
    move || {
        let snapshot = snapshot.load();
        let choice = policy.pick(at(snapshot.set().available(), start, &*policy));
        black_box(choice.map(|choice| choice.endpoint()));
    }
}

/// 10,000 picks a second, by a clock that costs next to nothing.
fn at<'a>(candidates: Candidates<'a>, start: Instant, policy: &dyn Policy) -> Candidates<'a> {
    thread_local! {
        static TICKS: Cell<u32> = const { Cell::new(0) };
    }
    if !policy.is_timed() {
        return candidates;
    }
    let ticks = TICKS.get().wrapping_add(1);
    TICKS.set(ticks);
    candidates.at(start + Duration::from_micros(100) * ticks)
}

/// Gives each endpoint a latency, where the policy goes by them. When the picks begin.
///
/// The same one: nothing is in flight here, so the quickest would get all picks but for the cap on its share, which binds
/// in half a percent of the picks where requests take their time.
fn measured(set: &EndpointSet, policy: &dyn Policy) -> Instant {
    policy.prepare(set);
    let now = Instant::now();
    for endpoint in set {
        if policy.is_timed() {
            let mut request = endpoint.begin();
            request.sent_at(now);
            request.record_at(now + Duration::from_millis(10), Outcome::Success);
        }
    }
    now + Duration::from_millis(100)
}

fn snapshot(n: usize, policy: Policies) -> Snapshot<()> {
    let now = Instant::now();
    let mut config = Config::default();
    config.probe_interval = (policy == Policies::Replica).then_some(Duration::from_secs(1));
    let mut registry = Registry::new("bench", config, |_: &Arc<Endpoint>| (), now);
    registry.on_asked(now);
    registry.on_answer(now, Ok(Resolution::new(addresses(n))));
    let published = registry.publish().expect("the first answer is a change");
    if policy != Policies::Replica {
        return published.into_snapshot();
    }
    for endpoint in published.snapshot().set().iter() {
        registry.on_observed(now, endpoint.id(), Ok(Role::Replica.into()));
    }
    registry
        .publish()
        .expect("roles are a change")
        .into_snapshot()
}

/// The whole pick, over a balancer whose driver has done its work and is gone.
fn pick<N: NewService>(policy: Policies, n: usize, new_service: N) -> impl Fn() + Sync {
    let builder = policy.give_to(Balancer::builder(Fixed::new(addresses(n))));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime with a timer alone needs nothing");
    let balancer = runtime.block_on(async {
        let (balancer, driver) = builder.build_with(new_service);
        let settled = async {
            let expected = match policy {
                Policies::Replica => Position::Replica,
                _ => Position::Unknown,
            };
            while balancer
                .endpoints()
                .positions()
                .filter(|(position, _)| *position == expected)
                .count()
                < n
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = driver => unreachable!("a handle is alive"),
            () = settled => {}
        }
        balancer
    });
    measured(&balancer.endpoints(), &*policy.boxed());
    move || drop(black_box(balancer.pick()))
}

fn addresses(n: usize) -> impl Iterator<Item = SocketAddr> {
    (0..n).map(|i| SocketAddr::from(([10, (i >> 16) as u8, (i >> 8) as u8, i as u8], 80)))
}

impl Policies {
    fn boxed(self) -> Arc<dyn Policy> {
        match self {
            Self::Adaptive => Arc::new(Adaptive::new()),
            Self::First => Arc::new(First::new()),
            Self::LeastRequest => Arc::new(LeastRequest::new()),
            Self::LeastRequestFull => Arc::new(LeastRequest::new().full()),
            Self::PeakEwma => Arc::new(PeakEwma::new()),
            Self::Random => Arc::new(Random::new()),
            Self::Replica => Arc::new(Replica(RoundRobin::new())),
            Self::RoundRobin => Arc::new(RoundRobin::new()),
        }
    }

    /// Not through [`boxed`](Self::boxed): that would be behind two pointers.
    fn give_to(self, builder: Builder) -> Builder {
        match self {
            Self::Adaptive => builder.policy(Adaptive::new()),
            Self::First => builder.policy(First::new()),
            Self::LeastRequest => builder.policy(LeastRequest::new()),
            Self::LeastRequestFull => builder.policy(LeastRequest::new().full()),
            Self::PeakEwma => builder.policy(PeakEwma::new()),
            Self::Random => builder.policy(Random::new()),
            Self::Replica => {
                builder
                    .policy(Replica(RoundRobin::new()))
                    .probe(probe_fn(|_: &Endpoint| async {
                        Ok::<Observation, ProbeError>(Role::Replica.into())
                    }))
            }
            Self::RoundRobin => builder.policy(RoundRobin::new()),
        }
    }
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeastRequestFull => f.write_str("LeastRequest.full()"),
            Self::Replica => f.write_str("Replica(RoundRobin)"),
            other => write!(f, "{other:?}"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = match self.part {
            Part::Given => "given",
            Part::Choice => "choice",
            Part::Pick => "pick",
            Part::PickArc => "pick Arc",
        };
        write!(f, "{} {part} {}", self.policy, self.n)
    }
}
