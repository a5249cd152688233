//! One Redis server: its process, and the faults that befall it.

use std::{
    env, fs,
    fs::OpenOptions,
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use redis::{FromRedisValue, aio::MultiplexedConnection};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{super::Result, until};

/// Without files, and quick to take a replica.
const OPTIONS: &str = "--save '' --appendonly no --protected-mode no --repl-diskless-sync yes --repl-diskless-sync-delay 0 \
                       --repl-ping-replica-period 1 --enable-debug-command yes";

/// A server. Dropped: killed, also when it is stopped.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    addr: SocketAddr,
    options: Vec<String>,
    process: Option<Process>,
    folder: Option<TempDir>,
}

impl Server {
    pub(crate) fn new(name: &str, addr: SocketAddr, options: &[&str]) -> Self {
        let ip = addr.ip();
        // By name, so that its master knows it as DNS does.
        let mut all = vec![format!(
            "--bind {ip} --bind-source-addr {ip} --port {}",
            addr.port()
        )];
        all.push(OPTIONS.to_owned());
        all.extend(options.iter().map(|&option| option.to_owned()));
        Self {
            name: name.to_owned(),
            addr,
            options: all,
            process: None,
            folder: None,
        }
    }

    /// One option more from its next start on.
    pub(crate) fn add(&mut self, option: &str) {
        self.options.push(option.to_owned());
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    // Life.

    /// Starts it, with the options that it had and with what its folder has, and waits until it answers.
    pub(crate) async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        let what = format!("{} answers", self.name);
        until(&what, async || {
            Ok(self.ask::<String>(&["PING"]).await? == "PONG")
        })
        .await
        .map_err(|error| format!("{error}\n{}", self.log()).into())
    }

    /// Starts it.
    pub(crate) fn spawn(&mut self) -> Result<()> {
        let folder = match self.folder.take() {
            Some(folder) => folder,
            None => TempDir::with_prefix("headless-lb-redis-")?,
        };
        // As in a configuration file, where quotes make an empty word.
        let options = self.options.join(" ");
        let words = options.split(' ').filter(|word| !word.is_empty());
        let words = words.map(|word| if word == "''" { "" } else { word });
        self.process = Some(Process::start("redis-server", words, &folder)?);
        self.folder = Some(folder);
        Ok(())
    }

    /// Kills it. What is in its memory is lost.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// SIGSTOP: nothing runs any more, and the kernel goes on accepting connections and bytes for it.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().ok_or("it does not run")?;
        Ok(kill_process(process.pid(), signal)?)
    }

    /// Where its files are.
    pub(crate) fn folder(&self) -> PathBuf {
        let folder = self.folder.as_ref().expect("it was started");
        folder.path().to_owned()
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder().join("redis-server.log")).unwrap_or_default()
    }

    // Commands, each on a connection of its own as its default user.

    pub(crate) async fn connect(&self) -> Result<MultiplexedConnection> {
        connect(self.addr).await
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        ask(self.addr, words).await
    }

    /// What `INFO` says of this key.
    pub(crate) async fn info(&self, key: &str) -> Result<String> {
        let info: String = self.ask(&["INFO", "everything"]).await?;
        let value = info
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        Ok(value.ok_or("no such key")?.trim_end().to_owned())
    }

    // Replication.

    /// Makes it the master of itself.
    pub(crate) async fn promote(&self) -> Result<()> {
        self.ask(&["REPLICAOF", "NO", "ONE"]).await
    }

    /// Makes it a replica.
    pub(crate) async fn follow(&self, master: SocketAddr) -> Result<()> {
        let (ip, port) = (master.ip().to_string(), master.port().to_string());
        self.ask(&["REPLICAOF", &ip, &port]).await
    }

    /// Waits until it has all that this master has.
    pub(crate) async fn followed(&self, master: &Self) -> Result<()> {
        let what = format!("{} follows {}", self.name, master.name);
        until(&what, async || {
            let is_up = self.info("master_link_status").await? == "up";
            let (ours, theirs) = ("slave_repl_offset", "master_repl_offset");
            Ok(is_up && self.info(ours).await? == master.info(theirs).await?)
        })
        .await
    }
}

/// A Sentinel that decides alone.
#[derive(Debug)]
pub(crate) struct Sentinel {
    addr: SocketAddr,
    _process: Process,
    folder: TempDir,
}

impl Sentinel {
    /// Watches `master` under the name `main`; it is down for it after 2 s. Sentinel pings each second, and with less
    /// time than that it takes a new master for dead that it has yet to ping (measured).
    pub(crate) async fn watch(master: SocketAddr, addr: SocketAddr) -> Result<Self> {
        let folder = TempDir::with_prefix("headless-lb-sentinel-")?;
        let file = folder.path().join("sentinel.conf");
        let config = format!(
            "bind {}\nport {}\nprotected-mode no\ndir {}\nsentinel monitor main {} {} 1\n\
             sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 10000\n",
            addr.ip(),
            addr.port(),
            folder.path().display(),
            master.ip(),
            master.port(),
        );
        fs::write(&file, config)?;
        let process = Process::start("redis-sentinel", [file.as_os_str()], &folder)?;
        let sentinel = Self {
            addr,
            _process: process,
            folder,
        };
        until("the Sentinel knows both replicas", async || {
            Ok(sentinel.tells("num-slaves").await? == "2")
        })
        .await?;
        Ok(sentinel)
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        let log = self.folder.path().join("redis-sentinel.log");
        fs::read_to_string(log).unwrap_or_default()
    }

    /// What it says of this key.
    pub(crate) async fn tells(&self, key: &str) -> Result<String> {
        let facts: Vec<String> = ask(self.addr, &["SENTINEL", "MASTER", "main"]).await?;
        let value = facts.chunks(2).find(|pair| pair[0] == key);
        Ok(value.ok_or("no such key")?[1].clone())
    }
}

async fn connect(addr: SocketAddr) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(format!("redis://{addr}"))?;
    Ok(client.get_multiplexed_async_connection().await?)
}

async fn ask<T: FromRedisValue>(addr: SocketAddr, words: &[&str]) -> Result<T> {
    let (first, rest) = words.split_first().ok_or("no command")?;
    let mut command = redis::cmd(first);
    for word in rest {
        command.arg(word);
    }
    Ok(command.query_async(&mut connect(addr).await?).await?)
}

/// A child. Dropped: killed and waited for.
#[derive(Debug)]
struct Process(Child);

impl Process {
    /// In `folder`, where its output goes to `<program>.log`. It ends with the thread that starts it, if not before.
    fn start<S: AsRef<std::ffi::OsStr>>(
        program: &str,
        arguments: impl IntoIterator<Item = S>,
        folder: &TempDir,
    ) -> Result<Self> {
        let log = folder.path().join(format!("{program}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(find(program)?)
            .args(arguments)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        Ok(Self(child))
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where Debian's package has put it.
fn find(program: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file());
    found.ok_or_else(|| {
        let package = if program == "redis-sentinel" {
            program
        } else {
            "redis-server"
        };
        format!("`{program}` is missing: install the Debian package `{package}`").into()
    })
}
