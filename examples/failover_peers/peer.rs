//! A client beside ours: writes rows until it is dropped, and tells what became of each.

use std::{mem, time::Duration};

use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use crate::{
    client::{Attempt, Ending, Log},
    support::Result,
};

/// Until a client that has a primary writes its first rows.
const PATIENCE: Duration = Duration::from_secs(20);

/// So many rows a client may write before it writes those of the next.
pub(crate) const NUMBERS: i64 = 1_000_000_000;

/// A client that runs. Dropped: ended.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    told: mpsc::UnboundedReceiver<Attempt>,
    log: Log,
    running: JoinHandle<Result<()>>,
}

impl Peer {
    /// `running` tells of its attempts over the channel.
    pub(crate) fn new(
        name: &'static str,
        told: mpsc::UnboundedReceiver<Attempt>,
        running: JoinHandle<Result<()>>,
    ) -> Self {
        Self {
            name,
            told,
            log: Log::default(),
            running,
        }
    }

    /// Waits until it has written so many rows.
    pub(crate) async fn writes(&mut self, rows: usize) -> Result<()> {
        let written = async {
            let mut written = 0;
            while written < rows {
                let Some(attempt) = self.told.recv().await else {
                    // It ended, and says why.
                    return (&mut self.running).await?;
                };
                written += usize::from(matches!(attempt.ending, Ending::Written(_)));
                self.log.attempts.push(attempt);
            }
            Ok(())
        };
        match timeout(PATIENCE, written).await {
            Ok(written) => written.map_err(|error| format!("{}: {error}", self.name).into()),
            Err(_elapsed) => {
                let seconds = PATIENCE.as_secs();
                Err(format!("{} does not write {rows} rows in {seconds} s", self.name).into())
            }
        }
    }

    /// All that it tried until now.
    pub(crate) fn end(mut self) -> Log {
        while let Ok(attempt) = self.told.try_recv() {
            self.log.attempts.push(attempt);
        }
        mem::take(&mut self.log)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.running.abort();
    }
}
