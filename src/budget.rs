//! How many further tries requests may make, as a share of the requests.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// One try.
const WHOLE: i64 = 1_000;

/// A budget for retries: without one, retries of many clients bring down what was only slow.
///
/// Each request earns a share of a further try, up to a full purse; each further try takes a whole one.
/// So tries exceed requests by that share at most, plus one purse in a storm (Finagle's `RetryBudget`
/// and gRFC A6 limit them so). A full purse is only read: in calm weather requests do not contend
/// for it. The HTTP client has its own; this is for a retry layer of yours.
///
/// ```
/// use headless_lb::Budget;
///
/// let budget = Budget::new(0.2, 1, 100); // a fifth of the requests
/// budget.earn();
/// assert!(budget.take());
/// assert!(!budget.take(), "wait for five more requests");
/// ```
#[derive(Debug)]
pub struct Budget {
    /// Thousandths of a try.
    purse: AtomicI64,
    earned: i64,
    full: i64,
}

impl Budget {
    /// Each request earns the `share` of a try, counted in thousandths; the purse begins with `start` tries, and
    /// is full with `full`.
    pub const fn new(share: f32, start: u32, full: u32) -> Self {
        Self {
            purse: AtomicI64::new(start as i64 * WHOLE),
            earned: (share * WHOLE as f32 + 0.5) as i64,
            full: full as i64 * WHOLE,
        }
    }

    /// A request begins.
    #[inline]
    pub fn earn(&self) {
        if self.purse.load(Relaxed) < self.full {
            self.purse.fetch_add(self.earned, Relaxed);
        }
    }

    /// A further try was not made. A purse that is full again meanwhile stays as it is.
    pub fn give_back(&self) {
        let more = |purse: i64| (purse < self.full).then(|| (purse + WHOLE).min(self.full));
        let _ = self.purse.fetch_update(Relaxed, Relaxed, more);
    }

    /// Takes a further try, if there is one.
    pub fn take(&self) -> bool {
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
        let budget = Budget::new(0.05, 0, 100);
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
        let budget = Budget::new(0.2, 3, 10);
        assert_eq!((0..20).filter(|_| budget.take()).count(), 3);
        (0..10_000).for_each(|_| budget.earn());
        assert_eq!((0..20).filter(|_| budget.take()).count(), 10);
    }

    #[test]
    fn what_is_given_back_to_a_full_purse_is_not_kept() {
        let budget = Budget::new(0.2, 10, 10);
        assert_eq!((0..10).filter(|_| budget.take()).count(), 10);
        // Meanwhile it fills up again.
        (0..50).for_each(|_| budget.earn());
        (0..10).for_each(|_| budget.give_back());
        assert_eq!((0..30).filter(|_| budget.take()).count(), 10);
    }
}
