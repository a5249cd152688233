//! Servers that do not speak TLS, or nothing at all.

use std::future::Future;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{impostors::until_answered_by, *};

/// Serves each connection so, until it is aborted.
async fn stranger<F>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.4.9:0").await.expect("a port");
    let addr = listener.local_addr().expect("a bound socket");
    let accepting = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(serve(stream));
        }
    });
    (addr, accepting)
}

/// What the client says of such a server, and that a right one in its place serves at once.
async fn met<F>(
    settings: Http,
    authority: &Authority,
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> (HttpError, String)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (addr, accepting) = stranger(serve).await;
    let client = over([addr]).spawn_http_with(settings);
    let (error, text) = refusal(&client, "POST").await;
    has(&text, &[&SERVICE, &addr]);
    until_ejected(&client, addr).await;
    accepting.abort();
    // Aborted is what it was told to be.
    let _ = accepting.await;
    let right = authority.certify(SERVICE).server();
    let right = TlsPod::bind(&["h2", "http/1.1"], addr, right).await;
    until_answered_by(&client, addr).await;
    assert_eq!(right.failures(), [""; 0]);
    (error, text)
}

#[tokio::test]
async fn a_server_that_speaks_plain_http_or_garbage_is_refused() {
    let authority = Authority::new();
    let plain = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    for words in [&plain[..], &[0xff; 1000], b"\x16\x03\x03\x00\x05hello"] {
        for settings in [
            as_service(authority.client()),
            as_service(authority.client()).http1(),
        ] {
            let (error, text) = met(settings, &authority, move |mut stream| async move {
                let mut hello = [0; 16];
                let _ = stream.read(&mut hello).await;
                let _ = stream.write_all(words).await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            })
            .await;
            assert!(matches!(error, HttpError::Tls(_)), "{text}");
        }
    }
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_one_that_takes_no_connection() {
    let authority = Authority::new();
    let settings = as_service(authority.client());
    let (error, text) = met(settings, &authority, |stream| async move { drop(stream) }).await;
    assert!(matches!(error, HttpError::Connect(_)), "{text}");
}

#[tokio::test]
async fn the_connect_timeout_covers_a_server_that_is_silent() {
    let authority = Authority::new();
    let settings = as_service(authority.client()).connect_timeout(Duration::from_millis(100));
    let (error, text) = met(settings, &authority, |mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    assert!(matches!(error, HttpError::ConnectTimeout), "{text}");
}

#[tokio::test]
async fn beside_a_good_pod_a_silent_one_costs_patience_and_no_request() {
    let authority = Authority::new();
    let good = TlsPod::start([127, 0, 4, 1], authority.certify(SERVICE).server()).await;
    let (silent, accepting) = stranger(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let settings = as_service(authority.client()).connect_timeout(Duration::from_millis(100));
    let client = over([good.addr(), silent]).spawn_http_with(settings);
    for _ in 0..20 {
        assert_eq!(answer(&client, "POST").await.0, good.addr());
    }
    assert_eq!(good.requests().len(), 20);
    accepting.abort();
}

#[tokio::test]
async fn the_scheme_must_be_that_of_the_connections() {
    let authority = Authority::new();
    let pod = TlsPod::start([127, 0, 4, 1], authority.certify(SERVICE).server()).await;
    let open = over([pod.addr()]).spawn_http();
    let secured = over([pod.addr()]).spawn_http_with(as_service(authority.client()));
    for (client, scheme) in [(&open, "https"), (&secured, "http")] {
        let mut request = request("GET", "");
        *request.uri_mut() = format!("{scheme}://{SERVICE}/").parse().expect("a URI");
        let error = call(client, request).await.expect_err("the wrong scheme");
        assert!(error.is_unsent());
        let Error::Unsent { error, tried, .. } = &error else {
            panic!("{error}");
        };
        assert!(matches!(error, HttpError::UnsupportedScheme), "{error}");
        assert!(tried.is_empty(), "no pod is to blame");
    }
    assert_eq!(pod.connections(), 0);
    answer(&secured, "GET").await;
}
