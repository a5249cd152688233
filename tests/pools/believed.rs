//! A probe that believes what the test tells it, whatever the servers are.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{
    Address, Balancer, Endpoint, Fixed, Observation, ProbeError, Role, Term, probe_fn,
};

/// No server has this number.
pub(crate) const NONE: usize = usize::MAX;

/// The number of the server that is believed to be the primary, and the term that it is in.
#[derive(Clone, Debug)]
pub(crate) struct Believed {
    number: Arc<AtomicUsize>,
    term: Arc<AtomicUsize>,
}

impl Believed {
    pub(crate) fn in_primary(number: usize) -> Self {
        Self {
            number: Arc::new(AtomicUsize::new(number)),
            term: Arc::new(AtomicUsize::new(1)),
        }
    }

    /// This one was promoted.
    pub(crate) fn set(&self, number: usize) {
        self.term.fetch_add(1, Relaxed);
        self.number.store(number, Relaxed);
    }

    /// Whether a probe is there that asks it.
    pub(crate) fn is_asked(&self) -> bool {
        Arc::strong_count(&self.number) > 1
    }

    /// Asks every 50 ms.
    pub(crate) fn balancer(&self, servers: Vec<Address>) -> Balancer {
        let (believed, places) = (self.clone(), servers.clone());
        let probe = probe_fn(move |endpoint: &Endpoint| {
            let is_it = |address: &Address| address.socket() == endpoint.addr();
            let number = places.iter().position(is_it).unwrap_or(NONE);
            let observation = if believed.number.load(Relaxed) == number {
                let term = believed.term.load(Relaxed) as u128;
                Observation::of(Role::Primary).in_term(Term::new(term))
            } else {
                Observation::of(Role::Replica)
            };
            async move { Ok::<_, ProbeError>(observation) }
        });
        Balancer::builder(Fixed::new(servers))
            .probe(probe.every(Duration::from_millis(50)))
            .spawn()
    }
}
