//! A certificate authority of the test's own, and what it certifies.
#![allow(dead_code, reason = "every test file uses another part")]

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use headless_lb::rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion,
    WantsVerifier,
    client::WantsClientCert,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};

/// Both that rustls speaks.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Debug)]
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// Both, as files have them.
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Authority {
    /// Another one each time, with a name of its own.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let mut params = CertificateParams::default();
        let name = format!("authority {}", NEXT.fetch_add(1, Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// For a pod, or a client, of this name.
    pub fn certify(&self, name: &str) -> Identity {
        self.issue(&CertificateParams::new([name.to_owned()]).expect("a name"))
    }

    /// The same, but it was good until the end of 2020 only.
    pub fn certify_expired(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2020, 12, 31);
        self.issue(&params)
    }

    fn issue(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der().try_into().expect("PKCS #8"),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate");
        Arc::new(roots)
    }

    /// A client that trusts this authority.
    pub fn client(&self) -> ClientConfig {
        self.trusting(VERSIONS).with_no_client_auth()
    }

    /// A client that has a certificate itself.
    pub fn client_as(
        &self,
        identity: &Identity,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        self.trusting(versions)
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())
            .expect("a key that fits")
    }

    fn trusting(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ConfigBuilder<ClientConfig, WantsClientCert> {
        ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions that ring has")
            .with_root_certificates(self.roots())
    }

    /// A server that wants a certificate of this authority from its clients.
    pub fn server_wanting(
        &self,
        identity: &Identity,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ServerConfig {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots(), provider())
            .build()
            .expect("an authority");
        server(versions)
            .with_client_cert_verifier(verifier)
            .with_single_cert(identity.chain.clone(), identity.key.clone_key())
            .expect("a key that fits")
    }
}

impl Identity {
    /// A server with this certificate.
    pub fn server(&self) -> ServerConfig {
        server(VERSIONS)
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .expect("a key that fits")
    }
}

fn server(
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ServerConfig, WantsVerifier> {
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .expect("versions that ring has")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
