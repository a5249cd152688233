//! gRPC over the balancer: tonic's generated clients take it as their channel, and each call goes to
//! another pod.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use headless_lb::{Balancer, Error, Fixed, Http, HttpError, HttpPod, RoundRobin};
use tokio::{
    runtime::{self, Runtime},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{
    Code, Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_client::HealthClient,
    health_server::{Health, HealthServer},
};

type Client = HealthClient<Balancer<HttpPod>>;

const PATIENCE: Duration = Duration::from_secs(20);

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
            "secret" => Err(Status::permission_denied("not for you")),
            service => Err(Status::not_found(format!("no service {service}"))),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// Three messages, one after the other.
    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let messages = stream::unfold(1, |status| async move {
            sleep(WORK).await;
            (status <= 3).then(|| (Ok(HealthCheckResponse { status }), status + 1))
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

/// Calls without pause until told to stop: what each came to.
fn load(
    balancer: &Balancer<HttpPod>,
    stop: &Arc<AtomicBool>,
) -> JoinSet<Vec<Result<String, Status>>> {
    let mut load = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut client, stop) = (over(balancer), Arc::clone(stop));
        load.spawn(async move {
            let mut outcomes = Vec::new();
            while !stop.load(Relaxed) {
                outcomes.push(check(&mut client, "").await);
            }
            outcomes
        });
    }
    load
}

const CALLERS: usize = 8;

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
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&balancer, &stop);
    sleep(Duration::from_millis(200)).await;
    pods[0].leave();
    sleep(Duration::from_millis(200)).await;
    pods[1].leave();
    sleep(Duration::from_millis(200)).await;
    stop.store(true, Relaxed);
    let mut calls = 0;
    for outcome in load.join_all().await.into_iter().flatten() {
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
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&balancer, &stop);
    sleep(Duration::from_millis(200)).await;
    let gone = victim.addr.to_string();
    victim.kill();
    sleep(Duration::from_millis(300)).await;
    stop.store(true, Relaxed);
    let (mut calls, mut failed) = (0, 0);
    for outcome in load.join_all().await.into_iter().flatten() {
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
