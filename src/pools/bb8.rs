//! bb8: the connector is a manager.

use std::{future::ready, sync::Arc};

use bb8::ManageConnection;

use super::tokio_postgres::{PgClient, PgConnectError, PgConnector, PgTls};

/// A pool of connections to the primary.
///
/// ```no_run
/// # use headless_lb::{PgConnector, PrimaryView};
/// # use tokio_postgres::{Config, NoTls};
/// # async fn example(primary: PrimaryView, config: Config) -> Result<(), Box<dyn std::error::Error>> {
/// let pool = bb8::Pool::builder().build_unchecked(PgConnector::new(primary, config, NoTls));
/// pool.get().await?.execute("INSERT INTO orders VALUES ($1)", &[&"book"]).await?;
/// # Ok(())
/// # }
/// ```
///
/// A checkout compares the epoch and sends nothing; leave `test_on_check_out` as it is, on. While there is no
/// primary, a checkout waits for the pool's `connection_timeout` and then tells `TimedOut`: why,
/// the pool's `error_sink` is told.
impl<T: PgTls> ManageConnection for PgConnector<T> {
    type Connection = PgClient;
    type Error = PgConnectError;

    async fn connect(&self) -> Result<PgClient, PgConnectError> {
        Self::connect(self).await
    }

    async fn is_valid(&self, client: &mut PgClient) -> Result<(), PgConnectError> {
        // Says whose end it was.
        let fenced = client.writer().run(ready(())).await;
        fenced.map_err(PgConnectError::Fenced)?;
        if client.is_closed() {
            let endpoint = Arc::clone(client.writer().endpoint());
            return Err(PgConnectError::Closed(endpoint));
        }
        Ok(())
    }

    fn has_broken(&self, client: &mut PgClient) -> bool {
        !client.is_current()
    }
}
