//! Pods whose requests fail, through a whole balancer: set aside, tried again, explained; on a scripted source and
//! a paused clock.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{
    Balancer, Builder, Cause, Ejection, Endpoint, EndpointState, Explained, LeastRequest, Outcome,
    Policy, Random, RoundRobin,
};
use support::script::{Script, pod, pods};
use tokio::{
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use tower::ServiceExt;

const SECOND: Duration = Duration::from_secs(1);
const TURN: Duration = Duration::from_millis(1);

async fn balancer(hosts: u8, with: impl Fn(Builder) -> Builder) -> (Script, Balancer) {
    let script = Script::new(pods(1..=hosts));
    let builder = Balancer::builder(script.clone()).seed(support::seed());
    let balancer = with(builder).spawn();
    balancer.resolved().await.unwrap();
    (script, balancer)
}

fn endpoint(balancer: &Balancer, host: u8) -> Arc<Endpoint> {
    let set = balancer.endpoints();
    let mut endpoints = set.iter();
    Arc::clone(endpoints.find(|one| one.addr() == pod(host)).unwrap())
}

/// So many requests to the pod end like this.
fn end(balancer: &Balancer, host: u8, times: usize, outcome: Outcome) {
    for _ in 0..times {
        endpoint(balancer, host).begin().record(outcome);
    }
}

async fn fail(balancer: &Balancer, host: u8, times: usize) {
    end(balancer, host, times, Cause::Status(503).into());
    sleep(TURN).await;
}

async fn succeed(balancer: &Balancer, host: u8) {
    end(balancer, host, 1, Outcome::Success);
    sleep(TURN).await;
}

/// Who gets requests.
fn picked(balancer: &Balancer) -> Vec<SocketAddr> {
    let mut addrs: Vec<_> = (0..200).map(|_| balancer.pick().unwrap().addr()).collect();
    addrs.sort_unstable();
    addrs.dedup();
    addrs
}

fn explained<S>(balancer: &Balancer<S>, host: u8) -> Explained {
    let explanation = balancer.explain();
    let mut endpoints = explanation.endpoints().iter();
    endpoints
        .find(|one| one.addr() == pod(host))
        .unwrap()
        .clone()
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_eject_within_one_turn_of_the_driver_and_four_do_not() {
    let (_script, balancer) = balancer(3, |builder| builder).await;
    fail(&balancer, 2, 4).await;
    assert_eq!(picked(&balancer), [pod(1), pod(2), pod(3)]);
    fail(&balancer, 2, 1).await;
    assert_eq!(picked(&balancer), [pod(1), pod(3)]);
    sleep(29 * SECOND).await;
    assert_eq!(picked(&balancer), [pod(1), pod(3)]);
    sleep(2 * SECOND).await;
    assert_eq!(
        picked(&balancer),
        [pod(1), pod(2), pod(3)],
        "on trial, with none in flight"
    );
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_failures_wakes_the_driver_once_a_millisecond() {
    let (balancer, mut driver) = Balancer::builder(Script::new(pods(1..=4))).build();
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    let mut tasks = JoinSet::new();
    tasks.spawn(poll_fn(move |cx| {
        count.fetch_add(1, Relaxed);
        Pin::new(&mut driver).poll(cx)
    }));
    balancer.resolved().await.unwrap();
    let before = polls.load(Relaxed);
    for _ in 0..10 {
        for _ in 0..1000 {
            balancer.unreachable(&endpoint(&balancer, 1));
            endpoint(&balancer, 2).begin().record(Cause::Reset.into());
            yield_now().await;
        }
        sleep(TURN).await;
    }
    let polls = polls.load(Relaxed) - before;
    assert!(polls < 60, "{polls} for 20,000 failures within 10 ms");
    assert_eq!(picked(&balancer), [pod(3), pod(4)]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_on_trial_gets_one_request_at_a_time_until_one_succeeds() {
    let (_script, balancer) = balancer(3, |builder| builder).await;
    fail(&balancer, 2, 5).await;
    sleep(30 * SECOND).await;
    let held: Vec<_> = (0..60).map(|_| balancer.pick().unwrap()).collect();
    let tried = || held.iter().filter(|pick| pick.addr() == pod(2)).count();
    assert_eq!(tried(), 1);
    drop(held);
    succeed(&balancer, 2).await;
    let held: Vec<_> = (0..60).map(|_| balancer.pick().unwrap()).collect();
    let served = held.iter().filter(|pick| pick.addr() == pod(2)).count();
    assert_eq!(served, 20);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_on_trial_stays_away_for_longer() {
    let (_script, balancer) = balancer(3, |builder| builder).await;
    fail(&balancer, 2, 5).await;
    sleep(30 * SECOND).await;
    fail(&balancer, 2, 1).await;
    sleep(59 * SECOND).await;
    assert_eq!(picked(&balancer), [pod(1), pod(3)]);
    sleep(2 * SECOND).await;
    assert_eq!(picked(&balancer).len(), 3);
}

/// G13: at low volume a pod that fails everything costs each client five requests, whatever its policy.
#[tokio::test(start_paused = true)]
async fn a_pod_that_fails_everything_costs_a_client_five_requests() {
    let policies: [Arc<dyn Policy>; 3] = [
        Arc::new(RoundRobin::new()),
        Arc::new(Random::new()),
        Arc::new(LeastRequest::new()),
    ];
    for policy in policies {
        let (_script, balancer) = balancer(20, |builder| builder.policy(Arc::clone(&policy))).await;
        let mut failures = 0;
        // One request every 100 ms, for less than the time of an ejection.
        for _ in 0..290 {
            let mut pick = balancer.pick().unwrap();
            sleep(TURN).await;
            let fails = pick.addr() == pod(7);
            failures += u32::from(fails);
            pick.record(match fails {
                true => Cause::Status(500).into(),
                false => Outcome::Success,
            });
            drop(pick);
            sleep(99 * TURN).await;
        }
        assert!((1..=5).contains(&failures), "{failures}");
    }
}

/// What the pods of a balanced tower service do with their requests.
#[derive(Clone, Copy, PartialEq)]
enum Pods {
    /// The seventh of ten answers nothing any more.
    OneHangs,
    /// All answer, the seventh later than its callers wait, which is a millisecond.
    OneIsSlower,
}

/// Callers that come every 100 ms, and give up after `patience`: how many were picked for the seventh pod, and
/// whether it was ejected in the end.
async fn callers_give_up(
    policy: Arc<dyn Policy>,
    pods_are: Pods,
    patience: Duration,
) -> (usize, bool) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let balancer = Balancer::builder(Script::new(pods(1..=10)))
        .policy(policy)
        .spawn_with(move |endpoint: &Arc<Endpoint>| {
            let (is_it, count) = (endpoint.addr() == pod(7), Arc::clone(&count));
            tower::service_fn(move |(): ()| {
                count.fetch_add(usize::from(is_it), Relaxed);
                async move {
                    match (is_it, pods_are) {
                        (false, _) => {}
                        (true, Pods::OneHangs) => std::future::pending().await,
                        (true, Pods::OneIsSlower) => sleep(2 * TURN).await,
                    }
                    Ok::<_, std::convert::Infallible>(())
                }
            })
        });
    balancer.resolved().await.unwrap();
    let mut callers = JoinSet::new();
    // Less than an ejection takes, from the first that can be.
    for _ in 0..290 {
        let balancer = balancer.clone();
        callers.spawn(async move { timeout(patience, balancer.oneshot(())).await.is_ok() });
        sleep(100 * TURN).await;
    }
    callers.join_all().await;
    let is_ejected = explained(&balancer, 7).state() == EndpointState::Ejected;
    (seen.load(Relaxed), is_ejected)
}

fn untimed() -> [Arc<dyn Policy>; 3] {
    [
        Arc::new(RoundRobin::new()),
        Arc::new(Random::seeded(1)),
        Arc::new(LeastRequest::seeded(1)),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_hangs_is_ejected_though_the_policy_reads_no_clock_and_only_its_callers_give_up()
{
    for policy in untimed() {
        let (requests, is_ejected) = callers_give_up(policy, Pods::OneHangs, 2 * SECOND).await;
        // Five that count, the first, which nobody noted, and those under way. `LeastRequest` sends it hardly any.
        assert!(requests < 20, "{requests}");
        assert!(is_ejected || requests <= 5, "{requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_callers_all_give_up_at_once_is_not_ejected() {
    for policy in untimed() {
        let (requests, is_ejected) = callers_give_up(policy, Pods::OneIsSlower, TURN).await;
        assert!(!is_ejected && requests >= 15, "{requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_pod_and_the_last_one_stay_however_they_fail() {
    let (_script, single) = balancer(1, |builder| builder).await;
    fail(&single, 1, 500).await;
    assert_eq!(picked(&single), [pod(1)]);
    assert_eq!(single.status().ejections_spared(), 1);
    let all = Ejection::new().max_percent(100);
    let (_script, two) = balancer(2, |builder| builder.eject(all.clone())).await;
    fail(&two, 1, 5).await;
    fail(&two, 2, 500).await;
    assert_eq!(picked(&two), [pod(2)]);
}

#[tokio::test(start_paused = true)]
async fn never_below_half_of_the_pods() {
    let all = Ejection::new().max_percent(100);
    let (_script, balancer) = balancer(10, |builder| builder.eject(all.clone())).await;
    for host in 1..=10 {
        fail(&balancer, host, 50).await;
    }
    assert_eq!(picked(&balancer).len(), 5);
    assert!(!balancer.status().is_panic());
    // Fewer for another reason: opinion is ignored.
    balancer.unreachable(&endpoint(&balancer, 10));
    sleep(TURN).await;
    assert_eq!(picked(&balancer).len(), 9);
    assert!(balancer.status().is_panic());
    let one = explained(&balancer, 1);
    assert_eq!(one.state(), EndpointState::Available);
    assert!(
        one.reason()
            .unwrap()
            .ends_with("ignored, too few would remain"),
        "{one}"
    );
    assert!(balancer.explain().is_panic() && balancer.explain().to_string().contains("panic"));
}

#[tokio::test(start_paused = true)]
async fn an_ejection_outlives_a_change_of_the_set() {
    let (script, balancer) = balancer(4, |builder| builder).await;
    fail(&balancer, 2, 5).await;
    script.say(pods([1, 2, 3, 5]));
    sleep(10 * SECOND).await;
    assert_eq!(picked(&balancer), [pod(1), pod(3), pod(5)]);
    assert_eq!(explained(&balancer, 2).state(), EndpointState::Ejected);
    assert_eq!(balancer.explain().draining(), 1);
}

#[tokio::test(start_paused = true)]
async fn late_failures_of_requests_that_were_in_flight_change_nothing() {
    let (_script, balancer) = balancer(3, |builder| builder).await;
    let late: Vec<_> = (0..4).map(|_| endpoint(&balancer, 2).begin()).collect();
    let mut late = late.into_iter();
    fail(&balancer, 2, 5).await;
    sleep(20 * SECOND).await;
    late.by_ref()
        .take(2)
        .for_each(|mut one| one.record(Cause::TimedOut.into()));
    sleep(11 * SECOND).await;
    assert!(endpoint(&balancer, 2).is_on_trial());
    late.for_each(|mut one| one.record(Cause::TimedOut.into()));
    sleep(TURN).await;
    assert!(
        endpoint(&balancer, 2).is_on_trial(),
        "they tell of the time before"
    );
    succeed(&balancer, 2).await;
    assert_eq!(explained(&balancer, 2).state(), EndpointState::Available);
    fail(&balancer, 2, 4).await;
    assert_eq!(explained(&balancer, 2).state(), EndpointState::Available);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_refuses_while_it_is_ejected_is_aside_until_both_are_over() {
    let (_script, balancer) = balancer(5, |builder| builder).await;
    fail(&balancer, 2, 5).await;
    sleep(25 * SECOND).await;
    for _ in 0..8 {
        balancer.unreachable(&endpoint(&balancer, 2));
        sleep(16 * SECOND).await;
    }
    let one = explained(&balancer, 2);
    assert_eq!(one.state(), EndpointState::OnTrial, "{one}");
    balancer.unreachable(&endpoint(&balancer, 2));
    sleep(TURN).await;
    let one = explained(&balancer, 2);
    assert_eq!(one.state(), EndpointState::Refused, "{one}");
    balancer.reached(&endpoint(&balancer, 2));
    sleep(TURN).await;
    assert!(endpoint(&balancer, 2).is_on_trial());
    assert_eq!(picked(&balancer).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_explanation_tells_the_state_the_reason_and_what_comes_next() {
    let (_script, balancer) = balancer(3, |builder| builder.slow_start(10 * SECOND)).await;
    sleep(SECOND).await;
    let text = explained(&balancer, 2).to_string();
    assert_eq!(
        text,
        "10.0.0.2:80 available | 0 in flight, 0 succeeded, 0 failed"
    );

    end(&balancer, 2, 5, Cause::Refused.into());
    sleep(12 * SECOND).await;
    let one = explained(&balancer, 2);
    assert_eq!(
        one.to_string(),
        "10.0.0.2:80 ejected 12 s ago: 5 failures in a row, last: connection refused; returns in 18 s | \
         0 in flight, 0 succeeded, 5 failed, last: connection refused"
    );
    assert_eq!((one.rule(), one.streak()), (Some("consecutive"), 5));
    assert_eq!(one.since().unwrap() + one.until().unwrap(), 30 * SECOND);
    let view = balancer.to_string();
    assert!(
        view.contains(
            "ejected            0  13 s  5 failures in a row, last: connection refused; 18 s left"
        ),
        "{view}"
    );

    sleep(18 * SECOND + TURN).await;
    let text = explained(&balancer, 2).to_string();
    assert!(
        text.starts_with(
            "10.0.0.2:80 on trial for 0.0 s: 5 failures in a row, last: connection refused | "
        ),
        "{text}"
    );

    succeed(&balancer, 2).await;
    sleep(2 * SECOND).await;
    let one = explained(&balancer, 2);
    assert!(
        one.to_string()
            .starts_with("10.0.0.2:80 starting for 2.0 s at 20 % of its share; whole in 8.0 s | "),
        "{one}"
    );
    sleep(8 * SECOND).await;
    let one = explained(&balancer, 2);
    assert_eq!(
        (one.state(), one.reason()),
        (EndpointState::Available, None)
    );
    assert_eq!(one.last_failure(), Some(Cause::Refused));

    balancer.unreachable(&endpoint(&balancer, 3));
    sleep(TURN).await;
    let text = explained(&balancer, 3).to_string();
    assert!(
        text.starts_with("10.0.0.3:80 refused 0.0 s ago: connection refused; returns in 0.1 s"),
        "{text}"
    );
    let text = balancer.explain().to_string();
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("web.default: 3 endpoints, answer ")
            && first.ends_with(" 3 added and 0 removed so far, 1 ejected so far"),
        "{first}"
    );
    assert_eq!(text.lines().count(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_joins_gets_more_and_more_of_its_share() {
    let (script, balancer) = balancer(3, |builder| {
        builder.policy(RoundRobin::new()).slow_start(20 * SECOND)
    })
    .await;
    script.say(pods(1..=4));
    while balancer.endpoints().len() < 4 {
        sleep(100 * TURN).await;
    }
    let mut shares = Vec::new();
    for _ in 0..6 {
        let picks = (0..4000).map(|_| balancer.pick().unwrap().addr());
        shares.push(picks.filter(|addr| *addr == pod(4)).count());
        sleep(4 * SECOND).await;
    }
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(shares[0] < 135 && shares[5] >= 990, "{shares:?}");
}

#[cfg(feature = "serde")]
#[tokio::test(start_paused = true)]
async fn an_explanation_is_written_as_data_under_names_that_stay() {
    let (_script, balancer) = balancer(2, |builder| builder).await;
    sleep(SECOND).await;
    end(&balancer, 2, 5, Cause::Grpc(14).into());
    sleep(12 * SECOND).await;
    let json = serde_json::to_value(balancer.explain()).unwrap();
    let of = |value: &serde_json::Value| -> Vec<String> {
        value.as_object().unwrap().keys().cloned().collect()
    };
    let mut names = of(&json);
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "added",
            "age_seconds",
            "answered_seconds",
            "draining",
            "ejections",
            "endpoints",
            "error",
            "generation",
            "is_closed",
            "is_panic",
            "outcome",
            "removed",
            "service",
            "ttl_seconds"
        ]
    );
    let one = json["endpoints"].as_array().unwrap();
    let one = one.iter().find(|one| one["addr"] == "10.0.0.2:80").unwrap();
    let mut names = of(one);
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "addr",
            "age_seconds",
            "failed",
            "last_failure",
            "latency_seconds",
            "name",
            "pending",
            "reason",
            "role",
            "rule",
            "share",
            "since_seconds",
            "state",
            "streak",
            "succeeded",
            "until_seconds"
        ]
    );
    assert_eq!(one["state"], "ejected");
    assert_eq!(one["rule"], "consecutive");
    assert_eq!(one["reason"], "5 failures in a row, last: gRPC UNAVAILABLE");
    assert_eq!(one["last_failure"], "gRPC UNAVAILABLE");
    assert_eq!(one["role"], serde_json::Value::Null);
    let seconds = |name: &str| one[name].as_f64().unwrap();
    assert!((seconds("since_seconds") - 12.0).abs() < 0.01);
    assert!((seconds("until_seconds") - 18.0).abs() < 0.01);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_to_come_that_nobody_will_do() {
    let script = Script::new(pods(1..=5));
    let (balancer, driver) = Balancer::builder(script).build();
    let mut driving = JoinSet::new();
    driving.spawn(driver);
    balancer.resolved().await.unwrap();
    fail(&balancer, 2, 5).await;
    assert!(explained(&balancer, 2).until().is_some());
    driving.shutdown().await;
    sleep(3600 * SECOND).await;
    let text = explained(&balancer, 2).to_string();
    assert_eq!(explained(&balancer, 2).until(), None, "{text}");
}
