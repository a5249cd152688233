//! Slow start: how much of its share an endpoint gets that joined or returned a moment ago (Envoy).

use std::time::Duration;

use tokio::time::Instant;

use super::slot::Slot;

/// The least share, however long the window (Envoy's `min_weight_percent`).
const LEAST: f32 = 0.10;

/// The share at the beginning is that of this time: Envoy counts whole seconds, from 1.
const FIRST: Duration = Duration::from_secs(1);

/// The share grows in so many steps ...
const STEPS: u32 = 20;

/// ... not closer than this.
const SHORTEST: Duration = Duration::from_millis(100);

/// The share at `now` of an endpoint that started at `start`; `None` once it is a whole one.
pub(super) fn share(start: Instant, now: Instant, window: Duration) -> Option<f32> {
    let age = now.saturating_duration_since(start);
    (age < window).then(|| {
        let share = age.max(FIRST).as_secs_f32() / window.as_secs_f32();
        share.clamp(LEAST, 1.0)
    })
}

/// When the share is to be written anew.
pub(super) fn next_step(start: Instant, now: Instant, window: Duration) -> Instant {
    let step = (window / STEPS).max(SHORTEST);
    let age = now.saturating_duration_since(start);
    let steps = (age.as_nanos() / step.as_nanos()) as u32 + 1;
    start + (step * steps).min(window)
}

/// Who starts, in one look at all.
#[derive(Debug, Default)]
pub(super) struct Starts {
    began: usize,
    /// Those that took requests before and still do.
    went_on: usize,
}

impl Starts {
    /// Writes the share of one endpoint, and tells when to write it again, while it starts. `serves`: it takes
    /// requests now. In a panic all are needed.
    pub(super) fn step<S>(
        &mut self,
        slot: &mut Slot<S>,
        now: Instant,
        serves: bool,
        is_panic: bool,
        window: Duration,
    ) -> Option<Instant> {
        let served = std::mem::replace(&mut slot.serves, serves);
        self.went_on += usize::from(served && serves);
        let before = slot.started;
        if is_panic || !serves {
            slot.started = None;
        } else if !served {
            slot.started = Some(now);
            self.began += 1;
        }
        let share = slot.started.and_then(|start| share(start, now, window));
        if share.is_none() {
            slot.started = None;
        }
        if share.is_some() || before.is_some() {
            slot.endpoint.set_ramp(share.unwrap_or(1.0));
        }
        Some(next_step(slot.started?, now, window))
    }

    /// Whether there is nobody who could take the requests meanwhile.
    pub(super) fn all_are_new(&self) -> bool {
        self.began > 0 && self.went_on == 0
    }

    /// They all get their whole share at once.
    pub(super) fn cancel<S>(&self, slots: &mut [Slot<S>], now: Instant) {
        for slot in slots.iter_mut().filter(|slot| slot.started == Some(now)) {
            slot.started = None;
            slot.endpoint.set_ramp(1.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_share_is_that_of_the_first_second_then_grows_with_time() {
        let start = Instant::now();
        let at = |millis, window| share(start, start + Duration::from_millis(millis), window);
        let ten = 10 * SECOND;
        assert_eq!(at(0, ten), Some(0.1));
        assert_eq!(at(1000, ten), Some(0.1));
        assert_eq!(at(5000, ten), Some(0.5));
        assert_eq!(at(9999, ten), Some(0.9999));
        assert_eq!(at(10_000, ten), None);
        assert_eq!(at(0, 2 * SECOND), Some(0.5), "one second of two");
        assert_eq!(at(0, SECOND / 2), Some(1.0));
        let minutes = 100 * SECOND;
        assert_eq!(at(9000, minutes), Some(0.1), "never below a tenth");
        assert_eq!(at(20_000, minutes), Some(0.2));
    }

    #[test]
    fn it_is_written_twenty_times_and_not_more_often_than_every_100_ms() {
        let start = Instant::now();
        for (window, expected) in [(20 * SECOND, 20), (SECOND, 10), (SECOND / 20, 1)] {
            let (mut now, mut steps) = (start, 0);
            while share(start, now, window).is_some() {
                let next = next_step(start, now, window);
                assert!(next > now);
                (now, steps) = (next, steps + 1);
            }
            assert_eq!((steps, now), (expected, start + window));
        }
    }
}
