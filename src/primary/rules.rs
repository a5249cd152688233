//! One test or more for each rule R1-R14 of the tracker, by its name.

use std::time::Duration;

use super::{
    Event, OnConflict, Pace, Probes, Reason, State,
    by_hand::{ByHand, INTERVAL, LEASE, primary, primary_in, primary_of, replica},
};
use crate::{
    hint::Hint,
    probe::{Authority, Lineage, Observation, ProbeFailure, Role, Term},
    set::Position,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn reason(hand: &ByHand, node: usize) -> Reason {
    let report = hand.tracker.report();
    let observed = report
        .endpoints()
        .iter()
        .find(|o| o.endpoint().id() == hand.id(node));
    observed.unwrap().reason().cloned().unwrap()
}

fn state(hand: &ByHand) -> State {
    hand.tracker.report().state()
}

#[test]
fn primary_r01_a_claim_above_the_highest_term_wins_at_once() {
    let mut hand = ByHand::stable(3, primary_in(4));
    let (generation, epoch) = (hand.generation(), hand.epoch());
    hand.say(1, primary_in(5));
    assert_eq!(hand.accepted(), Some(1));
    assert_eq!(
        (hand.generation(), hand.epoch()),
        (generation + 1, epoch + 1)
    );
    assert_eq!(hand.tracker.reign().term, Some(Term::new(5)));
    assert_eq!(hand.count(|e| matches!(e, Event::Superseded { .. })), 1);
    // The same server promoted again: a new generation as well.
    hand.say(1, primary_in(6));
    assert_eq!(
        (hand.accepted(), hand.generation()),
        (Some(1), generation + 2)
    );
}

#[test]
fn primary_r02_a_claim_below_the_highest_term_is_rejected_until_it_follows_or_has_a_new_term() {
    let mut hand = ByHand::stable(3, primary_in(4));
    hand.say(1, primary_in(5));
    assert_eq!(hand.standing(0), Position::Rejected);
    for _ in 0..3 {
        hand.say(0, primary_in(4));
    }
    assert_eq!(hand.standing(0), Position::Rejected);
    assert_eq!(hand.count(|e| matches!(e, Event::StalePrimary { .. })), 1);
    let Reason::StaleTerm { term, highest } = reason(&hand, 0) else {
        panic!("{:?}", reason(&hand, 0));
    };
    assert_eq!((term, highest.term()), (Term::new(4), Term::new(5)));
    assert_eq!(hand.number(highest.endpoint()), 1);
    // Silence is no repentance.
    hand.hang(0);
    assert_eq!(hand.standing(0), Position::Rejected);
    hand.say(0, primary_in(4));
    hand.say(0, replica());
    assert_eq!(hand.standing(0), Position::Replica);
    hand.say(0, primary_in(6));
    assert_eq!(hand.accepted(), Some(0));
}

#[test]
fn primary_r02_a_stale_claim_is_never_accepted_even_if_there_is_no_other() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(1, primary_in(5));
    hand.hang(1);
    hand.say(0, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::NoPrimary));
    // A probe that sees less than before makes it no other claim.
    hand.say(0, primary());
    assert_eq!(
        (hand.accepted(), hand.standing(0)),
        (None, Position::Rejected)
    );
}

#[test]
fn primary_r02_a_claim_on_superseded_data_is_rejected() {
    let mut hand = ByHand::stable(2, primary_of("x", None));
    hand.say(1, primary_of("y", Some("x")));
    assert_eq!(hand.accepted(), Some(1));
    hand.say(0, primary_of("x", None));
    assert_eq!(hand.standing(0), Position::Rejected);
    assert!(matches!(reason(&hand, 0), Reason::StaleLineage { .. }));
    hand.say(0, replica().in_lineage(Lineage::of("y").after("x")));
    assert_eq!(hand.standing(0), Position::Replica);
}

#[test]
fn primary_r03_the_incumbent_is_preferred_until_its_claim_is_lost() {
    let mut hand = ByHand::stable(3, primary_in(4));
    let generation = hand.generation();
    hand.say(1, primary_in(4));
    hand.say(1, primary_in(4));
    hand.say(0, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Conflict));
    assert_eq!(hand.count(|e| matches!(e, Event::Conflict { .. })), 1);
    assert!(matches!(reason(&hand, 1), Reason::Conflict { with } if hand.number(&with) == 0));
    hand.fail(0, ProbeFailure::Timeout);
    assert_eq!(hand.accepted(), Some(0), "not lost yet");
    hand.fail(0, ProbeFailure::Timeout);
    assert_eq!(
        (hand.accepted(), hand.generation()),
        (Some(1), generation + 1)
    );
    assert_eq!(
        hand.count(|e| matches!(e, Event::SameTermTakeover { .. })),
        1
    );
}

#[test]
fn primary_r03_the_same_pod_under_a_new_address_takes_over_without_an_event() {
    let mut hand = ByHand::stable(2, primary_in(4));
    let again = hand.appear("pg-0");
    hand.list(&[1, again]);
    hand.say(again, primary_in(4));
    assert_eq!(
        hand.accepted(),
        Some(0),
        "it left DNS, and may still be there"
    );
    hand.hang(0);
    assert_eq!(hand.accepted(), Some(again));
    assert_eq!(
        hand.count(|e| matches!(e, Event::SameTermTakeover { .. })),
        0
    );
}

#[test]
fn primary_r03_hold_accepts_nobody_while_two_claim() {
    let mut hand = ByHand::stable_with(2, primary_in(4), OnConflict::Hold);
    let (generation, epoch) = (hand.generation(), hand.epoch());
    hand.say(1, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::Conflict));
    assert_eq!(hand.epoch(), epoch + 1);
    for node in [0, 1] {
        assert!(matches!(reason(&hand, node), Reason::Conflict { .. }));
    }
    hand.say(1, replica());
    assert_eq!((hand.accepted(), hand.generation()), (Some(0), generation));
}

#[test]
fn primary_r03_without_an_incumbent_preferring_it_accepts_nobody() {
    let mut hand = ByHand::new(2);
    hand.say(0, primary_in(4));
    hand.say(1, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::Conflict));
    hand.say(0, replica());
    assert_eq!(hand.accepted(), Some(1));
}

#[test]
fn primary_r03_the_highest_position_wins_once_and_for_the_whole_conflict() {
    let at = |position| primary_in(4).at_position(position);
    let mut hand = ByHand::stable_with(3, at(100), OnConflict::HighestPosition);
    hand.say(1, primary_in(4));
    assert_eq!(hand.accepted(), Some(0), "its position is not known yet");
    hand.say(1, at(110));
    assert_eq!(hand.accepted(), Some(1));
    let generation = hand.generation();
    for position in [200, 300] {
        hand.say(0, at(position));
        hand.say(1, at(position - 50));
    }
    hand.list(&[0, 1]);
    assert_eq!((hand.accepted(), hand.generation()), (Some(1), generation));
}

#[test]
fn primary_r03_authority_is_heard_before_what_nodes_say_of_themselves() {
    let mut hand = ByHand::stable_with(2, primary(), OnConflict::Authority);
    hand.say(1, primary().by_authority(Authority::Quorum));
    hand.say(0, primary());
    assert_eq!(hand.accepted(), Some(1));
    hand.say(0, primary().by_authority(Authority::Quorum));
    assert_eq!(hand.accepted(), Some(1), "two authorities: the incumbent");
}

#[test]
fn primary_r04_a_replica_that_became_primary_wins_unless_the_incumbent_confirms() {
    // Not confirmed: silence, a replica's answer, or a node that is there and does not talk to us.
    for failure in [ProbeFailure::Timeout, ProbeFailure::Saturated] {
        let mut hand = ByHand::stable(3, primary());
        hand.tracker.take_probes(hand.now);
        hand.pass(INTERVAL);
        hand.say(1, primary());
        assert_eq!(hand.accepted(), Some(0), "it is asked first");
        let asked = hand.tracker.take_probes(hand.now);
        assert_eq!(asked, Some(Probes::These(vec![hand.id(0)])));
        hand.fail(0, failure);
        assert_eq!((hand.accepted(), state(&hand)), (Some(1), State::Stable));
        assert_eq!(hand.count(|e| matches!(e, Event::Conflict { .. })), 0);
    }
    let mut hand = ByHand::stable(3, primary());
    hand.say(1, primary());
    hand.say(0, replica());
    assert_eq!(hand.accepted(), Some(1));
}

#[test]
fn primary_r04_a_confirmed_incumbent_is_kept_by_the_policy() {
    let mut hand = ByHand::stable(3, primary());
    hand.say(1, primary());
    hand.say(0, primary());
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Conflict));
    hand.say(1, primary());
    hand.fail(0, ProbeFailure::Timeout);
    assert_eq!(hand.accepted(), Some(0), "that step was answered");
    // The next step of a replica to primary is asked about anew.
    hand.say(2, primary());
    hand.fail(0, ProbeFailure::Timeout);
    assert_eq!(hand.accepted(), Some(2));
}

#[test]
fn primary_r04_a_node_that_comes_back_as_primary_beats_nobody() {
    let mut hand = ByHand::stable(3, primary());
    hand.hang(0);
    hand.say(1, primary());
    assert_eq!(hand.accepted(), Some(1));
    let generation = hand.generation();
    // The zombie.
    hand.say(0, primary());
    hand.fail(1, ProbeFailure::Timeout);
    assert_eq!((hand.accepted(), hand.generation()), (Some(1), generation));
    hand.say(1, primary());
    assert_eq!(state(&hand), State::Conflict);
    // Even with nobody in office the one whose step was seen goes before it.
    hand.fail(1, ProbeFailure::Recovering);
    assert_eq!(hand.accepted(), Some(0));
    hand.say(1, replica());
    hand.say(1, primary());
    hand.hang(0);
    assert_eq!(hand.accepted(), Some(1));
}

#[test]
fn primary_r05_a_cold_start_waits_until_all_are_heard_of() {
    let mut hand = ByHand::new(3);
    hand.say(0, primary_in(4));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::Unknown));
    hand.fail(1, ProbeFailure::Timeout);
    assert_eq!(hand.accepted(), None);
    hand.say(2, primary_in(5));
    assert_eq!(hand.accepted(), Some(2), "the zombie answered first");
    assert_eq!(hand.generation(), 1);
    assert_eq!(hand.standing(0), Position::Rejected);
}

#[test]
fn primary_r05_a_cold_start_waits_for_the_settle_time_at_most() {
    let mut hand = ByHand::new(3);
    hand.say(1, replica());
    hand.pass(SECOND);
    hand.say(0, primary_in(4));
    assert_eq!(hand.tracker.deadline(), Some(hand.now + INTERVAL));
    hand.pass(INTERVAL - MILLISECOND);
    assert_eq!(hand.accepted(), None);
    hand.pass(MILLISECOND);
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Stable));
}

#[test]
fn primary_r06_a_claim_that_is_not_renewed_in_time_is_suspect_and_all_are_probed() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.tracker.take_probes(hand.now);
    let epoch = hand.epoch();
    assert_eq!(hand.tracker.deadline(), Some(hand.now + LEASE));
    hand.pass(LEASE - MILLISECOND);
    assert_eq!(state(&hand), State::Stable);
    hand.pass(MILLISECOND);
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Suspect));
    assert!(matches!(
        hand.tracker.report().why(),
        Some(Reason::LeaseOver)
    ));
    assert_eq!(hand.tracker.take_probes(hand.now), Some(Probes::All));
    assert_eq!(
        hand.tracker.pace(hand.now),
        Pace::Fast(Duration::from_millis(50))
    );
    hand.say(0, primary_in(4));
    assert_eq!((state(&hand), hand.epoch()), (State::Stable, epoch));
    assert_eq!(hand.tracker.reign().confirmed_at, Some(hand.now));
}

#[test]
fn primary_r06_a_lease_of_the_source_counts_instead() {
    let mut hand = ByHand::stable(1, primary_in(4).holding_for(SECOND * 10));
    hand.pass(SECOND * 10 - MILLISECOND);
    assert_eq!(state(&hand), State::Stable);
    hand.pass(MILLISECOND);
    assert_eq!(state(&hand), State::Suspect);
}

#[test]
fn primary_r07_the_same_endpoint_with_the_same_term_is_the_same_generation() {
    let mut hand = ByHand::stable(2, primary_in(4));
    let (generation, epoch) = (hand.generation(), hand.epoch());
    hand.fail(0, ProbeFailure::Recovering);
    assert_eq!((hand.accepted(), state(&hand)), (None, State::NoPrimary));
    assert_eq!((hand.generation(), hand.epoch()), (generation, epoch + 1));
    hand.say(0, primary_in(4));
    assert_eq!(hand.accepted(), Some(0));
    assert_eq!((hand.generation(), hand.epoch()), (generation, epoch + 1));
}

#[test]
fn primary_r08_a_node_that_does_not_talk_to_us_stays_suspect_with_one_event() {
    for failure in [
        ProbeFailure::Saturated,
        ProbeFailure::Auth,
        ProbeFailure::Tls,
    ] {
        let mut hand = ByHand::stable(2, primary_in(4));
        for _ in 0..10 {
            hand.pass(INTERVAL);
            hand.fail(0, failure);
            assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Suspect));
        }
        let told =
            hand.count(|e| matches!(e, Event::Mute { error, .. } if error.failure() == failure));
        assert_eq!((told, hand.events.len()), (1, 1));
        hand.say(1, primary_in(5));
        assert_eq!(hand.accepted(), Some(1), "it does not hold others up");
    }
}

#[test]
fn primary_r09_an_incumbent_that_says_replica_is_lost_at_once() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(0, replica());
    assert_eq!((hand.accepted(), state(&hand)), (None, State::NoPrimary));
    assert_eq!(hand.standing(0), Position::Replica);
    let report = hand.tracker.report();
    assert!(matches!(report.last().unwrap().why(), Reason::SteppedDown));
    assert_eq!(hand.number(report.last().unwrap().endpoint()), 0);
}

#[test]
fn primary_r09_an_answer_without_a_role_is_no_more_than_a_lost_packet() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(0, Role::Unknown.into());
    assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Suspect));
    hand.say(0, primary_in(4));
    assert_eq!(state(&hand), State::Stable);
    hand.say(0, Role::Unknown.into());
    hand.say(0, Role::Unknown.into());
    assert_eq!(
        (hand.accepted(), hand.standing(0)),
        (None, Position::Unknown)
    );
}

#[test]
fn primary_r10_leaving_dns_is_no_demotion_for_as_long_as_it_may_linger() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.list(&[1]);
    assert_eq!(hand.tracker.held().map(|held| hand.number(held)), Some(0));
    let step = SECOND / 2;
    for _ in 0..59 {
        hand.pass(step);
        hand.say(0, primary_in(4));
        assert_eq!((hand.accepted(), state(&hand)), (Some(0), State::Stable));
        // Answers that lack it again do not begin it anew.
        hand.list(&[1]);
    }
    hand.pass(step);
    assert_eq!((hand.accepted(), state(&hand)), (None, State::NoPrimary));
    assert!(hand.tracker.held().is_none());
    assert_eq!(hand.tracker.report().endpoints().len(), 1);
    hand.say(0, primary_in(4));
    assert_eq!(hand.accepted(), None, "forgotten");
}

#[test]
fn primary_r10_one_that_left_dns_goes_when_it_is_superseded_and_returns_with_its_address() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.list(&[1]);
    hand.list_all();
    assert!(hand.tracker.held().is_none());
    hand.pass(SECOND * 31);
    assert_eq!(hand.accepted(), Some(0));
    hand.list(&[1]);
    hand.say(1, primary_in(5));
    assert_eq!(hand.accepted(), Some(1));
    assert!(hand.tracker.held().is_none() && hand.standing(0) == Position::Unknown);
    hand.say(1, primary_in(5));
    // The same pod under a new address is a new endpoint; what terms it may not have stays known.
    let again = hand.appear("pg-0");
    hand.list(&[1, again]);
    assert_eq!(hand.standing(again), Position::Unknown);
    hand.say(again, primary_in(4));
    assert_eq!(hand.standing(again), Position::Rejected);
}

#[test]
fn primary_r11_a_node_of_another_cluster_is_rejected_whatever_its_term() {
    let ours = |term| primary_in(term).in_lineage(Lineage::of("ours"));
    let mut hand = ByHand::stable(3, ours(4));
    hand.say(1, primary_in(9).in_lineage(Lineage::of("theirs")));
    assert_eq!(
        (hand.accepted(), hand.standing(1)),
        (Some(0), Position::Rejected)
    );
    assert!(
        matches!(reason(&hand, 1), Reason::WrongCluster { id: Some(id), .. } if *id == *"theirs")
    );
    assert_eq!(hand.count(|e| matches!(e, Event::WrongCluster { .. })), 1);
    hand.say(2, replica().in_lineage(Lineage::of("theirs")));
    assert_eq!(hand.standing(2), Position::Rejected);
    let told = |hand: &ByHand| hand.count(|e| matches!(e, Event::WrongCluster { .. }));
    assert_eq!(
        told(&hand),
        1,
        "it may follow a new primary that was not seen yet"
    );
    for _ in 0..8 {
        hand.pass(INTERVAL);
        hand.say(0, ours(4));
        hand.say(2, replica().in_lineage(Lineage::of("theirs")));
    }
    assert_eq!(told(&hand), 2);
    // Its term was never ours: a later one of ours is not measured by it.
    hand.say(2, ours(5));
    assert_eq!(hand.accepted(), Some(2));
    hand.fail(1, ProbeFailure::WrongCluster);
    hand.hang(1);
    assert_eq!(hand.standing(1), Position::Rejected);
}

#[test]
fn primary_r11_a_cluster_is_rebuilt_if_for_two_rounds_all_claims_are_of_another() {
    let of = |id: &str, term| primary_in(term).in_lineage(Lineage::of(id));
    let mut hand = ByHand::stable(2, of("old", 7));
    let generation = hand.generation();
    hand.fail(0, ProbeFailure::Refused);
    for _ in 0..2 {
        hand.say(1, of("new", 1));
        assert_eq!(hand.accepted(), None);
        hand.fail(0, ProbeFailure::Refused);
    }
    assert_eq!(
        (hand.accepted(), hand.generation()),
        (Some(1), generation + 1)
    );
    assert_eq!(hand.tracker.reign().term, Some(Term::new(1)));
    assert_eq!(hand.count(|e| matches!(e, Event::Rebuilt { .. })), 1);
    hand.say(0, of("old", 7));
    assert_eq!(
        (hand.accepted(), hand.standing(0)),
        (Some(1), Position::Rejected)
    );
}

#[test]
fn primary_r11_nothing_is_rebuilt_while_one_node_claims_the_old_data_or_may_still() {
    let mut hand = ByHand::stable(3, primary_of("x", None));
    // Restarted empty, it answers fast while the primary hangs.
    hand.fail(0, ProbeFailure::Timeout);
    for _ in 0..10 {
        hand.say(1, primary_of("empty", None));
        hand.say(2, replica());
    }
    assert_eq!(
        (hand.accepted(), hand.standing(1)),
        (Some(0), Position::Rejected)
    );
    hand.fail(0, ProbeFailure::Timeout);
    for _ in 0..10 {
        hand.say(1, primary_of("empty", None));
        hand.say(2, replica());
    }
    assert_eq!(
        hand.accepted(),
        None,
        "two more rounds are not over before the old one reported"
    );
    // One that was superseded is of the old cluster all the same.
    hand.say(2, primary_of("y", Some("x")));
    hand.say(0, primary_of("x", None));
    hand.fail(2, ProbeFailure::Refused);
    for _ in 0..10 {
        hand.say(0, primary_of("x", None));
        hand.say(1, primary_of("empty", None));
        hand.fail(2, ProbeFailure::Refused);
    }
    assert_eq!(
        (hand.accepted(), hand.standing(0)),
        (None, Position::Rejected)
    );
    hand.say(2, primary_of("y", Some("x")));
    assert_eq!(hand.accepted(), Some(2));
}

#[test]
fn primary_r12_a_fenced_claim_is_not_accepted_and_stops_writes_to_the_older_term() {
    let mut hand = ByHand::stable(2, primary_in(4));
    let setting = "default_transaction_read_only";
    hand.say(1, primary_in(5).fenced_by(setting));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::NoPrimary));
    assert_eq!(
        (hand.standing(0), hand.standing(1)),
        (Position::Rejected, Position::Unknown)
    );
    assert!(matches!(reason(&hand, 1), Reason::Fenced { by } if &*by == setting));
    hand.say(1, primary_in(5).fenced_by(setting));
    assert_eq!(hand.count(|e| matches!(e, Event::Fenced { .. })), 1);
    assert!(hand.tracker.report().to_string().contains(setting));
    assert!(!hand.tracker.report().to_string().contains("forget_term"));
    hand.say(1, primary_in(5));
    assert_eq!(hand.accepted(), Some(1));
}

#[test]
fn primary_r12_an_incumbent_that_is_fenced_is_lost_and_comes_back_in_its_generation() {
    let mut hand = ByHand::stable(2, primary_in(4));
    let generation = hand.generation();
    hand.say(0, primary_in(4).fenced_by("fence"));
    assert_eq!(hand.accepted(), None);
    hand.say(0, primary_in(4));
    assert_eq!((hand.accepted(), hand.generation()), (Some(0), generation));
}

#[test]
fn primary_r12_a_cold_start_learns_a_fenced_term_too() {
    let mut hand = ByHand::new(2);
    hand.say(0, primary_in(4));
    hand.say(1, primary_in(5).fenced_by("fence"));
    assert_eq!((hand.accepted(), state(&hand)), (None, State::Unknown));
    assert_eq!(hand.standing(0), Position::Rejected);
    assert!(matches!(
        hand.tracker.report().why(),
        Some(Reason::Fenced { .. })
    ));
}

#[test]
fn primary_r13_hints_make_probes_look_and_change_nothing_themselves() {
    let mut hand = ByHand::stable(3, primary_in(4));
    hand.tracker.take_probes(hand.now);
    let (before, epoch) = (hand.tracker.reign(), hand.epoch());
    let (one, there) = (hand.id(0), hand.endpoints[2].addr());
    let cases = [
        (Hint::NotPrimary, Some(Probes::All), false),
        (Hint::GoingAway, Some(Probes::All), false),
        (Hint::Moved(None), Some(Probes::All), false),
        (Hint::NotReady, Some(Probes::These(vec![one])), false),
        (
            Hint::Moved(Some(there)),
            Some(Probes::These(vec![hand.id(2)])),
            false,
        ),
        (Hint::Moved(Some(([10, 9, 9, 9], 1).into())), None, true),
        (Hint::Connection, Some(Probes::These(vec![one])), true),
        (Hint::Overload, None, false),
    ];
    for (hint, probes, refresh) in cases {
        hand.pass(MILLISECOND * 50);
        hand.tracker.hinted(hand.now, Some(one), Some(epoch), hint);
        assert_eq!(hand.tracker.take_probes(hand.now), probes, "{hint:?}");
        assert_eq!(hand.tracker.wants_refresh(), refresh, "{hint:?}");
        assert!(!hand.tracker.wants_refresh());
    }
    assert_eq!((hand.tracker.reign(), hand.accepted()), (before, Some(0)));
    assert_eq!(hand.standing(0), Position::Primary);
}

#[test]
fn primary_r13_a_hint_from_an_older_epoch_is_ignored() {
    let mut hand = ByHand::stable(2, primary_in(4));
    let old = hand.epoch();
    hand.say(1, primary_in(5));
    hand.tracker.take_probes(hand.now);
    hand.pass(MILLISECOND * 50);
    hand.tracker
        .hinted(hand.now, Some(hand.id(0)), Some(old), Hint::NotPrimary);
    assert_eq!(hand.tracker.take_probes(hand.now), None);
    hand.tracker
        .hinted(hand.now, Some(hand.id(0)), None, Hint::NotPrimary);
    assert_eq!(hand.tracker.take_probes(hand.now), Some(Probes::All));
}

#[test]
fn primary_r14_a_lower_term_is_accepted_only_when_the_higher_is_forgotten() {
    let mut hand = ByHand::stable(2, primary_in(7));
    hand.fail(0, ProbeFailure::Refused);
    hand.say(1, primary_in(4));
    assert_eq!(
        (hand.accepted(), hand.standing(1)),
        (None, Position::Rejected)
    );
    let text = hand.tracker.report().to_string();
    assert!(
        text.contains("term 4 rejected, term 7 was seen on pg-0 0.0 s ago"),
        "{text}"
    );
    assert!(
        text.ends_with("; after a restore call forget_term()"),
        "{text}"
    );
    hand.tracker.forget_term(hand.now);
    assert_eq!(
        (hand.accepted(), hand.tracker.reign().term),
        (Some(1), Some(Term::new(4)))
    );
}

#[test]
fn primary_r14_forgetting_keeps_a_confirmed_primary_above_a_zombie_and_drops_a_suspect_one() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(1, primary_in(7));
    hand.say(0, primary_in(4));
    hand.tracker.forget_term(hand.now);
    assert_eq!(
        (hand.accepted(), hand.standing(0)),
        (Some(1), Position::Rejected)
    );
    hand.fail(1, ProbeFailure::Timeout);
    hand.tracker.forget_term(hand.now);
    assert_eq!(hand.accepted(), Some(0));
}

#[test]
fn primary_r14_a_term_outlives_the_endpoint_that_had_it() {
    let mut hand = ByHand::stable(2, primary_in(4));
    hand.say(1, primary_in(7));
    hand.list(&[0]);
    hand.hang(1);
    assert_eq!(hand.tracker.report().endpoints().len(), 1);
    hand.say(0, Observation::of(Role::Primary).in_term(Term::new(4)));
    assert_eq!(hand.accepted(), None);
}
