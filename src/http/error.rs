//! Why an HTTP request to a pod failed.

use std::{error::Error, fmt, io};

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
    Connect(io::Error),
    /// The pod did not answer the connect in time.
    ConnectTimeout,
    /// The URI has no host, and the request no `Host` header.
    MissingHost,
    /// The connection failed; the pod may have seen the request.
    Request(hyper::Error),
    /// The connection closed before the request was written, and so did the one after it.
    Unsent(hyper::Error),
    /// Only `http` is spoken.
    UnsupportedScheme,
}

impl HttpError {
    /// Whether the pod cannot have seen the request.
    pub fn is_unsent(&self) -> bool {
        !matches!(self, Self::Body(_) | Self::Request(_))
    }

    fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Body(error) | Self::Request(error) | Self::Unsent(error) => Some(error),
            Self::ConnectTimeout | Self::MissingHost | Self::UnsupportedScheme => None,
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Body(_) => "response broke off",
            Self::Connect(_) => "connect failed",
            Self::ConnectTimeout => "no answer to the connect in time",
            Self::MissingHost => "the request has neither a host in its URI nor a Host header",
            Self::Request(_) => "request failed",
            Self::Unsent(_) => "connection closed before the request was written",
            Self::UnsupportedScheme => "only http:// URIs are supported",
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
    fn the_whole_chain_is_one_line() {
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        let error = HttpError::Connect(io::Error::other(Outer(reset)));
        assert_eq!(
            error.to_string(),
            "connect failed: handshake: reset by peer"
        );
        assert!(error.source().is_some());
    }
}
