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
