//! What a service tells an exporter: each metric moves for its cause, and for nothing else.

#![expect(
    clippy::disallowed_methods,
    reason = "drivers that a test ends are tasks of their own"
)]

#[path = "metrics/client.rs"]
mod client;
#[path = "metrics/page.rs"]
mod page;
#[path = "metrics/server.rs"]
mod server;
mod support;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use headless_lb::{
    Balancer, Builder, Cause, Check, Endpoint, Fixed, Observation, PickError, ProbeError,
    Resolution, ResolveError, ResolveErrorKind, Role, Subset, Term, meter::METRICS, policy_fn,
    probe_fn,
};
use page::Recorded;
use support::script::{Script, nxdomain, pod, pods, servfail};
use tokio::time::sleep;

const SECOND: Duration = Duration::from_secs(1);

/// Within which the driver looks, and a little more.
const BEAT: Duration = Duration::from_millis(1_010);

fn builder(script: &Script) -> Builder {
    Balancer::builder(script.clone()).seed(7)
}

/// A scripted service, its endpoints known.
async fn resolved(recorded: &Recorded, script: &Script) -> Balancer {
    let balancer = recorded.while_building(|| builder(script).spawn());
    balancer.resolved().await.expect("endpoints");
    balancer
}

// ===== the list =====

const DOCUMENTATION: &str = include_str!("../src/meter.rs");

/// The rows of the table in the module's documentation: name, type, unit, label.
fn documented() -> BTreeSet<[String; 4]> {
    let rows = DOCUMENTATION
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `headless_lb_"));
    rows.map(|row| {
        let cells: Vec<&str> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        [
            format!("headless_lb_{}", cells[0]),
            cells[1].to_owned(),
            cells[2].to_owned(),
            cells[3].to_owned(),
        ]
    })
    .collect()
}

#[test]
fn the_documented_table_and_the_list_are_one() {
    let listed: BTreeSet<[String; 4]> = METRICS
        .iter()
        .map(|metric| {
            [
                metric.name.to_owned(),
                format!("{:?}", metric.kind).to_lowercase(),
                metric.unit.as_str().to_owned(),
                metric.label.unwrap_or("-").to_owned(),
            ]
        })
        .collect();
    assert_eq!(documented(), listed);
    assert_eq!(listed.len(), METRICS.len(), "a metric is listed twice");
}

#[test]
fn the_values_of_every_label_are_documented() {
    for metric in METRICS {
        // Those of failed questions stand at the kind of the error.
        for value in metric
            .values
            .iter()
            .filter(|_| metric.label != Some("result"))
        {
            assert!(
                DOCUMENTATION.contains(&format!("`{value}`")),
                "{}: {value}",
                metric.name
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_metric_of_the_list_is_on_the_page_and_no_other() {
    let recorded = Recorded::new();
    let balancer = resolved(&recorded, &Script::new(pods(1..=3))).await;
    let page = recorded.page();
    let mut listed = BTreeSet::new();
    for metric in METRICS {
        assert_eq!(page.help(metric.name), Some(metric.help), "{}", metric.name);
        match metric.label {
            None => {
                listed.insert((metric.name.to_owned(), None));
            }
            Some(label) => listed.extend(
                metric
                    .values
                    .iter()
                    .map(|value| (metric.name.to_owned(), Some(format!("{label}={value}")))),
            ),
        }
    }
    assert_eq!(page.series(), listed);
    drop(balancer);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_series_does_not_grow_with_the_pods() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&recorded, &script).await;
    let few = recorded.page().series();
    script.say(pods(1..=250));
    sleep(10 * SECOND).await;
    assert_eq!(balancer.endpoints().len(), 250);
    assert_eq!(recorded.page().series(), few);
}

#[tokio::test(start_paused = true)]
async fn services_are_told_apart_by_their_names() {
    let recorded = Recorded::new();
    let named = |name: &'static str, hosts: std::ops::RangeInclusive<u8>| {
        let builder = builder(&Script::new(pods(hosts))).service_name(name);
        recorded.while_building(|| builder.spawn())
    };
    let (one, two) = (named("one", 1..=1), named("two", 1..=2));
    one.resolved().await.unwrap();
    two.resolved().await.unwrap();
    let page = recorded.page();
    let available = |name| page.of(name, "headless_lb_endpoints", "available");
    assert_eq!((available("one"), available("two")), (1.0, 2.0));
}

#[tokio::test(start_paused = true)]
async fn without_a_recorder_all_goes_on() {
    let balancer = builder(&Script::new(pods(1..=3))).spawn();
    balancer.resolved().await.unwrap();
    assert!(balancer.pick().is_ok());
    sleep(10 * SECOND).await;
}

// ===== discovery =====

#[tokio::test(start_paused = true)]
async fn answers_are_counted_by_their_result_and_timed() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=3));
    script.takes(Duration::from_millis(250));
    let balancer = resolved(&recorded, &script).await;
    let page = recorded.page();
    page.only("headless_lb_resolve_total", [("ok", 1.0)]);
    assert_eq!(page.value("headless_lb_resolve_seconds_count"), 1.0);
    let took = page.value("headless_lb_resolve_seconds_sum");
    assert!((took - 0.25).abs() < 0.01, "{took}");

    // One for each label.
    let kinds = [
        ResolveErrorKind::Busy,
        ResolveErrorKind::Io,
        ResolveErrorKind::Malformed,
        ResolveErrorKind::NoData,
        ResolveErrorKind::NoServers,
        ResolveErrorKind::NxDomain,
        ResolveErrorKind::Other,
        ResolveErrorKind::OtherRcode,
        ResolveErrorKind::Refused,
        ResolveErrorKind::ServFail,
        ResolveErrorKind::Timeout,
        ResolveErrorKind::Truncated,
    ];
    script.say_next(kinds.map(|kind| Err(ResolveError::of(kind))));
    script.say_next([
        Ok(Resolution::new([pod(1)]).partial()),
        Ok(Resolution::default()),
    ]);
    while script.asked().len() < 16 {
        sleep(BEAT).await;
    }
    let page = recorded.page();
    let value = |result| page.with("headless_lb_resolve_total", result);
    for kind in kinds {
        let twice = matches!(kind, ResolveErrorKind::NoData | ResolveErrorKind::Truncated);
        let times = if twice { 2.0 } else { 1.0 };
        assert_eq!(value(kind.label()), times, "{}", kind.label());
    }
    assert!(value("ok") >= 1.0);
    drop(balancer);
}

#[tokio::test(start_paused = true)]
async fn the_age_grows_without_an_answer_and_a_good_one_ends_it() {
    let recorded = Recorded::new();
    let script = Script::new(servfail());
    let balancer = recorded.while_building(|| builder(&script).spawn());
    let look = || {
        let page = recorded.page();
        let (age, stale) = ("headless_lb_set_age_seconds", "headless_lb_stale");
        (page.value(age), page.value(stale))
    };
    sleep(7 * SECOND).await;
    let (age, stale) = look();
    assert!((6.0..=7.0).contains(&age), "before the first answer: {age}");
    assert_eq!(stale, 1.0);

    script.say(pods(1..=3));
    balancer.resolved().await.unwrap();
    assert_eq!(look(), (0.0, 0.0));

    script.say(servfail());
    sleep(60 * SECOND).await;
    let (age, stale) = look();
    assert!((54.0..=60.0).contains(&age), "{age}");
    assert_eq!(stale, 1.0);
}

#[tokio::test(start_paused = true)]
async fn nobody_needs_to_ask_for_the_age_to_be_right() {
    let recorded = Recorded::new();
    // An answer without a time-to-live: the next question comes within an hour.
    let script = Script::new(Ok(Resolution::new([pod(1)])));
    let builder = builder(&script).refresh_interval(3_600 * SECOND);
    let balancer = recorded.while_building(|| builder.spawn());
    balancer.resolved().await.unwrap();
    let mut oldest = 0.0_f64;
    for _ in 0..10 {
        sleep(20 * SECOND).await;
        let age = recorded.page().value("headless_lb_set_age_seconds");
        let known = balancer.status().last_good().unwrap().elapsed();
        let known = known.as_secs_f64();
        assert!((known - 1.01..=known).contains(&age), "{age} of {known}");
        oldest = oldest.max(age);
    }
    assert!(oldest > 15.0, "{oldest}");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_keeps_up_to_date_is_stale() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=3));
    let (balancer, driver) = recorded.while_building(|| builder(&script).build());
    let driving = tokio::spawn(driver);
    balancer.resolved().await.unwrap();
    assert_eq!(recorded.page().value("headless_lb_stale"), 0.0);
    driving.abort();
    let _ = driving.await;
    let page = recorded.page();
    assert_eq!(page.value("headless_lb_stale"), 1.0);
    page.only("headless_lb_endpoints", [("available", 3.0)]);
    assert!(page.value("headless_lb_set_hash") > 0.0);
    assert!(balancer.pick().is_ok(), "the handle goes on with them");
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_last_handle_is_gone_has_no_endpoints() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&recorded, &script).await;
    script.say(servfail());
    sleep(60 * SECOND).await;
    assert!(recorded.page().value("headless_lb_set_age_seconds") > 50.0);
    drop(balancer);
    sleep(SECOND).await;
    let page = recorded.page();
    page.only("headless_lb_endpoints", []);
    for gauge in ["set_hash", "set_age_seconds", "stale"] {
        let value = page.value(&format!("headless_lb_{gauge}"));
        assert_eq!(value, 0.0, "{gauge}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_driver_ended_before_its_last_handle_has_no_endpoints_either() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=3));
    let (balancer, driver) = recorded.while_building(|| builder(&script).build());
    let driving = tokio::spawn(driver);
    balancer.resolved().await.unwrap();
    driving.abort();
    let _ = driving.await;
    drop(balancer);
    let page = recorded.page();
    page.only("headless_lb_endpoints", []);
    for gauge in ["set_hash", "set_age_seconds", "stale"] {
        let value = page.value(&format!("headless_lb_{gauge}"));
        assert_eq!(value, 0.0, "{gauge}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_hash_is_that_of_the_addresses_and_nothing_else() {
    let recorded = Recorded::new();
    let script = Script::new(pods([1, 2, 3]));
    let balancer = resolved(&recorded, &script).await;
    let hash = || recorded.page().value("headless_lb_set_hash");
    let first = hash();
    assert!(first > 0.0);

    // Another client: another order, and one that refuses there.
    let other = Recorded::new();
    let builder = Balancer::builder(Script::new(pods([3, 1, 2]))).seed(99);
    let elsewhere = other.while_building(|| builder.spawn());
    elsewhere.resolved().await.unwrap();
    elsewhere.unreachable(elsewhere.endpoints().iter().next().unwrap());
    sleep(SECOND / 20).await;
    assert_eq!(other.page().value("headless_lb_set_hash"), first);

    script.say(pods([1, 2, 4]));
    sleep(10 * SECOND).await;
    assert_ne!(hash(), first);
    script.say(pods([1, 2, 3]));
    sleep(10 * SECOND).await;
    assert_eq!(hash(), first);
    script.say(nxdomain());
    sleep(60 * SECOND).await;
    assert_eq!(hash(), 0.0);
    drop(balancer);
}

#[tokio::test(start_paused = true)]
async fn endpoints_are_counted_as_they_come_and_go() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=4));
    let balancer = resolved(&recorded, &script).await;
    let moved = || {
        let page = recorded.page();
        let (added, removed) = (
            "headless_lb_endpoints_added_total",
            "headless_lb_endpoints_removed_total",
        );
        (page.value(added), page.value(removed))
    };
    let state = "headless_lb_endpoints";
    assert_eq!(moved(), (4.0, 0.0));
    recorded.page().only(state, [("available", 4.0)]);

    balancer.unreachable(balancer.endpoints().iter().next().unwrap());
    sleep(SECOND / 20).await;
    let page = recorded.page();
    page.only(state, [("available", 3.0), ("aside", 1.0)]);
    assert_eq!(moved(), (4.0, 0.0), "who is set aside has not left");

    sleep(BEAT).await;
    recorded.page().only(state, [("available", 4.0)]);

    script.say(pods(3..=5));
    sleep(10 * SECOND).await;
    assert_eq!(moved(), (5.0, 2.0));
    let page = recorded.page();
    page.only(state, [("available", 3.0), ("draining", 2.0)]);
    assert_eq!(balancer.status().draining(), 2);

    sleep(30 * SECOND).await;
    recorded.page().only(state, [("available", 3.0)]);
    assert_eq!(balancer.status().draining(), 0);
}

const EJECTIONS: &str = "headless_lb_ejections_total";

#[tokio::test(start_paused = true)]
async fn one_that_is_ejected_is_told_from_one_that_refuses() {
    let recorded = Recorded::new();
    let balancer = resolved(&recorded, &Script::new(pods(1..=20))).await;
    let set = balancer.endpoints();
    let mut endpoints = set.iter();
    let (failing, refusing) = (endpoints.next().unwrap(), endpoints.next().unwrap());
    (0..5).for_each(|_| failing.begin().record(Cause::Status(500).into()));
    sleep(SECOND / 20).await;
    balancer.unreachable(refusing);
    sleep(SECOND / 20).await;
    let page = recorded.page();
    let states = [("available", 18.0), ("ejected", 1.0), ("aside", 1.0)];
    page.only("headless_lb_endpoints", states);
    page.only(EJECTIONS, [("consecutive", 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_its_checks_is_ejected_by_them_where_it_leaves_the_picks() {
    let failing = || {
        let ill = |endpoint: &Endpoint| {
            let is_ill = endpoint.addr() == pod(1);
            async move { if is_ill { Err("fever") } else { Ok(()) } }
        };
        Check::from_fn(ill)
    };
    for (hosts, states, ejections) in [
        (3, vec![("available", 2.0), ("ejected", 1.0)], 1.0),
        // There is nobody else.
        (1, vec![("available", 1.0)], 0.0),
    ] {
        let recorded = Recorded::new();
        let builder = builder(&Script::new(pods(1..=hosts))).check(failing());
        let balancer = recorded.while_building(|| builder.spawn());
        sleep(60 * SECOND).await;
        assert_eq!(balancer.status().unhealthy(), 1);
        let page = recorded.page();
        for (state, count) in states {
            let is = page.with("headless_lb_endpoints", state);
            assert_eq!(is, count, "{state} of {hosts}");
        }
        assert_eq!(page.with(EJECTIONS, "check"), ejections, "of {hosts}");
        assert_eq!(page.total(EJECTIONS), ejections, "of {hosts}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_its_checks_and_refuses_for_a_moment_is_ejected_once() {
    let recorded = Recorded::new();
    let ill = |endpoint: &Endpoint| {
        let is_ill = endpoint.addr() == pod(1);
        async move { if is_ill { Err("fever") } else { Ok(()) } }
    };
    let builder = builder(&Script::new(pods(1..=3))).check(Check::from_fn(ill));
    let balancer = recorded.while_building(|| builder.spawn());
    sleep(60 * SECOND).await;
    let set = balancer.endpoints();
    let one = set.iter().find(|one| one.addr() == pod(1)).unwrap();
    for _ in 0..3 {
        balancer.unreachable(one);
        sleep(60 * SECOND).await;
    }
    recorded.page().only(EJECTIONS, [("check", 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn who_is_ejected_is_told_from_who_refuses_connections() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=4));
    let balancer = resolved(&recorded, &script).await;
    let set = balancer.endpoints();
    let [failing, refusing] = [0, 1].map(|i| set.iter().nth(i).unwrap());
    let state = "headless_lb_endpoints";

    (0..5).for_each(|_| failing.begin().record(Cause::Status(503).into()));
    balancer.unreachable(refusing);
    sleep(SECOND / 20).await;
    let page = recorded.page();
    let both = [("available", 2.0), ("ejected", 1.0), ("aside", 1.0)];
    page.only(state, both);

    // One that does both is ejected: that lasts.
    balancer.unreachable(failing);
    sleep(BEAT).await;
    let page = recorded.page();
    page.only(state, [("available", 3.0), ("ejected", 1.0)]);
}

#[tokio::test(start_paused = true)]
async fn new_endpoints_that_wait_for_a_connect_are_warming() {
    struct Slow;
    impl headless_lb::NewService for Slow {
        type Service = ();
        fn new_service(&self, _: &std::sync::Arc<Endpoint>) {}
        fn warm(&self, _: &()) -> bool {
            true
        }
    }
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=2));
    let builder = builder(&script).warm_up(600 * SECOND);
    let balancer = recorded.while_building(|| builder.spawn_with(Slow));
    balancer.resolved().await.unwrap();
    script.say(pods(1..=5));
    sleep(10 * SECOND).await;
    let page = recorded.page();
    page.only(
        "headless_lb_endpoints",
        [("available", 2.0), ("warming", 3.0)],
    );
}

#[tokio::test(start_paused = true)]
async fn a_primary_counts_when_another_follows_it() {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };
    let recorded = Recorded::new();
    // The term; pod number `term % 3` is the primary.
    let term = Arc::new(AtomicU64::new(1));
    let seen = Arc::clone(&term);
    let probe = probe_fn(move |endpoint: &Endpoint| {
        let (term, addr) = (seen.load(Relaxed), endpoint.addr());
        async move {
            let role = match addr == pod(u8::try_from(term % 3).unwrap()) {
                true => Role::Primary,
                false => Role::Replica,
            };
            Ok::<_, ProbeError>(Observation::of(role).in_term(Term::new(term.into())))
        }
    });
    let script = Script::new(pods(0..=2));
    let builder = builder(&script).probe(probe);
    let balancer = recorded.while_building(|| builder.spawn());
    balancer.primary().wait(10 * SECOND).await.unwrap();
    let changes = || recorded.page().value("headless_lb_primary_changes_total");
    assert_eq!(changes(), 0.0, "the first follows none");
    sleep(30 * SECOND).await;
    assert_eq!(changes(), 0.0);
    for n in 2..=3 {
        term.store(n, Relaxed);
        sleep(30 * SECOND).await;
        assert_eq!(changes(), (n - 1) as f64);
    }
    let page = recorded.page();
    page.only("headless_lb_endpoints", [("available", 3.0)]);

    // No primary: the one claim left is of an older term.
    let none = page.with("headless_lb_no_endpoint_total", "no_primary");
    term.store(1, Relaxed);
    sleep(30 * SECOND).await;
    assert!(balancer.primary().get().is_err());
    let page = recorded.page();
    assert_eq!(
        page.with("headless_lb_no_endpoint_total", "no_primary"),
        none + 1.0
    );
    assert_eq!(page.with("headless_lb_endpoints", "rejected"), 1.0);
}

// ===== picks =====

#[tokio::test(start_paused = true)]
async fn picks_are_counted_a_second_later_at_most_and_those_after_the_driver_at_the_end() {
    let recorded = Recorded::new();
    let script = Script::new(pods(1..=3));
    let (balancer, driver) = recorded.while_building(|| builder(&script).build());
    let driving = tokio::spawn(driver);
    balancer.resolved().await.unwrap();
    let picks = "headless_lb_picks_total";
    recorded.page().only(picks, []);
    for _ in 0..10 {
        drop(balancer.pick().unwrap());
    }
    assert_eq!(balancer.pick_many(3).unwrap().len(), 3);
    sleep(BEAT).await;
    recorded.page().only(picks, [("unknown", 13.0)]);

    driving.abort();
    let _ = driving.await;
    drop(balancer.pick_for("a key").unwrap());
    sleep(10 * SECOND).await;
    recorded.page().only(picks, [("unknown", 13.0)]);
    drop(balancer);
    recorded.page().only(picks, [("unknown", 14.0)]);
}

#[tokio::test(start_paused = true)]
async fn a_pick_of_an_endpoint_that_is_set_aside_is_a_panic() {
    let recorded = Recorded::new();
    let balancer = resolved(&recorded, &Script::new(pods(1..=2))).await;
    for endpoint in balancer.endpoints().iter() {
        balancer.unreachable(endpoint);
    }
    sleep(SECOND / 20).await;
    drop(balancer.pick().unwrap());
    sleep(2 * SECOND).await;
    drop(balancer.pick().unwrap());
    sleep(BEAT).await;
    let page = recorded.page();
    page.only(
        "headless_lb_picks_total",
        [("unknown", 1.0), ("panic", 1.0)],
    );
}

#[test]
fn that_every_endpoint_is_set_aside_is_told_once() {
    let log = support::log::captured(|| async {
        let script = Script::new(pods(1..=2));
        let balancer = builder(&script).spawn();
        balancer.resolved().await.unwrap();
        let refuse = async |n: usize| {
            for endpoint in balancer.endpoints().iter().take(n) {
                balancer.unreachable(endpoint);
            }
            sleep(SECOND / 20).await;
        };
        refuse(1).await;
        sleep(10 * SECOND).await;
        for _ in 0..6 {
            refuse(2).await;
            sleep(10 * SECOND).await;
        }
    });
    let told = log
        .iter()
        .filter(|line| line.contains("every endpoint is set aside"));
    assert_eq!(told.count(), 1, "{log:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_pick_that_finds_nothing_is_counted_by_its_cause() {
    let recorded = Recorded::new();
    let script = Script::new(servfail());
    let builder = builder(&script).initial_timeout(Duration::ZERO);
    let (balancer, driver) = recorded.while_building(|| builder.build());
    let driving = tokio::spawn(driver);
    let why = "headless_lb_no_endpoint_total";

    assert!(matches!(balancer.pick(), Err(PickError::Unresolved(_))));
    recorded.page().only(why, [("unresolved", 1.0)]);
    // Waiting asks nothing of the balancer.
    assert!(balancer.resolved().await.is_err());
    recorded.page().only(why, [("unresolved", 1.0)]);

    script.say(pods(1..=3));
    sleep(30 * SECOND).await;
    let picky = balancer.with_policy(policy_fn(|_| None));
    assert!(matches!(picky.pick(), Err(PickError::NoCandidate(_))));
    assert!(matches!(
        balancer.pod("db-0"),
        Err(PickError::NoSuchPod { .. })
    ));
    recorded.page().only(
        why,
        [
            ("unresolved", 1.0),
            ("no_candidate", 1.0),
            ("no_such_pod", 1.0),
        ],
    );

    script.say(nxdomain());
    sleep(60 * SECOND).await;
    assert!(matches!(
        balancer.pick_many(2),
        Err(PickError::NoEndpoints(_))
    ));
    driving.abort();
    let _ = driving.await;
    assert!(matches!(balancer.pick_for(1), Err(PickError::Closed(_))));
    recorded.page().only(
        why,
        [
            ("unresolved", 1.0),
            ("no_candidate", 1.0),
            ("no_such_pod", 1.0),
            ("no_endpoints", 1.0),
            ("closed", 1.0),
        ],
    );
}

// ===== services of one's own =====

#[tokio::test(start_paused = true)]
async fn a_request_that_goes_on_to_another_endpoint_is_an_unsent_retry() {
    use tower::ServiceExt;

    /// Of pod 1 never ready.
    #[derive(Clone)]
    struct Pod(SocketAddr);
    impl tower::Service<()> for Pod {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;
        fn poll_ready(
            &mut self,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Result<(), &'static str>> {
            std::task::Poll::Ready(match self.0 == pod(1) {
                true => Err("refused"),
                false => Ok(()),
            })
        }
        fn call(&mut self, (): ()) -> Self::Future {
            std::future::ready(Ok(()))
        }
    }

    let recorded = Recorded::new();
    let source = Fixed::new([pod(1), pod(2)]);
    let first = policy_fn(|candidates| {
        let place = candidates.iter().position(|one| one.addr() == pod(1));
        candidates.choose(place.unwrap_or(0))
    });
    let builder = Balancer::builder(source)
        .service_name("web.default")
        .policy(first);
    let service = recorded.while_building(|| {
        builder.spawn_with(|endpoint: &std::sync::Arc<Endpoint>| Pod(endpoint.addr()))
    });
    service.resolved().await.unwrap();
    service.clone().oneshot(()).await.unwrap();
    sleep(BEAT).await;
    let page = recorded.page();
    page.only("headless_lb_retries_total", [("unsent", 1.0)]);
    page.only("headless_lb_picks_total", [("unknown", 2.0)]);
    page.only("headless_lb_no_endpoint_total", []);
}

#[tokio::test(start_paused = true)]
async fn the_peers_of_two_services_are_told_apart() {
    let recorded = Recorded::new();
    let peers = Script::new(pods(1..=3));
    let spawn = |name: &'static str| {
        let subset = Subset::by_peers(peers.clone()).own([10, 9, 9, 9].into());
        let builder = Balancer::builder(Fixed::new([pod(9)])).service_name(name);
        recorded.while_building(|| builder.subset(subset).spawn())
    };
    let (one, _other) = (spawn("one"), spawn("other"));
    sleep(60 * SECOND).await;
    let hashes = || recorded.page().all("headless_lb_set_hash");
    assert!(hashes().iter().all(|hash| *hash > 0.0), "{:?}", hashes());
    drop(one);
    sleep(60 * SECOND).await;
    let left = hashes().iter().filter(|hash| **hash > 0.0).count();
    assert_eq!(left, 1, "the other's: {:?}", hashes());
}
