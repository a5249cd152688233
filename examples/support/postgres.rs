//! A real PostgreSQL cluster on loopback: a primary, two streaming standbys, and what can befall them.
//!
//! ```text
//!   pg-0  127.x.y.2  ---- WAL ---->  pg-1  127.x.y.3
//!                    ---- WAL ---->  pg-2  127.x.y.4       one port, no Unix socket
//! ```
//!
//! Needs Debian's `postgresql-15` (or any other version's servers) and `setpriv`, and nothing else: roles
//! are made and faults are caused through tokio-postgres and signals. The servers never run as root: a root
//! starts them as `postgres`, or as `nobody`. They end with their owner, however it ends.
//!
//! Start a cluster on a thread that lives as long as it: Linux ends a child with the *thread* that started
//! it. Any worker of the runtime will do, `spawn_blocking` will not.

#![allow(
    dead_code,
    reason = "every program that compiles this module uses a part of it"
)]

mod install;
mod network;
mod relay;
mod server;
mod session;
mod template;
mod truth;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use headless_lb::Address;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use install::Install;
pub(crate) use network::Network;
pub(crate) use relay::Relay;
pub(crate) use server::Server;
pub(crate) use session::{Session, sqlstate};
pub(crate) use truth::Truth;

pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The password of every role that has one.
pub(crate) const PASSWORD: &str = "correct horse";

/// The port that a primary and its standbys share, if it is free.
pub(crate) const PORT: u16 = 5432;

/// More than any single step takes here, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// Three servers. Dropped: all are killed, and their files removed.
///
/// | role | authentication | may |
/// |---|---|---|
/// | `app`, `app_trust` | SCRAM, trust | read and write the table `writes` |
/// | `probe`, `probe_trust`, `probe_md5`, `probe_password` | SCRAM, trust, MD5, cleartext | log in |
/// | `replicator` | trust | stream |
/// | `postgres` | trust | all |
///
/// All of them in the database `postgres`.
#[derive(Debug)]
pub(crate) struct Cluster {
    // Before the folder: servers end first.
    servers: [Server; 3],
    install: Arc<Install>,
    network: Network,
    folder: TempDir,
}

impl Cluster {
    /// Starts a cluster on a loopback network of its own, and waits until both standbys stream.
    pub(crate) async fn start() -> Result<Self> {
        Self::start_on(Network::claim()?).await
    }

    /// The same on a network that was claimed before.
    pub(crate) async fn start_on(network: Network) -> Result<Self> {
        let install = Arc::new(Install::find()?);
        let template = template::path(&install).await?;
        let folder = install.folder()?;
        let mut servers = [0, 1, 2].map(|number| {
            let data = folder.path().join(format!("pg-{number}"));
            Server::new(&install, number, network.address(number), data)
        });
        for (number, server) in servers.iter_mut().enumerate() {
            let kind = if number == 0 { "primary" } else { "standby" };
            install.copy(&template.join(kind), server.data()).await?;
            if number > 0 {
                server.follow_at_start(network.address(0))?;
            }
            server.spawn()?;
        }
        for server in &mut servers {
            server.ready().await?;
        }
        let cluster = Self {
            servers,
            install,
            network,
            folder,
        };
        cluster.streaming(0, 2).await?;
        Ok(cluster)
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        &self.servers[number]
    }

    pub(crate) fn server_mut(&mut self, number: usize) -> &mut Server {
        &mut self.servers[number]
    }

    pub(crate) fn servers(&self) -> &[Server; 3] {
        &self.servers
    }

    /// What SRV records say of them: names and addresses.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let address = |server: &Server| Address::from(server.addr()).named(server.name());
        self.servers.iter().map(address).collect()
    }

    /// The number of the server with this address.
    pub(crate) fn number_of(&self, addr: SocketAddr) -> Option<usize> {
        self.servers
            .iter()
            .position(|server| server.addr().ip() == addr.ip())
    }

    /// A relay in front of a server, at an address of its own, which can fall silent.
    pub(crate) async fn relay(&self, number: usize) -> Result<Relay> {
        Relay::start(
            self.network.address(10 + number),
            self.server(number).addr(),
        )
        .await
    }

    /// Waits until `standbys` servers stream from this one.
    pub(crate) async fn streaming(&self, primary: usize, standbys: i64) -> Result<()> {
        let session = self.server(primary).session().await?;
        session
            .until(
                &format!(
                    "SELECT count(*) >= {standbys} FROM pg_stat_replication WHERE state = 'streaming'"
                ),
                "standbys do not stream",
            )
            .await
    }

    /// Waits until a standby has replayed all that the primary has written until now.
    pub(crate) async fn caught_up(&self, standby: usize, primary: usize) -> Result<()> {
        let session = self.server(primary).session().await?;
        let position = session.text("SELECT pg_current_wal_lsn()::text").await?;
        let session = self.server(standby).session().await?;
        session
            .until(
                &format!("SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn"),
                "the standby lags",
            )
            .await
    }

    /// Lets a standby that runs follow another primary from now on.
    pub(crate) async fn follow(&self, standby: usize, primary: usize) -> Result<()> {
        let conninfo = self.server(standby).conninfo(self.server(primary).addr());
        self.server(standby)
            .set("primary_conninfo", &conninfo)
            .await
    }

    /// Brings a server back as a standby of `primary`, be it running or dead: what it wrote that the
    /// primary does not have is undone (`pg_rewind`), or all is copied anew.
    pub(crate) async fn rejoin(&mut self, number: usize, primary: usize) -> Result<()> {
        let source = self.server(primary).addr();
        // pg_rewind reads the timeline from the last checkpoint.
        let session = self.server(primary).session().await?;
        session.execute("CHECKPOINT").await?;
        let server = &mut self.servers[number];
        if server.is_running() {
            server.stop().await?;
        }
        let from = format!(
            "host={} port={} user=postgres dbname=postgres",
            source.ip(),
            source.port()
        );
        let data = server.data().to_owned();
        let rewound = self
            .install
            .run(
                "pg_rewind",
                &[
                    "--no-sync",
                    "--write-recovery-conf",
                    "--source-server",
                    &from,
                    "--target-pgdata",
                    text(&data)?,
                ],
            )
            .await;
        if rewound.is_err() {
            std::fs::remove_dir_all(&data)?;
            self.install.base_backup(source, &data).await?;
        }
        server.follow_at_start(source)?;
        server.start().await
    }

    /// Restarts a server at another address, as a pod that is rescheduled gets one.
    pub(crate) async fn readdress(&mut self, number: usize) -> Result<()> {
        let server = &mut self.servers[number];
        server.stop().await?;
        server.listen_at(self.network.address(20 + number));
        server.start().await
    }

    /// Replaces a server by an empty primary of another cluster, at the same address.
    pub(crate) async fn rebuild(&mut self, number: usize) -> Result<()> {
        let server = &mut self.servers[number];
        server.kill();
        let data = server.data().to_owned();
        std::fs::remove_dir_all(&data)?;
        template::make_primary(&self.install, &data).await?;
        server.start().await?;
        template::prepare(&server.session().await?).await
    }
}

/// Asks again and again until `done`.
///
/// # Errors
///
/// With `what` after 30 s.
async fn until(what: &str, mut done: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done().await? {
        if Instant::now() > deadline {
            return Err(format!("{what} after {} s", PATIENCE.as_secs()).into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .ok_or_else(|| format!("{} is not UTF-8", path.display()).into())
}
