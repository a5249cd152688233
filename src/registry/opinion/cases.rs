//! What a registry does with failing endpoints, case by case, on a clock that is moved by hand.

use super::*;
use crate::{
    eject::Ejection,
    outcome::Cause,
    policy::RoundRobin,
    probe::{Observation, ProbeError, Role, Term},
    registry::{Config, EndpointState, by_hand::ByHand},
};

const SECOND: Duration = Duration::from_secs(1);

fn with(config: Config, hosts: u8) -> ByHand {
    let mut hand = ByHand::new(config, true);
    hand.answer(1..=hosts);
    hand
}

fn of(hosts: u8) -> ByHand {
    with(Config::default(), hosts)
}

fn ejected(hand: &ByHand) -> Vec<u8> {
    let is_ejected = |host: &u8| hand.position(*host) == Some(Position::Ejected);
    hand.hosts().into_iter().filter(is_ejected).collect()
}

fn on_trial(hand: &ByHand, host: u8) -> bool {
    hand.position(host) == Some(Position::Unknown)
        && hand.set.available().is_careful()
        && hand.endpoint(host).is_on_trial()
}

#[test]
fn five_failures_in_a_row_eject_at_once_and_a_success_between_begins_anew() {
    let mut hand = of(3);
    hand.fails(2, 4);
    hand.succeeds(2, 1);
    hand.fails(2, 4);
    assert!(ejected(&hand).is_empty());
    hand.fails(2, 1);
    assert_eq!(ejected(&hand), [2]);
    assert_eq!(hand.registry.status().ejections(), 1);
    assert_eq!(hand.registry.slot_deadline, Some(hand.now + 30 * SECOND));
    assert!(!hand.set.available().is_careful());
}

#[test]
fn what_nobody_takes_of_the_events_does_not_pile_up() {
    let mut hand = of(3);
    for _ in 0..20 {
        hand.fails(2, 5);
        hand.wait(400 * SECOND);
        hand.succeeds(2, 1);
        hand.answer(1..=3);
    }
    assert!(hand.registry.status().ejections() >= 10);
    assert_eq!(hand.registry.take_health_events().len(), 0);
}

#[test]
fn at_most_a_tenth_is_ejected_and_never_a_single_one() {
    for (hosts, count) in [(1, 0), (2, 1), (3, 1), (5, 1), (10, 1), (11, 2), (20, 2)] {
        let mut hand = of(hosts);
        (1..=hosts).for_each(|host| hand.fails(host, 5));
        assert_eq!(ejected(&hand).len(), count, "of {hosts}");
        let status = hand.registry.status();
        let spared = u64::from(hosts) - count as u64;
        assert_eq!(
            (status.ejections(), status.ejections_spared()),
            (count as u64, spared)
        );
        assert!(!status.is_panic());
    }
}

#[test]
fn one_that_is_spared_is_counted_once_and_ejected_when_there_is_room() {
    let mut hand = of(3);
    hand.fails(1, 5);
    hand.fails(2, 10);
    assert_eq!(ejected(&hand), [1]);
    assert_eq!(hand.registry.status().ejections_spared(), 1);
    hand.wait(30 * SECOND);
    hand.succeeds(1, 1);
    assert_eq!(ejected(&hand), [2], "five in a row and more");
}

#[test]
fn it_comes_back_on_trial_and_a_success_ends_that() {
    let mut hand = of(3);
    hand.fails(2, 5);
    hand.wait(29 * SECOND);
    assert_eq!(ejected(&hand), [2]);
    hand.wait(SECOND);
    assert!(on_trial(&hand, 2));
    assert_eq!(hand.endpoint(2).streak(), 0, "nothing is held against it");
    let policy = RoundRobin::new();
    let pick = || hand.set.available().pick(&policy).unwrap().endpoint().id();
    let id = hand.endpoint(2).id();
    assert!((0..3).any(|_| pick() == id));
    let request = hand.endpoint(2).begin();
    assert!((0..9).all(|_| pick() != id), "one at a time");
    drop(request);
    hand.succeeds(2, 1);
    assert!(!hand.endpoint(2).is_on_trial() && !hand.set.available().is_careful());
    hand.fails(2, 4);
    assert!(ejected(&hand).is_empty());
    hand.fails(2, 1);
    assert_eq!(ejected(&hand), [2]);
}

#[test]
fn one_that_fails_on_trial_is_ejected_for_longer() {
    let mut hand = of(3);
    hand.fails(2, 5);
    for seconds in [30, 60, 90] {
        assert_eq!(
            hand.registry.slot_deadline,
            Some(hand.now + seconds * SECOND)
        );
        hand.wait(seconds * SECOND);
        assert!(on_trial(&hand, 2));
        hand.fails(2, 1);
        assert_eq!(ejected(&hand), [2]);
        assert!(!hand.set.available().is_careful());
    }
}

#[test]
fn a_stream_on_trial_does_not_keep_others_from_trying_it_for_long() {
    let mut hand = of(3);
    hand.fails(2, 5);
    hand.wait(30 * SECOND);
    let endpoint = hand.endpoint(2);
    let streams = [(); 3].map(|()| {
        assert!(endpoint.admits(false));
        let stream = endpoint.begin();
        assert!(!endpoint.admits(false), "one at a time");
        hand.wait(10 * SECOND);
        stream
    });
    assert!(on_trial(&hand, 2) && endpoint.admits(false));
    hand.succeeds(2, 1);
    assert!(!endpoint.is_on_trial());
    drop(streams);
}

#[test]
fn the_past_is_forgiven_by_sweeps_and_then_none_is_due() {
    let mut hand = of(3);
    assert_eq!(
        hand.registry.sweep_due, None,
        "nothing to compare or to forgive"
    );
    hand.fails(2, 5);
    assert_eq!(hand.registry.sweep_due, Some(hand.now + 10 * SECOND));
    assert_eq!(
        hand.registry
            .next_deadline()
            .map(|at| at <= hand.now + 10 * SECOND),
        Some(true)
    );
    hand.wait(30 * SECOND);
    hand.succeeds(2, 1);
    hand.wait(10 * SECOND);
    assert_eq!(hand.registry.sweep_due, None);
    hand.fails(2, 5);
    assert_eq!(hand.registry.slot_deadline, Some(hand.now + 30 * SECOND));
}

#[test]
fn late_failures_neither_prolong_an_ejection_nor_count_on_trial() {
    let mut hand = of(3);
    let requests: Vec<_> = (0..3).map(|_| hand.endpoint(2).begin()).collect();
    let mut late = requests.into_iter();
    let mut fail = |hand: &mut ByHand| {
        late.next().unwrap().record(Cause::TimedOut.into());
        hand.hear();
    };
    hand.fails(2, 5);
    let until = hand.registry.slot_deadline;
    hand.wait(SECOND);
    fail(&mut hand);
    hand.fails(2, 20);
    assert_eq!(hand.registry.slot_deadline, until);
    hand.wait(29 * SECOND);
    (0..2).for_each(|_| fail(&mut hand));
    assert!(on_trial(&hand, 2));
    hand.fails(2, 1);
    assert_eq!(ejected(&hand), [2]);
}

#[test]
fn an_ejection_outlives_a_change_of_the_set_and_a_short_absence() {
    let mut hand = of(5);
    hand.fails(2, 5);
    hand.answer([2, 3, 4, 5, 6]);
    assert_eq!(ejected(&hand), [2]);
    hand.answer([3, 4, 5, 6]);
    hand.wait(10 * SECOND);
    hand.answer(2..=6);
    assert_eq!(ejected(&hand), [2]);
    hand.wait(20 * SECOND);
    assert!(on_trial(&hand, 2));
}

#[test]
fn ejection_that_is_off_ejects_nobody_and_refusals_still_count() {
    let config = Config {
        ejection: Ejection::off(),
        ..Config::default()
    };
    let mut hand = with(config, 3);
    hand.fails(2, 500);
    assert!(ejected(&hand).is_empty());
    hand.refused(2);
    assert_eq!(ejected(&hand), [2]);
}

#[test]
fn refusals_do_not_count_in_the_cap() {
    let mut hand = of(10);
    (1..=4).for_each(|host| hand.refused(host));
    hand.fails(5, 5);
    assert_eq!(ejected(&hand), [1, 2, 3, 4, 5]);
    hand.fails(6, 5);
    assert_eq!(ejected(&hand), [1, 2, 3, 4, 5]);
}

#[test]
fn in_a_panic_opinion_is_ignored_and_those_that_refuse_stay_aside() {
    let mut hand = of(4);
    hand.fails(1, 5);
    hand.refused(2);
    assert_eq!(ejected(&hand), [1, 2], "half of them is enough");
    hand.refused(3);
    assert_eq!(ejected(&hand), [2, 3]);
    let status = hand.registry.status();
    assert_eq!((status.is_panic(), status.panics()), (true, 1));
    hand.reached(3);
    assert_eq!(ejected(&hand), [1, 2], "its time is not over");
    assert!(!hand.registry.status().is_panic());
    hand.refused(3);
    hand.refused(4);
    assert_eq!(ejected(&hand), [2, 3, 4]);
    assert_eq!(hand.registry.status().panics(), 2);
    // All refuse: all are candidates.
    hand.refused(1);
    assert_eq!(hand.set.available().len(), 4);
}

#[test]
fn refusals_alone_are_no_panic() {
    let mut hand = of(4);
    (1..=3).for_each(|host| hand.refused(host));
    assert!(!hand.registry.status().is_panic());
    hand.fails(4, 5);
    assert_eq!(hand.position(4), Some(Position::Unknown), "the last");
}

#[test]
fn nobody_is_ejected_where_fewer_than_half_would_remain() {
    let mut hand = of(20);
    (1..=10).for_each(|host| hand.refused(host));
    hand.fails(11, 5);
    assert_eq!(ejected(&hand).len(), 10);
    let spared = hand.registry.take_health_events();
    assert!(matches!(
        spared[..],
        [HealthEvent::Spared {
            why: Unenforced::Panic,
            ..
        }]
    ));
}

/// Host 1 is the primary, the others are replicas.
fn cluster(hosts: u8) -> ByHand {
    let config = Config {
        probe_interval: Some(SECOND),
        ..Config::default()
    };
    let mut hand = with(config, hosts);
    (2..=hosts).for_each(|host| hand.observed(host, Ok(Role::Replica.into())));
    hand.observed(1, Ok(Role::Primary.into()));
    assert_eq!(hand.position(1), Some(Position::Primary));
    hand
}

#[test]
fn the_primary_is_never_ejected_and_neither_is_the_last_replica() {
    let mut hand = cluster(2);
    hand.fails(1, 50);
    hand.fails(2, 50);
    assert_eq!(hand.position(1), Some(Position::Primary));
    assert_eq!(hand.position(2), Some(Position::Replica));
    let mut hand = cluster(3);
    hand.fails(2, 5);
    assert_eq!(ejected(&hand), [2]);
    hand.fails(3, 5);
    assert_eq!(hand.position(3), Some(Position::Replica));
}

#[test]
fn an_ejected_replica_is_taken_again_when_the_others_refuse() {
    let mut hand = cluster(4);
    hand.fails(2, 5);
    hand.refused(3);
    assert_eq!(ejected(&hand), [2, 3]);
    // Two of four take requests, but no replica.
    hand.refused(4);
    assert_eq!(ejected(&hand), [3, 4]);
    assert_eq!(hand.position(2), Some(Position::Replica));
    hand.refused(2);
    assert!(
        ejected(&hand).is_empty(),
        "there is nothing to fall back to"
    );
}

#[test]
fn a_replica_that_was_ejected_and_stays_although_it_refuses_is_not_called_on_trial() {
    let mut hand = cluster(3);
    hand.fails(2, 5);
    hand.refused(3);
    hand.refused(2);
    assert!(ejected(&hand).is_empty() && !hand.endpoint(2).is_on_trial());
    let conditions = hand.registry.status().conditions().iter();
    let told: Vec<_> = conditions
        .map(|one| (one.state, one.why.as_ref().unwrap().to_string()))
        .collect();
    assert_eq!(told.len(), 2);
    for (state, why) in told {
        assert_eq!(state, EndpointState::Available, "{why}");
        assert!(why.contains("there is no other"), "{why}");
    }
}

#[test]
fn a_replica_that_becomes_the_primary_is_thought_well_of() {
    let mut hand = cluster(3);
    hand.fails(2, 5);
    hand.observed(1, Ok(Role::Replica.into()));
    hand.observed(2, Ok(Role::Primary.into()));
    assert_eq!(hand.position(2), Some(Position::Primary));
    hand.observed(2, Ok(Role::Replica.into()));
    assert!(ejected(&hand).is_empty());
    assert!(!hand.endpoint(2).is_on_trial());
}

#[test]
fn a_rejected_one_is_not_called_available_for_what_was_thought_of_it() {
    let mut hand = cluster(4);
    let claim = |term| Observation::of(Role::Primary).in_term(Term::new(term));
    hand.observed(1, Ok(claim(2)));
    hand.fails(2, 5);
    hand.observed(2, Ok(claim(1)));
    assert_eq!(hand.position(2), Some(Position::Rejected));
    let told = |hand: &ByHand| hand.registry.status().conditions().len();
    assert_eq!(told(&hand), 0, "the tracker knows why");
    hand.wait(30 * SECOND);
    hand.observed(1, Ok(claim(2)));
    hand.observed(2, Ok(claim(1)));
    assert_eq!(hand.position(2), Some(Position::Rejected));
    assert_eq!(told(&hand), 0, "nor is it on trial");
}

#[test]
fn an_unhealthy_one_of_unknown_role_puts_no_others_back() {
    let mut hand = cluster(5);
    hand.fails(2, 5);
    // One more, which hangs: neither its probe nor its check has an answer.
    hand.answer(1..=6);
    hand.observed(6, Err(ProbeError::passing("no answer")));
    assert_eq!(hand.position(6), Some(Position::Unknown));
    (0..3).for_each(|_| {
        hand.checked(6, Err(ProbeError::passing("no answer")));
    });
    assert_eq!(ejected(&hand), [2, 6]);
    assert!(!hand.registry.status().is_panic());
}

#[test]
fn one_that_refuses_in_a_panic_returns_when_it_may_be_tried_again() {
    let mut hand = of(4);
    hand.fails(1, 5);
    hand.refused(2);
    hand.refused(3);
    assert!(hand.registry.status().is_panic());
    hand.refused(1);
    let mut conditions = hand.registry.status().conditions().iter();
    let one = conditions
        .find(|one| one.endpoint.id() == hand.endpoint(1).id())
        .unwrap();
    assert_eq!(one.state, EndpointState::Refused);
    assert!(
        one.until < Some(hand.now + SECOND),
        "what requests came to does not count"
    );
}

#[test]
fn a_sweep_ejects_who_fails_more_than_the_others() {
    for ejection in [
        Ejection::off().success_rate(1.9),
        Ejection::off().failure_percentage(85.0),
    ] {
        let config = Config {
            ejection,
            ..Config::default()
        };
        let mut hand = with(config, 5);
        let interval = |hand: &mut ByHand| {
            (1..=4).for_each(|host| hand.succeeds(host, 100));
            for _ in 0..10 {
                hand.fails(5, 9);
                hand.succeeds(5, 1);
            }
        };
        interval(&mut hand);
        assert!(ejected(&hand).is_empty());
        hand.wait(10 * SECOND);
        assert_eq!(ejected(&hand), [5]);
        hand.wait(30 * SECOND);
        assert!(on_trial(&hand, 5));
        // The last request of the interval had succeeded.
        hand.succeeds(5, 1);
        assert!(!hand.endpoint(5).is_on_trial());
        // What was counted before is over.
        hand.wait(10 * SECOND);
        assert!(ejected(&hand).is_empty());
    }
}

#[test]
fn one_on_trial_is_no_reason_to_eject_the_only_one_that_is_sure() {
    let mut hand = of(2);
    hand.fails(1, 5);
    hand.wait(30 * SECOND);
    assert!(on_trial(&hand, 1));
    // It hangs: what it is tried with does not end.
    let hangs = hand.endpoint(1).begin();
    hand.fails(2, 5);
    assert_eq!(hand.position(2), Some(Position::Unknown), "the last");
    drop(hangs);
    hand.succeeds(1, 1);
    assert_eq!(ejected(&hand), [2], "now there is another");
}

#[test]
fn one_that_fails_its_checks_too_does_not_return_when_its_ejection_ends() {
    let mut hand = of(3);
    hand.fails(2, 5);
    for _ in 0..3 {
        hand.checked(2, Err(ProbeError::passing("no answer")));
    }
    let until = |hand: &ByHand| {
        let conditions = hand.registry.status().conditions();
        let [one] = &**conditions else {
            panic!("{conditions:?}")
        };
        (one.state, one.until)
    };
    assert_eq!(until(&hand), (EndpointState::Ejected, None));
    hand.refused(2);
    hand.wait(30 * SECOND);
    assert_eq!(until(&hand), (EndpointState::Unhealthy, None));
    hand.refused(2);
    assert_eq!(until(&hand), (EndpointState::Refused, None));
}

#[test]
fn checks_of_the_primary_are_not_ignored_for_want_of_others() {
    let mut hand = cluster(3);
    for _ in 0..3 {
        hand.checked(1, Err(ProbeError::passing("no answer")));
    }
    assert!(!hand.registry.status().is_panic());
    let conditions = hand.registry.status().conditions();
    let [one] = &**conditions else {
        panic!("{conditions:?}")
    };
    let why = one.why.as_ref().unwrap().to_string();
    assert!(!why.contains("too few"), "{why}");
}

#[test]
fn whatever_happened_nobody_is_out_for_ever() {
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    const HOSTS: u8 = 5;
    for seed in 0..400 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let config = Config {
            slow_start: rng.random_bool(0.5).then_some(20 * SECOND),
            warm_up: rng.random_bool(0.3).then_some(3 * SECOND),
            ejection: Ejection::new()
                .success_rate(1.0)
                .max_percent(rng.random_range(0..100)),
            ..Config::default()
        };
        let hosts = rng.random_range(1..=HOSTS);
        let mut hand = with(config, hosts);
        let mut open = Vec::new();
        for _ in 0..150 {
            let host = rng.random_range(1..=hosts);
            match rng.random_range(0..12) {
                0 => hand.wait(SECOND.mul_f64(rng.random_range(0.0..50.0))),
                1 => hand.wait(SECOND / 10),
                2 => hand.answer((1..=hosts).filter(|_| rng.random_bool(0.8))),
                3 => hand.answer(1..=hosts),
                4 => hand.refused(host),
                5 => hand.reached(host),
                6 | 7 => hand.fails(host, rng.random_range(1..8)),
                8 => hand.succeeds(host, rng.random_range(1..3)),
                9 => {
                    hand.checked(host, Err(ProbeError::passing("no answer")));
                }
                10 => {
                    hand.checked(host, Ok(()));
                }
                _ if rng.random_bool(0.3) => open.clear(),
                _ => open.push(hand.endpoint(host).begin()),
            }
            let is_empty = hand.set.is_empty();
            assert_eq!(hand.set.available().is_empty(), is_empty, "seed {seed}");
        }
        // All is well from here on; what hangs goes on hanging.
        for _ in 0..3 {
            hand.wait(5 * SECOND);
            hand.answer(1..=hosts);
        }
        for host in 1..=hosts {
            hand.reached(host);
            (0..2).for_each(|_| {
                hand.checked(host, Ok(()));
            });
        }
        let mut left = 0;
        while let Some(due) = hand.registry.next_deadline().filter(|_| left < 2000) {
            left += 1;
            let pause = due.saturating_duration_since(hand.now).min(SECOND);
            hand.wait(pause);
            hand.answer(1..=hosts);
            for host in 1..=hosts {
                let endpoint = hand.endpoint(host);
                if hand.position(host) == Some(Position::Unknown) && endpoint.admits(true) {
                    hand.succeeds(host, 1);
                }
            }
            if hand.registry.status().conditions().is_empty() && left > 400 {
                break;
            }
        }
        let status = hand.registry.status();
        assert!(
            status.conditions().is_empty(),
            "seed {seed}: {:?}",
            status.conditions()
        );
        assert!(
            !status.is_panic() && !hand.set.available().is_careful(),
            "seed {seed}"
        );
        assert_eq!(
            (ejected(&hand), hand.hosts().len()),
            (vec![], hosts.into()),
            "seed {seed}"
        );
        for host in 1..=hosts {
            let endpoint = hand.endpoint(host);
            assert!(
                !endpoint.is_on_trial() && endpoint.ramp() >= 1.0,
                "seed {seed}"
            );
        }
    }
}
