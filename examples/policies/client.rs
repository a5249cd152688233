//! A client: its own registry, driven by hand as the driver of a balancer would, and its own policy.

use std::{net::SocketAddr, sync::Arc};

use headless_lb::{
    Endpoint, EndpointSet, Policy, Resolution,
    registry::{Config, Registry},
};
use tokio::time::Instant;

use super::{
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
    /// Retries that it may make.
    budget: f64,
}

const BUDGET: f64 = 100.0;

/// The address of a pod: its number.
pub(crate) fn address_of(pod: u32) -> SocketAddr {
    let [_, a, b, c] = pod.to_be_bytes();
    SocketAddr::from(([10, a, b, c], 80))
}

/// The number of a pod.
pub(crate) fn pod_of(endpoint: &Endpoint) -> u32 {
    match endpoint.addr() {
        SocketAddr::V4(addr) => u32::from(*addr.ip()) & 0x00ff_ffff,
        SocketAddr::V6(_) => unreachable!("pods have IPv4 addresses here"),
    }
}

impl Client {
    pub(crate) fn new(config: Config, chooser: Chooser, now: Instant) -> Self {
        fn no_service(_: &Arc<Endpoint>) {}
        Self {
            registry: Registry::new("pods.simulation", config, no_service, now),
            set: Arc::new(EndpointSet::of([] as [SocketAddr; 0])),
            chooser,
            budget: BUDGET,
        }
    }

    /// A request earns a share of a retry.
    pub(crate) fn earn(&mut self) {
        self.budget = (self.budget + 0.2).min(BUDGET);
    }

    /// Takes a retry from the budget, if there is one.
    pub(crate) fn spend(&mut self) -> bool {
        let pays = self.budget >= 1.0;
        self.budget -= f64::from(u8::from(pays));
        pays
    }

    /// Asks for the pods and is told these.
    pub(crate) fn resolve(&mut self, now: Instant, pods: impl Iterator<Item = u32>) {
        self.registry.on_asked(now);
        let answer = Resolution::new(pods.map(address_of));
        self.registry.on_answer(now, Ok(answer));
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
        let _ = instant;
        let choice = match &mut self.chooser {
            Chooser::Policy(policy) => policy.pick(candidates),
            Chooser::Peer(peer) => peer.pick(now, candidates),
        };
        choice.map(|choice| choice.index())
    }

    fn publish(&mut self) {
        if let Some(published) = self.registry.publish() {
            self.set = Arc::clone(published.snapshot().set());
        }
        self.registry.tell_services();
    }
}

/// Settings of a client's registry, all from the seed.
pub(crate) fn config(order_seed: u64, jitter_seed: u64) -> Config {
    let mut config = Config::default();
    config.order_seed = order_seed;
    config.jitter_seed = jitter_seed;
    // The simulation decides when a client asks; doubt alone lets it ask in between.
    config.refresh_interval = std::time::Duration::from_nanos(3_600 * SECOND);
    config
}
