//! No request is lost, and none is received twice that must not be: pods break off at every byte, fall silent,
//! or are only slow.

#![expect(
    clippy::disallowed_methods,
    reason = "callers and pods are tasks of their own"
)]

#[path = "lost/moments.rs"]
mod moments;
#[path = "lost/pod.rs"]
mod pod;
#[path = "lost/repeats.rs"]
mod repeats;
#[path = "lost/silence.rs"]
mod silence;
#[path = "lost/slow.rs"]
mod slow;
#[cfg(feature = "http2")]
#[path = "lost/streams.rs"]
mod streams;
mod support;

use std::{net::SocketAddr, time::Duration};

use futures_util::stream;
use headless_lb::{
    Balancer, Error, Fixed, Http, HttpBody, HttpError, HttpPod, Policy, Position, RoundRobin,
    policy_fn,
};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::{
    Request, Response,
    body::{Body, Bytes, Frame},
    header::CONTENT_LENGTH,
};
use pod::Pod;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

type Client = Balancer<HttpPod>;
type Outcome = Result<Response<HttpBody>, Error<HttpError>>;

/// No request takes this long, whatever its pods do.
const PATIENCE: Duration = Duration::from_secs(20);

fn client(addresses: impl IntoIterator<Item = SocketAddr>) -> Client {
    client_with(addresses, Http::new())
}

fn client_with(addresses: impl IntoIterator<Item = SocketAddr>, settings: Http) -> Client {
    Balancer::builder(Fixed::new(addresses))
        .policy(RoundRobin::new())
        .spawn_http_with(settings)
}

/// Where it is known which pod comes first: that with the lowest address that is left.
fn in_order() -> impl Policy {
    policy_fn(|candidates| {
        let places = 0..candidates.len();
        let first = places.min_by_key(|&place| candidates.get(place).map(|pod| pod.addr()))?;
        candidates.choose(first)
    })
}

fn client_in_order(addresses: impl IntoIterator<Item = SocketAddr>, settings: Http) -> Client {
    Balancer::builder(Fixed::new(addresses))
        .policy(RoundRobin::new())
        .policy(in_order())
        .spawn_http_with(settings)
}

fn request(method: &str, id: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(format!("http://web.default/{id}"))
        .body(Full::new(body.into()))
        .expect("a valid request")
}

async fn send<B>(client: &Client, request: Request<B>) -> Outcome
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    timeout(PATIENCE, client.clone().oneshot(request))
        .await
        .expect("an end in time")
}

/// A request of which the body is still being made while it is sent.
fn streamed(
    method: &str,
    id: &str,
    body: Bytes,
    piece: usize,
    says_length: bool,
) -> Request<impl Body<Data = Bytes, Error = std::convert::Infallible> + Send + 'static> {
    let (pieces, mut receive) = mpsc::channel(1);
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://web.default/{id}"));
    if says_length {
        request = request.header(CONTENT_LENGTH, body.len());
    }
    tokio::spawn(async move {
        for start in (0..body.len()).step_by(piece) {
            let end = body.len().min(start + piece);
            // Whoever should have it is gone.
            if pieces.send(body.slice(start..end)).await.is_err() {
                return;
            }
        }
    });
    let frames = stream::poll_fn(move |cx| {
        let piece = receive.poll_recv(cx);
        piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    });
    request
        .body(StreamBody::new(frames))
        .expect("a valid request")
}

/// Who answered.
async fn read(response: Response<HttpBody>) -> Result<SocketAddr, HttpError> {
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    Ok(text.parse().expect("an address"))
}

async fn get(client: &Client, id: &str) -> SocketAddr {
    let response = send(client, request("GET", id, "")).await;
    read(response.expect("an answer"))
        .await
        .expect("a whole body")
}

/// Until the client knows how long answers take, and every pod has connections. How long the slowest took.
async fn warm_up(client: &Client) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..25 {
        let begun = Instant::now();
        let eight = (0..8).map(|_| get(client, "warm"));
        futures_util::future::join_all(eight).await;
        slowest = slowest.max(begun.elapsed());
    }
    slowest
}

fn is_aside(client: &Client, pod: &Pod) -> bool {
    let set = client.endpoints();
    let mut positions = set.positions();
    positions.any(|(position, one)| position == Position::Ejected && one.addr() == pod.addr())
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
