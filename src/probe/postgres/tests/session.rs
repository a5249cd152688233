//! What is asked when, and what is heard while nobody asks.

use std::{pin::pin, task::Poll};

use super::*;
use crate::probe::{Lineage, ProbeFailure, Role, Term, postgres::wire};

/// Asks once; the server answers so.
async fn ask(
    session: &mut PostgresSession,
    peer: &mut Peer,
    wants_position: bool,
    answers: &[&[u8]],
) -> Result<Observation, Broken> {
    peer.say(&answers.concat()).await;
    soon(session.observe(wants_position)).await
}

#[tokio::test]
async fn opening_tells_role_term_lineage_and_position() {
    let lineage = Lineage::of("7710928566095993579");
    let (_, _, seen) = opened(&primary()).await;
    let expected = Observation::of(Role::Primary).in_term(Term::new(1));
    let expected = expected.in_lineage(lineage.clone()).at_position(POSITION);
    assert_eq!(seen, expected);

    let (_, _, seen) = opened(&standby()).await;
    let expected = Observation::of(Role::Replica).in_lineage(lineage);
    assert_eq!(seen, expected.at_position(POSITION));
}

#[tokio::test]
async fn a_question_is_an_empty_round_and_every_fourth_asks_for_the_position() {
    let (mut peer, mut session, _) = opened(&standby()).await;
    for round in 1..=8 {
        let is_row = round % 4 == 0;
        let answer: &[&[u8]] = if is_row {
            &[REPLICA_ROW, READY]
        } else {
            &[READY]
        };
        let seen = ask(&mut session, &mut peer, false, answer).await.unwrap();
        assert_eq!(seen.role(), Role::Replica);
        assert_eq!(seen.position().is_some(), is_row, "{round}");
        let mut asked = if is_row {
            wire::execute("state")
        } else {
            Vec::new()
        };
        asked.extend(wire::sync());
        assert_eq!(peer.heard().await, asked, "{round}");
    }
}

#[tokio::test]
async fn the_position_is_asked_for_each_time_while_somebody_wants_it() {
    let (mut peer, mut session, _) = opened(&primary()).await;
    for _ in 0..5 {
        let seen = ask(&mut session, &mut peer, true, &[PRIMARY_ROW, READY]).await;
        assert_eq!(seen.unwrap().position(), Some(POSITION));
    }
}

#[tokio::test]
async fn a_promotion_asks_for_the_new_timeline_at_once() {
    let (mut peer, mut session, seen) = opened(&standby()).await;
    assert_eq!(seen.term(), None);
    let promoted = setting("in_hot_standby", "off");
    let mut second = PRIMARY_ROW.to_vec();
    let at = second
        .windows(8)
        .position(|digits| digits == b"00000001")
        .unwrap();
    second[at..at + 8].copy_from_slice(b"0000001A");
    let answers: [&[u8]; 4] = [&promoted, READY, &second, READY];
    let seen = ask(&mut session, &mut peer, false, &answers).await.unwrap();
    assert_eq!(
        (seen.role(), seen.term()),
        (Role::Primary, Some(Term::new(26)))
    );
    // It stands with the empty rounds that follow.
    let seen = ask(&mut session, &mut peer, false, &[READY]).await.unwrap();
    assert_eq!(
        (seen.role(), seen.term()),
        (Role::Primary, Some(Term::new(26)))
    );
}

#[tokio::test]
async fn a_promotion_between_a_row_and_its_end_asks_for_the_timeline_again() {
    let (mut peer, mut session, _) = opened(&standby()).await;
    let promoted = setting("in_hot_standby", "off");
    let answers: [&[u8]; 5] = [REPLICA_ROW, &promoted, READY, PRIMARY_ROW, READY];
    let seen = ask(&mut session, &mut peer, true, &answers).await.unwrap();
    assert_eq!(
        (seen.role(), seen.term()),
        (Role::Primary, Some(Term::new(1)))
    );
}

#[tokio::test]
async fn a_fence_names_the_setting_and_the_probes_role_until_it_lifts() {
    let (mut peer, mut session, seen) = opened(&primary()).await;
    assert_eq!(seen.fence(), None);
    let on = setting("default_transaction_read_only", "on");
    let seen = ask(&mut session, &mut peer, false, &[&on, READY])
        .await
        .unwrap();
    let fence = seen.fence().unwrap();
    assert!(fence.contains("default_transaction_read_only") && fence.contains("\"probe\""));
    assert_eq!(seen.term(), Some(Term::new(1)));
    let off = setting("default_transaction_read_only", "off");
    let seen = ask(&mut session, &mut peer, false, &[&off, READY])
        .await
        .unwrap();
    assert_eq!(seen.fence(), None);
}

#[tokio::test]
async fn a_replica_with_the_fence_setting_is_just_a_replica() {
    let (mut peer, mut session, _) = opened(&standby()).await;
    let on = setting("default_transaction_read_only", "on");
    let seen = ask(&mut session, &mut peer, false, &[&on, READY])
        .await
        .unwrap();
    assert_eq!((seen.role(), seen.fence()), (Role::Replica, None));
}

#[tokio::test]
async fn a_server_that_refuses_functions_tells_its_role() {
    for code in ["42501", "42883", "0A000"] {
        let said = [TRUSTED, &welcome("off"), &refusal(code), &refusal(code)].concat();
        let (mut peer, mut session, seen) = opened(&said).await;
        assert_eq!(seen, Observation::of(Role::Primary), "{code}");
        // It is not asked again, also when somebody wants the position.
        for _ in 0..5 {
            let seen = ask(&mut session, &mut peer, true, &[READY]).await.unwrap();
            assert_eq!(seen, Observation::of(Role::Primary));
            assert_eq!(peer.heard().await, wire::sync());
        }
    }
}

#[tokio::test]
async fn an_error_that_may_pass_is_no_refusal() {
    let said = [TRUSTED, &welcome("off"), IDENTITY, &refusal("57014")].concat();
    let (_, result) = open_in(&probe(), &[&said]).await;
    assert_eq!(
        result.err().unwrap().opening().failure(),
        ProbeFailure::Timeout
    );
}

/// Version 13 and older report neither setting.
fn old(answers: &[&[u8]]) -> Vec<u8> {
    let version = setting("server_version", "13.14");
    [TRUSTED, &version, READY, &answers.concat()].concat()
}

fn role_row(standby: &str, read_only: &str) -> Vec<u8> {
    let mut body = 2_i16.to_be_bytes().to_vec();
    for column in [standby, read_only] {
        body.extend(u32::try_from(column.len()).unwrap().to_be_bytes());
        body.extend(column.as_bytes());
    }
    [PARSED, &message(b'D', &body), READY].concat()
}

#[tokio::test]
async fn an_old_server_is_asked_with_a_statement_each_time() {
    let said = old(&[IDENTITY, PARSED, REPLICA_ROW, READY]);
    let (mut peer, mut session, seen) = opened(&said).await;
    assert_eq!(seen.role(), Role::Replica);
    let seen = ask(&mut session, &mut peer, false, &[REPLICA_ROW, READY]).await;
    assert_eq!(seen.unwrap().role(), Role::Replica);
    let seen = ask(&mut session, &mut peer, false, &[PRIMARY_ROW, READY])
        .await
        .unwrap();
    assert_eq!(
        (seen.role(), seen.term()),
        (Role::Primary, Some(Term::new(1)))
    );
}

#[tokio::test]
async fn an_old_server_that_refuses_functions_is_asked_for_its_role_alone() {
    let (refused, row) = (refusal("42501"), role_row("f", "on"));
    let said = old(&[&refused, &refused, &row]);
    let (mut peer, mut session, seen) = opened(&said).await;
    assert_eq!(seen.role(), Role::Primary);
    assert!(seen.fence().is_some());
    let row = role_row("t", "on");
    let seen = ask(&mut session, &mut peer, true, &[&row]).await.unwrap();
    assert_eq!(seen, Observation::of(Role::Replica));
}

#[tokio::test]
async fn what_ends_a_session_signals_and_fails_the_next_question() {
    for (tag, severity, code) in [
        (b'E', "FATAL", "57P01"),
        (b'N', "WARNING", "57P02"),
        (b'E', "FATAL", "57P05"),
    ] {
        let (mut peer, mut session, _) = opened(&primary()).await;
        peer.say(&complaint(tag, severity, code, "the end")).await;
        soon(session.interrupted()).await;
        // A second wait is over at once, too.
        soon(session.interrupted()).await;
        let error = soon(session.observe(false)).await.unwrap_err().on_session();
        assert_eq!(error.failure(), ProbeFailure::Closed);
        assert_eq!(why(&error), format!("the end (SQLSTATE {code})"));
        assert!(!error.is_definitive(), "only opening anew tells");
    }
    let (peer, mut session, _) = opened(&primary()).await;
    drop(peer);
    soon(session.interrupted()).await;
    let error = soon(session.observe(false)).await.unwrap_err().on_session();
    assert_eq!(error.failure(), ProbeFailure::Closed);
}

#[tokio::test]
async fn an_end_that_nobody_waited_for_is_told_by_the_next_question() {
    let (mut peer, mut session, _) = opened(&primary()).await;
    peer.say(&complaint(b'E', "FATAL", "57P01", "the end"))
        .await;
    drop(peer);
    let error = soon(session.observe(false)).await.unwrap_err().on_session();
    assert_eq!(why(&error), "the end (SQLSTATE 57P01)");
}

#[tokio::test]
async fn a_pushed_role_setting_signals_and_others_do_not() {
    let (mut peer, mut session, _) = opened(&primary()).await;
    peer.say(&setting("TimeZone", "UTC")).await;
    peer.say(&complaint(b'N', "WARNING", "01000", "a warning"))
        .await;
    peer.say(&message(b'A', b"\0\0\0\x01channel\0payload\0"))
        .await;
    peer.say(&setting("in_hot_standby", "off")).await; // as before
    assert!(!is_over(&mut session).await);
    peer.say(&setting("default_transaction_read_only", "on"))
        .await;
    assert!(is_over(&mut session).await);
    let seen = ask(&mut session, &mut peer, false, &[READY]).await.unwrap();
    assert!(seen.fence().is_some());
}

#[tokio::test]
async fn a_signal_in_pieces_survives_every_wait_that_is_given_up() {
    let end = complaint(b'E', "FATAL", "57P01", "the end");
    let (mut peer, mut session, _) = opened(&primary()).await;
    let (last, before) = end.split_last().unwrap();
    for byte in before {
        peer.say(&[*byte]).await;
        assert!(!is_over(&mut session).await);
    }
    peer.say(&[*last]).await;
    assert!(is_over(&mut session).await);
    let error = soon(session.observe(false)).await.unwrap_err().on_session();
    assert_eq!(why(&error), "the end (SQLSTATE 57P01)");
}

#[tokio::test]
async fn a_question_after_half_a_push_hears_the_other_half() {
    let push = setting("default_transaction_read_only", "on");
    for split in 1..push.len() {
        let (mut peer, mut session, _) = opened(&primary()).await;
        peer.say(&push[..split]).await;
        assert!(!is_over(&mut session).await);
        let seen = ask(&mut session, &mut peer, false, &[&push[split..], READY]).await;
        assert!(seen.unwrap().fence().is_some(), "{split}");
    }
}

#[tokio::test]
async fn garbage_while_idle_ends_the_session() {
    let (mut peer, mut session, _) = opened(&primary()).await;
    peer.say(b"Z\0\0\0\x05I").await;
    soon(session.interrupted()).await;
    let error = soon(session.observe(false)).await.unwrap_err().on_session();
    assert_eq!(error.failure(), ProbeFailure::Other);
}

/// Whether a wait for a signal ends with what has come; it is given up otherwise.
async fn is_over(session: &mut PostgresSession) -> bool {
    let mut waiting = pin!(session.interrupted());
    std::future::poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_ready())).await
}
