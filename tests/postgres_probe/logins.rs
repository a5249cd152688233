//! Every kind of authentication, as a real server does it.

use headless_lb::{ProbeFailure, Role, probe::PostgresAlive};

use super::*;

#[tokio::test]
async fn each_kind_of_authentication_opens_and_tells_the_role() {
    let cluster = Cluster::start().await.unwrap();
    let probes = [
        Postgres::new("probe_trust"),
        Postgres::new("probe").password(PASSWORD), // SCRAM
        Postgres::new("probe_md5").password(PASSWORD),
        Postgres::new("probe_password")
            .password(PASSWORD)
            .cleartext(),
    ];
    for probe in probes {
        for (number, role) in [(0, Role::Primary), (1, Role::Replica)] {
            let (_, seen) = open(&probe, cluster.server(number)).await.unwrap();
            assert_eq!(seen.unwrap().role(), role, "{probe:?}");
        }
    }
}

#[tokio::test]
async fn each_refused_login_is_named_and_says_nothing_of_the_role() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let cases = [
        (probe().password("wrong"), "password authentication failed"),
        (Postgres::new("probe"), "none was given"),
        (Postgres::new("probe_md5"), "none was given"),
        (
            Postgres::new("probe_password").password(PASSWORD),
            "cleartext",
        ),
        (Postgres::new("nobody"), "no pg_hba.conf entry"),
        (probe().database("missing"), "\"missing\" does not exist"),
    ];
    for (probe, text) in cases {
        let error = refused(&probe, server).await;
        assert_eq!(error.failure(), ProbeFailure::Auth, "{error:?}");
        assert!(why(&error).contains(text), "{error:?}");
        assert!(!error.is_definitive());
    }
    // It is alive all the same.
    let endpoint = endpoint(server).await;
    let seen = PostgresAlive::new().observe(&endpoint, &mut ()).await;
    assert_eq!(seen.unwrap().role(), Role::Unknown);

    let session = server.session().await.unwrap();
    let take = "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC";
    session.execute(take).await.unwrap();
    let error = refused(&probe(), server).await;
    assert_eq!(error.failure(), ProbeFailure::Auth, "{error:?}");
}

#[tokio::test]
async fn a_password_beyond_ascii_is_used_as_it_is() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let session = server.session().await.unwrap();
    let set = "ALTER ROLE probe PASSWORD 'pässwörd 密码'";
    session.execute(set).await.unwrap();
    assert!(
        open(&probe().password("pässwörd 密码"), server)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn the_session_is_seen_for_what_it_is() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let _session = opened(server).await;
    let control = server.session().await.unwrap();
    let query =
        "SELECT usename, state, application_name FROM pg_stat_activity WHERE usename = 'probe'";
    let row = control.row(query).await.unwrap();
    let row: Vec<_> = row.iter().flatten().collect();
    assert_eq!(row, ["probe", "idle", "headless-lb probe"]);
}
