//! A tracker over a few endpoints and a clock, moved by hand: the tests speak of nodes by number.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Config, Event, OnConflict, Tracker};
use crate::{
    endpoint::{Address, Endpoint},
    probe::{Lineage, Observation, ProbeError, ProbeFailure, Role, Term},
    set::Position,
};

pub(super) const INTERVAL: Duration = Duration::from_millis(250);
pub(super) const TIMEOUT: Duration = Duration::from_millis(500);
pub(super) const LEASE: Duration = Duration::from_millis(1000);

pub(super) fn primary() -> Observation {
    Observation::of(Role::Primary)
}

pub(super) fn primary_in(term: u128) -> Observation {
    primary().in_term(Term::new(term))
}

pub(super) fn replica() -> Observation {
    Observation::of(Role::Replica)
}

/// A claim with Redis's kind of lineage.
pub(super) fn primary_of(id: &str, previous: Option<&str>) -> Observation {
    let lineage = Lineage::of(id);
    primary().in_lineage(match previous {
        Some(previous) => lineage.after(previous),
        None => lineage,
    })
}

pub(super) struct ByHand {
    pub(super) tracker: Tracker,
    pub(super) now: Instant,
    pub(super) endpoints: Vec<Arc<Endpoint>>,
    pub(super) events: Vec<Event>,
}

impl ByHand {
    /// Nodes 0 to n - 1, named pg-0 and so on.
    pub(super) fn new(n: u8) -> Self {
        Self::with(n, OnConflict::default())
    }

    pub(super) fn with(n: u8, on_conflict: OnConflict) -> Self {
        let now = Instant::now();
        let config = Config {
            on_conflict,
            ..Config::of(INTERVAL, TIMEOUT)
        };
        let mut hand = Self {
            tracker: Tracker::new(config),
            now,
            endpoints: (0..n)
                .map(|i| endpoint(now, i, &format!("pg-{i}")))
                .collect(),
            events: Vec::new(),
        };
        hand.list_all();
        hand
    }

    /// The first claims are in and settled: node 0 is the primary by `claim`, the others are replicas.
    pub(super) fn stable(n: u8, claim: Observation) -> Self {
        Self::stable_with(n, claim, OnConflict::default())
    }

    pub(super) fn stable_with(n: u8, claim: Observation, on_conflict: OnConflict) -> Self {
        let mut hand = Self::with(n, on_conflict);
        for i in 1..usize::from(n) {
            hand.say(i, replica());
        }
        hand.say(0, claim);
        assert_eq!(hand.accepted(), Some(0));
        hand.events.clear();
        hand
    }

    /// DNS lists these nodes.
    pub(super) fn list(&mut self, nodes: &[usize]) {
        let listed: Vec<_> = nodes
            .iter()
            .map(|i| Arc::clone(&self.endpoints[*i]))
            .collect();
        self.tracker.follow(self.now, listed.iter());
        self.drain();
    }

    pub(super) fn list_all(&mut self) {
        self.list(&(0..self.endpoints.len()).collect::<Vec<_>>());
    }

    /// A pod appears under a name, at an address of its own; its number.
    pub(super) fn appear(&mut self, name: &str) -> usize {
        let number = self.endpoints.len();
        let host = u8::try_from(number).unwrap();
        self.endpoints.push(endpoint(self.now, host, name));
        number
    }

    pub(super) fn say(&mut self, node: usize, observation: Observation) {
        self.report(node, Ok(observation));
    }

    pub(super) fn fail(&mut self, node: usize, failure: ProbeFailure) {
        self.report(node, Err(ProbeError::new(failure, "as scripted")));
    }

    /// Two timeouts.
    pub(super) fn hang(&mut self, node: usize) {
        self.fail(node, ProbeFailure::Timeout);
        self.fail(node, ProbeFailure::Timeout);
    }

    pub(super) fn report(&mut self, node: usize, result: Result<Observation, ProbeError>) {
        let id = self.id(node);
        self.tracker.observed(self.now, id, result);
        self.drain();
    }

    /// Time passes, with a tick at its end.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.tracker.tick(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        self.events.extend(self.tracker.take_events());
    }

    pub(super) fn id(&self, node: usize) -> u64 {
        self.endpoints[node].id()
    }

    pub(super) fn number(&self, endpoint: &Arc<Endpoint>) -> usize {
        let is_it = |other: &Arc<Endpoint>| Arc::ptr_eq(other, endpoint);
        self.endpoints.iter().position(is_it).unwrap()
    }

    pub(super) fn accepted(&self) -> Option<usize> {
        Some(self.number(self.tracker.accepted()?))
    }

    pub(super) fn standing(&self, node: usize) -> Position {
        self.tracker.standing(self.id(node))
    }

    pub(super) fn generation(&self) -> u64 {
        self.tracker.reign().generation
    }

    pub(super) fn epoch(&self) -> u64 {
        self.tracker.reign().epoch
    }

    pub(super) fn count(&self, is_meant: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is_meant(event)).count()
    }
}

fn endpoint(now: Instant, host: u8, name: &str) -> Arc<Endpoint> {
    let address = Address::from(SocketAddr::from(([10, 0, 0, host], 5432))).named(name);
    Arc::new(Endpoint::new(address, now))
}

/// One without a name.
pub(super) fn at(now: Instant, ip: [u8; 4]) -> Arc<Endpoint> {
    Arc::new(Endpoint::new(SocketAddr::from((ip, 5432)).into(), now))
}
