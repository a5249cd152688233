//! Every policy, part and size, as closures to measure.

use std::{fmt, hint::black_box, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use headless_lb::{
    Balancer, Builder, Endpoint, First, Fixed, LeastRequest, NewService, Observation, Policy,
    Position, ProbeError, Random, Replica, Resolution, Role, RoundRobin, probe_fn,
    registry::{Config, Registry, Snapshot},
};
use tokio::time::Instant;

/// What is done with each of them.
pub(crate) trait Visitor {
    fn visit(&mut self, row: Row, pick: &(impl Fn() + Sync));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policies {
    First,
    LeastRequest,
    Random,
    Replica,
    RoundRobin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
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

/// Visits every policy and part with each number of endpoints.
pub(crate) fn visit_each(sizes: &[usize], visitor: &mut impl Visitor) {
    use Policies::{First, LeastRequest, Random, Replica, RoundRobin};
    for policy in [RoundRobin, Random, LeastRequest, First, Replica] {
        for &n in sizes {
            let row = |part| Row { policy, part, n };
            visitor.visit(row(Part::Choice), &choice(policy, n));
            // The driver takes observations one by one: with 10,000 pods, that is minutes.
            if policy != Replica || n <= 1_000 {
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

/// The choice alone: over the snapshots that a balancer loads, made by the registry that makes them.
fn choice(policy: Policies, n: usize) -> impl Fn() + Sync {
    let (snapshot, policy) = (ArcSwap::from_pointee(snapshot(n, policy)), policy.boxed());
    move || {
        let snapshot = snapshot.load();
        let choice = policy.pick(snapshot.set().available());
        black_box(choice.map(|choice| choice.endpoint()));
    }
}

fn snapshot(n: usize, policy: Policies) -> Snapshot<()> {
    let now = Instant::now();
    let mut registry = Registry::new("bench", Config::default(), |_: &Arc<Endpoint>| (), now);
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
    move || drop(black_box(balancer.pick()))
}

fn addresses(n: usize) -> impl Iterator<Item = SocketAddr> {
    (0..n).map(|i| SocketAddr::from(([10, (i >> 16) as u8, (i >> 8) as u8, i as u8], 80)))
}

impl Policies {
    fn boxed(self) -> Arc<dyn Policy> {
        match self {
            Self::First => Arc::new(First::new()),
            Self::LeastRequest => Arc::new(LeastRequest::new()),
            Self::Random => Arc::new(Random::new()),
            Self::Replica => Arc::new(Replica(RoundRobin::new())),
            Self::RoundRobin => Arc::new(RoundRobin::new()),
        }
    }

    /// Not through [`boxed`](Self::boxed): that would be behind two pointers.
    fn give_to(self, builder: Builder) -> Builder {
        match self {
            Self::First => builder.policy(First::new()),
            Self::LeastRequest => builder.policy(LeastRequest::new()),
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

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = match self.policy {
            Policies::Replica => "Replica(RoundRobin)".to_owned(),
            other => format!("{other:?}"),
        };
        let part = match self.part {
            Part::Choice => "choice",
            Part::Pick => "pick",
            Part::PickArc => "pick Arc",
        };
        write!(f, "{policy} {part} {}", self.n)
    }
}
