//! Whether something listens.

use tokio::net::TcpStream;

use super::{Observation, Probe, ProbeError, Role};
use crate::endpoint::Endpoint;

/// Connects to the endpoint itself and hangs up: [`Role::Unknown`] if something listens there.
///
/// For what has no roles, and as the second word after one that knows them:
/// [`authority`](crate::probe::authority)`(..).confirm(Tcp::new())`. Not for a database alone: a stopped process
/// listens on, for its kernel accepts, and nothing says what the node is.
///
/// Costs the pod a connection each second, which some servers log as one that said nothing.
///
/// ```
/// use headless_lb::{Patroni, probe::{Tcp, authority}};
///
/// let probe = authority(Patroni::new()).confirm(Tcp::new());
/// # let _ = probe;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Tcp {}

impl Tcp {
    /// The probe.
    pub const fn new() -> Self {
        Self {}
    }
}

impl Probe for Tcp {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        let connected = TcpStream::connect(endpoint.addr()).await;
        connected.map_err(ProbeError::opening)?;
        Ok(Observation::of(Role::Unknown))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::Instant};

    use super::*;
    use crate::probe::ProbeFailure;

    #[tokio::test]
    async fn what_listens_is_alive_and_what_does_not_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new(listener.local_addr().unwrap().into(), Instant::now());
        let seen = Tcp::new().observe(&endpoint, &mut ()).await.unwrap();
        assert_eq!(seen, Observation::of(Role::Unknown));

        drop(listener);
        let error = Tcp::new().observe(&endpoint, &mut ()).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Refused);
        assert!(error.is_definitive());
    }
}
