//! What each way that a request can go leaves on its endpoint, over HTTP.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use headless_lb::{
    Balancer, Candidates, Cause, Choice, Endpoint, First, Fixed, Http, HttpPod, Outcome, PeakEwma,
    Policy,
};
use http_body_util::{BodyExt, Empty};
use hyper::{
    Request,
    body::{Body, Bytes, Frame, SizeHint},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::ServiceExt;

const MS: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers by the path, over HTTP/1.1: `/status/503`, `/asks/429/7` (with `Retry-After`), `/breaks` (in its body),
/// `/upgrade`, `/hangs`, `/garbage`, and `/closes` without an answer. Dropped, it is gone.
struct Pod {
    addr: SocketAddr,
    _serving: JoinSet<()>,
}

impl Pod {
    async fn start(host: u8) -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 9, host), 0)).await;
        let listener = listener.expect("a loopback port");
        let addr = listener.local_addr().expect("an address");
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream));
            }
        });
        Self {
            addr,
            _serving: serving,
        }
    }
}

async fn serve(mut stream: TcpStream) {
    let mut seen = Vec::new();
    loop {
        while !seen.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read_buf(&mut seen).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        let head = String::from_utf8_lossy(&seen).into_owned();
        seen.clear();
        let path = head.split(' ').nth(1).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let answer = match parts[..] {
            ["status", status] => format!("HTTP/1.1 {status} so\r\ncontent-length: 2\r\n\r\nok"),
            ["asks", status, pause] => {
                format!("HTTP/1.1 {status} so\r\nretry-after: {pause}\r\ncontent-length: 0\r\n\r\n")
            }
            ["breaks"] => "HTTP/1.1 200 so\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
            ["upgrade"] => {
                "HTTP/1.1 101 so\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n".to_owned()
            }
            ["garbage"] => "what?\r\n\r\n".to_owned(),
            ["early"] => {
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 so\r\ncontent-length: 0\r\n\r\n"
                    .to_owned()
            }
            ["hangs"] => return std::future::pending().await,
            _ => return,
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || parts[..] == ["breaks"] {
            return;
        }
    }
}

/// A policy that makes requests timed, and is `First` otherwise.
struct Timed(First);

impl Policy for Timed {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        self.0.pick(candidates)
    }

    fn is_timed(&self) -> bool {
        true
    }
}

fn client(
    pods: impl IntoIterator<Item = SocketAddr>,
    policy: impl Policy,
    settings: Http,
) -> Balancer<HttpPod> {
    Balancer::builder(Fixed::new(pods))
        .policy(policy)
        .spawn_http_with(settings)
}

async fn only(client: &Balancer<HttpPod>) -> Arc<Endpoint> {
    client.resolved().await.expect("a pod");
    Arc::clone(client.endpoints().iter().next().expect("a pod"))
}

fn post(path: &str) -> Request<Empty<Bytes>> {
    Request::post(format!("http://web.default{path}"))
        .body(Empty::new())
        .expect("a request")
}

/// Sends it, and reads what comes. Whether all went well.
async fn exchange<B>(client: &Balancer<HttpPod>, request: Request<B>) -> bool
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let exchange = async {
        match client.clone().oneshot(request).await {
            Ok(response) => response.into_body().collect().await.is_ok(),
            Err(_) => false,
        }
    };
    timeout(PATIENCE, exchange).await.expect("an end in time")
}

/// Successes, failures, failures in a row, and why the last one failed.
type Left = (u32, u32, u32, Option<Cause>);

fn left(endpoint: &Endpoint) -> Left {
    let counts = (endpoint.succeeded(), endpoint.failed(), endpoint.streak());
    (counts.0, counts.1, counts.2, endpoint.last_failure())
}

/// Lets the client send this one request to a fresh pod.
async fn after(policy: impl Policy, settings: Http, path: &str) -> (Left, Option<Duration>) {
    let pod = Pod::start(1).await;
    let client = client([pod.addr], policy, settings);
    let endpoint = only(&client).await;
    exchange(&client, post(path)).await;
    assert_eq!(endpoint.pending(), 0, "{path}");
    (left(&endpoint), endpoint.latency(Instant::now()))
}

#[tokio::test]
async fn each_way_that_a_request_can_go_leaves_its_outcome_whether_it_is_timed_or_not() {
    let failed = |cause| (0, 1, 1, Some(cause));
    let broken = (1, 1, 1, Some(Cause::Reset));
    for (path, expected) in [
        ("/status/200", (1, 0, 0, None)),
        ("/status/404", (1, 0, 0, None)),
        ("/status/501", (1, 0, 0, None)),
        ("/status/429", failed(Cause::Status(429))),
        ("/status/500", failed(Cause::Status(500))),
        ("/asks/503/2", failed(Cause::Status(503))),
        ("/early", failed(Cause::Status(500))),
        ("/closes", failed(Cause::Reset)),
        ("/garbage", failed(Cause::Other)),
        ("/hangs", failed(Cause::TimedOut)),
        ("/breaks", broken),
        ("/upgrade", (0, 0, 0, None)),
    ] {
        let settings = || Http::new().try_timeout(200 * MS);
        let (timed, latency) = after(Timed(First::new()), settings(), path).await;
        assert_eq!(timed, expected, "{path}, timed");
        assert_eq!(latency.is_some(), expected.0 > 0, "{path}: {latency:?}");
        let (untimed, latency) = after(First::new(), settings(), path).await;
        assert_eq!(untimed, expected, "{path}, not timed");
        assert_eq!(latency, None, "{path}: no clock was read for it");
    }
}

#[tokio::test]
async fn what_an_overloaded_pod_asks_for_is_what_it_is_left_alone_for() {
    let pod = Pod::start(2).await;
    let client = client([pod.addr], PeakEwma::new(), Http::new());
    let endpoint = only(&client).await;
    exchange(&client, post("/status/200")).await;
    exchange(&client, post("/asks/503/60")).await;
    let latency = endpoint.latency(Instant::now()).expect("it is timed");
    assert!(latency > Duration::from_secs(50), "{latency:?}");
}

#[tokio::test]
async fn a_connect_that_fails_is_no_request_and_its_cause_is_known() {
    let nobody = TcpListener::bind("127.0.9.3:0").await.expect("a port");
    let addr = nobody.local_addr().expect("an address");
    drop(nobody);
    let refused = client([addr], Timed(First::new()), Http::new());
    let endpoint = only(&refused).await;
    assert!(!exchange(&refused, post("/")).await);
    assert_eq!(left(&endpoint), (0, 0, 0, Some(Cause::Refused)));

    // It takes connections, and says nothing of TLS or HTTP/2.
    let closing = TcpListener::bind("127.0.9.3:0").await.expect("a port");
    let addr = closing.local_addr().expect("an address");
    let mut accepting = JoinSet::new();
    accepting.spawn(async move { while closing.accept().await.is_ok() {} });
    let closed = client([addr], Timed(First::new()), Http::new());
    let endpoint = only(&closed).await;
    assert!(!exchange(&closed, post("/")).await);
    let (succeeded, failed, _, cause) = left(&endpoint);
    assert_eq!((succeeded, failed, cause), (0, 0, Some(Cause::Reset)));
}

#[tokio::test]
async fn a_caller_who_gives_up_says_nothing_at_first_then_slow_and_after_a_second_failed() {
    let pod = Pod::start(4).await;
    let timed = client([pod.addr], Timed(First::new()), Http::new());
    let endpoint = only(&timed).await;
    let give_up = async |client: &Balancer<HttpPod>, after: Duration| {
        let waited = timeout(after, exchange(client, post("/hangs"))).await;
        assert!(waited.is_err(), "nobody answers");
    };
    exchange(&timed, post("/status/200")).await;
    let usual = endpoint.latency(Instant::now()).expect("it is timed");
    assert!(usual < 80 * MS, "{usual:?}");

    give_up(&timed, Duration::from_micros(1)).await;
    assert_eq!(left(&endpoint), (1, 0, 0, None));
    give_up(&timed, 300 * MS).await;
    let slow = endpoint.latency(Instant::now()).expect("it is timed");
    assert!(slow > usual + 20 * MS, "{slow:?} after {usual:?}");
    assert_eq!(left(&endpoint), (1, 0, 0, None));
    give_up(&timed, 1_050 * MS).await;
    assert_eq!(left(&endpoint), (1, 1, 1, Some(Cause::GaveUp)));

    // A policy that does not go by time learns no latency, and the same of the pod's health.
    let untimed = client([pod.addr], First::new(), Http::new());
    let endpoint = only(&untimed).await;
    give_up(&untimed, 300 * MS).await;
    assert_eq!(left(&endpoint), (0, 0, 0, None));
    give_up(&untimed, 1_050 * MS).await;
    assert_eq!(left(&endpoint), (0, 1, 1, Some(Cause::GaveUp)));
    assert_eq!(endpoint.latency(Instant::now()), None);
}

#[tokio::test]
async fn a_pod_that_was_beaten_by_a_hedge_was_slow_and_has_not_failed() {
    // The second answers what the first hangs on.
    let hanging = TcpListener::bind("127.0.9.5:0").await.expect("a port");
    let first = hanging.local_addr().expect("an address");
    let mut pods = JoinSet::new();
    pods.spawn(async move {
        let (mut stream, _) = hanging.accept().await.expect("a connection");
        let mut seen = [0; 4096];
        for answers in [true, false] {
            let read = stream.read(&mut seen).await.expect("a request");
            assert!(read > 0, "a request");
            if answers {
                let answer = b"HTTP/1.1 200 so\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer).await.expect("a reader");
            }
        }
        std::future::pending::<()>().await;
    });
    let second = Pod::start(6).await;
    let client = client([first, second.addr], Timed(First::new()), Http::new());
    client.resolved().await.expect("pods");
    let get = || {
        Request::get("http://web.default/status/200")
            .body(Empty::<Bytes>::new())
            .expect("a request")
    };
    assert!(exchange(&client, get()).await);
    assert!(exchange(&client, get()).await, "the hedge is answered");
    let set = client.endpoints();
    let find = |addr| set.iter().find(|pod| pod.addr() == addr).expect("a pod");
    assert_eq!(left(find(first)), (1, 0, 0, None));
    assert_eq!(left(find(second.addr)), (1, 0, 0, None));
    // Half a second, smoothed.
    let latency = find(first).latency(Instant::now()).expect("it is timed");
    assert!(latency > 50 * MS, "{latency:?}");
}

#[tokio::test]
async fn a_request_that_is_to_be_ignored_says_nothing_whatever_becomes_of_it() {
    for path in ["/status/200", "/status/500", "/closes", "/breaks", "/hangs"] {
        let pod = Pod::start(7).await;
        let settings = Http::new().try_timeout(200 * MS);
        let client = client([pod.addr], Timed(First::new()), settings);
        let endpoint = only(&client).await;
        let mut request = post(path);
        request.extensions_mut().insert(Outcome::Ignore);
        exchange(&client, request).await;
        assert_eq!(left(&endpoint), (0, 0, 0, None), "{path}");
    }
}

#[tokio::test]
async fn the_user_may_say_what_an_answer_means_and_is_not_asked_about_upgrades() {
    let settings = || {
        Http::new().classify(|answer| match answer.status().as_u16() {
            101 => Cause::Other.into(),
            404 => Cause::Status(404).into(),
            500 => Outcome::Success,
            204 => Outcome::Ignore,
            _ => answer.outcome(),
        })
    };
    for (path, expected) in [
        ("/upgrade", (0, 0, 0, None)),
        ("/status/404", (0, 1, 1, Some(Cause::Status(404)))),
        ("/status/500", (1, 0, 0, None)),
        ("/status/204", (0, 0, 0, None)),
        ("/status/503", (0, 1, 1, Some(Cause::Status(503)))),
    ] {
        let (left, _) = after(First::new(), settings(), path).await;
        assert_eq!(left, expected, "{path}");
    }
}

/// A body that fails after its first part.
struct Failing(bool);

impl Body for Failing {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(Some(match std::mem::replace(&mut self.0, true) {
            false => Ok(Frame::data(Bytes::from_static(b"half"))),
            true => Err("the caller's disk is full".into()),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[tokio::test]
async fn a_body_that_fails_at_the_caller_says_nothing_of_the_pod() {
    let pod = Pod::start(8).await;
    let client = client([pod.addr], Timed(First::new()), Http::new());
    let endpoint = only(&client).await;
    let request = Request::post("http://web.default/hangs").body(Failing(false));
    assert!(!exchange(&client, request.expect("a request")).await);
    assert_eq!(left(&endpoint), (0, 0, 0, None));
}
