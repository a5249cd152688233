//! How long answers take: what tells a late one from a slow one.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Four buckets an octave: a quantile is off by less than a fifth.
const STEPS: u32 = 4;
/// From 1 us to an hour and more.
const BUCKETS: usize = 32 * STEPS as usize;
/// How often the quantile is told anew, and how fast the past fades: by half with each.
const ROLL: Duration = Duration::from_secs(5);
/// Too few answers tell no quantile. With fewer, a single slow one *is* the 99th percentile of those seen.
const ENOUGH: u32 = 100;
/// Late is what takes three times as long as 99 of 100 do. Dean and Barroso ("The Tail at Scale", CACM 2013) send a
/// second request after the 95th percentile, for about 5 % of load; this adds less than 1 % where answers are
/// as quick as ever.
pub(super) const LATE: u32 = 3;
/// Never less: what a scheduler, a collector or a retransmission (200 ms at least on Linux, but tail loss probes
/// answer within two round trips) may take anyway on a busy node.
const LATE_AT_LEAST: Duration = Duration::from_millis(20);

/// The latencies of the recent answers of all pods, and from when on an answer is late. Wait-free.
#[derive(Debug)]
pub(super) struct Latencies {
    buckets: [AtomicU32; BUCKETS],
    /// Microseconds since the client's start.
    rolls_at: AtomicU64,
    /// Microseconds; zero while unknown.
    late_after: AtomicU64,
}

impl Latencies {
    pub(super) fn new() -> Self {
        Self {
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            rolls_at: AtomicU64::new(0),
            late_after: AtomicU64::new(0),
        }
    }

    /// An answer, `now` since the client's start.
    #[inline]
    pub(super) fn record(&self, now: Duration, latency: Duration) {
        self.buckets[bucket(latency)].fetch_add(1, Relaxed);
        let (now, due) = (micros(now), self.rolls_at.load(Relaxed));
        if now >= due {
            self.roll(now, due);
        }
    }

    /// From when on a request that is not answered is late; `None` while too little is known.
    #[inline]
    pub(super) fn late_after(&self) -> Option<Duration> {
        match self.late_after.load(Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    #[cold]
    fn roll(&self, now: u64, due: u64) {
        // The first look comes with the first answers, the next after a while; one thread takes it.
        let counts = self.buckets.each_ref().map(|count| count.load(Relaxed));
        let total: u32 = counts.iter().sum();
        let next = now + micros(ROLL);
        if total < ENOUGH
            || self
                .rolls_at
                .compare_exchange(due, next, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let late = (quantile(&counts, total - total / 100) * LATE).max(LATE_AT_LEAST);
        self.late_after.store(micros(late), Relaxed);
        for (bucket, count) in self.buckets.iter().zip(counts) {
            // Answers that are counted meanwhile stay.
            bucket.fetch_sub(count / 2, Relaxed);
        }
    }
}

/// The upper end of the bucket with the answer of this rank.
fn quantile(counts: &[u32; BUCKETS], rank: u32) -> Duration {
    let mut seen = 0;
    let place = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    upper_end(place.unwrap_or(BUCKETS - 1))
}

/// `STEPS` buckets for each doubling, linear within.
#[inline]
fn bucket(latency: Duration) -> usize {
    let micros = micros(latency).max(u64::from(STEPS));
    let octave = micros.ilog2();
    let step = (micros >> (octave - STEPS.ilog2())) as usize - STEPS as usize;
    (((octave - STEPS.ilog2()) * STEPS) as usize + step).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    let (octave, step) = (bucket as u32 / STEPS, bucket as u64 % u64::from(STEPS));
    Duration::from_micros((u64::from(STEPS) + step + 1) << octave)
}

#[inline]
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_bucket_holds_what_is_below_its_end_by_less_than_a_quarter() {
        for micros in (4..100_000).step_by(7).chain([1 << 30, 3_600_000_000]) {
            let latency = Duration::from_micros(micros);
            let end = upper_end(bucket(latency));
            assert!(end > latency, "{latency:?} < {end:?}");
            assert!(end <= latency * 5 / 4, "{latency:?}: {end:?} is too far");
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn late_is_a_multiple_of_what_99_of_100_take() {
        let latencies = Latencies::new();
        let mut now = Duration::ZERO;
        for n in 0..99 {
            now += MS;
            latencies.record(now, MS * (10 + n % 10));
            assert_eq!(latencies.late_after(), None, "after {n}");
        }
        latencies.record(now, MS * 400);
        let late = latencies.late_after().unwrap();
        assert!((MS * 57..=MS * 72).contains(&late), "{late:?}");
    }

    #[test]
    fn slow_services_are_late_later_and_the_past_fades() {
        let latencies = Latencies::new();
        let mut now = Duration::ZERO;
        let mut record = |n, latency: Duration| {
            for _ in 0..n {
                now += MS * 10;
                latencies.record(now, latency);
            }
            latencies.late_after().unwrap()
        };
        assert!(record(200, MS * 2_000) >= MS * 6_000);
        assert_eq!(record(20_000, MS), LATE_AT_LEAST);
    }
}
