//! A client: its own registry, driven by hand as the driver of a balancer would, and its own policy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use headless_lb::{
    Budget, Cause, Endpoint, EndpointSet, InFlight, Outcome, Policy, Position, Resolution,
    registry::{Config, Registry},
};
use tokio::time::Instant;

use super::{
    contestants::Contestant,
    engine::{Nanos, SECOND},
    peers::Peer,
};

/// Who picks.
pub(crate) enum Chooser {
    /// The library's own object.
    Policy(Box<dyn Policy>),
    Peer(Box<dyn Peer>),
}

pub(crate) struct Client {
    registry: Registry<fn(&Arc<Endpoint>)>,
    pub(crate) set: Arc<EndpointSet>,
    pub(crate) chooser: Chooser,
    /// Whether requests are timed, as the policy wants it.
    is_timed: bool,
    /// Whether the policy wants to see each new set.
    prepares: bool,
    /// Whether the policy means one endpoint, which can be asked for at any time.
    is_sticky: bool,
    /// The least share of the set that was available.
    pub(crate) fewest: f64,
    pub(crate) budget: Budget,
}

/// The address of a pod: its number.
pub(crate) fn address_of(pod: u32) -> SocketAddr {
    let [_, a, b, c] = pod.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 80))
}

/// The number of a pod.
pub(crate) fn pod_of(endpoint: &Endpoint) -> u32 {
    number_of(endpoint.addr().ip())
}

/// The number of the pod with this address.
pub(crate) fn number_of(ip: IpAddr) -> u32 {
    match ip {
        IpAddr::V4(ip) => u32::from(ip) & 0x00ff_ffff,
        IpAddr::V6(_) => unreachable!("pods have IPv4 addresses here"),
    }
}

impl Client {
    pub(crate) fn new(config: Config, chooser: Chooser, now: Instant) -> Self {
        fn no_service(_: &Arc<Endpoint>) {}
        let is_timed = matches!(&chooser, Chooser::Policy(policy) if policy.is_timed());
        let is_sticky = matches!(&chooser, Chooser::Policy(policy) if policy.is_sticky());
        Self {
            registry: Registry::new("pods.simulation", config, no_service, now),
            set: Arc::new(EndpointSet::of([] as [SocketAddr; 0])),
            chooser,
            is_timed,
            prepares: true,
            is_sticky,
            fewest: 1.0,
            budget: Budget::new(0.2, 100, 100),
        }
    }

    /// Asks for the pods and is told these.
    pub(crate) fn resolve(&mut self, now: Instant, pods: impl Iterator<Item = u32>) {
        let answer = Resolution::new(pods.map(address_of));
        // Twice: where more than half of a set is gone, one answer is not believed.
        for answer in [answer.clone(), answer] {
            self.registry.on_asked(now);
            self.registry.on_answer(now, Ok(answer));
        }
        self.publish();
    }

    /// The place of the picked endpoint in the set. Pods that this request tried are left out while there are others.
    pub(crate) fn pick(&mut self, now: Nanos, instant: Instant, tried: &[u32]) -> Option<usize> {
        let mut out: Vec<usize> = Vec::new();
        if !tried.is_empty() {
            let members = self.set.iter().enumerate();
            let known = members.filter(|(_, endpoint)| tried.contains(&pod_of(endpoint)));
            out.extend(known.map(|(i, _)| i));
        }
        let all = self.set.available();
        let candidates = match all.excluding(&out) {
            rest if rest.is_empty() => all,
            rest => rest,
        };
        let choice = match &mut self.chooser {
            Chooser::Policy(policy) => candidates.at(instant).pick(&**policy),
            Chooser::Peer(peer) => peer.pick(now, candidates),
        };
        choice.map(|choice| choice.index())
    }

    /// The pod that it holds on to, if its policy does.
    pub(crate) fn held(&self, instant: Instant) -> Option<u32> {
        match &self.chooser {
            Chooser::Policy(policy) if self.is_sticky => {
                let choice = self.set.available().at(instant).pick(&**policy)?;
                Some(pod_of(choice.endpoint()))
            }
            _ => None,
        }
    }

    /// Counts a request on the endpoint at this place.
    pub(crate) fn begin(&self, now: Instant, place: usize) -> Option<InFlight> {
        let mut in_flight = self.set.iter().nth(place)?.begin();
        if self.is_timed {
            in_flight.sent_at(now);
        }
        Some(in_flight)
    }

    /// A request ended so, as far as its pod is concerned.
    pub(crate) fn settle(&mut self, now: Instant, mut in_flight: InFlight, outcome: Outcome) {
        in_flight.record_at(now, outcome);
        drop(in_flight);
        self.look(now);
    }

    /// A request was not sent, for nobody listens there.
    pub(crate) fn refused(&mut self, now: Instant, in_flight: InFlight) {
        in_flight.endpoint().unreachable(Cause::Refused);
        drop(in_flight);
        self.look(now);
    }

    /// What the driver does when it wakes: whether a question is due.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        self.registry.on_tick(now);
        self.publish();
        self.registry.is_due(now)
    }

    /// What the driver does when an endpoint tells something.
    fn look(&mut self, now: Instant) {
        if self.registry.take_alarm() {
            self.registry.on_alarm(now);
            self.publish();
        }
    }

    fn publish(&mut self) {
        if let Some(published) = self.registry.publish() {
            let set = published.snapshot().set();
            if let Chooser::Policy(policy) = &self.chooser {
                self.prepares = self.prepares && policy.prepare(set);
            }
            let positions = set.positions();
            let available = positions.filter(|(position, _)| *position != Position::Ejected);
            let share = available.count() as f64 / set.len().max(1) as f64;
            self.fewest = self.fewest.min(share);
            self.set = Arc::clone(set);
        }
        self.registry.tell_services();
    }
}

/// Settings of a client's registry, its seeds among them.
pub(crate) fn config(contestant: &Contestant, order_seed: u64, jitter_seed: u64) -> Config {
    let mut config = Config::default();
    config.ejection = (contestant.ejection)();
    config.slow_start = contestant.slow_start;
    config.order_seed = order_seed;
    config.jitter_seed = jitter_seed;
    // The simulation decides when a client asks; doubt alone lets it ask in between.
    config.refresh_interval = std::time::Duration::from_nanos(3_600 * SECOND);
    config
}
