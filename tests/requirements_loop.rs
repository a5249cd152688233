//! R8 to R16, R21 and R22 of the resolver requirements: what the loop makes of answers, on a scripted
//! source and a paused clock.

mod support;

use std::time::Duration;

use headless_lb::{Balancer, Builder, EmptyMode, PickError, Resolution, Role, probe_fn};
use support::script::{Script, hosts, named, nxdomain, nxdomain_for, pod, pods, servfail};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Every test must hold for every seed: it is drawn anew in each run, and told when a test fails.
fn builder(script: &Script) -> Builder {
    Balancer::builder(script.clone()).seed(support::seed())
}

/// A balancer whose first answer has come.
async fn resolved(script: &Script, builder: Builder) -> Balancer {
    let balancer = builder.spawn();
    balancer
        .resolved()
        .await
        .expect("the script answers at once");
    assert!(!script.asked().is_empty());
    balancer
}

/// Waits for a regular question, and tells when it was.
async fn after_an_answer(script: &Script) -> Duration {
    sleep(20 * SECOND).await;
    let before = script.asked().len();
    while script.asked().len() == before {
        sleep(MILLISECOND).await;
    }
    script.asked()[before]
}

fn partial(hosts: impl IntoIterator<Item = u8>) -> Resolution {
    Resolution::new(hosts.into_iter().map(pod)).partial()
}

// ===== R6: truncated answers =====

#[tokio::test(start_paused = true)]
async fn r06_a_truncated_answer_adds_and_never_removes() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    script.say(Ok(partial([3, 4])));
    sleep(30 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3, 4]);
    assert!(balancer.status().is_incomplete());
    script.say(Ok(partial([])));
    sleep(30 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3, 4]);
    script.say(pods([2, 3, 4]));
    sleep(10 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [2, 3, 4]);
    assert!(!balancer.status().is_incomplete());
}

#[tokio::test(start_paused = true)]
async fn r06_while_answers_are_truncated_only_a_refusing_and_unseen_pod_is_dropped() {
    let script = Script::new(pods(1..=2));
    let balancer = resolved(&script, builder(&script)).await;
    script.say(Ok(partial([2])));
    sleep(1200 * SECOND).await;
    assert_eq!(
        hosts(&balancer.endpoints()),
        [1, 2],
        "unseen for 20 min, and still taking connections"
    );
    let set = balancer.endpoints();
    let dead = set
        .iter()
        .find(|endpoint| endpoint.addr() == pod(1))
        .unwrap();
    balancer.unreachable(dead);
    sleep(Duration::from_millis(10)).await;
    assert_eq!(hosts(&balancer.endpoints()), [2]);
}

#[tokio::test(start_paused = true)]
async fn r06_truncated_answers_neither_count_as_empty_nor_reset_the_count() {
    let script = Script::new(pods([1]));
    let balancer = resolved(&script, builder(&script)).await;
    script.say_next([nxdomain(), Ok(partial([])), nxdomain(), Ok(partial([]))]);
    script.say(nxdomain());
    sleep(40 * SECOND).await;
    assert!(balancer.endpoints().is_empty());
}

// ===== R8: failures =====

#[tokio::test(start_paused = true)]
async fn r08_failures_keep_the_last_good_set() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    script.say(servfail());
    sleep(24 * 3600 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3]);
    assert!(balancer.pick().is_ok());
    let status = balancer.status();
    assert_eq!(status.outcome(), "servfail");
    assert!(status.stale_since().unwrap().elapsed() > 23 * 3600 * SECOND);
    assert!(status.failures() > 1000);
}

#[tokio::test(start_paused = true)]
async fn r08_max_stale_bounds_how_old_a_set_may_be() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script).max_stale(600 * SECOND)).await;
    script.say(servfail());
    sleep(599 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3]);
    sleep(7 * SECOND).await;
    assert!(balancer.endpoints().is_empty());
    let error = balancer.pick().unwrap_err();
    assert!(matches!(error, PickError::NoEndpoints(_)), "{error}");
    assert!(error.to_string().contains("SERVFAIL"), "{error}");
    script.say(pods([2]));
    sleep(15 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [2]);
}

#[tokio::test(start_paused = true)]
async fn r08_the_first_call_waits_up_to_the_initial_timeout_and_names_the_cause() {
    let script = Script::new(servfail());
    let balancer = builder(&script).spawn();
    let start = Instant::now();
    let error = balancer.resolved().await.unwrap_err();
    assert_eq!(start.elapsed(), 10 * SECOND);
    assert!(matches!(error, PickError::Unresolved(_)));
    let text = error.to_string();
    assert!(
        text.contains("web.default") && text.contains("SERVFAIL"),
        "{text}"
    );
    assert!(text.contains("10.96.0.10"), "{text}");
    // The loop went on.
    script.say(pods([1]));
    sleep(11 * SECOND).await;
    assert!(balancer.pick().is_ok());
}

#[tokio::test(start_paused = true)]
async fn r08_a_source_that_hangs_does_not_end_discovery() {
    let script = Script::new(pods([1]));
    script.takes(3600 * SECOND);
    let balancer = builder(&script).initial_timeout(120 * SECOND).spawn();
    sleep(SECOND).await;
    script.takes(Duration::ZERO);
    balancer.resolved().await.unwrap();
}

// ===== R9: empty answers for a set that is not =====

#[tokio::test(start_paused = true)]
async fn r09_one_empty_answer_changes_nothing() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    for _ in 0..20 {
        script.say_next([nxdomain(), nxdomain()]);
        sleep(30 * SECOND).await;
        assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn r09_three_independent_ones_over_ten_seconds_empty_the_set() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    let from = script.asked().len();
    script.say(nxdomain());
    while !balancer.endpoints().is_empty() {
        sleep(Duration::from_millis(50)).await;
        assert!(script.asked().len() < from + 10, "the set is never emptied");
    }
    let asked = script.asked();
    assert!(asked.len() >= from + 3);
    assert!(*asked.last().unwrap() - asked[from] >= 10 * SECOND);
    assert!(matches!(balancer.pick(), Err(PickError::NoEndpoints(_))));
}

#[tokio::test(start_paused = true)]
async fn r09_a_cached_negative_that_counts_down_is_one_answer() {
    // One NXDOMAIN, cached for 30 s and seen again and again; then the pods are back.
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    let start = Instant::now();
    for _ in 0..28 {
        let left = 30 - start.elapsed().as_secs();
        script.say(nxdomain_for(left));
        sleep(SECOND).await;
        assert_eq!(
            hosts(&balancer.endpoints()),
            [1, 2, 3],
            "after {:?}",
            start.elapsed()
        );
    }
    assert!(balancer.status().ttl_counts_down());
}

#[tokio::test(start_paused = true)]
async fn r09_failures_between_empty_answers_neither_count_nor_reset() {
    let script = Script::new(pods([1]));
    let balancer = resolved(&script, builder(&script)).await;
    script.say_next([nxdomain(), servfail(), nxdomain(), servfail()]);
    script.say(servfail());
    sleep(60 * SECOND).await;
    assert_eq!(
        balancer.endpoints().len(),
        1,
        "two empty answers and many failures are not three"
    );
    assert_eq!(balancer.status().pending_empty(), 2);
    script.say(nxdomain());
    sleep(12 * SECOND).await;
    assert!(balancer.endpoints().is_empty());
}

#[tokio::test(start_paused = true)]
async fn r09_when_every_endpoint_refuses_connections_one_empty_answer_is_enough() {
    let script = Script::new(pods(1..=2));
    let balancer = resolved(&script, builder(&script)).await;
    let set = balancer.endpoints();
    let refuse = || {
        set.iter()
            .for_each(|endpoint| balancer.unreachable(endpoint))
    };
    for absence in [100, 200, 400, 800] {
        refuse();
        sleep(MILLISECOND * absence * 13 / 10).await;
    }
    script.say(nxdomain());
    // Set aside for more than a second now, and DNS is asked within one.
    refuse();
    sleep(1100 * MILLISECOND).await;
    assert!(balancer.endpoints().is_empty(), "{balancer}");
}

#[tokio::test(start_paused = true)]
async fn r09_the_other_modes_believe_at_once_or_never() {
    let script = Script::new(pods([1]));
    let at_once = resolved(&script, builder(&script).empty(EmptyMode::Immediate)).await;
    let never = resolved(&script, builder(&script).empty(EmptyMode::KeepLast)).await;
    script.say(nxdomain());
    sleep(7 * SECOND).await;
    assert!(at_once.endpoints().is_empty());
    sleep(3600 * SECOND).await;
    assert_eq!(never.endpoints().len(), 1);
}

// ===== R10: empty answers for an empty set =====

#[tokio::test(start_paused = true)]
async fn r10_an_empty_service_is_asked_after_one_two_four_and_then_every_five_seconds() {
    let script = Script::new(nxdomain());
    let balancer = builder(&script).spawn();
    sleep(40 * SECOND).await;
    let waits = script.waits(0);
    for (wait, expected) in waits.iter().zip([1.0, 2.0, 4.0, 5.0, 5.0, 5.0]) {
        assert!((wait / expected - 1.0).abs() <= 0.15, "{waits:?}");
    }
    assert!(waits.len() >= 6);
    let error = balancer.pick().unwrap_err();
    assert!(matches!(error, PickError::NoEndpoints(_)));
    assert!(error.to_string().contains("look the same"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn r10_a_cached_negative_is_asked_for_again_when_it_ends() {
    let script = Script::from_fn(|at| {
        let left = 10_u64.saturating_sub(at.as_secs());
        if left == 0 {
            pods([1])
        } else {
            nxdomain_for(left)
        }
    });
    let balancer = builder(&script).spawn();
    sleep(Duration::from_millis(11_600)).await;
    assert_eq!(balancer.endpoints().len(), 1, "{:?}", script.asked());
}

#[tokio::test(start_paused = true)]
async fn r10_calls_on_an_empty_service_fail_at_once_or_wait_as_told() {
    let script = Script::new(nxdomain());
    let impatient = builder(&script).spawn();
    sleep(SECOND).await;
    assert!(matches!(impatient.pick(), Err(PickError::NoEndpoints(_))));
    let start = Instant::now();
    let error = impatient.resolved().await.unwrap_err();
    assert_eq!(
        start.elapsed(),
        10 * SECOND,
        "resolved() waits for endpoints, not for an answer"
    );
    assert!(matches!(error, PickError::NoEndpoints(_)));
    script.say(pods([1]));
    impatient.resolved().await.unwrap();
}

// ===== R11, R12: the interval =====

#[tokio::test(start_paused = true)]
async fn r11_a_ttl_of_30_does_not_keep_the_set_stale() {
    let script = Script::new(pods(1..=3));
    let _balancer = resolved(&script, builder(&script)).await;
    sleep(200 * SECOND).await;
    let waits = script.waits(1);
    assert!(
        waits.iter().all(|wait| (4.25..=5.75).contains(wait)),
        "{waits:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn r11_ttl_0_is_asked_after_a_second_at_first_and_then_at_the_interval() {
    let zero = || Ok(Resolution::new([pod(1)]).valid_for(Duration::ZERO));
    let script = Script::new(zero());
    let _balancer = resolved(&script, builder(&script)).await;
    sleep(60 * SECOND).await;
    let waits = script.waits(0);
    assert!(
        waits[..2].iter().all(|wait| (0.85..=1.15).contains(wait)),
        "{waits:?}"
    );
    assert!(
        waits[2..].iter().all(|wait| (4.25..=5.75).contains(wait)),
        "{waits:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn r11_an_absurd_ttl_is_only_a_number() {
    let script = Script::new(Ok(
        Resolution::new([pod(1)]).valid_for(Duration::from_secs(1 << 31))
    ));
    let _balancer = resolved(&script, builder(&script)).await;
    let respectful = resolved(&script, builder(&script).respect_ttl(60 * SECOND)).await;
    sleep(300 * SECOND).await;
    assert!(script.asked().len() > 50 + 3);
    drop(respectful);
}

#[tokio::test(start_paused = true)]
async fn r11_after_a_large_change_it_asks_every_second_until_two_answers_agree() {
    let script = Script::new(pods(1..=3));
    let _balancer = resolved(&script, builder(&script)).await;
    sleep(20 * SECOND).await;
    let from = script.asked().len();
    script.say_next([pods(1..=6), pods(1..=9), pods(1..=12)]);
    script.say(pods(1..=12));
    sleep(20 * SECOND).await;
    let waits = script.waits(from);
    assert_eq!(waits[..3], [1.0, 1.0, 1.0], "{waits:?}");
    assert!(waits[3] > 4.0, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn r12_balancers_that_start_together_do_not_ask_together() {
    let script = Script::new(pods([1]));
    let balancers: Vec<_> = (0..100).map(|_| builder(&script).spawn()).collect();
    sleep(30 * SECOND).await;
    drop(balancers);
    // Questions from 10 to 30 s, in 200 windows of 100 ms; 400 of them, 2 a window if spread evenly.
    let mut windows = [0_usize; 200];
    let late = script
        .asked()
        .into_iter()
        .filter(|at| (10 * SECOND..30 * SECOND).contains(at));
    late.for_each(|at| windows[((at - 10 * SECOND).as_millis() / 100) as usize] += 1);
    assert!(windows.iter().max() <= Some(&14), "{windows:?}");
}

// ===== R13: back-off =====

#[tokio::test(start_paused = true)]
async fn r13_failures_back_off_with_full_jitter_up_to_ten_seconds() {
    let script = Script::new(servfail());
    let balancer = builder(&script).spawn();
    sleep(2000 * SECOND).await;
    let waits = script.waits(0);
    for (k, wait) in waits.iter().enumerate().take(5) {
        assert!(*wait <= 0.5 * f64::from(1_u32 << k) + 0.001, "{waits:?}");
    }
    assert!(waits.iter().all(|wait| *wait <= 10.001));
    let mean = waits[5..].iter().sum::<f64>() / waits[5..].len() as f64;
    assert!(
        (4.0..6.0).contains(&mean),
        "uniform over 0..10 s, mean {mean}"
    );
    // Any other outcome ends it.
    script.say(pods([1]));
    sleep(11 * SECOND).await;
    assert_eq!(balancer.status().failures(), 0);
    let from = script.asked().len();
    script.say(servfail());
    sleep(60 * SECOND).await;
    assert!(script.waits(from)[0] <= 0.501);
}

// ===== R14: resolve now =====

#[tokio::test(start_paused = true)]
async fn r14_refresh_asks_at_once_but_not_more_often_than_once_a_second() {
    let script = Script::new(pods([1]));
    let balancer = resolved(&script, builder(&script)).await;
    sleep(20 * SECOND).await;
    let from = script.asked().len();
    for _ in 0..100 {
        balancer.refresh();
        sleep(Duration::from_millis(50)).await;
    }
    let waits = script.waits(from);
    assert!(
        (4..=6).contains(&(script.asked().len() - from)),
        "{waits:?}"
    );
    assert!(waits.iter().all(|wait| *wait >= 1.0), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn r14_an_answer_older_than_the_trigger_does_not_satisfy_it() {
    let script = Script::new(pods([1]));
    let balancer = resolved(&script, builder(&script)).await;
    script.takes(2 * SECOND);
    balancer.refresh();
    sleep(1500 * MILLISECOND).await; // The question is under way.
    script.say(pods([2]));
    script.takes(Duration::ZERO);
    balancer.refresh();
    sleep(3 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2], "{:?}", script.asked());
}

#[tokio::test(start_paused = true)]
async fn r14_refresh_overrides_a_back_off() {
    let script = Script::new(servfail());
    let balancer = builder(&script).spawn();
    sleep(120 * SECOND).await;
    script.say(pods([1]));
    balancer.refresh();
    sleep(1001 * MILLISECOND).await;
    assert_eq!(balancer.endpoints().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r14_a_connect_failure_asks_again_soon() {
    let script = Script::new(pods(1..=2));
    let balancer = resolved(&script, builder(&script)).await;
    let asked_at = after_an_answer(&script).await;
    script.say(pods([1]));
    balancer.unreachable(balancer.pick().unwrap().endpoint());
    sleep(1010 * MILLISECOND).await;
    assert_eq!(
        script.asked().last(),
        Some(&(asked_at + SECOND)),
        "the regular one is 4.25 s away"
    );
    assert_eq!(hosts(&balancer.endpoints()), [1]);
}

// ===== R15: adding and removing =====

#[tokio::test(start_paused = true)]
async fn r15_one_answer_is_one_change() {
    let script = Script::new(pods(1..=4));
    let balancer = builder(&script).spawn();
    let mut changes = balancer.subscribe();
    assert_eq!(changes.next().await.unwrap().added().len(), 4);
    script.say(pods([3, 4, 5, 6]));
    let change = changes.next().await.unwrap();
    assert_eq!((change.added().len(), change.removed().len()), (2, 2));
    assert_eq!(hosts(change.set()), [3, 4, 5, 6]);
    // Shuffled answers, duplicates included, are no change.
    script.say_next([pods([6, 5, 4, 3]), pods([5, 5, 3, 4, 6, 6])]);
    let generation = balancer.endpoints().generation();
    sleep(60 * SECOND).await;
    assert_eq!(balancer.endpoints().generation(), generation);
    assert!(timeout(SECOND, changes.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn r15_losing_more_than_half_at_once_takes_two_answers() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    script.say_next([pods([1])]);
    script.say(pods(1..=3));
    for _ in 0..300 {
        assert_eq!(hosts(&balancer.endpoints()), [1, 2, 3]);
        sleep(Duration::from_millis(100)).await;
    }
    script.say(pods([1]));
    sleep(8 * SECOND).await;
    assert_eq!(hosts(&balancer.endpoints()), [1]);
}

#[tokio::test(start_paused = true)]
async fn r15_a_pod_that_returns_within_the_linger_is_the_same_endpoint() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    let find = |host| {
        balancer
            .endpoints()
            .iter()
            .find(|e| e.addr() == pod(host))
            .cloned()
    };
    let before = find(2).unwrap();
    let _in_flight = before.begin();
    script.say(pods([1, 3]));
    sleep(6 * SECOND).await;
    assert!(find(2).is_none());
    script.say(pods(1..=3));
    sleep(6 * SECOND).await;
    assert_eq!(find(2).unwrap().id(), before.id());
    assert_eq!(find(2).unwrap().pending(), 1);
    // Longer than that, it is another one.
    script.say(pods([1, 3]));
    sleep(60 * SECOND).await;
    script.say(pods(1..=3));
    sleep(6 * SECOND).await;
    assert_ne!(find(2).unwrap().id(), before.id());
}

#[tokio::test(start_paused = true)]
async fn r15_a_removed_pod_that_refuses_connections_is_forgotten_at_once() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(&script, builder(&script)).await;
    let set = balancer.endpoints();
    let gone = set
        .iter()
        .find(|endpoint| endpoint.addr() == pod(2))
        .unwrap();
    script.say(pods([1, 3]));
    sleep(6 * SECOND).await;
    balancer.unreachable(gone);
    script.say(pods(1..=3));
    sleep(6 * SECOND).await;
    let back = balancer.endpoints();
    let back = back
        .iter()
        .find(|endpoint| endpoint.addr() == pod(2))
        .unwrap();
    assert_ne!(back.id(), gone.id());
}

#[tokio::test(start_paused = true)]
async fn r15_an_address_under_a_new_pod_name_is_a_new_endpoint_and_a_new_address_too() {
    let script = Script::new(named([("db-0", 1), ("db-1", 2)]));
    let balancer = resolved(&script, builder(&script)).await;
    let (first, second) = (balancer.pod("db-0").unwrap(), balancer.pod(1).unwrap());
    assert_eq!((first.addr(), second.addr()), (pod(1), pod(2)));
    // db-0 moved to another address, and db-1's address went to db-2.
    script.say(named([("db-0", 3), ("db-2", 2)]));
    sleep(8 * SECOND).await;
    assert_eq!(balancer.pod("db-0").unwrap().addr(), pod(3));
    let third = balancer.pod("db-2").unwrap();
    assert_eq!(third.addr(), pod(2));
    assert_ne!(third.endpoint().id(), second.endpoint().id());
    let error = balancer.pod("db-1").unwrap_err();
    assert!(matches!(error, PickError::NoSuchPod { .. }) && error.to_string().contains("db-1"));
}

// ===== R16: DNS is a hint =====

#[tokio::test(start_paused = true)]
async fn r16_a_pod_that_refuses_is_set_aside_and_comes_back_by_itself() {
    let script = Script::new(pods(1..=3));
    let balancer = resolved(
        &script,
        builder(&script).policy(headless_lb::RoundRobin::new()),
    )
    .await;
    let set = balancer.endpoints();
    let dead = set
        .iter()
        .find(|endpoint| endpoint.addr() == pod(2))
        .unwrap();
    balancer.unreachable(dead);
    sleep(Duration::from_millis(5)).await;
    assert!((0..30).all(|_| balancer.pick().unwrap().addr() != pod(2)));
    assert!(balancer.to_string().contains("refused"), "{balancer}");
    sleep(Duration::from_millis(130)).await;
    assert!((0..3).any(|_| balancer.pick().unwrap().addr() == pod(2)));
    // It refuses again and again: the absences grow.
    for absence in [200, 400, 800, 1600, 3200] {
        balancer.unreachable(dead);
        sleep(MILLISECOND * absence * 13 / 10).await;
    }
    balancer.unreachable(dead);
    sleep(4 * SECOND).await;
    assert!((0..30).all(|_| balancer.pick().unwrap().addr() != pod(2)));
    balancer.reached(dead);
    sleep(Duration::from_millis(5)).await;
    assert!((0..3).any(|_| balancer.pick().unwrap().addr() == pod(2)));
}

#[tokio::test(start_paused = true)]
async fn r16_the_last_endpoints_are_never_set_aside() {
    let script = Script::new(pods(1..=2));
    let balancer = resolved(&script, builder(&script)).await;
    for _ in 0..50 {
        balancer.unreachable(balancer.pick().unwrap().endpoint());
        sleep(Duration::from_millis(20)).await;
    }
    assert!(balancer.pick().is_ok());
}

// ===== R21: observability =====

#[tokio::test(start_paused = true)]
async fn r21_the_status_tells_outcome_age_ttl_and_counts() {
    let script = Script::new(pods(1..=3));
    script.takes(Duration::from_millis(3));
    let balancer = resolved(&script, builder(&script)).await;
    let status = balancer.status();
    assert_eq!(
        (status.outcome(), status.ttl()),
        ("records", Some(30 * SECOND))
    );
    assert_eq!(
        (status.endpoints(), status.added(), status.removed()),
        (3, 3, 0)
    );
    assert_eq!(
        status.latencies().find(|(_, count)| *count > 0),
        Some((Duration::from_millis(4), 1))
    );
    script.say(servfail());
    sleep(20 * SECOND).await;
    let status = balancer.status();
    assert!(status.failures() > 0 && status.last_good().unwrap().elapsed() >= 14 * SECOND);
    script.say(nxdomain());
    while balancer.status().pending_empty() == 0 {
        sleep(SECOND).await;
    }
    let text = balancer.to_string();
    assert!(
        text.contains("web.default: 3 endpoints") && text.contains("NXDOMAIN"),
        "{text}"
    );
    assert!(
        text.contains("10.0.0.1:80") && text.contains("available"),
        "{text}"
    );
}

#[test]
fn r21_an_outage_is_told_once_and_so_is_its_end() {
    let log = support::log::captured(|| async {
        let script = Script::new(pods(1..=3));
        let balancer = resolved(&script, builder(&script)).await;
        script.say(servfail());
        sleep(600 * SECOND).await;
        script.say(pods([1, 2, 4]));
        sleep(30 * SECOND).await;
        drop(balancer);
    });
    let count = |what: &str| log.iter().filter(|line| line.contains(what)).count();
    assert_eq!(count("WARN"), 2, "{log:#?}");
    assert_eq!(
        count("resolution fails; the last good set stays"),
        1,
        "{log:#?}"
    );
    assert_eq!(count("resolution works again"), 1, "{log:#?}");
    assert_eq!(count("endpoint added"), 4, "{log:#?}");
    assert_eq!(count("endpoint removed"), 1, "{log:#?}");
    assert!(
        log.iter().all(|line| line.contains("web.default")),
        "{log:#?}"
    );
}

#[test]
fn r21_scaling_to_zero_is_told_as_such_and_two_kinds_of_failure_in_turn_do_not_flood() {
    let log = support::log::captured(|| async {
        let script = Script::new(nxdomain());
        let balancer = builder(&script).spawn();
        sleep(60 * SECOND).await;
        script.say(pods(1..=2));
        sleep(10 * SECOND).await;
        script.say(nxdomain());
        sleep(60 * SECOND).await;
        drop(balancer);
    });
    let count = |log: &[String], what: &str| log.iter().filter(|line| line.contains(what)).count();
    // At the start, which may be a typo, and after the scale-down; and its announcement.
    assert_eq!(count(&log, "no endpoints: no ready pod"), 2, "{log:#?}");
    assert_eq!(count(&log, "until that is confirmed"), 1, "{log:#?}");
    assert_eq!(count(&log, "works again"), 0, "{log:#?}");

    let log = support::log::captured(|| async {
        let script = Script::new(pods(1..=2));
        let balancer = resolved(&script, builder(&script)).await;
        let timeout = || {
            Err(headless_lb::ResolveError::of(
                headless_lb::ResolveErrorKind::Timeout,
            ))
        };
        script.say_next((0..400).map(|i| if i % 2 == 0 { servfail() } else { timeout() }));
        sleep(600 * SECOND).await;
        drop(balancer);
    });
    assert!(
        (2..=8).contains(&count(&log, "resolution fails")),
        "{log:#?}"
    );
}

// ===== R22: the seam =====

#[tokio::test(start_paused = true)]
async fn r22_a_resolver_of_ones_own_needs_addresses_alone_and_empty_means_empty() {
    let script = Script::new(Ok(Resolution::new([pod(1), pod(2)])));
    let balancer = resolved(&script, builder(&script)).await;
    assert_eq!(hosts(&balancer.endpoints()), [1, 2]);
    script.say(Ok(Resolution::default()));
    sleep(7 * SECOND).await;
    assert_eq!(
        hosts(&balancer.endpoints()),
        [1, 2],
        "an empty answer must be confirmed"
    );
    sleep(20 * SECOND).await;
    assert!(balancer.endpoints().is_empty());
}

#[tokio::test(start_paused = true)]
async fn r22_roles_reach_the_policies_through_positions() {
    let script = Script::new(pods(1..=3));
    let primary = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(2));
    let observed = std::sync::Arc::clone(&primary);
    let probe = probe_fn(move |endpoint: &headless_lb::Endpoint| {
        let host = u32::from(hosts(&headless_lb::EndpointSet::of([endpoint.addr()]))[0]);
        let is_primary = observed.load(std::sync::atomic::Ordering::Relaxed) == host;
        async move {
            Ok(if is_primary {
                Role::Primary
            } else {
                Role::Replica
            }
            .into())
        }
    });
    let balancer = resolved(&script, builder(&script).probe(probe)).await;
    let writer = balancer.with_policy(headless_lb::Primary);
    let readers = balancer.with_policy(headless_lb::Replica(headless_lb::RoundRobin::new()));
    sleep(SECOND).await;
    assert_eq!(writer.pick().unwrap().addr(), pod(2));
    assert!((0..10).all(|_| readers.pick().unwrap().addr() != pod(2)));
    // A switchover: for up to an interval there is none or the old one, never two.
    primary.store(3, std::sync::atomic::Ordering::Relaxed);
    sleep(3 * SECOND).await;
    assert_eq!(writer.pick().unwrap().addr(), pod(3));
    primary.store(0, std::sync::atomic::Ordering::Relaxed);
    sleep(3 * SECOND).await;
    assert!(matches!(writer.pick(), Err(PickError::NoCandidate(_))));
}
