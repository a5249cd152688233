//! When to believe "no endpoints" (R9 of the resolver requirements).

use std::time::Duration;

use tokio::time::Instant;

use super::config::EmptyMode;

/// A cached negative that is seen twice shows a TTL that went down by the time between; whole seconds
/// leave this much doubt.
const ROUNDING: Duration = Duration::from_secs(1);

/// Empty answers in a row, since the last one with records.
#[derive(Debug, Default)]
pub(super) struct Emptiness {
    counted: u32,
    first: Option<Instant>,
    /// The last one that counted.
    last: Option<(Instant, Option<Duration>)>,
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
            self.counted += 1;
            self.first.get_or_insert(now);
            self.last = Some((now, negative_ttl));
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

    /// Records came: whatever was counted is void.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether this is the cached answer that was counted before. A constant TTL is a fresh answer
    /// each time; so is a constant zero.
    fn is_repetition(&self, now: Instant, negative_ttl: Option<Duration>) -> bool {
        let (Some((then, Some(before))), Some(left)) = (self.last, negative_ttl) else {
            return false;
        };
        if before.is_zero() && left.is_zero() {
            return false;
        }
        left.saturating_add(now.saturating_duration_since(then))
            .abs_diff(before)
            <= ROUNDING
    }
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
