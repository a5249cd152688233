//! What a pick gives, and how a pod is named.

use std::{fmt, net::SocketAddr, sync::Arc};

use crate::{
    endpoint::{Endpoint, InFlight},
    outcome::Outcome,
};

/// An endpoint that was picked, and its service. The request counts as in flight until it is dropped.
///
/// If you dial by yourself, say how it went: whether the endpoint could be reached, and what became of the request.
/// The first sets it aside or brings it back; the second is what policies and ejection go by.
///
/// ```
/// use headless_lb::{Balancer, Cause, Fixed, Outcome, PeakEwma};
/// use tokio::{io::AsyncReadExt, net::TcpStream};
/// # use tokio::{io::AsyncWriteExt, net::TcpListener};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let pod = TcpListener::bind("127.0.0.1:0").await?;
/// # let pods = Fixed::new([pod.local_addr()?]);
/// # let serving = async { pod.accept().await?.0.write_all(b"hello").await };
/// let clocks = Balancer::builder(pods).policy(PeakEwma::new()).spawn();
/// clocks.resolved().await?;
///
/// let mut pick = clocks.pick()?; // timed from here on, for the policy goes by latency
/// let mut stream = match TcpStream::connect(pick.addr()).await {
///     Ok(stream) => {
///         pick.endpoint().reached();
///         stream
///     }
///     Err(error) => {
///         pick.endpoint().unreachable(Cause::Refused); // no outcome: it was never sent
///         return Err(error.into());
///     }
/// };
/// # serving.await?;
/// let mut answer = [0; 5];
/// pick.record(match stream.read_exact(&mut answer).await {
///     Ok(_) => Outcome::Success,
///     Err(_) => Cause::Reset.into(),
/// });
/// assert_eq!(pick.endpoint().succeeded(), 1);
/// # Ok(())
/// # }
/// ```
#[must_use = "the request counts as ended when the pick is dropped"]
pub struct Pick<S = ()> {
    pub(super) service: S,
    pub(super) in_flight: InFlight,
}

impl<S> Pick<S> {
    /// The endpoint that was picked.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }

    /// Its address, to dial.
    pub fn addr(&self) -> SocketAddr {
        self.endpoint().addr()
    }

    /// Its service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Its service, to call.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// How the request went: policies and ejection learn from it. See [`Pick`] and [`InFlight::record`].
    pub fn record(&mut self, outcome: Outcome) {
        self.in_flight.record(outcome);
    }

    /// The service, and the guard that counts the request while it lives.
    pub fn into_parts(self) -> (S, InFlight) {
        (self.service, self.in_flight)
    }
}

impl<S> fmt::Debug for Pick<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(self.endpoint()).finish()
    }
}

/// A pod by name or StatefulSet ordinal: what [`Balancer::pod`](crate::Balancer::pod) takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pod<'a> {
    /// By name: `db-0`.
    Name(&'a str),
    /// By ordinal: 0 for any name that ends in `-0`.
    Ordinal(u32),
}

impl Pod<'_> {
    pub(super) fn is(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Name(name) => endpoint
                .name()
                .is_some_and(|own| own.eq_ignore_ascii_case(name)),
            Self::Ordinal(ordinal) => endpoint.ordinal() == Some(*ordinal),
        }
    }
}

impl fmt::Display for Pod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ordinal(ordinal) => write!(f, "number {ordinal}"),
        }
    }
}

impl<'a> From<&'a str> for Pod<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl From<u32> for Pod<'_> {
    fn from(ordinal: u32) -> Self {
        Self::Ordinal(ordinal)
    }
}
