//! Why a probe saw nothing.

use std::{error::Error, fmt, io};

/// Why a probe saw nothing.
///
/// A failure is definitive if the node certainly does not serve, and one such failure ends its claim to
/// be the primary. Of the others it takes two in a row: a packet may be lost.
#[derive(Debug)]
pub struct ProbeError {
    failure: ProbeFailure,
    definitive: bool,
    source: Box<dyn Error + Send + Sync>,
}

/// The kind of a [`ProbeError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProbeFailure {
    /// The credentials were refused. Says nothing of the role.
    Auth,
    /// The session ended.
    Closed,
    /// It runs and serves nobody yet: a standby that takes no connections. Definitive.
    NotAccepting,
    /// Something else.
    Other,
    /// It recovers from a crash. Definitive.
    Recovering,
    /// Nothing listens there, or the connection was reset while it was opened. Definitive.
    Refused,
    /// It has no connection left for us. Says nothing of the role.
    Saturated,
    /// It ends. Definitive.
    ShuttingDown,
    /// It starts. Definitive.
    Starting,
    /// No answer in time. A stopped node's kernel still accepts connections.
    Timeout,
    /// The TLS handshake failed. Says nothing of the role.
    Tls,
    /// No way there.
    Unreachable,
    /// It belongs to another cluster. Definitive.
    WrongCluster,
}

impl ProbeError {
    /// A failure of this kind. Whether it is definitive follows from the kind.
    ///
    /// ```
    /// use headless_lb::{ProbeError, ProbeFailure};
    ///
    /// let error = ProbeError::new(ProbeFailure::Recovering, "the database system is in recovery mode");
    /// assert!(error.is_definitive());
    /// ```
    pub fn new(failure: ProbeFailure, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            failure,
            definitive: failure.is_definitive(),
            source: source.into(),
        }
    }

    /// The node may still be what it was, for a reason that has no name here. Two in a row end a claim.
    pub fn passing(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ProbeFailure::Other, source)
    }

    /// The node is certainly not serving, for a reason that has no name here. One ends a claim.
    pub fn definitive(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            definitive: true,
            ..Self::new(ProbeFailure::Other, source)
        }
    }

    /// What went wrong while a session was opened: refused and reset connections mean that nobody serves.
    pub fn opening(error: io::Error) -> Self {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
            NetworkUnreachable, TimedOut, UnexpectedEof,
        };
        let failure = match error.kind() {
            ConnectionRefused | ConnectionReset | ConnectionAborted => ProbeFailure::Refused,
            HostUnreachable | NetworkUnreachable => ProbeFailure::Unreachable,
            TimedOut => ProbeFailure::Timeout,
            BrokenPipe | UnexpectedEof => ProbeFailure::Closed,
            _ => ProbeFailure::Other,
        };
        Self::new(failure, error)
    }

    /// What went wrong in a TLS handshake: a peer that could not prove who it is, or does not speak TLS, says nothing of
    /// the role. One that breaks it off is like any other that does.
    #[cfg(feature = "tls")]
    pub(super) fn securing(error: io::Error) -> Self {
        let cause = error.get_ref();
        if cause.is_some_and(|cause| cause.is::<tokio_rustls::rustls::Error>()) {
            Self::new(ProbeFailure::Tls, error)
        } else {
            Self::opening(error)
        }
    }

    /// What went wrong on an open session. Its end alone proves nothing: an administrator may have ended
    /// it. The next [`open`](super::Probe::open) tells.
    pub fn closed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(ProbeFailure::Closed, error)
    }

    /// The same failure, of somebody who only speaks for the node: it ends no claim alone.
    #[must_use]
    pub(super) fn unproven(self) -> Self {
        Self {
            definitive: false,
            ..self
        }
    }

    /// The same failure, with what went wrong before it.
    #[must_use]
    pub(super) fn after(self, before: &Self) -> Self {
        Self {
            source: format!("{}; before: {}", self.text(), before.text()).into(),
            ..self
        }
    }

    fn text(&self) -> String {
        format!("{}: {}", self.failure, self.source)
    }

    /// The kind.
    pub fn failure(&self) -> ProbeFailure {
        self.failure
    }

    /// Whether one such error is enough.
    pub fn is_definitive(&self) -> bool {
        self.definitive
    }
}

impl ProbeFailure {
    const fn is_definitive(self) -> bool {
        matches!(
            self,
            Self::NotAccepting
                | Self::Recovering
                | Self::Refused
                | Self::ShuttingDown
                | Self::Starting
                | Self::WrongCluster
        )
    }

    /// Whether the node is there and only does not talk to us: neither proof for a role nor against it.
    pub(crate) const fn is_mute(self) -> bool {
        matches!(self, Self::Auth | Self::Saturated | Self::Tls)
    }
}

impl fmt::Display for ProbeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Auth => "credentials refused",
            Self::Closed => "session ended",
            Self::NotAccepting => "not accepting connections",
            Self::Other => "probe failed",
            Self::Recovering => "in crash recovery",
            Self::Refused => "connection refused",
            Self::Saturated => "no connection left",
            Self::ShuttingDown => "shutting down",
            Self::Starting => "starting",
            Self::Timeout => "no answer in time",
            Self::Tls => "TLS failed",
            Self::Unreachable => "unreachable",
            Self::WrongCluster => "another cluster",
        })
    }
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl Error for ProbeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
