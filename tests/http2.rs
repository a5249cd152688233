//! The balanced HTTP client over HTTP/2, against pods on loopback.

#![expect(
    clippy::disallowed_methods,
    reason = "callers and pods are tasks of their own"
)]

#[path = "http2/bad_input.rs"]
mod bad_input;
#[path = "http2/frames.rs"]
mod frames;
#[path = "http2/goodbyes.rs"]
mod goodbyes;
#[path = "http2/lives.rs"]
mod lives;
#[path = "http2/losses.rs"]
mod losses;
#[path = "http2/pod.rs"]
mod pod;
#[path = "http2/refusals.rs"]
mod refusals;
#[path = "http2/streams.rs"]
mod streams;
mod support;
#[path = "http2/tunnels.rs"]
mod tunnels;

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use headless_lb::{
    Balancer, Builder, Error, Fixed, Http, HttpBody, HttpError, HttpPod, RoundRobin,
};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Request, Response, Version,
    body::{Body, Bytes, Frame},
    header,
};
use pod::{Pod, trailers};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{sleep, timeout},
};
use tower::ServiceExt;

type Client = Balancer<HttpPod>;
type Answer = Result<Response<HttpBody>, Error<HttpError>>;

const PATIENCE: Duration = Duration::from_secs(20);

async fn pods<const N: usize>() -> [Pod; N] {
    let mut pods = Vec::new();
    for i in 1..=N {
        pods.push(Pod::start([127, 0, 3, i as u8]).await);
    }
    pods.try_into().unwrap_or_else(|_| unreachable!("N pods"))
}

fn over(pods: impl IntoIterator<Item = SocketAddr>) -> Builder {
    // In turn: what happens to which pod is then known.
    Balancer::builder(Fixed::new(pods))
        .service_name("web.default")
        .policy(RoundRobin::new())
}

/// HTTP/2 to these pods.
fn client(pods: impl IntoIterator<Item = SocketAddr>) -> Client {
    over(pods).spawn_http_with(Http::new().http2())
}

fn all(pods: &[Pod]) -> impl Iterator<Item = SocketAddr> {
    pods.iter().map(Pod::addr)
}

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://web.default{path}"))
        .body(Full::new(Bytes::from(body.to_owned())))
        .expect("a valid request")
}

async fn call<B>(client: &Client, request: Request<B>) -> Answer
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    timeout(PATIENCE, client.clone().oneshot(request))
        .await
        .expect("an answer in time")
}

async fn read(response: Response<HttpBody>) -> String {
    let body = timeout(PATIENCE, response.into_body().collect()).await;
    let body = body.expect("in time").expect("a whole body").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

async fn get(client: &Client, path: &str) -> String {
    read(
        call(client, request("GET", path, ""))
            .await
            .expect("an answer"),
    )
    .await
}

/// Sends an order, and reads the answer.
async fn post(client: &Client, path: &str, body: &str) -> Result<String, Error<HttpError>> {
    Ok(read(call(client, request("POST", path, body)).await?).await)
}

/// A call in a task of its own.
fn posting(
    client: &Client,
    path: &'static str,
    body: &str,
) -> JoinHandle<Result<String, Error<HttpError>>> {
    let (client, body) = (client.clone(), body.to_owned());
    tokio::spawn(async move { post(&client, path, &body).await })
}

/// So many POSTs at once.
fn burst(
    client: &Client,
    n: usize,
    path: &'static str,
) -> JoinSet<Result<String, Error<HttpError>>> {
    let mut burst = JoinSet::new();
    for i in 0..n {
        let client = client.clone();
        burst.spawn(async move { post(&client, path, &format!("order {i}")).await });
    }
    burst
}

/// Waits for all of them; how many each pod answered.
async fn shares(burst: JoinSet<Result<String, Error<HttpError>>>) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for answer in timeout(PATIENCE, burst.join_all()).await.expect("in time") {
        *shares.entry(answer.expect("an answer")).or_default() += 1;
    }
    shares
}

fn pending(client: &Client) -> u32 {
    client.endpoints().iter().map(|pod| pod.pending()).sum()
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
async fn by_prior_knowledge_bodies_and_trailers_pass_both_ways() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    let response = call(&client, request("GET", "/", ""))
        .await
        .expect("an answer");
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(read(response).await, pod.addr().to_string());

    let frames = [
        Frame::data(Bytes::from("one ")),
        Frame::data("two".into()),
        Frame::trailers(trailers()),
    ];
    let body = StreamBody::new(futures_util::stream::iter(
        frames.map(Ok::<_, std::io::Error>),
    ));
    let post = Request::post("http://web.default/echo")
        .body(body)
        .expect("a valid request");
    let answer = call(&client, post).await.expect("an answer");
    let answer = answer.into_body().collect().await.expect("a whole body");
    assert_eq!(answer.trailers(), Some(&trailers()));
    assert_eq!(answer.to_bytes(), "one two");
    assert_eq!(pod.connections(), 1);
}

#[tokio::test]
async fn every_pod_gets_its_share_over_one_connection() {
    let pods = pods::<3>().await;
    let client = client(all(&pods));
    for _ in 0..60 {
        get(&client, "/").await;
    }
    for pod in &pods {
        assert_eq!((pod.requests().len(), pod.connections()), (20, 1));
    }
}

#[tokio::test]
async fn authority_and_scheme_are_those_of_the_uri_and_there_is_no_host_header() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    let own = Request::get("http://web.default:9/items/1?x=y");
    let as_header = Request::get("/items/1?x=y").header(header::HOST, "web.default:9");
    for request in [own, as_header] {
        let request = request
            .body(Full::<Bytes>::default())
            .expect("a valid request");
        read(call(&client, request).await.expect("an answer")).await;
        let (seen, _) = pod.requests().pop().expect("a request");
        assert_eq!(seen.uri, "http://web.default:9/items/1?x=y");
        assert_eq!(seen.version, Version::HTTP_2);
        assert!(
            !seen.headers.contains_key(header::HOST),
            "{:?}",
            seen.headers
        );
    }
}

#[tokio::test]
async fn headers_of_the_connection_stay_behind_and_te_trailers_passes() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    let mut request = request("GET", "/", "");
    for (name, value) in [
        (header::TE, "trailers"),
        (header::CONNECTION, "keep-alive, x-hop"),
        (header::TRANSFER_ENCODING, "chunked"),
        (header::UPGRADE, "websocket"),
    ] {
        request
            .headers_mut()
            .insert(name, value.parse().expect("a header value"));
    }
    request
        .headers_mut()
        .insert("x-hop", "1".parse().expect("a header value"));
    request
        .headers_mut()
        .insert("x-end", "1".parse().expect("a header value"));
    read(call(&client, request).await.expect("an answer")).await;
    let (seen, _) = pod.requests().pop().expect("a request");
    let mut names: Vec<&str> = seen
        .headers
        .keys()
        .map(header::HeaderName::as_str)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["te", "x-end"]);
}

#[tokio::test]
async fn a_request_is_in_flight_until_its_body_has_ended_or_is_dropped() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    let response = call(&client, request("GET", "/stream", ""))
        .await
        .expect("an answer");
    let mut body = response.into_body();
    body.frame().await.expect("a piece").expect("a whole piece");
    assert_eq!(pending(&client), 1);
    pod.release();
    while body.frame().await.is_some() {}
    assert_eq!(pending(&client), 0);
    drop(body);

    let endless = call(&client, request("GET", "/endless", ""))
        .await
        .expect("an answer");
    assert_eq!(pending(&client), 1);
    drop(endless);
    assert_eq!(pending(&client), 0);
    let head = call(&client, request("HEAD", "/", "")).await;
    assert_eq!(pending(&client), 0);
    drop(head);
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_poisons_nothing() {
    let [pod] = pods().await;
    let client = client([pod.addr()]);
    get(&client, "/").await;
    for (request, reason) in [
        (Request::get("/no/host"), "no host"),
        (
            Request::get("/").header(header::HOST, "we b"),
            "no valid host",
        ),
        (Request::get("https://web.default/"), "scheme"),
    ] {
        let request = request.body(Full::<Bytes>::default()).expect("a request");
        let error = call(&client, request).await.expect_err(reason);
        assert!(error.is_unsent(), "{reason}: {error}");
        assert!(error.to_string().contains("web.default"), "{error}");
    }
    get(&client, "/").await;
    assert_eq!((pod.connections(), pending(&client)), (1, 0));
}
