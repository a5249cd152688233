//! Why each endpoint stands as it does: what is known at one moment, for people and for programs.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::Duration,
};

use tokio::time::Instant;

use super::Balancer;
use crate::{
    endpoint::Endpoint,
    outcome::Cause,
    primary::Report,
    probe::Role,
    registry::{Condition, EndpointState, Status},
    set::{EndpointSet, Position},
};

mod words;

/// What is known of a service and of each of its endpoints, and why: from
/// [`Balancer::explain`].
///
/// A copy of one moment: all times are relative to it, and printing it later says the same. With the feature `serde`
/// it can be serialized: field names as the methods here, times in seconds under names that end in `_seconds`.
///
/// ```text
/// web.default: 3 endpoints, answer 1.2 s ago (A, TTL 30 s); set 4, 3 added and 0 removed so far, 1 ejected so far
///   10.0.0.1:80 available | 2 in flight, 12.1 ms expected, 140 succeeded, 0 failed
///   10.0.0.3:80 available | 0 in flight, 11.8 ms expected, 138 succeeded, 1 failed, last: HTTP 503
///   10.0.0.2:80 ejected 12 s ago: 5 failures in a row, last: connection refused; returns in 18 s | 0 in flight, ...
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Explanation {
    service: String,
    generation: u64,
    outcome: &'static str,
    error: Option<String>,
    #[cfg_attr(
        feature = "serde",
        serde(with = "seconds", rename = "answered_seconds")
    )]
    answered: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "seconds", rename = "age_seconds"))]
    age: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "seconds", rename = "ttl_seconds"))]
    ttl: Option<Duration>,
    added: u64,
    removed: u64,
    ejections: u64,
    draining: usize,
    is_panic: bool,
    is_closed: bool,
    endpoints: Vec<Explained>,
    /// The line on discovery, as it was then.
    #[cfg_attr(feature = "serde", serde(skip))]
    headline: String,
}

/// What is known of one endpoint. Part of an [`Explanation`].
#[derive(Clone, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Explained {
    name: Option<String>,
    addr: SocketAddr,
    #[cfg_attr(feature = "serde", serde(with = "text"))]
    role: Option<Role>,
    state: EndpointState,
    rule: Option<&'static str>,
    reason: Option<String>,
    #[cfg_attr(feature = "serde", serde(with = "seconds", rename = "since_seconds"))]
    since: Option<Duration>,
    #[cfg_attr(feature = "serde", serde(with = "seconds", rename = "until_seconds"))]
    until: Option<Duration>,
    share: f32,
    pending: u32,
    #[cfg_attr(feature = "serde", serde(with = "seconds", rename = "latency_seconds"))]
    latency: Option<Duration>,
    succeeded: u32,
    failed: u32,
    streak: u32,
    #[cfg_attr(feature = "serde", serde(with = "text"))]
    last_failure: Option<Cause>,
    #[cfg_attr(
        feature = "serde",
        serde(serialize_with = "seconds::known", rename = "age_seconds")
    )]
    age: Duration,
}

impl<S> Balancer<S> {
    /// Tells how discovery is doing and how each endpoint stands: its state, why and since when, what is in
    /// flight, how requests to it went. For a debug page or a support bundle; it reads what is there, waits for
    /// nothing, and costs the endpoints' number in allocations.
    ///
    /// It reads one set and one status, which are published one after the other: for a moment an endpoint's reason
    /// may be newer or older than its place in the set. Counters go on while they are read.
    ///
    /// ```
    /// use headless_lb::{Balancer, EndpointState, Fixed};
    /// use std::net::SocketAddr;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pods = (1..=3).map(|i| SocketAddr::from(([127, 0, 0, i], 80)));
    /// let balancer = Balancer::builder(Fixed::new(pods)).spawn();
    /// balancer.resolved().await?;
    /// let explanation = balancer.explain();
    /// for endpoint in explanation.endpoints() {
    ///     assert_eq!(endpoint.state(), EndpointState::Available);
    /// }
    /// println!("{explanation}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn explain(&self) -> Explanation {
        let set = self.endpoints();
        Explanation::of(&self.shared.status.load(), &set, Instant::now())
    }
}

impl Explanation {
    fn of(status: &Status, set: &EndpointSet, now: Instant) -> Self {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let report = status.primary().map(AsRef::as_ref);
        let conditions = status.conditions();
        let is_outside = |one: &&Condition| one.state == EndpointState::Warming;
        // One that waits there and is in the set has joined since.
        let known: HashMap<u64, &Condition> = conditions
            .iter()
            .filter(|one| !is_outside(one))
            .map(|one| (one.endpoint.id(), one))
            .collect();
        let is_closed = status.is_closed();
        let mut endpoints: Vec<_> = set
            .positions()
            .map(|(position, endpoint)| {
                Explained::of(
                    endpoint,
                    Some(position),
                    known.get(&endpoint.id()).copied(),
                    report,
                    now,
                )
            })
            .collect();
        let members: HashSet<u64> = set.iter().map(|endpoint| endpoint.id()).collect();
        let outside = conditions
            .iter()
            .filter(is_outside)
            .filter(|one| !members.contains(&one.endpoint.id()));
        endpoints
            .extend(outside.map(|one| Explained::of(&one.endpoint, None, Some(one), report, now)));
        if is_closed {
            // Nobody will end it.
            endpoints.iter_mut().for_each(|one| one.until = None);
        }
        Self {
            service: status.service().to_owned(),
            generation: set.generation(),
            outcome: status.outcome(),
            error: status.error().map(ToString::to_string),
            answered: status.answered_at().map(ago),
            age: status.last_good().map(ago),
            ttl: status.ttl(),
            added: status.added(),
            removed: status.removed(),
            ejections: status.ejections(),
            draining: status.draining(),
            is_panic: status.is_panic(),
            is_closed,
            endpoints,
            headline: status.to_string(),
        }
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The generation of the set.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The outcome of the last question, as [`Status::outcome`].
    pub fn outcome(&self) -> &'static str {
        self.outcome
    }

    /// What went wrong with it, if something did.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// How long ago the last question was answered.
    pub fn answered(&self) -> Option<Duration> {
        self.answered
    }

    /// How old the last whole answer with records is: the age of what is known.
    pub fn age(&self) -> Option<Duration> {
        self.age
    }

    /// The time-to-live of the last answer.
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Endpoints added so far.
    pub fn added(&self) -> u64 {
        self.added
    }

    /// Endpoints removed so far.
    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Ejections so far, for how requests went.
    pub fn ejections(&self) -> u64 {
        self.ejections
    }

    /// How many endpoints have left the set, while what is in flight on them ends.
    pub fn draining(&self) -> usize {
        self.draining
    }

    /// Whether ejections do not count now, as too few endpoints would remain.
    pub fn is_panic(&self) -> bool {
        self.is_panic
    }

    /// Whether discovery has ended.
    pub fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Each endpoint: those of the set in its order, then those that wait to be in it.
    pub fn endpoints(&self) -> &[Explained] {
        &self.endpoints
    }

    /// The line on discovery alone.
    pub(super) fn headline(&self) -> &str {
        &self.headline
    }
}

impl Explained {
    /// `position`: its place in the set, if it is in it.
    fn of(
        endpoint: &Endpoint,
        position: Option<Position>,
        condition: Option<&Condition>,
        report: Option<&Report>,
        now: Instant,
    ) -> Self {
        let ago = |at: Instant| now.saturating_duration_since(at);
        let state = match (condition, position) {
            (Some(condition), _) => condition.state,
            // The set and the status are of two moments.
            (None, Some(Position::Ejected)) => EndpointState::Ejected,
            (None, Some(Position::Rejected)) => EndpointState::Rejected,
            (None, _) => EndpointState::Available,
        };
        let standing = condition.map(|one| one.standing).or(position);
        let (mut reason, mut since) = (None, None);
        if let Some(condition) = condition {
            reason = condition.why.as_ref().map(ToString::to_string);
            since = condition.since;
        } else if position == Some(Position::Rejected) {
            let mut observed = report.into_iter().flat_map(Report::endpoints);
            if let Some(observed) = observed.find(|one| one.endpoint().id() == endpoint.id()) {
                reason = observed.reason().map(ToString::to_string);
                since = Some(observed.since());
            }
        }
        let until = condition.and_then(|one| one.until);
        Self {
            name: endpoint.name().map(str::to_owned),
            addr: endpoint.addr(),
            role: match standing {
                Some(Position::Primary) => Some(Role::Primary),
                Some(Position::Replica) => Some(Role::Replica),
                _ => None,
            },
            state,
            rule: condition.and_then(|one| one.why.as_ref()?.rule()),
            reason,
            since: since.map(ago),
            until: until.map(|until| until.saturating_duration_since(now)),
            share: endpoint.ramp(),
            pending: endpoint.pending(),
            latency: endpoint.latency(now),
            succeeded: endpoint.succeeded(),
            failed: endpoint.failed(),
            streak: endpoint.streak(),
            last_failure: endpoint.last_failure(),
            age: ago(endpoint.since()),
        }
    }

    /// The pod's name, if it is known.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The role, where a probe told one.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Whether it takes requests, and if not, in which way.
    pub fn state(&self) -> EndpointState {
        self.state
    }

    /// The rule that ejected it: `consecutive`, `success_rate`, `failure_percentage`, `trial` or `check`.
    pub fn rule(&self) -> Option<&'static str> {
        self.rule
    }

    /// Why it is in this state, in words: "5 failures in a row, last: connection refused".
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// For how long it has been in this state, if it is not simply available.
    pub fn since(&self) -> Option<Duration> {
        self.since
    }

    /// How long the state will last, if time ends it.
    pub fn until(&self) -> Option<Duration> {
        self.until
    }

    /// The share of its picks that it takes: less than 1 while it starts.
    pub fn share(&self) -> f32 {
        self.share
    }

    /// Requests in flight.
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// The latency to expect, as [`Endpoint::latency`].
    pub fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Requests that succeeded so far, modulo 2^32.
    pub fn succeeded(&self) -> u32 {
        self.succeeded
    }

    /// Requests that failed so far, modulo 2^32.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Requests that failed since the last success, or since its trial began.
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// Why the last request or connect failed that did.
    pub fn last_failure(&self) -> Option<Cause> {
        self.last_failure
    }

    /// For how long the endpoint has been known.
    pub fn age(&self) -> Duration {
        self.age
    }
}

/// Times as numbers of seconds.
#[cfg(feature = "serde")]
mod seconds {
    use std::time::Duration;

    use serde::{Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(|time| time.as_secs_f64()).serialize(serializer)
    }

    pub(super) fn known<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        time.as_secs_f64().serialize(serializer)
    }
}

/// What has a short text, as that.
#[cfg(feature = "serde")]
mod text {
    use serde::{Serialize, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes fields by reference")]
    pub(super) fn serialize<T: ToString, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let text = value.as_ref().map(ToString::to_string);
        text.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::registry::{Config, NewService, Registry};
    use crate::resolve::Resolution;

    struct Connecting;

    impl NewService for Connecting {
        type Service = ();

        fn new_service(&self, _: &Arc<Endpoint>) {}

        fn warm(&self, (): &()) -> bool {
            true
        }
    }

    #[test]
    fn one_that_joins_between_a_set_and_its_status_is_told_once() {
        let now = Instant::now();
        let config = Config {
            warm_up: Some(Duration::from_secs(3)),
            ..Config::default()
        };
        let mut registry = Registry::new("web", config, Connecting, now);
        let mut answer = |count: u8| {
            let pods = (0..count).map(|i| SocketAddr::from(([10, 0, 0, i], 80)));
            registry.on_asked(now);
            registry.on_answer(now, Ok(Resolution::new(pods)));
            let set = registry
                .publish()
                .map(|one| Arc::clone(one.snapshot().set()));
            (set, registry.status().clone())
        };
        answer(1);
        let (_, before) = answer(2);
        assert_eq!(before.warming(), 1);
        registry.on_tick(now + Duration::from_secs(3));
        let published = registry.publish().unwrap();
        let set = published.snapshot().set();
        // The set is published first.
        let explanation = Explanation::of(&before, set, now);
        let states = explanation.endpoints().iter().map(Explained::state);
        let states: Vec<_> = states.collect();
        assert_eq!(states, [EndpointState::Available; 2], "{explanation}");
    }
}
