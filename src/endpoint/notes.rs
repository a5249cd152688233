//! Callers who give up: whether that says that the pod hangs.
//!
//! It does when they have waited for long, and how long is known where requests are timed. Policies that do not go by time
//! read no clock; for them requests note when they are sent from the moment on in which a caller gave up at this endpoint.

use std::{
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::{
    baseline::{Baseline, seconds, stamps},
    stamped::between,
};

/// What a caller waited for before it gave up counts as a failure from here on, unless requests usually take longer: an outer
/// timeout looks like this.
const GAVE_UP: Duration = Duration::from_secs(1);

/// After a caller gave up on a request of which nobody knows when it was sent, the next ones are noted for so long: a reading of the
/// clock for each. Longer than the longest ejection is by default (5 min), so that the trial after it is noted too.
const NOTES_FOR: Duration = Duration::from_secs(600);

/// Whether a caller who gives up after that means the pod.
pub(super) fn is_too_long(baseline: &Baseline, waited: Duration) -> bool {
    // Not by this pod's estimate: that of one that hangs is a penalty, longer than any timeout.
    waited >= GAVE_UP && seconds(waited) >= baseline.usual()
}

/// The stamp of the moment when a caller first gave up on a request of which nobody knows when it was sent; 0 if
/// that was long ago. Whoever begins a request while it is not 0 notes when.
#[derive(Debug, Default)]
pub(super) struct Notes(AtomicU32);

impl Notes {
    /// Whether requests note when they are sent, though no latency is learned from them.
    #[inline]
    pub(super) fn are_taken(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// The same, when the clock has been read for it.
    pub(super) fn are_taken_at(&self, stamp: u32) -> bool {
        let since = self.0.load(Relaxed);
        if since == 0 || stamps(between(since, stamp)) < NOTES_FOR {
            return since != 0;
        }
        // Another has begun anew, or it is over.
        self.0.compare_exchange(since, 0, Relaxed, Relaxed).is_err()
    }

    /// The caller of a request that has no note waits no more. From now on the others take notes. How long it was under way
    /// at least: since they began to, for it is older.
    pub(super) fn give_up(&self, stamp: u32) -> Duration {
        let first = (self.0).compare_exchange(0, stamp.max(1), Relaxed, Relaxed);
        stamps(first.map_or_else(|since| between(since, stamp), |_| 0))
    }
}
