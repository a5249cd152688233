//! A program that writes through the library: 100 rows a second over one connection to the primary.
#![expect(
    clippy::disallowed_methods,
    reason = "the program runs beside the story, and its connection beside it"
)]

use std::{collections::BTreeMap, error::Error, net::IpAddr, time::Duration};

use headless_lb::{Balancer, Fenced, Hint, Writer};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{Client as Connection, Config, NoTls, types::ToSql};

use super::trial::APP;
use crate::support::{
    Result,
    postgres::{PASSWORD, sqlstate},
};

/// The time between two writes.
pub(crate) const EVERY: Duration = Duration::from_millis(10);

/// The most that a connect, a statement, or waiting for a primary may take.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// The pause after a connect that failed.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

pub(super) const INSERT: &str =
    "INSERT INTO writes (id) VALUES ($1) RETURNING host(inet_server_addr())";

/// One write, or the attempt.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) end: Instant,
    pub(crate) ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Acknowledged by the server with this address.
    Written(IpAddr),
    /// Refused by the server at the first statement of a connection that was just handed out.
    RefusedAtCheckout(String),
    /// Failed: an SQLSTATE, or a text.
    Failed(String),
    /// Not sent or given up, since the node is not the primary any more.
    Fenced,
    /// There was no primary all the time.
    NoPrimary,
}

/// All that the program noticed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) attempts: Vec<Attempt>,
    /// How long each connect took that went well.
    pub(crate) connects: Vec<Duration>,
    /// How long each wait for the primary took.
    pub(crate) waits: Vec<Duration>,
}

impl Log {
    /// Attempts that were not acknowledged, by what became of them.
    pub(crate) fn failures(&self) -> BTreeMap<String, usize> {
        let mut failures = BTreeMap::new();
        for attempt in &self.attempts {
            let what = match &attempt.ending {
                Ending::Written(_) => continue,
                Ending::Failed(what) => what.clone(),
                Ending::RefusedAtCheckout(what) => format!("{what} at checkout"),
                Ending::Fenced => "fenced in flight".to_owned(),
                Ending::NoPrimary => "no primary in 2 s".to_owned(),
            };
            *failures.entry(what).or_default() += 1;
        }
        failures
    }
}

/// The program while it runs. Dropped: ended.
#[derive(Debug)]
pub(crate) struct Program {
    stop: watch::Sender<bool>,
    written: watch::Receiver<u64>,
    running: JoinHandle<Log>,
}

impl Program {
    pub(crate) fn start(db: &Balancer) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (count, written) = watch::channel(0);
        let running = tokio::spawn(run(db.clone(), stopped, count));
        Self {
            stop,
            written,
            running,
        }
    }

    /// How many writes were acknowledged.
    pub(crate) fn written(&self) -> u64 {
        *self.written.borrow()
    }

    /// Waits until so many more were.
    pub(crate) async fn writes(&mut self, more: u64) -> Result<()> {
        let goal = self.written() + more;
        let reached = self.written.wait_for(|&written| written >= goal);
        match timeout(Duration::from_secs(20), reached).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(format!("the program does not write {more} rows in 20 s").into()),
        }
    }

    /// Ends it after the statement that it is at.
    pub(crate) async fn end(mut self) -> Result<Log> {
        self.stop.send_replace(true);
        Ok((&mut self.running).await?)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn run(db: Balancer, stopped: watch::Receiver<bool>, count: watch::Sender<u64>) -> Log {
    let (mut log, mut held) = (Log::default(), None);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for id in 0.. {
        ticks.tick().await;
        if *stopped.borrow() {
            break;
        }
        let ending = write(&db, &mut held, id, &mut log).await;
        if let Ending::Written(_) = ending {
            count.send_modify(|count| *count += 1);
        }
        let end = Instant::now();
        log.attempts.push(Attempt { end, ending });
    }
    log
}

/// A connection, with the primary that it is to.
struct Held {
    primary: Writer,
    connection: Connection,
    is_new: bool,
}

async fn write(db: &Balancer, held: &mut Option<Held>, id: i64, log: &mut Log) -> Ending {
    // What a pool does at a checkout: no question to the server.
    let kept = held.take().filter(|held| held.primary.is_current());
    let mut to = match kept {
        Some(to) => to,
        None => match connect(db, log).await {
            Ok(to) => to,
            Err(ending) => return ending,
        },
    };
    let values: [&(dyn ToSql + Sync); 1] = [&id];
    let statement = to.connection.query_one(INSERT, &values);
    let row = match to.primary.run(timeout(DEADLINE, statement)).await {
        Ok(Ok(Ok(row))) => row,
        Ok(Ok(Err(error))) => {
            let what = reported(&to.primary, &error);
            if what == "25006" {
                // Refused as read-only: by a standby, a fence, or a setting. The probes know before the next write.
                to.primary.confirmed().await;
            }
            return match to.is_new {
                true => Ending::RefusedAtCheckout(what),
                false => Ending::Failed(what),
            };
        }
        Ok(Err(_elapsed)) => {
            to.primary.report(Hint::Connection);
            return Ending::Failed("no answer".to_owned());
        }
        Err(Fenced { .. }) => return Ending::Fenced,
    };
    let server: String = row.get(0);
    to.is_new = false;
    *held = Some(to);
    match server.parse() {
        Ok(server) => Ending::Written(server),
        Err(_) => Ending::Failed(format!("written by {server}")),
    }
}

async fn connect(db: &Balancer, log: &mut Log) -> Result<Held, Ending> {
    let begin = Instant::now();
    let primary = db.primary().wait(DEADLINE).await;
    log.waits.push(begin.elapsed());
    let primary = primary.map_err(|_| Ending::NoPrimary)?;
    let (begin, mut config) = (Instant::now(), Config::new());
    config
        .host(primary.addr().ip().to_string())
        .port(primary.addr().port())
        .user(APP)
        .password(PASSWORD)
        .dbname("postgres");
    let connected = primary.run(timeout(DEADLINE, config.connect(NoTls))).await;
    let failed = match connected {
        Ok(Ok(Ok((connection, driver)))) => {
            log.connects.push(begin.elapsed());
            let until = primary.clone();
            tokio::spawn(async move {
                // A statement in flight ends with the connection when the primary is lost.
                let _ = until.run(driver).await;
            });
            return Ok(Held {
                primary,
                connection,
                is_new: true,
            });
        }
        Ok(Ok(Err(error))) => Ending::Failed(reported(&primary, &error)),
        Ok(Err(_elapsed)) => Ending::Failed("no connection".to_owned()),
        Err(Fenced { .. }) => return Err(Ending::Fenced),
    };
    primary.report(Hint::Connection);
    sleep(PAUSE).await;
    Err(failed)
}

/// The SQLSTATE, or what broke; and the library hears what it hints at.
fn reported(primary: &Writer, error: &tokio_postgres::Error) -> String {
    let state = sqlstate(error);
    let hint = match state {
        None => Some(Hint::Connection),
        Some("25006") => Some(Hint::NotPrimary),
        Some("57P01" | "57P02") => Some(Hint::GoingAway),
        Some("57P03") => Some(Hint::NotReady),
        Some(_) => None,
    };
    if let Some(hint) = hint {
        primary.report(hint);
    }
    let root = error.source().map(ToString::to_string);
    match state {
        Some(state) => state.to_owned(),
        None => root.unwrap_or_else(|| error.to_string()),
    }
}
