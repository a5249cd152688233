//! Endpoints that should not get their full share yet: on trial after an ejection, or started a moment ago.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};

/// Written by the driver; read where the set says that some endpoint is to be treated with care.
#[derive(Debug)]
pub(super) struct Caution {
    /// One request at a time, until one succeeds (Finagle's `ProbeOpen`).
    trial: AtomicBool,
    /// The share of the picks that it is to get, in 65,535ths.
    ramp: AtomicU16,
    /// How often it was picked since then, modulo 65,536.
    offers: AtomicU16,
}

impl Default for Caution {
    fn default() -> Self {
        Self {
            trial: AtomicBool::new(false),
            ramp: AtomicU16::new(u16::MAX),
            offers: AtomicU16::new(0),
        }
    }
}

impl Caution {
    #[inline]
    pub(super) fn is_trial(&self) -> bool {
        self.trial.load(Relaxed)
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

impl super::Endpoint {
    /// Whether a pick may stay with this endpoint. `is_sticky`: the policy means this one and no other, so it
    /// is not spared for being new.
    pub(crate) fn admits(&self, is_sticky: bool) -> bool {
        if self.caution.is_trial() && self.pending() > 0 {
            return false;
        }
        is_sticky || self.caution.takes_its_share()
    }

    /// Whether it gets one request at a time.
    pub fn is_on_trial(&self) -> bool {
        self.caution.is_trial()
    }

    pub(crate) fn set_trial(&self, trial: bool) {
        self.caution.trial.store(trial, Relaxed);
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
