//! How long to wait: jitter, exponential back-off. Pure functions of a random number in `0.0..1.0`.

use std::time::Duration;

/// Longer than any process lives: durations of settings end here, so that adding one to a time cannot
/// overflow.
pub(crate) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The delay before try number `failures + 1`: uniform over `0..min(base * 2^(failures - 1), cap)`.
///
/// "Full jitter" (Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015): clients that
/// failed together do not come back together.
pub(crate) fn full_jitter(base: Duration, cap: Duration, failures: u32, random: f64) -> Duration {
    exponential(base, cap, failures).mul_f64(random)
}

/// `min(base * 2^(failures - 1), cap)`, never overflowing; zero before the first failure.
pub(crate) fn exponential(base: Duration, cap: Duration, failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else {
        return Duration::ZERO;
    };
    2u32.checked_pow(doublings)
        .and_then(|factor| base.checked_mul(factor))
        .map_or(cap, |delay| delay.min(cap))
}

/// `delay` scaled by a factor drawn uniformly from `low..high`.
pub(crate) fn spread(delay: Duration, low: f64, high: f64, random: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * (low + (high - low) * random))
        .unwrap_or(delay)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(500);
    const CAP: Duration = Duration::from_secs(10);

    #[test]
    fn the_delay_doubles_up_to_the_cap() {
        let delays: Vec<u64> = (0..8)
            .map(|n| exponential(BASE, CAP, n).as_millis() as u64)
            .collect();
        assert_eq!(delays, [0, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(exponential(BASE, CAP, u32::MAX), CAP);
    }

    #[test]
    fn jitter_stays_in_its_range() {
        assert_eq!(full_jitter(BASE, CAP, 3, 0.0), Duration::ZERO);
        assert_eq!(full_jitter(BASE, CAP, 3, 0.5), Duration::from_secs(1));
        assert_eq!(spread(CAP, 0.85, 1.15, 0.0), Duration::from_millis(8500));
        assert_eq!(spread(CAP, 0.85, 1.15, 1.0), Duration::from_millis(11_500));
    }
}
