//! redis-rs: a connection that is to the primary, whoever that is.

use std::{
    error, fmt,
    future::pending,
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, RedisFuture,
    RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
    task::AbortHandle,
    time::{Instant, timeout, timeout_at},
};

#[cfg(feature = "tls")]
use {crate::tls::Tls, tokio_rustls::rustls};

use crate::{
    backoff::spread,
    balancer::{PrimaryView, Writer},
    draw::unit,
    hint::Hint,
};

mod said;

use said::Said;

/// How long a command waits for a primary: as long as Vitess buffers for.
const WAIT: Duration = Duration::from_secs(10);

/// A dial, with TLS and `AUTH`: redis-rs' own default. A stopped node's kernel still accepts connections.
const CONNECT: Duration = Duration::from_secs(1);

/// A node that answers `READONLY` was demoted, and each probe is asked at once: twice their longest usual time.
const NOTICE: Duration = Duration::from_secs(1);

/// Between two looks whether a probe has confirmed the primary: it does so within a round trip.
const LOOK: Duration = Duration::from_millis(5);

/// Between two connects that fail: a promotion is not missed for long, nor a node flooded.
const AGAIN: Duration = Duration::from_millis(50);

/// A multiplexed connection of [redis-rs](https://docs.rs/redis) to the primary, wherever that is: in the place of its
/// `ConnectionManager`.
///
/// ```no_run
/// use headless_lb::{Balancer, Dns, Redis, RedisPrimary};
/// use redis::{AsyncTypedCommands, RedisConnectionInfo};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pods = Balancer::builder(Dns::headless("redis.prod.svc.cluster.local", 6379)?)
///     .probe(Redis::new().username("probe").password("secret"))
///     .spawn();
/// let app = RedisConnectionInfo::default().set_username("app").set_password("secret");
/// let mut redis = RedisPrimary::new(pods.primary(), app);
/// redis.set("key", 42).await?;
/// # Ok(())
/// # }
/// ```
///
/// Clones share one connection, which is made on first use, to the pod that [`PrimaryView`] names. It ends when that one is
/// not the primary any more, also while its socket goes on working: a node that was demoted, or is cut off,
/// gets no further command. The next command goes to the new primary.
///
/// # What becomes of a command
///
/// - **While there is no primary** it waits for one, 10 s at most ([`wait`](Self::wait)), and then fails with the text of
///   [`NoPrimary`](crate::NoPrimary). So does one whose connect fails: nothing was sent.
/// - **After its connection broke** the next one is made once a probe has confirmed the primary since then: a server
///   that was restarted may have lost its data, and then it is not the primary any more.
/// - **In flight when the primary is lost** it fails with the text of [`Fenced`](crate::Fenced): it may have taken effect. It is
///   never sent again. The same holds for one whose connection breaks.
/// - **Refused with `READONLY`**, since the node was demoted a moment ago, it has had no effect. So a single command goes to
///   the new primary, if one is found within a second; a pipeline or a script, of which parts may have been
///   done (a script may have published before it wrote), ends with the error.
///
/// The `NoPrimary` or `Fenced` itself is among the [sources](error::Error::source) of the error.
///
/// Errors are also [hints](Writer::report): the probes look at once.
///
/// # What it does not do
///
/// Subscriptions (RESP3 pushes) are not made again on the next connection. Nor is any state of a connection kept for
/// you: clones share it, and the next command may go over another one. So `MULTI`, `WATCH` and `SELECT` are no
/// commands to send alone; an atomic pipeline ([`Pipeline::atomic`]) is a transaction that goes over one. And observation is not fencing: what is
/// acknowledged by an old master between the promotion and the next look of the probes is lost, which
/// `min-replicas-to-write` on the server bounds.
#[derive(Clone)]
#[must_use = "it connects when a command is sent"]
pub struct RedisPrimary {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
}

#[derive(Clone)]
struct Settings {
    primary: PrimaryView,
    info: RedisConnectionInfo,
    config: AsyncConnectionConfig,
    wait: Duration,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

/// What clones share.
#[derive(Default)]
struct Shared {
    link: ArcSwapOption<Link>,
    /// Who holds it connects. Its queue is fair.
    connecting: Mutex<()>,
}

impl RedisPrimary {
    /// Logs in as `info` says. Connects on first use.
    pub fn new(primary: PrimaryView, info: RedisConnectionInfo) -> Self {
        let settings = Settings {
            primary,
            info,
            config: AsyncConnectionConfig::new(),
            wait: WAIT,
            #[cfg(feature = "tls")]
            tls: None,
        };
        Self {
            settings: Arc::new(settings),
            shared: Arc::default(),
        }
    }

    /// How long a command waits for a primary and a connection to it. Default 10 s.
    pub fn wait(self, wait: Duration) -> Self {
        self.with(|settings| settings.wait = wait)
    }

    /// Connects over TLS.
    #[cfg(feature = "tls")]
    pub fn tls(self, tls: Tls) -> Self {
        self.with(|settings| settings.tls = Some(tls))
    }

    /// redis-rs' settings of a connection: the time that an answer may take (500 ms by default), above all. Its
    /// resolver and its timeout of connects are not used.
    pub fn config(self, config: AsyncConnectionConfig) -> Self {
        self.with(|settings| settings.config = config)
    }

    /// Another setting, another connection.
    fn with(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(Arc::make_mut(&mut self.settings));
        self.shared = Arc::default();
        self
    }

    async fn command(&self, command: &Cmd) -> RedisResult<Value> {
        let link = self.link().await?;
        let answer = link
            .ask(link.connection().send_packed_command(command))
            .await;
        if !said::may_repeat(command) || !link.was_demoted(&answer).await {
            return answer;
        }
        let link = self.link().await?;
        link.ask(link.connection().send_packed_command(command))
            .await
    }

    async fn pipeline(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let link = self.link().await?;
        let mut connection = link.connection();
        link.ask(connection.send_packed_commands(pipeline, offset, count))
            .await
    }

    /// The connection, made anew if the one before is not usable any more.
    async fn link(&self) -> RedisResult<Arc<Link>> {
        if let Some(link) = self.usable() {
            return Ok(link);
        }
        let deadline = Instant::now() + self.settings.wait;
        let mut last = None;
        match timeout_at(deadline, self.connect(&mut last)).await {
            Ok(linked) => linked,
            // Without a primary that is the cause, whatever failed before.
            Err(_) => Err(match (self.settings.primary.get(), last) {
                (Err(none), _) => carrying(none),
                (Ok(_), Some(error)) => error,
                (Ok(primary), None) => late(&primary),
            }),
        }
    }

    fn usable(&self) -> Option<Arc<Link>> {
        self.shared.link.load_full().filter(|link| link.is_usable())
    }

    /// Whether the primary may be connected to. A connection to it that broke may mean that it was restarted, without its
    /// data perhaps: then once a probe has seen since that it is what it was. False if it is not.
    async fn is_believed(&self, primary: &Writer) -> bool {
        let last = self.shared.link.load_full();
        let last = last.filter(|link| link.writer.epoch() == primary.epoch());
        let Some(broke) = last.and_then(|link| link.broke.get().copied()) else {
            return true;
        };
        primary.report(Hint::Connection);
        while primary.is_current() {
            if primary.confirmed_ago() < broke.elapsed() {
                return true;
            }
            let _ = timeout(LOOK, primary.lost()).await;
        }
        false
    }

    /// One for all that wait; `last` is why it could not connect so far.
    async fn connect(&self, last: &mut Option<RedisError>) -> RedisResult<Arc<Link>> {
        let _turn = self.shared.connecting.lock().await;
        loop {
            if let Some(link) = self.usable() {
                return Ok(link);
            }
            let primary = self.settings.primary.wait(self.settings.wait).await;
            let primary = primary.map_err(carrying)?;
            if !self.is_believed(&primary).await {
                continue;
            }
            let connecting = timeout(CONNECT, self.settings.connect(&primary));
            // A connect to a node that hangs ends when it wakes up: it must not then be used.
            let error = match primary.run(connecting).await {
                Err(_) => continue,
                Ok(Err(_)) => late(&primary),
                Ok(Ok(Err(error))) => error,
                Ok(Ok(Ok(link))) if link.is_usable() => {
                    let link = Arc::new(link);
                    self.shared.link.store(Some(Arc::clone(&link)));
                    return Ok(link);
                }
                Ok(Ok(Ok(_))) => continue,
            };
            if let Some(hint) = said::hint(&error) {
                primary.report(hint);
            }
            if !is_passing(&error) {
                return Err(error);
            }
            *last = Some(error);
            let pause = spread(AGAIN, 0.8, 1.2, unit());
            // Another primary ends it early.
            let _ = timeout(pause, primary.lost()).await;
        }
    }
}

/// Whether another connect may go better: a refused login will not, nor a name that is not proved.
fn is_passing(error: &RedisError) -> bool {
    error.is_io_error() || said::hint(error).is_some()
}

impl Settings {
    async fn connect(&self, primary: &Writer) -> RedisResult<Link> {
        let stream = TcpStream::connect(primary.addr()).await?;
        // Commands are whole messages: waiting for more to send would only delay them.
        stream.set_nodelay(true)?;
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let name = tls
                .name_of(primary.endpoint())
                .map_err(|error| said::unproved(&error))?;
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
            let connected = connector.connect(name, stream).await;
            let stream = connected.map_err(|error| match error.get_ref() {
                Some(cause) if cause.is::<rustls::Error>() => said::unproved(&error),
                _ => error.into(), // it broke off
            })?;
            return self.link(primary, stream).await;
        }
        self.link(primary, stream).await
    }

    async fn link<C>(&self, primary: &Writer, stream: C) -> RedisResult<Link>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let config = self.config.clone();
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&self.info, stream, config).await?;
        let writer = primary.clone();
        let broke = Arc::new(OnceLock::new());
        let breaking = Arc::clone(&broke);
        let driving = async move {
            tokio::select! {
                () = driver => { let _ = breaking.set(Instant::now()); }
                () = writer.lost() => {}
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "somebody must drive the connection; it ends with the last handle"
        )]
        let task = tokio::spawn(driving);
        Ok(Link {
            connection,
            writer: primary.clone(),
            task: task.abort_handle(),
            broke,
        })
    }
}

/// A connection to one primary.
struct Link {
    connection: MultiplexedConnection,
    writer: Writer,
    task: AbortHandle,
    /// When it ended by itself.
    broke: Arc<OnceLock<Instant>>,
}

impl Link {
    fn is_usable(&self) -> bool {
        self.writer.is_current() && !self.task.is_finished()
    }

    fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// The answer, or that the primary was lost meanwhile.
    async fn ask<T: Said>(&self, asking: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let work = async {
            match asking.await {
                // The connection was ended for that very reason, which is `run`'s to tell.
                Err(error) if error.is_io_error() && !self.writer.is_current() => pending().await,
                answer => answer,
            }
        };
        let answer = self.writer.run(work).await;
        let answer = answer.unwrap_or_else(|fenced| Err(carrying(fenced)));
        if let Some(hint) = said::hint_of(&answer) {
            self.writer.report(hint);
        }
        answer
    }

    /// Whether the node refused to write because it is a replica now, which shows as soon as the probes have looked.
    async fn was_demoted(&self, answer: &RedisResult<Value>) -> bool {
        said::is_refused(answer) && timeout(NOTICE, self.writer.lost()).await.is_ok()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// In the driver's error, where a walk along the sources finds it.
fn carrying(cause: impl error::Error + Send + Sync + 'static) -> RedisError {
    io::Error::other(Carried(cause)).into()
}

/// An [`io::Error`] passes over what it was made of, and names the source of that.
#[derive(Debug)]
struct Carried<E>(E);

impl<E: fmt::Display> fmt::Display for Carried<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: error::Error + 'static> error::Error for Carried<E> {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.0)
    }
}

fn late(primary: &Writer) -> RedisError {
    let text = format!("{primary} is the primary, and no connection to it was made in time");
    io::Error::new(io::ErrorKind::TimedOut, text).into()
}

impl ConnectionLike for RedisPrimary {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.command(command))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.pipeline(pipeline, offset, count))
    }

    fn get_db(&self) -> i64 {
        self.settings.info.db()
    }
}

impl fmt::Debug for RedisPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let link = self.usable();
        f.debug_struct("RedisPrimary")
            .field("primary", &self.settings.primary)
            .field("connected", &link.map(|link| link.writer.addr()))
            .finish_non_exhaustive()
    }
}
