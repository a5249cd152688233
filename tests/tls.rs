//! TLS to pods on loopback: who may answer, by which protocol, and what becomes of the others' requests.

#![expect(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "servers are tasks of their own; nothing is reachable from outside a test"
)]

#[path = "tls/alerts.rs"]
mod alerts;
#[path = "support/authority.rs"]
mod authority;
#[path = "tls/impostors.rs"]
mod impostors;
#[path = "tls/strangers.rs"]
mod strangers;
#[path = "support/tls_pod.rs"]
mod tls_pod;

use std::{fmt::Display, net::SocketAddr, time::Duration};

use authority::{Authority, VERSIONS};
use headless_lb::{
    Address, Balancer, Builder, Error, Fixed, Http, HttpBody, HttpError, HttpPod, Position,
    RoundRobin, Tls,
    rustls::{
        ClientConfig, ServerConfig, SupportedProtocolVersion,
        version::{TLS12, TLS13},
    },
};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, Version, body::Bytes};
use tls_pod::TlsPod;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

type Client = Balancer<HttpPod>;

/// The service, as its certificates and its clients have it.
const SERVICE: &str = "web.default.svc";

const PATIENCE: Duration = Duration::from_secs(10);

fn over<A: Into<Address>>(pods: impl IntoIterator<Item = A>) -> Builder {
    Balancer::builder(Fixed::new(pods))
        .service_name(SERVICE)
        .policy(RoundRobin::new())
}

/// Every pod must be the service.
fn as_service(config: ClientConfig) -> Http {
    Http::new().tls(Tls::service(config, SERVICE).expect("a name"))
}

fn request(method: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let uri = format!("https://{SERVICE}/items");
    let request = Request::builder().method(method).uri(uri);
    request
        .body(Full::new(body.into()))
        .expect("a valid request")
}

async fn call(
    client: &Client,
    request: Request<Full<Bytes>>,
) -> Result<Response<HttpBody>, Error<HttpError>> {
    timeout(PATIENCE, client.clone().oneshot(request))
        .await
        .expect("an end in time")
}

/// Who answered, and over which protocol.
async fn answer(client: &Client, method: &str) -> (SocketAddr, Version) {
    let response = call(client, request(method, "order"))
        .await
        .expect("an answer");
    let version = response.version();
    let body = response.into_body().collect().await.expect("a whole body");
    let addr = str::from_utf8(&body.to_bytes()).map(str::parse);
    (addr.expect("text").expect("an address"), version)
}

/// Why nobody took the request, which nobody has seen.
async fn refusal(client: &Client, method: &str) -> (HttpError, String) {
    match call(client, request(method, "order")).await {
        Err(error @ Error::Unsent { .. }) => {
            let text = error.to_string();
            let Error::Unsent { error, .. } = error else {
                unreachable!("it was this one");
            };
            (error, text)
        }
        other => panic!("not unsent: {other:?}"),
    }
}

fn has(text: &str, parts: &[&dyn Display]) {
    for part in parts.iter().map(ToString::to_string) {
        assert!(text.contains(&part), "{part} in: {text}");
    }
}

fn is_ejected(client: &Client, pod: SocketAddr) -> bool {
    let set = client.endpoints();
    set.positions()
        .any(|(position, one)| position == Position::Ejected && one.addr() == pod)
}

/// Calls until the pod is set aside, which the driver does in its own time.
async fn until_ejected(client: &Client, pod: SocketAddr) {
    for _ in 0..200 {
        let _ = call(client, request("GET", "")).await;
        if is_ejected(client, pod) {
            has(&client.to_string(), &[&"refused"]);
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("never ejected:\n{client}");
}

#[tokio::test]
async fn alpn_decides_the_protocol_and_the_server_sees_the_service_and_never_an_address() {
    let authority = Authority::new();
    let identity = authority.certify(SERVICE);
    let usual = as_service(authority.client());
    let (http1, http2) = (usual.clone().http1(), usual.clone().http2());
    for (settings, offer, version) in [
        (&usual, &["h2", "http/1.1"][..], Version::HTTP_2),
        (&usual, &["http/1.1"], Version::HTTP_11),
        (&usual, &["h2"], Version::HTTP_2),
        (&usual, &[], Version::HTTP_11),
        (&http2, &["h2", "http/1.1"], Version::HTTP_2),
        (&http1, &["h2", "http/1.1"], Version::HTTP_11),
        (&http1, &[], Version::HTTP_11),
    ] {
        let pod = TlsPod::offering(offer, [127, 0, 4, 1], identity.server()).await;
        let client = over([pod.addr()]).spawn_http_with(settings.clone());
        for method in ["GET", "POST", "GET"] {
            assert_eq!(answer(&client, method).await, (pod.addr(), version));
        }
        let seen = pod.requests();
        let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
        assert_eq!(methods, ["GET", "POST", "GET"]);
        for seen in seen {
            assert_eq!((seen.version, seen.host.as_str()), (version, SERVICE));
        }
        // One connection carried them all.
        assert_eq!(pod.names(), [Some(SERVICE.to_owned())], "{offer:?}");
    }
}

#[tokio::test]
async fn pods_share_the_load_over_either_protocol() {
    let authority = Authority::new();
    let identity = authority.certify(SERVICE);
    for offer in [&["h2"][..], &["http/1.1"]] {
        let mut pods = Vec::new();
        for host in 1..=3 {
            pods.push(TlsPod::offering(offer, [127, 0, 4, host], identity.server()).await);
        }
        let client =
            over(pods.iter().map(TlsPod::addr)).spawn_http_with(as_service(authority.client()));
        for _ in 0..30 {
            answer(&client, "GET").await;
        }
        for pod in &pods {
            assert_eq!((pod.requests().len(), pod.connections()), (10, 1));
        }
    }
}

#[tokio::test]
async fn a_pod_without_a_protocol_in_common_is_refused_and_the_error_says_so() {
    let authority = Authority::new();
    let identity = authority.certify(SERVICE);
    let usual = as_service(authority.client());
    for (settings, offer, is_http2) in [
        (usual.clone().http2(), &["http/1.1"][..], true),
        // It takes the connection, and speaks HTTP/1.1 on it.
        (usual.clone().http2(), &[], true),
        (usual.http1(), &["h2"], false),
    ] {
        let pod = TlsPod::offering(offer, [127, 0, 4, 1], identity.server()).await;
        let client = over([pod.addr()]).spawn_http_with(settings);
        let (error, text) = refusal(&client, "POST").await;
        match is_http2 {
            true => assert!(matches!(error, HttpError::NotHttp2(_)), "{text}"),
            false => {
                assert!(matches!(error, HttpError::Tls(_)), "{text}");
                has(&text, &[&"NoApplicationProtocol"]);
            }
        }
        has(&text, &[&SERVICE, &pod.addr()]);
        assert!(pod.requests().is_empty());
        until_ejected(&client, pod.addr()).await;
    }
}

/// What a server that wants certificates makes of a client.
struct Wanted {
    client: ClientConfig,
    /// What the client hears, if it is turned down.
    alert: Option<&'static str>,
}

fn wanted(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
) -> (ServerConfig, [Wanted; 4]) {
    let server = authority.server_wanting(&authority.certify(SERVICE), &[version]);
    let of = |client, alert| Wanted { client, alert };
    let right = authority.certify("caller");
    let foreign = Authority::new().certify("caller");
    let expired = authority.certify_expired("caller");
    let clients = [
        of(authority.client_as(&right, VERSIONS), None),
        of(authority.client(), Some("CertificateRequired")),
        of(authority.client_as(&foreign, VERSIONS), Some("UnknownCA")),
        of(
            authority.client_as(&expired, VERSIONS),
            Some("CertificateExpired"),
        ),
    ];
    (server, clients)
}

#[tokio::test]
async fn a_client_that_the_pod_turns_down_knows_that_its_request_was_not_seen() {
    for version in [&TLS12, &TLS13] {
        for offer in [&["h2"][..], &["http/1.1"]] {
            let authority = Authority::new();
            let (server, clients) = wanted(&authority, version);
            for Wanted { client, alert } in clients {
                let pod = TlsPod::offering(offer, [127, 0, 4, 1], server.clone()).await;
                let client = over([pod.addr()]).spawn_http_with(as_service(client));
                let Some(alert) = alert else {
                    answer(&client, "POST").await;
                    continue;
                };
                for method in ["GET", "POST", "POST", "GET"] {
                    let (error, text) = refusal(&client, method).await;
                    assert!(matches!(error, HttpError::Tls(_)), "{version:?}: {text}");
                    has(&text, &[&SERVICE, &pod.addr(), &alert]);
                }
                assert!(pod.requests().is_empty());
                assert_eq!(pod.failures().len(), pod.connections());
                until_ejected(&client, pod.addr()).await;
            }
        }
    }
}

#[tokio::test]
async fn a_request_that_a_pod_turned_down_with_its_client_goes_to_another() {
    for version in [&TLS12, &TLS13] {
        for is_http2 in [true, false] {
            let authority = Authority::new();
            let (server, [_, clients @ ..]) = wanted(&authority, version);
            for Wanted { client, .. } in clients {
                let settings = as_service(client);
                let (settings, offer) = match is_http2 {
                    true => (settings, ["h2"]),
                    // Said, not found out: a POST is kept all the same, to be sent again.
                    false => (settings.http1(), ["http/1.1"]),
                };
                let strict = TlsPod::offering(&offer, [127, 0, 4, 1], server.clone()).await;
                let lax = authority.certify(SERVICE).server();
                let lax = TlsPod::offering(&offer, [127, 0, 4, 2], lax).await;
                let client = over([strict.addr(), lax.addr()]).spawn_http_with(settings);
                for i in 1..=20 {
                    assert_eq!(answer(&client, "POST").await.0, lax.addr());
                    assert_eq!(lax.requests().len(), i, "each arrives once");
                }
                assert!(strict.requests().is_empty());
                let tried = strict.connections();
                assert!((1..=6).contains(&tried), "it is set aside: {tried}");
            }
        }
    }
}

/// The refusal comes while the body is being written, or when the pod has closed already.
#[tokio::test]
async fn an_upload_that_is_turned_down_half_way_was_not_seen_either() {
    let authority = Authority::new();
    let (server, [_, missing, ..]) = wanted(&authority, &TLS13);
    let pod = TlsPod::offering(&["http/1.1"], [127, 0, 4, 1], server).await;
    let client = over([pod.addr()]).spawn_http_with(as_service(missing.client));
    for i in 0..40 {
        let body = vec![7; 1024 * (i * i + 1)];
        let error = call(&client, request("POST", body)).await;
        let error = error.expect_err("no certificate");
        assert!(error.is_unsent(), "{} kB: {error}", i * i + 1);
        has(&error.to_string(), &[&"CertificateRequired"]);
    }
    assert!(pod.requests().is_empty());
}
