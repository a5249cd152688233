//! The policies, each with clients of its own.

use headless_lb::{
    Adaptive, Balancer, Builder, Ejection, Fixed, Http, HttpPod, LeastRequest, PeakEwma, Random,
    RoundRobin,
};

use crate::{fleet::Fleet, support::Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    RoundRobin,
    RoundRobinEjecting,
    Random,
    LeastRequest,
    LeastRequestFull,
    PeakEwma,
    Adaptive,
}

impl Contestant {
    pub(crate) const ALL: [Self; 7] = [
        Self::RoundRobin,
        Self::RoundRobinEjecting,
        Self::Random,
        Self::LeastRequest,
        Self::LeastRequestFull,
        Self::PeakEwma,
        Self::Adaptive,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "RoundRobin",
            Self::RoundRobinEjecting => "RoundRobin + ejection",
            Self::Random => "Random",
            Self::LeastRequest => "LeastRequest",
            Self::LeastRequestFull => "LeastRequest.full()",
            Self::PeakEwma => "PeakEwma",
            Self::Adaptive => "Adaptive",
        }
    }

    /// So many clients that know nothing of each other.
    pub(crate) async fn clients(
        self,
        fleet: &Fleet,
        count: usize,
    ) -> Result<Vec<Balancer<HttpPod>>> {
        let mut clients = Vec::new();
        for _ in 0..count {
            let pods = Fixed::new(fleet.addresses().iter().copied());
            let builder = self.give_to(Balancer::builder(pods));
            let client = builder.spawn_http_with(Http::new().retries(false).hedging(false));
            client.resolved().await?;
            clients.push(client);
        }
        Ok(clients)
    }

    fn give_to(self, builder: Builder) -> Builder {
        if self == Self::RoundRobinEjecting {
            return builder.policy(RoundRobin::new());
        }
        let builder = builder.eject(Ejection::off());
        match self {
            Self::RoundRobin | Self::RoundRobinEjecting => builder.policy(RoundRobin::new()),
            Self::Random => builder.policy(Random::new()),
            Self::LeastRequest => builder.policy(LeastRequest::new()),
            Self::LeastRequestFull => builder.policy(LeastRequest::new().full()),
            Self::PeakEwma => builder.policy(PeakEwma::new()),
            Self::Adaptive => builder.policy(Adaptive::new()),
        }
    }
}
