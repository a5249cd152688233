//! Counts of picks, where threads do not wait for each other.
//!
//! An exporter has one cell for each series. Two threads that add to one cell at once take several times as
//! long as one, and an exporter may do more than add. So each thread adds in a lane of its own, and
//! the driver takes the sums to the exporter.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Picked;
use crate::draw::thread_lane;

/// One for each thread up to 16; beyond that, threads share. As `RoundRobin` has them.
const LANES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Lanes([Lane; LANES]);

/// Two cache lines: the prefetcher of common processors fetches them in pairs.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Lane([AtomicU64; Picked::COUNT]);

impl Lanes {
    #[inline]
    pub(super) fn add(&self, kind: Picked) {
        self.0[thread_lane(LANES)].0[kind as usize].fetch_add(1, Relaxed);
    }

    /// What was added since the last time.
    pub(super) fn take(&self) -> [u64; Picked::COUNT] {
        let mut sums = [0; Picked::COUNT];
        for lane in &self.0 {
            for (sum, cell) in sums.iter_mut().zip(&lane.0) {
                // Most are zero, and a line that is only read need not leave the thread that writes it.
                if cell.load(Relaxed) > 0 {
                    *sum += cell.swap(0, Relaxed);
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_of_many_threads_are_taken_once_each() {
        let lanes = Lanes::default();
        let taken: u64 = std::thread::scope(|scope| {
            let add = || {
                (0..1_000).for_each(|_| lanes.add(Picked::Panic));
            };
            let adding: Vec<_> = (0..4).map(|_| scope.spawn(add)).collect();
            let mut taken = 0;
            while adding.iter().any(|thread| !thread.is_finished()) {
                taken += lanes.take()[Picked::Panic as usize];
            }
            taken
        });
        let rest = lanes.take();
        assert_eq!(taken + rest[Picked::Panic as usize], 4_000);
        assert_eq!(rest[Picked::Unknown as usize], 0);
        assert_eq!(lanes.take(), [0; Picked::COUNT]);
    }
}
