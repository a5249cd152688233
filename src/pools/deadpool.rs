//! deadpool-postgres: a pool whose connections are to the primary.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use deadpool_postgres::{Connect, Hook, HookError, Manager, ManagerConfig, Pool, PoolBuilder};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
    time::Instant,
};
use tokio_postgres::{Client, Config, Error, NoTls, config::SslMode};

use super::tokio_postgres::{PgConnectError, PgConnector, PgTls};
use crate::balancer::Writer;

impl<T: PgTls> PgConnector<T> {
    /// The builder of a pool of deadpool-postgres, whose connections are to the primary.
    ///
    /// ```no_run
    /// # use headless_lb::{PgConnector, PrimaryView};
    /// # use tokio_postgres::{Config, NoTls};
    /// use deadpool_postgres::ManagerConfig;
    ///
    /// # async fn example(primary: PrimaryView, config: Config) -> Result<(), Box<dyn std::error::Error>> {
    /// let primary = PgConnector::new(primary, config, NoTls);
    /// let pool = primary.deadpool(ManagerConfig::default()).max_size(16).build()?;
    /// pool.get().await?.execute("INSERT INTO orders VALUES ($1)", &[&"book"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Connections to a lost primary are closed when it is lost, idle or not, and a hook of the pool
    /// (`pre_recycle`) lets no checkout have one: it compares the epoch, and asks the server nothing. So `RecyclingMethod::Fast`, the
    /// default, suffices. What is in flight at the loss fails with "connection closed", and may have been committed.
    ///
    /// A connect that fails is a `PoolError::Backend` with the driver's error; where there was no primary, the
    /// chain of its [`source`](std::error::Error::source)s holds the [`NoPrimary`](crate::NoPrimary).
    pub fn deadpool(self, config: ManagerConfig) -> PoolBuilder {
        let reign = Arc::<ArcSwapOption<Reign>>::default();
        let login = self.config().clone();
        let to_primary = ToPrimary {
            connector: self,
            reign: Arc::clone(&reign),
        };
        let manager = Manager::from_connect(login, to_primary, config);
        Pool::builder(manager).pre_recycle(Hook::sync_fn(move |_, metrics| {
            let age = metrics.created.elapsed();
            let is_current = |reign: &Arc<Reign>| reign.has(age);
            if reign.load().as_ref().is_some_and(is_current) {
                Ok(())
            } else {
                Err(HookError::message("not to the primary any more"))
            }
        }))
    }
}

struct ToPrimary<T> {
    connector: PgConnector<T>,
    reign: Arc<ArcSwapOption<Reign>>,
}

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl<T: PgTls> Connect for ToPrimary<T> {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move {
            match self.connector.connect_as(&config).await {
                Ok((client, writer, task)) => {
                    Reign::begin(&self.reign, &writer);
                    Ok((client, task))
                }
                Err(PgConnectError::Postgres { error, .. }) => Err(error),
                Err(error) => Err(as_driver_error(error).await),
            }
        })
    }
}

/// Whom the pool connects to, since when. A client of deadpool has no room for its writer, but its age is known: those that
/// are older than the reign are to another primary.
struct Reign {
    writer: Writer,
    since: Instant,
}

impl Reign {
    /// The first connection of a reign is here. The pool counts its age from later on.
    fn begin(reign: &ArcSwapOption<Self>, writer: &Writer) {
        reign.rcu(|now| match now {
            Some(now) if now.writer.epoch() >= writer.epoch() => Some(Arc::clone(now)),
            _ => Some(Arc::new(Self {
                writer: writer.clone(),
                since: Instant::now(),
            })),
        });
    }

    /// Whether a connection of this age is of this reign, and the reign goes on.
    fn has(&self, age: Duration) -> bool {
        self.writer.is_current() && age <= self.since.elapsed()
    }
}

/// The driver's errors are made by the driver alone: it is given a stream that fails with ours.
async fn as_driver_error(error: PgConnectError) -> Error {
    let stream = Failing(Some(error));
    let mut config = Config::new();
    // Without a user it would ask the system for one.
    config.user("nobody").ssl_mode(SslMode::Disable);
    match config.connect_raw(stream, NoTls).await {
        Err(error) => error,
        Ok(_) => unreachable!("a stream that only fails cannot greet"),
    }
}

/// A stream that fails with this.
struct Failing(Option<PgConnectError>);

impl Failing {
    fn fail<T>(&mut self) -> Poll<io::Result<T>> {
        Poll::Ready(Err(self
            .0
            .take()
            .map_or_else(|| io::ErrorKind::BrokenPipe.into(), io::Error::other)))
    }
}

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().fail()
    }
}

impl AsyncWrite for Failing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().fail()
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().fail()
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
