//! An explanation as people read it: a line for the service, and one for each endpoint.

use std::fmt;

use super::{Explained, Explanation};
use crate::{age::Span, registry::EndpointState};

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            headline,
            generation,
            added,
            removed,
            ..
        } = self;
        write!(
            f,
            "{headline}; set {generation}, {added} added and {removed} removed so far"
        )?;
        if self.ejections > 0 {
            write!(f, ", {} ejected so far", self.ejections)?;
        }
        if self.draining > 0 {
            write!(f, ", {} draining", self.draining)?;
        }
        if self.is_panic {
            f.write_str("; panic: ejections are ignored, too few endpoints would remain")?;
        }
        for endpoint in &self.endpoints {
            write!(f, "\n  {endpoint}")?;
        }
        Ok(())
    }
}

/// One line: who, the state with its reason, and the counters.
impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({}) ", self.addr)?,
            None => write!(f, "{} ", self.addr)?,
        }
        if let Some(role) = self.role {
            write!(f, "{role}, ")?;
        }
        self.write_state(f)?;
        write!(f, " | {} in flight", self.pending)?;
        if let Some(latency) = self.latency {
            write!(f, ", {:.1} ms expected", latency.as_secs_f64() * 1e3)?;
        }
        let Self {
            succeeded, failed, ..
        } = self;
        write!(f, ", {succeeded} succeeded, {failed} failed")?;
        match self.last_failure {
            Some(cause) => write!(f, ", last: {cause}"),
            None => Ok(()),
        }
    }
}

impl Explained {
    /// State, reason and what comes next, as a sentence.
    fn write_state(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use EndpointState::{Ejected, Refused, Starting, Warming};
        write!(f, "{}", self.state)?;
        match (self.state, self.since) {
            (Ejected | Refused, Some(since)) => write!(f, " {} ago", Span(since))?,
            (EndpointState::Available, _) | (_, None) => {}
            (_, Some(since)) => write!(f, " for {}", Span(since))?,
        }
        if self.state == Starting {
            write!(f, " at {:.0} % of its share", self.share * 100.0)?;
        }
        if let Some(reason) = &self.reason {
            write!(f, ": {reason}")?;
        }
        let Some(until) = self.until.map(Span) else {
            return Ok(());
        };
        match self.state {
            Ejected | Refused => write!(f, "; returns in {until}"),
            Starting => write!(f, "; whole in {until}"),
            Warming => write!(f, "; joins in {until} at the latest"),
            _ => Ok(()),
        }
    }
}
