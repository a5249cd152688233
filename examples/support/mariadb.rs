//! Real MariaDB servers on loopback that replicate by GTID: one writes, the others follow.
//!
//! Needs Debian's `mariadb-server` and `setpriv`. The servers never run as root: a root starts them as
//! `mysql`. They end with their owner, however it ends: start them on a thread that lives as long as they
//! shall, for Linux ends a child with the *thread* that started it.

#![allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "every program that compiles this module uses a part of it, and some those of PostgreSQL as well"
)]

#[path = "postgres/network.rs"]
mod network;

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    net::SocketAddr,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use headless_lb::Address;
use sqlx::{Connection, MySqlConnection, mysql::MySqlConnectOptions};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use network::Network;

pub(crate) type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The password of every user.
pub(crate) const PASSWORD: &str = "correct horse";

/// The port of all servers.
const PORT: u16 = 3306;

/// More than any single step takes, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// What each server runs when it starts, not replicated: whoever becomes the primary has it already.
const INIT: &str = "\
SET sql_log_bin = 0;
CREATE DATABASE IF NOT EXISTS shop;
CREATE TABLE IF NOT EXISTS shop.writes (id BIGINT PRIMARY KEY);
CREATE USER IF NOT EXISTS admin@'%' IDENTIFIED BY 'correct horse';
GRANT ALL ON *.* TO admin@'%';
CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'correct horse';
GRANT ALL ON shop.* TO app@'%';
CREATE USER IF NOT EXISTS probe@'%' IDENTIFIED BY 'correct horse';
CREATE USER IF NOT EXISTS replicator@'%' IDENTIFIED BY 'correct horse';
GRANT REPLICATION SLAVE ON *.* TO replicator@'%';
";

/// Small and fast: what is lost when the machine fails is of no use to anybody.
const SETTINGS: [&str; 8] = [
    "--innodb-buffer-pool-size=8M",
    "--innodb-data-file-path=ibdata1:4M:autoextend",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-log-file-size=4M",
    "--skip-innodb-doublewrite",
    "--aria-pagecache-buffer-size=1M",
    "--skip-name-resolve",
];

/// Some servers. Dropped: all are killed, and their files removed.
#[derive(Debug)]
pub(crate) struct Servers {
    // Before the folder: servers end first.
    servers: Vec<Server>,
    network: Network,
    folder: TempDir,
}

/// A server with its data. Dropped: killed, also when it is stopped.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    addr: SocketAddr,
    data: PathBuf,
    child: Option<Child>,
}

impl Servers {
    /// Starts `db-0`, which writes, and others that follow it.
    pub(crate) async fn start(count: usize) -> Result<Self> {
        let network = Network::claim()?;
        let folder = TempDir::with_prefix("headless-lb-mariadb-")?;
        let user = user()?;
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid))?;
        }
        fs::write(folder.path().join("init.sql"), INIT)?;
        let template = folder.path().join("template");
        run(command(user, "mariadb-install-db")?
            .arg("--no-defaults")
            .arg(option("datadir", &template))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .args(SETTINGS))
        .await?;
        let mut servers = Vec::new();
        for number in 0..count {
            let server = Server {
                name: format!("db-{number}"),
                addr: network.address(number),
                data: folder.path().join(format!("db-{number}")),
                child: None,
            };
            run(command(user, "cp")?
                .arg("-a")
                .arg(&template)
                .arg(&server.data))
            .await?;
            servers.push(server);
        }
        let mut servers = Self {
            servers,
            network,
            folder,
        };
        for (number, server) in servers.servers.iter_mut().enumerate() {
            server.spawn(user, number + 1)?;
        }
        for server in &mut servers.servers {
            server.ready().await?;
        }
        servers.server(0).open_for_writes(true).await?;
        for number in 1..count {
            servers
                .server(number)
                .follow(servers.server(0).addr)
                .await?;
        }
        Ok(servers)
    }

    pub(crate) fn server(&self, number: usize) -> &Server {
        &self.servers[number]
    }

    pub(crate) fn server_mut(&mut self, number: usize) -> &mut Server {
        &mut self.servers[number]
    }

    /// What SRV records say of them: names and addresses.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        let address = |server: &Server| Address::from(server.addr).named(&*server.name);
        self.servers.iter().map(address).collect()
    }

    /// Hands the writes over as an operator does: the old one refuses them, the new one catches up, stops to
    /// follow and takes them, and the old one follows. No connection is closed.
    pub(crate) async fn switch(&self, from: usize, to: usize) -> Result<()> {
        let (old, new) = (self.server(from), self.server(to));
        old.open_for_writes(false).await?;
        let written = old.text("SELECT @@global.gtid_binlog_pos").await?;
        let wait = format!("SELECT CONCAT('', MASTER_GTID_WAIT('{written}', 10))");
        if new.text(&wait).await? != "0" {
            return Err(format!("{} does not catch up", new.name).into());
        }
        new.promote().await?;
        old.follow(new.addr).await
    }
}

impl Server {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops to follow, and takes writes.
    pub(crate) async fn promote(&self) -> Result<()> {
        self.execute("STOP SLAVE").await?;
        self.execute("RESET SLAVE ALL").await?;
        self.open_for_writes(true).await
    }

    /// Whether it takes writes of those who may not administer it.
    pub(crate) async fn open_for_writes(&self, open: bool) -> Result<()> {
        let read_only = if open { "OFF" } else { "ON" };
        self.execute(&format!("SET GLOBAL read_only = {read_only}"))
            .await
    }

    /// Replicates from there, from where it stands.
    pub(crate) async fn follow(&self, primary: SocketAddr) -> Result<()> {
        let (host, port) = (primary.ip(), primary.port());
        self.execute(&format!(
            "CHANGE MASTER TO MASTER_HOST='{host}', MASTER_PORT={port}, MASTER_USER='replicator', \
             MASTER_PASSWORD='{PASSWORD}', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos"
        ))
        .await?;
        self.execute("START SLAVE").await
    }

    /// Waits until a query says this.
    pub(crate) async fn until(&self, query: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.text(query).await?;
            if said == wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{}: `{query}` goes on to be {said}", self.name).into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The first column of the only row, which must be text.
    pub(crate) async fn text(&self, query: &str) -> Result<String> {
        let mut admin = self.connect("admin").await?;
        let query = sqlx::query_scalar::<_, String>(query);
        Ok(timeout(PATIENCE, query.fetch_one(&mut admin)).await??)
    }

    async fn execute(&self, statement: &str) -> Result<()> {
        let mut admin = self.connect("admin").await?;
        let executed = sqlx::raw_sql(statement).execute(&mut admin);
        timeout(PATIENCE, executed).await??;
        Ok(())
    }

    async fn connect(&self, user: &str) -> Result<MySqlConnection> {
        let connect = MySqlConnection::connect_with(&login(self.addr, user)).await;
        Ok(connect?)
    }

    /// Ends it at once, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn spawn(&mut self, user: Option<(u32, u32)>, id: usize) -> Result<()> {
        let log = File::create(self.data.join("log.txt"))?;
        let init = self.data.with_file_name("init.sql");
        let child = command(user, "mariadbd")?
            .arg("--no-defaults")
            .arg(option("datadir", &self.data))
            .arg(option("init-file", &init))
            .arg(option("socket", &self.data.join("socket")))
            .arg(option("pid-file", &self.data.join("pid")))
            .arg(format!("--bind-address={}", self.addr.ip()))
            .arg(format!("--port={}", self.addr.port()))
            .arg(format!("--server-id={id}"))
            .args([
                "--log-bin=binlog",
                "--log-slave-updates",
                "--gtid-strict-mode=ON",
            ])
            // Who is to write is told to. So a server that comes back takes no write.
            .args([
                "--read-only=ON",
                "--slave-net-timeout=2",
                "--performance-schema=OFF",
            ])
            .args(SETTINGS)
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        // The admin is made last but two, so ask for the last.
        while let Err(error) = self.connect("replicator").await {
            let ended = self
                .child
                .as_mut()
                .is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.data.join("log.txt"))?;
                return Err(format!("{} does not start: {error}\n{log}", self.name).into());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How to log in there.
pub(crate) fn login(addr: SocketAddr, user: &str) -> MySqlConnectOptions {
    MySqlConnectOptions::new()
        .host(&addr.ip().to_string())
        .port(addr.port())
        .username(user)
        .password(PASSWORD)
}

/// Another user if we are root: MariaDB refuses to run as root.
fn user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let known = fs::read_to_string("/etc/passwd")?;
    let mysql = known.lines().find_map(|line| line.strip_prefix("mysql:"));
    let mut fields = mysql.ok_or(MISSING)?.split(':').skip(1);
    let mut number = || fields.next().ok_or(MISSING)?.parse().map_err(|_| MISSING);
    Ok(Some((number()?, number()?)))
}

const MISSING: &str = "MariaDB's server is missing: install the Debian package `mariadb-server`";

/// A program as that user, which is killed when the thread that starts it ends.
fn command(user: Option<(u32, u32)>, program: &str) -> Result<Command> {
    // Debian keeps servers in `sbin`, which is not on everybody's `PATH`.
    let path = ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
        .map(|folder| Path::new(folder).join(program))
        .into_iter()
        .find(|file| file.is_file())
        .ok_or(MISSING)?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some((uid, gid)) = user {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]);
        command.arg("--clear-groups");
    }
    command
        .arg("--")
        .arg(path)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("TMPDIR", env::temp_dir())
        .current_dir("/")
        .stdin(Stdio::null());
    Ok(command)
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(path);
    option
}

/// Runs a program to its end.
async fn run(command: &mut Command) -> Result<()> {
    let program = format!("{command:?}");
    let command = std::mem::replace(command, Command::new("true"));
    let mut command = tokio::process::Command::from(command);
    let output = timeout(PATIENCE, command.kill_on_drop(true).output()).await??;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{program}: {}", String::from_utf8_lossy(&said)).into())
}
