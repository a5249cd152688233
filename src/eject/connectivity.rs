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
    /// Absences in a row, with no success between: the exponent of the back-off.
    row: u32,
    /// The endpoint's counts at the last look.
    seen: Connects,
    absence: Option<Absence>,
}

#[derive(Clone, Copy, Debug)]
struct Absence {
    since: Instant,
    until: Instant,
}

/// An endpoint's live counts: failures since the last success, and successes that ended a row of
/// failures. Both, because a row may end and begin anew between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connects {
    pub(crate) failures: u32,
    pub(crate) recoveries: u32,
}

impl Connectivity {
    /// Compares with the endpoint's live counts.
    ///
    /// Requests that fail together are one failure: what is counted while the endpoint is ejected
    /// neither prolongs the absence nor makes the next one longer.
    pub(crate) fn update(&mut self, now: Instant, connects: Connects, random: f64) -> Update {
        let seen = std::mem::replace(&mut self.seen, connects);
        let recovered = connects.recoveries != seen.recoveries;
        let returned = recovered && self.absence.take().is_some();
        if recovered {
            self.row = 0;
        }
        let failed = connects.failures > if recovered { 0 } else { seen.failures };
        if failed {
            if !self.is_ejected() {
                self.row += 1;
                let absence = exponential(BASE, CAP, self.row);
                self.absence = Some(Absence {
                    since: now,
                    until: now + spread(absence, 0.8, 1.2, random),
                });
            }
            return Update::Failed;
        }
        if returned {
            Update::Returned
        } else {
            Update::None
        }
    }

    /// The absence is over: true if the endpoint returns now.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        let over = self.absence.is_some_and(|absence| absence.until <= now);
        if over {
            self.absence = None;
        }
        over
    }

    #[inline]
    pub(crate) fn is_ejected(&self) -> bool {
        self.absence.is_some()
    }

    #[inline]
    pub(crate) fn until(&self) -> Option<Instant> {
        Some(self.absence?.until)
    }

    /// When the absence began that goes on.
    pub(crate) fn since(&self) -> Option<Instant> {
        Some(self.absence?.since)
    }
}

/// What [`Connectivity::update`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Update {
    /// Nothing new.
    None,
    /// A connect failed since the last look: the endpoint is ejected.
    Failed,
    /// A connect succeeded: the endpoint is back.
    Returned,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connects(failures: u32, recoveries: u32) -> Connects {
        Connects {
            failures,
            recoveries,
        }
    }

    #[test]
    fn each_absence_in_a_row_is_twice_as_long_up_to_ten_seconds() {
        let mut now = Instant::now();
        let mut connectivity = Connectivity::default();
        let absences: Vec<u128> = (1..=9)
            .map(|failures| {
                assert_eq!(
                    connectivity.update(now, connects(failures, 0), 0.5),
                    Update::Failed
                );
                let until = connectivity.until().unwrap();
                let absence = (until - now).as_millis();
                now = until;
                assert!(connectivity.expire(now));
                absence
            })
            .collect();
        assert_eq!(
            absences,
            [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]
        );
    }

    #[test]
    fn requests_that_fail_together_are_one_failure() {
        let now = Instant::now();
        let mut connectivity = Connectivity::default();
        assert_eq!(
            connectivity.update(now, connects(100, 0), 0.5),
            Update::Failed
        );
        assert_eq!(connectivity.until(), Some(now + BASE));
        assert_eq!(
            connectivity.update(now, connects(200, 0), 0.5),
            Update::Failed
        );
        assert_eq!(
            connectivity.until(),
            Some(now + BASE),
            "stragglers do not prolong it"
        );
    }

    #[test]
    fn a_success_ends_the_absence_and_the_row_also_between_two_looks() {
        let now = Instant::now();
        let mut connectivity = Connectivity::default();
        connectivity.update(now, connects(5, 0), 0.5);
        assert_eq!(
            connectivity.update(now, connects(0, 1), 0.5),
            Update::Returned
        );
        assert!(!connectivity.is_ejected());
        connectivity.update(now, connects(1, 1), 0.5);
        assert_eq!(connectivity.until(), Some(now + BASE));
        // Failed, came back, failed: the same number of failures as before.
        assert_eq!(
            connectivity.update(now, connects(1, 2), 0.5),
            Update::Failed
        );
        assert_eq!(connectivity.until(), Some(now + BASE));
    }
}
