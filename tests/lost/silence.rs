//! Pods that take connections and requests, and answer none; and pods that do not even take connections.

use std::{net::SocketAddr, time::Duration};

use headless_lb::Http;
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tower::ServiceExt;

use super::{
    Client, PATIENCE, client, client_in_order, get, is_aside, pending,
    pod::{Pod, Unreachable},
    read, request, send, until, warm_up,
};

/// What callers have.
const DEADLINE: Duration = Duration::from_secs(1);

async fn good(ip: u8, n: u8) -> Vec<Pod> {
    let mut pods = Vec::new();
    for i in 0..n {
        pods.push(Pod::good([127, 0, 4, ip + i]).await);
    }
    pods
}

/// What became of the requests of an open loop.
#[derive(Debug, Default)]
struct Run {
    answered: usize,
    failed: usize,
    slowest: Duration,
}

/// So many requests, one every 5 ms, each with a deadline of its own.
async fn run(client: &Client, method: &'static str, requests: usize, deadline: Duration) -> Run {
    let mut pace = interval(Duration::from_millis(5));
    let mut calls = JoinSet::new();
    for _ in 0..requests {
        pace.tick().await;
        let client = client.clone();
        calls.spawn(async move {
            let begun = Instant::now();
            let call = client.oneshot(request(method, "item", ""));
            let answer = timeout(deadline, async { read(call.await.ok()?).await.ok() }).await;
            (matches!(answer, Ok(Some(_))), begun.elapsed())
        });
    }
    let mut run = Run::default();
    for (is_answered, took) in calls.join_all().await {
        run.answered += usize::from(is_answered);
        run.failed += usize::from(!is_answered);
        run.slowest = run.slowest.max(took);
    }
    run
}

fn addresses(pods: &[Pod]) -> impl Iterator<Item = SocketAddr> {
    pods.iter().map(Pod::addr)
}

#[tokio::test]
async fn a_pod_that_falls_silent_costs_no_get_is_set_aside_tried_singly_and_returns() {
    let pods = good(1, 3).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods[0].hang(true);
    let first = run(&client, "GET", 60, DEADLINE).await;
    println!("at first {first:?}");
    assert_eq!(first.failed, 0);
    assert!(first.slowest < DEADLINE / 2, "{first:?}");
    until("it is set aside", || is_aside(&client, &pods[0])).await;

    // Those that it has been given before are gone.
    pods[0].most_busy();
    let before = pods[0].requests();
    let then = run(&client, "GET", 600, DEADLINE).await;
    let tries = pods[0].requests() - before;
    println!("then {then:?}, {tries} tries");
    assert_eq!(then.failed, 0);
    // One at a time, but for one in the moment until the set is without it again.
    assert!(pods[0].most_busy() <= 2, "nearly one at a time");
    // After 100, 200, 400, 800, 1,600 ms, more or less.
    assert!(tries <= 7, "{tries} tries in 3 s");

    pods[0].hang(false);
    let comes_back = async {
        while is_aside(&client, &pods[0]) {
            get(&client, "item").await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(12), comes_back)
        .await
        .expect("it returns");
    get(&client, "item").await;
    get(&client, "item").await;
    get(&client, "item").await;
    let before = pods[0].requests();
    for _ in 0..30 {
        get(&client, "item").await;
    }
    assert_eq!(pods[0].requests() - before, 10, "its whole share");
}

#[tokio::test]
async fn two_silent_pods_of_three_cost_no_get() {
    let pods = good(4, 3).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods[0].hang(true);
    pods[1].hang(true);
    let run = run(&client, "GET", 200, DEADLINE).await;
    println!("{run:?}");
    assert_eq!(run.failed, 0);
    assert_eq!(pending(&client), 0);
}

#[tokio::test]
async fn callers_one_after_the_other_lose_no_get_to_a_silent_pod() {
    let pods = good(7, 3).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods[0].hang(true);
    for i in 0..100 {
        let answer = timeout(DEADLINE, get(&client, "item")).await;
        assert_ne!(answer.expect("an answer in time"), pods[0].addr(), "{i}");
    }
}

#[tokio::test]
async fn callers_one_after_the_other_lose_few_posts_to_a_silent_pod() {
    let pods = good(28, 3).await;
    let client = client(addresses(&pods));
    let slowest = warm_up(&client).await;
    pods[0].hang(true);
    // Who gives up before an answer is late says nothing of its pod, and late is what takes three times as long as
    // nearly all others did: on a busy machine that is more than the tenth of a second that is enough elsewhere.
    let patience = (DEADLINE / 10).max(5 * slowest);
    let mut lost = 0;
    for i in 0..100 {
        let post = send(&client, request("POST", &i.to_string(), "order"));
        lost += usize::from(timeout(patience, post).await.is_err());
    }
    // Two to know it, and one whenever it has been aside for a while.
    assert!(lost <= 5, "{lost} of 100");
}

#[tokio::test]
async fn the_last_pod_is_used_though_it_is_silent() {
    let pods = good(10, 1).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods[0].hang(true);
    let before = pods[0].requests();
    let silent = run(&client, "GET", 100, Duration::from_millis(300)).await;
    assert_eq!(silent.answered, 0);
    let seen = pods[0].requests() - before;
    assert!(seen >= 100, "each is offered: {seen}");
    pods[0].hang(false);
    let again = run(&client, "GET", 20, DEADLINE).await;
    assert_eq!(again.failed, 0, "{again:?}");
}

#[tokio::test]
async fn all_pods_may_fall_silent_and_are_used_again_when_they_answer() {
    let pods = good(11, 3).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods.iter().for_each(|pod| pod.hang(true));
    let silent = run(&client, "GET", 100, Duration::from_millis(300)).await;
    assert_eq!(silent.answered, 0);
    pods.iter().for_each(|pod| pod.hang(false));
    let again = run(&client, "GET", 100, DEADLINE).await;
    assert_eq!(again.failed, 0, "{again:?}");
    assert!(pods.iter().all(|pod| !is_aside(&client, pod)));
}

#[tokio::test]
async fn a_pod_that_is_silent_from_the_start_costs_a_busy_client_no_get() {
    let pods = good(14, 3).await;
    pods[0].hang(true);
    let client = client(addresses(&pods));
    let run = run(&client, "GET", 300, DEADLINE).await;
    println!("{run:?}");
    assert_eq!(run.failed, 0);
    until("it is set aside", || is_aside(&client, &pods[0])).await;
}

#[tokio::test]
async fn a_pod_that_is_silent_from_the_start_costs_callers_one_after_the_other_no_get() {
    let pods = good(31, 3).await;
    pods[0].hang(true);
    let client = client(addresses(&pods));
    for i in 0..30 {
        let answer = timeout(DEADLINE, get(&client, "item")).await;
        assert!(answer.is_ok(), "request {i}");
    }
}

#[tokio::test]
async fn posts_set_a_silent_pod_aside_and_few_are_lost_to_it() {
    let pods = good(17, 3).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods[0].hang(true);
    let first = run(&client, "POST", 60, DEADLINE).await;
    println!("at first {first:?}");
    let then = run(&client, "POST", 300, DEADLINE).await;
    println!("then {then:?}");
    assert!(first.failed <= 15, "{first:?}");
    assert_eq!(
        then.failed, 0,
        "known to be silent, it gets no order for 10 s"
    );
    let orders: usize = pods.iter().map(Pod::requests).sum();
    assert_eq!(orders, 200 + 360, "each was sent once");
}

#[tokio::test]
async fn orders_are_not_what_finds_out_whether_a_silent_pod_answers_again() {
    let pods = good(20, 3).await;
    let client = client(addresses(&pods));
    warm_up(&client).await;
    pods[0].hang(true);
    run(&client, "GET", 60, DEADLINE).await;
    let before = pods[0].received().len();
    let (reads, orders) = tokio::join!(
        run(&client, "GET", 300, DEADLINE),
        run(&client, "POST", 300, DEADLINE)
    );
    println!("{reads:?} {orders:?}");
    assert_eq!(reads.failed, 0);
    let tried = &pods[0].received()[before..];
    assert_eq!(orders.failed, 0);
    assert!(!tried.is_empty(), "reads have tried it");
    assert!(tried.iter().all(|one| one.method == "GET"));
}

#[tokio::test]
async fn a_post_whose_connect_hangs_goes_to_the_next_pod_after_a_moment_and_arrives_once() {
    let hangs = [
        Unreachable::start([127, 0, 4, 23]).await,
        Unreachable::start([127, 0, 4, 24]).await,
    ];
    let pod = Pod::good([127, 0, 4, 25]).await;
    let addresses = hangs.iter().map(Unreachable::addr).chain([pod.addr()]);
    let client = client_in_order(addresses, Http::new());
    let posts = async |ids: std::ops::Range<usize>| {
        let posts = ids.map(async |i| {
            let post = request("POST", &i.to_string(), "order");
            let begun = Instant::now();
            assert!(send(&client, post).await.is_ok());
            begun.elapsed()
        });
        futures_util::future::join_all(posts).await
    };
    let patience = Duration::from_millis(250);
    let took = posts(0..20).await;
    let expected = 2 * patience..3 * patience;
    assert!(took.iter().all(|took| expected.contains(took)), "{took:?}");
    // They have been set aside, and are back.
    sleep(Duration::from_millis(1_500)).await;
    let took = posts(20..40).await;
    let waited = took.iter().filter(|took| **took >= patience).count();
    assert!(waited <= 2, "one for each finds out: {took:?}");
    let mut ids: Vec<usize> = pod
        .received()
        .iter()
        .map(|one| one.id.parse().expect("a number"))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn a_late_request_does_not_go_to_a_pod_that_is_set_aside() {
    let pods = good(26, 2).await;
    let client = client_in_order(addresses(&pods), Http::new());
    warm_up(&client).await;
    pods[0].hang(true);
    // Until it is away for about a second at a time.
    run(&client, "GET", 300, DEADLINE).await;
    let asks = async {
        for is_away in [false, true] {
            while is_aside(&client, &pods[0]) != is_away {
                get(&client, "item").await;
                sleep(Duration::from_millis(1)).await;
            }
        }
    };
    timeout(PATIENCE, asks).await.expect("it is set aside anew");
    let before = pods[0].requests();
    pods[1].hang(true);
    let answers = async {
        sleep(Duration::from_millis(200)).await;
        pods[1].hang(false);
    };
    let (answered, ()) = tokio::join!(get(&client, "item"), answers);
    assert_eq!(answered, pods[1].addr());
    assert_eq!(pods[0].requests(), before);
}
