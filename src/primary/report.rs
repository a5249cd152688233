//! What is known about the primary, for errors and for people.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::{
    order::HighestTerm,
    reason::{Label, Reason},
};
use crate::{age::Ago, endpoint::Endpoint, probe::Role, set::Position};

/// So many endpoints are written out; a service with more is looked at through [`Report::endpoints`].
const WRITTEN: usize = 16;

/// Whether there is a primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// None was accepted since the program began.
    Unknown,
    /// One is, and was confirmed lately.
    Stable,
    /// One is, and was not confirmed lately. It is still used.
    Suspect,
    /// The last one was lost.
    NoPrimary,
    /// More than one claims to be it, and nothing orders them.
    Conflict,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Stable => "stable",
            Self::Suspect => "suspect",
            Self::NoPrimary => "no primary",
            Self::Conflict => "conflict",
        })
    }
}

/// The primary and how each endpoint stands to it. Immutable; printing it tells ages as of then.
#[derive(Debug)]
pub struct Report {
    pub(super) state: State,
    pub(super) why: Option<Reason>,
    pub(super) since: Option<Instant>,
    pub(super) primary: Option<Arc<Endpoint>>,
    pub(super) last: Option<LastPrimary>,
    pub(super) highest: Option<HighestTerm>,
    pub(super) endpoints: Box<[Observed]>,
    /// Whether no live node claims the highest term, and one is rejected for it.
    pub(super) is_restore: bool,
}

impl Report {
    /// Whether there is a primary.
    pub fn state(&self) -> State {
        self.state
    }

    /// Why it is not stable, if it was seen why.
    pub fn why(&self) -> Option<&Reason> {
        self.why.as_ref()
    }

    /// Since when the state is as it is; `None` if nothing was ever seen.
    pub fn since(&self) -> Option<Instant> {
        self.since
    }

    /// The accepted primary.
    pub fn primary(&self) -> Option<&Arc<Endpoint>> {
        self.primary.as_ref()
    }

    /// The primary that was lost last.
    pub fn last(&self) -> Option<&LastPrimary> {
        self.last.as_ref()
    }

    /// The highest term that was seen. While its holder is the primary and stable, it is seen again with
    /// each probe: the time here is as of the last change of the report.
    pub fn highest(&self) -> Option<&HighestTerm> {
        self.highest.as_ref()
    }

    /// Each endpoint, in the order in which they were found.
    pub fn endpoints(&self) -> &[Observed] {
        &self.endpoints
    }
}

/// A primary that was lost.
#[derive(Clone, Debug)]
pub struct LastPrimary {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) lost: Instant,
    pub(super) why: Reason,
}

impl LastPrimary {
    /// Who it was: name and address.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// When it was lost.
    pub fn lost(&self) -> Instant {
        self.lost
    }

    /// Why.
    pub fn why(&self) -> &Reason {
        &self.why
    }
}

/// What probes say of one endpoint.
#[derive(Clone, Debug)]
pub struct Observed {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) position: Position,
    pub(super) role: Option<Role>,
    pub(super) reason: Option<Reason>,
    pub(super) since: Instant,
}

impl Observed {
    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// How it stands to the primary, its connects apart.
    pub fn position(&self) -> Position {
        self.position
    }

    /// What it says it is, while its last answer counts.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Why it is not what it says, or says nothing.
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    /// Since when all that is so.
    pub fn since(&self) -> Instant {
        self.since
    }
}

/// On one line: the state, why and since when, the last primary, and each endpoint (16 at most).
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.primary {
            Some(primary) => write!(f, "primary {primary}, {}", self.state)?,
            None if self.state == State::Unknown => f.write_str("no primary yet")?,
            None => write!(f, "{}", self.state)?,
        }
        if let Some(since) = self.since {
            write!(f, " for {}", Ago(since))?;
        }
        if let Some(why) = &self.why {
            write!(f, ": {why}")?;
        }
        if let (None, Some(last)) = (&self.primary, &self.last) {
            let (endpoint, lost) = (&last.endpoint, Ago(last.lost));
            write!(f, "; last was {endpoint}, lost {lost} ago")?;
        }
        for observed in self.endpoints.iter().take(WRITTEN) {
            write!(f, "; {observed}")?;
        }
        if self.endpoints.len() > WRITTEN {
            write!(f, "; and {} more", self.endpoints.len() - WRITTEN)?;
        }
        if self.is_restore {
            f.write_str("; after a restore call forget_term()")?;
        }
        Ok(())
    }
}

impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Label(&self.endpoint))?;
        if self.endpoint.name().is_some() {
            write!(f, " {}", self.endpoint.addr())?;
        }
        match (self.position, self.role) {
            (Position::Unknown, Some(Role::Primary)) => f.write_str(" claims to be the primary")?,
            (Position::Unknown, Some(_)) => f.write_str(" alive")?,
            (Position::Unknown, None) => f.write_str(" unknown")?,
            (Position::Ejected, _) => f.write_str(" unavailable")?,
            (position, _) => write!(f, " {position}")?,
        }
        write!(f, " for {}", Ago(self.since))?;
        match &self.reason {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}
