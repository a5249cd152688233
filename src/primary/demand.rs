//! What is to be looked at before its time: endpoints by a probe, the name by DNS.

use std::{collections::BTreeMap, mem, time::Duration};

use tokio::time::Instant;

/// Least time between the end of a check and the next one that is asked for. MongoDB's drivers take
/// 500 ms, with a check that costs far more than the 21 us of ours.
pub(super) const APART: Duration = Duration::from_millis(50);

/// Endpoints to probe at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Probes {
    /// Each that is followed.
    All,
    /// Those with these ids, ascending.
    These(Vec<u64>),
}

/// Requests that came since they were last taken, coalesced.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// When all are to be probed.
    all: Option<Instant>,
    /// When single ones are, by id.
    these: BTreeMap<u64, Instant>,
    /// When all were last.
    taken: Option<Instant>,
    refresh: bool,
}

impl Demand {
    pub(super) fn all(&mut self, now: Instant) {
        let earliest = self.taken.map_or(now, |taken| now.max(taken + APART));
        self.all.get_or_insert(earliest);
    }

    /// One endpoint, whose last check ended at `checked`.
    pub(super) fn one(&mut self, now: Instant, id: u64, checked: Option<Instant>) {
        let earliest = checked.map_or(now, |checked| now.max(checked + APART));
        self.these.entry(id).or_insert(earliest);
    }

    pub(super) fn refresh(&mut self) {
        self.refresh = true;
    }

    pub(super) fn forget(&mut self, id: u64) {
        self.these.remove(&id);
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.these.values().copied().chain(self.all).min()
    }

    /// What is due now.
    pub(super) fn take(&mut self, now: Instant) -> Option<Probes> {
        if self.all.is_some_and(|due| due <= now) {
            self.all = None;
            self.these.clear();
            self.taken = Some(now);
            return Some(Probes::All);
        }
        let mut ids = Vec::new();
        self.these.retain(|id, due| {
            let is_due = *due <= now;
            if is_due {
                ids.push(*id);
            }
            !is_due
        });
        (!ids.is_empty()).then_some(Probes::These(ids))
    }

    pub(super) fn take_refresh(&mut self) -> bool {
        mem::take(&mut self.refresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_often_is_done_once_and_not_again_for_fifty_milliseconds() {
        let now = Instant::now();
        let mut demand = Demand::default();
        demand.all(now);
        demand.one(now, 1, None);
        demand.all(now);
        assert_eq!(demand.take(now), Some(Probes::All));
        assert_eq!(demand.take(now), None);
        demand.all(now);
        assert_eq!(
            (demand.take(now), demand.deadline()),
            (None, Some(now + APART))
        );
        assert_eq!(demand.take(now + APART), Some(Probes::All));
    }

    #[test]
    fn one_endpoint_waits_for_its_own_last_check_alone() {
        let now = Instant::now();
        let mut demand = Demand::default();
        demand.one(now, 2, Some(now));
        demand.one(now, 1, None);
        assert_eq!(demand.take(now), Some(Probes::These(vec![1])));
        assert_eq!(demand.deadline(), Some(now + APART));
        assert_eq!(demand.take(now + APART), Some(Probes::These(vec![2])));
        assert_eq!(demand.deadline(), None);
    }
}
