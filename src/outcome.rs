//! How a request went: what policies and ejection learn from it.

use std::{fmt, time::Duration};

/// How a request went, as far as its pod is concerned.
///
/// ```
/// use headless_lb::{Cause, Failure, Outcome};
/// use std::time::Duration;
///
/// let overloaded = Failure::of(Cause::Status(503)).retry_after(Duration::from_secs(2));
/// assert_eq!(overloaded.to_string(), "HTTP 503");
/// let outcome = Outcome::Failure(overloaded);
/// # let _ = outcome;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// The pod served it. A request that was wrong by itself (HTTP 404) counts too: the pod is well.
    Success,
    /// The pod did not serve it, though it may have had it.
    Failure(Failure),
    /// Says nothing of the pod: a stream, a long poll, a request that was never sent.
    Ignore,
}

/// A request that its pod did not serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    cause: Cause,
    retry_after: Option<Duration>,
}

/// Why a pod did not serve a request, in as few words as a counter needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// An HTTP status.
    Status(u16),
    /// A gRPC status code.
    Grpc(u8),
    /// Nothing listens there.
    Refused,
    /// No connection could be made, for another reason.
    Unreachable,
    /// No answer in the time that was given.
    TimedOut,
    /// The connection ended before the answer. Of the requests that shared one of HTTP/2, one counts.
    Reset,
    /// The caller waited for a second or longer, and for longer than requests take on average as far as that is known, and
    /// then gave up.
    GaveUp,
    /// A health check failed.
    Unhealthy,
    /// Something else.
    Other,
}

impl Failure {
    /// A failure for this cause.
    pub const fn of(cause: Cause) -> Self {
        Self {
            cause,
            retry_after: None,
        }
    }

    /// The pod asked to be left alone for so long (RFC 9110, 10.2.3). More than five minutes count as that.
    #[must_use]
    pub const fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Why.
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// How long the pod asked to be left alone.
    pub const fn pause(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Self {
        Self::of(cause)
    }
}

impl From<Cause> for Outcome {
    fn from(cause: Cause) -> Self {
        Self::Failure(Failure::of(cause))
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

/// The names of gRPC's status codes, by number (grpc/doc/statuscodes.md).
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl Cause {
    /// Whether the pod did not even answer.
    pub(crate) const fn is_unanswered(self) -> bool {
        !matches!(self, Self::Status(_) | Self::Grpc(_) | Self::Unhealthy)
    }

    /// As one number, for a cell; never 0.
    pub(crate) const fn to_bits(self) -> u32 {
        match self {
            Self::Status(status) => 1 << 16 | status as u32,
            Self::Grpc(code) => 2 << 16 | code as u32,
            Self::Refused => 3 << 16,
            Self::Unreachable => 4 << 16,
            Self::TimedOut => 5 << 16,
            Self::Reset => 6 << 16,
            Self::GaveUp => 7 << 16,
            Self::Unhealthy => 8 << 16,
            Self::Other => 9 << 16,
        }
    }

    /// The cause of that number; `None` for 0.
    pub(crate) const fn from_bits(bits: u32) -> Option<Self> {
        Some(match bits >> 16 {
            0 => return None,
            1 => Self::Status(bits as u16),
            2 => Self::Grpc(bits as u8),
            3 => Self::Refused,
            4 => Self::Unreachable,
            5 => Self::TimedOut,
            6 => Self::Reset,
            7 => Self::GaveUp,
            8 => Self::Unhealthy,
            _ => Self::Other,
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::Grpc(code) => match GRPC.get(usize::from(*code)) {
                Some(name) => write!(f, "gRPC {name}"),
                None => write!(f, "gRPC {code}"),
            },
            Self::Refused => f.write_str("connection refused"),
            Self::Unreachable => f.write_str("no connection"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Reset => f.write_str("connection lost"),
            Self::GaveUp => f.write_str("given up by the caller"),
            Self::Unhealthy => f.write_str("health check failed"),
            Self::Other => f.write_str("failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_survives_its_cell() {
        let causes = [
            Cause::Status(0),
            Cause::Status(503),
            Cause::Status(u16::MAX),
            Cause::Grpc(14),
            Cause::Grpc(u8::MAX),
            Cause::Refused,
            Cause::Unreachable,
            Cause::TimedOut,
            Cause::Reset,
            Cause::GaveUp,
            Cause::Unhealthy,
            Cause::Other,
        ];
        for cause in causes {
            assert_ne!(cause.to_bits(), 0);
            assert_eq!(Cause::from_bits(cause.to_bits()), Some(cause));
        }
        assert_eq!(Cause::from_bits(0), None);
    }

    #[test]
    fn causes_read_well() {
        assert_eq!(Cause::Status(503).to_string(), "HTTP 503");
        assert_eq!(Cause::Grpc(14).to_string(), "gRPC UNAVAILABLE");
        assert_eq!(Cause::Grpc(99).to_string(), "gRPC 99");
        assert_eq!(Cause::Refused.to_string(), "connection refused");
    }
}
