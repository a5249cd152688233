//! Why there is no connection to the primary.

use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use crate::{
    balancer::{Fenced, NoPrimary},
    endpoint::Endpoint,
    hint::Hint,
};

/// Why a [`PgConnector`](super::PgConnector) gave no connection. The text names the pod and the whole cause.
#[derive(Debug)]
#[non_exhaustive]
pub enum PgConnectError {
    /// The connection had ended by itself: the server closed it, or the network broke it.
    Closed(Arc<Endpoint>),
    /// The configuration names what discovery decides: a port of its own, addresses, or several hosts.
    Config(&'static str),
    /// The primary was lost before its connection was handed out.
    Fenced(Fenced),
    /// There was no primary in the time given.
    NoPrimary(NoPrimary),
    /// The driver failed to connect.
    Postgres {
        /// To this primary.
        endpoint: Arc<Endpoint>,
        /// As the driver says.
        error: tokio_postgres::Error,
    },
    /// The accepted primary said that it is a standby, and no other was accepted in the time given.
    Standby(Arc<Endpoint>),
    /// The accepted primary did not answer in the time given.
    TimedOut {
        /// This primary.
        endpoint: Arc<Endpoint>,
        /// The time given.
        within: Duration,
    },
}

impl PgConnectError {
    /// What it says of the node.
    pub(super) fn hint(&self) -> Option<Hint> {
        match self {
            Self::Postgres { error, .. } => hint(error),
            Self::Standby(_) => Some(Hint::NotPrimary),
            Self::Closed(_)
            | Self::Config(_)
            | Self::Fenced(_)
            | Self::NoPrimary(_)
            | Self::TimedOut { .. } => None,
        }
    }

    /// Whether another connect may succeed soon, there or at the next primary. A wrong password will not,
    /// and a server without room should not be asked again and again.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Fenced(_))
            || self
                .hint()
                .is_some_and(|hint| !matches!(hint, Hint::Overload))
    }
}

/// What an error of the driver says of the node.
pub(super) fn hint(error: &tokio_postgres::Error) -> Option<Hint> {
    if let Some(code) = error.code() {
        return Hint::from_pg(code.code());
    }
    if error.is_closed() {
        return Some(Hint::Connection);
    }
    Hint::from_io(error.source()?.downcast_ref::<io::Error>()?)
}

impl fmt::Display for PgConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(endpoint) => write!(f, "{endpoint}: the connection has ended"),
            Self::Config(what) => write!(f, "{what}"),
            Self::Fenced(fenced) => write!(f, "{fenced}"),
            Self::NoPrimary(error) => write!(f, "{error}"),
            Self::Postgres { endpoint, error } => {
                write!(f, "{endpoint}: {error}")?;
                // The driver's error tells by itself hardly more than its kind.
                error
                    .source()
                    .map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::Standby(endpoint) => {
                write!(
                    f,
                    "{endpoint} is a standby, and no other primary is known yet"
                )
            }
            Self::TimedOut { endpoint, within } => {
                write!(f, "{endpoint}: no connection within {within:?}")
            }
        }
    }
}

impl Error for PgConnectError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Fenced(fenced) => Some(fenced),
            Self::NoPrimary(error) => Some(error),
            Self::Postgres { error, .. } => Some(error),
            Self::Closed(_) | Self::Config(_) | Self::Standby(_) | Self::TimedOut { .. } => None,
        }
    }
}
