//! When a standby took its first write: what every result is measured from.
#![expect(
    clippy::disallowed_methods,
    reason = "the truth is found out beside the story"
)]

use std::time::Duration;

use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{PATIENCE, Result, Server};

/// How exact the truth is.
const EVERY: Duration = Duration::from_millis(2);

/// A session that was opened beforehand tries to write, again and again. Dropped: it gives up.
#[derive(Debug)]
pub(crate) struct Truth {
    writable: JoinHandle<Result<Instant>>,
}

impl Truth {
    /// Begins on a standby that is to be promoted.
    pub(crate) async fn of(server: &Server) -> Result<Self> {
        let session = server.session().await?;
        let deadline = Instant::now() + 2 * PATIENCE;
        let writable = tokio::spawn(async move {
            let mut tries = interval(EVERY);
            tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while Instant::now() < deadline {
                tries.tick().await;
                if session
                    .execute("INSERT INTO truth DEFAULT VALUES")
                    .await
                    .is_ok()
                {
                    return Ok(Instant::now());
                }
                if session.client().is_closed() {
                    return Err("the session that tries to write ended".into());
                }
            }
            Err("the server never took a write".into())
        });
        Ok(Self { writable })
    }

    /// When the first write was acknowledged.
    pub(crate) async fn writable(mut self) -> Result<Instant> {
        (&mut self.writable).await?
    }
}

impl Drop for Truth {
    fn drop(&mut self) {
        self.writable.abort();
    }
}
