//! Why an HTTP request to a pod failed.

use std::{error::Error, fmt, io};

/// Why an HTTP request to a pod failed. The balancer's [`Error`](crate::Error) around it names the
/// service and the pod.
#[derive(Debug)]
#[non_exhaustive]
pub enum HttpError {
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
        !matches!(self, Self::Request(_))
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "connect failed: {error}"),
            Self::ConnectTimeout => f.write_str("no answer to the connect in time"),
            Self::MissingHost => {
                f.write_str("the request has neither a host in its URI nor a Host header")
            }
            Self::Request(error) => write!(f, "request failed: {error}"),
            Self::Unsent(error) => write!(
                f,
                "connection closed before the request was written: {error}"
            ),
            Self::UnsupportedScheme => f.write_str("only http:// URIs are supported"),
        }
    }
}

impl Error for HttpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // The error itself stands in the text; what lies beneath it follows.
            Self::Connect(error) => error.source(),
            Self::Request(error) | Self::Unsent(error) => error.source(),
            Self::ConnectTimeout | Self::MissingHost | Self::UnsupportedScheme => None,
        }
    }
}
