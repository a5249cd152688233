//! Why an HTTP request to a pod failed.

use std::{error::Error, fmt, io, sync::Arc};

use super::classify;
use crate::outcome::{Cause, Outcome};

/// Why an HTTP request to a pod failed. The balancer's [`Error`](crate::Error) around it names the
/// service and the pod.
///
/// The text holds the whole chain of causes in one line; [`source`](Error::source) leads to those
/// beneath the first, for programs that look for one.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpError {
    /// The connection failed within the response's body.
    Body(hyper::Error),
    /// The pod did not take the connection.
    Connect(Arc<io::Error>),
    /// The pod did not answer the connect in time.
    ConnectTimeout,
    /// The URI has no host, and the request no `Host` header, or one that names no host.
    MissingHost,
    /// The pod does not speak HTTP/2, and nothing else was asked for.
    NotHttp2(Arc<io::Error>),
    /// The connection failed; the pod may have seen the request.
    Request(hyper::Error),
    /// The pod fell silent, and another request is finding out whether it still is.
    SetAside,
    /// The pod did not prove to be who it should be, or did not take us for who we are.
    Tls(Arc<io::Error>),
    /// No answer within [`Http::try_timeout`](crate::Http::try_timeout); the pod may have seen the request.
    TryTimeout,
    /// The connection closed before the request was written, and so did the one after it; or the pod
    /// refused it unseen (HTTP/2 `REFUSED_STREAM` and `GOAWAY`).
    Unsent(hyper::Error),
    /// The URI's scheme is not that of the client: `https` with TLS, `http` without.
    UnsupportedScheme,
}

/// Why there is no connection. One answer to all that wait for one.
#[derive(Clone, Debug)]
pub(super) enum ConnectError {
    Io(Arc<io::Error>),
    #[cfg_attr(
        not(any(feature = "http2", feature = "tls")),
        expect(dead_code, reason = "only HTTP/2 fails so, and ALPN")
    )]
    NotHttp2(Arc<io::Error>),
    #[cfg_attr(
        not(any(feature = "http2", feature = "tls")),
        expect(dead_code, reason = "only TLS fails so, perhaps late")
    )]
    Tls(Arc<io::Error>),
    Timeout,
}

impl From<ConnectError> for HttpError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Io(error) => Self::Connect(error),
            ConnectError::NotHttp2(error) => Self::NotHttp2(error),
            ConnectError::Tls(error) => Self::Tls(error),
            ConnectError::Timeout => Self::ConnectTimeout,
        }
    }
}

impl ConnectError {
    /// In a word.
    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Io(error) => classify::cause_of_connect(error.kind()),
            Self::NotHttp2(_) | Self::Tls(_) => Cause::Unreachable,
            Self::Timeout => Cause::TimedOut,
        }
    }

    pub(super) fn io(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }

    /// A short fixed label.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => "refused",
                io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable",
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
                io::ErrorKind::TimedOut => "timeout",
                _ => "other",
            },
            Self::NotHttp2(_) => "not_http2",
            Self::Tls(_) => "tls",
            Self::Timeout => "timeout",
        }
    }

    /// The pool has closed for good.
    pub(super) fn gone() -> Self {
        Self::io(io::Error::other("the pod has left the service"))
    }
}

impl HttpError {
    /// Whether the pod cannot have processed the request.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::Body(_) | Self::Request(_) | Self::TryTimeout)
    }

    /// What it says of the pod that failed with it.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Body(error) | Self::Request(error) => classify::lost(error),
            Self::TryTimeout => Cause::TimedOut.into(),
            // It was not sent.
            _ => Outcome::Ignore,
        }
    }

    fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) | Self::NotHttp2(error) | Self::Tls(error) => Some(&**error),
            Self::Body(error) | Self::Request(error) | Self::Unsent(error) => Some(error),
            Self::ConnectTimeout
            | Self::MissingHost
            | Self::SetAside
            | Self::TryTimeout
            | Self::UnsupportedScheme => None,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body(_) => "response broke off",
            Self::Connect(_) => "connect failed",
            Self::ConnectTimeout => "no answer to the connect in time",
            Self::MissingHost => "the request has no host in its URI and no valid Host header",
            Self::NotHttp2(_) => "the pod does not speak HTTP/2",
            Self::Request(_) => "request failed",
            Self::SetAside => "the pod fell silent and is being tried by another request",
            Self::Tls(_) => "TLS refused",
            Self::TryTimeout => "no answer in the time of one try",
            Self::Unsent(_) => "the request was not written, or the pod refused it unseen",
            Self::UnsupportedScheme => {
                "the scheme of the URI is not that of the client (https with TLS, http without)"
            }
        })?;
        // hyper's errors tell by themselves hardly more than their kind.
        let mut next = self.cause();
        while let Some(cause) = next {
            write!(f, ": {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause()?.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("handshake")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn a_failed_connect_has_a_label_of_the_documented_list() {
        let io = |kind| ConnectError::io(io::Error::from(kind)).label();
        assert_eq!(io(io::ErrorKind::ConnectionRefused), "refused");
        assert_eq!(io(io::ErrorKind::HostUnreachable), "unreachable");
        assert_eq!(io(io::ErrorKind::NetworkUnreachable), "unreachable");
        assert_eq!(io(io::ErrorKind::ConnectionReset), "reset");
        assert_eq!(io(io::ErrorKind::TimedOut), "timeout");
        assert_eq!(io(io::ErrorKind::PermissionDenied), "other");
        let error = || Arc::new(io::Error::other("no"));
        assert_eq!(ConnectError::Tls(error()).label(), "tls");
        assert_eq!(ConnectError::NotHttp2(error()).label(), "not_http2");
        assert_eq!(ConnectError::Timeout.label(), "timeout");
    }

    #[test]
    fn the_whole_chain_is_one_line() {
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        let error = HttpError::Connect(Arc::new(io::Error::other(Outer(reset))));
        assert_eq!(
            error.to_string(),
            "connect failed: handshake: reset by peer"
        );
        assert!(error.source().is_some());
    }
}
