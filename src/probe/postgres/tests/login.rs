//! Every kind of authentication, and how each goes wrong.

use super::*;
use crate::probe::{ProbeFailure, Role, Term};

const CLEARTEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";
const MD5: &[u8] = b"R\0\0\0\x0c\0\0\0\x05\x8f\x37\xb4\xb3";
const SASL: &[u8] = b"R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0";
// An exchange of PostgreSQL 15 with a client in Python, for the password "secret".
const CHALLENGE: &[u8] = b"R\0\0\0\x58\0\0\0\x0br=rOprNGfwEbeRWgbNEkqO4AwLeEH2agh8WTukeDca/+Gp,s=1tRn/4hF1BMzfHlSEQ6zlQ==,i=4096";
const OUTCOME: &[u8] = b"R\0\0\0\x36\0\0\0\x0cv=IQrUND7IVX7H9mj8iBBgAPlZMXRtkq1BWt7qacqyJyc=";

/// The same with two iterations, by Python's `hashlib`.
pub(super) fn quick_scram() -> Vec<u8> {
    let challenge = b"\0\0\0\x0br=rOprNGfwEbeRWgbNEkqOxyz,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=2";
    let outcome = b"\0\0\0\x0cv=tO0pLJqgHvUtFb7+M9ebbupoy13k62cBKlZ5mNJlc8Y=";
    [
        SASL.to_vec(),
        message(b'R', challenge),
        message(b'R', outcome),
    ]
    .concat()
}

fn after(authentication: &[u8]) -> Vec<u8> {
    [authentication, &primary()].concat()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// What a client says whose login succeeds.
async fn said(probe: &Postgres, server: &[u8]) -> Vec<u8> {
    let (mut peer, opened) = open_in(probe, &[server]).await;
    let (_, seen) = opened.unwrap();
    assert_eq!(
        (seen.role(), seen.term()),
        (Role::Primary, Some(Term::new(1)))
    );
    peer.heard().await
}

#[tokio::test]
async fn a_trusting_server_is_told_who_asks_and_no_password() {
    let said = said(&probe().database("app"), &after(b"")).await;
    let startup = b"user\0probe\0database\0app\0application_name\0headless-lb probe\0statement_timeout\x00500\0\0";
    assert!(contains(&said, startup));
    assert!(!contains(&said, b"secret"));
}

#[tokio::test]
async fn a_password_goes_in_clear_only_when_allowed() {
    let said = said(&probe().cleartext(), &after(CLEARTEXT)).await;
    assert!(contains(&said, b"p\0\0\0\x0bsecret\0"));

    let (mut peer, refused) = open_in(&probe(), &[&after(CLEARTEXT)]).await;
    let error = refused.err().unwrap().opening();
    assert_eq!(error.failure(), ProbeFailure::Auth);
    assert!(
        why(&error).contains("Postgres::cleartext"),
        "{}",
        why(&error)
    );
    assert!(!contains(&peer.heard().await, b"secret"));
}

#[tokio::test]
async fn a_password_goes_in_clear_over_an_encrypted_connection() {
    let (mut peer, socket) = Peer::new();
    peer.say(&after(CLEARTEXT)).await;
    let probe = probe();
    let opened = PostgresSession::open(socket, &probe.login, true, NONCE).await;
    assert!(opened.is_ok());
    assert!(contains(&peer.heard().await, b"p\0\0\0\x0bsecret\0"));
}

#[tokio::test]
async fn md5_answers_as_another_client_did() {
    let probe = Postgres::new("probe_md5").password("secret");
    let said = said(&probe, &after(MD5)).await;
    assert!(contains(
        &said,
        b"p\0\0\0\x28md54c4b72300b566c0c60f869994ee69a37\0"
    ));
}

#[tokio::test]
async fn scram_takes_a_recorded_exchange() {
    let server = [SASL, CHALLENGE, OUTCOME, &primary()].concat();
    let said = said(&probe(), &server).await;
    assert!(contains(
        &said,
        b"SCRAM-SHA-256\0\0\0\0\x1cn,,n=,r=rOprNGfwEbeRWgbNEkqO"
    ));
}

#[tokio::test]
async fn scram_proves_as_another_client_did() {
    let said = said(&probe(), &after(&quick_scram())).await;
    let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqOxyz,p=CWjpsoeiHvjnt2jWGtbcWmRnUf6B8KZzvCpmDWsKntM=";
    assert!(contains(&said, last));
}

#[tokio::test]
async fn a_server_that_cannot_prove_that_it_knows_the_password_is_refused() {
    let wrong = message(
        b'R',
        b"\0\0\0\x0cv=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    let server = [SASL, CHALLENGE, &wrong, &primary()].concat();
    let error = open_until_end(&probe(), &server).await.unwrap_err();
    assert_eq!(error.failure(), ProbeFailure::Auth);
    assert!(why(&error).contains("does not know the password"));
    // Nor may it leave the proof out.
    for cut in [&[SASL][..], &[SASL, CHALLENGE]] {
        let server = [&cut.concat()[..], &primary()].concat();
        let error = open_until_end(&probe(), &server).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Other, "{error:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_spoken_is_named() {
    let plus_only = message(b'R', b"\0\0\0\nSCRAM-SHA-256-PLUS\0\0");
    let gss = message(b'R', b"\0\0\0\x07");
    let sspi = message(b'R', b"\0\0\0\x09");
    let unknown = message(b'R', b"\0\0\0\x4d");
    for (request, name) in [
        (plus_only, "SCRAM-SHA-256"),
        (gss, "GSSAPI"),
        (sspi, "SSPI"),
        (unknown, "number 77"),
    ] {
        let error = open_until_end(&probe(), &request).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Auth);
        assert!(why(&error).contains(name), "{}", why(&error));
    }
}

#[tokio::test]
async fn a_password_that_is_missing_is_an_error_that_names_the_role() {
    let probe = Postgres::new("watcher").cleartext();
    for request in [CLEARTEXT, MD5, SASL] {
        let error = open_until_end(&probe, request).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Auth);
        let why = why(&error);
        assert!(
            why.contains("\"watcher\"") && why.contains("none was given"),
            "{why}"
        );
    }
}

#[tokio::test]
async fn names_and_passwords_that_would_end_early_are_refused() {
    for probe in [
        Postgres::new("a\0superuser\0on"),
        Postgres::new("a").database("b\0c"),
        Postgres::new("a").password("b\0c").cleartext(),
    ] {
        let error = open_until_end(&probe, &after(CLEARTEXT)).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Auth);
        assert!(why(&error).contains("zero byte"));
    }
}

#[tokio::test]
async fn a_server_that_asks_twice_gets_one_answer() {
    let (mut peer, result) = open_in(&probe().cleartext(), &[CLEARTEXT, MD5]).await;
    assert!(result.is_err());
    let heard = peer.heard().await;
    assert!(contains(&heard, b"secret") && !contains(&heard, b"md5"));
}

#[tokio::test]
async fn a_refused_login_keeps_the_servers_words() {
    for (code, text, failure) in [
        (
            "28P01",
            "password authentication failed for user \"probe\"",
            ProbeFailure::Auth,
        ),
        (
            "3D000",
            "database \"postgres\" does not exist",
            ProbeFailure::Auth,
        ),
        (
            "53300",
            "sorry, too many clients already",
            ProbeFailure::Saturated,
        ),
        (
            "57P03",
            "the database system is starting up",
            ProbeFailure::Starting,
        ),
    ] {
        let refused = complaint(b'E', "FATAL", code, text);
        for server in [refused.clone(), after(&[CLEARTEXT, &refused].concat())] {
            let error = open_until_end(&probe().cleartext(), &server)
                .await
                .unwrap_err();
            assert_eq!(error.failure(), failure);
            assert_eq!(why(&error), format!("{text} (SQLSTATE {code})"));
        }
    }
}
