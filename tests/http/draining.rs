//! What becomes of a pod's connections when the pod leaves the service, and before a new one joins it.

use std::time::Duration;

use headless_lb::{Balancer, Http, Resolution, RoundRobin};
use http_body_util::BodyExt;
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

use super::{
    Client, answer, get, pending, pods, read,
    support::{
        pod::{Manner, Pod},
        script::{Answer, Script},
    },
    until,
};

fn just(pods: &[&Pod]) -> Answer {
    Ok(Resolution::new(pods.iter().map(|pod| pod.addr())))
}

/// A client that hears of changes soon, and how it hears of them.
fn client(first: Answer, linger: Duration) -> (Client, Script) {
    let script = Script::new(first);
    let client = Balancer::builder(script.clone())
        .policy(RoundRobin::new())
        .refresh_interval(Duration::from_millis(20))
        .min_interval(Duration::from_millis(10))
        .linger(linger)
        .spawn_http();
    (client, script)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn idle_connections_of_a_removed_pod_close_at_once_and_what_is_in_flight_ends() {
    let pods = pods(2).await;
    let [stays, leaves] = &pods[..] else {
        panic!("two pods")
    };
    let (client, script) = client(just(&[stays, leaves]), LONG);
    // One idle connection and one that streams, to each.
    let streams = [
        get(&client, "/endless").await,
        get(&client, "/endless").await,
    ];
    let idle = [get(&client, "/").await, get(&client, "/").await];
    for response in idle {
        read(response).await;
    }
    assert_eq!((stays.open(), leaves.open()), (2, 2));
    script.say(just(&[stays]));
    until("the idle connection is closed", || leaves.open() == 1).await;
    assert_eq!(stays.open(), 2);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(leaves.open(), 1, "the stream goes on");
    drop(streams);
    until("all are closed", || leaves.open() == 0).await;
    assert_eq!(pending(&client), 0);
}

#[tokio::test]
async fn a_connection_that_is_done_after_its_pod_was_removed_closes() {
    let pods = pods(2).await;
    let [stays, leaves] = &pods[..] else {
        panic!("two pods")
    };
    let (client, script) = client(just(&[leaves]), LONG);
    let unread = get(&client, "/").await;
    script.say(just(&[stays]));
    until("the set has changed", || {
        client
            .endpoints()
            .iter()
            .all(|pod| pod.addr() == stays.addr())
    })
    .await;
    sleep(Duration::from_millis(50)).await;
    assert_eq!(leaves.open(), 1);
    read(unread).await;
    until("it is not kept", || leaves.open() == 0).await;
}

#[tokio::test]
async fn a_stream_of_a_removed_pod_ends_with_the_time_to_drain_and_says_why() {
    let pods = pods(2).await;
    let [stays, leaves] = &pods[..] else {
        panic!("two pods")
    };
    let (client, script) = client(just(&[leaves]), Duration::from_millis(300));
    let mut stream = get(&client, "/endless").await.into_body();
    assert!(stream.frame().await.expect("a frame").is_ok());
    script.say(just(&[stays]));
    let began = Instant::now();
    let error = stream
        .frame()
        .await
        .expect("an end")
        .expect_err("no more data");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "after {took:?}");
    assert!(
        error.to_string().contains("time to drain is over"),
        "{error}"
    );
    until("all are closed", || leaves.open() == 0).await;
    assert_eq!(answer(&client).await, stays.addr());
}

#[tokio::test]
async fn a_pod_that_returns_keeps_connections_again() {
    let pods = pods(2).await;
    let [one, two] = &pods[..] else {
        panic!("two pods")
    };
    let (client, script) = client(just(&[one, two]), LONG);
    answer(&client).await;
    answer(&client).await;
    script.say(just(&[one]));
    until("it is closed", || two.open() == 0).await;
    script.say(just(&[one, two]));
    until("the set has changed", || client.endpoints().len() == 2).await;
    for _ in 0..10 {
        answer(&client).await;
    }
    assert_eq!((one.connections(), two.connections()), (1, 2));
    assert_eq!(two.open(), 1);
}

#[tokio::test]
async fn a_connect_that_ends_after_its_pod_was_removed_is_not_kept() {
    // The pod's queue is full until we accept: a connect hangs as long.
    let slow = super::connections::short_queue();
    let addr = slow.local_addr().expect("a bound socket");
    let queue = super::connections::fill(addr).await;
    let stays = Pod::start([127, 0, 1, 1], Manner::KeepsAlive).await;
    let both = Ok(Resolution::new([stays.addr(), addr]));
    let (client, script) = client(both, LONG);
    client.resolved().await.expect("two pods");
    // One of the two begins to connect, and goes on elsewhere after a moment.
    answer(&client).await;
    answer(&client).await;
    script.say(just(&[&stays]));
    until("the set has changed", || client.endpoints().len() == 1).await;
    drop(queue);
    let accepted = tokio::time::timeout(Duration::from_secs(3), async {
        let mut ends = 0;
        loop {
            let (mut stream, _) = slow.accept().await.expect("a connection");
            // The ones that filled the queue, and ours: each is closed without a request.
            let mut bytes = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut bytes)
                .await
                .expect("an end");
            assert!(bytes.is_empty());
            ends += 1;
            if ends >= 3 {
                return;
            }
        }
    });
    // As many as come; none may stay open.
    let _ = accepted.await;
    assert_eq!(answer(&client).await, stays.addr());
}

#[tokio::test]
async fn a_new_pod_is_connected_before_its_first_request() {
    let pods = pods(2).await;
    let [old, new] = &pods[..] else {
        panic!("two pods")
    };
    let script = Script::new(just(&[old]));
    let client = Balancer::builder(script.clone())
        .policy(RoundRobin::new())
        .refresh_interval(Duration::from_millis(20))
        .min_interval(Duration::from_millis(10))
        .warm_up(Duration::from_secs(5))
        .spawn_http_with(Http::new());
    answer(&client).await;
    script.say(just(&[old, new]));
    until("the set has changed", || client.endpoints().len() == 2).await;
    assert_eq!((new.connections(), new.requests().len()), (1, 0));
    answer(&client).await;
    answer(&client).await;
    assert_eq!((new.connections(), new.requests().len()), (1, 1));
}

#[tokio::test]
async fn idle_connections_close_in_time_though_nobody_sends_anything() {
    let pods = pods(1).await;
    let settings = Http::new().idle_timeout(Duration::from_millis(200));
    let client = super::over(&pods).spawn_http_with(settings);
    answer(&client).await;
    assert_eq!(pods[0].open(), 1);
    until("it is closed", || pods[0].open() == 0).await;
    answer(&client).await;
    assert_eq!(pods[0].connections(), 2);
}

#[tokio::test]
async fn no_more_connections_are_made_than_allowed_and_those_who_wait_are_served() {
    let pods = pods(1).await;
    let settings = Http::new().max_connections(2);
    let client = super::over(&pods).spawn_http_with(settings);
    let call = || async { read(get(&client, "/slow").await).await };
    futures_util::future::join_all((0..20).map(|_| call())).await;
    assert_eq!((pods[0].connections(), pods[0].requests().len()), (2, 20));
}

#[tokio::test]
async fn a_connection_that_is_too_old_has_a_successor_before_it_ends() {
    let pods = pods(1).await;
    let settings = Http::new().max_age(Duration::from_millis(200));
    let client = super::over(&pods).spawn_http_with(settings);
    let (youngest, oldest) = (Duration::from_millis(180), Duration::from_millis(220));
    let (began, mut dialled, mut slowest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while pods[0].connections() < 6 {
        let (before, asked) = (pods[0].connections(), Instant::now());
        answer(&client).await;
        sleep(Duration::from_millis(5)).await;
        assert!(pods[0].open() <= 2);
        slowest = slowest.max(asked.elapsed());
        if pods[0].connections() > before {
            // One round until a request finds it too old, and the rest of that one or the next until its successor is there,
            // however long they take.
            let age = dialled.elapsed();
            assert!(age <= oldest + 3 * slowest, "{age:?}, rounds {slowest:?}");
            dialled = Instant::now();
        }
    }
    let took = began.elapsed();
    assert!(took >= 5 * youngest, "6 within {took:?}");
}

#[tokio::test]
async fn a_late_connect_to_a_pod_that_is_gone_for_good_is_closed() {
    let listener = TcpListener::bind("127.0.1.97:0")
        .await
        .expect("a loopback port");
    let gone = listener.local_addr().expect("a bound socket");
    let stays = Pod::start([127, 0, 1, 1], Manner::KeepsAlive).await;
    let (client, script) = client(Ok(Resolution::new([gone])), Duration::from_millis(50));
    let pick = {
        client.resolved().await.expect("a pod");
        client.pick().expect("the pod")
    };
    script.say(just(&[&stays]));
    until("the set has changed", || {
        client
            .endpoints()
            .iter()
            .all(|pod| pod.addr() == stays.addr())
    })
    .await;
    sleep(Duration::from_millis(200)).await;
    // A pick of before: its pod is retired by now.
    let (pod, _in_flight) = pick.into_parts();
    let request = super::request("GET", "http://web.default/", "");
    let refused = tower::ServiceExt::oneshot(pod.into_service(), request).await;
    let error = refused.expect_err("no connection to a pod that is gone");
    assert!(
        error.is_unsent() && error.to_string().contains("left the service"),
        "{error}"
    );
}
