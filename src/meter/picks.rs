//! Counts of picks, where threads do not wait for each other.
//!
//! An exporter has one cell for each series. Two threads that add to one cell at once take several times as
//! long as one, and an exporter may do more than add. So threads add in [lanes](crate::lanes), and
//! the driver takes the sums to the exporter.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use super::Picked;
use crate::lanes::Lanes;

#[derive(Debug)]
pub(super) struct Picks {
    lanes: Lanes<{ Picked::COUNT }>,
    /// So many were taken.
    taken: [AtomicU64; Picked::COUNT],
}

impl Default for Picks {
    fn default() -> Self {
        Self {
            lanes: Lanes::starting(|| 0),
            taken: Default::default(),
        }
    }
}

impl Picks {
    #[inline]
    pub(super) fn add(&self, kind: Picked) {
        self.lanes.count(kind as usize);
    }

    /// What was added since the last time.
    pub(super) fn take(&self) -> [u64; Picked::COUNT] {
        array::from_fn(|kind| {
            let sum = self.lanes.sum(kind);
            // Of two who take at once, the one with the smaller sum gets nothing.
            sum.saturating_sub(self.taken[kind].fetch_max(sum, Relaxed))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_of_many_threads_are_taken_once_each() {
        let picks = Picks::default();
        let taken: u64 = std::thread::scope(|scope| {
            let add = || {
                (0..1_000).for_each(|_| picks.add(Picked::Panic));
            };
            let adding: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            let mut taken = 0;
            while adding.iter().any(|thread| !thread.is_finished()) {
                taken += picks.take()[Picked::Panic as usize];
            }
            taken
        });
        let rest = picks.take();
        assert_eq!(taken + rest[Picked::Panic as usize], 4_000);
        assert_eq!(rest[Picked::Unknown as usize], 0);
        assert_eq!(picks.take(), [0; Picked::COUNT]);
    }
}
