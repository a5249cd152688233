//! Every policy, part and size, as closures to measure.

use std::{cell::Cell, fmt, hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use headless_lb::{
    Adaptive, Balancer, Builder, Candidates, Endpoint, EndpointSet, First, Fixed, LeastRequest,
    Maglev, NewService, Observation, Or, Outcome, PeakEwma, Policy, Position, Prefer, Primary,
    ProbeError, Random, Rendezvous, Replica, Resolution, Role, RoundRobin, Weighted, probe_fn,
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
    Maglev,
    Or,
    PeakEwma,
    Prefer,
    Random,
    Rendezvous,
    Replica,
    RoundRobin,
    Weighted,
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

const ALL: [Policies; 13] = [
    Policies::RoundRobin,
    Policies::Random,
    Policies::LeastRequest,
    Policies::LeastRequestFull,
    Policies::PeakEwma,
    Policies::Adaptive,
    Policies::Weighted,
    Policies::Rendezvous,
    Policies::Maglev,
    Policies::First,
    Policies::Replica,
    Policies::Or,
    Policies::Prefer,
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
            visit_alone(policy, n, visitor);
            // The driver takes observations one by one: with 10,000 pods, that is minutes.
            if !policy.has_roles() || n <= 1_000 {
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

/// The policy alone, and the choice alone, each time with what the policy looks at beside the endpoints. A closure for each
/// wish: to tell them apart at each pick would be counted as part of it.
fn visit_alone(policy: Policies, n: usize, visitor: &mut impl Visitor) {
    match policy {
        Policies::Adaptive | Policies::PeakEwma => {
            visit_given(policy, n, at_tick, visitor);
        }
        _ if policy.has_key() => {
            visit_given(policy, n, |all, _| all.for_key(tick()), visitor);
        }
        _ => visit_given(policy, n, |all, _| all, visitor),
    }
}

/// 10,000 picks a second, by a clock that costs next to nothing. Not a call of its own: it would cost as much as a pick.
#[inline(always)]
fn at_tick(all: Candidates<'_>, start: Instant) -> Candidates<'_> {
    all.at(start + Duration::from_micros(100) * tick())
}

fn visit_given<W>(policy: Policies, n: usize, wish: W, visitor: &mut impl Visitor)
where
    W: for<'a> Fn(Candidates<'a>, Instant) -> Candidates<'a> + Copy + Sync,
{
    let row = |part| Row { policy, part, n };
    visitor.visit(row(Part::Given), &given(policy, n, wish));
    visitor.visit(row(Part::Choice), &choice(policy, n, wish));
}

/// The policy alone: no load of a snapshot, no clock.
fn given<W>(policy: Policies, n: usize, wish: W) -> impl Fn() + Sync
where
    W: for<'a> Fn(Candidates<'a>, Instant) -> Candidates<'a> + Sync,
{
    let (set, policy) = (Arc::clone(snapshot(n, policy).set()), policy.boxed());
    let start = measured(&set, &*policy);
    move || {
        let choice = policy.pick(wish(set.available(), start));
        black_box(choice.map(|choice| choice.endpoint()));
    }
}

/// The choice alone: over the snapshots that a balancer loads, made by the registry that makes them.
fn choice<W>(policy: Policies, n: usize, wish: W) -> impl Fn() + Sync
where
    W: for<'a> Fn(Candidates<'a>, Instant) -> Candidates<'a> + Sync,
{
    let (snapshot, policy) = (ArcSwap::from_pointee(snapshot(n, policy)), policy.boxed());
    let start = measured(snapshot.load().set(), &*policy);
    move || {
        let snapshot = snapshot.load();
        let choice = policy.pick(wish(snapshot.set().available(), start));
        black_box(choice.map(|choice| choice.endpoint()));
    }
}

/// Counts the picks of this thread.
fn tick() -> u32 {
    thread_local! {
        static TICKS: Cell<u32> = const { Cell::new(0) };
    }
    let ticks = TICKS.get().wrapping_add(1);
    TICKS.set(ticks);
    ticks
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
    config.probe_interval = policy.has_roles().then_some(Duration::from_secs(1));
    let mut registry = Registry::new("bench", config, |_: &Arc<Endpoint>| (), now);
    registry.on_asked(now);
    registry.on_answer(now, Ok(Resolution::new(addresses(n))));
    let published = registry.publish().expect("the first answer is a change");
    if !policy.has_roles() {
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
            let expected = if policy.has_roles() {
                Position::Replica
            } else {
                Position::Unknown
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
    let has_key = policy.has_key();
    move || {
        let pick = if has_key {
            balancer.pick_for(tick())
        } else {
            balancer.pick()
        };
        drop(black_box(pick));
    }
}

fn addresses(n: usize) -> impl Iterator<Item = SocketAddr> {
    (0..n).map(|i| SocketAddr::from(([10, (i >> 16) as u8, (i >> 8) as u8, i as u8], 80)))
}

impl Policies {
    fn has_key(self) -> bool {
        matches!(self, Self::Rendezvous | Self::Maglev)
    }

    /// Whether it goes by roles: all endpoints are replicas then.
    fn has_roles(self) -> bool {
        matches!(self, Self::Replica | Self::Or)
    }

    fn boxed(self) -> Arc<dyn Policy> {
        match self {
            Self::Adaptive => Arc::new(Adaptive::new()),
            Self::First => Arc::new(First::new()),
            Self::LeastRequest => Arc::new(LeastRequest::new()),
            Self::LeastRequestFull => Arc::new(LeastRequest::new().full()),
            Self::Maglev => Arc::new(Maglev::new()),
            Self::Or => Arc::new(or()),
            Self::PeakEwma => Arc::new(PeakEwma::new()),
            Self::Prefer => Arc::new(prefer()),
            Self::Random => Arc::new(Random::new()),
            Self::Rendezvous => Arc::new(Rendezvous::new()),
            Self::Replica => Arc::new(Replica(RoundRobin::new())),
            Self::RoundRobin => Arc::new(RoundRobin::new()),
            Self::Weighted => Arc::new(weighted()),
        }
    }

    /// Not through [`boxed`](Self::boxed): that would be behind two pointers.
    fn give_to(self, builder: Builder) -> Builder {
        let probed = |builder: Builder| {
            builder.probe(probe_fn(|_: &Endpoint| async {
                Ok::<Observation, ProbeError>(Role::Replica.into())
            }))
        };
        match self {
            Self::Adaptive => builder.policy(Adaptive::new()),
            Self::First => builder.policy(First::new()),
            Self::LeastRequest => builder.policy(LeastRequest::new()),
            Self::LeastRequestFull => builder.policy(LeastRequest::new().full()),
            Self::Maglev => builder.policy(Maglev::new()),
            Self::Or => probed(builder.policy(or())),
            Self::PeakEwma => builder.policy(PeakEwma::new()),
            Self::Prefer => builder.policy(prefer()),
            Self::Random => builder.policy(Random::new()),
            Self::Rendezvous => builder.policy(Rendezvous::new()),
            Self::Replica => probed(builder.policy(Replica(RoundRobin::new()))),
            Self::RoundRobin => builder.policy(RoundRobin::new()),
            Self::Weighted => builder.policy(weighted()),
        }
    }
}

/// There is no primary, so the second is asked each time.
fn or() -> Or<Primary, RoundRobin> {
    Primary.or(RoundRobin::new())
}

/// Half of the endpoints.
fn prefer() -> Prefer<RoundRobin> {
    Prefer::by(
        |endpoint| last(endpoint).is_multiple_of(2),
        RoundRobin::new(),
    )
}

/// Weights of 1 to 4: three turns of eight are skipped.
fn weighted() -> Weighted {
    Weighted::by(|endpoint| f64::from(1 + last(endpoint) % 4))
}

/// The last byte of its address.
fn last(endpoint: &Endpoint) -> u8 {
    match endpoint.addr() {
        SocketAddr::V4(addr) => addr.ip().octets()[3],
        SocketAddr::V6(_) => 0,
    }
}

impl fmt::Display for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeastRequestFull => f.write_str("LeastRequest.full()"),
            Self::Or => f.write_str("Or(Primary, RoundRobin)"),
            Self::Prefer => f.write_str("Prefer(RoundRobin)"),
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
