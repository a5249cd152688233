//! The HTTP client over real web servers that a real name server lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Balancer, Dns, Http, HttpPod, RoundRobin};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout},
};
use tower::ServiceExt;

use crate::{
    name_server::NameServer,
    nginx::{Pod, SLOW},
    process::{free_address, free_ip},
    zone::{self, Zone},
};

type Client = Balancer<HttpPod>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Three pods, the name server that lists them, and a client.
struct Cluster {
    knot: NameServer,
    pods: Vec<Pod>,
    port: u16,
    client: Client,
}

impl Cluster {
    async fn start() -> Self {
        let port = free_address().port();
        let mut pods = Vec::new();
        let mut zone = Zone::new(30);
        for index in 0..3 {
            let pod = Pod::start(&format!("pod-{index}"), (free_ip(), port).into()).await;
            zone = zone.pod_at("web", pod.ip());
            pods.push(pod);
        }
        let knot = NameServer::knot(&zone).await;
        let dns = Dns::headless(&zone::name("web"), port).expect("a service name");
        let client: Client = Balancer::builder(dns.name_servers([knot.address()]))
            .policy(RoundRobin::new())
            .refresh_interval(Duration::from_millis(200))
            .min_interval(Duration::from_millis(50))
            // Shares are exact as long as no pod is late enough for a second try, which a busy machine may make it.
            .spawn_http_with(Http::new().hedging(false));
        client.resolved().await.expect("three pods");
        assert_eq!(client.endpoints().len(), 3);
        Self {
            knot,
            pods,
            port,
            client,
        }
    }

    /// Lists a pod, or no longer, and waits until the client knows.
    async fn list(&self, action: &str, pod: &Pod) {
        let ttl = if action == "set" { "30 " } else { "" };
        self.knot
            .change(&[&format!("{action} web.ns {ttl}A {}", pod.ip())]);
        let mut changes = self.client.subscribe();
        let is_done =
            |sockets: BTreeSet<SocketAddr>| sockets.contains(&pod.address()) == (action == "set");
        let follow = async {
            while let Some(change) = changes.next().await {
                if is_done(change.set().iter().map(|pod| pod.addr()).collect()) {
                    return;
                }
            }
        };
        timeout(Duration::from_secs(10), follow)
            .await
            .expect("the change is seen");
    }
}

/// The name of the pod that answered, and the number of its connection.
async fn get(client: &Client) -> Result<(String, String), Failure> {
    let request = Request::get("http://web.ns/").body(Full::<Bytes>::default())?;
    let response = client.clone().oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    let text = String::from_utf8(body.to_vec())?;
    let [pod, connection, ..] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err("a strange body".into());
    };
    Ok((pod.to_owned(), connection.to_owned()))
}

/// Requests from eight tasks, one after the other in each, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<Outcomes>,
}

#[derive(Debug, Default)]
struct Outcomes {
    by_pod: BTreeMap<String, u32>,
    /// Of single attempts; each is repeated up to twice.
    errors: Vec<String>,
    /// Requests that failed in all attempts.
    failed: u32,
}

impl Load {
    fn start(client: &Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..8 {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut outcomes = Outcomes::default();
                while !stop.load(Relaxed) {
                    outcomes.one(&client).await;
                }
                outcomes
            });
        }
        Self { stop, tasks }
    }

    async fn stop(self) -> Outcomes {
        self.stop.store(true, Relaxed);
        let mut all = Outcomes::default();
        for outcomes in self.tasks.join_all().await {
            for (pod, count) in outcomes.by_pod {
                *all.by_pod.entry(pod).or_default() += count;
            }
            all.errors.extend(outcomes.errors);
            all.failed += outcomes.failed;
        }
        println!("{all:?}");
        all
    }
}

impl Outcomes {
    async fn one(&mut self, client: &Client) {
        for _ in 0..3 {
            match get(client).await {
                Ok((pod, _)) => {
                    *self.by_pod.entry(pod).or_default() += 1;
                    return;
                }
                Err(error) => self.errors.push(error.to_string()),
            }
        }
        self.failed += 1;
    }
}

/// Waits until `count` more requests were answered.
async fn served(client: &Client, count: usize) {
    for _ in 0..count {
        // By the same handle as the load: its failures are the load's.
        let _ = get(client).await;
    }
}

#[tokio::test]
async fn round_robin_shares_are_exact_and_each_pod_has_one_connection() {
    let cluster = Cluster::start().await;
    let mut counts = BTreeMap::<_, u32>::new();
    for _ in 0..300 {
        *counts
            .entry(get(&cluster.client).await.expect("an answer"))
            .or_default() += 1;
    }
    println!("{counts:?}");
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [100, 100, 100]
    );
    let names: BTreeSet<&str> = counts.keys().map(|(pod, _)| pod.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["pod-0", "pod-1", "pod-2"]));
}

#[tokio::test]
async fn shares_are_exact_with_many_requests_at_once() {
    let cluster = Cluster::start().await;
    let mut tasks = JoinSet::new();
    for _ in 0..300 {
        let client = cluster.client.clone();
        tasks.spawn(async move { get(&client).await.expect("an answer").0 });
    }
    let mut counts = BTreeMap::<_, u32>::new();
    for pod in tasks.join_all().await {
        *counts.entry(pod).or_default() += 1;
    }
    assert_eq!(
        counts.values().copied().collect::<Vec<_>>(),
        [100, 100, 100]
    );
}

/// No repetition is needed: the address left DNS first, as it does in a cluster, and what is in flight is finished.
#[tokio::test]
async fn replacing_every_pod_costs_no_request() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster.client);
    for index in 0..3 {
        let name = format!("new-{index}");
        let pod = Pod::start(&name, (free_ip(), cluster.port).into()).await;
        cluster.list("set", &pod).await;
        let old = std::mem::replace(&mut cluster.pods[index], pod);
        cluster.list("unset", &old).await;
        old.drain();
        old.drained().await;
    }
    served(&cluster.client, 30).await;
    let outcomes = load.stop().await;
    assert_eq!(outcomes.errors, [""; 0]);
    for pod in ["pod-0", "pod-1", "pod-2", "new-0", "new-1", "new-2"] {
        assert!(outcomes.by_pod.contains_key(pod), "{pod} had no request");
    }
}

/// The name server lists the pod all the while: connections tell, not DNS.
#[tokio::test]
async fn a_killed_pod_costs_no_get_that_is_repeated_and_its_return_is_used() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster.client);
    served(&cluster.client, 30).await;
    let killed = cluster.pods.remove(1);
    let address = killed.address();
    drop(killed);
    served(&cluster.client, 300).await;
    assert_eq!(cluster.client.endpoints().len(), 3, "DNS lists it still");
    let outcomes = load.stop().await;
    assert_eq!(outcomes.failed, 0);
    // At most what was on the wire: a request for each task.
    assert!(outcomes.errors.len() <= 9, "{:?}", outcomes.errors);

    let back = Pod::start("back", address).await;
    let start = Instant::now();
    while get(&cluster.client).await.expect("an answer").0 != "back" {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the pod is not tried again"
        );
    }
    println!("used again after {:?}", start.elapsed());
    drop(back);
}

#[tokio::test]
async fn a_pod_that_drains_while_dns_still_lists_it_costs_no_get_that_is_repeated() {
    let mut cluster = Cluster::start().await;
    let load = Load::start(&cluster.client);
    served(&cluster.client, 30).await;
    let draining = cluster.pods.remove(0);
    draining.drain();
    draining.drained().await;
    served(&cluster.client, 300).await;
    let outcomes = load.stop().await;
    assert_eq!(outcomes.failed, 0);
    assert!(outcomes.errors.len() <= 9, "{:?}", outcomes.errors);
}

#[tokio::test]
async fn a_response_in_flight_from_a_draining_pod_arrives_whole() {
    let mut cluster = Cluster::start().await;
    let request = Request::get("http://web.ns/slow")
        .body(Full::<Bytes>::default())
        .expect("a request");
    let response = cluster
        .client
        .clone()
        .oneshot(request)
        .await
        .expect("an answer");
    let mut body = response.into_body();
    let first = body
        .frame()
        .await
        .expect("a frame")
        .expect("data")
        .into_data()
        .expect("data");
    assert!(first.len() < SLOW);

    // Which of the three serves it is the policy's secret: all leave DNS but for a new one, and drain.
    let pod = Pod::start("new", (free_ip(), cluster.port).into()).await;
    cluster.list("set", &pod).await;
    for old in &cluster.pods {
        cluster.list("unset", old).await;
        old.drain();
    }
    assert_eq!(cluster.client.endpoints().len(), 1);
    let rest = body.collect().await.expect("the rest").to_bytes();
    assert_eq!(first.len() + rest.len(), SLOW);
    for old in cluster.pods.drain(..) {
        old.drained().await;
    }
    assert_eq!(get(&cluster.client).await.expect("an answer").0, "new");
}
