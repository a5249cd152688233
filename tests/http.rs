//! The balanced HTTP client against pods on loopback.

mod support;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use headless_lb::{Balancer, Builder, Error, Fixed, HttpError, HttpPod};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use support::{
    pod::{Manner, Pod},
    script::Script,
};
use tokio::{
    net::TcpListener,
    time::{sleep, timeout},
};
use tower::ServiceExt;

type Client = Balancer<HttpPod<Full<Bytes>>>;

const PATIENCE: Duration = Duration::from_secs(10);

async fn pods(n: u8) -> Vec<Pod> {
    let mut pods = Vec::new();
    for i in 1..=n {
        pods.push(Pod::start([127, 0, 1, i], Manner::KeepsAlive).await);
    }
    pods
}

fn over(pods: &[Pod]) -> Builder {
    Balancer::builder(Fixed::new(pods.iter().map(Pod::addr)))
}

async fn call(
    client: &Client,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error<HttpError>> {
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
async fn a_pod_that_closes_idle_connections_is_dialled_again() {
    let pod = Pod::start([127, 0, 1, 1], Manner::ClosesUnannounced).await;
    let client: Client = Balancer::builder(Fixed::new([pod.addr()])).spawn_http();
    for i in 1..=20 {
        answer(&client).await;
        until("the pod closes", || pod.open() == 0).await;
        // The close has arrived here too, or arrives between checkout and write: both are covered.
        sleep(Duration::from_millis(5)).await;
        assert_eq!(pod.connections(), i);
    }
}

#[tokio::test]
async fn a_connection_is_free_again_when_the_body_was_read_and_not_before() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    let first = call(&client, request("GET", "http://web.default/", ""))
        .await
        .expect("an answer");
    let second = call(&client, request("GET", "http://web.default/", ""))
        .await
        .expect("an answer");
    for response in [first, second] {
        response.into_body().collect().await.expect("a whole body");
    }
    let connections = pods[0].connections();
    assert!(connections <= 2);
    for _ in 0..10 {
        answer(&client).await;
    }
    assert_eq!(pods[0].connections(), connections);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_refused_with_its_reason_and_poisons_nothing() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    answer(&client).await;
    let error = call(&client, request("GET", "/no/host", ""))
        .await
        .expect_err("no host");
    assert!(
        matches!(
            error,
            Error::Service {
                error: HttpError::MissingHost,
                ..
            }
        ),
        "{error}"
    );
    let error = call(&client, request("GET", "https://web.default/", ""))
        .await
        .expect_err("no TLS here");
    assert!(
        matches!(
            error,
            Error::Service {
                error: HttpError::UnsupportedScheme,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains(&pods[0].addr().to_string()),
        "{error}"
    );
    answer(&client).await;
    assert_eq!(
        pods[0].connections(),
        1,
        "the connections went back to the pool"
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
async fn connections_to_a_removed_pod_close_when_it_has_lingered_though_a_clone_sits_idle() {
    let pods = pods(2).await;
    let both: headless_lb::Resolution = pods.iter().map(Pod::addr).collect();
    let script = Script::new(Ok(both));
    let client: Client = Balancer::builder(script.clone())
        .min_interval(Duration::from_millis(10))
        .refresh_interval(Duration::from_millis(20))
        .linger(Duration::from_millis(300))
        .spawn_http();
    let idle = client.clone();
    for _ in 0..4 {
        answer(&client).await;
    }
    script.say(Ok([pods[0].addr()].into_iter().collect()));
    until("the set shrinks", || client.endpoints().len() == 1).await;
    assert_eq!(pods[1].open(), 1, "it lingers");
    until("its connection closes", || pods[1].open() == 0).await;
    assert_eq!(pods[0].open(), 1);
    drop(client);
    assert_eq!(pods[0].open(), 1);
    drop(idle);
    until("the last handle closes the rest", || pods[0].open() == 0).await;
}
