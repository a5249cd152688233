//! When to believe "no endpoints" (R9 of the resolver requirements).

use std::time::Duration;

use tokio::time::Instant;

use super::config::EmptyMode;

/// A cached negative that is seen twice shows a TTL that went down by the time between; whole seconds
/// leave this much doubt.
const ROUNDING: Duration = Duration::from_secs(1);

/// Empty answers in a row, since the last whole one with records: a truncated one counts neither way (R9).
#[derive(Debug, Default)]
pub(super) struct Emptiness {
    counted: u32,
    first: Option<Instant>,
    /// When the cached negatives among those that counted end. More than one, because each DNS replica
    /// has a cache of its own and they are asked in turn.
    ends: Vec<Instant>,
}

impl Emptiness {
    /// How many independent ones there are so far.
    pub(super) fn counted(&self) -> u32 {
        self.counted
    }

    /// Counts one; true when emptiness is to be believed.
    ///
    /// `all_ejected`: no endpoint of the set takes connections either, which is confirmation enough.
    pub(super) fn confirm(
        &mut self,
        now: Instant,
        negative_ttl: Option<Duration>,
        mode: EmptyMode,
        all_ejected: bool,
    ) -> bool {
        if !self.is_repetition(now, negative_ttl) {
            self.counted = self.counted.saturating_add(1);
            self.first.get_or_insert(now);
        }
        match mode {
            EmptyMode::Immediate => true,
            EmptyMode::KeepLast => false,
            EmptyMode::Confirm { answers, over } => {
                let spans = self
                    .first
                    .is_some_and(|first| now.saturating_duration_since(first) >= over);
                all_ejected || (self.counted >= answers && spans)
            }
        }
    }

    /// A whole answer with records came: whatever was counted is void.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether this is a cached answer that was counted before: one that ends when that one ends.
    ///
    /// A constant TTL is a fresh answer each time, and ends later each time; so is a constant zero,
    /// which tells no end.
    fn is_repetition(&mut self, now: Instant, negative_ttl: Option<Duration>) -> bool {
        self.ends.retain(|end| *end + ROUNDING >= now);
        // A cache of more than a day would outlive any doubt, and adding it to a time might overflow.
        let Some(left) = negative_ttl.map(|left| left.min(Duration::from_secs(86_400))) else {
            return false;
        };
        let end = now + left;
        let repeats = self.ends.iter().any(|other| apart(end, *other) <= ROUNDING);
        if !repeats && !left.is_zero() {
            self.ends.push(end);
        }
        repeats
    }
}

fn apart(a: Instant, b: Instant) -> Duration {
    a.saturating_duration_since(b)
        .max(b.saturating_duration_since(a))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn believed_after(ttls: &[(u64, Option<u64>)], mode: EmptyMode) -> Option<u64> {
        let (start, mut emptiness) = (Instant::now(), Emptiness::default());
        let believed = |&&(at, ttl): &&(u64, Option<u64>)| {
            emptiness.confirm(
                start + SECOND * at as u32,
                ttl.map(Duration::from_secs),
                mode,
                false,
            )
        };
        ttls.iter().find(believed).map(|&(at, _)| at)
    }

    #[test]
    fn three_fresh_answers_over_ten_seconds_are_believed() {
        let constant: Vec<_> = (0..6).map(|i| (i * 5, Some(30))).collect();
        assert_eq!(believed_after(&constant, EmptyMode::default()), Some(10));
        let zero: Vec<_> = (0..20).map(|i| (i, Some(0))).collect();
        assert_eq!(believed_after(&zero, EmptyMode::default()), Some(10));
        let without: Vec<_> = (0..6).map(|i| (i * 5, None)).collect();
        assert_eq!(believed_after(&without, EmptyMode::default()), Some(10));
    }

    #[test]
    fn one_cached_answer_counts_once_however_often_it_is_seen() {
        let cached: Vec<_> = (0..6).map(|i| (i * 5, Some(30 - i * 5))).collect();
        assert_eq!(believed_after(&cached, EmptyMode::default()), None);
        // The cache asks again every 30 s: three answers take a minute.
        let cached: Vec<_> = (0..20).map(|i| (i * 5, Some(30 - i * 5 % 30))).collect();
        assert_eq!(believed_after(&cached, EmptyMode::default()), Some(60));
    }

    #[test]
    fn two_caches_that_are_asked_in_turn_are_two_answers_and_not_three() {
        let first = |at| (at, Some(30 - at));
        let second = |at| (at, Some(17 - at));
        let seen = [
            first(0),
            second(5),
            first(10),
            second(12),
            first(15),
            second(16),
            first(20),
            first(25),
        ];
        assert_eq!(believed_after(&seen, EmptyMode::default()), None);
    }

    #[test]
    fn the_modes_do_as_they_say() {
        assert_eq!(
            believed_after(&[(0, Some(30))], EmptyMode::Immediate),
            Some(0)
        );
        let many: Vec<_> = (0..100).map(|i| (i * 5, Some(30))).collect();
        assert_eq!(believed_after(&many, EmptyMode::KeepLast), None);
        assert!(Emptiness::default().confirm(Instant::now(), None, EmptyMode::default(), true));
    }
}
