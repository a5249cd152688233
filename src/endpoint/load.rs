//! What requests leave on their endpoint: how many are in flight, how long they took, how they ended.
//!
//! Every cell is written with one atomic operation and without a loop, so requests never wait for each other. A
//! success that loses a race drops its sample; a failure never does.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use super::{
    baseline::{Baseline, seconds},
    caution::Trial,
    decay,
    notes::{Notes, is_too_long},
    stamped::{Seen, Stamped},
};
use crate::{
    eject::Connects,
    outcome::{Cause, Failure},
};

/// Time constant of the smooth estimate. In simulations 1, 2 and 5 s do the same; 10 s lets a pod return late.
const SMOOTH_TAU: f32 = 2.0;

/// Time constant of the peak estimate: Finagle's, tower's and Linkerd's default.
const PEAK_TAU: f32 = 10.0;

/// What an endpoint is taken for by the peak estimate before its first answer. tower's 1 s starves a pod of
/// 12 ms for 44 s; Linkerd takes 30 ms.
const PEAK_SEED: f32 = 0.030;

/// A failure counts as at least so slow, however quick it was: without that, a pod that fails fast looks like
/// the best of all. The smooth estimate forgets it sooner than the peak one, whose penalty is Linkerd's.
const SMOOTH_PENALTY: f32 = 1.0;
const PEAK_PENALTY: f32 = 5.0;

/// ... and as so many times the mean: with 1 s of work a penalty of 1 s would be none.
const PENALTY_MEANS: f32 = 20.0;

/// The most that a pod may ask to be left alone for.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The cells that requests write: on a cache line pair of their own, for readers of the address must not
/// wait for them, and all within the first line.
#[repr(align(128))]
#[derive(Debug, Default)]
pub(super) struct Load {
    /// Requests in flight. Written by [`InFlight`](super::InFlight); read by policies.
    pub(super) pending: AtomicU32,
    /// Failures in a row.
    streak: AtomicU32,
    /// Seconds, smoothed, and when: for `Adaptive`.
    smooth: Stamped,
    /// Seconds, with peaks taken at once, and when: for `PeakEwma`.
    peak: Stamped,
    /// Picks, fading over 1 s, and when.
    sends: Stamped,
    /// All there were, modulo 2^32.
    succeeded: AtomicU32,
    failed: AtomicU32,
    /// Why the last one failed; 0 if none did.
    cause: AtomicU32,
    /// Connect failures in a row. Written on the request path; read by the driver, which alone decides
    /// what follows.
    refusals: AtomicU32,
    /// How often a success ended such a row. The same writers and reader.
    recoveries: AtomicU32,
    pub(super) notes: Notes,
    /// Beside the count that each request writes, so that looking whether there is one costs nothing.
    pub(super) trial: Trial,
    /// Whether the driver waits for a connect that succeeds. Set by the driver before anybody dials;
    /// cleared by that connect, or by the driver that waits no longer.
    pub(super) warming: AtomicBool,
}

impl Load {
    // ===== what policies read =====

    /// The latency to expect, in seconds: what was measured, fading to the mean of all endpoints. Not to
    /// zero, for then the endpoint that was measured least would look best.
    #[inline]
    pub(super) fn expected(&self, baseline: &Baseline, stamp: u32) -> f32 {
        self.expected_beside(baseline.usual(), stamp)
    }

    /// The same, with the mean at hand.
    #[inline]
    pub(super) fn expected_beside(&self, mean: f32, stamp: u32) -> f32 {
        let seen = self.smooth.load();
        match seen.value() {
            Some(smooth) => mean + (smooth - mean) * decay::two_seconds(seen.age(stamp)),
            None => mean,
        }
    }

    /// The peak latency, fading to next to nothing: times the requests in flight it still tells endpoints apart.
    #[inline]
    pub(super) fn peak(&self, stamp: u32) -> f32 {
        let seen = self.peak.load();
        match seen.value() {
            Some(peak) => (peak * decay::exact(seen.age(stamp), PEAK_TAU)).max(f32::MIN_POSITIVE),
            None => PEAK_SEED,
        }
    }

    /// How many picks a second it gets.
    #[inline]
    pub(super) fn sends(&self, stamp: u32) -> f32 {
        let seen = self.sends.load();
        seen.value().unwrap_or(0.0) * decay::one_second(seen.age(stamp))
    }

    /// Counts a pick. Two at the same moment may count as one.
    #[inline]
    pub(super) fn sent(&self, stamp: u32) {
        let seen = self.sends.load();
        let before = seen.value().unwrap_or(0.0) * decay::exact(seen.age(stamp), 1.0);
        self.sends.store(before + 1.0, stamp);
    }

    #[inline]
    pub(super) fn streak(&self) -> u32 {
        self.streak.load(Relaxed)
    }

    pub(super) fn succeeded(&self) -> u32 {
        self.succeeded.load(Relaxed)
    }

    pub(super) fn failed(&self) -> u32 {
        self.failed.load(Relaxed)
    }

    pub(super) fn cause(&self) -> Option<Cause> {
        Cause::from_bits(self.cause.load(Relaxed))
    }

    // ===== what requests write =====

    /// A request succeeded. `phase` numbers the first success.
    #[inline]
    pub(super) fn succeed(&self, baseline: &Baseline, phase: u32, timing: Option<Timing>) {
        let before = self.succeeded.fetch_add(1, Relaxed);
        if let Some(Timing { latency, stamp }) = timing {
            let latency = seconds(latency);
            baseline.learn(before.wrapping_add(phase), latency);
            self.sample(latency, stamp);
        }
        // Read first: the line need not be written for what is known.
        if self.streak() != 0 {
            self.forget_streak();
        }
    }

    /// The row of failures ends: with a success, or because the driver wants to look anew.
    pub(super) fn forget_streak(&self) {
        self.streak.store(0, Relaxed);
    }

    /// A request failed; how many have in a row.
    #[cold]
    pub(super) fn fail(
        &self,
        baseline: &Baseline,
        failure: Failure,
        timing: Option<Timing>,
    ) -> u32 {
        self.failed.fetch_add(1, Relaxed);
        self.cause.store(failure.cause().to_bits(), Relaxed);
        if let Some(Timing { latency, stamp }) = timing {
            let pause = failure.pause().unwrap_or_default().min(LONGEST_PAUSE);
            let least = (baseline.usual() * PENALTY_MEANS).max(seconds(pause.max(latency)));
            let at_least = |penalty: f32| least.max(penalty);
            let (seen, x) = (self.smooth.load(), at_least(SMOOTH_PENALTY));
            self.smooth.store(smoothed(seen, x, stamp).max(x), stamp);
            let (seen, x) = (self.peak.load(), at_least(PEAK_PENALTY));
            self.peak.store(peaked(seen, x, stamp), stamp);
        }
        self.streak.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// The caller waits no more; whether that says that the pod failed.
    pub(super) fn give_up(&self, baseline: &Baseline, timing: Timing) -> bool {
        if is_too_long(baseline, timing.latency) {
            return true;
        }
        self.outlast(baseline, timing);
        false
    }

    /// A request is waited for no more. It would have taken longer still.
    pub(super) fn outlast(&self, baseline: &Baseline, Timing { latency, stamp }: Timing) {
        if seconds(latency) >= self.expected(baseline, stamp) {
            self.sample(seconds(latency), stamp);
        }
    }

    /// A connect failed.
    pub(super) fn connect_failed(&self, cause: Cause) {
        self.cause.store(cause.to_bits(), Relaxed);
        self.refusals.fetch_add(1, Relaxed);
    }

    /// A connect succeeded; true if that is news for the driver: it ends a row of failures, or is what
    /// a warming endpoint waits for. Reads before it writes, so that healthy endpoints share the line.
    pub(super) fn connected(&self) -> bool {
        let ends = self.refusals.load(Relaxed) != 0 && self.refusals.swap(0, Relaxed) != 0;
        if ends {
            self.recoveries.fetch_add(1, Relaxed);
        }
        let warms = self.warming.load(Relaxed) && self.warming.swap(false, Relaxed);
        ends || warms
    }

    #[inline]
    pub(super) fn connects(&self) -> Connects {
        let failures = self.refusals.load(Relaxed);
        Connects {
            failures,
            recoveries: self.recoveries.load(Relaxed),
        }
    }

    #[inline]
    fn sample(&self, latency: f32, stamp: u32) {
        let seen = self.smooth.load();
        if seen.is_newer(stamp) {
            // It was told late, and weighs nothing any more. The cell must not look older for it.
            return;
        }
        self.smooth
            .replace(seen, smoothed(seen, latency, stamp), stamp);
        let seen = self.peak.load();
        self.peak.replace(seen, peaked(seen, latency, stamp), stamp);
    }
}

/// How long a request took, and when it ended.
#[derive(Clone, Copy)]
pub(super) struct Timing {
    pub(super) latency: Duration,
    pub(super) stamp: u32,
}

/// A plain moving average over time. In simulations no rule for peaks did better.
#[inline]
fn smoothed(seen: Seen, x: f32, stamp: u32) -> f32 {
    match seen.value() {
        None => x,
        Some(before) => {
            let w = decay::exact(seen.age(stamp), SMOOTH_TAU);
            before * w + x * (1.0 - w)
        }
    }
}

/// A moving average that takes what is slower at once (Finagle's `PeakEwma`).
#[inline]
fn peaked(seen: Seen, x: f32, stamp: u32) -> f32 {
    match seen.value() {
        None => x,
        Some(before) => {
            let w = decay::exact(seen.age(stamp), PEAK_TAU);
            if x > before * w {
                x
            } else {
                before * w + x * (1.0 - w)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Stamps of a second.
    const SECOND: u32 = 7629;

    fn baseline() -> Baseline {
        Baseline::new(Instant::now())
    }

    fn took(millis: u64, stamp: u32) -> Option<Timing> {
        Some(Timing {
            latency: Duration::from_millis(millis),
            stamp,
        })
    }

    fn near(is: f32, expected: f32) {
        assert!(
            (is - expected).abs() <= expected.abs() * 1e-3,
            "{is}, not {expected}"
        );
    }

    #[test]
    fn what_is_not_known_costs_the_mean_and_what_is_fades_to_it() {
        let (load, baseline) = (Load::default(), baseline());
        near(load.expected(&baseline, 0), 0.001);
        load.succeed(&baseline, 1, took(10, SECOND));
        let other = Load::default();
        near(other.expected(&baseline, SECOND), 0.010);
        // 50 ms beside a mean of 10: 10 + 40 e^-1 after 2 s.
        other.succeed(&baseline, 1, took(50, SECOND));
        near(other.expected(&baseline, SECOND), 0.050);
        let later = other.expected(&baseline, 3 * SECOND);
        assert!((later - 0.0247).abs() < 0.0004, "{later}");
        near(other.expected(&baseline, 30 * SECOND), 0.010);
    }

    #[test]
    fn the_smooth_estimate_takes_part_of_a_sample_and_the_peak_all_of_a_slower_one() {
        let (load, baseline) = (Load::default(), baseline());
        load.succeed(&baseline, 1, took(10, SECOND));
        load.succeed(&baseline, 1, took(110, 3 * SECOND));
        // w = e^-1: 10 * 0.3679 + 110 * 0.6321.
        near(load.expected(&baseline, 3 * SECOND), 0.07321);
        near(load.peak(3 * SECOND), 0.110);
        // w = e^-1 over 10 s: 110 * 0.3679 + 10 * 0.6321.
        load.succeed(&baseline, 1, took(10, 13 * SECOND));
        near(load.peak(13 * SECOND), 0.04679);
        near(load.peak(23 * SECOND), 0.04679 * 0.36788);
    }

    #[test]
    fn a_peak_that_was_never_measured_is_30_ms() {
        near(Load::default().peak(5 * SECOND), 0.030);
    }

    #[test]
    fn a_peak_that_has_faded_for_an_hour_is_still_more_than_nothing() {
        let (load, baseline) = (Load::default(), baseline());
        load.succeed(&baseline, 1, took(10, SECOND));
        // Times the requests in flight it must make a difference.
        let peak = load.peak(3_600 * SECOND);
        assert!(peak < 1e-9 && 2.0 * peak > peak, "{peak:e}");
    }

    #[test]
    fn a_quick_failure_counts_as_a_slow_answer_by_whichever_measure_is_the_slowest() {
        let of = |mean: u64, failure: Failure, millis: u64| {
            let (load, baseline) = (Load::default(), baseline());
            Load::default().succeed(&baseline, 1, took(mean, SECOND));
            assert_eq!(load.fail(&baseline, failure, took(millis, SECOND)), 1);
            (load.expected(&baseline, SECOND), load.peak(SECOND))
        };
        let failed = Failure::of(Cause::Status(500));
        let pairs = [
            (of(10, failed, 1), (1.0, 5.0)),
            (of(10, failed, 3_000), (3.0, 5.0)),
            (of(1_000, failed, 1), (20.0, 20.0)),
            (
                of(10, failed.retry_after(Duration::from_secs(60)), 1),
                (60.0, 60.0),
            ),
            (of(10, failed.retry_after(Duration::MAX), 1), (300.0, 300.0)),
        ];
        for ((smooth, peak), (expected_smooth, expected_peak)) in pairs {
            near(smooth, expected_smooth);
            near(peak, expected_peak);
        }
    }

    #[test]
    fn a_penalty_below_the_estimate_pulls_it_as_any_sample_does() {
        let (load, baseline) = (Load::default(), baseline());
        load.succeed(&baseline, 1, took(10, SECOND));
        let pause = Failure::of(Cause::Other).retry_after(Duration::from_secs(100));
        load.fail(&baseline, pause, took(1, SECOND));
        load.fail(&baseline, Failure::of(Cause::Other), took(1, 3 * SECOND));
        // 100 * e^-1 + 1 * (1 - e^-1).
        near(load.expected(&baseline, 3 * SECOND), 37.42);
    }

    #[test]
    fn a_row_of_failures_ends_with_a_success() {
        let (load, baseline) = (Load::default(), baseline());
        let failure = Failure::of(Cause::Reset);
        let row: Vec<u32> = (0..3)
            .map(|_| load.fail(&baseline, failure, None))
            .collect();
        assert_eq!((row, load.streak()), (vec![1, 2, 3], 3));
        assert_eq!(load.cause(), Some(Cause::Reset));
        (0..2).for_each(|_| load.succeed(&baseline, 1, None));
        assert_eq!((load.streak(), load.succeeded(), load.failed()), (0, 2, 3));
    }

    #[test]
    fn sends_fade_over_a_second() {
        let load = Load::default();
        (0..10).for_each(|_| load.sent(SECOND));
        near(load.sends(SECOND), 10.0);
        load.sent(2 * SECOND);
        near(load.sends(2 * SECOND), 10.0 * 0.36788 + 1.0);
        assert_eq!(load.sends(60 * SECOND), 0.0);
    }

    #[test]
    fn giving_up_early_says_nothing_late_is_a_sample_and_after_a_second_a_failure() {
        let (load, baseline) = (Load::default(), baseline());
        load.succeed(&baseline, 1, took(100, SECOND));
        let give_up = |millis| load.give_up(&baseline, took(millis, SECOND).unwrap());
        assert!(!give_up(99));
        near(load.expected(&baseline, SECOND), 0.100);
        let later = took(500, 3 * SECOND).unwrap();
        assert!(!load.give_up(&baseline, later));
        near(
            load.expected(&baseline, 3 * SECOND),
            0.100 * 0.36788 + 0.500 * 0.63212,
        );
        assert!(give_up(1_000));
    }

    #[test]
    fn who_gives_up_on_a_slow_service_sooner_than_it_usually_takes_says_nothing() {
        let (load, baseline) = (Load::default(), baseline());
        load.succeed(&baseline, 1, took(5_000, SECOND));
        let give_up = |millis| load.give_up(&baseline, took(millis, SECOND).unwrap());
        assert!(!give_up(2_000) && !give_up(4_999));
        near(load.expected(&baseline, SECOND), 5.0);
        assert!(give_up(5_001), "an outer timeout");
        // What is slow because it failed is not what requests usually take.
        let quick = Baseline::new(Instant::now());
        load.fail(&quick, Failure::of(Cause::GaveUp), took(3_000, SECOND));
        assert!(load.give_up(&quick, took(2_000, SECOND).unwrap()));
    }

    #[test]
    fn what_was_left_alone_for_days_is_old_and_learns_again() {
        const DAY: u32 = 24 * 3600 * SECOND;
        for days in [1, 3, 4, 5, 6] {
            let (load, baseline) = (Load::default(), baseline());
            Load::default().succeed(&baseline, 1, took(10, SECOND));
            load.fail(&baseline, Failure::of(Cause::Reset), took(1, SECOND));
            load.sent(SECOND);
            let now = SECOND.wrapping_add(days * DAY);
            near(load.expected(&baseline, now), 0.010);
            assert_eq!(load.sends(now), 0.0, "{days} days");
            assert!(load.peak(now) < 1e-9, "{days} days");
            load.succeed(&baseline, 1, took(40, now));
            near(load.expected(&baseline, now), 0.040);
            near(load.peak(now), 0.040);
        }
    }

    #[test]
    fn a_reader_with_an_older_clock_reading_sees_the_cell_as_fresh() {
        let (load, baseline) = (Load::default(), baseline());
        load.succeed(&baseline, 1, took(50, SECOND));
        near(load.peak(SECOND - 1), 0.050);
        // The stamps went around once since.
        near(load.peak(SECOND.wrapping_sub(1)), 0.050);
    }
}
