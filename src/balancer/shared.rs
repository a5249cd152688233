//! What the handles share and the driver writes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};

use super::PickError;
use crate::{
    endpoint::Endpoint,
    registry::{Snapshot, Status},
    set::EndpointSet,
};

/// What all handles of one service share, and the driver writes.
pub(crate) struct Shared<S> {
    pub(super) snapshot: ArcSwap<Snapshot<S>>,
    /// Replaced with every answer, also if the set stays: not read by picks that succeed.
    pub(super) status: ArcSwap<Status>,
    /// Wakes those who wait for a set or follow its changes.
    pub(super) changed: watch::Sender<Arc<EndpointSet>>,
    pub(super) signals: Arc<Signals>,
    pub(super) settings: Settings,
}

/// The way of a request while there is no endpoint: its one allocation.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Result<(), PickError>> + Send>>;

/// What the driver is told by requests.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    pub(crate) notify: Notify,
    /// Somebody doubts the set.
    pub(crate) refresh: AtomicBool,
    /// A connect failed, or succeeded again.
    pub(crate) alarm: AtomicBool,
}

/// How requests behave. Defaults and reasons: [`Builder`](crate::Builder).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) initial_timeout: Duration,
    pub(crate) wait_when_empty: Duration,
    pub(crate) max_attempts: usize,
}

impl<S> Shared<S> {
    pub(crate) fn new(status: Status, signals: Arc<Signals>, settings: Settings) -> Self {
        let snapshot = Snapshot::empty();
        Self {
            changed: watch::Sender::new(Arc::clone(snapshot.set())),
            snapshot: ArcSwap::from_pointee(snapshot),
            status: ArcSwap::from_pointee(status),
            signals,
            settings,
        }
    }

    /// Hands what is new to the readers. Called by the driver alone.
    ///
    /// First the set, then the status, then the wake-up: who is woken finds both.
    pub(crate) fn publish(&self, snapshot: Option<Snapshot<S>>, status: &Status) {
        let set = snapshot.map(|snapshot| {
            let set = Arc::clone(snapshot.set());
            self.snapshot.store(Arc::new(snapshot));
            set
        });
        let before = self.status.load();
        let told = (status.is_resolved() && !before.is_resolved())
            || (status.unobserved() == 0 && before.unobserved() > 0);
        if set.is_some() || !before.is_same(status) {
            self.status.store(Arc::new(status.clone()));
        }
        match set {
            Some(set) => {
                self.changed.send_replace(set);
            }
            None if told => self.wake(),
            None => {}
        }
    }

    /// Lets those who wait look again.
    fn wake(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Nobody will publish any more. Whoever waits must not wait for ever.
    pub(crate) fn close(&self) {
        let status = Status::clone(&self.status.load());
        self.status.store(Arc::new(status.close()));
        self.wake();
    }

    /// Why a pick from this set gave nothing.
    pub(super) fn nothing_picked(&self, set: &EndpointSet) -> PickError {
        let status = self.status.load_full();
        if !set.is_empty() {
            PickError::NoCandidate(status)
        } else if status.is_closed() {
            PickError::Closed(status)
        } else if status.is_resolved() {
            PickError::NoEndpoints(status)
        } else {
            PickError::Unresolved(status)
        }
    }
}

impl<S> Drop for Shared<S> {
    /// The last handle is gone: the driver notices, and ends.
    fn drop(&mut self) {
        self.signals.notify.notify_one();
    }
}

impl Signals {
    /// A connect to the endpoint failed.
    pub(crate) fn unreachable(&self, endpoint: &Endpoint) {
        endpoint.refused();
        self.alarm();
    }

    /// A connect to the endpoint succeeded.
    pub(crate) fn reached(&self, endpoint: &Endpoint) {
        if endpoint.connected() {
            self.alarm();
        }
    }

    /// Somebody doubts the set.
    pub(crate) fn refresh(&self) {
        self.refresh.store(true, Relaxed);
        self.notify.notify_one();
    }

    pub(crate) fn alarm(&self) {
        self.alarm.store(true, Relaxed);
        self.notify.notify_one();
    }
}
