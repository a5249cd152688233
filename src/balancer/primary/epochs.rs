//! The epoch, where connections look whether they are still to the primary.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

/// The last epoch: nobody observes any more.
const CLOSED: u64 = u64::MAX;

/// The epoch now. Written by the driver alone; read by every checkout of a connection.
#[derive(Debug)]
pub(crate) struct Epochs {
    now: AtomicU64,
    /// When the accepted claim was last proved, in microseconds after `start`.
    confirmed: AtomicU64,
    start: Instant,
    /// The same epoch, for those who wait for its end; and whether there is a primary, which can be again in the
    /// epoch in which it was lost.
    changed: watch::Sender<(u64, bool)>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self {
            now: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            start: Instant::now(),
            changed: watch::Sender::new((0, false)),
        }
    }
}

impl Epochs {
    #[inline]
    pub(super) fn is_after(&self, epoch: u64) -> bool {
        self.now.load(Relaxed) > epoch
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_after(CLOSED - 1)
    }

    /// Who waits for it keeps nothing alive.
    pub(super) fn subscribe(&self) -> watch::Receiver<(u64, bool)> {
        self.changed.subscribe()
    }

    pub(super) fn confirmed_ago(&self) -> Duration {
        let at = Duration::from_micros(self.confirmed.load(Relaxed));
        self.start.elapsed().saturating_sub(at)
    }

    /// Another number with each proof.
    pub(super) fn last_proof(&self) -> u64 {
        self.confirmed.load(Relaxed)
    }

    /// The snapshot of this epoch is published.
    pub(crate) fn store(&self, epoch: u64, has_primary: bool) {
        if self.is_after(epoch) {
            return;
        }
        self.now.store(epoch, Relaxed);
        let now = (epoch, has_primary);
        self.changed
            .send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// The accepted claim was proved again.
    pub(crate) fn confirm(&self, at: Instant) {
        let micros = at.saturating_duration_since(self.start).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        self.confirmed.store(micros, Relaxed);
    }

    pub(crate) fn close(&self) {
        self.store(CLOSED, false);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        net::SocketAddr,
        pin::pin,
        sync::{Arc, atomic::AtomicUsize},
        task::{Context, Wake},
    };

    use super::*;
    use crate::{
        balancer::shared::{Settings, Shared, Signals},
        endpoint::Endpoint,
        probe::Role,
        registry::{Config, Registry},
        resolve::Resolution,
    };

    /// Looks, when it is woken, for what the one it wakes would find.
    struct Reader {
        shared: Arc<Shared<()>>,
        woken: AtomicUsize,
    }

    impl Wake for Reader {
        fn wake(self: Arc<Self>) {
            let (snapshot, status) = (self.shared.snapshot.load(), self.shared.status.load());
            assert!(snapshot.set().primary().is_some());
            let known = status.primary().and_then(|report| report.primary());
            assert!(known.is_some(), "the status is older than the wake-up");
            self.woken.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn whoever_is_woken_by_a_new_epoch_finds_the_set_and_the_status() {
        let now = Instant::now();
        let config = Config {
            probe_interval: Some(Duration::from_secs(1)),
            ..Config::default()
        };
        let mut registry = Registry::new("db", config, |_: &Arc<Endpoint>| (), now);
        let (signals, _hints) = Signals::new("test");
        let settings = Settings {
            initial_timeout: Duration::ZERO,
            wait_when_empty: Duration::ZERO,
            max_attempts: 1,
            is_probed: true,
        };
        let status = registry.status().clone();
        let shared = Arc::new(Shared::new(status, Arc::new(signals), settings));
        registry.on_asked(now);
        let only = SocketAddr::from(([10, 0, 0, 1], 5432));
        registry.on_answer(now, Ok(Resolution::new([only])));
        let found = registry.publish().unwrap().into_snapshot();
        let id = found.set().at(0).unwrap().id();
        shared.publish(Some(found), registry.status());

        let reader = Arc::new(Reader {
            shared: Arc::clone(&shared),
            woken: AtomicUsize::new(0),
        });
        let waker = Arc::clone(&reader).into();
        let mut cx = Context::from_waker(&waker);
        let (mut epochs, mut sets) = (shared.epochs.subscribe(), shared.changed.subscribe());
        let (mut epoch, mut set) = (pin!(epochs.changed()), pin!(sets.changed()));
        assert!(
            epoch.as_mut().poll(&mut cx).is_pending() && set.as_mut().poll(&mut cx).is_pending()
        );
        registry.on_observed(now, id, Ok(Role::Primary.into()));
        let accepted = registry.publish().unwrap().into_snapshot();
        shared.publish(Some(accepted), registry.status());
        assert_eq!(reader.woken.load(Relaxed), 2);
    }
}
