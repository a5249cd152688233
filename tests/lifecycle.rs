//! What services are told through a balancer, and that new pods are connected before they take requests;
//! on a scripted source and a paused clock.

mod support;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use headless_lb::{Balancer, Endpoint, NewService};
use support::script::{Script, hosts, pod, pods};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// What was told, of which endpoint, and which pods readers saw at that moment.
type Told = (&'static str, Arc<Endpoint>, Vec<u8>);

/// Makes services that are their endpoint, and tells all that it is told.
struct Observer {
    told: UnboundedSender<Told>,
    readers: Arc<OnceLock<Balancer<Arc<Endpoint>>>>,
}

impl Observer {
    fn tell(&self, what: &'static str, endpoint: &Arc<Endpoint>) {
        let seen = self
            .readers
            .get()
            .map(|readers| hosts(&readers.endpoints()));
        let told = (what, Arc::clone(endpoint), seen.unwrap_or_default());
        self.told.send(told).expect("the test listens");
    }
}

impl NewService for Observer {
    type Service = Arc<Endpoint>;

    fn new_service(&self, endpoint: &Arc<Endpoint>) -> Arc<Endpoint> {
        Arc::clone(endpoint)
    }

    fn warm(&self, service: &Arc<Endpoint>) -> bool {
        self.tell("warm", service);
        true
    }

    fn removed(&self, service: &Arc<Endpoint>) {
        self.tell("removed", service);
    }

    fn returned(&self, service: &Arc<Endpoint>) {
        self.tell("returned", service);
    }

    fn retired(&self, service: &Arc<Endpoint>) {
        self.tell("retired", service);
    }
}

/// A balancer over the script whose first answer has come, and what its services are told.
async fn observed(script: &Script) -> (Balancer<Arc<Endpoint>>, UnboundedReceiver<Told>) {
    let (told, receiver) = unbounded_channel();
    let readers = Arc::new(OnceLock::new());
    let observer = Observer {
        told,
        readers: Arc::clone(&readers),
    };
    let balancer = Balancer::builder(script.clone())
        .seed(support::seed())
        .warm_up(2 * SECOND)
        .spawn_with(observer);
    readers.set(balancer.clone()).expect("set once");
    let resolved = balancer.resolved().await;
    resolved.expect("the script answers at once");
    (balancer, receiver)
}

#[tokio::test(start_paused = true)]
async fn services_are_told_in_order_and_after_the_readers() {
    let script = Script::new(pods(1..=3));
    let (balancer, mut told) = observed(&script).await;
    script.say(pods([1, 2]));
    let (what, endpoint, seen) = told.recv().await.unwrap();
    assert_eq!(
        (what, endpoint.addr(), seen),
        ("removed", pod(3), vec![1, 2])
    );
    script.say(pods(1..=3));
    let (what, back, seen) = told.recv().await.unwrap();
    assert_eq!(
        (what, back.id(), seen),
        ("returned", endpoint.id(), vec![1, 2, 3])
    );
    script.say(pods([1, 2]));
    assert_eq!(told.recv().await.unwrap().0, "removed");
    let removed = Instant::now();
    let generation = balancer.endpoints().generation();
    let (what, gone, seen) = told.recv().await.unwrap();
    assert_eq!(
        (what, gone.id(), seen),
        ("retired", endpoint.id(), vec![1, 2])
    );
    assert_eq!(balancer.endpoints().generation(), generation);
    let lingered = removed.elapsed().as_secs_f64();
    assert!((30.0..30.1).contains(&lingered), "after {lingered} s");
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_is_connected_before_it_takes_requests() {
    let script = Script::new(pods(1..=2));
    let (balancer, mut told) = observed(&script).await;
    script.say(pods(1..=3));
    let (what, new, seen) = told.recv().await.unwrap();
    assert_eq!((what, new.addr(), seen), ("warm", pod(3), vec![1, 2]));
    sleep(SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2]);
    assert!(balancer.to_string().contains(", 1 warming, "), "{balancer}");
    balancer.reached(&new);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3]);
    assert!(!balancer.to_string().contains("warming"), "{balancer}");
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_that_hangs_waits_no_longer_than_the_deadline_and_one_that_refuses_not_at_all() {
    let script = Script::new(pods(1..=2));
    let (balancer, mut told) = observed(&script).await;
    script.say(pods(1..=4));
    let (first, second) = (told.recv().await.unwrap().1, told.recv().await.unwrap().1);
    let (hangs, refuses) = if first.addr() == pod(3) {
        (first, second)
    } else {
        (second, first)
    };
    let appeared = Instant::now();
    balancer.unreachable(&refuses);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2, 4]);
    assert!((0..20).all(|_| balancer.pick().unwrap().addr() != pod(4)));
    let mut changes = balancer.subscribe();
    while !balancer
        .endpoints()
        .iter()
        .any(|endpoint| endpoint.id() == hangs.id())
    {
        changes.next().await.unwrap();
    }
    let waited = appeared.elapsed().as_secs_f64();
    assert!((2.0..2.1).contains(&waited), "after {waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_while_it_is_connected_never_takes_a_request() {
    let script = Script::new(pods(1..=2));
    let (balancer, mut told) = observed(&script).await;
    script.say_next([pods(1..=3)]);
    let (_, new, _) = told.recv().await.unwrap();
    balancer.refresh();
    let (what, gone, _) = told.recv().await.unwrap();
    assert_eq!((what, gone.id()), ("retired", new.id()));
    balancer.reached(&new);
    let mut seen = Vec::new();
    for _ in 0..100 {
        sleep(Duration::from_millis(100)).await;
        seen.extend(balancer.pick().map(|pick| pick.addr()));
    }
    assert!(seen.len() == 100 && !seen.contains(&pod(3)));
}
