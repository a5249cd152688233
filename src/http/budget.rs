//! How many further tries requests may make, as a share of the requests.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// One try.
const WHOLE: i64 = 1_000;

/// Each request earns a share of a further try, up to a full purse; each further try takes a whole one.
/// So tries exceed requests by that share at most, plus one purse in a storm (Finagle's `RetryBudget`
/// and gRFC A6 limit them so). A full purse is only read: in calm weather requests do not contend
/// for it.
#[derive(Debug)]
pub(super) struct Budget {
    /// Thousandths of a try.
    purse: AtomicI64,
    earned: i64,
    full: i64,
}

impl Budget {
    /// `earned` in thousandths of a try for each request; `start` and `full` in tries.
    pub(super) const fn new(earned: i64, start: i64, full: i64) -> Self {
        Self {
            purse: AtomicI64::new(start * WHOLE),
            earned,
            full: full * WHOLE,
        }
    }

    /// A request begins.
    #[inline]
    pub(super) fn earn(&self) {
        if self.purse.load(Relaxed) < self.full {
            self.purse.fetch_add(self.earned, Relaxed);
        }
    }

    /// A further try was not made.
    pub(super) fn give_back(&self) {
        self.purse.fetch_add(WHOLE, Relaxed);
    }

    /// Takes a further try, if there is one.
    pub(super) fn take(&self) -> bool {
        self.purse
            .fetch_update(Relaxed, Relaxed, |purse| {
                (purse >= WHOLE).then(|| purse - WHOLE)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_tries_are_a_share_of_the_requests() {
        let budget = Budget::new(50, 0, 100);
        assert!(!budget.take(), "nothing is earned yet");
        let taken = (0..1_000)
            .filter(|_| {
                budget.earn();
                budget.take()
            })
            .count();
        assert_eq!(taken, 50);
    }

    #[test]
    fn a_purse_is_full_some_time() {
        let budget = Budget::new(200, 3, 10);
        assert_eq!((0..20).filter(|_| budget.take()).count(), 3);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..20).filter(|_| budget.take()).count(), 10);
    }
}
