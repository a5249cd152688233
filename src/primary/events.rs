//! What happened, once each, for the driver to log.

use std::sync::Arc;

use super::reason::Reason;
use crate::{
    endpoint::Endpoint,
    probe::{ProbeError, Term},
};

/// What happened to the primary or to a claim.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// It is the primary now. The same generation as before if it was lost and is back.
    Accepted {
        endpoint: Arc<Endpoint>,
        term: Option<Term>,
        generation: u64,
    },
    /// It is no longer the primary, and what came in its place comes after this.
    Lost {
        endpoint: Arc<Endpoint>,
        why: Reason,
    },
    /// Another took over while it still claimed to be the primary.
    Superseded {
        old: Arc<Endpoint>,
        new: Arc<Endpoint>,
    },
    /// It claims what others went on from: a zombie (R2).
    StalePrimary {
        endpoint: Arc<Endpoint>,
        why: Reason,
    },
    /// Claims that nothing orders (R3), and whom the policy keeps.
    Conflict {
        claimants: Vec<Arc<Endpoint>>,
        kept: Option<Arc<Endpoint>>,
    },
    /// One took over in the term of another that was lost, under another name (R3).
    SameTermTakeover {
        old: Arc<Endpoint>,
        new: Arc<Endpoint>,
        term: Term,
    },
    /// It belongs to another cluster (R11).
    WrongCluster {
        endpoint: Arc<Endpoint>,
        why: Reason,
    },
    /// The whole cluster has other data now (R11): terms begin anew.
    Rebuilt { id: Arc<str> },
    /// It is the primary and takes no writes (R12).
    Fenced {
        endpoint: Arc<Endpoint>,
        by: Arc<str>,
    },
    /// It is there and does not talk to the probe: saturated, credentials, TLS (R8).
    Mute {
        endpoint: Arc<Endpoint>,
        error: Arc<ProbeError>,
    },
}

/// The kinds of events that one endpoint causes again and again, each told once while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Stale,
    WrongCluster,
    Fenced,
    Mute,
}
