//! The same program without the library: tokio-postgres with all hosts, `target_session_attrs=read-write` and
//! `connect_timeout=2`, which is all that it has for this.
#![expect(
    clippy::disallowed_methods,
    reason = "the program runs beside the story, and its connection beside it"
)]

use std::time::Duration;

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{
    Client as Connection, Config, NoTls, config::TargetSessionAttrs, types::ToSql,
};

use super::{
    client::{Attempt, DEADLINE, EVERY, Ending, INSERT, Log, PAUSE},
    trial::APP,
};
use crate::support::{
    Result,
    postgres::{PASSWORD, sqlstate},
};

/// Its rows have numbers of their own.
const FIRST: i64 = 1 << 40;

/// The program while it runs. Dropped: ended.
#[derive(Debug)]
pub(crate) struct Driver {
    log: watch::Sender<Log>,
    running: JoinHandle<()>,
}

impl Driver {
    /// Over the servers at these addresses, in this order.
    pub(crate) fn start(addresses: &[headless_lb::Address]) -> Self {
        let mut config = Config::new();
        config
            .user(APP)
            .password(PASSWORD)
            .dbname("postgres")
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .connect_timeout(Duration::from_secs(2));
        for address in addresses {
            let addr = address.socket();
            config.host(addr.ip().to_string()).port(addr.port());
        }
        let log = watch::Sender::new(Log::default());
        let running = tokio::spawn(run(config, log.clone()));
        Self { log, running }
    }

    /// Ends it, whatever it is at: a connect to a server that hangs never ends by itself.
    pub(crate) async fn end(mut self) -> Result<Log> {
        self.running.abort();
        match (&mut self.running).await {
            Err(error) if error.is_panic() => Err(error.into()),
            _ => Ok(self.log.send_replace(Log::default())),
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn run(config: Config, log: watch::Sender<Log>) {
    let mut held = None;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for id in FIRST.. {
        ticks.tick().await;
        let ending = write(&config, &mut held, id, &log).await;
        let end = Instant::now();
        let attempt = Attempt { end, ending };
        log.send_modify(|log| log.attempts.push(attempt));
    }
}

async fn write(
    config: &Config,
    held: &mut Option<Connection>,
    id: i64,
    log: &watch::Sender<Log>,
) -> Ending {
    let connection = match held.take() {
        Some(connection) => connection,
        None => {
            let begin = Instant::now();
            match config.connect(NoTls).await {
                Ok((connection, driver)) => {
                    log.send_modify(|log| log.connects.push(begin.elapsed()));
                    tokio::spawn(driver);
                    connection
                }
                Err(error) => {
                    sleep(PAUSE).await;
                    return failed(&error);
                }
            }
        }
    };
    let values: [&(dyn ToSql + Sync); 1] = [&id];
    let row = match timeout(DEADLINE, connection.query_one(INSERT, &values)).await {
        Ok(Ok(row)) => row,
        Ok(Err(error)) => return failed(&error),
        Err(_elapsed) => return Ending::Failed("no answer".to_owned()),
    };
    *held = Some(connection);
    let server: String = row.get(0);
    match server.parse() {
        Ok(server) => Ending::Written(server),
        Err(_) => Ending::Failed(format!("written by {server}")),
    }
}

fn failed(error: &tokio_postgres::Error) -> Ending {
    Ending::Failed(sqlstate(error).map_or_else(|| error.to_string(), str::to_owned))
}
