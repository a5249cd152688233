//! A connection to the primary, and the task that ends it with the reign.

use std::{
    fmt,
    future::{Future, poll_fn},
    ops::{Deref, DerefMut},
    pin::pin,
    task::Poll,
};

use tokio_postgres::{Client, Error};

use super::error::hint;
use crate::{balancer::Writer, hint::Hint};

/// A [`Client`] of tokio-postgres, connected to the primary, from [`PgConnector::connect`](super::PgConnector::connect).
///
/// It ends when that is not the primary any more: what is in flight then fails with "connection closed"
/// ([`Error::is_closed`]), and may have been committed, for the server goes on with it. A statement that is begun later
/// is not sent. Ask the connector for the next connection; nothing is written twice.
pub struct PgClient {
    client: Client,
    writer: Writer,
}

impl PgClient {
    pub(super) fn new(client: Client, writer: Writer) -> Self {
        Self { client, writer }
    }

    /// Whether it is open, and to the accepted primary: two loads.
    #[inline]
    pub fn is_current(&self) -> bool {
        self.writer.is_current() && !self.client.is_closed()
    }

    /// The primary that it is connected to: its pod, its generation, and whether it is lost.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Reports what an error of a statement on it hints at, such as 25006, a write refused: the probes look at
    /// once, and decide. Errors that say nothing of the node are ignored.
    pub fn report(&self, error: &Error) {
        if let Some(hint) = hint(error) {
            self.writer.report(hint);
        }
    }

    /// The client, and to whom it is connected.
    pub fn into_parts(self) -> (Client, Writer) {
        (self.client, self.writer)
    }
}

impl Deref for PgClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for PgClient {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl fmt::Debug for PgClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgClient")
            .field("writer", &self.writer)
            .field("is_closed", &self.client.is_closed())
            .finish_non_exhaustive()
    }
}

/// Drives a connection until it ends, or the primary is lost.
pub(super) async fn drive(connection: impl Future<Output = Result<(), Error>>, writer: Writer) {
    let mut connection = pin!(connection);
    let mut lost = pin!(writer.lost());
    let ended = poll_fn(|cx| {
        // Each time before anything is sent: a statement that was begun after the loss never leaves.
        if !writer.is_current() || lost.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        connection.as_mut().poll(cx).map(Some)
    })
    .await;
    match ended {
        None => tracing::debug!(endpoint = %writer, "connection ended: not the primary any more"),
        Some(Ok(())) => {}
        Some(Err(error)) => {
            tracing::debug!(endpoint = %writer, %error, "connection ended");
            writer.report(hint(&error).unwrap_or(Hint::Connection));
        }
    }
}
