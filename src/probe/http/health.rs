//! Whether a pod is well, by the status of an HTTP reply.

use std::{borrow::Cow, ops::RangeInclusive};

use super::{Page, unexpected};
use crate::{
    endpoint::Endpoint,
    probe::{Observation, Probe, ProbeError, Role},
};

/// The kubelet takes any status from 200 on that is below 400 (Kubernetes, "Configure Probes": HTTP probes).
const HEALTHY: RangeInclusive<u16> = 200..=399;

/// Asks each pod for a page at its own port: one whose status is 200 to 399 is well, of [`Role::Unknown`].
///
/// The question of a health check ([`Check::http`](crate::Check::http)); for roles there is
/// [`HttpStatus`](super::HttpStatus). Each is an HTTP/1.1 `GET` on a connection of its own, as the kubelet's, so it sees
/// what a new client would see. The reply's head may have 16 KiB; its body is not read, and a redirect is not
/// followed. The `Host` is the pod's address.
///
/// ```
/// use headless_lb::probe::HttpHealth;
///
/// let probe = HttpHealth::new("/healthz");
/// # let _ = probe;
/// ```
#[derive(Clone, Debug)]
pub struct HttpHealth {
    page: Page,
    healthy: RangeInclusive<u16>,
}

impl HttpHealth {
    /// Asks for this path. One that does not begin with `/`, or has a space or control character, fails each time.
    pub fn new(path: impl Into<Cow<'static, str>>) -> Self {
        Self {
            page: Page::new(path, None),
            healthy: HEALTHY,
        }
    }

    /// Which statuses say that the pod is well. Default 200 to 399.
    #[must_use]
    pub fn status(mut self, healthy: RangeInclusive<u16>) -> Self {
        self.healthy = healthy;
        self
    }

    /// Asks at this port of the endpoint's address. Default: the endpoint's own.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.page.port = Some(port);
        self
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

impl Probe for HttpHealth {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        let status = self.page.status(endpoint).await?;
        match self.healthy.contains(&status) {
            true => Ok(Observation::of(Role::Unknown)),
            false => Err(unexpected(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use tokio::time::Instant;

    use super::{super::Peer, *};

    #[tokio::test]
    async fn a_status_below_400_is_healthy_and_another_an_error_that_names_it() {
        let peer = Peer::bind().await;
        let probe = HttpHealth::new("/healthz").port(peer.port);
        for status in [200, 204, 302, 399] {
            let text = format!("HTTP/1.1 {status} x\r\nTransfer-Encoding: chunked\r\n\r\n");
            let seen = peer.answer(&probe, &text).await.unwrap();
            assert_eq!(seen, Observation::of(Role::Unknown), "{status}");
        }
        for status in [400, 404, 500, 503] {
            let text = format!("HTTP/1.1 {status} x\r\n\r\n");
            let error = peer.answer(&probe, &text).await.unwrap_err();
            let source = error.source().unwrap().to_string();
            assert!(source.contains(&status.to_string()), "{source}");
        }
    }

    #[tokio::test]
    async fn the_statuses_that_are_healthy_can_be_chosen() {
        let peer = Peer::bind().await;
        let probe = HttpHealth::new("/").port(peer.port).status(503..=503);
        assert!(peer.answer(&probe, "HTTP/1.1 503 x\r\n\r\n").await.is_ok());
        assert!(peer.answer(&probe, "HTTP/1.1 200 x\r\n\r\n").await.is_err());
    }

    #[tokio::test]
    async fn the_endpoints_own_port_is_asked_by_http_1_1() {
        let peer = Peer::bind().await;
        let own = std::net::SocketAddr::from(([127, 0, 0, 1], peer.port));
        let endpoint = Endpoint::new(own.into(), Instant::now());
        let probe = HttpHealth::new("/healthz?full");
        let mut session = ();
        let seen = probe.observe(&endpoint, &mut session);
        let (seen, request) = tokio::join!(seen, peer.serve(&[b"HTTP/1.1 200 OK\r\n\r\n"]));
        assert!(seen.is_ok(), "{seen:?}");
        assert!(
            request.starts_with("GET /healthz?full HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains(&format!("\r\nHost: {own}\r\n")),
            "{request}"
        );
    }
}
