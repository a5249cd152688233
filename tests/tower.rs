//! The balancer as a tower service: readiness decides, unsent requests move on, errors name everything.

mod support;

use std::{
    future::{Future, Pending, Ready, pending, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::Either;
use headless_lb::{
    Balancer, Builder, Cause, Endpoint, Error, Fixed, Outcome, PeakEwma, PickError, Random,
    RoundRobin,
};
use support::script::{Script, nxdomain, pod, pods, servfail};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

/// A pod that answers with its port's host byte; or refuses, or hangs, by its address.
#[derive(Clone)]
struct FakePod {
    host: u8,
    behaviour: fn(u8) -> Behaviour,
    seen: Arc<AtomicUsize>,
}

#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    Answers,
    FailsInCall,
    Hangs,
    IsNeverReady,
    IsReadyAfter(Duration),
    Refuses,
}

impl Service<String> for FakePod {
    type Response = (u8, String);
    type Error = io::Error;
    type Future = Either<Ready<io::Result<(u8, String)>>, Pending<io::Result<(u8, String)>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match (self.behaviour)(self.host) {
            Behaviour::Refuses => {
                self.seen.fetch_add(1, Relaxed);
                Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
            }
            Behaviour::IsNeverReady => Poll::Pending,
            Behaviour::IsReadyAfter(time) => {
                self.behaviour = |_| Behaviour::Answers;
                let waker = cx.waker().clone();
                #[expect(clippy::disallowed_methods, reason = "a pod that takes its time")]
                tokio::spawn(async move {
                    sleep(time).await;
                    waker.wake();
                });
                Poll::Pending
            }
            _ => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: String) -> Self::Future {
        self.seen.fetch_add(1, Relaxed);
        Either::Left(ready(match (self.behaviour)(self.host) {
            Behaviour::FailsInCall => Err(io::ErrorKind::ConnectionReset.into()),
            Behaviour::Hangs => return Either::Right(pending()),
            _ => Ok((self.host, request)),
        }))
    }
}

fn fixed(n: u8) -> Builder {
    Balancer::builder(Fixed::new((1..=n).map(pod)))
}

/// Spawns fake pods, and counts what they see: calls, and refused readiness.
fn spawn(
    builder: &Builder,
    behaviour: fn(u8) -> Behaviour,
) -> (Balancer<FakePod>, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let balancer = builder.spawn_with(move |endpoint: &Arc<Endpoint>| FakePod {
        host: support::script::hosts(&headless_lb::EndpointSet::of([endpoint.addr()]))[0],
        behaviour,
        seen: Arc::clone(&counter),
    });
    (balancer, seen)
}

#[tokio::test(start_paused = true)]
async fn every_call_goes_to_the_endpoint_that_the_policy_picks() {
    let (balancer, _) = spawn(&fixed(3).policy(RoundRobin::new()), |_| Behaviour::Answers);
    let mut shares = [0; 4];
    for i in 0..30 {
        let (host, echo) = balancer
            .clone()
            .oneshot(format!("request {i}"))
            .await
            .unwrap();
        assert_eq!(echo, format!("request {i}"));
        shares[usize::from(host)] += 1;
    }
    assert_eq!(shares, [0, 10, 10, 10]);
}

#[tokio::test(start_paused = true)]
async fn an_unsent_request_moves_to_the_next_endpoint_whole() {
    let (balancer, _) = spawn(&fixed(3), |host| match host {
        3 => Behaviour::Answers,
        _ => Behaviour::Refuses,
    });
    for i in 0..20 {
        let (host, echo) = balancer
            .clone()
            .oneshot(format!("request {i}"))
            .await
            .unwrap();
        assert_eq!((host, echo), (3, format!("request {i}")));
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_refused_is_set_aside_for_later_calls() {
    let (balancer, seen) = spawn(&fixed(2).policy(RoundRobin::new()), |host| match host {
        2 => Behaviour::Answers,
        _ => Behaviour::Refuses,
    });
    balancer.resolved().await.unwrap();
    while seen.load(Relaxed) < 2 {
        balancer.clone().oneshot(String::new()).await.unwrap();
    }
    tokio::task::yield_now().await;
    seen.store(0, Relaxed);
    for _ in 0..100 {
        balancer.clone().oneshot(String::new()).await.unwrap();
    }
    assert_eq!(
        seen.load(Relaxed),
        100,
        "the refusing pod was asked again within its absence"
    );
}

#[tokio::test(start_paused = true)]
async fn each_endpoint_is_tried_at_most_once_and_the_error_lists_them() {
    let (balancer, seen) = spawn(&fixed(3), |_| Behaviour::Refuses);
    let error = balancer.oneshot(String::new()).await.unwrap_err();
    assert_eq!(seen.load(Relaxed), 3);
    assert!(error.is_unsent());
    let text = error.to_string();
    for host in 1..=3 {
        assert!(text.contains(&pod(host).to_string()), "{text}");
    }
    let Error::Unsent { tried, error, .. } = error else {
        panic!("{text}")
    };
    assert_eq!(
        (tried.len(), error.kind()),
        (3, io::ErrorKind::ConnectionRefused)
    );
}

#[tokio::test(start_paused = true)]
async fn the_number_of_tries_is_bounded() {
    let (balancer, seen) = spawn(&fixed(50), |_| Behaviour::Refuses);
    balancer.oneshot(String::new()).await.unwrap_err();
    assert_eq!(seen.load(Relaxed), 5);
    let (balancer, seen) = spawn(&fixed(50).max_attempts(1), |_| Behaviour::Refuses);
    balancer.oneshot(String::new()).await.unwrap_err();
    assert_eq!(seen.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_sent_stays_where_it_is() {
    let (balancer, seen) = spawn(&fixed(3), |_| Behaviour::FailsInCall);
    let error = balancer.oneshot(String::new()).await.unwrap_err();
    assert_eq!(seen.load(Relaxed), 1);
    assert!(!error.is_unsent());
    let text = error.to_string();
    let Error::Service { endpoint, .. } = error else {
        panic!("{text}")
    };
    assert!(
        text.contains(&endpoint.addr().to_string()) && text.contains("fixed list"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_is_awaited_on_the_endpoint_that_is_then_called() {
    let (balancer, _) = spawn(&fixed(1), |_| Behaviour::IsReadyAfter(3 * SECOND));
    let start = Instant::now();
    balancer.clone().oneshot(String::new()).await.unwrap();
    assert_eq!(start.elapsed(), 3 * SECOND);
    // The balancer itself is always ready.
    let mut balancer = balancer;
    let ready = ServiceExt::<String>::ready(&mut balancer);
    assert!(tokio::time::timeout(Duration::ZERO, ready).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_from_pick_to_response_and_not_after_a_cancel() {
    let (balancer, _) = spawn(&fixed(1), |_| Behaviour::IsReadyAfter(3 * SECOND));
    balancer.resolved().await.unwrap();
    let endpoint = Arc::clone(balancer.endpoints().iter().next().unwrap());
    let mut call = Box::pin(balancer.clone().oneshot(String::new()));
    assert!(std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await);
    assert_eq!(endpoint.pending(), 1);
    drop(call);
    assert_eq!(endpoint.pending(), 0);
    balancer.oneshot(String::new()).await.unwrap();
    assert_eq!(endpoint.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_call_before_the_first_answer_waits_for_it() {
    let script = Script::new(pods(1..=2));
    script.takes(4 * SECOND);
    let (balancer, _) = spawn(&Balancer::builder(script), |_| Behaviour::Answers);
    let start = Instant::now();
    balancer.oneshot(String::new()).await.unwrap();
    assert_eq!(start.elapsed(), 4 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_in_vain_ends_with_the_cause_that_dns_gave() {
    let (balancer, _) = spawn(&Balancer::builder(Script::new(servfail())), |_| {
        Behaviour::Answers
    });
    let start = Instant::now();
    let error = balancer.oneshot(String::new()).await.unwrap_err();
    assert_eq!(start.elapsed(), 10 * SECOND);
    let text = error.to_string();
    assert!(
        matches!(error, Error::Pick(PickError::Unresolved(_))),
        "{text}"
    );
    assert!(
        text.contains("web.default") && text.contains("SERVFAIL") && text.contains("10.96.0.10"),
        "{text}"
    );
    // What a `main` that returns it prints.
    assert_eq!(format!("{error:?}"), format!("Pick(Unresolved({text}))"));
}

#[tokio::test(start_paused = true)]
async fn without_endpoints_a_call_fails_at_once_or_waits_as_told() {
    let script = Script::new(nxdomain());
    let (balancer, _) = spawn(&Balancer::builder(script.clone()), |_| Behaviour::Answers);
    let start = Instant::now();
    let error = balancer.oneshot(String::new()).await.unwrap_err();
    assert!(
        matches!(error, Error::Pick(PickError::NoEndpoints(_))),
        "{error}"
    );
    assert!(start.elapsed() < SECOND);

    let patient = Balancer::builder(script.clone()).wait_when_empty(30 * SECOND);
    let (balancer, _) = spawn(&patient, |_| Behaviour::Answers);
    let start = Instant::now();
    balancer.clone().oneshot(String::new()).await.unwrap_err();
    assert_eq!(start.elapsed(), 30 * SECOND);
    script.say(pods([1]));
    balancer.oneshot(String::new()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_driver_is_told_to_those_who_wait() {
    let (balancer, driver) = Balancer::builder(Script::new(servfail())).build();
    let start = Instant::now();
    let wait = async { balancer.resolved().await };
    let stop = async {
        tokio::select! { () = driver => {}, () = sleep(2 * SECOND) => {} }
    };
    let (result, ()) = tokio::join!(wait, stop);
    assert!(matches!(result, Err(PickError::Closed(_))), "{result:?}");
    assert_eq!(start.elapsed(), 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_layer_stands_in_a_stack() {
    let stack = ServiceBuilder::new()
        .timeout(SECOND)
        .layer(fixed(2).policy(Random::new()).layer())
        .service(|endpoint: &Arc<Endpoint>| {
            let addr = endpoint.addr();
            tower::service_fn(move |request: String| async move {
                io::Result::Ok(format!("{request} at {addr}"))
            })
        });
    let answer = stack.oneshot("hello".to_owned()).await.unwrap();
    assert!(answer.starts_with("hello at 10.0.0."), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn pick_many_gives_distinct_endpoints_and_never_more_than_there_are() {
    let balancer = fixed(5).spawn();
    balancer.resolved().await.unwrap();
    for n in 0..8 {
        let picks = balancer.pick_many(n).unwrap();
        let distinct: std::collections::BTreeSet<_> =
            picks.iter().map(|pick| pick.addr()).collect();
        assert_eq!((picks.len(), distinct.len()), (n.min(5), n.min(5)));
    }
    assert!(
        balancer
            .endpoints()
            .iter()
            .all(|endpoint| endpoint.pending() == 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_ones_own_sees_the_key() {
    let balancer = fixed(5).policy(headless_lb::policy_fn(|candidates| {
        candidates.choose(candidates.key()? as usize % candidates.len())
    }));
    let balancer = balancer.spawn();
    balancer.resolved().await.unwrap();
    let of = |key: &str| balancer.pick_for(key).unwrap().addr();
    assert!((0..20).all(|_| of("cart 7") == of("cart 7")));
    let spread: std::collections::BTreeSet<_> = (0..50).map(|i| of(&format!("cart {i}"))).collect();
    assert_eq!(spread.len(), 5);
    assert!(
        matches!(balancer.pick(), Err(PickError::NoCandidate(_))),
        "without a key it takes none"
    );
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_endpoints_work() {
    let many = (0..10_000_u32)
        .map(|i| std::net::SocketAddr::new(std::net::Ipv4Addr::from(0x0a00_0000 + i).into(), 80));
    let balancer = Balancer::builder(Fixed::new(many))
        .policy(RoundRobin::new())
        .spawn();
    balancer.resolved().await.unwrap();
    let picked: std::collections::BTreeSet<_> = (0..10_000)
        .map(|_| balancer.pick().unwrap().addr())
        .collect();
    assert_eq!(picked.len(), 10_000, "round robin, on one thread");
    assert_eq!(balancer.pick_many(10_000).unwrap().len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn a_pod_may_have_layers_of_its_own() {
    // A timeout for each try makes the error a boxed one, which the stack above takes all the same.
    let stack = ServiceBuilder::new()
        .timeout(SECOND)
        .layer(fixed(2).layer())
        .service(|endpoint: &Arc<Endpoint>| {
            let addr = endpoint.addr();
            let pod = tower::service_fn(move |(): ()| async move { io::Result::Ok(addr) });
            tower::timeout::Timeout::new(pod, SECOND)
        });
    stack.oneshot(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_together_set_a_pod_aside_once_and_briefly() {
    // In turn: once it is back, one of two picks is of it.
    let balancer = fixed(2).policy(RoundRobin::new()).spawn();
    balancer.resolved().await.unwrap();
    let pod = Arc::clone(balancer.endpoints().iter().next().unwrap());
    (0..100).for_each(|_| balancer.unreachable(&pod));
    sleep(Duration::from_millis(10)).await;
    assert!((0..10).all(|_| balancer.pick().unwrap().endpoint().id() != pod.id()));
    sleep(Duration::from_millis(120)).await;
    assert!((0..10).any(|_| balancer.pick().unwrap().endpoint().id() == pod.id()));
}

#[tokio::test(start_paused = true)]
async fn pick_many_by_round_robin_is_even() {
    let balancer = fixed(3).policy(RoundRobin::new()).spawn();
    balancer.resolved().await.unwrap();
    let mut shares = std::collections::BTreeMap::new();
    for _ in 0..300 {
        for pick in balancer.pick_many(2).unwrap() {
            *shares.entry(pick.addr()).or_insert(0) += 1;
        }
    }
    assert!(shares.values().all(|share| *share == 200), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_wants_a_key_fails_a_call_without_one_and_does_not_spin() {
    let by_key = headless_lb::policy_fn(|candidates| {
        candidates.choose(candidates.key()? as usize % candidates.len())
    });
    let (balancer, _) = spawn(&fixed(3).policy(by_key).wait_when_empty(SECOND), |_| {
        Behaviour::Answers
    });
    let call = tokio::time::timeout(10 * SECOND, balancer.oneshot(String::new()));
    let error = call.await.expect("an end").unwrap_err();
    assert!(
        matches!(error, Error::Pick(PickError::NoCandidate(_))),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_first_call_through_a_role_waits_for_the_probe() {
    let probe = headless_lb::probe_fn(|endpoint: &Endpoint| {
        let primary = endpoint.addr() == pod(2);
        async move {
            sleep(Duration::from_millis(50)).await;
            let role = if primary {
                headless_lb::Role::Primary
            } else {
                headless_lb::Role::Replica
            };
            Ok(role.into())
        }
    });
    let (balancer, _) = spawn(&fixed(3).policy(headless_lb::Primary).probe(probe), |_| {
        Behaviour::Answers
    });
    assert_eq!(balancer.clone().oneshot(String::new()).await.unwrap().0, 2);
    // Known to be none: at once.
    let nobody =
        headless_lb::probe_fn(|_: &Endpoint| async { Ok(headless_lb::Role::Replica.into()) });
    let (balancer, _) = spawn(&fixed(3).policy(headless_lb::Primary).probe(nobody), |_| {
        Behaviour::Answers
    });
    let start = Instant::now();
    let error = balancer.oneshot(String::new()).await.unwrap_err();
    assert!(
        matches!(error, Error::Pick(PickError::NoCandidate(_))),
        "{error}"
    );
    assert!(start.elapsed() < SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_is_not_set_aside() {
    let probe = headless_lb::probe_fn(|endpoint: &Endpoint| {
        let primary = endpoint.addr() == pod(1);
        async move {
            Ok(if primary {
                headless_lb::Role::Primary
            } else {
                headless_lb::Role::Replica
            }
            .into())
        }
    });
    let readers = fixed(2)
        .policy(headless_lb::Replica(RoundRobin::new()))
        .probe(probe)
        .spawn();
    readers.resolved().await.unwrap();
    let replica = Arc::clone(readers.pick().unwrap().endpoint());
    readers.unreachable(&replica);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(readers.pick().unwrap().addr(), pod(2));
}

#[tokio::test(start_paused = true)]
async fn one_lost_probe_answer_does_not_end_a_primary() {
    struct Lossy(AtomicUsize);
    impl headless_lb::Probe for Lossy {
        type Session = ();
        async fn open(
            &self,
            _: &Endpoint,
        ) -> Result<((), Option<headless_lb::Observation>), headless_lb::ProbeError> {
            sleep(Duration::from_millis(200)).await;
            Ok(((), None))
        }
        async fn observe(
            &self,
            _: &Endpoint,
            (): &mut (),
        ) -> Result<headless_lb::Observation, headless_lb::ProbeError> {
            if self.0.fetch_add(1, Relaxed) % 4 == 3 {
                std::future::pending::<()>().await;
            }
            Ok(headless_lb::Role::Primary.into())
        }
        fn interval(&self) -> Duration {
            Duration::from_millis(250)
        }
    }
    let writer = fixed(1)
        .policy(headless_lb::Primary)
        .probe(Lossy(AtomicUsize::new(0)))
        .spawn();
    writer.resolved().await.unwrap();
    for _ in 0..5000 {
        sleep(Duration::from_millis(20)).await;
        assert!(writer.pick().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_panics_ends_discovery_visibly() {
    let script = Script::from_fn(|at| {
        if at > SECOND {
            panic!("a bug in a resolver")
        } else {
            pods([1])
        }
    });
    let balancer = Balancer::builder(script).spawn();
    balancer.resolved().await.unwrap();
    sleep(20 * SECOND).await;
    assert!(balancer.pick().is_ok(), "what is known stays");
    assert!(balancer.status().is_closed());
    assert!(
        balancer.to_string().contains("discovery has ended"),
        "{balancer}"
    );
}

#[tokio::test(start_paused = true)]
async fn absurd_durations_are_only_long_or_short() {
    for absurd in [Duration::MAX, Duration::ZERO] {
        let script = Script::new(Ok(headless_lb::Resolution::new([pod(1)]).valid_for(absurd)));
        let probe =
            headless_lb::probe_fn(|_: &Endpoint| async { Ok(headless_lb::Role::Primary.into()) });
        let builder = Balancer::builder(script.clone())
            .refresh_interval(absurd)
            .min_interval(absurd)
            .respect_ttl(absurd)
            .max_stale(absurd)
            .linger(absurd)
            .initial_timeout(absurd)
            .wait_when_empty(absurd)
            .empty(headless_lb::EmptyMode::Confirm {
                answers: 0,
                over: absurd,
            })
            .max_attempts(0)
            .probe(probe);
        let (balancer, _) = spawn(&builder, |_| Behaviour::Answers);
        sleep(SECOND).await;
        balancer.clone().oneshot(String::new()).await.unwrap();
        script.say(Err(headless_lb::ResolveError::empty().holds_for(absurd)));
        balancer.refresh();
        sleep(3 * SECOND).await;
        script.say(servfail());
        balancer.refresh();
        sleep(3 * SECOND).await;
        script.say(pods(1..=2));
        balancer.refresh();
        sleep(3 * SECOND).await;
        assert!(balancer.pick().is_ok(), "{balancer}");
        balancer.unreachable(balancer.pick().unwrap().endpoint());
        sleep(3 * SECOND).await;
        balancer.oneshot(String::new()).await.unwrap();
        assert!(
            script.asked().len() < 20_000,
            "{} questions in 13 s",
            script.asked().len()
        );
    }
}

/// The one endpoint of a balancer whose requests are timed.
async fn timed(behaviour: fn(u8) -> Behaviour) -> (Balancer<FakePod>, Arc<Endpoint>) {
    let (balancer, _) = spawn(&fixed(1).policy(PeakEwma::new()), behaviour);
    balancer.resolved().await.expect("an endpoint");
    let endpoint = Arc::clone(balancer.endpoints().iter().next().expect("an endpoint"));
    (balancer, endpoint)
}

/// Successes, failures, failures in a row, and why the last one failed.
fn left(endpoint: &Endpoint) -> (u32, u32, u32, Option<Cause>) {
    let counts = (endpoint.succeeded(), endpoint.failed(), endpoint.streak());
    (counts.0, counts.1, counts.2, endpoint.last_failure())
}

#[tokio::test(start_paused = true)]
async fn a_response_is_a_success_an_error_a_failure_and_what_was_not_sent_neither() {
    for (behaviour, expected) in [
        (
            (|_| Behaviour::Answers) as fn(u8) -> Behaviour,
            (1, 0, 0, None),
        ),
        (|_| Behaviour::FailsInCall, (0, 1, 1, Some(Cause::Other))),
        (|_| Behaviour::Refuses, (0, 0, 0, Some(Cause::Unreachable))),
    ] {
        let (balancer, endpoint) = timed(behaviour).await;
        let _ = balancer.oneshot(String::new()).await;
        assert_eq!(left(&endpoint), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_timed_from_when_its_endpoint_was_ready() {
    let (balancer, endpoint) = timed(|_| Behaviour::IsReadyAfter(3 * SECOND)).await;
    balancer.oneshot(String::new()).await.unwrap();
    let latency = endpoint.latency(Instant::now()).unwrap();
    assert!(latency < SECOND, "{latency:?}");
    assert_eq!(left(&endpoint), (1, 0, 0, None));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_gives_up_after_a_second_means_the_endpoint_that_has_the_call() {
    let (balancer, endpoint) = timed(|_| Behaviour::Hangs).await;
    for (patience, expected) in [
        (SECOND / 2, (0, 0, 0, None)),
        (SECOND, (0, 1, 1, Some(Cause::GaveUp))),
    ] {
        let call = balancer.clone().oneshot(String::new());
        assert!(tokio::time::timeout(patience, call).await.is_err());
        assert_eq!(left(&endpoint), expected, "after {patience:?}");
    }
    let (balancer, endpoint) = timed(|_| Behaviour::IsNeverReady).await;
    let call = balancer.oneshot(String::new());
    assert!(tokio::time::timeout(9 * SECOND, call).await.is_err());
    assert_eq!(left(&endpoint), (0, 0, 0, None), "it did not have the call");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_goes_by_no_time_has_requests_counted_and_not_timed() {
    let (balancer, _) = spawn(&fixed(1).policy(RoundRobin::new()), |_| Behaviour::Answers);
    balancer.resolved().await.unwrap();
    balancer.clone().oneshot(String::new()).await.unwrap();
    let endpoint = Arc::clone(balancer.endpoints().iter().next().unwrap());
    assert_eq!(left(&endpoint), (1, 0, 0, None));
    assert_eq!(endpoint.latency(Instant::now()), None);
}

#[tokio::test(start_paused = true)]
async fn the_user_may_say_what_an_answer_means() {
    let (balancer, endpoint) = timed(|_| Behaviour::Answers).await;
    let service = balancer
        .clone()
        .classify(|answer: &io::Result<(u8, String)>| match answer {
            Ok((_, echo)) if echo == "busy" => Cause::TimedOut.into(),
            Ok((_, echo)) if echo == "poll" => Outcome::Ignore,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::Ignore,
        });
    for (request, expected) in [
        ("busy", (0, 1, 1, Some(Cause::TimedOut))),
        ("poll", (0, 1, 1, Some(Cause::TimedOut))),
        ("other", (1, 1, 0, Some(Cause::TimedOut))),
    ] {
        let (_, echo) = service.clone().oneshot(request.to_owned()).await.unwrap();
        assert_eq!((echo.as_str(), left(&endpoint)), (request, expected));
    }
}
