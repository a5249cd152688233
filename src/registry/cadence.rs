//! When to ask next (R10 to R14 of the resolver requirements).

use std::time::Duration;

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::config::{Config, EmptyMode};
use crate::backoff::{exponential, full_jitter, spread};

/// Base of the back-off after failures.
const FAILURE_BASE: Duration = Duration::from_millis(500);
/// Cap of that back-off, if the refresh interval is shorter. CoreDNS caches a SERVFAIL for 5 s.
const FAILURE_CAP: Duration = Duration::from_secs(10);
/// Least time from the end of a question to a [refresh](Cadence::refresh): a storm of connect
/// failures asks once a second.
const REFRESH_GAP: Duration = Duration::from_secs(1);
/// A burst of pods arrives as many small answers over some ten seconds (measured: 0 to 500 pods in 45
/// steps and 13 s): this long it is followed closely.
const BURST: Duration = Duration::from_secs(15);
/// So many answers with TTL 0 in a row are a server without a cache, not a cached answer that ends.
const CONSTANT_ZEROS: u32 = 3;

/// The schedule of one name.
#[derive(Debug)]
pub(super) struct Cadence {
    rng: SmallRng,
    due: Instant,
    asking: bool,
    /// Something happened while a question was under way: its answer may be older than the event.
    ask_again: bool,
    last_end: Option<Instant>,
    answered: bool,
    zero_ttls: u32,
    empties: u32,
    failures: u32,
    negative: Option<Duration>,
    burst_until: Option<Instant>,
}

/// How an answer with records differs from the set before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// The same endpoints.
    None,
    /// A few of many.
    Small,
    /// From none, or a fifth of the set and more: likely one step of a burst.
    Large,
}

impl Cadence {
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            due: now,
            asking: false,
            ask_again: false,
            last_end: None,
            answered: false,
            zero_ttls: 0,
            empties: 0,
            failures: 0,
            negative: None,
            burst_until: None,
        }
    }

    /// When to ask; `None` while a question is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        (!self.asking).then_some(self.due)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// A question goes out.
    pub(super) fn asked(&mut self) {
        self.asking = true;
        self.ask_again = false;
    }

    /// Somebody has reason to doubt the set: ask soon, once for any number of calls.
    pub(super) fn refresh(&mut self, now: Instant, config: &Config) {
        if self.asking {
            self.ask_again = true;
        } else {
            self.due = self.due.min(self.after_gap(now, config));
        }
    }

    /// Records came, whole or in part.
    pub(super) fn on_records(
        &mut self,
        now: Instant,
        config: &Config,
        ttl: Option<Duration>,
        difference: Difference,
    ) {
        let first = !std::mem::replace(&mut self.answered, true);
        self.empties = 0;
        self.failures = 0;
        self.negative = None;
        self.zero_ttls = if ttl == Some(Duration::ZERO) {
            self.zero_ttls.saturating_add(1)
        } else {
            0
        };
        self.burst_until = match difference {
            Difference::None => None,
            Difference::Small => self.burst_until.filter(|&until| now < until),
            Difference::Large if first => None,
            Difference::Large => self
                .burst_until
                .or(Some(now + BURST))
                .filter(|&until| now < until),
        };
        let delay = if self.burst_until.is_some() {
            config.min_interval
        } else {
            self.interval(config, ttl, first)
        };
        self.schedule(now, config, delay);
    }

    /// The source said that there is nothing. `held`: the set has endpoints and is kept for now.
    pub(super) fn on_empty(
        &mut self,
        now: Instant,
        config: &Config,
        negative_ttl: Option<Duration>,
        held: bool,
    ) {
        self.answered = true;
        self.failures = 0;
        self.zero_ttls = 0;
        self.burst_until = None;
        let counting_down = match (self.negative, negative_ttl) {
            (Some(before), Some(left)) => left < before,
            _ => false,
        };
        self.negative = negative_ttl;
        let delay = if held {
            self.empties = 0;
            confirmation_interval(config)
        } else {
            self.empties = self.empties.saturating_add(1);
            exponential(config.min_interval, config.refresh_interval, self.empties)
        };
        let delay = match negative_ttl {
            // A cached negative ends: the answer after it is news.
            Some(left) if counting_down && left < delay => {
                spread(left.max(config.min_interval), 1.0, 1.15, self.random())
            }
            _ => spread(delay, 0.85, 1.15, self.random()),
        };
        self.schedule(now, config, delay);
    }

    /// The source could not say.
    pub(super) fn on_failure(&mut self, now: Instant, config: &Config) {
        self.failures = self.failures.saturating_add(1);
        // In step with a user's own idea of how often is too often.
        let base = FAILURE_BASE.max(config.min_interval / 2);
        let cap = config.refresh_interval.max(FAILURE_CAP);
        let delay = full_jitter(base, cap, self.failures, self.random());
        self.schedule(now, config, delay);
    }

    fn interval(&mut self, config: &Config, ttl: Option<Duration>, first: bool) -> Duration {
        let longest = config
            .respect_ttl
            .unwrap_or(config.refresh_interval)
            .max(config.min_interval);
        let ttl = ttl.unwrap_or(longest);
        if ttl.is_zero() {
            let delay = if self.zero_ttls >= CONSTANT_ZEROS {
                config.refresh_interval
            } else {
                config.min_interval
            };
            return spread(delay, 0.85, 1.15, self.random());
        }
        let delay = ttl.clamp(config.min_interval, longest);
        if first {
            // Clients that started together drift apart.
            return spread(
                delay,
                config.min_interval.div_duration_f64(delay).min(1.0),
                1.0,
                self.random(),
            );
        }
        // Never before a remaining TTL ends: the same cached answer would return.
        let low = if ttl == delay && ttl < longest {
            1.0
        } else {
            0.85
        };
        spread(delay, low, 1.15, self.random())
    }

    fn schedule(&mut self, now: Instant, config: &Config, delay: Duration) {
        self.asking = false;
        self.last_end = Some(now);
        self.due = now + delay;
        if std::mem::take(&mut self.ask_again) {
            self.due = self.due.min(self.after_gap(now, config));
        }
    }

    fn after_gap(&self, now: Instant, config: &Config) -> Instant {
        let gap = config.min_interval.max(REFRESH_GAP);
        self.last_end.map_or(now, |end| now.max(end + gap))
    }

    fn random(&mut self) -> f64 {
        self.rng.random()
    }
}

/// How often to ask while an empty answer waits to be confirmed: just often enough.
fn confirmation_interval(config: &Config) -> Duration {
    let apart = match config.empty {
        EmptyMode::Confirm { answers, over } => over / answers.saturating_sub(1).max(1),
        EmptyMode::Immediate | EmptyMode::KeepLast => config.refresh_interval,
    };
    apart.clamp(
        config.min_interval.min(config.refresh_interval),
        config.refresh_interval,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL_30: Option<Duration> = Some(Duration::from_secs(30));

    fn delay_after(ttl: Option<Duration>, config: &Config, seed: u64) -> Duration {
        let now = Instant::now();
        let mut cadence = Cadence::new(now, seed);
        for _ in 0..2 {
            cadence.asked();
            cadence.on_records(now, config, ttl, Difference::None);
        }
        cadence.due().unwrap() - now
    }

    fn range_of(ttl: Option<Duration>, config: &Config) -> (f64, f64) {
        let delays = (0..500).map(|seed| delay_after(ttl, config, seed).as_secs_f64());
        delays.fold((f64::MAX, 0.0), |(low, high), delay| {
            (low.min(delay), high.max(delay))
        })
    }

    #[test]
    fn a_long_ttl_is_not_waited_for() {
        let (low, high) = range_of(TTL_30, &Config::default());
        assert!(
            (4.25..4.4).contains(&low) && (5.6..=5.75).contains(&high),
            "{low}..{high}"
        );
    }

    #[test]
    fn a_short_remaining_ttl_is_waited_for_and_never_undercut() {
        let (low, high) = range_of(Some(Duration::from_secs(3)), &Config::default());
        assert!(
            (3.0..3.05).contains(&low) && (3.4..=3.45).contains(&high),
            "{low}..{high}"
        );
    }

    #[test]
    fn respect_ttl_waits_up_to_its_cap() {
        let config = Config {
            respect_ttl: Some(Duration::from_secs(20)),
            ..Config::default()
        };
        let (low, high) = range_of(TTL_30, &config);
        assert!((17.0..17.2).contains(&low) && high <= 23.0, "{low}..{high}");
    }

    #[test]
    fn clients_that_start_together_drift_apart() {
        let now = Instant::now();
        let first = |seed| {
            let mut cadence = Cadence::new(now, seed);
            cadence.asked();
            cadence.on_records(now, &Config::default(), TTL_30, Difference::Large);
            (cadence.due().unwrap() - now).as_secs_f64()
        };
        let delays: Vec<f64> = (0..500).map(first).collect();
        assert!(delays.iter().all(|delay| (1.0..=5.0).contains(delay)));
        assert!(delays.iter().filter(|&&delay| delay < 2.0).count() > 80);
        assert!(delays.iter().filter(|&&delay| delay > 4.0).count() > 80);
    }

    #[test]
    fn a_burst_is_followed_closely_until_two_answers_agree_or_fifteen_seconds_passed() {
        let (config, mut now) = (Config::default(), Instant::now());
        let mut cadence = Cadence::new(now, 1);
        cadence.on_records(now, &config, TTL_30, Difference::Large);
        for _ in 0..15 {
            cadence.on_records(now, &config, TTL_30, Difference::Large);
            assert_eq!(cadence.due().unwrap() - now, config.min_interval);
            now += config.min_interval;
        }
        cadence.on_records(now, &config, TTL_30, Difference::Large);
        assert!(
            cadence.due().unwrap() - now > Duration::from_secs(4),
            "a burst without end"
        );
        cadence.on_records(now, &config, TTL_30, Difference::None);
        cadence.on_records(now, &config, TTL_30, Difference::Large);
        assert_eq!(cadence.due().unwrap() - now, config.min_interval);
        cadence.on_records(now, &config, TTL_30, Difference::None);
        assert!(cadence.due().unwrap() - now > Duration::from_secs(4));
    }
}
