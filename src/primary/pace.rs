//! How often to probe while there is trouble.

use std::time::Duration;

use tokio::time::Instant;

use super::{State, Tracker};

/// How often to probe each endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At the probe's own interval.
    Steady,
    /// That often: somebody waits for the answer.
    Fast(Duration),
}

impl Tracker {
    /// How often to probe now: 50 ms for the first 2 s of a trouble, 100 ms up to 30 s, then 1 s, and never less
    /// often than in peace.
    ///
    /// A waiting program gets its primary within one of these after the database has one; after half a
    /// minute an operator is at work, and probes that open a connection each cost the servers more.
    pub(crate) fn pace(&self, now: Instant) -> Pace {
        if self.state == State::Stable {
            return Pace::Steady;
        }
        let trouble = self
            .state_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Pace::Fast(match trouble.as_millis() {
            0..2000 => Duration::from_millis(50),
            2000..30_000 => Duration::from_millis(100),
            // A primary that is kept in a conflict has a lease to renew.
            _ if self.state == State::Conflict && self.accepted.is_some() => {
                self.config.interval.min(Duration::from_secs(1))
            }
            _ => Duration::from_secs(1),
        })
    }
}
