//! What happened, once each, for the driver to log.

use std::{fmt, sync::Arc};

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

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted {
                endpoint,
                term,
                generation,
            } => {
                write!(f, "{endpoint} is the primary")?;
                if let Some(term) = term {
                    write!(f, " in term {term}")?;
                }
                write!(f, ", generation {generation}")
            }
            Self::Lost { endpoint, why } => write!(f, "{endpoint} is no longer the primary: {why}"),
            Self::Superseded { old, new } => write!(f, "{new} superseded {old}"),
            Self::StalePrimary { endpoint, why } => {
                write!(f, "{endpoint} claims to be the primary, and is not: {why}")
            }
            Self::Conflict { claimants, kept } => {
                f.write_str("more than one claims to be the primary:")?;
                for claimant in claimants {
                    write!(f, " {claimant},")?;
                }
                match kept {
                    Some(kept) => write!(f, " and {kept} is kept"),
                    None => f.write_str(" and none is accepted"),
                }
            }
            Self::SameTermTakeover { old, new, term } => {
                write!(f, "{new} took over from {old} in the same term {term}")
            }
            Self::WrongCluster { endpoint, why } => write!(f, "{endpoint} rejected: {why}"),
            Self::Rebuilt { id } => write!(f, "the cluster was rebuilt: its data are {id} now"),
            Self::Fenced { endpoint, by } => write!(f, "{endpoint} takes no writes: {by}"),
            Self::Mute { endpoint, error } => {
                write!(f, "{endpoint} does not answer the probe: {error}")
            }
        }
    }
}

/// The kinds of events that one endpoint causes again and again, each told once while it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Stale,
    WrongCluster,
    Fenced,
    Mute,
}
