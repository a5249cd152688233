//! Times that can be trusted on a machine that does other things too.
//!
//! A batch of picks takes a fraction of a millisecond, and counts only if the thread was not
//! preempted in it: if its wall time is within 5 % of its CPU time. Of two threads, a pair of batches
//! counts only if they ran at the same time for most of it.

#![expect(clippy::disallowed_types, reason = "real time is what is measured")]

use std::{
    fmt,
    hint::spin_loop,
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

const BATCH: Duration = Duration::from_micros(500);
const BATCHES: usize = 150;
/// Pairs of batches: more, as fewer are kept.
const PAIRS: usize = 300;
/// Enough for a median.
const ENOUGH: usize = 60;
const MOST_PREEMPTION: f64 = 1.05;
const LEAST_OVERLAP: f64 = 0.7;
/// How often a thread looks whether the other one is there, before it starts without.
const SPINS: u32 = 100_000;

/// A median, and what it is worth.
pub(crate) struct Figure {
    /// Nanoseconds per pick; `None` if no batch was kept.
    pub(crate) median: Option<f64>,
    kept: usize,
    made: usize,
}

/// Time per pick on one thread.
pub(crate) fn alone(pick: &impl Fn()) -> Figure {
    let times = calibrate(pick);
    let (mut kept, mut made) = (Vec::new(), 0);
    while made < BATCHES && kept.len() < ENOUGH {
        let batch = Batch::run(pick, times);
        made += 1;
        if batch.is_unpreempted() {
            kept.push(batch.nanoseconds(times));
        }
    }
    Figure::of(kept, made)
}

/// Time per pick on each of two threads that pick at once.
pub(crate) fn together(pick: &(impl Fn() + Sync)) -> Figure {
    let times = calibrate(pick);
    let (barrier, arrived) = (Barrier::new(2), AtomicU32::new(0));
    let walk = || -> Vec<Batch> {
        // A thread's first pick draws its seed and its lane.
        pick();
        let pair = |round| {
            barrier.wait();
            // A barrier wakes its threads one after the other, a spin lets go of both at once.
            arrived.fetch_add(1, SeqCst);
            for _ in 0..SPINS {
                if arrived.load(SeqCst) >= 2 * (round + 1) {
                    break;
                }
                spin_loop();
            }
            Batch::run(pick, times)
        };
        (0..PAIRS as u32).map(pair).collect()
    };
    let (mine, other) = thread::scope(|scope| {
        let other = scope.spawn(walk);
        (walk(), other.join().expect("picks do not panic"))
    });
    let kept = mine.iter().zip(&other).filter(|(mine, other)| {
        mine.is_unpreempted() && other.is_unpreempted() && mine.overlap(other) > LEAST_OVERLAP
    });
    let each = kept.map(|(mine, other)| (mine.nanoseconds(times) + other.nanoseconds(times)) / 2.0);
    Figure::of(each.collect(), PAIRS)
}

/// How many picks make a batch.
fn calibrate(pick: &impl Fn()) -> u32 {
    // The first pick may do what later ones need not: `First` ranks all endpoints.
    pick();
    let mut times = 64;
    loop {
        let batch = Batch::run(pick, times);
        if batch.cpu >= BATCH / 8 {
            return (f64::from(times) * BATCH.as_secs_f64() / batch.cpu.as_secs_f64()) as u32;
        }
        times *= 2;
    }
}

struct Batch {
    start: Instant,
    end: Instant,
    cpu: Duration,
}

impl Batch {
    fn run(pick: &impl Fn(), times: u32) -> Self {
        let (start, cpu) = (Instant::now(), thread_time());
        picks(pick, times);
        let (cpu, end) = (thread_time() - cpu, Instant::now());
        Self { start, end, cpu }
    }

    fn is_unpreempted(&self) -> bool {
        (self.end - self.start).as_secs_f64() <= self.cpu.as_secs_f64() * MOST_PREEMPTION
    }

    /// The time that both ran, as a share of the time that one of them did.
    fn overlap(&self, other: &Self) -> f64 {
        let both = self
            .end
            .min(other.end)
            .saturating_duration_since(self.start.max(other.start));
        let one = self.end.max(other.end) - self.start.min(other.start);
        both.as_secs_f64() / one.as_secs_f64()
    }

    fn nanoseconds(&self, times: u32) -> f64 {
        (self.end - self.start).as_secs_f64() * 1e9 / f64::from(times)
    }
}

/// The loop that is measured, and that valgrind counts the instructions of.
#[inline(never)]
pub(crate) fn picks(pick: &impl Fn(), times: u32) {
    for _ in 0..times {
        pick();
    }
}

fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl Figure {
    fn of(mut kept: Vec<f64>, made: usize) -> Self {
        kept.sort_by(f64::total_cmp);
        Self {
            median: kept.get(kept.len() / 2).copied(),
            kept: kept.len(),
            made,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.median {
            Some(median) => write!(f, "{median:.1} ({}/{})", self.kept, self.made),
            None => write!(f, "- (0/{})", self.made),
        }
    }
}
