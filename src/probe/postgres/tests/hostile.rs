//! Every piece, every cut, and what nobody should say: an answer or an error with a name, at once.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use super::*;
use crate::{
    draw::process_seed,
    probe::{ProbeFailure, Role},
};

/// A login with SCRAM, a notice, a notification, and a row.
fn everything() -> Vec<u8> {
    let notice = complaint(b'N', "NOTICE", "00000", "hello");
    let notification = message(b'A', b"\0\0\0\x01channel\0payload\0");
    let scram = login::quick_scram();
    [
        &scram,
        &notice,
        TRUSTED,
        &notification,
        &welcome("on"),
        &notice,
    ]
    .concat()
    .into_iter()
    .chain(
        [
            IDENTITY,
            &notice,
            PARSED,
            &notification,
            REPLICA_ROW,
            &notice,
            READY,
        ]
        .concat(),
    )
    .collect()
}

#[tokio::test]
async fn replies_in_two_pieces_split_anywhere_say_the_same() {
    let said = everything();
    for split in 1..said.len() {
        let (first, second) = said.split_at(split);
        let (_, opened) = open_in(&probe(), &[first, second]).await;
        let (_, seen) = opened.unwrap_or_else(|broken| panic!("at {split}: {broken:?}"));
        assert_eq!(seen.role(), Role::Replica, "{split}");
        assert_eq!(seen.position(), Some(POSITION), "{split}");
    }
}

#[tokio::test]
async fn replies_byte_by_byte_say_the_same() {
    let said = everything();
    let pieces: Vec<&[u8]> = said.chunks(1).collect();
    let (_, opened) = open_in(&probe(), &pieces).await;
    assert_eq!(opened.unwrap().1.role(), Role::Replica);
}

#[tokio::test]
async fn an_end_at_any_byte_is_a_closed_session() {
    let said = everything();
    for end in 0..said.len() {
        let error = open_until_end(&probe(), &said[..end]).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Closed, "{end}: {error:?}");
        assert!(!error.is_definitive());
    }
    assert!(open_until_end(&probe(), &said).await.is_ok());
}

#[tokio::test]
async fn garbage_in_place_of_any_byte_is_heard_to_its_end() {
    let said = everything();
    let seed = process_seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    let probe = probe();
    for at in 0..said.len() {
        let mut garbled = said.clone();
        garbled[at] ^= rng.random_range(1..=255);
        // Some bytes do not matter. None makes it wait for what does not come, panic or go on without end.
        let heard = open_until_end(&probe, &garbled);
        let heard = timeout(Duration::from_secs(10), heard).await;
        assert!(heard.is_ok(), "seed {seed}, byte {at}: {:?}", garbled[at]);
    }
}

#[tokio::test]
async fn random_bytes_are_no_server() {
    let seed = process_seed();
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..1000 {
        let length = rng.random_range(0..200);
        let bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
        let heard = open_until_end(&probe(), &bytes).await;
        assert!(heard.is_err(), "seed {seed}: {bytes:?}");
    }
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_before_it_comes() {
    for tag in *b"RSDEZ" {
        let header = [&[tag][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
        // The server stays, and says no more.
        let (_, opened) = open_in(&probe(), &[&header]).await;
        let error = opened.err().unwrap().opening();
        assert_eq!(error.failure(), ProbeFailure::Other);
        assert!(why(&error).contains("too long"), "{}", why(&error));
    }
}

#[tokio::test]
async fn somebody_else_at_the_address_is_named() {
    for said in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"-ERR unknown command\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let error = open_until_end(&probe(), said).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Other);
        assert!(why(&error).contains("no PostgreSQL server"));
    }
}

#[tokio::test]
async fn a_server_without_a_process_for_us_is_saturated() {
    let said = b"Ecould not fork new process for connection: Cannot allocate memory\n\0";
    let error = open_until_end(&probe(), said).await.unwrap_err();
    assert_eq!(error.failure(), ProbeFailure::Saturated);
    assert!(why(&error).starts_with("could not fork new process"));
}

#[tokio::test]
async fn messages_out_of_turn_are_refused() {
    let identity_without_row = [TRUSTED, &welcome("off"), READY].concat();
    let row_of_another_shape = [TRUSTED, &welcome("off"), PRIMARY_ROW, READY].concat();
    let ready_at_once = READY.to_vec();
    let second_login = [TRUSTED, TRUSTED].concat();
    for said in [
        identity_without_row,
        row_of_another_shape,
        ready_at_once,
        second_login,
    ] {
        let error = open_until_end(&probe(), &said).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Other, "{said:?}");
    }
}
