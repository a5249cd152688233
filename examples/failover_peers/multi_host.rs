//! tokio-postgres with a list of hosts: it asks each for a session that takes writes.
#![expect(
    clippy::disallowed_methods,
    reason = "clients run beside each other, and their connections beside them"
)]

use std::{net::SocketAddr, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_postgres::{Client, Config, NoTls, config::TargetSessionAttrs};

use crate::{
    client::{Attempt, DEADLINE, EVERY, Ending, INSERT, PAUSE},
    peer::Peer,
    support::{
        Result,
        postgres::{PASSWORD, sqlstate},
    },
    trial::APP,
};

/// Starts one that keeps a connection until a statement fails on it.
pub(crate) fn start(
    name: &'static str,
    hosts: &[SocketAddr],
    connect_timeout: Option<Duration>,
    first: i64,
) -> Peer {
    let mut config = Config::new();
    for host in hosts {
        config.host(host.ip().to_string()).port(host.port());
    }
    config
        .user(APP)
        .password(PASSWORD)
        .dbname("postgres")
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    if let Some(time) = connect_timeout {
        config.connect_timeout(time);
    }
    let (tell, told) = mpsc::unbounded_channel();
    Peer::new(name, told, tokio::spawn(run(config, tell, first)))
}

async fn run(config: Config, tell: mpsc::UnboundedSender<Attempt>, first: i64) -> Result<()> {
    let mut held = None;
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    for number in first.. {
        ticks.tick().await;
        let ending = write(&config, &mut held, number).await;
        let end = Instant::now();
        if tell.send(Attempt { end, ending }).is_err() {
            break;
        }
    }
    Ok(())
}

async fn write(config: &Config, held: &mut Option<Client>, number: i64) -> Ending {
    let client = match held.take() {
        Some(client) => client,
        None => match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(async move {
                    // Its end shows in the next statement.
                    let _ = connection.await;
                });
                client
            }
            Err(error) => {
                sleep(PAUSE).await;
                return Ending::Failed(said(&error));
            }
        },
    };
    match timeout(DEADLINE, client.query_one(INSERT, &[&number])).await {
        Ok(Ok(row)) => {
            *held = Some(client);
            let server: String = row.get(0);
            match server.parse() {
                Ok(server) => Ending::Written(server),
                Err(_) => Ending::Failed(format!("written by {server}")),
            }
        }
        Ok(Err(error)) => Ending::Failed(said(&error)),
        Err(_elapsed) => Ending::Failed("no answer".to_owned()),
    }
}

fn said(error: &tokio_postgres::Error) -> String {
    let other = match error.is_closed() {
        true => "connection lost",
        false => "no connection",
    };
    sqlstate(error).unwrap_or(other).to_owned()
}
