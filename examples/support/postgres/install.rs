//! Where PostgreSQL's programs are, and as whom they run.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;
use tokio::time::timeout;

use super::{PATIENCE, Result, text};

/// Where Debian keeps the servers of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs of one version.
#[derive(Debug)]
pub(crate) struct Install {
    version: u32,
    bin: PathBuf,
    /// Whose files they are, and as whom the servers run if that is another.
    user: User,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    gid: u32,
    /// Whether we have to become this user first.
    is_other: bool,
}

impl Install {
    /// The newest version that is installed.
    pub(crate) fn find() -> Result<Self> {
        let versions = fs::read_dir(DEBIAN).into_iter().flatten().flatten();
        let newest = versions
            .filter(|version| version.path().join("bin/initdb").is_file())
            .filter_map(|version| {
                Some((version.file_name().to_str()?.parse::<u32>().ok()?, version))
            })
            .max_by_key(|(version, _)| *version);
        let (version, folder) = newest.ok_or_else(|| {
            format!(
                "PostgreSQL's servers are missing ({DEBIAN}/*/bin/initdb): install the Debian package \
                 `postgresql-15`, or `postgresql` for the newest"
            )
        })?;
        Ok(Self {
            version,
            bin: folder.path().join("bin"),
            user: User::unprivileged()?,
        })
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn user(&self) -> User {
        self.user
    }

    /// A folder that the servers' user owns, removed with its owner.
    pub(super) fn folder(&self) -> Result<TempDir> {
        let folder = TempDir::with_prefix("headless-lb-postgres-")?;
        chown(folder.path(), Some(self.user.uid), Some(self.user.gid))?;
        Ok(folder)
    }

    /// A program of this version, as the servers' user. It is told when the thread that starts it ends:
    /// by SIGQUIT, with which a server ends all its processes at once, the stopped ones after 5 s.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if self.user.is_other {
            let (uid, gid) = (self.user.uid.to_string(), self.user.gid.to_string());
            command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        }
        let path = self.bin.join(program);
        command
            .arg("--")
            .arg(if path.is_file() { path } else { program.into() })
            // No PGHOST or the like of the user's may lead elsewhere.
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Runs a program to its end.
    pub(super) async fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = tokio::process::Command::from(self.command(program));
        let output = command.args(arguments).kill_on_drop(true).output();
        let output = timeout(PATIENCE, output)
            .await
            .map_err(|_elapsed| format!("{program} goes on after {} s", PATIENCE.as_secs()))?;
        let output = output.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "`setpriv` is missing: install `util-linux`".into(),
            _ => format!("cannot start {program}: {error}"),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let (out, err) = (&output.stdout, &output.stderr);
        let said = [out, err].map(|bytes| String::from_utf8_lossy(bytes));
        Err(format!("{program}: {}\n{}{}", output.status, said[0], said[1]).into())
    }

    /// Copies a folder, owners and modes included.
    pub(super) async fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.run("cp", &["-a", text(from)?, text(to)?]).await
    }

    /// Copies a server that runs into an empty folder, as its standby.
    pub(super) async fn base_backup(&self, source: SocketAddr, to: &Path) -> Result<()> {
        let (host, port) = (source.ip().to_string(), source.port().to_string());
        self.run(
            "pg_basebackup",
            &[
                "-h",
                &host,
                "-p",
                &port,
                "-U",
                "replicator",
                "-D",
                text(to)?,
                "-R",
                "-X",
                "stream",
                "-c",
                "fast",
                "--no-sync",
            ],
        )
        .await
    }
}

impl User {
    /// Ourselves, unless that is root: PostgreSQL refuses to run as root.
    fn unprivileged() -> Result<Self> {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        if !uid.is_root() {
            return Ok(Self {
                uid: uid.as_raw(),
                gid: gid.as_raw(),
                is_other: false,
            });
        }
        let known = fs::read_to_string("/etc/passwd")?;
        let named = |name: &str| {
            let mut fields = known
                .lines()
                .map(|line| line.split(':'))
                .find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some(Self {
                uid,
                gid,
                is_other: true,
            })
        };
        named("postgres")
            .or_else(|| named("nobody"))
            .ok_or_else(|| {
                "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`"
                    .into()
            })
    }
}
