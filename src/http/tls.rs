//! Who a pod must prove to be.

use std::{io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, AlertDescription, ClientConfig,
        pki_types::{InvalidDnsNameError, ServerName},
    },
};

use super::{config::Protocol, error::ConnectError, secured::Secured};
use crate::endpoint::Endpoint;

/// TLS to the pods: whom to trust, and which name a pod must prove.
///
/// The name is the service's, or the pod's own; never the address, which serves another pod tomorrow. A pod
/// that cannot prove it gets no request and is set aside: an address that was re-used by another service
/// cannot receive what was meant for yours. Nor is a pod used that does not take the client's certificate: the
/// request goes on to another, also where the pod says so late (TLS 1.3).
///
/// Trust, client certificates and cryptography are those of the [`ClientConfig`] you bring; its ALPN protocols
/// are set by [`Http`](crate::Http).
///
/// ```
/// use headless_lb::{Http, Tls, rustls::{ClientConfig, RootCertStore, crypto::ring}};
/// use std::sync::Arc;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let roots = RootCertStore::empty(); // and add your cluster's authority
/// let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
///     .with_safe_default_protocol_versions()?
///     .with_root_certificates(roots)
///     .with_no_client_auth();
/// let settings = Http::new().tls(Tls::service(config, "catalog.shop.svc.cluster.local")?);
/// # let _ = settings;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "give it to Http::tls"]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: Name,
}

#[derive(Clone, Debug)]
enum Name {
    Service(ServerName<'static>),
    /// `<pod>.` in front of it.
    PodOf(Arc<str>),
}

impl Tls {
    /// Every pod must prove to be `name`: the service, as its certificate has it. It is also what SNI says.
    ///
    /// # Errors
    ///
    /// If `name` is no DNS name and no address.
    pub fn service(
        config: impl Into<Arc<ClientConfig>>,
        name: impl Into<String>,
    ) -> Result<Self, InvalidDnsNameError> {
        Ok(Self {
            config: config.into(),
            name: Name::Service(ServerName::try_from(name.into())?),
        })
    }

    /// Each pod must prove its own name, `<pod>.<domain>`: `db-0.db.prod.svc.cluster.local` for the pod `db-0`
    /// and the domain `db.prod.svc.cluster.local`. The pods' names come from SRV records, so use
    /// [`Dns::srv`](crate::Dns::srv); a pod without one fails to connect.
    ///
    /// # Errors
    ///
    /// If `domain` cannot follow a pod's name.
    pub fn pod(
        config: impl Into<Arc<ClientConfig>>,
        domain: impl Into<Arc<str>>,
    ) -> Result<Self, InvalidDnsNameError> {
        let domain = domain.into();
        ServerName::try_from(format!("pod.{domain}"))?;
        Ok(Self {
            config: config.into(),
            name: Name::PodOf(domain),
        })
    }

    /// Says in ALPN what may be spoken.
    pub(super) fn offering(mut self, protocol: Protocol) -> Self {
        let offer: &[&[u8]] = match protocol {
            #[cfg(feature = "http2")]
            Protocol::Usual => &[b"h2", b"http/1.1"],
            #[cfg(feature = "http2")]
            Protocol::Http2 => &[b"h2"],
            #[cfg(not(feature = "http2"))]
            Protocol::Usual => &[b"http/1.1"],
            Protocol::Http1 => &[b"http/1.1"],
        };
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = offer.iter().map(|name| name.to_vec()).collect();
        self
    }

    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        stream: TcpStream,
    ) -> Result<Secured, ConnectError> {
        let name = self
            .name_of(endpoint)
            .map_err(|error| ConnectError::Tls(Arc::new(error)))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connected = connector.connect(name, stream).await;
        connected.map(Secured::new).map_err(|error| self.why(error))
    }

    /// What the end of a handshake says of the pod.
    fn why(&self, error: io::Error) -> ConnectError {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
        match cause {
            Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))
                if !self.offers(b"http/1.1") =>
            {
                ConnectError::NotHttp2(Arc::new(error))
            }
            Some(_) => ConnectError::Tls(Arc::new(error)),
            // It broke off, which says nothing of who the pod is.
            None => ConnectError::io(error),
        }
    }

    fn offers(&self, protocol: &[u8]) -> bool {
        let offer = &self.config.alpn_protocols;
        offer.iter().any(|offered| offered == protocol)
    }

    fn name_of(&self, endpoint: &Endpoint) -> io::Result<ServerName<'static>> {
        match &self.name {
            Name::Service(name) => Ok(name.clone()),
            Name::PodOf(domain) => {
                let pod = endpoint.name().ok_or_else(|| {
                    io::Error::new(
                        io::ErrorKind::InvalidInput,
                        "the pod's name is to be proved, and discovery told none (SRV records do)",
                    )
                })?;
                ServerName::try_from(format!("{pod}.{domain}")).map_err(io::Error::other)
            }
        }
    }
}
