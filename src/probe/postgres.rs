//! Asking PostgreSQL what it is, over a small client of its own: no driver needed.

use std::{fmt, sync::Arc, time::Duration};

use tokio::net::TcpStream;
#[cfg(feature = "tls")]
use {
    crate::tls::Tls,
    tokio::io::{AsyncReadExt, AsyncWriteExt},
    tokio_rustls::TlsConnector,
};

#[cfg(feature = "tls")]
use crate::probe::ProbeFailure;
use crate::{
    endpoint::Endpoint,
    probe::{Observation, Probe, ProbeError, Role},
};

mod complaint;
mod conversation;
mod login;
mod scram;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use complaint::Broken;
use conversation::{Conversation, Socket};
use login::Login;
pub use session::PostgresSession;

/// Asks a PostgreSQL server for its role, on a session that stays open.
///
/// ```
/// use headless_lb::{Balancer, Dns, Postgres, Primary};
///
/// # #[cfg(feature = "dns")]
/// # fn example() -> Result<(), headless_lb::NameError> {
/// let db = Balancer::builder(Dns::srv("_postgres._tcp.db.prod.svc.cluster.local")?)
///     .probe(Postgres::new("probe").password("secret"))
///     .policy(Primary)
///     .spawn();
/// # Ok(())
/// # }
/// ```
///
/// # What it needs
///
/// A role that may log in and connect to one database, and nothing else: `CREATE ROLE probe LOGIN PASSWORD '...'`. Each
/// process keeps one connection to each server. `CONNECTION LIMIT` keeps a mistake small, and since
/// PostgreSQL 16 `GRANT pg_use_reserved_connections TO probe` gets an answer from a server without free slots. Two traps:
///
/// - `ALTER ROLE probe SET default_transaction_read_only = on` makes every primary look fenced.
/// - Behind a pooler one asks the pooler. Probe the server's own port.
///
/// # What it tells
///
/// - The role. Servers since version 14 report it unasked, so that a question is one empty round (a `Sync` of
///   5 bytes, some 10 microseconds of the server's time). Older ones are asked with a statement.
/// - The timeline of a primary as its [`Term`](crate::Term), at once after a promotion. A replica's is not told: what it
///   knows of it is old.
/// - The system identifier as its [`Lineage`](crate::Lineage).
/// - The position in the log (written, or replayed), with every fourth question, or with each while somebody goes by it
///   ([`Endpoint::wants_position`](crate::Endpoint::wants_position)). Observations between have none.
/// - `default_transaction_read_only` on a primary as its fence.
///
/// A server that refuses a function, as some managed services do, tells what remains: the role.
///
/// # Authentication
///
/// Trust, SCRAM-SHA-256 (the server must prove that it knows the password, too), MD5, and cleartext passwords. The last
/// only over TLS or with [`cleartext`](Self::cleartext): the address of a pod may be another's tomorrow, and who listens
/// there only has to ask. The answer to MD5 lets who hears it try passwords at leisure. And a server
/// that asks for nothing has proved nothing: which server it is, TLS alone can tell. Passwords beyond ASCII are used as they are: that is right if they are in Unicode's normal form
/// KC, as SCRAM's SASLprep wants; no channel binding, no client certificate but the one of your TLS configuration, no GSSAPI.
///
/// Statements run with `statement_timeout` set to [`timeout`](Self::timeout), so that none goes on when nobody waits for
/// it. The `application_name` is `headless-lb probe`.
#[derive(Clone)]
#[must_use = "give it to Builder::probe"]
pub struct Postgres {
    login: Login,
    interval: Duration,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Postgres {
    /// As this role, in the database `postgres`, without a password.
    pub fn new(user: impl Into<Arc<str>>) -> Self {
        Self {
            login: Login {
                user: user.into(),
                password: None,
                database: "postgres".into(),
                cleartext: false,
                statement_timeout: Duration::from_millis(500),
            },
            interval: Duration::from_millis(250),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The role's password. Default: none, and a server that asks for one is an error that says so.
    pub fn password(mut self, password: impl Into<Arc<str>>) -> Self {
        self.login.password = Some(password.into());
        self
    }

    /// A database that the role may connect to; which one does not matter. Default: `postgres`, which every
    /// cluster has unless somebody dropped it.
    pub fn database(mut self, database: impl Into<Arc<str>>) -> Self {
        self.login.database = database.into();
        self
    }

    /// Says the password in clear also on a connection that is not encrypted, if the server asks for that
    /// (`password` in `pg_hba.conf`). Default: only over TLS.
    pub fn cleartext(mut self) -> Self {
        self.login.cleartext = true;
        self
    }

    /// Over TLS. A server that has none is an error: nothing is said in clear then. Default: no TLS.
    ///
    /// The ALPN protocol is `postgresql`, as PostgreSQL 17 wants it; older servers do not look.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, mut tls: Tls) -> Self {
        Arc::make_mut(&mut tls.config).alpn_protocols = vec![b"postgresql".to_vec()];
        self.tls = Some(tls);
        self
    }

    /// Time between two questions, jittered by 20 %; the driver takes 50 ms at least. Default 250 ms: it bounds
    /// for how long a new primary goes unnoticed, and costs a server 4 rounds a second.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The most that opening a session, and each question, may take. Default 500 ms: SCRAM takes some 20 ms on a busy
    /// machine, and a server that hangs is to be noticed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.login.statement_timeout = timeout;
        self
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<(Box<dyn Socket>, bool), ProbeError> {
        let stream = dial(endpoint).await?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Ok((Box::new(secured(tls, endpoint, stream).await?), true));
        }
        Ok((Box::new(stream), false))
    }
}

impl Probe for Postgres {
    type Session = PostgresSession;

    async fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(PostgresSession, Option<Observation>), ProbeError> {
        let (socket, is_encrypted) = self.connect(endpoint).await?;
        let opened = async {
            let nonce = login::nonce()?;
            PostgresSession::open(socket, &self.login, is_encrypted, &nonce).await
        };
        let (session, seen) = opened.await.map_err(Broken::opening)?;
        Ok((session, Some(seen)))
    }

    async fn observe(
        &self,
        endpoint: &Endpoint,
        session: &mut PostgresSession,
    ) -> Result<Observation, ProbeError> {
        let seen = session.observe(endpoint.wants_position()).await;
        seen.map_err(Broken::on_session)
    }

    async fn signalled(&self, session: &mut PostgresSession) {
        session.interrupted().await;
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self) -> Duration {
        self.login.statement_timeout
    }
}

impl fmt::Debug for Postgres {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Postgres")
            .field("user", &self.login.user)
            .field("database", &self.login.database)
            .field("interval", &self.interval)
            .field("timeout", &self.login.statement_timeout)
            .finish_non_exhaustive()
    }
}

/// Asks whether a PostgreSQL server takes connections, without a credential: it is alive, or why not.
///
/// It connects, and leaves when the server asks who it is. That tells no role: primary and standby answer alike. So combine
/// it with something that knows the roles. A server that is starting, recovering, shutting down or full says so, and the
/// failure is named.
///
/// Each question is a connection that never logs in: a server with `log_connections` on notes it.
///
/// ```
/// use headless_lb::{Balancer, Fixed, probe::PostgresAlive};
///
/// let pods = [std::net::SocketAddr::from(([10, 244, 1, 7], 5432))];
/// let db = Balancer::builder(Fixed::new(pods)).probe(PostgresAlive::new());
/// # let _ = db;
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "give it to Builder::probe"]
#[non_exhaustive]
pub struct PostgresAlive {}

impl PostgresAlive {
    /// Asks every second, and waits for an answer for 500 ms.
    pub fn new() -> Self {
        Self {}
    }
}

impl Probe for PostgresAlive {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        let stream = dial(endpoint).await?;
        let mut conversation = Conversation::over(Box::new(stream));
        is_alive(&mut conversation).await.map_err(Broken::opening)
    }
}

/// Whoever asks for a name, or refuses ours, takes connections.
async fn is_alive(conversation: &mut Conversation) -> Result<Observation, Broken> {
    // The names do not matter: a server asks for authentication before it looks them up.
    let login = Postgres::new("headless-lb").login;
    login.begin(conversation).await?;
    match conversation.hear().await {
        Ok(_) => Ok(Observation::of(Role::Unknown)),
        Err(Broken::Server(complaint)) if complaint.is_of_the_login() => {
            Ok(Observation::of(Role::Unknown))
        }
        Err(broken) => Err(broken),
    }
}

async fn dial(endpoint: &Endpoint) -> Result<TcpStream, ProbeError> {
    let stream = TcpStream::connect(endpoint.addr()).await;
    let stream = stream.map_err(ProbeError::opening)?;
    // Messages are small, and each waits for its answer.
    stream.set_nodelay(true).map_err(ProbeError::opening)?;
    Ok(stream)
}

/// Asks for TLS, as PostgreSQL has it, and does its handshake.
#[cfg(feature = "tls")]
async fn secured(
    tls: &Tls,
    endpoint: &Endpoint,
    mut stream: TcpStream,
) -> Result<impl Socket + use<>, ProbeError> {
    let refused = |why: &str| ProbeError::new(ProbeFailure::Tls, why);
    let name = tls.name_of(endpoint);
    let name = name.map_err(|error| ProbeError::new(ProbeFailure::Tls, error))?;
    let ask = async {
        stream.write_all(&wire::ssl_request()).await?;
        // One byte, and not more: what is said in clear must not pass as said under TLS.
        stream.read_u8().await
    };
    match ask.await.map_err(ProbeError::opening)? {
        b'S' => {}
        b'N' => return Err(refused("the server has no TLS (`ssl` is off)")),
        _ => return Err(refused("the server does not answer to a request for TLS")),
    }
    let connector = TlsConnector::from(Arc::clone(&tls.config));
    let connected = connector.connect(name, stream).await;
    connected.map_err(ProbeError::securing)
}
