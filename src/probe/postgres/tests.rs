//! The probe against a scripted server: what it says when, in which pieces, and how it ends.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::yield_now,
    time::timeout,
};

use super::{Postgres, PostgresSession, complaint::Broken};
use crate::probe::{Observation, ProbeError};

mod alive;
mod hostile;
mod login;
#[cfg(feature = "tls")]
mod secured;
mod session;

/// Fixed, so that the proofs of a recorded exchange fit.
const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

// What PostgreSQL 15 says.
const TRUSTED: &[u8] = b"R\0\0\0\x08\0\0\0\0";
const READY: &[u8] = b"Z\0\0\0\x05I";
const IDENTITY: &[u8] =
    b"1\0\0\0\x042\0\0\0\x04D\0\0\0\x1d\0\x01\0\0\0\x137710928566095993579C\0\0\0\rSELECT 1\0Z\0\0\0\x05I";
const PARSED: &[u8] = b"1\0\0\0\x04";
/// Timeline 1.
const PRIMARY_ROW: &[u8] = b"2\0\0\0\x04D\0\0\0+\0\x04\0\0\0\x01f\0\0\0\x03off\0\0\0\t0/3049108\0\0\0\x0800000001C\0\0\0\rSELECT 1\0";
const REPLICA_ROW: &[u8] =
    b"2\0\0\0\x04D\0\0\0\"\0\x04\0\0\0\x01t\0\0\0\x02on\0\0\0\t0/3049108\xff\xff\xff\xffC\0\0\0\rSELECT 1\0";
/// That of both rows.
const POSITION: u64 = 0x304_9108;

fn probe() -> Postgres {
    Postgres::new("probe").password("secret")
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn setting(name: &str, value: &str) -> Vec<u8> {
    message(b'S', format!("{name}\0{value}\0").as_bytes())
}

fn complaint(tag: u8, severity: &str, code: &str, text: &str) -> Vec<u8> {
    let body = format!("S{severity}\0V{severity}\0C{code}\0M{text}\0\0");
    message(tag, body.as_bytes())
}

/// What follows the authentication: settings, some of which do not matter, and "ready".
fn welcome(in_hot_standby: &str) -> Vec<u8> {
    [
        setting("application_name", "headless-lb probe"),
        setting("default_transaction_read_only", "off"),
        setting("in_hot_standby", in_hot_standby),
        setting("server_version", "15.20 (Debian 15.20-0+deb12u1)"),
        message(b'K', &[0; 8]),
        READY.to_vec(),
    ]
    .concat()
}

/// The whole of what a primary says to a session that opens.
fn primary() -> Vec<u8> {
    [
        TRUSTED,
        &welcome("off"),
        IDENTITY,
        PARSED,
        PRIMARY_ROW,
        READY,
    ]
    .concat()
}

/// The same of a standby.
fn standby() -> Vec<u8> {
    [
        TRUSTED,
        &welcome("on"),
        IDENTITY,
        PARSED,
        REPLICA_ROW,
        READY,
    ]
    .concat()
}

/// How a row round ends when the server refuses it.
fn refusal(code: &str) -> Vec<u8> {
    [
        complaint(b'E', "ERROR", code, "permission denied"),
        READY.to_vec(),
    ]
    .concat()
}

/// The server's end of a connection.
struct Peer(DuplexStream);

impl Peer {
    fn new() -> (Self, Box<DuplexStream>) {
        let (server, client) = duplex(1 << 20);
        (Self(server), Box::new(client))
    }

    /// Says this, and lets the client read it before the next piece.
    async fn say(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
        for _ in 0..3 {
            yield_now().await;
        }
    }

    /// All that the client has said so far.
    async fn heard(&mut self) -> Vec<u8> {
        let mut heard = Vec::with_capacity(1 << 16);
        let mut said = Box::pin(self.0.read_buf(&mut heard));
        tokio::select! {
            biased;
            _ = &mut said => {}
            () = yield_now() => {}
        }
        drop(said);
        heard
    }
}

/// Opens a session with a server that says these pieces, and stays.
async fn open_in(
    probe: &Postgres,
    pieces: &[&[u8]],
) -> (Peer, Result<(PostgresSession, Observation), Broken>) {
    let (mut peer, socket) = Peer::new();
    let opening = PostgresSession::open(socket, &probe.login, false, NONCE);
    tokio::pin!(opening);
    let mut opened = None;
    for piece in pieces {
        tokio::select! {
            biased;
            result = &mut opening, if opened.is_none() => opened = Some(result),
            () = peer.say(piece) => {}
        }
    }
    let opened = match opened {
        Some(opened) => opened,
        None => soon(opening).await,
    };
    (peer, opened)
}

/// The same with a server that hangs up after its last word.
async fn open_until_end(probe: &Postgres, said: &[u8]) -> Result<Observation, ProbeError> {
    let (mut server, client) = duplex(1 << 20);
    server.write_all(said).await.unwrap();
    server.shutdown().await.unwrap();
    let opened = PostgresSession::open(Box::new(client), &probe.login, false, NONCE).await;
    opened.map(|(_, seen)| seen).map_err(Broken::opening)
}

/// Nothing here takes long: a wait that does not end is a failure.
async fn soon<F: Future>(answer: F) -> F::Output {
    let answered = timeout(Duration::from_secs(10), answer).await;
    answered.expect("an answer")
}

async fn opened(said: &[u8]) -> (Peer, PostgresSession, Observation) {
    let (mut peer, result) = open_in(&probe(), &[said]).await;
    let (session, seen) = result.unwrap();
    peer.heard().await;
    (peer, session, seen)
}

/// The text behind a failure.
fn why(error: &ProbeError) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

#[test]
fn neither_probe_nor_session_shows_the_password() {
    let probe = probe().password(Arc::from("hush-hush"));
    assert!(!format!("{probe:?}").contains("hush"));
}
