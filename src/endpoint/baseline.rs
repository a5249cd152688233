//! What the endpoints of one service have in common.

use std::{
    sync::atomic::{
        AtomicBool, AtomicU32,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

/// How much one sample moves the mean. Together with [`EVERY`]: a memory of some 100 successes.
const WEIGHT: f32 = 0.08;

/// One success in so many moves the mean: its cell is shared by all requests of the client, and a shared
/// write costs them more than the sum.
const EVERY: u32 = 8;

/// The latency against which endpoints are compared before anything is known: only ratios count, so any
/// will do.
pub(super) const UNKNOWN_MEAN: f32 = 1e-3;

/// A stamp is 2 to the power of so many nanoseconds.
const STAMP_BITS: u32 = 17;

/// What the endpoints of one service have in common: where their stamps begin, how long requests take on
/// average, and the bell that wakes the driver.
#[derive(Debug)]
pub(crate) struct Baseline {
    zero: Instant,
    /// So many failures in a row are news for the driver; never, if nobody ejects for that.
    consecutive: AtomicU32,
    mean: Mean,
    rung: AtomicBool,
    bell: Notify,
}

/// Apart from what is only read.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Mean(AtomicU32);

impl Baseline {
    /// `zero` comes before any other moment that will be told.
    pub(crate) fn new(zero: Instant) -> Self {
        Self {
            zero,
            consecutive: AtomicU32::new(u32::MAX),
            mean: Mean::default(),
            rung: AtomicBool::new(false),
            bell: Notify::new(),
        }
    }

    /// After so many failures in a row the driver is to look.
    pub(crate) fn set_consecutive(&self, failures: u32) {
        self.consecutive.store(failures.max(1), Relaxed);
    }

    pub(super) fn consecutive(&self) -> u32 {
        self.consecutive.load(Relaxed)
    }

    /// The time since zero, in stamps of 2^17 ns: 0.131 ms, and around again after 6.5 days.
    #[inline]
    pub(super) fn stamp(&self, now: Instant) -> u32 {
        (now.saturating_duration_since(self.zero).as_nanos() as u64 >> STAMP_BITS) as u32
    }

    /// The mean latency of recent successes, in seconds.
    #[inline]
    pub(super) fn mean(&self) -> Option<f32> {
        match f32::from_bits(self.mean.0.load(Relaxed)) {
            0.0 => None,
            mean => Some(mean),
        }
    }

    /// The mean, or what stands for it before the first success.
    #[inline]
    pub(super) fn usual(&self) -> f32 {
        self.mean().unwrap_or(UNKNOWN_MEAN)
    }

    /// A success. `count` numbers those of its endpoint, from wherever it began.
    #[inline]
    pub(super) fn learn(&self, count: u32, latency: f32) {
        match self.mean() {
            None => self.mean.0.store(latency.to_bits(), Relaxed),
            Some(mean) if count.is_multiple_of(EVERY) => {
                let moved = mean + WEIGHT * (latency - mean);
                self.mean.0.store(moved.to_bits(), Relaxed);
            }
            Some(_) => {}
        }
    }

    /// Something happened that the driver should look at.
    #[cold]
    pub(crate) fn alarm(&self) {
        self.rung.store(true, Release);
        self.bell.notify_one();
    }

    /// Whether anything happened since the last call.
    pub(crate) fn take_alarm(&self) -> bool {
        self.rung.load(Relaxed) && self.rung.swap(false, Acquire)
    }

    /// Completes when something has happened.
    pub(crate) fn alarmed(&self) -> Notified<'_> {
        self.bell.notified()
    }
}

/// So many stamps as a time.
pub(super) fn stamps(count: u32) -> Duration {
    Duration::from_nanos(u64::from(count) << STAMP_BITS)
}

pub(super) fn seconds(time: Duration) -> f32 {
    // Never 0, which stands for "unknown".
    time.as_secs_f32().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_success_sets_the_mean_and_one_in_eight_moves_it() {
        let baseline = Baseline::new(Instant::now());
        assert_eq!((baseline.mean(), baseline.usual()), (None, UNKNOWN_MEAN));
        baseline.learn(3, 0.010);
        assert_eq!(baseline.mean(), Some(0.010));
        (1..8).for_each(|count| baseline.learn(count, 0.020));
        assert_eq!(baseline.mean(), Some(0.010));
        baseline.learn(8, 0.020);
        let mean = baseline.mean().unwrap();
        assert!((mean - 0.0108).abs() < 1e-6, "10 ms + 0.08 * 10 ms: {mean}");
    }

    #[test]
    fn a_stamp_is_an_eighth_of_a_millisecond() {
        let zero = Instant::now();
        let baseline = Baseline::new(zero);
        let at = |nanos| baseline.stamp(zero + Duration::from_nanos(nanos));
        assert_eq!((at(0), at((1 << 17) - 1), at(1 << 17)), (0, 0, 1));
        assert_eq!(at(1_000_000_000), 7629);
        assert_eq!(at(1 << 49), 0, "around after 6.5 days");
    }
}
