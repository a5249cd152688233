//! MariaDB or MySQL over the driver that a program has: who takes the writes, asked in three lines of one's own.
//!
//! `cargo run --example mariadb`. Two real MariaDB servers; the writes are handed from db-0 to db-1 as an
//! operator does, without closing a connection, and then db-1 is killed. Look at the strips: each character is a
//! write, by the server that took it. A connection to the old primary stays open and would fail each write from
//! then on; the writer drops it as soon as it is not current.
//!
//! Needs Linux and Debian's package `mariadb-server`, but neither root nor a running database.

mod support;

#[path = "support/mariadb.rs"]
mod mariadb;

use std::{process::ExitCode, time::Duration};

use headless_lb::{
    Balancer, Endpoint, Fixed, Hint, Observation, PrimaryView, Probe, ProbeError, ProbeFailure,
    Role, Writer,
};
use mariadb::{Servers, login};
use sqlx::{Connection, MySqlConnection};
use support::{
    Result, outcome,
    term::{aside, heading, say},
};
use tokio::time::{Instant, sleep};

/// Asks `read_only` over a connection that stays open.
///
/// A replica has it on. So has a MySQL whose `super_read_only` is on, for that turns it on as well; and a primary
/// that an operator has closed, which is no primary then.
struct ReadOnly;

impl Probe for ReadOnly {
    type Session = MySqlConnection;

    async fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(MySqlConnection, Option<Observation>), ProbeError> {
        let connected = MySqlConnection::connect_with(&login(endpoint.addr(), "probe")).await;
        Ok((connected.map_err(why)?, None))
    }

    async fn observe(
        &self,
        _: &Endpoint,
        session: &mut MySqlConnection,
    ) -> Result<Observation, ProbeError> {
        let query = sqlx::query_scalar::<_, i64>("SELECT @@global.read_only");
        let read_only = query.fetch_one(session).await.map_err(ProbeError::closed)?;
        Ok(Observation::of(match read_only {
            0 => Role::Primary,
            _ => Role::Replica,
        }))
    }

    fn interval(&self) -> Duration {
        Duration::from_millis(250)
    }
}

/// What a login that failed says of the server.
fn why(error: sqlx::Error) -> ProbeError {
    match error {
        sqlx::Error::Io(error) => ProbeError::opening(error),
        sqlx::Error::Database(error) => match Hint::from_mysql(number(&*error)) {
            Some(Hint::Overload) => ProbeError::new(ProbeFailure::Saturated, error),
            _ => ProbeError::new(ProbeFailure::Auth, error),
        },
        error => ProbeError::passing(error),
    }
}

fn number(error: &dyn sqlx::error::DatabaseError) -> u16 {
    let error = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>();
    error.map_or(0, |error| error.number())
}

/// A connection, and the writer that it is to.
#[derive(Default)]
struct Client {
    connection: Option<(Writer, MySqlConnection)>,
}

impl Client {
    /// Writes one row, at whoever is the primary: the server's name.
    async fn write(&mut self, primary: &PrimaryView, id: i64) -> Result<String> {
        if let Some((writer, _)) = &self.connection
            && !writer.is_current()
        {
            self.connection = None;
        }
        let (writer, mut connection) = match self.connection.take() {
            Some(open) => open,
            None => {
                let writer = primary.wait(Duration::from_secs(10)).await?;
                let login = login(writer.addr(), "app");
                let connection = writer.run(MySqlConnection::connect_with(&login)).await;
                (writer, connection??)
            }
        };
        let insert = sqlx::query("INSERT INTO shop.writes (id) VALUES (?)").bind(id);
        // What is in flight when the primary is lost ends with it; it may have been committed.
        match writer.run(insert.execute(&mut connection)).await? {
            Ok(_) => {
                let name = writer.name().unwrap_or("nameless").to_owned();
                self.connection = Some((writer, connection));
                Ok(name)
            }
            Err(error) => {
                let hint = match &error {
                    sqlx::Error::Database(error) => Hint::from_mysql(number(&**error)),
                    sqlx::Error::Io(error) => Hint::from_io(error),
                    _ => None,
                };
                if let Some(hint) = hint {
                    writer.report(hint);
                }
                Err(error.into())
            }
        }
    }
}

/// What a phase of writes looked like.
#[derive(Default)]
struct Strip {
    text: String,
    taken: Vec<i64>,
    last: Option<String>,
    failed: usize,
    longest_gap: Duration,
}

/// Writes while `story` happens, and a second longer.
async fn write_through(
    client: &mut Client,
    primary: &PrimaryView,
    first: i64,
    story: impl Future<Output = Result<()>>,
) -> Result<Strip> {
    let mut strip = Strip::default();
    let writes = async {
        let mut last = Instant::now();
        for id in first.. {
            match client.write(primary, id).await {
                Ok(name) => {
                    strip.text.push_str(name.trim_start_matches("db-"));
                    strip.taken.push(id);
                    strip.last = Some(name);
                    strip.longest_gap = strip.longest_gap.max(last.elapsed());
                    last = Instant::now();
                }
                Err(error) => {
                    strip.text.push('x');
                    strip.failed += 1;
                    aside(format!("write {id}: {error}"));
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let story = async {
        sleep(Duration::from_millis(500)).await;
        story.await?;
        sleep(Duration::from_secs(1)).await;
        Result::<()>::Ok(())
    };
    tokio::select! {
        told = story => told?,
        () = writes => {}
    }
    say(&strip.text);
    Ok(strip)
}

#[tokio::main]
async fn main() -> ExitCode {
    outcome("mariadb", run().await)
}

async fn run() -> Result<String> {
    say("starting two MariaDB servers ...");
    let mut servers = Servers::start(2).await?;

    // The program. In a cluster: `Dns::srv("_mysql._tcp.db.prod.svc.cluster.local")`.
    let db = Balancer::builder(Fixed::new(servers.addresses()))
        .probe(ReadOnly)
        .spawn();
    let primary = db.primary();
    let mut client = Client::default();

    heading("The writes are handed from db-0 to db-1");
    let switched = write_through(&mut client, &primary, 0, async {
        servers.switch(0, 1).await
    })
    .await?;
    let rows = "SELECT CONCAT('', COUNT(*)) FROM shop.writes";
    let kept = servers.server(1).text(rows).await?.parse::<usize>()?;
    let lost = switched.taken.len().saturating_sub(kept);
    say(format!(
        "{} writes were taken, db-1 has {kept} rows",
        switched.taken.len()
    ));

    heading("db-1 is killed, and db-0 promoted 300 ms later");
    let all = format!("SELECT CONCAT('', COUNT(*) >= {kept}) FROM shop.writes");
    servers.server(0).until(&all, "1").await?;
    let crashed = write_through(&mut client, &primary, 1_000_000, async {
        servers.server_mut(1).kill();
        sleep(Duration::from_millis(300)).await;
        servers.server(0).promote().await
    })
    .await?;

    if switched.last.as_deref() != Some("db-1") || crashed.last.as_deref() != Some("db-0") {
        return Err(format!("writes ended at {:?} and {:?}", switched.last, crashed.last).into());
    }
    if lost > 0 {
        return Err(format!("{lost} writes were lost in a switchover").into());
    }
    let gap = |strip: &Strip| strip.longest_gap.as_millis();
    Ok(format!(
        "switchover_gap_ms={} switchover_failed={} lost=0 crash_gap_ms={} crash_failed={}",
        gap(&switched),
        switched.failed,
        gap(&crashed),
        crashed.failed
    ))
}
