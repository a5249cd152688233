//! Who a pod must prove to be.

use std::{io, sync::Arc};

use tokio_rustls::rustls::{
    ClientConfig,
    pki_types::{InvalidDnsNameError, ServerName},
};

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
#[must_use = "give it to Http::tls, or to a probe"]
pub struct Tls {
    pub(crate) config: Arc<ClientConfig>,
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

    /// What the pod must prove to be.
    ///
    /// # Errors
    ///
    /// If that is its own name, and discovery told none.
    pub(crate) fn name_of(&self, endpoint: &Endpoint) -> io::Result<ServerName<'static>> {
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
