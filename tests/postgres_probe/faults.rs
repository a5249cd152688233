//! How a real server ends sessions, and what it says to the next one.

use headless_lb::{ProbeFailure, Role, probe::PostgresAlive};

use super::*;

/// Waits for the signal of a session's end; its error and when the signal came.
async fn ended(session: &mut PostgresSession, server: &Server) -> (ProbeError, Instant) {
    let probe = probe();
    let signal = timeout(PATIENCE, probe.signalled(session)).await;
    signal.expect("a signal");
    let at = Instant::now();
    let endpoint = endpoint(server).await;
    let asked = probe.observe(&endpoint, session).await;
    (asked.expect_err("it failed"), at)
}

/// Opens until it fails in this way; what failed otherwise before.
async fn refused_with(server: &Server, wanted: ProbeFailure) -> ProbeError {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match open(&probe(), server).await {
            Err(error) if error.failure() == wanted => return error,
            other => assert!(Instant::now() < deadline, "{:?}", other.err()),
        }
        sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_fast_stop_is_signalled_and_then_refused() {
    let mut cluster = Cluster::start().await.unwrap();
    let (mut session, _) = opened(cluster.server(0)).await;
    let server = endpoint(cluster.server(0)).await;
    let start = Instant::now();
    let probe = probe();
    let (stopped, at) = tokio::join!(cluster.server_mut(0).stop(), async {
        probe.signalled(&mut session).await;
        Instant::now()
    });
    stopped.unwrap();
    let took = at - start;
    println!("signalled after {took:?}");
    assert!(took < Duration::from_millis(200), "{took:?}");
    let error = probe.observe(&server, &mut session).await.unwrap_err();
    assert_eq!(error.failure(), ProbeFailure::Closed);
    assert!(why(&error).contains("57P01"), "{error:?}");
    let error = probe.open(&server).await.unwrap_err();
    assert_eq!(error.failure(), ProbeFailure::Refused);
    assert!(error.is_definitive());
}

#[tokio::test]
async fn a_terminated_session_is_signalled_and_opens_anew() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let (mut session, before) = opened(server).await;
    server.terminate("probe").await.unwrap();
    let (error, _) = ended(&mut session, server).await;
    assert_eq!(error.failure(), ProbeFailure::Closed);
    assert!(why(&error).contains("57P01") && !error.is_definitive());
    let (_, after) = opened(server).await;
    assert_eq!((after.role(), after.term()), (Role::Primary, before.term()));
}

#[tokio::test]
async fn a_crash_of_another_process_is_signalled_and_recovered_from_in_the_same_term() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let (mut session, before) = opened(server).await;
    server.kill_backend().await.unwrap();
    let (error, _) = ended(&mut session, server).await;
    assert_eq!(error.failure(), ProbeFailure::Closed);
    assert!(why(&error).contains("57P02"), "{error:?}");
    let (probe, endpoint) = (probe(), endpoint(server).await);
    let deadline = Instant::now() + PATIENCE;
    let mut failures = Vec::new();
    let after = loop {
        match timeout(PATIENCE, probe.open(&endpoint)).await.unwrap() {
            Ok((_, seen)) => break seen.unwrap(),
            Err(error) => failures.push(error),
        }
        assert!(Instant::now() < deadline, "{failures:?}");
    };
    // "In recovery mode", then "not yet accepting connections": each says that it serves nobody.
    assert!(
        failures.iter().any(|error| why(error).contains("57P03")),
        "{failures:?}"
    );
    assert!(
        failures.iter().all(ProbeError::is_definitive),
        "{failures:?}"
    );
    assert_eq!((after.role(), after.term()), (Role::Primary, before.term()));
    assert_eq!(after.lineage(), before.lineage());
}

#[tokio::test]
async fn a_standby_that_takes_no_connections_says_so() {
    let mut cluster = Cluster::start().await.unwrap();
    let control = cluster.server(1).session().await.unwrap();
    control
        .execute("ALTER SYSTEM SET hot_standby = off")
        .await
        .unwrap();
    drop(control);
    cluster.server_mut(1).stop().await.unwrap();
    cluster.server_mut(1).spawn().unwrap();
    let error = refused_with(cluster.server(1), ProbeFailure::NotAccepting).await;
    assert!(error.is_definitive() && why(&error).contains("57P03"));
    let endpoint = endpoint(cluster.server(1)).await;
    let alive = PostgresAlive::new().observe(&endpoint, &mut ()).await;
    assert_eq!(alive.unwrap_err().failure(), ProbeFailure::NotAccepting);
}

#[tokio::test]
async fn a_full_server_is_saturated_and_nothing_worse() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let held = server.saturate("probe").await.unwrap();
    let error = refused(&probe(), server).await;
    assert_eq!(error.failure(), ProbeFailure::Saturated);
    assert!(why(&error).contains("53300") && !error.is_definitive());
    // Without a name one does not come as far as the slots, of which some are kept for superusers.
    let endpoint = endpoint(server).await;
    let seen = PostgresAlive::new().observe(&endpoint, &mut ()).await;
    assert_eq!(seen.unwrap().role(), Role::Unknown);
    drop(held);
}

#[tokio::test]
async fn a_stopped_server_gives_no_answer_and_a_dead_one_refuses() {
    let mut cluster = Cluster::start().await.unwrap();
    let (mut session, _) = opened(cluster.server(0)).await;
    let (probe, endpoint) = (probe(), endpoint(cluster.server(0)).await);
    cluster.server(0).freeze().unwrap();
    // The driver's limit ends it; the probe has none of its own.
    let limit = Duration::from_millis(300);
    assert!(
        timeout(limit, probe.observe(&endpoint, &mut session))
            .await
            .is_err()
    );
    assert!(timeout(limit, probe.open(&endpoint)).await.is_err());
    cluster.server(0).thaw().unwrap();
    cluster.server_mut(0).kill();
    let error = probe.open(&endpoint).await.unwrap_err();
    assert_eq!(error.failure(), ProbeFailure::Refused);
}

#[tokio::test]
async fn a_statement_that_waits_for_a_lock_is_ended_by_the_server() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let control = server.session().await.unwrap();
    control.execute("BEGIN; LOCK TABLE pg_proc").await.unwrap();
    let error = refused(&probe(), server).await;
    assert_eq!(error.failure(), ProbeFailure::Timeout);
    assert!(why(&error).contains("57014"), "{error:?}");
}
