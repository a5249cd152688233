//! Why nothing was picked.

use std::{error::Error, fmt, sync::Arc};

use crate::{age::Ago, registry::Status, resolve::ResolveErrorKind};

/// Why nothing was picked. Each variant calls for something else, and each names the service and
/// the cause; the [`Status`] inside tells the age of what is known.
#[derive(Clone)]
#[non_exhaustive]
pub enum PickError {
    /// The driver is gone, and no endpoints are known. Nothing will change that: was the
    /// [`Driver`](crate::Driver) dropped, or its runtime shut down?
    Closed(Arc<Status>),
    /// There are endpoints, but the policy takes none of them: no primary now, or no replica.
    /// [`Status::unobserved`] tells whether the probe has yet to be heard of some.
    NoCandidate(Arc<Status>),
    /// There are no endpoints: scaled to zero, a missing service or a wrong name, which cluster DNS
    /// does not tell apart; or too stale to be believed. The resolver loop goes on.
    NoEndpoints(Arc<Status>),
    /// No pod of this name or ordinal is in the set.
    #[non_exhaustive]
    NoSuchPod {
        /// What was asked for.
        pod: Arc<str>,
        /// The state of discovery.
        status: Arc<Status>,
    },
    /// The source has not answered yet. The resolver loop goes on.
    Unresolved(Arc<Status>),
}

impl PickError {
    /// The state of discovery at that moment.
    pub fn status(&self) -> &Arc<Status> {
        match self {
            Self::Closed(status)
            | Self::NoCandidate(status)
            | Self::NoEndpoints(status)
            | Self::NoSuchPod { status, .. }
            | Self::Unresolved(status) => status,
        }
    }

    /// A short fixed label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::NoCandidate(_) => "no_candidate",
            Self::NoEndpoints(_) => "no_endpoints",
            Self::NoSuchPod { .. } => "no_such_pod",
            Self::Unresolved(_) => "unresolved",
        }
    }
}

impl fmt::Display for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status();
        let service = status.service();
        match self {
            Self::Closed(_) => write!(f, "{service}: the driver of this balancer has ended")?,
            Self::NoCandidate(_) => {
                let n = status.endpoints();
                write!(f, "{service}: the policy takes none of the {n} endpoints")?;
                return match status.primary() {
                    Some(primary) => write!(f, ": {primary}"),
                    None => Ok(()),
                };
            }
            Self::NoEndpoints(_) => write!(f, "{service}: no endpoints")?,
            Self::NoSuchPod { pod, .. } => {
                let n = status.endpoints();
                return write!(
                    f,
                    "{service}: no pod {pod} among {n} endpoints (names come from SRV records)"
                );
            }
            Self::Unresolved(_) => write!(f, "{service}: not resolved yet")?,
        }
        if let Some(cause) = status.error() {
            write!(f, ": {cause}")?;
            if cause.kind() == ResolveErrorKind::NxDomain {
                f.write_str("; zero ready pods, a missing service and a wrong name look the same")?;
            }
        }
        if let Some(good) = status.last_good() {
            write!(f, " (last good answer {} ago)", Ago(good))?;
        }
        Ok(())
    }
}

/// The variant and the text: what `main` prints of an error that it returns is for people.
impl fmt::Debug for PickError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self {
            Self::Closed(_) => "Closed",
            Self::NoCandidate(_) => "NoCandidate",
            Self::NoEndpoints(_) => "NoEndpoints",
            Self::NoSuchPod { .. } => "NoSuchPod",
            Self::Unresolved(_) => "Unresolved",
        };
        f.debug_tuple(variant)
            .field(&format_args!("{self}"))
            .finish()
    }
}

impl Error for PickError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The cause itself stands in the text; what lies beneath it follows.
        self.status().error()?.source()
    }
}
