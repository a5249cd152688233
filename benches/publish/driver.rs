//! What the driver of a balancer does with what it is told, without waiting.

use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use headless_lb::{
    Balancer, Endpoint, Fixed, Observation, ProbeError, Resolution, Role, Status, Term,
    registry::{Config, Registry, Snapshot},
};
use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

/// The defaults: so many checks must fail in a row to set an endpoint aside, and succeed to bring it back.
const CHECK_FALL: u32 = 3;
const CHECK_RISE: u32 = 2;
/// As often as the driver asks.
const INTERVAL: Duration = Duration::from_secs(5);

type NoService = fn(&Arc<Endpoint>);

/// A registry, and what the readers load.
pub(crate) struct Driver {
    registry: Registry<NoService>,
    snapshot: ArcSwap<Snapshot<()>>,
    status: ArcSwap<Status>,
    now: Instant,
    /// The addresses of the answer before, as numbers.
    listed: Vec<u32>,
    next: u32,
    rng: SmallRng,
    updates: usize,
}

impl Driver {
    pub(crate) fn new(n: usize, updates: usize) -> Self {
        Self::with(Config::default(), n, updates)
    }

    fn with(config: Config, n: usize, updates: usize) -> Self {
        let now = Instant::now();
        let no_service: NoService = |_| ();
        let mut registry = Registry::new("bench", config, no_service, now);
        let listed: Vec<u32> = (0..n as u32).collect();
        registry.on_asked(now);
        registry.on_answer(now, Ok(resolution(&listed)));
        let first = registry.publish().expect("the first answer is a change");
        Self {
            snapshot: ArcSwap::from_pointee(first.into_snapshot()),
            status: ArcSwap::from_pointee(registry.status().clone()),
            registry,
            now,
            next: n as u32,
            listed,
            rng: SmallRng::seed_from_u64(1),
            updates,
        }
    }

    /// Times an event and what the driver does after it. Tells whether there was a new snapshot.
    fn time(&mut self, event: impl FnOnce(&mut Registry<NoService>, Instant)) -> (Duration, bool) {
        let start = thread_time();
        let stored = self.turn(event);
        (thread_time() - start, stored)
    }

    /// By this name valgrind knows what to count.
    #[inline(never)]
    fn turn(&mut self, event: impl FnOnce(&mut Registry<NoService>, Instant)) -> bool {
        self.take(event)
    }

    fn take(&mut self, event: impl FnOnce(&mut Registry<NoService>, Instant)) -> bool {
        event(&mut self.registry, self.now);
        let published = self.registry.publish();
        let stored = published.is_some();
        if let Some(published) = published {
            self.snapshot.store(Arc::new(published.into_snapshot()));
        }
        self.status.store(Arc::new(self.registry.status().clone()));
        self.registry.tell_services();
        stored
    }

    /// The next answer, shuffled, with so many addresses replaced; and 5 s later.
    fn next_answer(&mut self, replaced: usize) -> Resolution {
        self.now += INTERVAL;
        self.listed.shuffle(&mut self.rng);
        for number in &mut self.listed[..replaced] {
            *number = self.next;
            self.next += 1;
        }
        self.listed.shuffle(&mut self.rng);
        resolution(&self.listed)
    }

    fn answer(&mut self, resolution: Resolution) -> (Duration, bool) {
        self.registry.on_asked(self.now);
        self.time(|registry, now| registry.on_answer(now, Ok(resolution)))
    }

    /// Ends what lingered, untimed.
    fn tick(&mut self) {
        self.registry.on_tick(self.now);
        black_box(self.registry.publish());
        self.registry.tell_services();
    }

    pub(crate) fn answers(&mut self, replaced: fn(usize) -> usize) -> Vec<Duration> {
        let replaced = replaced(self.listed.len());
        let updates = 0..self.updates;
        let update = |_| {
            let resolution = self.next_answer(replaced);
            let (time, stored) = self.answer(resolution);
            assert_eq!(stored, replaced > 0, "a store exactly if something changed");
            self.tick();
            time
        };
        updates.map(update).collect()
    }

    /// That takes two answers: the first adds, the second is believed.
    pub(crate) fn everything_changes(&mut self) -> Vec<Duration> {
        let updates = 0..self.updates;
        let update = |_| {
            let first = self.next_answer(self.listed.len());
            let (adds, _) = self.answer(first);
            let second = self.next_answer(0);
            let (removes, stored) = self.answer(second);
            assert!(stored, "the second answer removes");
            self.now += Config::default().linger;
            self.tick();
            adds + removes
        };
        updates.map(update).collect()
    }

    /// Another endpoint claims to be the primary, in the next term.
    pub(crate) fn role_moves(&mut self) -> Vec<Duration> {
        *self = Self::with(probed(), self.listed.len(), self.updates);
        let endpoints = self.ids();
        for &id in &endpoints {
            self.registry
                .on_observed(self.now, id, Ok(Role::Replica.into()));
        }
        black_box(self.registry.publish());
        let updates = 0..self.updates;
        let update = |i: usize| {
            let (old, new) = (
                endpoints[i % endpoints.len()],
                endpoints[(i + 1) % endpoints.len()],
            );
            let claim = Observation::of(Role::Primary).in_term(Term::new(i as u128 + 1));
            let (time, stored) =
                self.time(|registry, now| registry.on_observed(now, new, Ok(claim)));
            assert!(stored, "a new primary is a new set");
            self.registry
                .on_observed(self.now, old, Ok(Role::Replica.into()));
            black_box(self.registry.publish());
            time
        };
        updates.map(update).collect()
    }

    /// An endpoint refuses a connection; later it takes one.
    pub(crate) fn one_is_ejected(&mut self) -> Vec<Duration> {
        // Failures are reported through a handle, of any balancer.
        let nothing = Balancer::builder(Fixed::new(Vec::<SocketAddr>::new()));
        let (reporter, _driver) = nothing.build();
        let endpoints: Vec<_> = self.snapshot.load().set().iter().cloned().collect();
        let updates = 0..self.updates;
        let update = |i: usize| {
            let endpoint = &endpoints[i % endpoints.len()];
            reporter.unreachable(endpoint);
            let (time, stored) = self.time(|registry, now| registry.on_alarm(now));
            assert!(stored, "an ejection is a new set");
            reporter.reached(endpoint);
            self.registry.on_alarm(self.now);
            black_box(self.registry.publish());
            time
        };
        updates.map(update).collect()
    }

    /// The checks of all end at once, and a third has failed often enough now.
    pub(crate) fn all_are_checked(&mut self) -> Vec<Duration> {
        let ids = self.ids();
        let third = |ids: &[u64]| -> Vec<_> {
            let result = |(i, &id): (usize, &u64)| match i % 3 {
                0 => (id, Err(ProbeError::passing("as scripted"))),
                _ => (id, Ok(())),
            };
            ids.iter().enumerate().map(result).collect()
        };
        let updates = 0..self.updates;
        let update = |_| {
            for _ in 1..CHECK_FALL {
                self.registry.on_all_checked(self.now, third(&ids));
            }
            let results = third(&ids);
            let (time, stored) = self.time(|registry, now| {
                registry.on_all_checked(now, results);
            });
            assert!(stored, "a third set aside is a new set");
            for _ in 0..CHECK_RISE {
                let well = ids.iter().map(|&id| (id, Ok(())));
                self.registry.on_all_checked(self.now, well);
            }
            black_box(self.registry.publish());
            time
        };
        updates.map(update).collect()
    }

    /// The first reports of all probes; one is of the primary.
    pub(crate) fn starts_probed(&mut self) -> Vec<Duration> {
        let (n, updates) = (self.listed.len(), 0..self.updates);
        let update = |_| {
            *self = Self::with(probed(), n, self.updates);
            let report = |(i, id)| {
                let role = if i == n / 2 {
                    Role::Primary
                } else {
                    Role::Replica
                };
                (id, Ok(role.into()))
            };
            let reports: Vec<_> = self.ids().into_iter().enumerate().map(report).collect();
            let (time, stored) = self.time(|registry, now| registry.on_all_observed(now, reports));
            assert!(stored, "a first primary is a new set");
            time
        };
        updates.map(update).collect()
    }

    fn ids(&self) -> Vec<u64> {
        let snapshot = self.snapshot.load();
        snapshot
            .set()
            .iter()
            .map(|endpoint| endpoint.id())
            .collect()
    }

    /// An endpoint that was removed 30 s ago is forgotten.
    pub(crate) fn one_lingers_out(&mut self) -> Vec<Duration> {
        let updates = 0..self.updates;
        let update = |_| {
            let resolution = self.next_answer(1);
            self.registry.on_asked(self.now);
            self.take(|registry, now| registry.on_answer(now, Ok(resolution)));
            self.now += Config::default().linger;
            let (time, stored) = self.time(|registry, now| registry.on_tick(now));
            assert!(!stored, "it was not in the set");
            time
        };
        updates.map(update).collect()
    }
}

/// Without a probe there are no roles.
fn probed() -> Config {
    let mut config = Config::default();
    config.probe_interval = Some(Duration::from_secs(1));
    config
}

fn resolution(numbers: &[u32]) -> Resolution {
    let address = |number: &u32| {
        let [_, a, b, c] = number.to_be_bytes();
        SocketAddr::from(([10, a, b, c], 80))
    };
    numbers.iter().map(address).collect()
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
