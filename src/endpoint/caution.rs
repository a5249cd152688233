//! Endpoints that should not get their full share yet: on trial after an ejection, or started a moment ago.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering::Relaxed};

/// How new endpoints are spared. Written by the driver; read where the set says that some endpoint is to be treated with
/// care.
#[derive(Debug)]
pub(super) struct Caution {
    /// The share of the picks that it is to get, in 65,535ths.
    ramp: AtomicU16,
    /// How often it was picked since then, modulo 65,536.
    offers: AtomicU16,
}

impl Default for Caution {
    fn default() -> Self {
        Self {
            ramp: AtomicU16::new(u16::MAX),
            offers: AtomicU16::new(0),
        }
    }
}

impl Caution {
    fn ramp(&self) -> f32 {
        f32::from(self.ramp.load(Relaxed)) / f32::from(u16::MAX)
    }

    /// Takes so many of the picks, evenly spread: no draw, so that a simulation repeats itself.
    fn takes_its_share(&self) -> bool {
        let ramp = f64::from(self.ramp());
        if ramp >= 1.0 {
            return true;
        }
        let offer = f64::from(self.offers.fetch_add(1, Relaxed));
        ((offer + 1.0) * ramp).floor() > (offer * ramp).floor()
    }
}

/// On trial: one request at a time, until one succeeds (Finagle's `ProbeOpen`). Requests know which trial they belong to: the
/// older ones, perhaps streams of hours, neither keep the endpoint from being tried nor make room when they end.
///
/// In one word: whether it is on, which one it is (modulo 128), and how many of its requests are in flight.
#[derive(Debug, Default)]
pub(super) struct Trial(AtomicU32);

/// What a request needs to know to leave the trial that it belongs to; the default belongs to none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Ticket(u8);

const COUNT_BITS: u32 = 24;
const COUNT: u32 = (1 << COUNT_BITS) - 1;
const ON: u8 = 1 << 7;

impl Trial {
    fn ticket(word: u32) -> Ticket {
        Ticket((word >> COUNT_BITS) as u8)
    }

    #[inline]
    pub(super) fn is_on(&self) -> bool {
        Self::ticket(self.0.load(Relaxed)).is_some()
    }

    /// Whether none of its requests is in flight.
    fn is_free(&self) -> bool {
        self.0.load(Relaxed) & COUNT == 0
    }

    /// The next one begins, or it ends. The driver alone does this.
    fn set(&self, is_on: bool) {
        let Ticket(last) = Self::ticket(self.0.load(Relaxed));
        let next = if is_on {
            last.wrapping_add(1) | ON
        } else {
            last & !ON
        };
        self.0.store(u32::from(next) << COUNT_BITS, Relaxed);
    }

    /// A request begins.
    #[inline]
    pub(super) fn enter(&self) -> Ticket {
        if self.is_on() {
            return self.join();
        }
        Ticket::default()
    }

    #[cold]
    fn join(&self) -> Ticket {
        let joined = |word: u32| Self::ticket(word).is_some().then_some(word + 1);
        let joined = self.0.fetch_update(Relaxed, Relaxed, joined);
        joined.map(Self::ticket).unwrap_or_default()
    }

    /// A request ends.
    #[inline]
    pub(super) fn leave(&self, ticket: Ticket) {
        if ticket.is_some() {
            self.part(ticket);
        }
    }

    #[cold]
    fn part(&self, ticket: Ticket) {
        let is_counted = |word: u32| Self::ticket(word) == ticket && word & COUNT != 0;
        let parted = |word: u32| is_counted(word).then(|| word - 1);
        // Not counted: another trial is on since, or none.
        let _ = self.0.fetch_update(Relaxed, Relaxed, parted);
    }
}

impl Ticket {
    #[inline]
    fn is_some(self) -> bool {
        self.0 & ON != 0
    }
}

impl super::Endpoint {
    /// Whether a pick may stay with this endpoint. `is_sticky`: the policy means this one and no other, so it
    /// is not spared for being new.
    pub(crate) fn admits(&self, is_sticky: bool) -> bool {
        self.is_free() && (is_sticky || self.caution.takes_its_share())
    }

    /// Whether it is not on trial, or has no request of its trial yet.
    pub(crate) fn is_free(&self) -> bool {
        self.load.trial.is_free()
    }

    /// Whether it gets one request at a time.
    pub fn is_on_trial(&self) -> bool {
        self.load.trial.is_on()
    }

    /// Begins a trial, with no failure held against it, or ends one. Begun again, it admits one request beside those
    /// that are in flight.
    pub(crate) fn set_trial(&self, trial: bool) {
        if trial {
            self.load.forget_streak();
        }
        self.load.trial.set(trial);
    }

    /// The share of its picks that it takes, from 0 to 1: less than 1 while it starts.
    pub fn ramp(&self) -> f32 {
        self.caution.ramp()
    }

    pub(crate) fn set_ramp(&self, ramp: f32) {
        let share = (ramp.clamp(0.0, 1.0) * f32::from(u16::MAX)).round();
        self.caution.ramp.store(share as u16, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::Instant;

    use crate::endpoint::Endpoint;

    fn endpoint() -> Arc<Endpoint> {
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        Arc::new(Endpoint::new(addr.into(), Instant::now()))
    }

    #[test]
    fn on_trial_one_request_is_admitted_at_a_time() {
        let endpoint = endpoint();
        endpoint.set_trial(true);
        assert!(endpoint.admits(false));
        let request = endpoint.begin();
        assert!(!endpoint.admits(false) && !endpoint.admits(true));
        drop(request);
        assert!(endpoint.admits(false));
    }

    #[test]
    fn requests_from_before_the_trial_do_not_keep_it_from_being_tried() {
        let endpoint = endpoint();
        let streams = [endpoint.begin(), endpoint.begin()];
        endpoint.set_trial(true);
        assert!(endpoint.admits(false));
        let request = endpoint.begin();
        assert!(!endpoint.admits(false));
        drop((request, streams));
        assert!(endpoint.admits(false));
        let request = endpoint.begin();
        assert!(!endpoint.admits(false), "they are not counted for ever");
        drop(request);
    }

    #[test]
    fn requests_from_before_that_end_make_no_room_for_more() {
        let endpoint = endpoint();
        let mut older = vec![endpoint.begin(), endpoint.begin(), endpoint.begin()];
        for _ in 0..200 {
            endpoint.set_trial(true);
            assert!(endpoint.admits(false));
            let request = endpoint.begin();
            assert!(!endpoint.admits(false));
            // One from before the first trial, or of the one before.
            drop(older.pop());
            assert!(!endpoint.admits(false), "one at a time");
            older.push(request);
        }
        drop(older);
        assert!(endpoint.admits(false));
    }

    #[test]
    fn after_a_trial_nothing_is_counted() {
        let endpoint = endpoint();
        endpoint.set_trial(true);
        let requests = [endpoint.begin(), endpoint.begin()];
        endpoint.set_trial(false);
        assert!(endpoint.admits(false) && endpoint.admits(true));
        let _later = endpoint.begin();
        assert!(endpoint.admits(false));
        drop(requests);
        assert!(endpoint.admits(false) && !endpoint.is_on_trial());
    }

    #[test]
    fn while_it_starts_it_takes_its_share_of_the_picks_unless_they_mean_it() {
        let endpoint = endpoint();
        for (ramp, expected) in [(0.0, 0), (0.1, 10), (0.5, 50), (1.0, 100)] {
            endpoint.set_ramp(ramp);
            let taken = (0..100).filter(|_| endpoint.admits(false)).count();
            assert!(taken.abs_diff(expected) <= 1, "{ramp}: {taken}");
            assert!(endpoint.admits(true));
        }
    }
}
