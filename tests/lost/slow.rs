//! Slow is not silent: healthy pods keep their requests, and get hardly any twice.

use std::time::Duration;

use headless_lb::Outcome;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use super::{
    Client, PATIENCE, client, get, is_aside,
    pod::{Conduct, Pod},
    read, request, send,
    support::seed,
    warm_up,
};

/// Three pods whose answers take what is told, with some jitter of each pod's own.
async fn pods(ip: u8, told: &watch::Sender<Duration>, seed: u64) -> Vec<Pod> {
    let mut pods = Vec::new();
    for i in 0..3 {
        let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(ip + i));
        let told = told.subscribe();
        let conduct = move || {
            let takes = *told.borrow();
            Conduct::AnswersAfter(takes.mul_f64(rng.random_range(0.8..1.2)))
        };
        pods.push(Pod::start([127, 0, 5, ip + i], conduct).await);
    }
    pods
}

fn seen(pods: &[Pod]) -> usize {
    pods.iter().map(Pod::requests).sum()
}

/// So many GETs, at this pace: each must be answered. How often any pod was seen set aside, of the looks.
async fn run(client: &Client, pods: &[Pod], requests: usize, pace: Duration) -> (usize, usize) {
    let calls = async {
        let mut pace = interval(pace);
        let mut calls = JoinSet::new();
        for _ in 0..requests {
            pace.tick().await;
            let client = client.clone();
            calls.spawn(async move {
                let response = send(&client, request("GET", "item", "")).await;
                read(response.expect("an answer")).await.expect("a body");
            });
        }
        calls.join_all().await;
    };
    let (mut looks, mut aside) = (0, 0);
    let look = async {
        loop {
            looks += pods.len();
            aside += pods.iter().filter(|pod| is_aside(client, pod)).count();
            sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = calls => {}
        () = look => {}
    }
    (looks, aside)
}

/// The twentieth that late requests may add, and the one that a client begins with.
const fn budget(requests: usize) -> usize {
    requests / 20 + 1
}

const SLOW: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_service_that_takes_two_seconds_sees_no_cut_and_hardly_any_duplicate() {
    let told = watch::Sender::new(SLOW);
    let pods = pods(1, &told, seed()).await;
    let client = client(pods.iter().map(Pod::addr));
    let requests = 300;
    let (looks, aside) = run(&client, &pods, requests, Duration::from_millis(10)).await;
    let extra = seen(&pods) - requests;
    println!("{requests} requests, {extra} more, aside {aside} of {looks} looks");
    assert!(extra <= budget(requests), "{extra} more than {requests}");
    assert_eq!(aside, 0, "of {looks} looks");
}

#[tokio::test]
async fn a_pod_that_was_late_once_is_not_set_aside_again_while_no_other_is_asked() {
    let mut pods = Vec::new();
    for ip in 10..=12 {
        pods.push(Pod::good([127, 0, 5, ip]).await);
    }
    let client = client(pods.iter().map(Pod::addr));
    warm_up(&client).await;
    pods[0].hang(true);
    let mut orders = JoinSet::new();
    for i in 0..9 {
        let client = client.clone();
        orders.spawn(async move { send(&client, request("POST", &i.to_string(), "")).await });
        sleep(Duration::from_millis(3)).await;
    }
    let mut aside = 0;
    for _ in 0..150 {
        aside += usize::from(is_aside(&client, &pods[0]));
        sleep(Duration::from_millis(10)).await;
    }
    pods[0].hang(false);
    assert!(orders.join_all().await.iter().all(Result::is_ok));
    assert!((1..=20).contains(&aside), "aside for {aside} of 150 looks");
}

#[tokio::test]
async fn the_slowest_of_slow_pods_does_not_pass_for_silent() {
    let mut pods = Vec::new();
    for (ip, millis) in [(13, 1_400), (14, 800), (15, 800)] {
        let conduct = move || Conduct::AnswersAfter(Duration::from_millis(millis));
        pods.push(Pod::start([127, 0, 5, ip], conduct).await);
    }
    let client = client(pods.iter().map(Pod::addr));
    let requests = 120;
    let (looks, aside) = run(&client, &pods, requests, Duration::from_millis(5)).await;
    let extra = seen(&pods) - requests;
    println!("{requests} requests, {extra} more, aside {aside} of {looks} looks");
    assert!(extra <= budget(requests), "{extra} more than {requests}");
    assert_eq!(aside, 0, "of {looks} looks");
}

#[tokio::test]
async fn a_service_that_turns_slow_at_once_sees_no_cut_and_hardly_any_duplicate() {
    let told = watch::Sender::new(Duration::from_millis(5));
    let pods = pods(4, &told, seed()).await;
    let client = client(pods.iter().map(Pod::addr));
    warm_up(&client).await;
    let before = seen(&pods);
    told.send_replace(SLOW);
    let requests = 400;
    let (looks, aside) = run(&client, &pods, requests, Duration::from_millis(10)).await;
    let extra = seen(&pods) - before - requests;
    println!("{requests} requests, {extra} more, aside {aside} of {looks} looks");
    // What was earned before counts as well.
    assert!(
        extra <= budget(requests + 200),
        "{extra} more than {requests}"
    );
    assert!(aside <= looks / 20, "aside in {aside} of {looks} looks");
}

#[tokio::test]
async fn a_service_of_which_some_answers_take_long_sees_hardly_any_duplicate() {
    let seed = seed();
    let mut pods = Vec::new();
    for ip in 7..=9 {
        let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(ip));
        let conduct = move || match rng.random_range(0..100) {
            0 => Conduct::AnswersAfter(Duration::from_millis(500)),
            _ => Conduct::AnswersAfter(Duration::from_millis(3)),
        };
        pods.push(Pod::start([127, 0, 5, ip], conduct).await);
    }
    let client = client(pods.iter().map(Pod::addr));
    let requests = 1_500;
    let (looks, aside) = run(&client, &pods, requests, Duration::from_millis(2)).await;
    let extra = seen(&pods) - requests;
    println!("{requests} requests, {extra} more, aside {aside} of {looks} looks");
    assert!(extra <= budget(requests), "{extra} more than {requests}");
    assert!(aside <= looks / 20, "aside in {aside} of {looks} looks");
}

/// A GET that is meant to take long, and says so.
async fn poll(client: Client) {
    let mut poll = request("GET", "changes", "");
    poll.extensions_mut().insert(Outcome::Ignore);
    let response = send(&client, poll).await;
    read(response.expect("an answer")).await.expect("a body");
}

#[tokio::test]
async fn a_request_that_is_meant_to_take_long_is_sent_once_and_makes_no_pod_look_silent() {
    let mut pods = Vec::new();
    for ip in 16..=17 {
        pods.push(Pod::good([127, 0, 5, ip]).await);
    }
    let client = client(pods.iter().map(Pod::addr));
    warm_up(&client).await;
    let before = seen(&pods);
    pods[0].hang(true);
    let mut polls = JoinSet::new();
    for _ in 0..8 {
        polls.spawn(poll(client.clone()));
        sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..100 {
        assert!(!is_aside(&client, &pods[0]), "it only takes its time");
        sleep(Duration::from_millis(10)).await;
    }
    pods[0].hang(false);
    polls.join_all().await;
    assert_eq!(seen(&pods) - before, 8, "each once");
}

#[tokio::test]
async fn requests_that_are_meant_to_take_long_do_not_make_the_others_late_later() {
    let told = watch::Sender::new(Duration::from_millis(400));
    let pods = pods(18, &told, seed()).await;
    let client = client(pods.iter().map(Pod::addr));
    let polls: JoinSet<()> = (0..30).map(|_| poll(client.clone())).collect();
    polls.join_all().await;
    told.send_replace(Duration::from_millis(3));
    warm_up(&client).await;
    pods[0].hang(true);
    for _ in 0..3 {
        let begun = Instant::now();
        let answered = timeout(PATIENCE, get(&client, "item")).await;
        answered.expect("another pod's answer");
        assert!(
            begun.elapsed() < Duration::from_millis(400),
            "{:?}",
            begun.elapsed()
        );
    }
}
