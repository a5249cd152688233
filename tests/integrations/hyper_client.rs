//! hyper-util's client, which the program has already, under the balancer.

use std::{error::Error as StdError, fmt, net::SocketAddr};

use headless_lb::{
    Balancer, Builder, Cause, ClientError, ClientPod, Counted, Error, Fixed, LeastRequest,
    Position, RoundRobin, policy_fn,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONNECTION, UPGRADE},
};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
    time::timeout,
};
use tower::{Layer, ServiceBuilder, ServiceExt};

use super::{Nobody, PATIENCE, nobody, over, pending, pods, shares, until};

type Own = Client<HttpConnector, Full<Bytes>>;
type Balanced = Balancer<ClientPod<Own>>;

fn own() -> Own {
    Client::builder(TokioExecutor::new()).build_http()
}

fn balanced(builder: Builder) -> Balanced {
    builder.client_layer().layer(own())
}

fn request(method: Method, uri: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(uri)
        .body(Full::from(body))
        .expect("a valid request")
}

async fn call(
    client: &Balanced,
    request: Request<Full<Bytes>>,
) -> Result<Response<Counted<Incoming>>, Error<ClientError>> {
    timeout(PATIENCE, client.clone().oneshot(request))
        .await
        .expect("an answer in time")
}

/// Who answered a request without a body.
async fn answer(client: &Balanced) -> SocketAddr {
    let request = request(Method::GET, "http://web.default/", "");
    let response = call(client, request).await.expect("an answer");
    let body = response.into_body().collect().await;
    let body = body.expect("a whole body").to_bytes();
    String::from_utf8_lossy(&body).parse().expect("an address")
}

fn ejected(client: &Balanced) -> Vec<SocketAddr> {
    let set = client.endpoints();
    let ejected = set
        .positions()
        .filter(|(position, _)| *position == Position::Ejected);
    ejected.map(|(_, pod)| pod.addr()).collect()
}

#[tokio::test]
async fn every_request_is_balanced_and_the_client_keeps_one_connection_to_each_pod() {
    let pods = pods(3).await;
    let client = balanced(over(&pods));
    for _ in 0..30 {
        answer(&client).await;
    }
    assert_eq!(shares(&pods), [10, 10, 10]);
    assert!(pods.iter().all(|pod| pod.connections() == 1));
}

#[tokio::test]
async fn the_pod_sees_the_path_and_the_host_that_the_caller_wrote() {
    let pods = pods(1).await;
    let client = balanced(over(&pods));
    let plain = request(Method::GET, "http://web.default:9/items/1?x=y", "");
    call(&client, plain).await.expect("an answer");
    let mut named = request(Method::GET, "http://web.default/", "");
    named
        .headers_mut()
        .insert("host", "shop.example".parse().expect("a host"));
    call(&client, named).await.expect("an answer");
    let seen = pods[0].requests();
    assert!(seen[0].starts_with("GET /items/1?x=y HTTP/1.1\r\n"));
    assert!(seen[0].contains("\r\nhost: web.default:9\r\n"), "{seen:?}");
    assert!(seen[1].contains("\r\nhost: shop.example\r\n"), "{seen:?}");
}

#[tokio::test]
async fn a_request_without_a_body_goes_to_another_pod_when_one_refuses_and_that_one_is_set_aside() {
    let pods = pods(1).await;
    let refusing = [nobody(), nobody()];
    let addresses = [refusing[0].addr(), refusing[1].addr(), pods[0].addr()];
    let client = balanced(Balancer::builder(Fixed::new(addresses)).policy(RoundRobin::new()));
    let mut was_ejected = false;
    for _ in 0..30 {
        assert_eq!(answer(&client).await, pods[0].addr());
        was_ejected |= !ejected(&client).is_empty();
    }
    assert!(was_ejected);
    assert!(!ejected(&client).contains(&pods[0].addr()));
}

#[tokio::test]
async fn a_request_with_a_body_that_is_refused_fails_as_unsent_and_names_the_one_pod_that_was_tried()
 {
    let pods = pods(1).await;
    let nobody = nobody();
    let refusing = nobody.addr();
    let source = Fixed::new([refusing, pods[0].addr()]);
    let refusing_first = policy_fn(move |candidates| {
        let place = candidates.iter().position(|pod| pod.addr() == refusing);
        candidates.choose(place.unwrap_or(0))
    });
    let client = balanced(Balancer::builder(source).policy(refusing_first));
    let order = || request(Method::POST, "http://web.default/", "order");
    let error = call(&client, order()).await.expect_err("it is lost");
    assert!(error.is_unsent(), "{error}");
    let Error::Unsent { tried, error, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(
        tried.iter().map(|pod| pod.addr()).collect::<Vec<_>>(),
        [refusing]
    );
    assert!(matches!(error, ClientError::Connect(_)));
    assert!(error.to_string().contains("refused"), "{error}");
    assert_eq!(shares(&pods), [0]);
    // So the caller may send it again, and that pod is set aside.
    until("the refusal is known", || ejected(&client) == [refusing]).await;
    call(&client, order()).await.expect("an answer");
    assert_eq!(shares(&pods), [1]);
}

#[tokio::test]
async fn a_connection_that_breaks_within_the_request_is_no_refusal_and_nothing_is_sent_twice() {
    let listener = TcpListener::bind("127.0.2.98:0").await.expect("a port");
    let breaking = listener.local_addr().expect("a bound socket");
    let pods = pods(1).await;
    let breaking_first = policy_fn(move |candidates| {
        let place = candidates.iter().position(|pod| pod.addr() == breaking);
        candidates.choose(place.unwrap_or(0))
    });
    let source = Fixed::new([breaking, pods[0].addr()]);
    let client = balanced(Balancer::builder(source).policy(breaking_first));
    let breaks = async {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        stream.read_u8().await.expect("a request");
    };
    let get = request(Method::GET, "http://web.default/", "");
    let (error, ()) = tokio::join!(call(&client, get), breaks);
    let error = error.expect_err("broken off");
    assert!(!error.is_unsent(), "{error}");
    assert!(
        matches!(&error, Error::Service { endpoint, error: ClientError::Client(_), .. }
        if endpoint.addr() == breaking)
    );
    assert_eq!(shares(&pods), [0]);
    assert!(ejected(&client).is_empty());
}

/// What a layer of the caller's makes of the client's errors.
#[derive(Debug)]
struct Around(legacy::Error);

impl fmt::Display for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a layer around it")
    }
}

impl StdError for Around {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0)
    }
}

#[tokio::test]
async fn a_refused_connect_is_known_within_the_errors_of_layers_around_the_client() {
    let refusing = [nobody(), nobody()];
    let addresses = refusing.each_ref().map(Nobody::addr);
    let client = ServiceBuilder::new()
        .layer(Balancer::builder(Fixed::new(addresses)).client_layer())
        .timeout(PATIENCE)
        .map_err(Around)
        .service(own());
    let get = request(Method::GET, "http://web.default/", "");
    let error = client.oneshot(get).await.expect_err("nobody is there");
    let Error::Unsent { tried, error, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(tried.len(), 2);
    let ClientError::Connect(cause) = &error else {
        panic!("{error}");
    };
    assert!(cause.is::<Around>());
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_picks_no_pod_and_says_why() {
    let pods = pods(1).await;
    let picks_none = policy_fn(|_| panic!("nothing to pick for"));
    let client = balanced(over(&pods).policy(picks_none));
    for (method, uri, reason) in [
        (Method::GET, "/no/host", "Host header"),
        (Method::GET, "https://web.default/", "only http://"),
        (Method::CONNECT, "web.default:80", "CONNECT"),
    ] {
        let error = call(&client, request(method, uri, ""))
            .await
            .expect_err("nothing to send");
        assert!(matches!(&error, Error::Unsent { tried, .. } if tried.is_empty()));
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_body_has_ended_or_is_dropped() {
    let pods = pods(1).await;
    let client = balanced(over(&pods));
    let get = |path| call(&client, request(Method::GET, path, ""));
    // Of a known length, of an unknown one: the first ends with its last byte.
    for (url, after_the_first_frame) in [("http://web/", 0), ("http://web/chunked", 1)] {
        let mut body = get(url).await.expect("an answer").into_body();
        assert_eq!(pending(&client), 1);
        body.frame().await.expect("the answer").expect("all of it");
        assert_eq!(pending(&client), after_the_first_frame, "{url}");
        while body.frame().await.is_some() {}
        assert_eq!(pending(&client), 0, "{url} has ended");
    }
    let endless = get("http://web/endless").await.expect("a head");
    assert_eq!(pending(&client), 1);
    drop(endless);
    assert_eq!(pending(&client), 0, "dropped half read");
    let endless = get("http://web/endless").await.expect("a head");
    let mut broken = endless.into_body();
    let nothing = get("http://web/nothing").await.expect("an answer");
    assert_eq!(pending(&client), 1, "there is no body to wait for");
    drop(pods);
    while broken.frame().await.expect("an error").is_ok() {
        assert_eq!(pending(&client), 1);
    }
    assert_eq!(pending(&client), 0, "broken off");
    drop((nothing, broken));
}

#[tokio::test]
async fn least_request_leaves_the_pod_alone_that_still_streams() {
    let pods = pods(2).await;
    let client = balanced(over(&pods).policy(LeastRequest::new()));
    let endless = request(Method::GET, "http://web/endless", "");
    let endless = call(&client, endless).await.expect("a head");
    let busy = usize::from(pods[0].requests().is_empty());
    for _ in 0..20 {
        answer(&client).await;
    }
    assert_eq!(shares(&pods)[busy], 1);
    drop(endless);
}

#[tokio::test]
async fn an_upgrade_passes_through_and_does_not_count() {
    let pods = pods(1).await;
    let client = balanced(over(&pods));
    let mut asking = request(Method::GET, "http://web/upgrade", "");
    let headers = asking.headers_mut();
    headers.insert(CONNECTION, "upgrade".parse().expect("a value"));
    headers.insert(UPGRADE, "echo".parse().expect("a value"));
    let response = call(&client, asking).await.expect("an answer");
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = hyper::upgrade::on(response).await;
    let _stream = TokioIo::new(upgraded.expect("a stream of our own"));
    assert_eq!(pending(&client), 0);
}

#[tokio::test]
async fn what_becomes_of_a_request_is_told_to_its_endpoint() {
    // One answer for each connection, which ends with it.
    let answers = [
        "HTTP/1.1 200 so\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 503 so\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 so\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 so\r\ncontent-length: 100\r\n\r\nhalf",
        "",
    ];
    let listener = TcpListener::bind("127.0.3.77:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let mut pod = JoinSet::new();
    pod.spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut seen = [0; 4096];
            let read = stream.read(&mut seen).await.expect("a request");
            assert!(read > 0, "a request");
            stream.write_all(answer.as_bytes()).await.expect("a reader");
        }
    });
    let builder = Balancer::builder(Fixed::new([addr]));
    let layer = builder
        .client_layer()
        .classify(|answer| match answer.status().as_u16() {
            404 => Cause::Status(404).into(),
            _ => answer.outcome(),
        });
    // A connection for each: none that ends is met by the next request.
    let own: Own = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build_http();
    let client = layer.layer(own);
    client.resolved().await.expect("a pod");
    let set = client.endpoints();
    let endpoint = set.iter().next().expect("a pod");
    for expected in [
        (1, 0, 0, None),
        (1, 1, 1, Some(Cause::Status(503))),
        (1, 2, 2, Some(Cause::Status(404))),
        (2, 3, 1, Some(Cause::Reset)),
        (2, 4, 2, Some(Cause::Reset)),
    ] {
        let request = request(Method::POST, "http://web.default/", "order");
        if let Ok(response) = call(&client, request).await {
            let _ = response.into_body().collect().await;
        }
        let left = (endpoint.succeeded(), endpoint.failed(), endpoint.streak());
        assert_eq!((left.0, left.1, left.2, endpoint.last_failure()), expected);
    }
}

#[tokio::test]
async fn a_connect_that_fails_tells_its_cause() {
    let nobody = nobody();
    let client = balanced(Balancer::builder(Fixed::new([nobody.addr()])));
    client.resolved().await.expect("a pod");
    let set = client.endpoints();
    let endpoint = set.iter().next().expect("a pod");
    let request = request(Method::GET, "http://web.default/", "");
    assert!(call(&client, request).await.is_err());
    assert_eq!(endpoint.last_failure(), Some(Cause::Refused));
    assert_eq!((endpoint.succeeded(), endpoint.failed()), (0, 0));
}
