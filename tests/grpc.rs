//! gRPC over the balancer: tonic's generated clients take it as their channel, and each call goes to
//! another pod.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use headless_lb::{
    Balancer, Cause, Endpoint, Error, Fixed, Http, HttpError, HttpPod, Outcome, PeakEwma,
    RoundRobin,
};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};
use tower::ServiceExt;

type Client = HealthClient<Balancer<HttpPod>>;

const PATIENCE: Duration = Duration::from_secs(20);

/// How long each message of a slow stream takes.
const SLOWLY: Duration = Duration::from_millis(300);

/// How long a call takes.
const WORK: Duration = Duration::from_millis(5);

/// A gRPC server in a runtime of its own, so that it can be killed with all that it has under way.
struct Pod {
    addr: SocketAddr,
    sigterm: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Pod {
    fn start(ip: [u8; 4]) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built");
        let guard = runtime.enter();
        let incoming = TcpIncoming::bind((ip, 0).into()).expect("a loopback port");
        let addr = incoming.local_addr().expect("a bound socket");
        drop(guard);
        let (sigterm, mut told) = watch::channel(false);
        let health = Answers { addr };
        runtime.spawn(async move {
            let leaving = async move { drop(told.wait_for(|told| *told).await) };
            Server::builder()
                .add_service(HealthServer::new(health))
                .serve_with_incoming_shutdown(incoming.with_nodelay(Some(true)), leaving)
                .await
        });
        Self {
            addr,
            sigterm,
            runtime: Some(runtime),
        }
    }

    /// Ends what is under way, and takes no more.
    fn leave(&self) {
        self.sigterm.send_replace(true);
    }

    /// Breaks all connections.
    fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.end();
    }
}

/// Says who answers, as metadata.
struct Answers {
    addr: SocketAddr,
}

#[tonic::async_trait]
impl Health for Answers {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        sleep(WORK).await;
        match request.into_inner().service.as_str() {
            "" => Ok(self.answer(HealthCheckResponse { status: 1 })),
            "busy" => Err(Status::unavailable("try later")),
            "secret" => Err(Status::permission_denied("not for you")),
            service => Err(Status::not_found(format!("no service {service}"))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Three messages, one after the other; or fewer, and then an error (`fails`), nothing (`hangs`), or slowly.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let (messages, end) = service.split_once(' ').unwrap_or(("3", &service));
        let (messages, end) = (messages.parse().unwrap_or(0), end.to_owned());
        let messages = stream::unfold(1, move |status| {
            let end = end.clone();
            async move {
                sleep(if end == "slowly" { SLOWLY } else { WORK }).await;
                match end.as_str() {
                    _ if status <= messages => {
                        Some((Ok(HealthCheckResponse { status }), status + 1))
                    }
                    "fails" => Some((Err(Status::unavailable("broken")), status + 1)),
                    "hangs" => std::future::pending().await,
                    _ => None,
                }
            }
        });
        Ok(self.answer(Box::pin(messages) as Self::WatchStream))
    }
}

impl Answers {
    fn answer<T>(&self, message: T) -> Response<T> {
        let mut response = Response::new(message);
        let own = self.addr.to_string().parse().expect("a metadata value");
        response.metadata_mut().insert("pod", own);
        response
    }
}

fn pods<const N: usize>() -> [Pod; N] {
    std::array::from_fn(|i| Pod::start([127, 0, 4, i as u8 + 1]))
}

fn balancer(pods: impl IntoIterator<Item = SocketAddr>) -> Balancer<HttpPod> {
    Balancer::builder(Fixed::new(pods))
        .policy(RoundRobin::new())
        .service_name("health.default")
        .spawn_http_with(Http::new().http2())
}

fn over(balancer: &Balancer<HttpPod>) -> Client {
    let origin = "http://health.default".parse().expect("a URI");
    HealthClient::with_origin(balancer.clone(), origin)
}

/// One unary call: who answered.
async fn check(client: &mut Client, service: &str) -> Result<String, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let response = timeout(PATIENCE, client.check(request)).await;
    let response = response.expect("an answer in time")?;
    let pod = response.metadata().get("pod").expect("it says who");
    Ok(pod.to_str().expect("an address").to_owned())
}

/// Callers without pause until told to stop.
struct Load {
    callers: JoinSet<Vec<Result<String, Status>>>,
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
}

const CALLERS: usize = 8;

impl Load {
    fn on(balancer: &Balancer<HttpPod>) -> Self {
        let (stop, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (mut client, stop, ended) = (over(balancer), Arc::clone(&stop), Arc::clone(&ended));
            callers.spawn(async move {
                let mut outcomes = Vec::new();
                while !stop.load(Relaxed) {
                    outcomes.push(check(&mut client, "").await);
                    ended.fetch_add(1, Relaxed);
                }
                outcomes
            });
        }
        Self {
            callers,
            stop,
            ended,
        }
    }

    /// Until so many more calls have ended, however long the machine takes for them.
    async fn goes_on(&self, more: usize) {
        let enough = self.ended.load(Relaxed) + more;
        let ended = timeout(PATIENCE, async {
            while self.ended.load(Relaxed) < enough {
                sleep(WORK).await;
            }
        });
        ended.await.expect("calls end");
    }

    /// What each call came to.
    async fn end(self) -> impl Iterator<Item = Result<String, Status>> {
        self.stop.store(true, Relaxed);
        self.callers.join_all().await.into_iter().flatten()
    }
}

fn pending(balancer: &Balancer<HttpPod>) -> u32 {
    balancer.endpoints().iter().map(|pod| pod.pending()).sum()
}

#[tokio::test]
async fn each_call_of_one_client_goes_to_the_next_pod() {
    let pods = pods::<3>();
    let balancer = balancer(pods.iter().map(|pod| pod.addr));
    let mut client = over(&balancer);
    let mut shares = BTreeMap::<String, usize>::new();
    for _ in 0..60 {
        *shares
            .entry(check(&mut client, "").await.expect("an answer"))
            .or_default() += 1;
    }
    assert_eq!(shares.into_values().collect::<Vec<_>>(), [20; 3]);
    assert_eq!(pending(&balancer), 0);
}

#[tokio::test]
async fn a_stream_of_messages_passes_and_counts_until_its_end() {
    let pods = pods::<2>();
    let balancer = balancer(pods.iter().map(|pod| pod.addr));
    let mut client = over(&balancer);
    for _ in 0..4 {
        let response = client
            .watch(HealthCheckRequest::default())
            .await
            .expect("an answer");
        let mut messages = response.into_inner();
        let mut seen = Vec::new();
        while let Some(message) = messages.message().await.expect("a whole stream") {
            assert_eq!(pending(&balancer), 1);
            seen.push(message.status);
        }
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(pending(&balancer), 0);
    }
}

#[tokio::test]
async fn a_status_of_the_pod_comes_through_and_is_no_failure_of_the_pod() {
    let pods = pods::<2>();
    let balancer = balancer(pods.iter().map(|pod| pod.addr));
    let mut client = over(&balancer);
    for _ in 0..10 {
        let status = check(&mut client, "shop").await.expect_err("unknown");
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, "no service shop")
        );
        let status = check(&mut client, "secret").await.expect_err("forbidden");
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    let set = balancer.endpoints();
    assert!(
        set.positions()
            .all(|(position, _)| position == headless_lb::Position::Unknown)
    );
    assert_eq!(pending(&balancer), 0);
}

#[tokio::test]
async fn an_error_of_the_balancer_is_the_source_of_the_status() {
    let [pod] = pods();
    let balancer = balancer([pod.addr]);
    pod.kill();
    let status = check(&mut over(&balancer), "")
        .await
        .expect_err("nobody is there");
    let source = std::error::Error::source(&status).expect("a source");
    let error = source
        .downcast_ref::<Error<HttpError>>()
        .expect("the balancer's");
    assert!(error.is_unsent(), "{error}");
    assert!(status.message().contains("health.default"), "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_leaves_politely_under_load_costs_no_call() {
    let pods = pods::<3>();
    let balancer = balancer(pods.iter().map(|pod| pod.addr));
    let load = Load::on(&balancer);
    load.goes_on(200).await;
    pods[0].leave();
    load.goes_on(200).await;
    pods[1].leave();
    load.goes_on(200).await;
    let mut calls = 0;
    for outcome in load.end().await {
        calls += 1;
        outcome.unwrap_or_else(|status| panic!("{status}: {status:?}"));
    }
    assert!(calls > 100, "{calls}");
    assert_eq!(pending(&balancer), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_killed_costs_at_most_the_calls_that_it_had() {
    let [victim, second, third] = pods();
    let balancer = balancer([victim.addr, second.addr, third.addr]);
    let load = Load::on(&balancer);
    load.goes_on(200).await;
    let gone = victim.addr.to_string();
    victim.kill();
    load.goes_on(300).await;
    let (mut calls, mut failed) = (0, 0);
    for outcome in load.end().await {
        calls += 1;
        if let Err(status) = outcome {
            failed += 1;
            let source = std::error::Error::source(&status).expect("a source");
            let error = source
                .downcast_ref::<Error<HttpError>>()
                .expect("the balancer's");
            assert!(
                !error.is_unsent(),
                "what was not sent goes elsewhere: {error}"
            );
            assert!(status.message().contains(&gone), "{status}");
        }
    }
    assert!(calls > 100, "{calls}");
    // Each caller has one call at a time.
    assert!(failed <= CALLERS, "{failed} of {calls}");
    assert_eq!(pending(&balancer), 0);
}

/// Through a policy that times requests, over one pod.
async fn timed(pod: &Pod) -> (Client, Balancer<HttpPod>, Arc<Endpoint>) {
    let balancer = Balancer::builder(Fixed::new([pod.addr]))
        .policy(PeakEwma::new())
        .spawn_http_with(Http::new().http2());
    balancer.resolved().await.expect("a pod");
    let endpoint = Arc::clone(balancer.endpoints().iter().next().expect("a pod"));
    (over(&balancer), balancer, endpoint)
}

/// A stream, after so many of its messages.
async fn watch(
    client: &mut Client,
    service: &str,
    messages: usize,
) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let response = timeout(PATIENCE, client.watch(request)).await;
    let mut stream = response.expect("in time").expect("an answer").into_inner();
    for _ in 0..messages {
        let message = timeout(PATIENCE, stream.message()).await.expect("in time");
        message.expect("no error").expect("a message");
    }
    stream
}

/// Successes, failures, failures in a row, and why the last one failed.
fn left(endpoint: &Endpoint) -> (u32, u32, u32, Option<Cause>) {
    let counts = (endpoint.succeeded(), endpoint.failed(), endpoint.streak());
    (counts.0, counts.1, counts.2, endpoint.last_failure())
}

const UNAVAILABLE: Option<Cause> = Some(Cause::Grpc(14));

#[tokio::test]
async fn the_status_of_a_call_is_its_outcome_be_it_in_the_head_or_in_the_trailers() {
    let [pod] = pods();
    for (service, expected) in [
        ("", (1, 0, 0, None)),
        ("shop", (1, 0, 0, None)),
        ("busy", (0, 1, 1, UNAVAILABLE)),
    ] {
        let (mut client, _, endpoint) = timed(&pod).await;
        let _ = check(&mut client, service).await;
        assert_eq!(left(&endpoint), expected, "{service}");
    }
    for (service, messages, expected) in [
        ("0 ends", 0, (1, 0, 0, None)),
        ("1 ends", 1, (1, 0, 0, None)),
        ("0 fails", 0, (0, 1, 1, UNAVAILABLE)),
        ("1 fails", 1, (0, 1, 1, UNAVAILABLE)),
        // It was taken for a stream, which had begun well.
        ("3 fails", 3, (1, 1, 1, UNAVAILABLE)),
    ] {
        let (mut client, _, endpoint) = timed(&pod).await;
        let mut stream = watch(&mut client, service, messages).await;
        let end = stream.message().await;
        assert_eq!(end.is_err(), service.ends_with("fails"), "{service}");
        assert_eq!(left(&endpoint), expected, "{service}");
    }
}

#[tokio::test]
async fn a_stream_counts_while_it_goes_on_and_one_that_said_nothing_says_nothing() {
    let [pod] = pods();
    for (messages, before, after) in [(0, 0, 0), (1, 0, 1), (3, 1, 1)] {
        let (mut client, _, endpoint) = timed(&pod).await;
        let stream = watch(&mut client, &format!("{messages} hangs"), messages).await;
        assert_eq!(left(&endpoint), (before, 0, 0, None), "{messages}");
        drop((stream, client));
        assert_eq!(left(&endpoint), (after, 0, 0, None), "{messages}, dropped");
    }
}

#[tokio::test]
async fn the_latency_of_a_call_ends_with_the_head_and_its_outcome_may_come_much_later() {
    let [pod] = pods();
    let (mut client, _, endpoint) = timed(&pod).await;
    let mut stream = watch(&mut client, "1 slowly", 1).await;
    assert_eq!(endpoint.latency(Instant::now()), None);
    assert!(stream.message().await.expect("no error").is_none());
    let latency = endpoint.latency(Instant::now()).expect("it is timed");
    assert!(latency < SLOWLY, "{latency:?}");
    assert_eq!(left(&endpoint), (1, 0, 0, None));
}

#[tokio::test]
async fn the_user_may_say_what_a_status_means() {
    let [pod] = pods();
    let settings = Http::new()
        .http2()
        .classify(|answer| match answer.grpc_status() {
            Some(5) => Cause::Grpc(5).into(),
            Some(14) => Outcome::Success,
            _ => answer.outcome(),
        });
    let balancer = Balancer::builder(Fixed::new([pod.addr])).spawn_http_with(settings);
    balancer.resolved().await.expect("a pod");
    let endpoint = Arc::clone(balancer.endpoints().iter().next().expect("a pod"));
    let mut client = over(&balancer);
    let _ = check(&mut client, "busy").await;
    assert_eq!(left(&endpoint), (1, 0, 0, None));
    let mut stream = watch(&mut client, "1 fails", 1).await;
    assert!(stream.message().await.is_err());
    assert_eq!(left(&endpoint), (2, 0, 0, None));
    let _ = check(&mut client, "shop").await;
    assert_eq!(left(&endpoint), (2, 1, 1, Some(Cause::Grpc(5))));
}

#[tokio::test]
async fn a_stream_of_the_callers_that_fails_says_nothing_of_the_pod() {
    let [pod] = pods();
    let (_, balancer, endpoint) = timed(&pod).await;
    let parts = [
        Ok(Frame::data(Bytes::from_static(&[0, 0, 0, 0, 9]))),
        Err(std::io::Error::other("the caller's disk is full")),
    ];
    let request = hyper::Request::post("http://health.default/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(stream::iter(parts)))
        .expect("a request");
    let answer = timeout(PATIENCE, balancer.clone().oneshot(request)).await;
    assert!(answer.expect("in time").is_err());
    assert_eq!(left(&endpoint), (0, 0, 0, None));
}
