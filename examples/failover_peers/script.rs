//! libpq with a list of hosts, in a small script over psycopg.
#![expect(
    clippy::disallowed_methods,
    reason = "clients run beside each other, each as a process of its own"
)]

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, SystemTime},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
    time::Instant,
};

use crate::{
    client::{Attempt, Ending},
    peer::Peer,
    support::{Result, postgres::PASSWORD},
    trial::APP,
};

/// Debian's, which finds Debian's packages.
const PYTHON: &str = "/usr/bin/python3";

const SCRIPT: &str = include_str!("libpq.py");

/// How it connects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Connections {
    /// One is kept.
    Held,
    /// A new one for each row.
    Each,
}

/// The versions, if it can run.
pub(crate) async fn versions() -> Option<String> {
    let program = "import psycopg\nfrom psycopg import pq\nv = pq.version()\n\
                   print(f'psycopg {psycopg.__version__}, libpq {v // 10000}.{v % 10000}')";
    let output = Command::new(PYTHON).args(["-c", program]).output().await;
    let output = output.ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Starts one.
pub(crate) fn start(
    name: &'static str,
    hosts: &[SocketAddr],
    connections: Connections,
    connect_timeout: Option<Duration>,
    first: i64,
) -> Result<Peer> {
    let list = |part: fn(&SocketAddr) -> String| {
        let parts: Vec<String> = hosts.iter().map(part).collect();
        parts.join(",")
    };
    let mut conninfo = format!(
        "host={} port={} user={APP} password='{PASSWORD}' dbname=postgres sslmode=disable \
         gssencmode=disable target_session_attrs=read-write",
        list(|host| host.ip().to_string()),
        list(|host| host.port().to_string()),
    );
    if let Some(time) = connect_timeout {
        conninfo += &format!(" connect_timeout={}", time.as_secs());
    }
    let how = match connections {
        Connections::Held => "held",
        Connections::Each => "each",
    };
    let child = Command::new(PYTHON)
        .args(["-c", SCRIPT, how, &conninfo, &first.to_string()])
        // No PGHOST or the like of the user's may lead elsewhere.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (tell, told) = mpsc::unbounded_channel();
    Ok(Peer::new(name, told, tokio::spawn(read(child, tell))))
}

async fn read(mut child: Child, tell: mpsc::UnboundedSender<Attempt>) -> Result<()> {
    let out = child.stdout.take().ok_or("the script has no output")?;
    let (mut lines, clock) = (BufReader::new(out).lines(), Clock::now());
    while let Some(line) = lines.next_line().await? {
        let attempt = clock.attempt(&line);
        let attempt = attempt.ok_or_else(|| format!("the script says {line:?}"))?;
        if tell.send(attempt).is_err() {
            break;
        }
    }
    Err("the script ended".into())
}

/// The real-time clock, which other processes share, beside ours.
struct Clock {
    now: Instant,
    since_epoch: Duration,
}

impl Clock {
    fn now() -> Self {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            now: Instant::now(),
            since_epoch: since_epoch.unwrap_or_default(),
        }
    }

    fn attempt(&self, line: &str) -> Option<Attempt> {
        let mut words = line.splitn(3, ' ');
        let at = Duration::from_nanos(words.next()?.parse().ok()?);
        let (outcome, detail) = (words.next()?, words.next()?);
        let ending = match outcome {
            "written" => Ending::Written(detail.parse().ok()?),
            "failed" => Ending::Failed(detail.to_owned()),
            _ => return None,
        };
        let end = self.now + at.saturating_sub(self.since_epoch);
        Some(Attempt { end, ending })
    }
}
