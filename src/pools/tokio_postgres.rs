//! tokio-postgres: connections to the primary, and to nobody else.

use std::{fmt, future::ready, sync::Arc, time::Duration};

use tokio::{
    select,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_postgres::{
    Client, Config, Connection, Error, Socket,
    tls::{MakeTlsConnect, TlsConnect},
};

use super::pace::Pace;
use crate::{
    backoff::full_jitter,
    balancer::{PrimaryView, Writer},
    draw::unit,
    hint::Hint,
};

mod client;
mod error;

pub use client::PgClient;
pub use error::PgConnectError;

/// For how long a connect is tried: as long as Vitess buffers requests in a failover by default
/// (`buffer_window`).
const WITHIN: Duration = Duration::from_secs(10);

/// Between two connects of one caller that failed: as the probes look while there is no primary, and no
/// faster in the end than they do.
const RETRY: Duration = Duration::from_millis(50);
const RETRY_CAP: Duration = Duration::from_secs(1);

/// TLS for tokio-postgres, as its connectors are: `NoTls`, and those of `postgres-openssl`,
/// `postgres-native-tls`, `tokio-postgres-rustls`. Implemented for all of them.
pub trait PgTls:
    MakeTlsConnect<Socket, Stream: Send, TlsConnect: TlsConnect<Socket, Future: Send> + Send>
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<T> PgTls for T where
    T: MakeTlsConnect<Socket, Stream: Send, TlsConnect: TlsConnect<Socket, Future: Send> + Send>
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// Connects to the primary with tokio-postgres; the manager of a bb8 pool, and what makes a pool of
/// deadpool.
///
/// ```no_run
/// use headless_lb::{Balancer, Dns, Observation, PgConnector, ProbeError, Role, probe_fn};
/// use tokio_postgres::{Config, NoTls};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let probe = probe_fn(|_| async { Ok::<_, ProbeError>(Observation::of(Role::Primary)) });
/// let db = Balancer::builder(Dns::srv("_postgres._tcp.pg.prod.svc.cluster.local")?)
///     .probe(probe)
///     .spawn();
/// let config: Config = "user=app password=secret dbname=shop".parse()?;
/// let primary = PgConnector::new(db.primary(), config, NoTls);
/// let client = primary.connect().await?;
/// client.execute("INSERT INTO orders VALUES ($1)", &[&"book"]).await?;
/// # Ok(())
/// # }
/// ```
///
/// # What is checked when
///
/// - **On connect:** the address is the accepted primary's. What the server says of itself in its greeting
///   (`in_hot_standby`, PostgreSQL 14 and newer) must not be "standby", which costs nothing to know. Then the epoch is compared again: a
///   connect that straddled a switch is dropped, and the next primary is connected to.
/// - **On use:** the connection ends as soon as the primary is lost ([`PgClient`]). No query is needed to find out.
///
/// # Configuration
///
/// User, password, database and all else is the [`Config`]'s, but for where to connect. Name one `host` in it
/// at most, and no `hostaddr`: the pod's address is dialled, and `host` is what TLS verifies. A `port` may be
/// there if it is the pods'. `connect_timeout` limits TCP only, and is not needed. With TLS set
/// [`SslMode::Require`](tokio_postgres::config::SslMode::Require): the default, `Prefer`, goes on in clear with a
/// server that says it has none, and the address of a pod may be another's tomorrow.
///
/// # What is spawned
///
/// One task for each connection, which drives it as tokio-postgres wants: call from within a tokio
/// runtime. It ends with the connection: when the client is dropped, the server closes it, or the primary is
/// lost. While a connection is open discovery goes on.
#[derive(Clone)]
pub struct PgConnector<T> {
    primary: PrimaryView,
    config: Config,
    tls: T,
    within: Duration,
    /// Clones share it.
    pace: Arc<Pace>,
}

impl<T: PgTls> PgConnector<T> {
    /// Connects to the primary of this view; see [Configuration](Self#configuration).
    pub fn new(primary: PrimaryView, config: Config, tls: T) -> Self {
        Self {
            primary,
            config,
            tls,
            within: WITHIN,
            pace: Arc::default(),
        }
    }

    /// The most that a connect may take in all: waiting for a primary, its turn, TCP, TLS, authentication,
    /// and all that again if the primary is lost meanwhile. Default 10 s, as Vitess buffers for.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// A new connection to the primary.
    ///
    /// Waits for one if there is none. A connect that fails, as in the moment of a crash, is reported to the
    /// probes and tried again, there or at the next primary, after a back-off; not so if the server
    /// refuses the credentials or has no room. Connects of one connector and its clones begin at most 16 in 10 ms.
    ///
    /// # Errors
    ///
    /// [`PgConnectError`]: what failed last when the time was over.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection that was being made.
    pub async fn connect(&self) -> Result<PgClient, PgConnectError> {
        let (client, writer, _) = self.connect_as(&self.config).await?;
        Ok(PgClient::new(client, writer))
    }

    /// The same with another configuration, and with the task that drives the connection.
    pub(super) async fn connect_as(&self, config: &Config) -> Result<Connected, PgConnectError> {
        let until = Instant::now() + self.within;
        let (mut left, mut failures) = (self.within, 0);
        let mut failed = None;
        loop {
            let writer = match self.primary.wait(left).await {
                Ok(writer) => writer,
                Err(error) => return Err(PgConnectError::NoPrimary(error)),
            };
            let error = match timeout_at(until, self.attempt(&writer, config)).await {
                Ok(Ok(connected)) => return Ok(connected),
                Ok(Err(error)) => error,
                Err(_) => {
                    writer.report(Hint::Connection);
                    // What failed before says more.
                    return Err(failed.unwrap_or_else(|| self.timed_out(&writer)));
                }
            };
            if let Some(hint) = error.hint() {
                writer.report(hint);
            }
            if !error.is_passing() {
                return Err(error);
            }
            failed = Some(error);
            failures += 1;
            let pause = full_jitter(RETRY, RETRY_CAP, failures, unit());
            let _ = timeout_at(until, async {
                select! {
                    () = writer.lost() => {}
                    () = sleep(pause) => {}
                }
            })
            .await;
            left = until.saturating_duration_since(Instant::now());
        }
    }

    /// One connect to one primary.
    async fn attempt(&self, writer: &Writer, config: &Config) -> Result<Connected, PgConnectError> {
        let config = aimed(config, writer)?;
        self.pace.turn().await;
        let (client, connection) = writer
            .run(config.connect(self.tls.clone()))
            .await
            .map_err(PgConnectError::Fenced)?
            .map_err(|error| PgConnectError::Postgres {
                endpoint: Arc::clone(writer.endpoint()),
                error,
            })?;
        if connection.parameter("in_hot_standby") == Some("on") {
            return Err(PgConnectError::Standby(Arc::clone(writer.endpoint())));
        }
        // It may have been lost in the moment in which the connect was done.
        writer
            .run(ready(()))
            .await
            .map_err(PgConnectError::Fenced)?;
        let task = spawn(connection, writer.clone());
        Ok((client, writer.clone(), task))
    }

    #[cfg(feature = "deadpool-postgres")]
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    fn timed_out(&self, writer: &Writer) -> PgConnectError {
        PgConnectError::TimedOut {
            endpoint: Arc::clone(writer.endpoint()),
            within: self.within,
        }
    }
}

/// A client, to whom it is connected, and the task that drives its connection.
pub(super) type Connected = (Client, Writer, JoinHandle<()>);

/// The configuration with the primary's address. What TLS verifies stays.
fn aimed(config: &Config, writer: &Writer) -> Result<Config, PgConnectError> {
    let addr = writer.addr();
    if config.get_hosts().len() > 1 || !config.get_hostaddrs().is_empty() {
        let what = "name one host at most and no hostaddr: discovery finds the servers";
        return Err(PgConnectError::Config(what));
    }
    let mut config = config.clone();
    config.hostaddr(addr.ip());
    match config.get_ports() {
        [] => {
            config.port(addr.port());
        }
        [port] if *port == addr.port() => {}
        _ => {
            let what = "name no port but that of the pods: discovery finds it";
            return Err(PgConnectError::Config(what));
        }
    }
    Ok(config)
}

#[expect(
    clippy::disallowed_methods,
    reason = "tokio-postgres leaves it to its caller to drive the connection"
)]
fn spawn<S, T>(connection: Connection<S, T>, writer: Writer) -> JoinHandle<()>
where
    Connection<S, T>: Future<Output = Result<(), Error>> + Send + 'static,
{
    tokio::spawn(client::drive(connection, writer))
}

impl<T> fmt::Debug for PgConnector<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgConnector")
            .field("primary", &self.primary)
            .field("config", &self.config)
            .field("within", &self.within)
            .finish_non_exhaustive()
    }
}
