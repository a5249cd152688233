//! The writer's state machine: answers, observations and alarms in; published sets and deadlines out.
//!
//! It does no I/O and reads no clock: every event carries `now`. The driver of a
//! [`Balancer`](crate::Balancer) feeds it; a test or a simulation can do the same by hand.
//!
//! ```
//! use headless_lb::{Resolution, registry::{Config, Registry}};
//! use std::net::SocketAddr;
//! use tokio::time::Instant;
//!
//! let now = Instant::now();
//! let mut registry = Registry::new("web.default", Config::default(), |_: &_| (), now);
//! registry.on_asked(now);
//! registry.on_answer(now, Ok(Resolution::new([SocketAddr::from(([10, 0, 0, 1], 80))])));
//!
//! let published = registry.publish().expect("the set changed");
//! assert_eq!(published.snapshot().set().len(), 1);
//! assert!(registry.publish().is_none(), "nothing changed since");
//! assert!(registry.next_deadline() > Some(now), "ask again later");
//! ```

use std::{fmt, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use crate::{
    eject::{Connectivity, Update},
    endpoint::Endpoint,
    probe::{Observation, ProbeError, Role},
    resolve::{Resolution, ResolveError},
    set::{EndpointSet, Position},
};

mod answers;
mod cadence;
mod config;
mod emptiness;
#[cfg(test)]
mod model;
mod roles;
mod status;

use answers::Fingerprint;
use cadence::Cadence;
pub(crate) use config::FOREVER;
pub use config::{Config, EmptyMode};
use emptiness::Emptiness;
use roles::Roles;
pub(crate) use status::Ago;
pub use status::Status;

/// Makes the service of an endpoint, when the endpoint appears. Closures of the endpoint count.
///
/// It runs in the driver: return at once and connect later.
pub trait NewService: Send + Sync + 'static {
    /// The service. Cloned for every request, so it should be a handle.
    type Service: Clone + Send + Sync + 'static;

    /// Makes it.
    fn new_service(&self, endpoint: &Arc<Endpoint>) -> Self::Service;
}

impl<F, S> NewService for F
where
    F: Fn(&Arc<Endpoint>) -> S + Send + Sync + 'static,
    S: Clone + Send + Sync + 'static,
{
    type Service = S;

    fn new_service(&self, endpoint: &Arc<Endpoint>) -> S {
        self(endpoint)
    }
}

/// The state of one service's discovery. See the [module](self).
pub struct Registry<N: NewService> {
    config: Config,
    new_service: N,
    /// Ascending by rank: the order inside each group of a set.
    slots: Vec<Slot<N::Service>>,
    cadence: Cadence,
    emptiness: Emptiness,
    roles: Roles,
    status: Status,
    rng: SmallRng,
    asked_at: Instant,
    /// Order-free sum of the last whole answer, while it says all there is to say about the set.
    settled: Option<Fingerprint>,
    /// The earliest end of a linger, an ejection, a claim, among all slots.
    slot_deadline: Option<Instant>,
    /// How many endpoints of the set are at each position.
    sizes: [usize; Position::COUNT],
    generation: u64,
    dirty: bool,
    added: Vec<Arc<Endpoint>>,
    removed: Vec<Arc<Endpoint>>,
}

/// One address and what the writer knows of it.
struct Slot<S> {
    /// The endpoint's rank, at hand: an answer is compared with all of them.
    rank: u64,
    endpoint: Arc<Endpoint>,
    service: S,
    presence: Presence,
    position: Position,
    connectivity: Connectivity,
    /// When an answer listed it last; see [`Registry::last_seen`].
    seen: Instant,
    /// Whole answers in a row that lacked it.
    misses: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// In the set. Lacking in enough whole answers, confirmed empty or too stale: Absent.
    Live,
    /// Not in the set; keeps counters and service. Listed again: Live. Linger over, or a connect
    /// fails: dropped.
    Absent { since: Instant },
}

/// What readers load: a set, and the service of each endpoint at the same index.
pub struct Snapshot<S> {
    set: Arc<EndpointSet>,
    services: Box<[S]>,
}

impl<S> Snapshot<S> {
    pub(crate) fn empty() -> Self {
        let set = EndpointSet::from_groups(Vec::new(), [0; Position::COUNT], 0);
        Self {
            set: Arc::new(set),
            services: Box::default(),
        }
    }

    /// The endpoints.
    #[inline]
    pub fn set(&self) -> &Arc<EndpointSet> {
        &self.set
    }

    /// The service of the endpoint at `index` of the set.
    #[inline]
    pub fn service(&self, index: usize) -> Option<&S> {
        self.services.get(index)
    }
}

impl<S> fmt::Debug for Snapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// A new snapshot, and what came and went since the last one.
#[derive(Debug)]
pub struct Published<S> {
    snapshot: Snapshot<S>,
    added: Vec<Arc<Endpoint>>,
    removed: Vec<Arc<Endpoint>>,
}

impl<S> Published<S> {
    /// The snapshot to hand to readers.
    pub fn snapshot(&self) -> &Snapshot<S> {
        &self.snapshot
    }

    /// The snapshot, by value.
    pub fn into_snapshot(self) -> Snapshot<S> {
        self.snapshot
    }

    /// Endpoints that were not in the set before.
    pub fn added(&self) -> &[Arc<Endpoint>] {
        &self.added
    }

    /// Endpoints that are not in the set any more.
    pub fn removed(&self) -> &[Arc<Endpoint>] {
        &self.removed
    }
}

impl<N: NewService> Registry<N> {
    /// Knows nothing yet, and wants to ask at once.
    pub fn new(service: impl Into<Arc<str>>, config: Config, new_service: N, now: Instant) -> Self {
        let config = config.bounded();
        Self {
            new_service,
            slots: Vec::new(),
            cadence: Cadence::new(now, config.jitter_seed),
            emptiness: Emptiness::default(),
            roles: Roles::default(),
            status: Status::new(service.into()),
            rng: SmallRng::seed_from_u64(!config.jitter_seed),
            config,
            asked_at: now,
            settled: None,
            slot_deadline: None,
            sizes: [0; Position::COUNT],
            generation: 0,
            dirty: false,
            added: Vec::new(),
            removed: Vec::new(),
        }
    }

    // ===== events =====

    /// A question goes to the source. Until its answer, none is due.
    pub fn on_asked(&mut self, now: Instant) {
        self.asked_at = now;
        self.cadence.asked();
    }

    /// The source answered.
    pub fn on_answer(&mut self, now: Instant, answer: Result<Resolution, ResolveError>) {
        self.status.answers += 1;
        self.status
            .latency
            .record(now.saturating_duration_since(self.asked_at));
        match answer {
            Ok(resolution) if !resolution.addresses().is_empty() || resolution.is_partial() => {
                self.on_records(now, &resolution);
            }
            Ok(resolution) => {
                let error = ResolveError::empty().detail("an answer without addresses");
                self.on_empty(
                    now,
                    match resolution.ttl() {
                        Some(ttl) => error.holds_for(ttl),
                        None => error,
                    },
                );
            }
            Err(error) if error.is_empty() => self.on_empty(now, error),
            Err(error) => self.on_failure(now, error),
        }
        self.status.failures = self.cadence.failures();
        self.status.pending_empty = self.emptiness.counted();
    }

    /// Somebody doubts the set: ask soon. Coalesced, at least 1 s after the last answer.
    pub fn on_refresh(&mut self, now: Instant) {
        self.cadence.refresh(now, &self.config);
    }

    /// Connects failed or succeeded again, as the endpoints' counters tell.
    pub fn on_alarm(&mut self, now: Instant) {
        let rng = &mut self.rng;
        let mut failed = false;
        self.slots.retain_mut(|slot| {
            match slot
                .connectivity
                .update(now, slot.endpoint.connects(), rng.random())
            {
                Update::None | Update::Returned => true,
                Update::Failed => {
                    failed = true;
                    // Gone from DNS and gone from the network: no reason to keep its connections.
                    slot.presence == Presence::Live
                }
            }
        });
        if failed {
            self.cadence.refresh(now, &self.config);
        }
        self.reposition();
    }

    /// A probe saw something of the endpoint with this id, or failed to.
    pub fn on_observed(&mut self, now: Instant, id: u64, result: Result<Observation, ProbeError>) {
        let live = self
            .slots
            .iter()
            .filter(|slot| slot.presence == Presence::Live);
        // A last report of an endpoint that just left says nothing about the set.
        if live.into_iter().any(|slot| slot.endpoint.id() == id) {
            self.roles.observe(now, id, result);
            self.reposition();
        }
    }

    /// Time passed: ends lingers, ejections, claims and staleness that are due.
    pub fn on_tick(&mut self, now: Instant) {
        if let Some(lease) = self.config.claim_lease {
            self.roles.expire(now, lease);
        }
        for slot in &mut self.slots {
            slot.connectivity.expire(now);
        }
        self.drop_stale(now);
        let linger = self.config.linger;
        self.slots.retain(|slot| match slot.presence {
            Presence::Live => true,
            Presence::Absent { since } => now < since + linger,
        });
        self.reposition();
    }

    // ===== what the driver asks =====

    /// Whether a question is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.cadence.due().is_some_and(|due| due <= now)
    }

    /// When to call [`on_tick`](Self::on_tick) or to ask, whichever comes first.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stale = self.stale_deadline();
        [self.cadence.due(), self.slot_deadline, stale]
            .into_iter()
            .flatten()
            .min()
    }

    /// The new snapshot, if the set changed since the last call.
    pub fn publish(&mut self) -> Option<Published<N::Service>> {
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        self.generation += 1;
        let live = || {
            self.slots
                .iter()
                .filter(|slot| slot.presence == Presence::Live)
        };
        let sizes = self.sizes;
        let total = sizes.iter().sum();
        let (mut endpoints, mut services) = (Vec::with_capacity(total), Vec::with_capacity(total));
        for position in Position::ALL
            .into_iter()
            .filter(|&position| sizes[position as usize] > 0)
        {
            for slot in live().filter(|slot| slot.position == position) {
                endpoints.push(Arc::clone(&slot.endpoint));
                services.push(slot.service.clone());
            }
        }
        Some(Published {
            snapshot: Snapshot {
                set: Arc::new(EndpointSet::from_groups(endpoints, sizes, self.generation)),
                services: services.into(),
            },
            added: std::mem::take(&mut self.added),
            removed: std::mem::take(&mut self.removed),
        })
    }

    /// How discovery is doing.
    pub fn status(&self) -> &Status {
        &self.status
    }

    // ===== what follows from an event =====

    /// Puts every endpoint where its role and its connects say. Endpoints outside the set have no
    /// position, but deadlines.
    fn reposition(&mut self) {
        let Self {
            slots,
            roles,
            config,
            ..
        } = self;
        // Where all replicas refuse, there is nothing to fall back to: they stay.
        let eject_replicas = roles.is_empty()
            || slots.iter().any(|slot| {
                let is_replica = roles.role(slot.endpoint.id()) == Role::Replica;
                is_replica && slot.presence == Presence::Live && !slot.connectivity.is_ejected()
            });
        let mut sizes = [0; Position::COUNT];
        let mut deadline = config.claim_lease.and_then(|lease| roles.deadline(lease));
        // One pass: a large service's slots do not fit into the cache.
        for slot in slots {
            if slot.presence == Presence::Live {
                let position = slot.position(roles, eject_replicas);
                sizes[position as usize] += 1;
                self.dirty |= std::mem::replace(&mut slot.position, position) != position;
            }
            deadline = [deadline, slot.deadline(config)]
                .into_iter()
                .flatten()
                .min();
        }
        self.slot_deadline = deadline;
        let live = sizes.iter().sum::<usize>();
        self.sizes = sizes;
        self.status.endpoints = live;
        let probed = config.claim_lease.is_some();
        self.status.unobserved = if probed {
            live.saturating_sub(roles.observed())
        } else {
            0
        };
    }
}

impl<S> Slot<S> {
    #[inline]
    fn position(&self, roles: &Roles, eject_replicas: bool) -> Position {
        let ejected = self.connectivity.is_ejected();
        if roles.is_empty() {
            return if ejected {
                Position::Ejected
            } else {
                Position::Unknown
            };
        }
        let id = self.endpoint.id();
        match roles.role(id) {
            // Not ejected, whatever its connects do: there is nothing to fall back to.
            _ if roles.is_primary(id) => Position::Primary,
            _ if roles.is_stale(id) => Position::Rejected,
            Role::Replica if !ejected || !eject_replicas => Position::Replica,
            _ if ejected => Position::Ejected,
            _ => Position::Unknown,
        }
    }

    fn deadline(&self, config: &Config) -> Option<Instant> {
        let linger = match self.presence {
            Presence::Live => None,
            Presence::Absent { since } => Some(since + config.linger),
        };
        [linger, self.connectivity.until()]
            .into_iter()
            .flatten()
            .min()
    }
}

impl<N: NewService> fmt::Debug for Registry<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
