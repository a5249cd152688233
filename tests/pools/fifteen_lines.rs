//! What a program has to write.

use headless_lb::Fixed;

use crate::{
    adapters::BoxError,
    support::postgres::{Cluster, PASSWORD},
};

type Done = Result<(), BoxError>;

/// The programs, as a user would write them: from here to the last one they are counted.
mod programs {
    use std::time::Duration;

    use deadpool_postgres::ManagerConfig;
    use headless_lb::{Balancer, PgConnector, Postgres, Resolve, SqlxPrimary};
    use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
    use tokio_postgres::NoTls;

    use super::Done;

    const WRITE: &str = "INSERT INTO writes (id) VALUES ((random() * 1e15)::bigint)";

    pub(super) async fn tokio_postgres(name: impl Resolve, role: &str, secret: &str) -> Done {
        let db = Balancer::builder(name)
            .probe(Postgres::new(role).password(secret))
            .spawn();
        let config = format!("user={role} password='{secret}' dbname=postgres").parse()?;
        let client = PgConnector::new(db.primary(), config, NoTls)
            .connect()
            .await?;
        client.execute(WRITE, &[]).await?;
        Ok(())
    }

    pub(super) async fn deadpool(name: impl Resolve, role: &str, secret: &str) -> Done {
        let db = Balancer::builder(name)
            .probe(Postgres::new(role).password(secret))
            .spawn();
        let config = format!("user={role} password='{secret}' dbname=postgres").parse()?;
        let primary = PgConnector::new(db.primary(), config, NoTls);
        let pool = primary.deadpool(ManagerConfig::default()).build()?;
        pool.get().await?.execute(WRITE, &[]).await?;
        Ok(())
    }

    pub(super) async fn bb8(name: impl Resolve, role: &str, secret: &str) -> Done {
        let db = Balancer::builder(name)
            .probe(Postgres::new(role).password(secret))
            .spawn();
        let config = format!("user={role} password='{secret}' dbname=postgres").parse()?;
        let primary = PgConnector::new(db.primary(), config, NoTls);
        let pool = bb8::Pool::builder().build(primary).await?;
        pool.get().await?.execute(WRITE, &[]).await?;
        Ok(())
    }

    pub(super) async fn sqlx(name: impl Resolve, role: &str, secret: &str) -> Done {
        let db = Balancer::builder(name)
            .probe(Postgres::new(role).password(secret))
            .spawn();
        let login = PgConnectOptions::new()
            .username(role)
            .password(secret)
            .database("postgres");
        let primary = SqlxPrimary::spawn(db.primary(), login, PgPoolOptions::new());
        let pool = primary.pool(Duration::from_secs(10)).await?;
        pool.run(sqlx::query(WRITE).execute(&*pool)).await??;
        Ok(())
    }
}

/// T2. One LOGIN role, for the probe and for the program.
#[tokio::test]
async fn t02_a_name_and_one_role_give_a_writable_connection_in_under_fifteen_lines() -> Done {
    let source = include_str!("fifteen_lines.rs");
    for name in ["tokio_postgres", "deadpool", "bb8", "sqlx"] {
        let program = source.split(&format!("fn {name}(")).nth(1);
        let lines = program.and_then(|program| program.split("\n    }").next());
        let count = lines.map(|lines| lines.lines().count());
        assert!(count.is_some_and(|count| count < 15), "{name}: {count:?}");
    }
    let cluster = Cluster::start().await?;
    let name = || Fixed::new(cluster.addresses());
    programs::tokio_postgres(name(), "app", PASSWORD).await?;
    programs::deadpool(name(), "app", PASSWORD).await?;
    programs::bb8(name(), "app", PASSWORD).await?;
    programs::sqlx(name(), "app", PASSWORD).await?;
    let session = cluster.server(0).session().await?;
    assert_eq!(session.text("SELECT count(*) FROM writes").await?, "4");
    Ok(())
}
