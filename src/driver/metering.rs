//! What the driver tells the exporter: answers, changes, and how things are.

use std::{collections::HashSet, future::pending, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use crate::{
    draw::mix,
    endpoint::rank,
    meter::{Meter, States},
    registry::{Condition, EndpointState, HealthEvent, Published, Status},
    resolve::{Resolution, ResolveError, ResolveErrorKind},
    set::{EndpointSet, Position},
};

/// The longest time between two looks: an age that is scraped is that much wrong at most. Scrapes come every 15 s
/// and more rarely.
const BEAT: Duration = Duration::from_secs(1);

/// The driver's side of a service's metrics.
#[derive(Debug)]
pub(super) struct Metering {
    meter: Meter,
    start: Instant,
    asked_at: Instant,
    /// When to look although nothing happened.
    due: Instant,
    /// Of the newest set: how many endpoints are where. Why they are aside, the status knows.
    states: States,
    /// What is known of those that are not simply available, as it was counted last.
    conditions: Arc<[Condition]>,
    /// How many of them are set aside for what their requests or their checks came to.
    ejected: usize,
    /// The ids of those that are set aside for their health checks.
    unhealthy: HashSet<u64>,
    /// Of the last accepted primary; 0 before the first.
    generation: u64,
}

impl Metering {
    pub(super) fn new(meter: Meter, now: Instant) -> Self {
        Self {
            meter,
            start: now,
            asked_at: now,
            due: now + BEAT,
            states: States::default(),
            conditions: Arc::default(),
            ejected: 0,
            unhealthy: HashSet::new(),
            generation: 0,
        }
    }

    /// Completes when it is time to look again; without the feature never.
    ///
    /// Cancel safe.
    pub(super) async fn beat(&self) {
        match Meter::IS_ON {
            true => sleep_until(self.due).await,
            false => pending().await,
        }
    }

    /// A question goes out.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_at = now;
    }

    pub(super) fn answered(&self, now: Instant, answer: &Result<Resolution, ResolveError>) {
        let took = now.saturating_duration_since(self.asked_at);
        self.meter.answered(result(answer), took);
    }

    pub(super) fn changed<S>(&mut self, published: &Published<S>) {
        if !Meter::IS_ON {
            return;
        }
        let set = published.snapshot().set();
        let (added, removed) = (published.added().len(), published.removed().len());
        self.meter.changed(added, removed, hash(set));
        self.states = States::default();
        for (position, _) in set.positions() {
            *match position {
                Position::Primary | Position::Replica | Position::Unknown => {
                    &mut self.states.available
                }
                Position::Ejected => &mut self.states.aside,
                Position::Rejected => &mut self.states.rejected,
            } += 1;
        }
        let before = std::mem::replace(&mut self.generation, set.reign().generation);
        // The first primary follows none.
        if before > 0 && self.generation > before {
            self.meter.primary_changed(self.generation - before);
        }
    }

    /// What was thought of an endpoint, and what that led to.
    pub(super) fn judged(&self, event: &HealthEvent) {
        match event {
            HealthEvent::Ejected { finding, .. } => self.meter.ejected(finding.rule.label()),
            HealthEvent::Spared { why, .. } => self.meter.unenforced(why.label()),
            HealthEvent::OnTrial { .. }
            | HealthEvent::Returned { .. }
            | HealthEvent::FailsChecks { .. }
            | HealthEvent::PassesChecks { .. }
            | HealthEvent::Panic { .. } => {}
        }
    }

    /// How things are now.
    pub(super) fn state(&mut self, now: Instant, status: &Status) {
        self.tell(now, status, status.stale_since().is_some());
    }

    /// Nobody will look any more, and the handles go on with what they have.
    pub(super) fn abandoned(&mut self, now: Instant, status: &Status) {
        self.tell(now, status, true);
    }

    /// There is no handle any more: nothing of the service is left to tell.
    pub(super) fn ended(&self) {
        self.meter.ended();
    }

    fn tell(&mut self, now: Instant, status: &Status, is_stale: bool) {
        if !Meter::IS_ON {
            return;
        }
        let known = status.last_good().unwrap_or(self.start);
        if !Arc::ptr_eq(&self.conditions, status.conditions()) {
            self.conditions = Arc::clone(status.conditions());
            self.count_ejected();
        }
        let ejected = self.ejected;
        let states = States {
            ejected,
            aside: self.states.aside.saturating_sub(ejected),
            warming: status.warming(),
            draining: status.draining(),
            ..self.states
        };
        self.meter
            .state(now.saturating_duration_since(known), is_stale, states);
        self.due = now + BEAT;
    }

    /// How many are set aside for what their requests or their checks came to. Those that a check takes out of the
    /// picks are counted here, for it may be spared at first.
    fn count_ejected(&mut self) {
        let (mut ejected, mut unhealthy) = (0, HashSet::new());
        for condition in &*self.conditions {
            match condition.state {
                EndpointState::Ejected => ejected += 1,
                EndpointState::Unhealthy => {
                    unhealthy.insert(condition.endpoint.id());
                }
                _ => {}
            }
        }
        let conditions = self.conditions.iter();
        let aside = conditions.filter(|condition| {
            let state = condition.state;
            matches!(state, EndpointState::Refused | EndpointState::Ejected)
        });
        let aside = aside.map(|condition| condition.endpoint.id());
        let new = unhealthy.difference(&self.unhealthy);
        new.for_each(|_| self.meter.ejected("check"));
        self.ejected = ejected + unhealthy.len();
        // One that refuses connections for a moment, or was ejected as well, is still out.
        let still = aside.filter(|id| self.unhealthy.contains(id));
        unhealthy.extend(still);
        self.unhealthy = unhealthy;
    }
}

/// The label of an answer, as the registry takes it.
fn result(answer: &Result<Resolution, ResolveError>) -> &'static str {
    match answer {
        Ok(resolution) if resolution.is_partial() => ResolveErrorKind::Truncated.label(),
        Ok(resolution) if resolution.addresses().is_empty() => ResolveErrorKind::NoData.label(),
        Ok(_) => "ok",
        Err(error) => error.kind().label(),
    }
}

/// Of the addresses alone: what a client thinks of them, their names and their order are its own. Equal in every
/// process, so without its seed.
///
/// 32 bits, for a gauge is a double: people compare it with their eyes, and two sets of two clients agree by chance
/// once in four billions.
fn hash(set: &EndpointSet) -> u32 {
    if set.is_empty() {
        return 0;
    }
    let sum = set.iter().fold(0_u64, |sum, endpoint| {
        sum.wrapping_add(rank(endpoint.addr(), 0))
    });
    mix(sum) as u32
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn of(hosts: impl IntoIterator<Item = u8>) -> u32 {
        let addr = |host| SocketAddr::from(([10, 0, 0, host], 80));
        hash(&EndpointSet::of(hosts.into_iter().map(addr)))
    }

    #[test]
    fn the_hash_goes_by_the_addresses_and_not_by_their_order() {
        assert_eq!(of([1, 2, 3]), of([3, 1, 2]));
        let all = [of([]), of([1]), of([2]), of([1, 2]), of([1, 2, 3])];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| other != one), "{all:?}");
        }
        let v6 = |port| {
            hash(&EndpointSet::of([SocketAddr::from((
                [0xfd, 0, 0, 0, 0, 0, 0, 1],
                port,
            ))]))
        };
        assert_ne!(v6(80), v6(81));
    }

    #[test]
    fn the_hash_is_the_same_in_every_process() {
        // By hand from the constants of SplitMix64's finalizer, apart from this program.
        assert_eq!(of([]), 0);
        assert_eq!(of([1]), 0xfbd0_b883);
        assert_eq!(of([1, 2]), 0x3fca_c244);
    }
}
