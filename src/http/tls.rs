//! TLS to the pods, as HTTP speaks it: ALPN, and what the end of a handshake means.

use std::{io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{self, AlertDescription},
};

use super::{config::Protocol, error::ConnectError, secured::Secured};
use crate::{endpoint::Endpoint, tls::Tls};

impl Tls {
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
}
