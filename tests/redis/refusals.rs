//! Servers that do not talk to the probe: passwords, rights, TLS, room.

use std::{error::Error, time::Duration};

use headless_lb::{ProbeError, ProbeFailure, Redis, Role, Tls, rustls::ClientConfig};
use tokio::time::{sleep, timeout};

use crate::{
    certificates::{Certificates, NAME},
    lone, seen,
    support::redis::until,
};

fn why(error: &ProbeError) -> String {
    error
        .source()
        .expect("a probe's error has a cause")
        .to_string()
}

#[tokio::test]
async fn a_user_without_the_rights_is_told_which_ones_it_needs() {
    let (server, _network) = lone(&[]).await;
    let addr = server.addr();
    let users = [
        ["ACL", "SETUSER", "probe", "on", ">secret", "+role", "+info"],
        ["ACL", "SETUSER", "role", "on", ">secret", "+role", "-info"],
        ["ACL", "SETUSER", "none", "on", ">secret", "-role", "+info"],
    ];
    for user in users {
        let () = server.ask(&user).await.unwrap();
    }
    let as_user = |name: &str, password: &str| Redis::new().username(name).password(password);
    let whole = seen(as_user("probe", "secret"), addr).await.unwrap();
    assert!(whole.role() == Role::Primary && whole.lineage().is_some());
    let half = seen(as_user("role", "secret"), addr).await.unwrap();
    assert!(half.role() == Role::Primary && half.lineage().is_none());
    assert!(half.position().is_some());

    let forbidden = seen(as_user("none", "secret"), addr).await.unwrap_err();
    assert_eq!(forbidden.failure(), ProbeFailure::Auth);
    assert!(why(&forbidden).contains("NOPERM") && why(&forbidden).contains("+role +info"));
    let wrong = seen(as_user("probe", "wrong"), addr).await.unwrap_err();
    assert_eq!(wrong.failure(), ProbeFailure::Auth);
    assert!(why(&wrong).contains("WRONGPASS"), "{}", why(&wrong));
    let needless = seen(Redis::new().password("secret"), addr)
        .await
        .unwrap_err();
    assert_eq!(needless.failure(), ProbeFailure::Auth);

    // The last one, for it locks the test out too.
    let () = server
        .ask(&["CONFIG", "SET", "requirepass", "secret"])
        .await
        .unwrap();
    let anonymous = seen(Redis::new(), addr).await.unwrap_err();
    assert_eq!(anonymous.failure(), ProbeFailure::Auth);
    assert!(why(&anonymous).contains("NOAUTH"), "{}", why(&anonymous));
    let known = seen(Redis::new().password("secret"), addr).await.unwrap();
    assert_eq!(known.role(), Role::Primary);
}

#[tokio::test]
async fn a_full_server_says_nothing_of_its_role() {
    let (server, _network) = lone(&[]).await;
    let mut held = server.connect().await.unwrap();
    let limit: redis::Cmd = redis::cmd("CONFIG")
        .arg("SET")
        .arg("maxclients")
        .arg(1)
        .clone();
    let () = limit.query_async(&mut held).await.unwrap();
    // It says why and closes, while the question is on its way: whichever comes first.
    for round in 0..50 {
        let full = seen(Redis::new(), server.addr()).await.unwrap_err();
        assert_eq!(
            full.failure(),
            ProbeFailure::Saturated,
            "round {round}: {full:?}"
        );
    }
}

#[tokio::test]
async fn a_server_that_a_script_blocks_says_nothing_of_its_role() {
    let (server, _network) = lone(&["--busy-reply-threshold 50"]).await;
    let mut blocked = server.connect().await.unwrap();
    let mut endless = redis::cmd("EVAL");
    endless.arg("while true do end").arg(0);
    let script = async { endless.query_async::<()>(&mut blocked).await };
    let asking = async {
        sleep(Duration::from_millis(300)).await;
        let busy = seen(Redis::new(), server.addr()).await.unwrap_err();
        let () = server.ask(&["SCRIPT", "KILL"]).await.unwrap();
        busy
    };
    let (_, busy) = tokio::join!(script, asking);
    assert_eq!(busy.failure(), ProbeFailure::Saturated);
    assert!(!busy.is_definitive() && why(&busy).starts_with("BUSY"));
    until("it serves again", async || {
        Ok(seen(Redis::new(), server.addr()).await.is_ok())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn over_tls_a_server_must_prove_its_name() {
    let (ours, others) = (Certificates::new().unwrap(), Certificates::new().unwrap());
    let (server, _network) = lone(&[&ours.options(6380)]).await;
    let mut secured = server.addr();
    secured.set_port(6380);
    let to =
        |config: ClientConfig, name: &str| Redis::new().tls(Tls::service(config, name).unwrap());

    let known = seen(to(ours.trusted().unwrap(), NAME), secured)
        .await
        .unwrap();
    assert_eq!(known.role(), Role::Primary);
    for impostor in [
        to(others.trusted().unwrap(), NAME),
        to(ours.trusted().unwrap(), "mail.prod.svc.cluster.local"),
    ] {
        let unproved = seen(impostor, secured).await.unwrap_err();
        assert_eq!(unproved.failure(), ProbeFailure::Tls);
    }
    // Redis resets who does not speak TLS where it is spoken.
    seen(Redis::new(), secured).await.unwrap_err();
    // And waits for a line's end from who speaks it where it is not: the driver's limit ends that.
    let patience = Duration::from_millis(300);
    let no_tls_there = timeout(
        patience,
        seen(to(ours.trusted().unwrap(), NAME), server.addr()),
    )
    .await;
    assert!(no_tls_there.is_err() || no_tls_there.is_ok_and(|seen| seen.is_err()));
}
