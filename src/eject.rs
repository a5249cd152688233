//! Setting a pod aside that refuses connections.
//!
//! This is connectivity, not opinion: a failed connect is certain, so one is enough. The pod comes
//! back by itself after a back-off, and the next connect decides.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::{exponential, spread};

/// First absence: a listener that restarts is back in about that time.
const BASE: Duration = Duration::from_millis(100);
/// Longest absence. A dead pod leaves DNS within some seconds; one that comes back should not wait
/// longer than that. (linkerd2-proxy backs off to 60 s; this is our choice.)
const CAP: Duration = Duration::from_secs(10);

/// What the writer knows of one endpoint's connects.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Connectivity {
    /// Failures in a row that were acted upon.
    seen: u32,
    ejected_until: Option<Instant>,
}

impl Connectivity {
    /// Compares with the endpoint's live count of failures in a row. True if that changed whether the
    /// endpoint is ejected, or failed anew.
    pub(crate) fn update(&mut self, now: Instant, failures: u32, random: f64) -> Update {
        if failures == self.seen {
            return Update::None;
        }
        self.seen = failures;
        if failures == 0 {
            return if self.ejected_until.take().is_some() {
                Update::Returned
            } else {
                Update::None
            };
        }
        let absence = spread(exponential(BASE, CAP, failures), 0.8, 1.2, random);
        self.ejected_until = Some(now + absence);
        Update::Failed
    }

    /// The absence is over: true if the endpoint returns now.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let over = self.ejected_until.is_some_and(|until| until <= now);
        if over {
            self.ejected_until = None;
        }
        over
    }

    #[inline]
    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected_until.is_some()
    }

    #[inline]
    pub(crate) fn until(&self) -> Option<Instant> {
        self.ejected_until
    }
}

/// What [`Connectivity::update`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// Nothing new.
    None,
    /// A connect failed since the last look: the endpoint is ejected, for longer each time.
    Failed,
    /// A connect succeeded: the endpoint is back.
    Returned,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_in_a_row_doubles_the_absence_up_to_ten_seconds() {
        let now = Instant::now();
        let mut connectivity = Connectivity::default();
        let absences: Vec<u128> = (1..=9)
            .map(|failures| {
                assert_eq!(connectivity.update(now, failures, 0.5), Update::Failed);
                (connectivity.until().unwrap() - now).as_millis()
            })
            .collect();
        assert_eq!(
            absences,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
    }

    #[test]
    fn a_success_ends_the_absence_and_the_row() {
        let now = Instant::now();
        let mut connectivity = Connectivity::default();
        connectivity.update(now, 5, 0.5);
        assert_eq!(connectivity.update(now, 0, 0.5), Update::Returned);
        assert!(!connectivity.is_ejected());
        connectivity.update(now, 1, 0.5);
        assert_eq!(connectivity.until(), Some(now + BASE));
    }

    #[test]
    fn the_absence_ends_by_itself_and_the_row_goes_on() {
        let now = Instant::now();
        let mut connectivity = Connectivity::default();
        connectivity.update(now, 1, 0.5);
        assert!(!connectivity.expire(now));
        assert!(connectivity.expire(now + BASE));
        assert!(!connectivity.is_ejected());
        connectivity.update(now, 2, 0.5);
        assert_eq!(connectivity.until(), Some(now + 2 * BASE));
    }
}
