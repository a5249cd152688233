//! Where rules meet: lag on the endpoints, what is told and when, goals that are about what does not happen.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Pace, Probes, Reason, State,
    by_hand::{ByHand, INTERVAL, LEASE, TIMEOUT, primary, primary_in, primary_of, replica},
};
use crate::{
    hint::Hint,
    probe::{Lineage, ProbeFailure, Role, Term},
    set::Position,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn lag(hand: &ByHand, node: usize) -> (Option<u64>, Option<Duration>) {
    let endpoint = &hand.endpoints[node];
    (endpoint.lag_bytes(), endpoint.lag())
}

fn state(hand: &ByHand) -> State {
    hand.tracker.report().state()
}

// ===== lag =====

#[test]
fn lag_shows_a_dead_receiver_and_an_idle_primary_for_what_they_are() {
    let mut hand = ByHand::stable(3, primary_in(4).at_position(1000));
    for i in 1..=8 {
        hand.pass(INTERVAL);
        hand.say(0, primary_in(4).at_position(1000 + i * 100));
        hand.say(1, replica().at_position(1000 + i * 100));
        // Its receiver is dead: it applied all that it got, and says so.
        hand.say(2, replica().at_position(1000));
    }
    assert_eq!(lag(&hand, 0), (Some(0), Some(Duration::ZERO)));
    assert_eq!(lag(&hand, 1), (Some(0), Some(Duration::ZERO)));
    // The primary went beyond it with its first sample after.
    assert_eq!(lag(&hand, 2), (Some(800), Some(INTERVAL * 7)));
    assert_eq!(hand.endpoints[2].position(), Some(1000));
    for _ in 0..40 {
        hand.pass(INTERVAL);
        hand.say(0, primary_in(4).at_position(1800));
        hand.say(1, replica().at_position(1800));
        hand.say(2, replica().at_position(1000));
    }
    assert_eq!(
        lag(&hand, 1),
        (Some(0), Some(Duration::ZERO)),
        "idle for ten seconds"
    );
    assert_eq!(lag(&hand, 2), (Some(800), Some(INTERVAL * 47)));
}

#[test]
fn lag_is_unknown_while_no_primary_position_is_fresh() {
    let at = |position| primary_in(4).at_position(position);
    let caught_up = || {
        let mut hand = ByHand::stable(2, at(100));
        hand.say(1, replica().at_position(100));
        assert_eq!(lag(&hand, 1).0, Some(0));
        hand
    };
    let mut lost = caught_up();
    lost.fail(0, ProbeFailure::Refused);
    assert_eq!(lag(&lost, 1), (None, None));
    // The tick alone, at the deadline that the tracker named.
    let mut starved = caught_up();
    starved.tracker.take_probes(starved.now);
    assert_eq!(starved.tracker.deadline(), Some(starved.now + LEASE));
    starved.pass(LEASE);
    assert_eq!(
        (lag(&starved, 1), lag(&starved, 0)),
        ((None, None), (None, None))
    );
    // The primary answers, and says no position any more.
    let mut degraded = caught_up();
    for _ in 0..4 {
        degraded.pass(INTERVAL);
        degraded.say(0, primary_in(4));
        degraded.say(1, replica().at_position(100));
    }
    assert_eq!(
        (lag(&degraded, 1), state(&degraded)),
        ((None, None), State::Stable)
    );
    // So does the replica; what it said last is too old.
    let mut silent = caught_up();
    for _ in 0..4 {
        assert!(lag(&silent, 1).0.is_some());
        silent.pass(INTERVAL);
        silent.say(0, at(100));
        silent.say(1, replica());
    }
    assert_eq!(lag(&silent, 1), (None, None));
    let mut hung = caught_up();
    hung.fail(1, ProbeFailure::Timeout);
    assert_eq!(lag(&hung, 1), (None, None));
}

#[test]
fn lag_of_a_replica_with_other_data_or_of_an_older_term_is_unknown() {
    let claim = |id, previous| primary_of(id, previous).at_position(100);
    let mut hand = ByHand::stable(3, claim("x", None));
    let follows = |id| replica().in_lineage(Lineage::of(id)).at_position(90);
    hand.say(1, follows("x"));
    assert_eq!(lag(&hand, 1).0, Some(10));
    hand.say(2, claim("y", Some("x")));
    hand.say(1, follows("x"));
    assert_eq!(
        (lag(&hand, 1).0, hand.standing(1)),
        (None, Position::Replica)
    );

    let mut hand = ByHand::stable(2, primary_in(4).at_position(100));
    hand.say(1, replica().in_term(Term::new(3)).at_position(90));
    assert_eq!(
        (lag(&hand, 1).0, hand.standing(1)),
        (None, Position::Replica)
    );
    let diverged = |hand: &ByHand| {
        let report = hand.tracker.report();
        report
            .endpoints()
            .iter()
            .any(|o| matches!(o.reason(), Some(Reason::Diverged)))
    };
    assert!(diverged(&hand));
    hand.say(1, replica().in_term(Term::new(4)).at_position(90));
    assert_eq!((lag(&hand, 1).0, diverged(&hand)), (Some(10), false));
}

#[test]
fn lag_of_a_replica_ahead_of_the_new_primary_is_unknown_until_it_agrees() {
    let mut hand = ByHand::stable(3, primary_in(1).at_position(1000));
    hand.say(2, replica().at_position(1056));
    hand.say(1, primary_in(2).at_position(1000));
    let mut seen = Vec::new();
    for i in 1..=12 {
        hand.pass(INTERVAL);
        hand.say(
            1,
            primary_in(2).at_position(if i < 8 { 1000 } else { 1100 }),
        );
        hand.say(2, replica().at_position(1056));
        let report = hand.tracker.report();
        let reason = report.endpoints()[2].reason();
        assert_eq!(hand.standing(2), Position::Replica);
        let diverged = matches!(reason, Some(Reason::Diverged));
        assert!(!diverged || lag(&hand, 2) == (None, None));
        seen.push(diverged);
    }
    let first = seen.iter().position(|diverged| *diverged).unwrap();
    // A report may be late by one timeout: what came within it proves nothing.
    assert_eq!(
        INTERVAL * u32::try_from(first + 1).unwrap(),
        TIMEOUT + INTERVAL
    );
    assert_eq!((seen.last(), lag(&hand, 2).0), (Some(&false), Some(44)));
}

#[test]
fn lag_of_a_replica_that_returns_is_not_what_it_was_when_it_left() {
    let mut hand = ByHand::stable(2, primary_in(4).at_position(100));
    hand.say(1, replica().at_position(100));
    hand.list(&[0]);
    hand.pass(SECOND * 20);
    hand.say(0, primary_in(4).at_position(9000));
    hand.list_all();
    // A probe may tell the role first, and the position later.
    hand.say(1, replica());
    assert_eq!(hand.standing(1), Position::Replica);
    assert_eq!(lag(&hand, 1), (None, None));
}

#[test]
fn lag_that_somebody_goes_by_needs_the_position_of_the_primary_as_often() {
    let mut hand = ByHand::stable(3, primary_in(4).at_position(100));
    hand.say(1, replica().at_position(100));
    assert!(hand.endpoints.iter().all(|node| !node.wants_position()));
    hand.endpoints[1].lag_bytes();
    hand.say(1, replica().at_position(100));
    let wanted = hand.endpoints.iter().map(|node| node.wants_position());
    assert_eq!(wanted.collect::<Vec<_>>(), [true, true, false]);
}

#[test]
fn lag_of_a_replica_above_a_new_primary_is_unknown_from_the_start() {
    let mut hand = ByHand::stable(3, primary_in(1).at_position(1000));
    // Under a primary that it was seen below, it may be ahead of the last look at that.
    hand.say(2, replica().at_position(1000));
    hand.say(2, replica().at_position(1056));
    assert_eq!(lag(&hand, 2).0, Some(0));
    hand.say(1, primary_in(2).at_position(1000));
    hand.say(2, replica().at_position(1056));
    assert_eq!(lag(&hand, 2), (None, None));
    hand.say(1, primary_in(2).at_position(1100));
    hand.say(2, replica().at_position(1056));
    assert_eq!(lag(&hand, 2).0, Some(44));
}

#[test]
fn lag_under_a_new_primary_that_writes_is_known_after_a_later_look_at_it() {
    let mut hand = ByHand::stable(3, primary_in(1).at_position(1000));
    hand.say(1, primary_in(2).at_position(1000));
    let mut known = Vec::new();
    for i in 1..=6 {
        // The replica is asked last, and has more by then.
        hand.pass(INTERVAL);
        hand.say(1, primary_in(2).at_position(1000 + i * 100));
        hand.say(2, replica().at_position(1050 + i * 100));
        known.push(lag(&hand, 2).0);
    }
    assert_eq!(known, [None, None, None, Some(0), Some(0), Some(0)]);
}

// ===== what does not happen =====

#[test]
fn crash_recovery_saturation_a_killed_probe_and_starvation_switch_nothing() {
    let mut hand = ByHand::stable(3, primary_in(4));
    let generation = hand.generation();
    let epoch = hand.epoch();
    hand.fail(0, ProbeFailure::Closed);
    hand.say(0, primary_in(4));
    for _ in 0..20 {
        hand.fail(0, ProbeFailure::Saturated);
        hand.pass(INTERVAL);
    }
    hand.say(0, primary_in(4));
    hand.pass(SECOND * 5);
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Suspect));
    hand.fail(0, ProbeFailure::Timeout);
    hand.say(0, primary_in(4));
    assert_eq!(hand.epoch(), epoch, "no connection was doubted");
    for _ in 0..5 {
        hand.fail(0, ProbeFailure::Recovering);
        hand.say(1, replica());
    }
    hand.say(0, primary_in(4));
    assert_eq!((hand.accepted(), hand.generation()), (Some(0), generation));
}

#[test]
fn one_that_took_over_in_the_same_term_stays_when_the_old_one_returns() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.hang(0);
    hand.say(1, primary_in(4));
    let reign = hand.tracker.reign();
    hand.say(0, primary_in(4));
    hand.say(1, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (Some(1), State::Conflict));
    let now = hand.tracker.reign();
    assert_eq!((now.generation, now.epoch), (reign.generation, reign.epoch));
}

#[test]
fn a_claim_that_was_not_renewed_in_time_is_not_accepted_and_still_in_the_way() {
    let mut hand = ByHand::stable(3, primary_in(4));
    hand.say(1, primary_in(4));
    hand.pass(LEASE);
    hand.fail(0, ProbeFailure::Refused);
    assert_eq!((hand.accepted(), state(&hand)), (None, State::NoPrimary));
    hand.say(2, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::Conflict));
    hand.hang(2);
    hand.say(1, primary_in(4));
    assert_eq!(hand.accepted(), Some(1));
}

#[test]
fn a_promoted_replica_without_a_term_is_asked_about_where_others_have_one() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(1, primary());
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Stable));
    hand.say(0, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Conflict));
    hand.say(1, primary_in(5));
    assert_eq!((hand.accepted(), state(&hand)), (Some(1), State::Stable));
}

#[test]
fn a_term_that_becomes_known_later_is_the_same_generation() {
    let mut hand = ByHand::stable(1, primary());
    let generation = hand.generation();
    hand.say(0, primary_in(4));
    hand.say(0, primary());
    let reign = hand.tracker.reign();
    assert_eq!(
        (reign.generation, reign.term),
        (generation, Some(Term::new(4)))
    );
}

#[test]
fn nothing_depends_on_a_clock_that_moves() {
    let mut hand = ByHand::stable(3, primary());
    hand.say(1, primary());
    // At the same instant at which it answered before.
    hand.say(0, Role::Unknown.into());
    assert_eq!(
        hand.accepted(),
        Some(1),
        "an answer without a role confirms nothing"
    );
    hand.say(2, primary());
    hand.say(1, primary());
    assert_eq!((hand.accepted(), state(&hand)), (Some(1), State::Conflict));
    hand.hang(1);
    assert_eq!(hand.accepted(), Some(2));
    assert_eq!(hand.tracker.deadline().map(|at| at >= hand.now), Some(true));
}

#[test]
fn what_a_silent_node_claimed_before_the_start_settled_counts() {
    let mut hand = ByHand::new(3);
    hand.say(0, primary_in(5));
    hand.say(1, primary_in(4));
    hand.fail(0, ProbeFailure::Refused);
    hand.say(2, replica());
    assert_eq!(
        (hand.accepted(), hand.standing(1)),
        (None, Position::Rejected)
    );
}

#[test]
fn a_report_of_an_unknown_endpoint_changes_nothing() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.list(&[0]);
    let report = hand.tracker.report();
    hand.say(1, primary_in(9));
    assert_eq!(hand.accepted(), Some(0));
    assert!(Arc::ptr_eq(&report, &hand.tracker.report()));
    assert_eq!(hand.tracker.reign().term, Some(Term::new(4)));
}

#[test]
fn at_a_cold_start_two_clusters_are_a_conflict_whatever_their_terms() {
    let of = |id: &str, term| primary_in(term).in_lineage(Lineage::of(id));
    let mut hand = ByHand::new(2);
    hand.say(0, of("a", 9));
    hand.say(1, of("b", 2));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::Conflict));
    hand.say(0, replica().in_lineage(Lineage::of("b")));
    assert_eq!(
        (hand.accepted(), hand.standing(0)),
        (Some(1), Position::Replica)
    );
}

// ===== what is told, and when =====

#[test]
fn the_report_is_built_anew_only_when_something_other_than_an_age_changes() {
    let mut hand = ByHand::stable(3, primary_in(4).at_position(1));
    let report = hand.tracker.report();
    for i in 0..20 {
        hand.pass(INTERVAL);
        hand.say(0, primary_in(4).at_position(i + 1));
        hand.say(1, replica().at_position(i));
        hand.say(2, replica());
    }
    assert!(Arc::ptr_eq(&report, &hand.tracker.report()));
    hand.hang(2);
    let down = hand.tracker.report();
    assert!(!Arc::ptr_eq(&report, &down));
    hand.pass(MILLISECOND);
    hand.hang(2);
    assert!(Arc::ptr_eq(&down, &hand.tracker.report()), "down as before");
    let observed = &down.endpoints()[2];
    assert_eq!(observed.position(), Position::Ejected);
    assert_eq!(
        observed.reason().and_then(Reason::failure),
        Some(ProbeFailure::Timeout)
    );
    let text = down.to_string();
    assert!(
        text.contains("primary pg-0 10.0.0.0:5432, stable"),
        "{text}"
    );
    assert!(text.contains("pg-2 10.0.0.2:5432 unavailable"), "{text}");
    assert!(text.contains("no answer in time (as scripted)"), "{text}");
}

#[test]
fn probes_are_fast_in_trouble_and_slow_down_when_it_lasts() {
    let mut hand = ByHand::stable(2, primary_in(4));
    assert_eq!(hand.tracker.pace(hand.now), Pace::Steady);
    hand.tracker.take_probes(hand.now);
    hand.pass(APART);
    hand.fail(0, ProbeFailure::Refused);
    assert_eq!(hand.tracker.take_probes(hand.now), Some(Probes::All));
    let pace = |after| hand.tracker.pace(hand.now + after);
    assert_eq!(pace(Duration::ZERO), Pace::Fast(MILLISECOND * 50));
    assert_eq!(pace(SECOND * 2 - MILLISECOND), Pace::Fast(MILLISECOND * 50));
    assert_eq!(pace(SECOND * 2), Pace::Fast(MILLISECOND * 100));
    assert_eq!(
        pace(SECOND * 30 - MILLISECOND),
        Pace::Fast(MILLISECOND * 100)
    );
    assert_eq!(pace(SECOND * 30), Pace::Fast(SECOND));
}

const APART: Duration = Duration::from_millis(50);

#[test]
fn a_primary_that_is_kept_in_a_conflict_is_probed_within_its_lease() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(1, primary_in(4));
    assert_eq!(
        hand.tracker.pace(hand.now + SECOND * 60),
        Pace::Fast(INTERVAL)
    );
}

#[test]
fn a_node_that_points_to_the_primary_makes_that_one_be_probed_or_dns_be_asked() {
    let mut hand = ByHand::stable(3, primary_in(4));
    hand.tracker.take_probes(hand.now);
    hand.pass(APART);
    let [known, accepted] = [1, 0].map(|i| hand.endpoints[i].addr());
    hand.say(2, replica().pointing_to(accepted));
    assert_eq!(
        (
            hand.tracker.take_probes(hand.now),
            hand.tracker.wants_refresh()
        ),
        (None, false)
    );
    hand.say(2, replica().pointing_to(known));
    let asked = Some(Probes::These(vec![hand.id(1)]));
    assert_eq!(
        (
            hand.tracker.take_probes(hand.now),
            hand.tracker.wants_refresh()
        ),
        (asked, false)
    );
    let unknown = ([10, 9, 9, 9], 5432).into();
    hand.say(2, replica().pointing_to(unknown));
    assert_eq!(
        (
            hand.tracker.take_probes(hand.now),
            hand.tracker.wants_refresh()
        ),
        (None, true)
    );
    // It says so with each probe; while all is well that is no news.
    hand.say(2, replica().pointing_to(unknown));
    assert!(!hand.tracker.wants_refresh());
    hand.fail(0, ProbeFailure::Refused);
    hand.say(2, replica().pointing_to(unknown));
    assert!(hand.tracker.wants_refresh());
}

#[test]
fn hints_in_a_storm_are_one_check_in_fifty_milliseconds() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.tracker.take_probes(hand.now);
    let mut checks = 0;
    for _ in 0..1000 {
        hand.now += MILLISECOND;
        hand.tracker.hinted(hand.now, None, None, Hint::NotPrimary);
        checks += u32::from(hand.tracker.take_probes(hand.now).is_some());
    }
    assert_eq!(checks, 20);
}

#[test]
fn a_loss_and_what_follows_are_told_in_order() {
    let mut hand = ByHand::stable(3, primary_in(4));
    hand.fail(0, ProbeFailure::ShuttingDown);
    hand.say(1, primary_in(5));
    hand.say(0, primary_in(4));
    hand.fail(2, ProbeFailure::Saturated);
    hand.say(2, primary_in(5).fenced_by("fence"));
    hand.say(2, primary_in(5));
    hand.hang(1);
    let told: Vec<String> = hand.events.iter().map(ToString::to_string).collect();
    let [zero, one, two] = [0, 1, 2].map(|i| format!("pg-{i} 10.0.0.{i}:5432"));
    let expected = [
        format!("{zero} is no longer the primary: shutting down (as scripted)"),
        format!("{one} is the primary in term 5, generation 2"),
        format!(
            "{zero} claims to be the primary, and is not: term 4 rejected, term 5 was seen on pg-1 0.0 s ago"
        ),
        format!("{two} does not answer the probe: no connection left"),
        format!("{two} takes no writes: fence"),
        format!("more than one claims to be the primary: {one}, {two}, and {one} is kept"),
        format!("{one} is no longer the primary: no answer in time (as scripted)"),
        format!("{two} is the primary in term 5, generation 3"),
        format!("{two} took over from {one} in the same term 5"),
    ];
    assert_eq!(told, expected);
}

// ===== scale =====

/// Seconds for three rounds of reports by so many endpoints, the first of them from a cold start.
fn rounds(endpoints: usize) -> f64 {
    let mut hand = ByHand::new(1);
    while hand.endpoints.len() < endpoints {
        let (a, b) = (hand.endpoints.len() / 250, hand.endpoints.len() % 250);
        hand.endpoints
            .push(super::by_hand::at(hand.now, [10, 1, a as u8, b as u8]));
    }
    hand.list_all();
    #[expect(
        clippy::disallowed_types,
        reason = "the work is measured, not simulated"
    )]
    let start = std::time::Instant::now();
    for _ in 0..3 {
        for i in 1..endpoints {
            hand.say(i, replica().at_position(1));
        }
        hand.say(0, primary_in(1).at_position(1));
        hand.pass(INTERVAL);
    }
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Stable));
    start.elapsed().as_secs_f64()
}

#[test]
fn many_endpoints_cost_each_report_no_more_than_few() {
    let least = |endpoints| (0..2).map(|_| rounds(endpoints)).fold(f64::MAX, f64::min);
    let (few, many) = (least(1_000), least(30_000));
    // Thirty times the reports, and a large tree misses the cache: 40 to 100 times the time here. If each
    // went through all endpoints it would be nearly 900 times.
    assert!(many < few * 30.0 * 15.0, "{many} s after {few} s");
}

#[test]
fn a_lease_that_the_source_grants_forever_overflows_nothing() {
    let mut hand = ByHand::stable(1, primary_in(4).holding_for(Duration::MAX));
    hand.pass(SECOND * 3600);
    assert_eq!(state(&hand), State::Stable);
    assert!(hand.tracker.deadline() > Some(Instant::now()));
}
