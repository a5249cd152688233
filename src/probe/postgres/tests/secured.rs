//! How TLS is asked for, and what follows when there is none.

use tokio::{net::TcpListener, time::Instant};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::*;
use crate::{
    endpoint::Endpoint,
    probe::{Probe, ProbeFailure},
    tls::Tls,
};

fn tls() -> Tls {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Tls::service(config, "db.example").unwrap()
}

/// What becomes of a probe whose request for TLS is answered so; and what it said after the request.
async fn answered(answer: &[u8]) -> (ProbeError, Vec<u8>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let endpoint = Endpoint::new(address.into(), Instant::now());
    let probe = probe().cleartext().tls(tls());
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!(request, *b"\0\0\0\x08\x04\xd2\x16\x2f");
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        // It may end by a reset.
        let _ = stream.read_to_end(&mut rest).await;
        rest
    };
    let (opened, rest) = tokio::join!(probe.open(&endpoint), server);
    (opened.err().unwrap(), rest)
}

#[tokio::test]
async fn nothing_is_said_in_clear_to_a_server_without_tls() {
    let error = b"E\0\0\0\x08oops".as_slice();
    for (answer, failure) in [
        (b"N".as_slice(), ProbeFailure::Tls),
        (error, ProbeFailure::Tls),
        (b"", ProbeFailure::Closed),
    ] {
        let (error, rest) = answered(answer).await;
        assert_eq!(error.failure(), failure, "{answer:?}");
        assert!(rest.is_empty(), "{rest:?}");
    }
}

#[tokio::test]
async fn what_is_said_in_clear_after_the_consent_does_not_pass_as_said_under_tls() {
    let (error, rest) = answered(&[b"S", &primary()[..]].concat()).await;
    assert_eq!(error.failure(), ProbeFailure::Tls, "{error:?}");
    assert!(!rest.windows(5).any(|window| window == b"probe"));
}
