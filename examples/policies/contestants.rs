//! Who is compared.

use headless_lb::{Adaptive, Ejection, First, LeastRequest, PeakEwma, Random, RoundRobin};
use rand::SeedableRng;
use tokio::time::Duration;

use super::{
    client::Chooser,
    peers::{C3, Prequal, RawPeak},
    traffic::Stream,
};

/// A policy, and what stands around it.
#[derive(Clone, Copy)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    /// A chooser from a seed and the number of clients.
    pub(crate) make: fn(u64, u32) -> Chooser,
    /// One retry on another pod, from a budget.
    pub(crate) retries: bool,
    /// A refused connect sets the pod aside, and the request, which was not sent, goes elsewhere.
    pub(crate) connects: bool,
    /// When requests that fail set their pod aside.
    pub(crate) ejection: fn() -> Ejection,
    /// Over how long a new pod gets to its full share.
    pub(crate) slow_start: Option<Duration>,
}

impl Contestant {
    pub(crate) const fn new(name: &'static str, make: fn(u64, u32) -> Chooser) -> Self {
        Self {
            name,
            make,
            retries: false,
            connects: false,
            ejection: Ejection::off,
            slow_start: None,
        }
    }

    const fn retrying(mut self, name: &'static str) -> Self {
        self.name = name;
        self.retries = true;
        self
    }

    const fn connecting(mut self, name: &'static str) -> Self {
        self.name = name;
        self.connects = true;
        self
    }

    const fn ejecting(mut self, name: &'static str) -> Self {
        self.name = name;
        self.ejection = Ejection::new;
        self
    }

    const fn starting(mut self, name: &'static str) -> Self {
        self.name = name;
        self.slow_start = Some(SLOW_START);
        self
    }

    /// Whether time does something to its registries.
    pub(crate) fn is_driven(&self) -> bool {
        self.connects || self.slow_start.is_some() || (self.ejection)() != Ejection::off()
    }
}

/// The least that the documentation of slow start recommends.
const SLOW_START: Duration = Duration::from_secs(10);

pub(crate) const ROUND_ROBIN: Contestant = Contestant::new("round robin", |seed, _| {
    Chooser::Policy(Box::new(RoundRobin::seeded(seed)))
});
pub(crate) const RANDOM: Contestant = Contestant::new("random", |seed, _| {
    Chooser::Policy(Box::new(Random::seeded(seed)))
});
pub(crate) const LEAST_REQUEST: Contestant = Contestant::new("least request", |seed, _| {
    Chooser::Policy(Box::new(LeastRequest::seeded(seed)))
});
pub(crate) const RAW_PEAK: Contestant = Contestant::new("raw peak *", |seed, _| {
    Chooser::Peer(Box::new(RawPeak::new(Stream::seed_from_u64(seed))))
});
pub(crate) const C3_OF_3: Contestant = Contestant::new("C3 *", |seed, clients| {
    Chooser::Peer(Box::new(C3::new(Stream::seed_from_u64(seed), clients)))
});
pub(crate) const PREQUAL: Contestant = Contestant::new("Prequal *", |seed, _| {
    Chooser::Peer(Box::new(Prequal::new(Stream::seed_from_u64(seed))))
});
pub(crate) const FULL_SCAN: Contestant = Contestant::new("least of all", |seed, _| {
    Chooser::Policy(Box::new(LeastRequest::seeded(seed).full()))
});
pub(crate) const PEAK: Contestant = Contestant::new("peak EWMA", |seed, _| {
    Chooser::Policy(Box::new(PeakEwma::seeded(seed)))
});
pub(crate) const ADAPTIVE: Contestant = Contestant::new("adaptive", |seed, _| {
    Chooser::Policy(Box::new(Adaptive::seeded(seed)))
});
pub(crate) const ADAPTIVE_RETRY: Contestant = ADAPTIVE.retrying("adaptive, 1 retry");
pub(crate) const ROUND_ROBIN_RETRY: Contestant = ROUND_ROBIN.retrying("round robin, 1 retry");
pub(crate) const ROUND_ROBIN_EJECTION: Contestant = ROUND_ROBIN.ejecting("round robin, ejection");
pub(crate) const LEAST_REQUEST_EJECTION: Contestant =
    LEAST_REQUEST.ejecting("least request, ejection");
pub(crate) const ROUND_ROBIN_ASIDE: Contestant = ROUND_ROBIN.connecting("round robin, aside");
pub(crate) const FIRST: Contestant =
    Contestant::new("first", |_, _| Chooser::Policy(Box::new(First::new())));

/// Ejection without the limit of a tenth of the pods.
const ROUND_ROBIN_ANY: Contestant = Contestant {
    ejection: || Ejection::new().max_percent(100),
    ..ROUND_ROBIN.ejecting("round robin, ejection of any")
};

/// Where pods differ in speed or load.
pub(crate) const ALL: [Contestant; 9] = [
    ROUND_ROBIN,
    RANDOM,
    LEAST_REQUEST,
    FULL_SCAN,
    PEAK,
    ADAPTIVE,
    RAW_PEAK,
    C3_OF_3,
    PREQUAL,
];

/// The same, in less time.
pub(crate) const FEW: [Contestant; 5] = [ROUND_ROBIN, LEAST_REQUEST, PEAK, ADAPTIVE, PREQUAL];

/// Where nobody sees that a pod fails.
pub(crate) const LIES: [Contestant; 6] = [
    ROUND_ROBIN,
    LEAST_REQUEST,
    PEAK,
    ADAPTIVE,
    RAW_PEAK,
    PREQUAL,
];

/// Where pods fail.
pub(crate) const FAILURES: [Contestant; 10] = [
    ROUND_ROBIN,
    ROUND_ROBIN_EJECTION,
    ROUND_ROBIN_RETRY,
    LEAST_REQUEST,
    LEAST_REQUEST_EJECTION,
    PEAK,
    ADAPTIVE,
    ADAPTIVE_RETRY,
    RAW_PEAK,
    PREQUAL,
];

/// Where pods are replaced and refuse connections.
pub(crate) const ROLLING: [Contestant; 12] = [
    ROUND_ROBIN,
    ROUND_ROBIN_EJECTION,
    LEAST_REQUEST,
    LEAST_REQUEST_EJECTION,
    PEAK,
    ADAPTIVE,
    ADAPTIVE_RETRY,
    ROUND_ROBIN_ASIDE,
    ROUND_ROBIN_ASIDE.ejecting("round robin, aside, ejection"),
    ROUND_ROBIN_ASIDE.starting("round robin, aside, slow start"),
    ADAPTIVE.connecting("adaptive, aside"),
    RAW_PEAK,
];

/// Where pods are replaced and none refuses a connection.
pub(crate) const UNREFUSED: [Contestant; 8] = [
    ROUND_ROBIN,
    ROUND_ROBIN_EJECTION,
    ROUND_ROBIN.starting("round robin, slow start"),
    LEAST_REQUEST,
    LEAST_REQUEST_EJECTION,
    PEAK,
    ADAPTIVE,
    ADAPTIVE_RETRY,
];

/// Where pods join.
pub(crate) const JOINING: [Contestant; 8] = [
    ROUND_ROBIN,
    ROUND_ROBIN.starting("round robin, slow start"),
    RANDOM,
    LEAST_REQUEST,
    LEAST_REQUEST.starting("least request, slow start"),
    PEAK,
    ADAPTIVE,
    PREQUAL,
];

/// Where any number of pods fails.
pub(crate) const FLOORED: [Contestant; 2] = [ROUND_ROBIN_EJECTION, ROUND_ROBIN_ANY];

/// Where all clients want the same pod.
pub(crate) const FIRSTS: [Contestant; 2] = [
    FIRST,
    FIRST
        .connecting("first, aside")
        .ejecting("first, aside, ejection"),
];

/// The library's policies, for the summary.
pub(crate) const OWN: [Contestant; 4] = [ROUND_ROBIN, LEAST_REQUEST, PEAK, ADAPTIVE];

/// Where there are a thousand clients.
pub(crate) const THOUSANDS: [Contestant; 6] =
    [ROUND_ROBIN, LEAST_REQUEST, PEAK, ADAPTIVE, C3_OF_3, PREQUAL];

/// The same, in less time.
pub(crate) const FEW_THOUSANDS: [Contestant; 2] = [LEAST_REQUEST, ADAPTIVE];

/// Where there are ten thousand.
pub(crate) const TEN_THOUSAND: [Contestant; 3] = [LEAST_REQUEST, PEAK, ADAPTIVE];
