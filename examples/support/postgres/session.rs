//! SQL for those who stage the faults.
#![expect(
    clippy::disallowed_methods,
    reason = "a session's connection is driven beside the story"
)]

use std::{net::SocketAddr, time::Duration};

use tokio::{task::JoinHandle, time::timeout};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{PASSWORD, PATIENCE, Result, until};

/// More than a connect and a short statement take, unless the server is stopped.
const ANSWERS: Duration = Duration::from_secs(5);

/// A connection to one server. Dropped: closed.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    connection: JoinHandle<()>,
}

impl Session {
    /// Logs in. Errors are tokio-postgres's, so that [`sqlstate`] tells why.
    pub(crate) async fn open(addr: SocketAddr, role: &str) -> Result<Self> {
        let mut config = Config::new();
        config
            .host(addr.ip().to_string())
            .port(addr.port())
            .user(role)
            .password(PASSWORD)
            .dbname("postgres");
        let (client, connection) = timeout(ANSWERS, config.connect(NoTls)).await??;
        let connection = tokio::spawn(async move {
            // Its end shows in the next statement.
            let _ = connection.await;
        });
        Ok(Self { client, connection })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// One statement, whatever it returns.
    pub(crate) async fn execute(&self, statement: &str) -> Result<()> {
        timeout(PATIENCE, self.client.simple_query(statement)).await??;
        Ok(())
    }

    /// The first row, as text.
    pub(crate) async fn row(&self, query: &str) -> Result<Vec<Option<String>>> {
        let answer = timeout(ANSWERS, self.client.simple_query(query)).await??;
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or("no row")?;
        Ok((0..row.len())
            .map(|i| row.get(i).map(str::to_owned))
            .collect())
    }

    /// The first column of the first row, as text.
    pub(crate) async fn text(&self, query: &str) -> Result<String> {
        let mut row = self.row(query).await?;
        Ok(row.swap_remove(0).ok_or("the answer is NULL")?)
    }

    /// Asks until the answer is true.
    pub(crate) async fn until(&self, query: &str, otherwise: &str) -> Result<()> {
        until(otherwise, async || Ok(self.text(query).await? == "t")).await
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// The SQLSTATE of an error, if a server said so.
pub(crate) fn sqlstate<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e str> {
    let error = error.downcast_ref::<tokio_postgres::Error>()?;
    error.code().map(tokio_postgres::error::SqlState::code)
}
