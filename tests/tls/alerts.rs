//! What an alert in place of a response proves, and what it does not.

use std::sync::Arc;

use headless_lb::rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    crypto::cipher::{OutboundChunks, OutboundPlainMessage},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;

/// A pod that answers some requests of a connection, reads one more, and says this alert instead of an answer.
async fn pod(authority: &Authority, answers: usize, alert: AlertDescription) -> SocketAddr {
    let mut config = authority.certify(SERVICE).server();
    config.enable_secret_extraction = true;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.4.8:0").await.expect("a port");
    let addr = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = acceptor.accept(stream).await.expect("a handshake");
            for _ in 0..answers {
                read_request(&mut stream).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.expect("a client");
                stream.flush().await.expect("a client");
            }
            // Nothing is left unread, so that nothing but the alert ends the connection.
            read_request(&mut stream).await;
            end_with(stream, alert).await;
        }
    });
    addr
}

async fn read_request(stream: &mut TlsStream<TcpStream>) {
    let mut request = Vec::new();
    while !request.ends_with(b"order") {
        let read = stream.read_buf(&mut request).await;
        assert!(read.expect("a request") > 0);
    }
}

/// rustls says only what it means, so this takes its keys and speaks for it.
async fn end_with(stream: TlsStream<TcpStream>, alert: AlertDescription) {
    let (mut stream, connection) = stream.into_inner();
    let suite = connection.negotiated_cipher_suite();
    let Some(SupportedCipherSuite::Tls13(suite)) = suite else {
        panic!("not TLS 1.3: {suite:?}");
    };
    let secrets = connection.dangerous_extract_secrets().expect("allowed");
    let (sequence, ConnectionTrafficSecrets::Aes256Gcm { key, iv }) = secrets.tx else {
        panic!("not what ring prefers");
    };
    // Level "fatal", then which one (RFC 8446, 6).
    let payload = [2, u8::from(alert)];
    let message = OutboundPlainMessage {
        typ: ContentType::Alert,
        version: ProtocolVersion::TLSv1_2,
        payload: OutboundChunks::Single(&payload),
    };
    let mut encrypter = suite.aead_alg.encrypter(key, iv);
    let record = encrypter.encrypt(message, sequence).expect("a record");
    stream.write_all(&record.encode()).await.expect("a client");
}

#[tokio::test]
async fn an_alert_proves_a_request_unseen_only_if_it_ends_the_handshake_and_comes_first() {
    let authority = Authority::new();
    for (answers, alert, is_unsent) in [
        (0, AlertDescription::BadCertificate, true),
        (0, AlertDescription::AccessDenied, true),
        // It may have come to this by the request itself.
        (0, AlertDescription::InternalError, false),
        (0, AlertDescription::UserCanceled, false),
        // The handshake was over.
        (1, AlertDescription::AccessDenied, false),
        (2, AlertDescription::CertificateRevoked, false),
    ] {
        let addr = pod(&authority, answers, alert).await;
        let settings = as_service(authority.client()).http1();
        let client = over([addr]).spawn_http_with(settings);
        for _ in 0..answers {
            let response = call(&client, request("POST", "order")).await;
            let body = response.expect("an answer").into_body().collect().await;
            assert_eq!(body.expect("a whole body").to_bytes(), "ok");
        }
        let error = call(&client, request("POST", "order")).await;
        let error = error.expect_err("an alert");
        assert_eq!(error.is_unsent(), is_unsent, "{answers}: {error}");
        has(
            &error.to_string(),
            &[&SERVICE, &addr, &format!("{alert:?}")],
        );
    }
}
