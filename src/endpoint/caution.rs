//! Endpoints that should not get their full share yet: on trial after an ejection, or started a moment ago.

use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

/// Not on trial.
const NONE: u16 = u16::MAX;

/// Written by the driver; read where the set says that some endpoint is to be treated with care.
#[derive(Debug)]
pub(super) struct Caution {
    /// On trial: one request at a time, until one succeeds (Finagle's `ProbeOpen`). This many more may be in flight,
    /// being older: streams may go on for hours, and must not keep it from being tried.
    trial: AtomicU16,
    /// The share of the picks that it is to get, in 65,535ths.
    ramp: AtomicU16,
    /// How often it was picked since then, modulo 65,536.
    offers: AtomicU16,
}

impl Default for Caution {
    fn default() -> Self {
        Self {
            trial: AtomicU16::new(NONE),
            ramp: AtomicU16::new(u16::MAX),
            offers: AtomicU16::new(0),
        }
    }
}

impl Caution {
    #[inline]
    pub(super) fn is_trial(&self) -> bool {
        self.trial.load(Relaxed) != NONE
    }

    /// Whether one more may be tried while so many are in flight.
    fn tries(&self, pending: u32) -> bool {
        let (older, pending) = (self.trial.load(Relaxed), few(pending));
        if pending < older && older != NONE {
            // Some of them have ended. If it is written meanwhile, that is the driver, who knows better.
            let _ = self
                .trial
                .compare_exchange(older, pending, Relaxed, Relaxed);
        }
        pending <= older
    }

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

fn few(pending: u32) -> u16 {
    pending.min(u32::from(NONE - 1)) as u16
}

impl super::Endpoint {
    /// Whether a pick may stay with this endpoint. `is_sticky`: the policy means this one and no other, so it
    /// is not spared for being new.
    pub(crate) fn admits(&self, is_sticky: bool) -> bool {
        self.is_free() && (is_sticky || self.caution.takes_its_share())
    }

    /// Whether it is not on trial, or has no request of its trial yet.
    pub(crate) fn is_free(&self) -> bool {
        !self.caution.is_trial() || self.caution.tries(self.pending())
    }

    /// Whether it gets one request at a time.
    pub fn is_on_trial(&self) -> bool {
        self.caution.is_trial()
    }

    /// Begins a trial, with no failure held against it, or ends one. Begun again, it admits one request beside those
    /// that are in flight.
    pub(crate) fn set_trial(&self, trial: bool) {
        let older = if trial {
            self.load.forget_streak();
            few(self.pending())
        } else {
            NONE
        };
        self.caution.trial.store(older, Relaxed);
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
