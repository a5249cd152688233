//! The role by the status of an HTTP reply.

use std::borrow::Cow;

use super::{Observation, Probe, ProbeError, ProbeFailure, Role};
use crate::endpoint::Endpoint;

mod health;
mod page;
mod reply;

pub use health::HttpHealth;
pub(super) use page::Page;
#[cfg(test)]
pub(super) use page::tests::Peer;

/// Asks each pod for a page: status 200 says primary, 503 says replica.
///
/// So answer the health checks that load balancers ask: a sidecar that runs a script, an agent, your own
/// handler. For Patroni use [`Patroni`](crate::Patroni), whose page says more than its status. Not where 503
/// means that the node is of no use, as with a cluster whose nodes all take writes: it would be read from.
///
/// Each question is an HTTP/1.0 request on a connection of its own, once a second. The reply's head may have
/// 16 KiB; any other status is an error that names it. No failure is definitive, not even a refused
/// connection: the page's server may be down while the database beside it works.
///
/// ```
/// use headless_lb::probe::HttpStatus;
///
/// let probe = HttpStatus::new("/is-writer", 9200);
/// # let _ = probe;
/// ```
#[derive(Clone, Debug)]
pub struct HttpStatus {
    page: Page,
}

impl HttpStatus {
    /// Asks for this path, at this port of the endpoint's address. A path that does not begin with `/`, or has a
    /// space or control character, fails each time.
    pub fn new(path: impl Into<Cow<'static, str>>, port: u16) -> Self {
        Self {
            page: Page::new(path, port),
        }
    }

    /// Asks over TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    #[must_use]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.page.secured(tls);
        self
    }
}

impl Probe for HttpStatus {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        match self.page.load(endpoint).await?.status {
            200 => Ok(Observation::of(Role::Primary)),
            503 => Ok(Observation::of(Role::Replica)),
            status => Err(unexpected(status)),
        }
    }
}

/// The error for a status that says nothing of roles.
pub(super) fn unexpected(status: u16) -> ProbeError {
    let failure = match status {
        401 | 403 => ProbeFailure::Auth,
        _ => ProbeFailure::Other,
    };
    ProbeError::new(failure, format!("HTTP status {status}"))
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[tokio::test]
    async fn the_status_is_the_role_and_another_status_an_error_that_names_it() {
        let peer = Peer::bind().await;
        let probe = HttpStatus::new("/primary", peer.port);
        let seen = peer.answer(&probe, "HTTP/1.0 200 OK\r\n\r\n").await;
        assert_eq!(seen.unwrap(), Observation::of(Role::Primary));
        let seen = peer.answer(&probe, "HTTP/1.0 503 No\r\n\r\nbody").await;
        assert_eq!(seen.unwrap(), Observation::of(Role::Replica));

        for (status, failure) in [
            (404, ProbeFailure::Other),
            (500, ProbeFailure::Other),
            (204, ProbeFailure::Other),
            (401, ProbeFailure::Auth),
            (403, ProbeFailure::Auth),
        ] {
            let text = format!("HTTP/1.0 {status} x\r\n\r\n");
            let error = peer.answer(&probe, &text).await.unwrap_err();
            assert_eq!((error.failure(), error.is_definitive()), (failure, false));
            let source = error.source().unwrap().to_string();
            assert!(source.contains(&status.to_string()), "{source}");
        }
    }

    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn http2_is_not_offered_by_a_configuration_that_has_it() {
        let peer = Peer::bind().await;
        let probe = HttpStatus::new("/", peer.port).tls(tls());
        let mut session = ();
        let seen = probe.observe(&peer.endpoint, &mut session);
        let (_, heard) = tokio::join!(seen, peer.hang_up(b""));
        assert!(!heard.windows(3).any(|offer| offer == b"\x02h2"));
    }

    #[cfg(feature = "tls")]
    fn tls() -> crate::Tls {
        use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
        let provider = std::sync::Arc::new(ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        crate::Tls::service(config, "db.example").unwrap()
    }

    /// A credential that is wrong says nothing of the node; a server that breaks off may be dying.
    #[cfg(feature = "tls")]
    #[tokio::test]
    async fn a_handshake_that_breaks_off_is_no_refusal_of_credentials() {
        let peer = Peer::bind().await;
        let probe = HttpStatus::new("/", peer.port).tls(tls());
        for (said, failure) in [
            (&b""[..], ProbeFailure::Closed),
            (b"HTTP/1.0 400 Bad Request\r\n\r\n", ProbeFailure::Tls),
        ] {
            let mut session = ();
            let seen = probe.observe(&peer.endpoint, &mut session);
            let (seen, _) = tokio::join!(seen, peer.hang_up(said));
            let error = seen.unwrap_err();
            assert_eq!((error.failure(), error.is_definitive()), (failure, false));
        }
    }
}
