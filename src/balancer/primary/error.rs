//! Why there is no primary, and that one was lost at work.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use crate::{balancer::shared::Shared, endpoint::Endpoint, registry::Status};

/// Why there is no primary now. The text names the service, the cause and what each endpoint said.
#[derive(Clone)]
pub struct NoPrimary {
    kind: NoPrimaryKind,
    status: Arc<Status>,
}

/// What calls for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoPrimaryKind {
    /// Discovery has ended: nothing will change that.
    Closed,
    /// None is accepted now. Wait for one.
    None,
    /// None was accepted in the time given.
    TimedOut(Duration),
    /// So many wait already that this one would be served too late.
    TooManyWaiters,
    /// The balancer has no probe, and nobody says who the primary is: see [`Builder::probe`](crate::Builder::probe).
    Unprobed,
}

impl NoPrimary {
    pub(super) fn new<S>(kind: NoPrimaryKind, shared: &Shared<S>) -> Self {
        let kind = if shared.epochs.is_closed() {
            NoPrimaryKind::Closed
        } else if !shared.settings.is_probed {
            NoPrimaryKind::Unprobed
        } else {
            kind
        };
        Self {
            kind,
            status: shared.status.load_full(),
        }
    }

    /// What calls for something else.
    pub fn kind(&self) -> NoPrimaryKind {
        self.kind
    }

    /// The state of discovery; [`Status::primary`] tells how each endpoint stands to the primary.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }
}

impl fmt::Display for NoPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.status.service();
        match self.kind {
            NoPrimaryKind::Closed => write!(f, "{service}: no primary: discovery has ended")?,
            NoPrimaryKind::None => write!(f, "{service}: no primary")?,
            NoPrimaryKind::TimedOut(time) => write!(f, "{service}: no primary within {time:?}")?,
            NoPrimaryKind::TooManyWaiters => {
                write!(f, "{service}: no primary, and too many wait for one")?;
            }
            NoPrimaryKind::Unprobed => {
                return write!(f, "{service}: no primary: this balancer has no probe");
            }
        }
        if let Some(error) = self.status.error() {
            write!(f, ": {error}")?;
        }
        let Some(seen) = self.status.primary() else {
            return f.write_str(": not resolved yet");
        };
        write!(f, ": {seen}")?;
        if self.status.endpoints() < 2 && self.kind != NoPrimaryKind::Closed {
            // A pod that is not ready while it is no primary is hidden from who is to find that out.
            f.write_str("; does the service publish not-ready addresses?")?;
        }
        Ok(())
    }
}

/// The variant and the text: what `main` prints of an error that it returns is for people.
impl fmt::Debug for NoPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NoPrimary")
            .field(&format_args!("{self}"))
            .finish()
    }
}

impl Error for NoPrimary {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.status.error()?)
    }
}

/// The primary was lost while work ran on it: see [`Writer::run`](crate::Writer::run).
#[derive(Clone, Debug)]
pub struct Fenced {
    service: Arc<str>,
    endpoint: Arc<Endpoint>,
    maybe_committed: bool,
}

impl Fenced {
    pub(super) fn new<S>(
        shared: &Shared<S>,
        endpoint: &Arc<Endpoint>,
        maybe_committed: bool,
    ) -> Self {
        Self {
            service: shared.status.load().service().into(),
            endpoint: Arc::clone(endpoint),
            maybe_committed,
        }
    }

    /// Whether the work had begun: what it sent may have taken effect, or may still. Nobody can tell from
    /// here, so nothing was done again.
    pub fn maybe_committed(&self) -> bool {
        self.maybe_committed
    }

    /// Who was the primary.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, endpoint) = (&self.service, &self.endpoint);
        write!(f, "{service}: {endpoint} is not the primary any more; ")?;
        f.write_str(if self.maybe_committed {
            "the work on it may have taken effect"
        } else {
            "the work on it had not begun"
        })
    }
}

impl Error for Fenced {}
