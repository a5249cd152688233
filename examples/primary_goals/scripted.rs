//! A cluster that is not there: what its nodes say is set, and a probe asks them inside this program.

use std::{net::SocketAddr, time::Duration};

use headless_lb::{
    Address, Balancer, Endpoint, Fixed, Observation, ProbeError, ProbeFailure, probe_fn,
};
use tokio::sync::watch;

/// What each of three nodes says; one that says nothing refuses.
pub(crate) type Said = [Option<Observation>; 3];

/// Nodes n-0 to n-2.
#[derive(Debug)]
pub(crate) struct Nodes {
    said: watch::Sender<Said>,
}

impl Nodes {
    pub(crate) fn saying(said: Said) -> Self {
        Self {
            said: watch::Sender::new(said),
        }
    }

    pub(crate) fn say(&self, node: usize, observation: impl Into<Observation>) {
        self.said
            .send_modify(|said| said[node] = Some(observation.into()));
    }

    pub(crate) fn say_all(&self, said: Said) {
        self.said.send_replace(said);
    }

    /// It refuses from now on.
    pub(crate) fn fail(&self, node: usize) {
        self.said.send_modify(|said| said[node] = None);
    }

    /// A balancer over them that asks so often.
    pub(crate) fn balancer(&self, every: Duration) -> Balancer {
        let said = self.said.subscribe();
        let probe = probe_fn(move |endpoint: &Endpoint| {
            let node = endpoint
                .ordinal()
                .and_then(|node| usize::try_from(node).ok());
            let answer = node.and_then(|node| said.borrow().get(node).cloned().flatten());
            async move {
                answer.ok_or_else(|| ProbeError::new(ProbeFailure::Refused, "it says nothing"))
            }
        });
        let pod = |node: u8| {
            Address::from(SocketAddr::from(([10, 0, 0, node], 5432))).named(format!("n-{node}"))
        };
        Balancer::builder(Fixed::new((0..3).map(pod)))
            .probe(probe.every(every))
            .spawn()
    }
}
