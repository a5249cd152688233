//! The balanced HTTP client against pods on loopback.

#![expect(
    clippy::disallowed_methods,
    reason = "callers and pods are tasks of their own"
)]

#[path = "http/connections.rs"]
mod connections;
#[path = "http/draining.rs"]
mod draining;
mod support;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    marker::PhantomPinned,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use connections::short_queue;
use headless_lb::{
    Balancer, Builder, Error, Fixed, HttpBody, HttpError, HttpPod, LeastRequest, RoundRobin,
    policy_fn,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, Version,
    body::{Body, Bytes, Frame},
};
use support::pod::{Manner, Pod};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    time::{sleep, timeout},
};
use tower::ServiceExt;

type Client = Balancer<HttpPod>;

const PATIENCE: Duration = Duration::from_secs(10);

async fn pods(n: u8) -> Vec<Pod> {
    let mut pods = Vec::new();
    for i in 1..=n {
        pods.push(Pod::start([127, 0, 1, i], Manner::KeepsAlive).await);
    }
    pods
}

fn over(pods: &[Pod]) -> Builder {
    // In turn: what happens to which pod is then known.
    Balancer::builder(Fixed::new(pods.iter().map(Pod::addr))).policy(RoundRobin::new())
}

async fn call(
    client: &Client,
    request: Request<Full<Bytes>>,
) -> Result<Response<HttpBody>, Error<HttpError>> {
    timeout(PATIENCE, client.clone().oneshot(request))
        .await
        .expect("an answer in time")
}

fn request(method: &str, uri: &str, body: &str) -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(body.to_owned()));
    Request::builder()
        .method(method)
        .uri(uri)
        .body(body)
        .expect("a valid request")
}

async fn read(response: Response<HttpBody>) -> Bytes {
    let body = response.into_body().collect().await;
    body.expect("a whole body").to_bytes()
}

async fn get(client: &Client, path: &str) -> Response<HttpBody> {
    call(
        client,
        request("GET", &format!("http://web.default{path}"), ""),
    )
    .await
    .expect("an answer")
}

fn pending(client: &Client) -> u32 {
    client.endpoints().iter().map(|pod| pod.pending()).sum()
}

/// Who answered.
async fn answer(client: &Client) -> SocketAddr {
    let response = call(client, request("GET", "http://web.default/", ""))
        .await
        .expect("an answer");
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a whole body")
        .to_bytes();
    String::from_utf8_lossy(&body).parse().expect("an address")
}

/// A loopback address that nobody listens on.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.1.99:0")
        .await
        .expect("a loopback port");
    listener
        .local_addr()
        .expect("a bound socket has an address")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("in vain: {what}");
}

#[tokio::test]
async fn every_pod_gets_its_share_over_one_connection_that_is_kept() {
    let pods = pods(3).await;
    let client: Client = over(&pods).spawn_http();
    let mut shares = BTreeMap::<SocketAddr, usize>::new();
    for _ in 0..60 {
        *shares.entry(answer(&client).await).or_default() += 1;
    }
    assert!(
        pods.iter().all(|pod| shares[&pod.addr()] == 20),
        "{shares:?}"
    );
    assert!(
        pods.iter().all(|pod| pod.connections() == 1),
        "one request at a time needs one connection"
    );
}

#[tokio::test]
async fn the_server_sees_host_and_path_of_the_uri_and_only_the_pod_is_dialled() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    // Port 9 of the URI is no pod's: it belongs to the Host header alone.
    call(
        &client,
        request("GET", "http://web.default:9/items/1?x=y", ""),
    )
    .await
    .expect("an answer");
    let seen = pods[0].requests().remove(0);
    assert!(seen.starts_with("GET /items/1?x=y HTTP/1.1\r\n"), "{seen}");
    assert!(
        seen.to_ascii_lowercase()
            .contains("\r\nhost: web.default:9\r\n"),
        "{seen}"
    );
}

#[tokio::test]
async fn a_refused_connect_costs_no_request_and_the_body_arrives_once_and_whole() {
    let pods = pods(1).await;
    let addresses = [nobody().await, nobody().await, pods[0].addr()];
    let client: Client = Balancer::builder(Fixed::new(addresses)).spawn_http();
    for i in 0..30 {
        let body = format!("order {i} {}", "x".repeat(50_000));
        call(&client, request("POST", "http://web.default/orders", &body))
            .await
            .expect("an answer");
        let seen = pods[0].requests();
        assert_eq!(seen.len(), i + 1);
        assert!(seen[i].ends_with(&body));
    }
}

#[tokio::test]
async fn when_all_refuse_the_error_names_the_service_and_each_pod() {
    let addresses = [nobody().await, nobody().await];
    let client: Client = Balancer::builder(Fixed::new(addresses))
        .service_name("web.default")
        .spawn_http();
    let error = call(&client, request("POST", "http://web.default/", "order"))
        .await
        .expect_err("nobody is there");
    assert!(error.is_unsent());
    let text = error.to_string();
    for part in [
        "web.default",
        &addresses[0].to_string(),
        &addresses[1].to_string(),
        "refused",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn a_killed_pod_costs_no_unsent_request() {
    for _ in 0..20 {
        let mut pods = pods(3).await;
        let client: Client = over(&pods).spawn_http();
        for _ in 0..6 {
            answer(&client).await;
        }
        // Its kept connections break now, and its port closes.
        drop(pods.remove(0));
        for _ in 0..12 {
            match call(&client, request("POST", "http://web.default/", "order")).await {
                Ok(_) => {}
                // Written before the break was seen: the pod may have had it, so it is not repeated.
                Err(Error::Service {
                    error: HttpError::Request(_),
                    ..
                }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let received: usize = pods.iter().map(|pod| pod.requests().len()).sum();
        assert!(
            received >= 4 + 11,
            "at most one of the twelve was on the wire"
        );
    }
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_refused_with_its_reason_and_poisons_nothing() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    answer(&client).await;
    for (uri, reason) in [
        ("/no/host", "Host header"),
        ("https://web.default/", "scheme"),
    ] {
        let error = call(&client, request("GET", uri, ""))
            .await
            .expect_err("nothing to send");
        assert!(error.is_unsent());
        // No pod is to blame, and none is named.
        assert!(
            matches!(&error, Error::Unsent { tried, .. } if tried.is_empty()),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(reason) && !text.contains("endpoints"),
            "{text}"
        );
    }
    answer(&client).await;
    assert_eq!(
        pods[0].connections(),
        1,
        "the connection stayed in the pool"
    );
}

#[tokio::test]
async fn a_certain_pod_can_be_called_alone() {
    let pods = pods(3).await;
    let named: Vec<_> = pods
        .iter()
        .zip(0..)
        .map(|(pod, i)| headless_lb::Address::from(pod.addr()).named(format!("web-{i}")))
        .collect();
    let client: Client = Balancer::builder(Fixed::new(named)).spawn_http();
    client.resolved().await.expect("a fixed list");
    for _ in 0..3 {
        let (pod, _in_flight) = client.pod("web-1").expect("web-1 is there").into_parts();
        let response = pod
            .into_service()
            .oneshot(request("GET", "http://web.default/", ""))
            .await
            .expect("an answer");
        response.into_body().collect().await.expect("a whole body");
    }
    assert_eq!(
        pods.iter()
            .map(|pod| pod.requests().len())
            .collect::<Vec<_>>(),
        [0, 3, 0]
    );
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_body_has_ended_or_is_dropped() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for path in ["/", "/chunked"] {
        let response = get(&client, path).await;
        assert_eq!(pending(&client), 1);
        let mut body = response.into_body();
        while body.frame().await.is_some() {}
        assert_eq!(pending(&client), 0, "{path} has ended");
        drop(body);
    }
    let endless = get(&client, "/endless").await;
    assert_eq!(pending(&client), 1);
    drop(endless);
    assert_eq!(pending(&client), 0, "dropped half read");
    // There is no body to wait for.
    let nothing = get(&client, "/nothing").await;
    assert_eq!(pending(&client), 0);
    let head = call(&client, request("HEAD", "http://web.default/", "")).await;
    assert_eq!(pending(&client), 0);
    drop((nothing, head));
}

#[tokio::test]
async fn least_request_leaves_the_pod_alone_that_still_streams() {
    let pods = pods(2).await;
    let client: Client = over(&pods).policy(LeastRequest::new()).spawn_http();
    let endless = get(&client, "/endless").await;
    let busy = usize::from(pods[0].requests().is_empty());
    for _ in 0..20 {
        answer(&client).await;
    }
    assert_eq!(pods[busy].requests().len(), 1);
    drop(endless);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_picks_no_pod() {
    let pods = pods(1).await;
    let picks_none = policy_fn(|_| panic!("nothing to pick for"));
    let client: Client = over(&pods).policy(picks_none).spawn_http();
    call(&client, request("GET", "/no/host", ""))
        .await
        .expect_err("no host");
}

#[tokio::test]
async fn a_request_of_another_version_goes_out_as_1_1() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let mut request = request("GET", "http://web.default/", "");
        *request.version_mut() = version;
        call(&client, request).await.expect("an answer");
    }
    let requests = pods[0].requests();
    assert!(
        requests
            .iter()
            .all(|seen| seen.starts_with("GET / HTTP/1.1\r\n"))
    );
}

#[tokio::test]
async fn an_error_tells_its_whole_cause_in_one_line() {
    let listener = short_queue();
    let addr = listener.local_addr().expect("a bound socket");
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_u8().await.expect("a request");
        // Closed with the rest of it unread: a reset.
        drop(stream);
    });
    let error = call(&client, request("GET", "http://web.default/", ""))
        .await
        .expect_err("a reset");
    assert!(!error.is_unsent(), "{error}");
    let text = error.to_string().to_ascii_lowercase();
    assert!(
        text.contains("connection error: connection reset"),
        "{text}"
    );
}

/// A request body that must not move.
struct Pinned(PhantomPinned);

impl Body for Pinned {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

#[tokio::test]
async fn a_request_body_need_not_be_unpin_and_services_of_one_pod_are_cloned_and_shown() {
    let pods = pods(1).await;
    let client: Balancer<HttpPod> = over(&pods).spawn_http();
    let request = || {
        Request::post("http://web.default/")
            .body(Pinned(PhantomPinned))
            .expect("a valid request")
    };
    client.clone().oneshot(request()).await.expect("an answer");
    let (pod, _in_flight) = client.pick().expect("a pod").into_parts();
    let service = pod.into_service();
    assert!(format!("{service:?}").contains(&pods[0].addr().to_string()));
    service.clone().oneshot(request()).await.expect("an answer");
}
