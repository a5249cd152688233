//! Alive or why not, without a credential.

use super::*;
use crate::probe::{
    ProbeFailure::{self, NotAccepting, Recovering, Saturated, ShuttingDown, Starting},
    Role,
    postgres::{conversation::Conversation, is_alive},
};

async fn ask(said: &[u8]) -> Result<Observation, ProbeError> {
    let (mut server, client) = duplex(1 << 16);
    server.write_all(said).await.unwrap();
    server.shutdown().await.unwrap();
    let mut conversation = Conversation::over(Box::new(client));
    is_alive(&mut conversation).await.map_err(Broken::opening)
}

#[tokio::test]
async fn whoever_asks_for_a_name_or_refuses_ours_is_alive() {
    let scram = login::quick_scram();
    let no_entry = complaint(b'E', "FATAL", "28000", "no pg_hba.conf entry");
    let no_role = complaint(b'E', "FATAL", "28000", "role does not exist");
    let no_database = complaint(b'E', "FATAL", "3D000", "database does not exist");
    for said in [&scram[..], TRUSTED, &no_entry, &no_role, &no_database] {
        assert_eq!(ask(said).await.unwrap().role(), Role::Unknown);
    }
}

#[tokio::test]
async fn a_server_that_takes_no_connections_says_why() {
    let cases = [
        ("57P03", "the database system is starting up", Starting),
        (
            "57P03",
            "the database system is in recovery mode",
            Recovering,
        ),
        (
            "57P03",
            "the database system is not accepting connections",
            NotAccepting,
        ),
        (
            "57P03",
            "the database system is shutting down",
            ShuttingDown,
        ),
        ("53300", "sorry, too many clients already", Saturated),
    ];
    for (code, text, failure) in cases {
        let said = complaint(b'E', "FATAL", code, text);
        let error = ask(&said).await.unwrap_err();
        assert_eq!(error.failure(), failure);
        assert_eq!(error.is_definitive(), failure != Saturated);
    }
    let hung_up = ask(b"").await.unwrap_err();
    assert_eq!(hung_up.failure(), ProbeFailure::Closed);
}
