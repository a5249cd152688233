//! Certificates made on the spot, and pods that have one.
#![expect(
    clippy::disallowed_methods,
    reason = "a pod is a task of its own, which is killed by aborting it"
)]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use headless_lb::rustls::{
    ClientConfig, RootCertStore, ServerConfig, crypto::ring, pki_types::PrivateKeyDer,
};
use http_body_util::Full;
use hyper::{Response, body::Bytes, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::Result;

/// A cluster's certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self(issuer))
    }

    /// What a client needs to know.
    pub(crate) fn trusted(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone())?;
        let provider = Arc::new(ring::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }

    /// A server that can prove to be `service`, and speaks these protocols.
    pub(crate) fn certify(&self, service: &str, alpn: &[&str]) -> Result<ServerConfig> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([service.to_owned()])?.signed_by(&key, &self.0)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())?;
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }
}

/// A pod that answers with its name, over TLS.
pub(crate) struct TlsPod {
    addr: SocketAddr,
    requests: Arc<AtomicU64>,
    server: JoinHandle<()>,
}

impl TlsPod {
    pub(crate) async fn start(name: &str, addr: SocketAddr, config: ServerConfig) -> Result<Self> {
        let listener = TcpListener::bind(addr).await?;
        let requests = Arc::new(AtomicU64::new(0));
        let server = serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            Bytes::from(name.to_owned()),
            Arc::clone(&requests),
        );
        Ok(Self {
            addr,
            requests,
            server: tokio::spawn(server),
        })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests came so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Ends with all its connections; the address is free for another.
    pub(crate) async fn kill(mut self) {
        self.server.abort();
        // Aborted is what it was told to be.
        let _ = (&mut self.server).await;
    }
}

impl Drop for TlsPod {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, tls: TlsAcceptor, name: Bytes, requests: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, name, requests) = (tls.clone(), name.clone(), Arc::clone(&requests));
        connections.spawn(async move {
            // Whether the client likes the certificate, and how it goes on, is the client's business.
            let Ok(stream) = tls.accept(stream).await else {
                return;
            };
            let service = service_fn(|_| {
                requests.fetch_add(1, Relaxed);
                let body = Full::new(name.clone());
                async { Ok::<_, Infallible>(Response::new(body)) }
            });
            let builder = auto::Builder::new(TokioExecutor::new());
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
