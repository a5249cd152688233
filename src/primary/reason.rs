//! Why an endpoint is not the primary, or no longer.

use std::{error::Error, fmt, sync::Arc};

use super::order::HighestTerm;
use crate::{
    age::Ago,
    endpoint::Endpoint,
    probe::{ProbeError, ProbeFailure, Term},
};

/// Why an endpoint is not the primary, or may not be, or is not one that follows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// Another claims to be the primary as well, and nothing orders the two.
    Conflict {
        /// The other.
        with: Arc<Endpoint>,
    },
    /// A replica has data that the primary has not: it cannot follow it.
    Diverged,
    /// It is the primary and takes no writes.
    Fenced {
        /// What keeps it from them: the name of a setting, say.
        by: Arc<str>,
    },
    /// `forget_term` was called, and its claim was not fresh.
    Forgotten,
    /// It was not asked for longer than an answer counts: the program was starved, or the probe hangs.
    LeaseOver,
    /// It is alive and does not say what it is.
    NoRole,
    /// Others went on from its data, and it still claims to be the primary.
    StaleLineage {
        /// The identity of its data.
        id: Arc<str>,
        /// That of the accepted primary's data.
        current: Arc<str>,
    },
    /// Its term is lower than one that was seen.
    StaleTerm {
        /// Its term.
        term: Term,
        /// The one that was seen.
        highest: HighestTerm,
    },
    /// It says that it is a replica.
    SteppedDown,
    /// Another took over while it was the accepted one.
    Superseded {
        /// The other.
        by: Arc<Endpoint>,
    },
    /// Its probe failed.
    Unavailable {
        /// The failure.
        error: Arc<ProbeError>,
    },
    /// It left DNS, and was not superseded for as long as it may linger.
    Unlisted,
    /// No probe has told anything yet.
    Unobserved,
    /// It belongs to another cluster.
    WrongCluster {
        /// The identity of its data, if it told.
        id: Option<Arc<str>>,
        /// That of the accepted primary's data, if that is known.
        expected: Option<Arc<str>>,
    },
}

impl Reason {
    /// The kind of failure, if a probe failed.
    pub fn failure(&self) -> Option<ProbeFailure> {
        match self {
            Self::Unavailable { error } => Some(error.failure()),
            _ => None,
        }
    }

    /// Whether others went on without the one that it is said of.
    pub(super) fn is_stale(&self) -> bool {
        matches!(self, Self::StaleLineage { .. } | Self::StaleTerm { .. })
    }

    /// Whether both say the same, but for ages and the words of an error.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let same = match (self, other) {
            (Self::Conflict { with: a }, Self::Conflict { with: b }) => Arc::ptr_eq(a, b),
            (Self::Fenced { by: a }, Self::Fenced { by: b }) => a == b,
            (
                Self::StaleTerm { term, highest },
                Self::StaleTerm {
                    term: other_term,
                    highest: other_highest,
                },
            ) => term == other_term && highest.term() == other_highest.term(),
            _ => self.failure() == other.failure(),
        };
        same && std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// With ages as of now.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { with } => {
                write!(f, "{} claims to be the primary as well", Label(with))
            }
            Self::Diverged => f.write_str("has data that the primary has not"),
            Self::Fenced { by } => write!(f, "takes no writes: {by}"),
            Self::Forgotten => f.write_str("the term was forgotten, and its claim was not fresh"),
            Self::LeaseOver => f.write_str("not asked for too long"),
            Self::NoRole => f.write_str("does not say what it is"),
            Self::StaleLineage { id, current } => {
                write!(f, "data {id} rejected, the primary went on with {current}")
            }
            Self::StaleTerm { term, highest } => write!(
                f,
                "term {term} rejected, term {} was seen on {} {} ago",
                highest.term(),
                Label(highest.endpoint()),
                Ago(highest.seen()),
            ),
            Self::SteppedDown => f.write_str("says that it is a replica"),
            Self::Superseded { by } => write!(f, "superseded by {}", Label(by)),
            Self::Unavailable { error } => {
                write!(f, "{error}")?;
                match error.source() {
                    Some(source) => write!(f, " ({source})"),
                    None => Ok(()),
                }
            }
            Self::Unlisted => f.write_str("left DNS"),
            Self::Unobserved => f.write_str("not observed yet"),
            Self::WrongCluster { id, expected } => {
                f.write_str("belongs to another cluster")?;
                match (id, expected) {
                    (Some(id), Some(expected)) => write!(f, ": {id}, not {expected}"),
                    (Some(id), None) => write!(f, ": {id}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

/// An endpoint as people call it: by its name, or else its address.
pub(super) struct Label<'a>(pub(super) &'a Endpoint);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "{}", self.0.addr()),
        }
    }
}
