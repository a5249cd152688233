//! A primary and a standby that were made once, to be copied for each trial.

use std::{
    env,
    fs::{self, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io::Write,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Install, Network, PASSWORD, Result, Server, Session, text};

/// Small and quick; durable it need not be. Hints are logged so that `pg_rewind` works, and enough WAL is
/// kept for it and for late standbys.
const SETTINGS: &str = "
fsync = off
shared_buffers = 16MB
max_connections = 60
max_wal_senders = 8
max_worker_processes = 2
wal_log_hints = on
wal_keep_size = 256MB
min_wal_size = 32MB
wal_retrieve_retry_interval = 100ms
wal_receiver_status_interval = 1s
unix_socket_directories = ''
autovacuum = off
jit = off
log_line_prefix = '%m [%p] '
";

/// How each role proves who it is.
const HBA: &str = "
host all app,probe 127.0.0.0/8 scram-sha-256
host all probe_md5 127.0.0.0/8 md5
host all probe_password 127.0.0.0/8 password
host all postgres,app_trust,probe_trust 127.0.0.0/8 trust
host replication postgres,replicator 127.0.0.0/8 trust
";

const ROLES: [&str; 11] = [
    "CREATE ROLE replicator LOGIN REPLICATION",
    "CREATE ROLE app LOGIN PASSWORD '{password}'",
    "CREATE ROLE app_trust LOGIN",
    "CREATE ROLE probe LOGIN PASSWORD '{password}'",
    "CREATE ROLE probe_trust LOGIN",
    "CREATE ROLE probe_password LOGIN PASSWORD '{password}'",
    "SET password_encryption = 'md5'",
    "CREATE ROLE probe_md5 LOGIN PASSWORD '{password}'",
    "CREATE TABLE writes (id bigint PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())",
    "CREATE TABLE truth (at timestamptz NOT NULL DEFAULT clock_timestamp())",
    "GRANT SELECT, INSERT ON writes TO app, app_trust",
];

/// Two of three files belong to databases that nobody asks for; each trial would copy them three times.
const SMALLER: [&str; 3] = [
    "UPDATE pg_database SET datistemplate = false",
    "DROP DATABASE template0",
    "DROP DATABASE template1",
];

/// A folder with a stopped `primary` and a `standby` of it. The first caller on a machine makes it; it
/// stays in the folder for temporary files, about 30 MB.
pub(super) async fn path(install: &Arc<Install>) -> Result<PathBuf> {
    let mut key = DefaultHasher::new();
    (SETTINGS, HBA, ROLES, SMALLER, PASSWORD).hash(&mut key);
    let name = format!(
        "headless-lb-postgres-{}-of-{}-{:016x}",
        install.version(),
        install.user().uid,
        key.finish()
    );
    let path = env::temp_dir().join(name);
    if !path.exists() {
        make(install, &path).await?;
    }
    // Anybody may make a folder of this name.
    if fs::metadata(&path)?.uid() == install.user().uid {
        Ok(path)
    } else {
        Err(format!("{} belongs to somebody else: remove it", path.display()).into())
    }
}

async fn make(install: &Arc<Install>, path: &Path) -> Result<()> {
    let folder = install.folder()?;
    let pair = folder.path().join("pair");
    install.run("mkdir", &[text(&pair)?]).await?;
    let (primary, standby) = (pair.join("primary"), pair.join("standby"));
    make_primary(install, &primary).await?;
    let network = Network::claim()?;
    let mut server = Server::new(install, 0, network.address(0), primary);
    server.start().await?;
    let session = server.session().await?;
    prepare(&session).await?;
    for statement in SMALLER {
        session.execute(statement).await?;
    }
    install.base_backup(server.addr(), &standby).await?;
    server.stop().await?;
    fs::remove_file(server.log_path())?;
    // At once, and not over one that another process made meanwhile.
    match fs::rename(&pair, path) {
        Err(_) if path.exists() => Ok(()),
        renamed => Ok(renamed?),
    }
}

/// An empty cluster with an identity of its own, not started.
pub(super) async fn make_primary(install: &Install, data: &Path) -> Result<()> {
    install
        .run(
            "initdb",
            &[
                "-D",
                text(data)?,
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--wal-segsize",
                "1",
            ],
        )
        .await?;
    let append = |file: &str| OpenOptions::new().append(true).open(data.join(file));
    append("postgresql.conf")?.write_all(SETTINGS.as_bytes())?;
    // Theirs lets everybody in.
    fs::write(data.join("pg_hba.conf"), HBA)?;
    Ok(())
}

/// The roles and tables that trials need.
pub(super) async fn prepare(session: &Session) -> Result<()> {
    for statement in ROLES {
        let statement = statement.replace("{password}", PASSWORD);
        session.execute(&statement).await?;
    }
    Ok(())
}
