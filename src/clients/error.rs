//! Why a request through a client of the program's own failed.

use std::{error::Error, fmt, io, iter};

use hyper_util::client::legacy;

use crate::{
    http::{cause_of_connect, lost},
    outcome::{Cause, Outcome},
};

type BoxError = Box<dyn Error + Send + Sync>;

/// Why a request through a [`ClientLayer`](crate::ClientLayer) failed. The balancer's
/// [`Error`](crate::Error) around it names the service and the pod.
///
/// The text holds the whole chain of causes in one line; [`source`](Error::source) leads to those
/// beneath the first. The client's own error is in the variant, to downcast.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The client failed. The pod may have seen the request.
    Client(BoxError),
    /// The client could not connect to the pod.
    Connect(BoxError),
    /// The URI has no host, and the request no `Host` header.
    MissingHost,
    /// `CONNECT`: its authority is not the server but the target, and cannot give way to a pod's address.
    UnsupportedMethod,
    /// Only `http`: what a client verifies over TLS is the URI's host, which would be the pod's address.
    UnsupportedScheme,
}

impl ClientError {
    /// hyper-util's client says whether it failed to connect. Its error may lie within those of the
    /// layers around it.
    pub(super) fn of(error: BoxError) -> Self {
        let is_connect = chain(&*error)
            .filter_map(|error| error.downcast_ref())
            .any(legacy::Error::is_connect);
        if is_connect {
            Self::Connect(error)
        } else {
            Self::Client(error)
        }
    }

    /// Why it could not connect.
    pub(super) fn cause_of_connect(&self) -> Cause {
        let mut causes = self.cause().into_iter().flat_map(chain);
        let kind = causes.find_map(|error| Some(error.downcast_ref::<io::Error>()?.kind()));
        kind.map_or(Cause::Unreachable, cause_of_connect)
    }

    /// What it says of the pod that failed with it. An error that is not hyper's is taken for a lost connection.
    pub(super) fn outcome(&self) -> Outcome {
        let Self::Client(error) = self else {
            // It was not sent.
            return Outcome::Ignore;
        };
        let hyper = chain(&**error).find_map(|error| error.downcast_ref::<hyper::Error>());
        hyper.map_or_else(|| Cause::Reset.into(), lost)
    }

    fn cause(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Client(error) | Self::Connect(error) => Some(&**error),
            Self::MissingHost | Self::UnsupportedMethod | Self::UnsupportedScheme => None,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "request failed",
            Self::Connect(_) => "connect failed",
            Self::MissingHost => "the request has neither a host in its URI nor a Host header",
            Self::UnsupportedMethod => "CONNECT cannot be balanced",
            Self::UnsupportedScheme => "only http:// URIs are supported",
        })?;
        // The client's error tells by itself hardly more than its kind.
        for cause in self.cause().into_iter().flat_map(chain) {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause()?.source()
    }
}

/// The error, and what lies beneath it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |error| (*error).source())
}
