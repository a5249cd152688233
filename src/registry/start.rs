//! Slow start: how much of its share an endpoint gets that joined or returned a moment ago (Envoy).

use std::time::Duration;

use tokio::time::Instant;

use super::slot::Slot;
use crate::set::Position;

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

    /// Those that took requests before and still do, by their standing.
    pub(super) fn count_plain(&mut self, plain: &[usize; Position::COUNT]) {
        self.went_on += plain[..Position::Ejected as usize].iter().sum::<usize>();
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
    use crate::{
        policy::{First, LeastRequest, Policy, Random, RoundRobin, policy_fn},
        registry::{Config, by_hand::ByHand},
        set::{Candidates, Choice},
    };

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

    fn slowly() -> ByHand {
        let config = Config {
            slow_start: Some(10 * SECOND),
            ..Config::default()
        };
        ByHand::new(config, true)
    }

    /// `others` at their full share, and host 100 that has just joined.
    fn with_a_new_one(others: u8) -> ByHand {
        let mut hand = slowly();
        hand.answer(1..=others);
        assert!(!hand.set.available().is_careful(), "all were new");
        hand.answer((1..=others).chain([100]));
        assert!(hand.set.available().is_careful());
        hand
    }

    fn near(is: f32, expected: f32) -> bool {
        (is - expected).abs() < 1e-3
    }

    #[test]
    fn one_that_joins_others_starts_slowly_and_ends_with_the_window() {
        let mut hand = with_a_new_one(3);
        let joined = hand.now;
        let new = hand.endpoint(100);
        assert!(near(new.ramp(), 0.1) && near(hand.endpoint(1).ramp(), 1.0));
        let mut ticks = 0;
        while hand.set.available().is_careful() {
            let next = hand.registry.slot_deadline.unwrap();
            hand.wait(next - hand.now);
            ticks += 1;
            let age = (hand.now - joined).as_secs_f32();
            assert!(near(new.ramp(), (age / 10.0).clamp(0.1, 1.0)), "{age}");
        }
        assert_eq!((ticks, hand.now - joined), (20, 10 * SECOND));
        assert_eq!(hand.registry.slot_deadline, None);
    }

    #[test]
    fn where_all_are_new_nobody_starts_slowly() {
        let mut hand = slowly();
        hand.answer(1..=3);
        hand.answer(4..=6);
        assert_eq!(hand.hosts(), [1, 2, 3, 4, 5, 6], "not removed yet");
        let mut hand = slowly();
        hand.answer([1]);
        hand.wait(SECOND);
        hand.answer([2]);
        hand.answer([2]);
        assert_eq!(hand.hosts(), [2]);
        assert!(
            near(hand.endpoint(2).ramp(), 0.1),
            "there was another when it joined"
        );
        let mut hand = slowly();
        hand.nothing();
        hand.answer(1..=3);
        assert!((1..=3).all(|host| near(hand.endpoint(host).ramp(), 1.0)));
    }

    #[test]
    fn one_that_returns_starts_slowly_too_once_it_has_stood_its_trial() {
        let mut hand = slowly();
        hand.answer(1..=3);
        hand.refused(2);
        hand.reached(2);
        assert!(near(hand.endpoint(2).ramp(), 0.1));
        hand.wait(10 * SECOND);
        assert!(near(hand.endpoint(2).ramp(), 1.0));
        hand.fails(2, 5);
        hand.wait(30 * SECOND);
        assert!(hand.endpoint(2).is_on_trial() && near(hand.endpoint(2).ramp(), 1.0));
        hand.succeeds(2, 1);
        assert!(!hand.endpoint(2).is_on_trial() && near(hand.endpoint(2).ramp(), 0.1));
        assert!(hand.set.available().is_careful());
    }

    #[test]
    fn in_a_panic_nobody_starts_slowly() {
        let mut hand = slowly();
        hand.answer(1..=4);
        hand.fails(1, 5);
        hand.refused(2);
        hand.refused(3);
        assert!(hand.registry.status().is_panic());
        assert!(near(hand.endpoint(1).ramp(), 1.0));
    }

    #[test]
    fn without_a_window_nothing_is_written() {
        let mut hand = ByHand::new(Config::default(), true);
        hand.answer(1..=3);
        hand.answer(1..=4);
        assert!(near(hand.endpoint(4).ramp(), 1.0));
        assert!(!hand.set.available().is_careful());
        assert_eq!(hand.registry.slot_deadline, None);
    }

    /// The share of host 100 of so many picks.
    fn share_of(hand: &ByHand, policy: &impl Policy) -> f64 {
        const PICKS: usize = 40_000;
        let new = hand.endpoint(100).id();
        let pick = || hand.set.available().pick(policy).unwrap().endpoint().id();
        (0..PICKS).filter(|_| pick() == new).count() as f64 / PICKS as f64
    }

    #[test]
    fn shares_follow_the_ramp() {
        for others in [2, 9] {
            let mut hand = with_a_new_one(others);
            let n = f64::from(others) + 1.0;
            for share in [0.1, 0.5] {
                hand.wait(SECOND.mul_f64(10.0 * share));
                let ramp = f64::from(hand.endpoint(100).ramp());
                for (name, is) in [
                    ("RoundRobin", share_of(&hand, &RoundRobin::new())),
                    ("Random", share_of(&hand, &Random::seeded(1))),
                    ("LeastRequest", share_of(&hand, &LeastRequest::seeded(1))),
                ] {
                    println!(
                        "{name}: {ramp:.2} of one of {n}: {is:.4}, {:.4} wanted",
                        ramp / n
                    );
                    // A weight of `ramp` beside weights of 1 would be `ramp / (n - 1 + ramp)`.
                    let (least, most) = (ramp / n * 0.85, ramp / (n - 1.0 + ramp) * 1.15);
                    assert!(
                        (least..most).contains(&is),
                        "{name}, {ramp} of one of {n}: {is}"
                    );
                }
            }
        }
    }

    #[test]
    fn policies_that_mean_it_are_not_led_elsewhere() {
        let hand = with_a_new_one(9);
        let own = policy_fn(|candidates| {
            let mut all = candidates.iter();
            candidates.choose(all.position(|one| one.addr().ip().to_string() == "10.0.0.100")?)
        });
        struct Sticky<P>(P);
        impl<P: Policy> Policy for Sticky<P> {
            fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
                self.0.pick(candidates)
            }
            fn is_sticky(&self) -> bool {
                true
            }
        }
        assert!((share_of(&hand, &Sticky(own)) - 1.0).abs() < 1e-9);
        let first = First::new();
        let pick = || hand.set.available().pick(&first).unwrap().endpoint().id();
        let chosen = pick();
        assert!((0..100).all(|_| pick() == chosen));
        assert!(First::new().is_sticky());
    }
}
