//! What was dropped is gone: tasks, sockets, memory, questions, services of removed pods.
//!
//! Memory is counted for the whole process, so the tests take turns.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, LazyLock, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{
    Balancer, Endpoint, Fixed, HttpPod, Resolution, Resolve, ResolveError, RoundRobin,
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, runtime::Handle, sync::Mutex, time::sleep};
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// One test at a time.
static TURN: LazyLock<Mutex<()>> = LazyLock::new(Mutex::default);

const BALANCERS: usize = 1_000;
/// What the runtime, the allocator and the system may keep, once, for all of the balancers together.
const SLACK: usize = 16 * 1024;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    tasks: usize,
    sockets: usize,
    bytes: usize,
}

impl Held {
    fn now() -> Self {
        Self {
            tasks: Handle::current().metrics().num_alive_tasks(),
            sockets: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            bytes: dhat::HeapStats::get().curr_bytes,
        }
    }

    fn is_back_to(self, before: Self) -> bool {
        self.tasks <= before.tasks
            && self.sockets <= before.sockets
            && self.bytes <= before.bytes + SLACK
    }

    /// Waits for tasks to end that were told to.
    async fn settle(before: Self) -> Self {
        for _ in 0..500 {
            if Self::now().is_back_to(before) {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
        Self::now()
    }
}

#[tokio::test]
async fn a_thousand_balancers_leave_no_task_no_socket_and_no_memory() {
    let _turn = TURN.lock().await;
    let _profiler = dhat::Profiler::builder().testing().build();
    let pod = pod().await;
    // Some first: what is made once is made now.
    for _ in 0..50 {
        one_life(pod).await;
    }
    sleep(Duration::from_millis(100)).await;
    let before = Held::now();
    for _ in 0..BALANCERS {
        one_life(pod).await;
    }
    let after = Held::settle(before).await;
    assert!(
        after.is_back_to(before),
        "before: {before:?}, after: {after:?}"
    );
}

/// Balancers of each kind are built, used and dropped, in various orders.
async fn one_life(pod: SocketAddr) {
    let builder = Balancer::builder(Fixed::new([pod]));
    let plain = builder.spawn();
    let mut changes = plain.subscribe();
    plain.resolved().await.unwrap();
    assert_eq!(changes.next().await.unwrap().added().len(), 1);
    let clone = plain.clone();
    drop(plain);
    let pick = clone.pick().unwrap();
    drop(clone);
    assert!(changes.next().await.is_none(), "no balancer is left");
    drop((changes, pick));

    let client = builder.spawn_http();
    let request = Request::get("http://pod/")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = client.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.to_bytes(), "hello");

    // Dropped before it did anything.
    drop(builder.spawn());
    drop(builder.build());
}

/// A set of pods that is another one each time the test says so.
struct Rolling {
    port: u16,
    generation: AtomicUsize,
}

/// Pods at once.
const PODS: usize = 20;

impl Rolling {
    /// Addresses that no other generation has; all of them are this machine's.
    fn pods(&self) -> Vec<SocketAddr> {
        let first = self.generation.load(Relaxed) * PODS;
        let addr = |n: usize| {
            let [_, a, b, c] = u32::try_from(n + 1).unwrap().to_be_bytes();
            SocketAddr::from(([127, 100 + a, b, c], self.port))
        };
        (first..first + PODS).map(addr).collect()
    }
}

impl Resolve for Rolling {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        Ok(self.pods().into_iter().collect())
    }
}

/// Every pod gets a request, and with it a connection.
async fn roll(rolling: &Rolling, client: &Balancer<HttpPod>, generations: usize) {
    for _ in 0..generations {
        rolling.generation.fetch_add(1, Relaxed);
        let mut now = rolling.pods();
        now.sort();
        loop {
            client.refresh();
            let set = client.endpoints();
            let mut addrs: Vec<SocketAddr> = set.iter().map(|pod| pod.addr()).collect();
            addrs.sort();
            if addrs == now {
                break;
            }
            sleep(Duration::from_millis(1)).await;
        }
        for _ in 0..PODS {
            let request = Request::get("http://pod/").body(Empty::<Bytes>::new());
            let response = client.clone().oneshot(request.unwrap()).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
    }
}

#[tokio::test]
async fn ten_thousand_pods_that_came_and_went_leave_no_connection_no_task_and_no_memory() {
    let _turn = TURN.lock().await;
    let _profiler = dhat::Profiler::builder().testing().build();
    // One listener is every pod.
    let port = pod_at(("0.0.0.0", 0)).await.port();
    let rolling = Arc::new(Rolling {
        port,
        generation: AtomicUsize::new(0),
    });
    let client = Balancer::builder(Arc::clone(&rolling))
        .policy(RoundRobin::new())
        .min_interval(Duration::from_millis(1))
        .refresh_interval(Duration::from_millis(1))
        .linger(Duration::from_millis(20))
        .spawn_http();
    // What the few pods of now hold, they may hold at the end as well.
    roll(&rolling, &client, 20).await;
    sleep(Duration::from_millis(200)).await;
    let before = Held::now();
    roll(&rolling, &client, 10_000 / PODS).await;
    let after = Held::settle(before).await;
    assert!(
        after.is_back_to(before),
        "before: {before:?}, after: {after:?}"
    );
    assert_eq!(client.endpoints().len(), PODS);
}

/// A pod on the loopback device, whose connections are tasks of this runtime.
async fn pod() -> SocketAddr {
    pod_at(("127.0.0.1", 0)).await
}

async fn pod_at(addr: (&str, u16)) -> SocketAddr {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let hello = |_: Request<Incoming>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    };
    let serve = async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let connection =
                http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(hello));
            #[expect(clippy::disallowed_methods, reason = "the pod is not the balancer's")]
            tokio::spawn(connection);
        }
    };
    #[expect(clippy::disallowed_methods, reason = "the pod is not the balancer's")]
    tokio::spawn(serve);
    addr
}

/// Two pods, and after the first answer one of them; counts what it is asked.
#[derive(Default)]
struct Shrinking {
    questions: AtomicUsize,
}

impl Resolve for Shrinking {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        let pods: u8 = if self.questions.fetch_add(1, Relaxed) == 0 {
            2
        } else {
            1
        };
        Ok((0..pods)
            .map(|i| SocketAddr::from(([10, 0, 0, i], 80)))
            .collect())
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_clone_keeps_no_service_of_a_removed_pod() {
    const LINGER: Duration = Duration::from_secs(30);
    let _turn = TURN.lock().await;
    let balancer = Balancer::builder(Shrinking::default())
        .linger(LINGER)
        .spawn_with(|endpoint: &Arc<Endpoint>| Arc::new(endpoint.addr()));
    balancer.resolved().await.unwrap();
    let idle = balancer.clone();
    let (set, mut changes) = (balancer.endpoints(), balancer.subscribe());
    assert_eq!(changes.next().await.unwrap().added().len(), 2);
    let services: Vec<Weak<SocketAddr>> = balancer
        .pick_many(2)
        .unwrap()
        .iter()
        .map(|pick| Arc::downgrade(pick.service()))
        .collect();
    let alive = || {
        services
            .iter()
            .filter(|service| service.strong_count() > 0)
            .count()
    };

    let removed = changes.next().await.unwrap();
    assert_eq!(removed.removed().len(), 1);
    sleep(LINGER - Duration::from_secs(1)).await;
    assert_eq!(alive(), 2, "a pod that flaps returns to its connections");
    sleep(Duration::from_secs(2)).await;
    // Neither the clone that never picked nor the old set hold it.
    assert_eq!(alive(), 1);
    drop((idle, set, removed));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_after_the_last_handle_is_dropped() {
    let _turn = TURN.lock().await;
    let source = Arc::new(Shrinking::default());
    let (balancer, driver) = Balancer::builder(Arc::clone(&source)).build();
    #[expect(clippy::disallowed_methods, reason = "its end is what is tested")]
    let driver = tokio::spawn(driver);
    let mut changes = balancer.subscribe();
    balancer.resolved().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let clone = balancer.clone();
    drop(balancer);
    sleep(Duration::from_secs(60)).await;
    let asked = source.questions.load(Relaxed);
    assert!(
        asked > 10,
        "a clone keeps discovery going: {asked} questions"
    );

    drop(clone);
    driver.await.unwrap();
    while changes.next().await.is_some() {}
    sleep(Duration::from_secs(3_600)).await;
    assert_eq!(source.questions.load(Relaxed), asked);
    assert_eq!(Arc::strong_count(&source), 1, "the source is dropped too");
}

#[tokio::test(start_paused = true)]
async fn a_question_without_an_answer_does_not_outlive_the_last_handle() {
    struct Silent;

    impl Resolve for Silent {
        async fn resolve(&self) -> Result<Resolution, ResolveError> {
            std::future::pending().await
        }
    }

    let _turn = TURN.lock().await;
    let (balancer, driver) = Balancer::builder(Silent).build();
    #[expect(clippy::disallowed_methods, reason = "its end is what is tested")]
    let driver = tokio::spawn(driver);
    sleep(Duration::from_secs(1)).await;
    let start = tokio::time::Instant::now();
    drop(balancer);
    driver.await.unwrap();
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "it waited for the answer"
    );
}
