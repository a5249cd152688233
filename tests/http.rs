//! The balanced HTTP client against pods on loopback.

#![expect(
    clippy::disallowed_methods,
    reason = "callers and pods are tasks of their own"
)]

mod support;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error as _,
    marker::PhantomPinned,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use headless_lb::{
    Balancer, Builder, Error, Fixed, HttpBody, HttpError, HttpPod, LeastRequest, Position,
    policy_fn,
};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, Version,
    body::{Body, Bytes, Frame},
};
use support::{
    pod::{Manner, Pod, SLOW},
    script::Script,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::{self, sleep, timeout},
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
    for (uri, reason) in [
        ("/no/host", "Host header"),
        ("https://web.default/", "only http://"),
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

/// Connections that fill the queue of a listener that accepts none of them: the next connect hangs.
async fn fill(addr: SocketAddr) -> Vec<TcpStream> {
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = timeout(Duration::from_millis(100), TcpStream::connect(addr)).await {
        queue.push(stream);
    }
    queue
}

fn short_queue() -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any = "127.0.1.98:0".parse().expect("an address");
    socket.bind(any).expect("a loopback port");
    socket.listen(1).expect("a loopback port")
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

#[tokio::test]
async fn a_burst_at_one_pod_fails_no_request() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for _ in 0..3 {
        let mut burst = JoinSet::new();
        for _ in 0..300 {
            let client = client.clone();
            burst.spawn(async move { answer(&client).await });
        }
        assert_eq!(burst.join_all().await.len(), 300);
    }
}

#[tokio::test]
async fn a_request_that_waits_takes_a_connection_that_becomes_free() {
    let listener = short_queue();
    let addr = listener.local_addr().expect("a bound socket");
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    let serving = tokio::spawn(async move {
        // One connection, and never another.
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let _queue = fill(addr).await;
        let mut requests = [0; 4096];
        while stream.read(&mut requests).await.is_ok_and(|read| read > 0) {
            sleep(SLOW).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.expect("a client");
        }
    });
    assert_eq!(read(get(&client, "/").await).await, "ok");
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        let client = client.clone();
        waiting.spawn(async move { read(get(&client, "/").await).await });
    }
    assert_eq!(waiting.join_all().await, ["ok"; 5]);
    serving.abort();
}

#[tokio::test]
async fn a_pod_that_hangs_is_set_aside_though_no_caller_waits_for_its_connect() {
    let pods = pods(1).await;
    let hangs = short_queue();
    let addr = hangs.local_addr().expect("a bound socket");
    let _queue = fill(addr).await;
    let client: Client = Balancer::builder(Fixed::new([addr, pods[0].addr()])).spawn_http();
    client.resolved().await.expect("a fixed list");
    let is_aside = || {
        let set = client.endpoints();
        let mut positions = set.positions();
        positions.any(|(position, pod)| position == Position::Ejected && pod.addr() == addr)
    };
    for _ in 0..2 {
        let get = client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""));
        // One of two goes to the pod that hangs, and its caller gives up.
        let _ = timeout(Duration::from_millis(100), get).await;
    }
    assert!(!is_aside());
    until("it is set aside", is_aside).await;
}

#[tokio::test]
async fn a_pod_that_closes_each_connection_at_once_is_set_aside() {
    let listener = short_queue();
    let addr = listener.local_addr().expect("a bound socket");
    let accepting = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    for _ in 0..20 {
        let error = call(&client, request("POST", "http://web.default/", "order"))
            .await
            .expect_err("no answer");
        if error.is_unsent() {
            until("it is set aside", || {
                let set = client.endpoints();
                set.positions()
                    .all(|(position, _)| position == Position::Ejected)
            })
            .await;
            break;
        }
    }
    accepting.abort();
}

#[test]
fn a_dial_that_ends_with_its_runtime_leaves_nobody_waiting() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().expect("a runtime")
    };
    let (first, second) = (runtime(), runtime());
    let (addr, client, _guard) = first.block_on(async {
        let hangs = short_queue();
        let addr = hangs.local_addr().expect("a bound socket");
        let queue = fill(addr).await;
        let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
        client.resolved().await.expect("a fixed list");
        (addr, client, (hangs, queue))
    });
    let get = || {
        client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""))
    };
    let gave_up = second.block_on(async { timeout(SLOW, get()).await });
    assert!(gave_up.is_err(), "{addr} hangs");
    drop(second);
    let error = first.block_on(async { timeout(PATIENCE, get()).await });
    let error = error.expect("an end").expect_err("no connection");
    assert!(
        error.to_string().contains("no answer to the connect"),
        "{error}"
    );
}

#[tokio::test]
async fn connects_that_fail_together_count_as_one_failure() {
    let addr = nobody().await;
    let client: Client = Balancer::builder(Fixed::new([addr])).spawn_http();
    client.resolved().await.expect("a fixed list");
    let mut burst = JoinSet::new();
    for _ in 0..20 {
        let get = client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""));
        burst.spawn(async move { get.await.expect_err("nobody is there").is_unsent() });
    }
    assert_eq!(burst.join_all().await, [true; 20]);
    // The first failure costs 100 ms, the twentieth in a row would cost 10 s.
    sleep(Duration::from_millis(500)).await;
    let set = client.endpoints();
    let position = set.positions().next().map(|(position, _)| position);
    assert_eq!(position, Some(Position::Unknown));
}

#[tokio::test]
async fn a_free_connection_does_not_end_the_back_off_of_a_pod_that_refuses() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    answer(&client).await;
    pods[0].refuse();
    sleep(SLOW).await;
    for _ in 0..6 {
        // The first takes the connection, so the second dials.
        let first = tokio::spawn({
            let client = client.clone();
            async move { get(&client, "/slow").await }
        });
        sleep(SLOW / 2).await;
        let second = client
            .clone()
            .oneshot(request("GET", "http://web.default/", ""));
        second.await.expect_err("no more connections");
        read(first.await.expect("no panic")).await;
    }
    // Six in a row: more than a second.
    sleep(Duration::from_millis(500)).await;
    answer(&client).await;
    let set = client.endpoints();
    let position = set.positions().next().map(|(position, _)| position);
    assert_eq!(position, Some(Position::Ejected));
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
async fn a_connection_serves_again_when_its_body_has_ended_however_it_ends() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for _ in 0..5 {
        read(get(&client, "/").await).await;
        read(get(&client, "/chunked").await).await;
        // Nobody asks for the end of these.
        let _nothing = get(&client, "/nothing").await;
        let _head = call(&client, request("HEAD", "http://web.default/", "")).await;
        let mut body = get(&client, "/").await.into_body();
        body.frame().await;
        assert!(body.is_end_stream());
        answer(&client).await;
    }
    assert_eq!(pods[0].connections(), 1);
}

#[tokio::test]
async fn a_connection_does_not_serve_again_when_its_body_was_dropped_or_it_was_upgraded() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for i in 1..=5 {
        drop(get(&client, "/endless").await);
        answer(&client).await;
        assert_eq!(pods[0].connections(), 2 * i);
        let upgraded = get(&client, "/upgrade").await;
        assert_eq!(pods[0].connections(), 2 * i);
        let _io = hyper::upgrade::on(upgraded).await.expect("an upgrade");
        answer(&client).await;
        assert_eq!(pods[0].connections(), 2 * i + 1);
    }
}

#[tokio::test]
async fn connections_that_nobody_used_for_a_while_are_not_used_again() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    for (idle, connections) in [(50, 1), (50, 1), (60, 2)] {
        answer(&client).await;
        time::pause();
        time::advance(Duration::from_secs(idle)).await;
        time::resume();
        answer(&client).await;
        assert_eq!(pods[0].connections(), connections, "after {idle} s");
    }
    until("the old one closes", || pods[0].open() == 1).await;
}

#[tokio::test]
async fn surplus_connections_grow_old_while_one_is_in_use() {
    let pods = pods(1).await;
    let client: Client = over(&pods).spawn_http();
    let mut burst = JoinSet::new();
    for _ in 0..150 {
        let client = client.clone();
        burst.spawn(async move { read(get(&client, "/slow").await).await });
    }
    burst.join_all().await;
    until("some are kept", || pods[0].open() <= 100).await;
    assert!(pods[0].open() > 30, "{}", pods[0].open());
    for _ in 0..3 {
        time::pause();
        time::advance(Duration::from_secs(30)).await;
        time::resume();
        answer(&client).await;
    }
    until("one is left", || pods[0].open() == 1).await;
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
    assert!(error.source().is_some());
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
    let client: Balancer<HttpPod<Pinned>> = over(&pods).spawn_http();
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
