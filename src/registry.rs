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
//! registry.tell_services(); // what became of them, when the readers have the snapshot
//! assert!(registry.publish().is_none(), "nothing changed since");
//! assert!(registry.next_deadline() > Some(now), "ask again later");
//! ```

use std::{fmt, iter, mem, sync::Arc};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use crate::{
    eject::{Crowd, Update},
    endpoint::{Baseline, Endpoint},
    resolve::{Resolution, ResolveError},
    set::{EndpointSet, Position, Reign},
};

mod answers;
#[cfg(test)]
mod by_hand;
mod cadence;
mod checks;
mod condition;
mod config;
mod emptiness;
mod lifecycle;
#[cfg(test)]
mod model;
mod opinion;
mod roles;
mod slot;
mod snapshot;
mod start;
mod status;
mod warming;

use answers::Fingerprint;
use cadence::Cadence;
pub(crate) use condition::Condition;
pub use condition::EndpointState;
pub use config::{Config, EmptyMode};
use emptiness::Emptiness;
use lifecycle::Fate;
pub use lifecycle::NewService;
pub(crate) use opinion::HealthEvent;
use opinion::{Census, look, standing};
use roles::Roles;
use slot::{Presence, Slot};
pub use snapshot::{Published, Snapshot};
use start::Starts;
pub use status::Status;

/// The state of one service's discovery. See the [module](self).
pub struct Registry<N: NewService> {
    config: Config,
    new_service: N,
    /// Ascending by rank: the order inside each group of a set.
    slots: Vec<Slot<N::Service>>,
    cadence: Cadence,
    emptiness: Emptiness,
    /// `None` without a probe.
    roles: Option<Roles>,
    status: Status,
    rng: SmallRng,
    asked_at: Instant,
    /// Shared with the endpoints.
    baseline: Arc<Baseline>,
    /// Order-free sum of the last whole answer, while it says all there is to say about the set.
    settled: Option<Fingerprint>,
    /// The earliest end of a wait, a linger, an ejection, a step of a slow start, among all slots.
    slot_deadline: Option<Instant>,
    /// Services of endpoints that are forgotten, and when what is still in flight on them ends.
    draining: Vec<(Instant, N::Service)>,
    /// How many endpoints of the set are at each position.
    sizes: [usize; Position::COUNT],
    generation: u64,
    dirty: bool,
    /// Whether an endpoint of the set is on trial, or starts slowly.
    is_careful: bool,
    /// The end of the interval after which endpoints are compared.
    sweep_due: Option<Instant>,
    health_events: Vec<HealthEvent>,
    /// Whether other endpoints are in the set than the tracker follows.
    relisted: bool,
    added: Vec<Arc<Endpoint>>,
    removed: Vec<Arc<Endpoint>>,
    /// What services are to be told once the readers know.
    fates: Vec<(Fate, N::Service)>,
}

impl<N: NewService> Registry<N> {
    /// Knows nothing yet, and wants to ask at once.
    pub fn new(service: impl Into<Arc<str>>, config: Config, new_service: N, now: Instant) -> Self {
        let config = config.bounded();
        let baseline = Arc::new(Baseline::new(now));
        if let Some(row) = config.ejection.row() {
            baseline.set_consecutive(row);
        }
        Self {
            new_service,
            slots: Vec::new(),
            cadence: Cadence::new(now, config.jitter_seed),
            emptiness: Emptiness::default(),
            roles: config
                .probe_interval
                .map(|interval| Roles::new(&config, interval)),
            status: Status::new(service.into()),
            rng: SmallRng::seed_from_u64(!config.jitter_seed),
            config,
            asked_at: now,
            baseline,
            settled: None,
            slot_deadline: None,
            draining: Vec::new(),
            sizes: [0; Position::COUNT],
            generation: 0,
            dirty: false,
            is_careful: false,
            sweep_due: None,
            health_events: Vec::new(),
            relisted: false,
            added: Vec::new(),
            removed: Vec::new(),
            fates: Vec::new(),
        }
    }

    // ===== events =====

    /// A question goes to the source. Until its answer, none is due.
    pub fn on_asked(&mut self, now: Instant) {
        self.asked_at = now;
        self.cadence.asked();
        // The driver has taken them by now; who drives by hand has no use for them.
        self.health_events.clear();
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

    /// Whether an endpoint's counters tell something since the last call, for which
    /// [`on_alarm`](Self::on_alarm) is to be called.
    pub fn take_alarm(&self) -> bool {
        self.baseline.take_alarm()
    }

    /// What the endpoints have in common; it also completes when there is an alarm.
    pub(crate) fn baseline(&self) -> &Arc<Baseline> {
        &self.baseline
    }

    /// Connects failed or succeeded again, requests failed in a row or succeeded on trial, as the endpoints'
    /// counters tell.
    pub fn on_alarm(&mut self, now: Instant) {
        let (rng, linger) = (&mut self.rng, self.config.linger);
        let (settings, events) = (&self.config.ejection, &mut self.health_events);
        let is_judged = !settings.is_off();
        let (mut failed, mut suspects) = (false, Vec::new());
        let gone = self.slots.extract_if(.., |slot| {
            let connects = slot.endpoint.connects();
            let fails = slot.connectivity.update(now, connects, rng.random()) == Update::Failed;
            failed |= fails;
            if is_judged && slot.is_live() {
                look(slot, settings, &mut suspects, events);
            }
            // Gone from DNS and gone from the network: whoever returns there is another pod.
            fails && matches!(slot.presence, Presence::Absent { .. })
        });
        self.draining
            .extend(gone.map(|slot| slot.drained(now, linger)));
        if failed {
            self.cadence.refresh(now, &self.config);
        }
        self.eject(now, suspects);
        self.admit(|slot| !slot.endpoint.is_warming() || slot.connectivity.is_ejected());
        self.update(now);
    }

    /// Time passed: ends waits, lingers, ejections, claims and staleness that are due.
    pub fn on_tick(&mut self, now: Instant) {
        for slot in &mut self.slots {
            slot.connectivity.expire(now);
        }
        self.begin_trials(now);
        self.sweep(now);
        self.drop_stale(now);
        self.end_lingers(now);
        self.admit(|slot| matches!(slot.presence, Presence::Warming { until } if until <= now));
        self.with_tracker(now, |tracker| tracker.tick(now));
        self.update(now);
    }

    // ===== what the driver asks =====

    /// Whether a question is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.cadence.due().is_some_and(|due| due <= now)
    }

    /// When to call [`on_tick`](Self::on_tick) or to ask, whichever comes first.
    pub fn next_deadline(&self) -> Option<Instant> {
        let stale = self.stale_deadline();
        let roles = self.roles.as_ref().and_then(Roles::deadline);
        let (slots, sweep) = (self.slot_deadline, self.sweep_due);
        [self.cadence.due(), slots, sweep, stale, roles]
            .into_iter()
            .flatten()
            .min()
    }

    /// The new snapshot, if the set changed since the last call.
    pub fn publish(&mut self) -> Option<Published<N::Service>> {
        if !mem::take(&mut self.dirty) {
            return None;
        }
        self.generation += 1;
        let live = || self.slots.iter().filter(|slot| slot.is_live());
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
                set: Arc::new(
                    EndpointSet::from_groups(endpoints, sizes, self.generation)
                        .with_care(self.is_careful)
                        .under(
                            self.roles
                                .as_ref()
                                .map_or_else(Reign::default, Roles::reign),
                        ),
                ),
                services: services.into(),
            },
            added: mem::take(&mut self.added),
            removed: mem::take(&mut self.removed),
        })
    }

    /// How discovery is doing.
    pub fn status(&self) -> &Status {
        &self.status
    }

    // ===== what follows from an event =====

    /// Takes what changed into the order of the set.
    fn update(&mut self, now: Instant) {
        self.follow(now);
        self.reposition(now);
        if self.relisted {
            // The last resort took new ones in.
            self.follow(now);
            self.position_all(now);
        }
    }

    /// Puts every endpoint where its role, its connects and its requests say.
    fn reposition(&mut self, now: Instant) {
        self.position_all(now);
        if self.status.warming > 0 && !self.has_available() {
            self.admit(|_| true);
            self.position_all(now);
        }
    }

    fn position_all(&mut self, now: Instant) {
        let census = self.position_each(now);
        let is_panic = census.is_panic();
        if is_panic != mem::replace(&mut self.status.is_panic, is_panic) {
            let Crowd {
                available, total, ..
            } = census.crowd();
            self.status.panics += u64::from(is_panic);
            self.health_events.push(HealthEvent::Panic {
                is_on: is_panic,
                available,
                total,
            });
            self.position_each(now);
        }
    }

    /// Endpoints outside the set have no position, but deadlines.
    fn position_each(&mut self, now: Instant) -> Census {
        let Self {
            slots,
            roles,
            config,
            ..
        } = self;
        let (roles, window) = (roles.as_ref(), config.slow_start);
        let is_panic = self.status.is_panic;
        // Where all replicas refuse, there is nothing to fall back to: they stay.
        let eject_replicas = roles.is_none()
            || slots.iter().any(|slot| {
                let is_replica = standing(roles, slot.id) == Position::Replica;
                is_replica && slot.is_live() && !slot.connectivity.is_ejected()
            });
        let mut census = Census::default();
        let (mut sizes, mut warming, mut draining) = ([0; Position::COUNT], 0, 0);
        let (mut is_careful, mut has_past) = (false, config.ejection.sweeps());
        let (mut conditions, mut unhealthy) = (Vec::new(), 0);
        let mut starts = Starts::default();
        let mut deadline = self.draining.iter().map(|(end, _)| *end).min();
        // Of thousands hardly any has more to tell than where its role puts it: those are only counted.
        let mut plain = [0; Position::COUNT];
        // One pass: a large service's slots do not fit into the cache.
        for slot in slots.iter_mut() {
            let (mut serves, standing) = (false, standing(roles, slot.id));
            let goes_on = window.is_none() || (slot.serves && standing < Position::Ejected);
            if goes_on && slot.is_live() && slot.is_plain() {
                plain[standing as usize] += 1;
                self.dirty |= mem::replace(&mut slot.position, standing) != standing;
                has_past |= slot.outlier.has_past();
                continue;
            }
            let end = match slot.presence {
                Presence::Live | Presence::Held => {
                    if standing == Position::Primary && !slot.outlier.is_admitted() {
                        // It takes the writes, whatever was thought of it before.
                        slot.outlier.pardon();
                        slot.endpoint.set_trial(false);
                    }
                    census.count(slot, standing);
                    unhealthy += usize::from(slot.is_unhealthy());
                    let position = slot.position(standing, eject_replicas, is_panic);
                    sizes[position as usize] += 1;
                    self.dirty |= mem::replace(&mut slot.position, position) != position;
                    let is_available = position < Position::Ejected;
                    serves = is_available && !slot.outlier.is_on_trial();
                    is_careful |= is_available && !serves;
                    None
                }
                Presence::Warming { until } => {
                    warming += 1;
                    Some(until)
                }
                Presence::Absent { since } => {
                    draining += 1;
                    Some(since + config.linger)
                }
            };
            has_past |= slot.outlier.has_past();
            let step = window.and_then(|window| starts.step(slot, now, serves, is_panic, window));
            is_careful |= step.is_some();
            let mut end_at = |end: Option<Instant>| {
                if let Some(end) = end {
                    deadline = Some(deadline.map_or(end, |deadline| deadline.min(end)));
                }
            };
            end_at(end);
            if !slot.is_plain() {
                end_at(slot.connectivity.until());
                end_at(slot.outlier.until());
                end_at(step);
                conditions.extend(Condition::of(slot, standing, window, is_panic));
            }
        }
        census.count_plain(&plain);
        starts.count_plain(&plain);
        for (size, plain) in iter::zip(&mut sizes, plain) {
            *size += plain;
        }
        if starts.all_are_new() {
            starts.cancel(slots, now);
            is_careful = slots.iter().any(Slot::is_careful);
            conditions.retain(|one| one.state != EndpointState::Starting || one.since != Some(now));
        }
        self.dirty |= mem::replace(&mut self.is_careful, is_careful) != is_careful;
        self.slot_deadline = deadline;
        self.sweep_due = has_past.then(|| {
            self.sweep_due
                .unwrap_or_else(|| now + config.ejection.sweep_interval())
        });
        let live = sizes.iter().sum::<usize>();
        self.sizes = sizes;
        self.status.endpoints = live;
        self.status.warming = warming;
        self.status.draining = draining + self.draining.len();
        self.status.unhealthy = unhealthy;
        self.status.unobserved = roles.map_or(0, Roles::unobserved);
        self.status.note_conditions(conditions);
        census
    }
}

impl<N: NewService> fmt::Debug for Registry<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}
