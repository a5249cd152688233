//! Certificates, made on the spot.

use std::{fs, sync::Arc};

use headless_lb::rustls::{ClientConfig, RootCertStore, crypto::ring};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::Result;

/// Whose they are.
pub(crate) const NAME: &str = "redis.prod.svc.cluster.local";

/// An authority, and a certificate for `NAME` in a folder.
pub(crate) struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Certificates {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let authority = CertifiedIssuer::self_signed(params, key)?;
        let key = KeyPair::generate()?;
        let params = CertificateParams::new([NAME.to_owned()])?;
        let certificate = params.signed_by(&key, &authority)?;
        let folder = TempDir::with_prefix("headless-lb-certificates-")?;
        let write = |file, text| fs::write(folder.path().join(file), text);
        write("ca.pem", authority.pem())?;
        write("server.pem", certificate.pem())?;
        write("server.key", key.serialize_pem())?;
        Ok(Self { authority, folder })
    }

    pub(crate) fn options(&self, port: u16) -> String {
        let folder = self.folder.path().display();
        format!(
            "--tls-port {port} --tls-cert-file {folder}/server.pem --tls-key-file {folder}/server.key \
             --tls-ca-cert-file {folder}/ca.pem --tls-auth-clients no"
        )
    }

    pub(crate) fn trusted(&self) -> Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone())?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        Ok(config
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}
