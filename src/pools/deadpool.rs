//! deadpool-postgres: a manager whose connections are to the primary.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use deadpool_postgres::{Connect, Manager, ManagerConfig};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::JoinHandle,
};
use tokio_postgres::{Client, Config, Error, NoTls, config::SslMode};

use super::tokio_postgres::{PgConnectError, PgConnector, PgTls};

impl<T: PgTls> PgConnector<T> {
    /// The manager of a pool of deadpool-postgres.
    ///
    /// ```no_run
    /// # use headless_lb::{PgConnector, PrimaryView};
    /// # use tokio_postgres::{Config, NoTls};
    /// use deadpool_postgres::{ManagerConfig, Pool};
    ///
    /// # async fn example(primary: PrimaryView, config: Config) -> Result<(), Box<dyn std::error::Error>> {
    /// let manager = PgConnector::new(primary, config, NoTls).manager(ManagerConfig::default());
    /// let pool = Pool::builder(manager).max_size(16).build()?;
    /// pool.get().await?.execute("INSERT INTO orders VALUES ($1)", &[&"book"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Its default, `RecyclingMethod::Fast`, suffices: connections to a lost primary are closed the moment that it is lost,
    /// idle or not, and a checkout drops them without a query. A client that was checked out in that
    /// very moment sends nothing more: its statements fail with "connection closed".
    ///
    /// A connect that fails is a `PoolError::Backend` with the driver's error; where there was no primary, the
    /// chain of its [`source`](std::error::Error::source)s holds the [`NoPrimary`](crate::NoPrimary).
    pub fn manager(self, config: ManagerConfig) -> Manager {
        Manager::from_connect(self.config().clone(), ToPrimary(self), config)
    }
}

struct ToPrimary<T>(PgConnector<T>);

type Connecting<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl<T: PgTls> Connect for ToPrimary<T> {
    fn connect(&self, config: &Config) -> Connecting<'_> {
        let config = config.clone();
        Box::pin(async move {
            match self.0.connect_as(&config).await {
                Ok((client, _, task)) => Ok((client, task)),
                Err(PgConnectError::Postgres { error, .. }) => Err(error),
                Err(error) => Err(as_driver_error(error).await),
            }
        })
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
