//! sqlx: a pool for each primary.

use std::{
    fmt,
    future::{Future, poll_fn, ready},
    io,
    ops::Deref,
    pin::pin,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use sqlx::{
    Error, Executor, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::{select, sync::oneshot};

use crate::{
    balancer::{Fenced, NoPrimary, PrimaryChanges, PrimaryView, Writer},
    hint::Hint,
};

/// Below it there are no sockets: a connect fails at once.
const NOWHERE: &str = "/dev/null";

/// The primary through sqlx: one [`PgPool`] for each reign, since a pool of sqlx keeps no record of whom a
/// connection is to.
///
/// ```no_run
/// use headless_lb::{Balancer, Dns, Observation, ProbeError, Role, SqlxPrimary, probe_fn};
/// use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// # let probe = probe_fn(|_| async { Ok::<_, ProbeError>(Observation::of(Role::Primary)) });
/// let db = Balancer::builder(Dns::srv("_postgres._tcp.pg.prod.svc.cluster.local")?)
///     .probe(probe)
///     .spawn();
/// let login = PgConnectOptions::new().username("app").password("secret").database("shop");
/// let primary = SqlxPrimary::spawn(db.primary(), login, PgPoolOptions::new());
///
/// let pool = primary.pool(Duration::from_secs(10)).await?; // each time: it is another one after a failover
/// let write = sqlx::query("INSERT INTO orders VALUES ('book')").execute(&*pool);
/// pool.run(write).await??; // ends when it is not the primary any more
/// # Ok(())
/// # }
/// ```
///
/// # What is checked when
///
/// - **On connect:** the address is the accepted primary's, and the node must not be in recovery: one query for each connect,
///   in the pool's `after_connect`, which also compares the epoch.
/// - **On checkout** of a pooled connection the epoch is compared, in the pool's `before_acquire`: no query. sqlx'
///   own ping (`test_before_acquire`) tells nothing of roles; switch it off if a statement that fails on a broken
///   connection is all right.
/// - **On loss** the next pool is there before the old one is closed, and its idle connections with it.
///
/// Host and port of the options are replaced by the pod's, `after_connect` and `before_acquire` by the checks; all else is yours. With a
/// Unix socket each connect fails. sqlx verifies the name that it dials, so with `VerifyFull` the certificates must name the
/// pods' addresses; `VerifyCa` does not look at names. The mode that sqlx has by default, `Prefer`, goes on in clear
/// with a server that says it has no TLS, whoever that is.
///
/// # What is spawned
///
/// One task, by [`spawn`](Self::spawn), which exchanges the pool when the primary changes, and ends with the last clone of this
/// handle. And one for each pool that is closed, until its last connection is given back.
#[derive(Clone)]
pub struct SqlxPrimary {
    inner: Arc<Inner>,
}

struct Inner {
    primary: PrimaryView,
    login: PgConnectOptions,
    options: PgPoolOptions,
    current: ArcSwapOption<SqlxPool>,
    #[expect(
        clippy::disallowed_types,
        reason = "held while a pool is exchanged, once for each switch: two at once would make two pools"
    )]
    exchange: std::sync::Mutex<()>,
    /// Ends the task when it is dropped.
    _alive: oneshot::Sender<()>,
}

impl SqlxPrimary {
    /// Pools with these options, whose connections log in so, to the primary of this view.
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`], outside a runtime.
    pub fn spawn(primary: PrimaryView, login: PgConnectOptions, options: PgPoolOptions) -> Self {
        // sqlx prefers a socket to any host, and it cannot be taken out of the options.
        let login = match login.get_socket() {
            None => login,
            Some(socket) => {
                tracing::error!(
                    ?socket,
                    "the login names a Unix socket, where no primary is: no connection is made"
                );
                login.socket(NOWHERE)
            }
        };
        let (alive, dropped) = oneshot::channel();
        let changes = primary.subscribe();
        let inner = Arc::new(Inner {
            primary,
            login,
            options,
            current: ArcSwapOption::empty(),
            exchange: Default::default(),
            _alive: alive,
        });
        spawn(follow(Arc::downgrade(&inner), changes, dropped));
        Self { inner }
    }

    /// The pool of the primary: at once if there is one, else as soon as there is, `within` the time given at
    /// most ([`PrimaryView::wait`], which also sets the pace). Ask each time anew, and do not keep it: it is closed after a failover.
    ///
    /// # Errors
    ///
    /// [`NoPrimary`], as `wait`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn pool(&self, within: Duration) -> Result<SqlxPool, NoPrimary> {
        if let Some(pool) = &*self.inner.current.load()
            && pool.writer.is_current()
        {
            return Ok(SqlxPool::clone(pool));
        }
        let writer = self.inner.primary.wait(within).await?;
        Ok(self.inner.adopt(&writer))
    }
}

impl Inner {
    /// The pool of this primary, or of a later one.
    fn adopt(&self, writer: &Writer) -> SqlxPool {
        let _turn = self.exchange.lock().expect("nobody panics in it");
        if let Some(pool) = &*self.current.load()
            && pool.writer.epoch() >= writer.epoch()
        {
            return SqlxPool::clone(pool);
        }
        let pool = SqlxPool::new(writer, &self.login, &self.options);
        close(self.current.swap(Some(Arc::new(pool.clone()))));
        pool
    }

    /// The primary was lost, and there is no other.
    fn retire(&self) {
        let _turn = self.exchange.lock().expect("nobody panics in it");
        let lost = |pool: &Arc<SqlxPool>| !pool.writer.is_current();
        if self.current.load().as_ref().is_some_and(lost) {
            close(self.current.swap(None));
        }
    }
}

/// Exchanges the pool when the primary changes, also if nobody asks for one: idle connections to the old one
/// are closed at once.
async fn follow(
    inner: Weak<Inner>,
    mut changes: PrimaryChanges,
    mut dropped: oneshot::Receiver<()>,
) {
    loop {
        let change = select! {
            change = changes.next() => change,
            _ = &mut dropped => None,
        };
        let (Some(change), Some(inner)) = (change, inner.upgrade()) else {
            return;
        };
        match change {
            Ok(writer) => drop(inner.adopt(&writer)),
            Err(_) => inner.retire(),
        }
    }
}

/// Takes no more checkouts from now on. Closes what is idle, and what is in use when it is given back.
fn close(pool: Option<Arc<SqlxPool>>) {
    if let Some(pool) = pool {
        let pool = pool.pool.clone();
        spawn(async move { pool.close().await });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "pools are exchanged when the primary changes, not when somebody asks next"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// The [`PgPool`] of one primary, from [`SqlxPrimary::pool`]. It is a pool to use, and closed when that primary is
/// lost: a checkout then fails with [`Error::PoolClosed`].
#[derive(Clone)]
pub struct SqlxPool {
    pool: PgPool,
    writer: Writer,
}

impl SqlxPool {
    fn new(writer: &Writer, login: &PgConnectOptions, options: &PgPoolOptions) -> Self {
        let addr = writer.addr();
        let (connected, checked) = (writer.clone(), writer.clone());
        let pool = options
            .clone()
            .after_connect(move |connection, _| {
                let writer = connected.clone();
                Box::pin(async move {
                    let checked = writer.run(is_primary(connection, &writer)).await;
                    checked.map_err(|fenced| Error::Io(io::Error::other(fenced)))?
                })
            })
            .before_acquire(move |_, _| Box::pin(ready(Ok(checked.is_current()))))
            .connect_lazy_with(login.clone().host(&addr.ip().to_string()).port(addr.port()));
        Self {
            pool,
            writer: writer.clone(),
        }
    }

    /// The primary that it connects to.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The output of `work` on this pool, or [`Fenced`] as soon as its primary is lost: `work` is dropped, its
    /// connection closed, and what it had sent may have been committed. Nothing is written twice.
    ///
    /// Without it a statement in flight waits for an answer as long as the network lets it, and a checkout as long as
    /// the pool's `acquire_timeout`. What an error of sqlx hints at is reported.
    ///
    /// # Errors
    ///
    /// [`Fenced`]; inside, as `work`.
    ///
    /// # Cancel safety
    ///
    /// As `work`.
    pub async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<Result<T, Error>, Fenced> {
        let work = async {
            let mut work = pin!(work);
            poll_fn(|context| {
                let done = work.as_mut().poll(context);
                if done.is_pending() && !self.writer.is_current() {
                    // `work` is dropped next. The connections of a pool that is marked closed are closed
                    // then; of an open one they would first wait for their answers, if need be for ever.
                    drop(self.pool.close());
                }
                done
            })
            .await
        };
        let done = self.writer.run(work).await?;
        if let Err(error) = &done {
            self.report(error);
        }
        Ok(done)
    }

    /// Reports what an error of a statement hints at, such as 25006, a write refused: the probes look at
    /// once, and decide. Errors that say nothing of the node are ignored.
    pub fn report(&self, error: &Error) {
        let hint = match error {
            Error::Database(error) => error.code().and_then(|code| Hint::from_pg(&code)),
            Error::Io(error) => Hint::from_io(error),
            _ => None,
        };
        if let Some(hint) = hint {
            self.writer.report(hint);
        }
    }
}

/// A node that was restarted as a standby at its address, before a probe has noticed, takes no writes.
async fn is_primary(connection: &mut PgConnection, writer: &Writer) -> Result<(), Error> {
    let row = connection.fetch_one("SELECT pg_is_in_recovery()").await?;
    if row.try_get(0)? {
        writer.report(Hint::NotPrimary);
        let standby = format!("{writer} is a standby, and no other primary is known yet");
        return Err(Error::Io(io::Error::other(standby)));
    }
    Ok(())
}

impl Deref for SqlxPool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}

impl fmt::Debug for SqlxPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxPool")
            .field("writer", &self.writer)
            .field("size", &self.pool.size())
            .field("is_closed", &self.pool.is_closed())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SqlxPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlxPrimary")
            .field("primary", &self.inner.primary)
            .field("pool", &*self.inner.current.load())
            .finish_non_exhaustive()
    }
}
