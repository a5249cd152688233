//! Counters that every request moves, and for which threads do not wait for each other.
//!
//! Two threads that add to one cell take several times as long as one (44 ns against 19, measured). And a locked
//! instruction takes as long as the rest of a round robin pick, also where no other thread wants the cell. So the first
//! threads have a lane each that they alone write, with plain loads and stores; those that come later share lanes.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
};

/// So many threads have a lane of their own, ...
const OWN: usize = 16;

/// ... and so many lanes are there for all others.
const SHARED: usize = 16;

/// `N` counters in each lane.
#[derive(Debug)]
pub(crate) struct Lanes<const N: usize>([Lane<N>; OWN + SHARED]);

/// Two cache lines: the prefetcher of common processors fetches them in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Lane<const N: usize>([AtomicU64; N]);

impl<const N: usize> Lanes<N> {
    /// All counters of each lane begin at a number of its own.
    pub(crate) fn starting(start: impl Fn() -> u64) -> Self {
        let lane = || {
            let start = start();
            Lane([const { AtomicU64::new(0) }; N].map(|_| AtomicU64::new(start)))
        };
        Self(std::array::from_fn(|_| lane()))
    }

    /// Moves a counter of the calling thread's lane by one; where it was.
    #[inline]
    pub(crate) fn count(&self, counter: usize) -> u64 {
        // Without a number there is no lane yet: zero goes around to the largest.
        self.count_as(NEXT.get().wrapping_sub(1), counter)
    }

    #[inline]
    fn count_as(&self, thread: usize, counter: usize) -> u64 {
        let Some(Lane(own)) = self.0[..OWN].get(thread) else {
            return self.count_late(thread, counter);
        };
        // Nobody else writes it.
        let count = own[counter].load(Relaxed);
        own[counter].store(count.wrapping_add(1), Relaxed);
        count
    }

    /// As [`count_as`](Self::count_as), where the thread shares a lane, or counts for the first time.
    #[cold]
    #[inline(never)]
    fn count_late(&self, thread: usize, counter: usize) -> u64 {
        if thread == usize::MAX {
            return self.count_as(number_thread(), counter);
        }
        let Lane(shared) = &self.0[OWN + thread % SHARED];
        shared[counter].fetch_add(1, Relaxed)
    }

    /// What the counter came to in all lanes.
    #[cfg(any(test, feature = "metrics"))]
    pub(crate) fn sum(&self, counter: usize) -> u64 {
        let counts = self.0.iter().map(|lane| lane.0[counter].load(Relaxed));
        counts.fold(0, u64::wrapping_add)
    }
}

thread_local! {
    /// One more than the number of the thread among those that count; 0: it has none yet. A constant initializer keeps the access
    /// a plain load.
    static NEXT: Cell<usize> = const { Cell::new(0) };
}

/// Gives the calling thread a number that no other one has or had.
fn number_thread() -> usize {
    static COUNTING: AtomicUsize = AtomicUsize::new(0);
    let number = COUNTING.fetch_add(1, Relaxed);
    NEXT.set(number + 1);
    number
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn no_count_is_lost_or_told_twice_also_where_threads_share_a_lane() {
        // Two with lanes of their own, and two that share one; enough that they run at the same time for most of it.
        const THREADS: [usize; 4] = [0, OWN - 1, OWN, OWN + SHARED];
        const EACH: usize = 200_000;
        let lanes = Lanes::<2>::starting(|| 0);
        let barrier = Barrier::new(THREADS.len());
        let told: Vec<u64> = thread::scope(|scope| {
            let (lanes, barrier) = (&lanes, &barrier);
            let count = |thread| {
                move || -> Vec<u64> {
                    barrier.wait();
                    (0..EACH).map(|_| lanes.count_as(thread, 1)).collect()
                }
            };
            let counting = THREADS.map(|thread| scope.spawn(count(thread)));
            let told = counting.into_iter().map(|thread| thread.join().unwrap());
            told.flatten().collect()
        });
        assert_eq!(lanes.sum(1), (EACH * THREADS.len()) as u64);
        assert_eq!(lanes.sum(0), 0);
        let mut times = vec![0; 2 * EACH];
        told.iter().for_each(|&number| times[number as usize] += 1);
        assert!(times[..EACH].iter().all(|&times| times == 3));
        assert!(times[EACH..].iter().all(|&times| times == 1));
    }

    #[test]
    fn a_thread_keeps_its_lane_and_its_number_has_no_other() {
        let lanes = Lanes::<1>::starting(|| 0);
        let counted: Vec<u64> = (0..3).map(|_| lanes.count(0)).collect();
        assert_eq!(counted, [0, 1, 2]);
        let mine = NEXT.get();
        let other = thread::spawn(number_thread).join().unwrap();
        assert_ne!(other + 1, mine);
        assert_eq!(NEXT.get(), mine);
    }
}
