//! Who asks when, and how much work it is: open loop, so a slow answer delays no later question.

use rand::{Rng, RngExt, SeedableRng};
use rand_distr::{Distribution, Exp1, StandardNormal, Zipf};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::engine::Nanos;

/// The generator of everything random here: a given seed gives the same sequence everywhere.
pub(crate) type Stream = Xoshiro256PlusPlus;

/// The streams of one seed: policies meet the same traffic because they do not draw from its stream.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Traffic,
    Incidents,
    Policies,
    Order,
    Phases,
}

/// The seed of stream `source` number `index` of a run.
pub(crate) fn seed_of(seed: u64, source: Source, index: u64) -> u64 {
    let mut stream = Stream::seed_from_u64(seed ^ (source as u64 + 1) << 56 ^ index << 20);
    stream.next_u64()
}

pub(crate) fn stream(seed: u64, source: Source, index: u64) -> Stream {
    Stream::seed_from_u64(seed_of(seed, source, index))
}

/// How the work of requests is distributed. Every one has the mean that it is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Work {
    Exponential,
    Fixed,
    /// Sigma 1.5.
    LogNormal,
    /// 5 % take 20 times as long as the others.
    Bimodal,
    /// Normal with a deviation as large as its mean, cut at 0.
    CutNormal,
}

impl Work {
    /// A draw with mean 1.
    fn draw(self, stream: &mut Stream) -> f64 {
        const SIGMA: f64 = 1.5;
        match self {
            Self::Exponential => Exp1.sample(stream),
            Self::Fixed => 1.0,
            Self::LogNormal => {
                let normal: f64 = StandardNormal.sample(stream);
                (SIGMA * normal - SIGMA * SIGMA / 2.0).exp()
            }
            Self::Bimodal => {
                let times = if stream.random_bool(0.05) { 20.0 } else { 1.0 };
                times / (0.95 + 0.05 * 20.0)
            }
            Self::CutNormal => {
                // 1 + density(1) / distribution(1) of the standard normal: what is below 0 is drawn again.
                const MEAN: f64 = 1.0 + 0.241_970_725 / 0.841_344_746;
                loop {
                    let normal: f64 = StandardNormal.sample(stream);
                    if normal > -1.0 {
                        break (1.0 + normal) / MEAN;
                    }
                }
            }
        }
    }
}

/// How the requests are spread over the clients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rates {
    Equal,
    /// Zipf with exponent 1: the first asks twice as often as the second.
    Zipf,
}

/// A Poisson stream of requests.
pub(crate) struct Traffic {
    stream: Stream,
    /// Mean time between two requests.
    gap: f64,
    clients: u32,
    zipf: Option<Zipf<f64>>,
    work: Work,
    mean_work: f64,
}

/// One request, as the traffic decides it.
pub(crate) struct Arrival {
    pub(crate) client: u32,
    pub(crate) work: Nanos,
    /// Decides whether a pod that fails a share of its requests fails this one.
    pub(crate) coin: u32,
}

impl Traffic {
    /// `rate` requests a second.
    pub(crate) fn new(
        seed: u64,
        rate: f64,
        clients: u32,
        rates: Rates,
        work: Work,
        mean_work: Nanos,
    ) -> Self {
        let zipf = (rates == Rates::Zipf)
            .then(|| Zipf::new(f64::from(clients), 1.0).expect("there are clients"));
        Self {
            stream: stream(seed, Source::Traffic, 0),
            gap: 1e9 / rate,
            clients,
            zipf,
            work,
            mean_work: mean_work as f64,
        }
    }

    /// The time to the next request.
    pub(crate) fn gap(&mut self) -> Nanos {
        let gap: f64 = Exp1.sample(&mut self.stream);
        (gap * self.gap) as Nanos
    }

    pub(crate) fn arrival(&mut self) -> Arrival {
        let client = match &self.zipf {
            Some(zipf) => zipf.sample(&mut self.stream) as u32 - 1,
            None => self.stream.random_range(0..self.clients),
        };
        Arrival {
            client,
            work: (self.work.draw(&mut self.stream) * self.mean_work) as Nanos,
            coin: self.stream.next_u32(),
        }
    }
}
