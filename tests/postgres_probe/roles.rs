//! What a session tells while roles, settings and privileges change.

use headless_lb::{Lineage, Role, Term};

use super::*;

#[tokio::test]
async fn a_promotion_is_told_with_its_timeline_from_the_first_answer_on() {
    let mut cluster = Cluster::start().await.unwrap();
    let (_, primary) = opened(cluster.server(0)).await;
    assert_eq!(
        (primary.role(), primary.term()),
        (Role::Primary, Some(Term::new(1)))
    );
    let (mut session, seen) = opened(cluster.server(1)).await;
    assert_eq!((seen.role(), seen.term()), (Role::Replica, None));
    assert_eq!(seen.lineage(), primary.lineage());

    cluster.caught_up(1, 0).await.unwrap();
    cluster.server_mut(0).kill();
    let promoting = cluster.server(1).promote();
    let is_primary = |seen: &Observation| seen.role() == Role::Primary;
    let watching = ask_until(&mut session, cluster.server(1), is_primary);
    let (promoted, first) = tokio::join!(promoting, watching);
    promoted.unwrap();
    assert_eq!(first.term(), Some(Term::new(2)));
    assert_eq!(first.lineage(), primary.lineage());
    assert!(first.position() >= primary.position(), "{first:?}");
}

#[tokio::test]
async fn the_lineage_is_the_system_identifier() {
    let cluster = Cluster::start().await.unwrap();
    let control = cluster.server(0).session().await.unwrap();
    let query = "SELECT system_identifier FROM pg_control_system()";
    let identity = control.text(query).await.unwrap();
    let (_, seen) = opened(cluster.server(0)).await;
    assert_eq!(seen.lineage(), Some(&Lineage::of(identity)));
}

#[tokio::test]
async fn positions_are_bytes_written_and_bytes_replayed() {
    let cluster = Cluster::start().await.unwrap();
    let control = cluster.server(0).session().await.unwrap();
    let (mut session, before) = opened(cluster.server(0)).await;
    let write = "INSERT INTO writes SELECT i FROM generate_series(1, 10000) i";
    control.execute(write).await.unwrap();
    let query = "SELECT pg_current_wal_lsn() - '0/0'";
    let position: u64 = control.text(query).await.unwrap().parse().unwrap();
    assert!(position > before.position().unwrap() + 100_000);
    let reached = |seen: &Observation| seen.position() >= Some(position);
    ask_until(&mut session, cluster.server(0), reached).await;
    cluster.caught_up(1, 0).await.unwrap();
    let (_, replica) = opened(cluster.server(1)).await;
    assert!(replica.position() >= Some(position));
}

#[tokio::test]
async fn a_fence_is_told_by_an_empty_round_and_so_is_its_end() {
    let cluster = Cluster::start().await.unwrap();
    let server = cluster.server(0);
    let (mut session, seen) = opened(server).await;
    assert_eq!(seen.fence(), None);
    server.fence(true).await.unwrap();
    let seen = ask_until(&mut session, server, |seen| seen.fence().is_some()).await;
    assert_eq!(
        (seen.role(), seen.term()),
        (Role::Primary, Some(Term::new(1)))
    );
    assert!(
        seen.fence()
            .unwrap()
            .contains("default_transaction_read_only")
    );
    server.fence(false).await.unwrap();
    ask_until(&mut session, server, |seen| seen.fence().is_none()).await;
}

#[tokio::test]
async fn a_setting_of_the_probes_role_looks_like_a_fence_that_names_the_role() {
    let cluster = Cluster::start().await.unwrap();
    let control = cluster.server(0).session().await.unwrap();
    let harden = "ALTER ROLE probe SET default_transaction_read_only = on";
    control.execute(harden).await.unwrap();
    let (_, seen) = opened(cluster.server(0)).await;
    assert!(seen.fence().unwrap().contains("\"probe\""));
}

#[tokio::test]
async fn refused_functions_leave_the_role() {
    let cluster = Cluster::start().await.unwrap();
    let control = cluster.server(0).session().await.unwrap();
    let revoke = |function| format!("REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC");
    control
        .execute(&revoke("pg_walfile_name(pg_lsn)"))
        .await
        .unwrap();
    let (mut session, seen) = opened(cluster.server(0)).await;
    let (role, identity) = (
        Observation::of(Role::Primary),
        seen.lineage().unwrap().clone(),
    );
    assert_eq!(seen, role.clone().in_lineage(identity.clone()));
    control
        .execute(&revoke("pg_control_system()"))
        .await
        .unwrap();
    for _ in 0..9 {
        let seen = ask_until(&mut session, cluster.server(0), |_| true).await;
        assert_eq!(seen, role.clone().in_lineage(identity.clone()));
    }
    let (_, seen) = opened(cluster.server(0)).await;
    assert_eq!(seen, role);
}

#[tokio::test]
async fn the_position_comes_with_every_fourth_answer_until_somebody_wants_it() {
    let cluster = Cluster::start().await.unwrap();
    let (probe, endpoint) = (probe(), endpoint(cluster.server(1)).await);
    let (mut session, _) = probe.open(&endpoint).await.unwrap();
    let mut told = 0;
    for _ in 0..8 {
        let seen = probe.observe(&endpoint, &mut session).await.unwrap();
        told += u32::from(seen.position().is_some());
    }
    assert_eq!(told, 2);
    endpoint.lag_bytes(); // somebody asks
    for _ in 0..8 {
        let seen = probe.observe(&endpoint, &mut session).await.unwrap();
        assert!(seen.position().is_some());
    }
}
