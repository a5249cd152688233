//! One PostgreSQL server: its processes, and the faults that befall it.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{Install, PATIENCE, Result, Session, sqlstate, text, until};

/// A server with its data. Dropped: killed with all its processes, also those that are stopped.
#[derive(Debug)]
pub(crate) struct Server {
    install: Arc<Install>,
    name: String,
    addr: SocketAddr,
    data: PathBuf,
    postmaster: Option<Child>,
}

impl Server {
    pub(super) fn new(
        install: &Arc<Install>,
        number: usize,
        addr: SocketAddr,
        data: PathBuf,
    ) -> Self {
        Self {
            install: Arc::clone(install),
            name: format!("pg-{number}"),
            addr,
            data,
            postmaster: None,
        }
    }

    /// `pg-0` to `pg-2`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.data.join("log.txt")
    }

    /// What it wrote so far: its last 40 lines.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    pub(crate) fn is_running(&mut self) -> bool {
        let child = self.postmaster.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// A superuser's session.
    pub(crate) async fn session(&self) -> Result<Session> {
        Session::open(self.addr, "postgres").await
    }

    // Life.

    /// Starts it and waits until it takes connections.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let postmaster = self
            .install
            .command("postgres")
            .args(["-D", text(&self.data)?])
            .args(["-c", &format!("listen_addresses={}", self.addr.ip())])
            .args(["-c", &format!("port={}", self.addr.port())])
            .args(["-c", &format!("cluster_name={}", self.name)])
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.postmaster = Some(postmaster);
        Ok(())
    }

    /// Waits until it takes connections.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Err(error) = self.session().await else {
                return Ok(());
            };
            if !self.is_running() || Instant::now() > deadline {
                return Err(
                    format!("{} does not start: {error}\n{}", self.name, self.log()).into(),
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Listens elsewhere from the next start on.
    pub(super) fn listen_at(&mut self, addr: SocketAddr) {
        self.addr = addr;
    }

    /// A fast shutdown: sessions are told 57P01, standbys get all that was written.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::INT)?;
        until(&format!("{} goes on", self.name.clone()), async || {
            Ok(!self.is_running())
        })
        .await
    }

    /// Kills all its processes at once, as a crash of the machine does.
    pub(crate) fn kill(&mut self) {
        let Some(mut postmaster) = self.postmaster.take() else {
            return;
        };
        let pid = Pid::from_child(&postmaster);
        if matches!(postmaster.try_wait(), Ok(None)) {
            // Stopped, it starts no process that would be missed. The children have sessions of their own.
            let _ = kill_process(pid, Signal::STOP);
            let children = children_of(pid);
            for pid in children.into_iter().chain([pid]) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = postmaster.wait();
        self.free_memory();
    }

    /// Beside its data a server locks a segment of System V's shared memory, which stays where it is killed: a machine has 4,096
    /// for all of them. The seventh line of its lock file has the key and the number.
    fn free_memory(&self) {
        let lock = fs::read_to_string(self.data.join("postmaster.pid")).unwrap_or_default();
        let line = lock.lines().nth(6).unwrap_or_default();
        if let Some(segment) = line.split_whitespace().nth(1) {
            // It may be gone: then ipcrm says so to nobody.
            let ipcrm = Command::new("ipcrm").args(["-m", segment]).output();
            drop(ipcrm);
        }
    }

    /// Kills the postmaster alone. The others notice and end by themselves.
    pub(crate) fn kill_postmaster(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        if let Some(mut postmaster) = self.postmaster.take() {
            postmaster.wait()?;
        }
        Ok(())
    }

    /// SIGSTOP to all its processes: nothing runs any more, and the kernel goes on accepting connections
    /// and bytes for them.
    pub(crate) fn freeze(&self) -> Result<()> {
        let postmaster = self.pid()?;
        kill_process(postmaster, Signal::STOP)?;
        for pid in children_of(postmaster) {
            // One that has ended meanwhile needs no stop.
            let _ = kill_process(pid, Signal::STOP);
        }
        Ok(())
    }

    /// SIGCONT to all its processes.
    pub(crate) fn thaw(&self) -> Result<()> {
        let postmaster = self.pid()?;
        for pid in children_of(postmaster) {
            let _ = kill_process(pid, Signal::CONT);
        }
        Ok(kill_process(postmaster, Signal::CONT)?)
    }

    /// Kills one backend. The postmaster ends all others (57P02) and goes through crash recovery, on the
    /// same timeline: no failover. Returns when it has begun to.
    pub(crate) async fn kill_backend(&self) -> Result<()> {
        let (session, other) = (self.session().await?, self.session().await?);
        let pid = session.text("SELECT pg_backend_pid()").await?.parse()?;
        let pid = Pid::from_raw(pid).ok_or("no process has the number 0")?;
        kill_process(pid, Signal::KILL)?;
        // Until the postmaster has noticed, it goes on taking connections, only to end them.
        until("no other session was ended", async || {
            Ok(other.client().is_closed())
        })
        .await
    }

    // Replication.

    /// Makes a standby the primary, and waits until it is.
    pub(crate) async fn promote(&self) -> Result<()> {
        let session = self.session().await?;
        let promoted = session.text("SELECT pg_promote()").await?;
        if promoted == "t" {
            Ok(())
        } else {
            Err(format!("{} was not promoted", self.name).into())
        }
    }

    /// The next start is that of a standby.
    pub(super) fn follow_at_start(&self, primary: SocketAddr) -> Result<()> {
        let mut settings = OpenOptions::new()
            .append(true)
            .open(self.data.join("postgresql.auto.conf"))?;
        writeln!(settings, "primary_conninfo = '{}'", self.conninfo(primary))?;
        // An empty file, of the group and owner of the folder: it is only looked for.
        fs::write(self.data.join("standby.signal"), "")?;
        Ok(())
    }

    /// How it finds its primary.
    pub(super) fn conninfo(&self, primary: SocketAddr) -> String {
        let (host, port) = (primary.ip(), primary.port());
        format!(
            "host={host} port={port} user=replicator application_name={} connect_timeout=2",
            self.name
        )
    }

    /// A standby's WAL receiver ends; it goes on answering reads, ever older ones.
    pub(crate) async fn stop_receiver(&self) -> Result<()> {
        self.set("primary_conninfo", "").await?;
        let session = self.session().await?;
        let gone = "SELECT count(*) = 0 FROM pg_stat_wal_receiver";
        session.until(gone, "the WAL receiver goes on").await
    }

    // Settings and sessions.

    /// `default_transaction_read_only`, for every session that does not say otherwise: a primary that is
    /// fenced, or no longer.
    pub(crate) async fn fence(&self, on: bool) -> Result<()> {
        self.set(
            "default_transaction_read_only",
            if on { "on" } else { "off" },
        )
        .await
    }

    /// Changes a setting and waits until it is in force.
    pub(super) async fn set(&self, setting: &str, value: &str) -> Result<()> {
        let session = self.session().await?;
        let statement = format!("ALTER SYSTEM SET {setting} = '{value}'");
        session.execute(&statement).await?;
        session.execute("SELECT pg_reload_conf()").await?;
        let query = format!("SELECT current_setting('{setting}') = '{value}'");
        session.until(&query, "the setting is not in force").await
    }

    /// Ends all sessions of a role (57P01).
    pub(crate) async fn terminate(&self, role: &str) -> Result<()> {
        let session = self.session().await?;
        let all = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"
        );
        session.execute(&all).await
    }

    /// Takes every connection that is left, those of `role` included: whoever comes next is told 53300,
    /// except a superuser. It lasts as long as the sessions live.
    pub(crate) async fn saturate(&self, role: &str) -> Result<Vec<Session>> {
        let control = self.session().await?;
        let count = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE usename = '{role}'");
        let mut held = Vec::new();
        for _ in 0..100 {
            match Session::open(self.addr, "app_trust").await {
                Ok(session) => held.push(session),
                Err(error) if sqlstate(&*error) == Some("53300") => {
                    // Full. Whoever is in stays in, so the sessions of the role have to go, and whoever is
                    // faster gets the place.
                    if control.text(&count).await? == "t" {
                        // It has a place as well, which nobody else is to get.
                        held.push(control);
                        return Ok(held);
                    }
                    self.terminate(role).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(format!("{} still takes connections", self.name).into())
    }

    fn pid(&self) -> Result<Pid> {
        let postmaster = self.postmaster.as_ref();
        let postmaster = postmaster.ok_or_else(|| format!("{} does not run", self.name))?;
        Ok(Pid::from_child(postmaster))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.pid()?, signal)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // Where its postmaster was killed alone.
        self.free_memory();
    }
}

/// The processes whose parent is this one, as Linux lists them.
fn children_of(parent: Pid) -> Vec<Pid> {
    let parent = parent.as_raw_nonzero().to_string();
    let is_child = |stat: &str| {
        // `pid (name) state ppid`, and a name may have blanks and brackets.
        let after_name = stat.rsplit(") ").next();
        after_name.and_then(|rest| rest.split(' ').nth(1)) == Some(&*parent)
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|process| {
            let pid = process.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            Pid::from_raw(pid).filter(|_| is_child(&stat))
        })
        .collect()
}
