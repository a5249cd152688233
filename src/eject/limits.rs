//! What opinion may not do, whatever it finds.

/// Below this share of available pods, opinion is ignored (Envoy's `healthy_panic_threshold`): when half of the pods look bad, the cause is elsewhere, and the rest could not carry the load.
const PANIC_PERCENT: usize = 50;

/// How the endpoints of a set stand, at the moment when one of them is to be ejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowd {
    /// All but those that nothing may pick.
    pub(crate) total: usize,
    /// Those that take requests: not set aside for any reason.
    pub(crate) available: usize,
    /// Those that opinion has ejected.
    pub(crate) ejected: usize,
}

/// Why one is not ejected that a rule has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unenforced {
    /// No other of its role takes requests, but for those on trial.
    Last,
    /// So many are ejected already.
    Cap,
    /// Fewer than half would take requests.
    Panic,
}

impl Unenforced {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Cap => "cap",
            Self::Panic => "panic",
        }
    }
}

impl Crowd {
    /// Whether one more may be ejected. `takes`: it takes requests now. `others`: so many others of its role do,
    /// those on trial aside.
    ///
    /// gRPC A50 counts the ejected before the ejection, Envoy after it; this is A50 with the bound of grpc-java, so that 10 % of 10 are one. Unlike both, the last one that takes requests stays.
    pub(crate) fn allows(
        &self,
        max_percent: u32,
        takes: bool,
        others: usize,
    ) -> Result<(), Unenforced> {
        if others == 0 {
            return Err(Unenforced::Last);
        }
        if self.ejected > 0 && self.ejected * 100 >= self.total * max_percent as usize {
            return Err(Unenforced::Cap);
        }
        let left = Self {
            available: self.available - usize::from(takes),
            ..*self
        };
        if left.is_panic() {
            return Err(Unenforced::Panic);
        }
        Ok(())
    }

    /// Whether so few are left that opinion must not count.
    pub(crate) fn is_panic(&self) -> bool {
        self.available * 100 < self.total * PANIC_PERCENT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `n` pods that all fail are ejected, and what keeps the next one.
    fn ejects(n: usize, max_percent: u32, refusing: usize) -> (usize, Unenforced) {
        let mut crowd = Crowd {
            total: n,
            available: n - refusing,
            ejected: 0,
        };
        loop {
            let others = crowd.available.saturating_sub(1);
            match crowd.allows(max_percent, true, others) {
                Ok(()) => {
                    crowd.ejected += 1;
                    crowd.available -= 1;
                }
                Err(why) => return (crowd.ejected, why),
            }
        }
    }

    #[test]
    fn at_most_a_tenth_rounded_up_is_ejected_and_never_the_last() {
        use Unenforced::{Cap, Last};
        let table = [
            (1, 0, Last),
            (2, 1, Last),
            (3, 1, Cap),
            (5, 1, Cap),
            (10, 1, Cap),
            (11, 2, Cap),
            (20, 2, Cap),
            (21, 3, Cap),
            (100, 10, Cap),
        ];
        for (n, count, why) in table {
            assert_eq!(ejects(n, 10, 0), (count, why), "of {n}");
        }
    }

    #[test]
    fn with_another_cap_half_of_them_remain() {
        use Unenforced::{Cap, Last, Panic};
        let table = [
            (1, 100, 0, Last),
            (2, 100, 1, Last),
            (3, 100, 1, Panic),
            (5, 100, 2, Panic),
            (10, 100, 5, Panic),
            (11, 100, 5, Panic),
            (20, 100, 10, Panic),
            (20, 0, 1, Cap),
            (20, 50, 10, Cap),
        ];
        for (n, percent, count, why) in table {
            assert_eq!(ejects(n, percent, 0), (count, why), "of {n} with {percent}");
        }
    }

    #[test]
    fn those_that_refuse_connections_count_as_missing_and_not_in_the_cap() {
        use Unenforced::{Cap, Last, Panic};
        let table = [
            (20, 9, 1, Panic),
            (20, 10, 0, Panic),
            (20, 8, 2, Cap),
            (3, 1, 0, Panic),
            (3, 2, 0, Last),
            (2, 1, 0, Last),
        ];
        for (n, refusing, count, why) in table {
            assert_eq!(ejects(n, 10, refusing), (count, why), "{refusing} of {n}");
        }
    }

    #[test]
    fn one_that_refuses_anyway_may_be_ejected_as_well() {
        let crowd = Crowd {
            total: 2,
            available: 1,
            ejected: 0,
        };
        assert_eq!(crowd.allows(10, false, 1), Ok(()));
        assert_eq!(crowd.allows(10, true, 0), Err(Unenforced::Last));
    }
}
