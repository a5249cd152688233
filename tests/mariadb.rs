//! MariaDB's roles by a closure over sqlx, on real servers.

#[path = "../examples/support/mariadb.rs"]
mod mariadb;

use std::time::Duration;

use headless_lb::{
    Balancer, Endpoint, Fixed, Hint, LeastRequest, Observation, ProbeError, Replica, Role, probe_fn,
};
use mariadb::{Servers, login};
use sqlx::{Connection, MySqlConnection};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connection for each question: what a closure can do.
async fn role(login: sqlx::mysql::MySqlConnectOptions) -> Result<Observation, ProbeError> {
    let connected = MySqlConnection::connect_with(&login).await;
    let mut connection = connected.map_err(|error| match error {
        sqlx::Error::Io(error) => ProbeError::opening(error),
        error => ProbeError::passing(error),
    })?;
    let query = sqlx::query_scalar::<_, i64>("SELECT @@global.read_only");
    let asked = query.fetch_one(&mut connection).await;
    let read_only = asked.map_err(ProbeError::closed)?;
    Ok(Observation::of(match read_only {
        0 => Role::Primary,
        _ => Role::Replica,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closure_over_a_users_driver_follows_the_writer_through_switchover_and_crash() {
    let mut servers = Servers::start(2).await.unwrap();
    let probe = probe_fn(|endpoint: &Endpoint| role(login(endpoint.addr(), "probe")));
    let db = Balancer::builder(Fixed::new(servers.addresses()))
        .probe(probe)
        .spawn();
    let writer = db.primary().wait(PATIENCE).await.unwrap();
    assert_eq!(writer.name(), Some("db-0"));
    let replica = db.with_policy(Replica(LeastRequest::new())).pick().unwrap();
    assert_eq!(replica.endpoint().name(), Some("db-1"));

    // A connection that the switchover leaves open, and the program does not use: the server's errors are hints.
    let mut held = MySqlConnection::connect_with(&login(writer.addr(), "app"))
        .await
        .unwrap();
    let insert = "INSERT INTO shop.writes (id) VALUES (1)";
    sqlx::raw_sql(insert).execute(&mut held).await.unwrap();
    servers.switch(0, 1).await.unwrap();
    let error = sqlx::raw_sql("INSERT INTO shop.writes (id) VALUES (2)")
        .execute(&mut held)
        .await
        .unwrap_err();
    let number = error.into_database_error().unwrap();
    let number = number
        .downcast_ref::<sqlx::mysql::MySqlDatabaseError>()
        .number();
    assert_eq!(number, 1290);
    assert_eq!(Hint::from_mysql(number), Some(Hint::NotPrimary));
    writer.report(Hint::NotPrimary);
    timeout(PATIENCE, writer.lost()).await.unwrap();
    assert_eq!(name_of_writer(&db).await, "db-1");
    servers
        .server(1)
        .until("SELECT CONCAT('', COUNT(*)) FROM shop.writes", "1")
        .await
        .unwrap();

    servers.server_mut(1).kill();
    let began = Instant::now();
    servers.server(0).promote().await.unwrap();
    while name_of_writer(&db).await != "db-0" {
        assert!(began.elapsed() < PATIENCE, "{}", db.status());
        sleep(Duration::from_millis(10)).await;
    }
}

async fn name_of_writer(db: &Balancer) -> String {
    let writer = db.primary().wait(PATIENCE).await.expect("somebody writes");
    writer.name().unwrap_or_default().to_owned()
}
