//! Who is compared.

use headless_lb::{LeastRequest, Random, RoundRobin};
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

    pub(crate) const fn retrying(mut self, name: &'static str) -> Self {
        self.name = name;
        self.retries = true;
        self
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
