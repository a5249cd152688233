//! Who is compared.

use headless_lb::{Adaptive, LeastRequest, PeakEwma, Random, RoundRobin};
use rand::SeedableRng;

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
}

impl Contestant {
    pub(crate) const fn new(name: &'static str, make: fn(u64, u32) -> Chooser) -> Self {
        Self {
            name,
            make,
            retries: false,
            connects: false,
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

    /// Whether time does something to its registries.
    pub(crate) fn is_driven(&self) -> bool {
        self.connects
    }
}

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

/// Where pods fail.
pub(crate) const FAILURES: [Contestant; 8] = [
    ROUND_ROBIN,
    ROUND_ROBIN.retrying("round robin, 1 retry"),
    LEAST_REQUEST,
    PEAK,
    ADAPTIVE,
    ADAPTIVE_RETRY,
    RAW_PEAK,
    PREQUAL,
];

/// Where pods are replaced.
pub(crate) const ROLLING: [Contestant; 7] = [
    ROUND_ROBIN,
    PEAK,
    ADAPTIVE,
    ADAPTIVE_RETRY,
    ROUND_ROBIN.connecting("round robin, aside"),
    ADAPTIVE.connecting("adaptive, aside"),
    RAW_PEAK,
];

/// Where there are a thousand clients.
pub(crate) const THOUSANDS: [Contestant; 6] =
    [ROUND_ROBIN, LEAST_REQUEST, PEAK, ADAPTIVE, C3_OF_3, PREQUAL];

/// The same, in less time.
pub(crate) const FEW_THOUSANDS: [Contestant; 3] = [LEAST_REQUEST, ADAPTIVE, PREQUAL];

/// Where there are ten thousand.
pub(crate) const TEN_THOUSAND: [Contestant; 3] = [LEAST_REQUEST, PEAK, ADAPTIVE];
