//! What the handles share and the driver writes.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    PickError,
    primary::{Epochs, Waiters},
};
use crate::{
    hint::Hint,
    meter::Meter,
    policy::Policy,
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
    /// The epoch of the newest snapshot, for connections that were stamped with an older one.
    pub(super) epochs: Epochs,
    pub(super) waiters: Waiters,
    /// Wakes those who wait for a replica to come as far as they need.
    pub(super) observed: Notify,
    /// Policies that want to see each set before it is published.
    preparing: ArcSwap<Vec<Weak<dyn Policy>>>,
    pub(super) signals: Arc<Signals>,
    /// The one of the signals, nearer to picks.
    pub(super) meter: Meter,
    pub(super) settings: Settings,
}

/// The way of a request while there is no endpoint: its one allocation.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Result<(), PickError>> + Send>>;

/// What the driver is told by requests.
#[derive(Debug)]
pub(crate) struct Signals {
    pub(crate) notify: Notify,
    /// Somebody doubts the set.
    pub(crate) refresh: AtomicBool,
    /// An operator restored the data.
    pub(crate) forget_term: AtomicBool,
    /// What errors of the application's drivers hint at. A few are enough: each makes probes look.
    hints: mpsc::Sender<Reported>,
    /// Where the service's metrics go.
    pub(crate) meter: Meter,
}

/// A hint, and whose error it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reported {
    pub(crate) from: Option<Stamp>,
    pub(crate) hint: Hint,
}

/// To whom a connection was made, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    pub(crate) endpoint: u64,
    pub(crate) epoch: u64,
}

/// How requests behave. Defaults and reasons: [`Builder`](crate::Builder).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) initial_timeout: Duration,
    pub(crate) wait_when_empty: Duration,
    pub(crate) max_attempts: usize,
    /// Whether anybody asks who the primary is.
    pub(crate) is_probed: bool,
}

impl<S> Shared<S> {
    pub(crate) fn new(status: Status, signals: Arc<Signals>, settings: Settings) -> Self {
        let snapshot = Snapshot::empty();
        Self {
            changed: watch::Sender::new(Arc::clone(snapshot.set())),
            snapshot: ArcSwap::from_pointee(snapshot),
            status: ArcSwap::from_pointee(status),
            epochs: Epochs::default(),
            waiters: Waiters::default(),
            observed: Notify::new(),
            meter: signals.meter.clone(),
            preparing: ArcSwap::default(),
            signals,
            settings,
        }
    }

    /// Hands what is new to the readers. Called by the driver alone.
    ///
    /// First the set, then the status, then the epoch and the wake-up: who is woken by either finds both.
    pub(crate) fn publish(&self, snapshot: Option<Snapshot<S>>, status: &Status) {
        let set = snapshot.map(|snapshot| {
            let set = Arc::clone(snapshot.set());
            let asked = self.preparing.load_full();
            prepare_all(&*asked, &set);
            self.snapshot.store(Arc::new(snapshot));
            // A handle made meanwhile may have found the set before: it has told of its policy by now, or it finds this one.
            fence(SeqCst);
            let asking = self.preparing.load();
            let is_new = |policy: &&_| !asked.iter().any(|one| Weak::ptr_eq(one, policy));
            prepare_all(asking.iter().filter(is_new), &set);
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
                // After the snapshot: who has read the newer one is never told that it is lost.
                self.epochs
                    .store(set.reign().epoch, set.primary().is_some());
                self.changed.send_replace(set);
            }
            None if told => self.wake(),
            None => {}
        }
    }

    /// A policy of a new handle: prepared for the set that is there, and for those that come if it asks for that.
    pub(super) fn prepare(&self, policy: &Arc<dyn Policy>) {
        let set = Arc::clone(self.snapshot.load().set());
        if !policy.prepare(&set) {
            return;
        }
        self.preparing.rcu(|policies| {
            let live = policies.iter().filter(|one| one.strong_count() > 0);
            let mut policies: Vec<_> = live.cloned().collect();
            policies.push(Arc::downgrade(policy));
            policies
        });
        // One that was published meanwhile did not know of this policy. The other half of the agreement is in `publish`.
        fence(SeqCst);
        let newest = Arc::clone(self.snapshot.load().set());
        if newest.id() != set.id() {
            policy.prepare(&newest);
        }
    }

    /// Whether a primary is accepted.
    pub(crate) fn has_primary(&self) -> bool {
        self.snapshot.load().set().primary().is_some()
    }

    /// The accepted primary was proved to be it.
    pub(crate) fn confirm(&self, at: Instant) {
        self.epochs.confirm(at);
    }

    /// A probe saw something.
    pub(crate) fn observed(&self) {
        self.observed.notify_waiters();
    }

    /// Those who wait for a primary.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Lets those who wait look again.
    fn wake(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Nobody will publish any more. Whoever waits must not wait for ever.
    pub(crate) fn close(&self) {
        let status = Status::clone(&self.status.load());
        self.status.store(Arc::new(status.close()));
        // Nobody observes any more, and a claim that nobody renews is none.
        self.epochs.close();
        self.waiters.close();
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

fn prepare_all<'p>(policies: impl IntoIterator<Item = &'p Weak<dyn Policy>>, set: &EndpointSet) {
    for policy in policies.into_iter().filter_map(Weak::upgrade) {
        policy.prepare(set);
    }
}

impl<S> Drop for Shared<S> {
    /// The last handle is gone: the driver notices, and ends.
    fn drop(&mut self) {
        if self.status.load().is_closed() {
            // It has ended already.
            self.meter.ended();
        }
        self.signals.notify.notify_one();
    }
}

impl Signals {
    /// Those of the service of this name, with what the driver receives hints from.
    pub(crate) fn new(service: &str) -> (Self, mpsc::Receiver<Reported>) {
        let (hints, receiver) = mpsc::channel(16);
        let signals = Self {
            notify: Notify::new(),
            refresh: AtomicBool::new(false),
            forget_term: AtomicBool::new(false),
            hints,
            meter: Meter::new(service),
        };
        (signals, receiver)
    }

    /// An error of the application's driver hints at something. Who reports never waits: with so many
    /// hints unread, one more says nothing new.
    pub(crate) fn hint(&self, from: Option<Stamp>, hint: Hint) {
        // What changes nothing must not take the place of what does.
        if hint != Hint::Overload {
            let _ = self.hints.try_send(Reported { from, hint });
        }
    }

    /// Lower terms are right from now on.
    pub(crate) fn forget_term(&self) {
        self.forget_term.store(true, Relaxed);
        self.notify.notify_one();
    }

    /// Somebody doubts the set.
    pub(crate) fn refresh(&self) {
        self.refresh.store(true, Relaxed);
        self.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::{OnceLock, atomic::AtomicU64},
    };

    use super::*;
    use crate::{
        endpoint::Endpoint,
        registry::{Config, Registry},
        resolve::Resolution,
        set::{Candidates, Choice},
    };

    /// Remembers the last set that it was prepared for.
    #[derive(Default)]
    struct Prepared(AtomicU64);

    impl Policy for Prepared {
        fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
            candidates.choose(0)
        }

        fn prepare(&self, set: &EndpointSet) -> bool {
            self.0.store(set.id(), Relaxed);
            true
        }
    }

    /// Makes a handle with another policy while a set is being published.
    struct Meanwhile {
        shared: Weak<Shared<()>>,
        other: Arc<dyn Policy>,
        once: OnceLock<()>,
    }

    impl Policy for Meanwhile {
        fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
            candidates.choose(0)
        }

        fn prepare(&self, set: &EndpointSet) -> bool {
            if !set.is_empty() {
                let shared = self.shared.upgrade().unwrap();
                self.once.get_or_init(|| shared.prepare(&self.other));
            }
            true
        }
    }

    #[test]
    fn a_policy_of_a_handle_that_is_made_while_a_set_is_published_is_prepared_for_that_set() {
        let now = Instant::now();
        let mut registry = Registry::new("web", Config::default(), |_: &Arc<Endpoint>| (), now);
        let (signals, _hints) = Signals::new("test");
        let settings = Settings {
            initial_timeout: Duration::ZERO,
            wait_when_empty: Duration::ZERO,
            max_attempts: 1,
            is_probed: false,
        };
        let status = registry.status().clone();
        let shared = Arc::new(Shared::new(status, Arc::new(signals), settings));
        let other = Arc::new(Prepared::default());
        let meanwhile: Arc<dyn Policy> = Arc::new(Meanwhile {
            shared: Arc::downgrade(&shared),
            other: Arc::clone(&other) as Arc<dyn Policy>,
            once: OnceLock::new(),
        });
        shared.prepare(&meanwhile);
        registry.on_asked(now);
        let only = SocketAddr::from(([10, 0, 0, 1], 80));
        registry.on_answer(now, Ok(Resolution::new([only])));
        let found = registry.publish().unwrap().into_snapshot();
        let id = found.set().id();
        shared.publish(Some(found), registry.status());
        assert_eq!(other.0.load(Relaxed), id);
    }
}
