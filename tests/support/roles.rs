//! A cluster whose nodes say what the test tells them to, and a probe that asks them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Observation, Probe, ProbeError, ProbeFailure, Role, Term, probe_fn};

use super::script::pod;

/// Between two questions to a node.
pub const INTERVAL: Duration = Duration::from_millis(250);

/// What each node says, by address. A node of which nothing was said refuses.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    #[expect(
        clippy::disallowed_types,
        reason = "a test's script, held for the length of a lookup"
    )]
    said: Arc<std::sync::Mutex<HashMap<SocketAddr, Said>>>,
    asked: Arc<AtomicU32>,
}

#[derive(Clone, Debug)]
enum Said {
    Seen(Observation),
    Failure(ProbeFailure),
    Silence,
}

impl Nodes {
    /// The node answers so from now on.
    pub fn say(&self, host: u8, observation: impl Into<Observation>) {
        self.put(host, Said::Seen(observation.into()));
    }

    /// The node is a primary of this term.
    pub fn claim(&self, host: u8, term: u128) {
        self.say(
            host,
            Observation::of(Role::Primary).in_term(Term::new(term)),
        );
    }

    /// The node follows.
    pub fn follow(&self, hosts: impl IntoIterator<Item = u8>) {
        for host in hosts {
            self.say(host, Role::Replica);
        }
    }

    /// The node fails so from now on.
    pub fn fail(&self, host: u8, failure: ProbeFailure) {
        self.put(host, Said::Failure(failure));
    }

    /// The node answers nothing any more.
    pub fn hang(&self, host: u8) {
        self.put(host, Said::Silence);
    }

    /// How often any node was asked.
    pub fn asked(&self) -> u32 {
        self.asked.load(Relaxed)
    }

    /// Asks them.
    pub fn probe(&self) -> impl Probe + use<> {
        let nodes = self.clone();
        probe_fn(move |endpoint| {
            nodes.asked.fetch_add(1, Relaxed);
            let said = nodes.of(endpoint.addr());
            async move {
                match said {
                    Some(Said::Seen(observation)) => Ok(observation),
                    Some(Said::Failure(failure)) => Err(ProbeError::new(failure, "scripted")),
                    Some(Said::Silence) => std::future::pending().await,
                    None => Err(ProbeError::new(ProbeFailure::Refused, "no such node")),
                }
            }
        })
        .every(INTERVAL)
    }

    fn of(&self, addr: SocketAddr) -> Option<Said> {
        self.said
            .lock()
            .expect("no test panics in it")
            .get(&addr)
            .cloned()
    }

    fn put(&self, host: u8, said: Said) {
        self.said
            .lock()
            .expect("no test panics in it")
            .insert(pod(host), said);
    }
}
