//! The handle: picks endpoints, tells what is known, asks for more.

use std::{
    fmt,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use crate::{
    endpoint::Endpoint,
    policy::Policy,
    registry::{Snapshot, Status},
    set::{EndpointSet, indices_of},
};

mod changes;
mod error;
mod pick;
mod shared;
mod view;

pub use changes::{Change, Changes};
pub use error::PickError;
pub use pick::{Pick, Pod};
pub(crate) use shared::{Settings, Shared, Signals, Wait};

/// A load-balanced service: cheap to clone, used from any thread.
///
/// `S` is what the balancer keeps for each endpoint: `()` for programs that dial by themselves, a
/// client for those that call. Where `S` is a tower service, so is the balancer.
///
/// Clones share one endpoint set, one resolver loop and the policy. When the last is dropped, the
/// loop ends. An idle clone keeps no removed pod's connection open.
///
/// ```
/// use headless_lb::{Balancer, Fixed};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pods = (1..=3).map(|i| SocketAddr::from(([127, 0, 0, i], 5432)));
/// let db = Balancer::builder(Fixed::new(pods)).spawn();
/// db.resolved().await?;
///
/// let pick = db.pick()?;
/// println!("connect to {}", pick.addr()); // counted as in flight until `pick` is dropped
/// # Ok(())
/// # }
/// ```
pub struct Balancer<S = ()> {
    shared: Arc<Shared<S>>,
    policy: Arc<dyn Policy>,
}

impl<S: Clone> Balancer<S> {
    /// Picks an endpoint by the handle's policy: no lock, no allocation, no await.
    ///
    /// # Errors
    ///
    /// [`PickError`] says whether to wait, to fail over or to give up.
    pub fn pick(&self) -> Result<Pick<S>, PickError> {
        self.pick_with(None, &[])
    }

    /// Picks an endpoint for a key, for policies that look at it
    /// ([`Candidates::key`](crate::Candidates::key)); the others ignore it.
    ///
    /// The hash of a key is the same in every process of the same build of this crate.
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick).
    pub fn pick_for(&self, key: impl Hash) -> Result<Pick<S>, PickError> {
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        self.pick_with(Some(hasher.hash_one(key)), &[])
    }

    /// Picks up to `n` distinct endpoints, in the policy's order: fewer if there are not so many.
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick), if not even one can be picked (and `n` is not 0).
    pub fn pick_many(&self, n: usize) -> Result<Vec<Pick<S>>, PickError> {
        let snapshot = self.shared.snapshot.load();
        let available = snapshot.set().available();
        let (mut picks, mut excluded) = (Vec::new(), Vec::new());
        while picks.len() < n {
            let candidates = available.excluding(&excluded);
            let Some(index) = self.policy.pick(candidates).map(|choice| choice.index()) else {
                break;
            };
            picks.extend(self.take(&snapshot, index));
            let place = excluded.partition_point(|&other| other < index);
            excluded.insert(place, index);
        }
        if picks.is_empty() && n > 0 {
            return Err(self.shared.nothing_picked(available));
        }
        Ok(picks)
    }

    /// The pod with this name (`"db-0"`) or StatefulSet ordinal (`0`).
    ///
    /// Names come from SRV records: use [`Dns::srv`](crate::Dns::srv). A pod that refuses connections
    /// is returned too: there is no other one of this name.
    ///
    /// # Errors
    ///
    /// [`PickError::NoSuchPod`] if the set has none, else as [`pick`](Self::pick).
    pub fn pod<'p>(&self, pod: impl Into<Pod<'p>>) -> Result<Pick<S>, PickError> {
        let pod = pod.into();
        let snapshot = self.shared.snapshot.load();
        let candidates = snapshot.set().reachable();
        if candidates.is_empty() {
            return Err(self.shared.nothing_picked(candidates));
        }
        let place = candidates.iter().position(|endpoint| pod.is(endpoint));
        let index = place
            .and_then(|place| candidates.choose(place))
            .map(|choice| choice.index());
        index
            .and_then(|index| self.take(&snapshot, index))
            .ok_or_else(|| PickError::NoSuchPod {
                pod: pod.to_string().into(),
                status: self.shared.status.load_full(),
            })
    }

    /// Picks by the policy, leaving out the endpoints that this request tried already. When the
    /// available ones are used up, ejected ones are tried too: a connect that may fail beats none.
    pub(crate) fn pick_with(
        &self,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
    ) -> Result<Pick<S>, PickError> {
        let snapshot = self.shared.snapshot.load();
        let set = snapshot.set();
        let available = set.available().with_key(key);
        let index = if tried.is_empty() {
            self.policy.pick(available).map(|choice| choice.index())
        } else {
            let excluded = indices_of(set, tried);
            let rest = available.excluding(&excluded);
            let rest = rest.or(set.reachable().with_key(key).excluding(&excluded));
            self.policy.pick(rest).map(|choice| choice.index())
        };
        match index.and_then(|index| self.take(&snapshot, index)) {
            Some(pick) => Ok(pick),
            None => Err(self.shared.nothing_picked(available)),
        }
    }

    /// The endpoint and its service, from one snapshot by one index.
    fn take(&self, snapshot: &Snapshot<S>, index: usize) -> Option<Pick<S>> {
        Some(Pick {
            service: snapshot.service(index)?.clone(),
            in_flight: snapshot.set().at(index)?.begin(),
        })
    }
}

impl<S> Balancer<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, policy: Arc<dyn Policy>) -> Self {
        Self { shared, policy }
    }

    /// The same service through another policy: one set, one resolver loop, another eye.
    ///
    /// ```
    /// # use headless_lb::{Balancer, Fixed, LeastRequest, Primary, Replica};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let db = Balancer::builder(Fixed::new(Vec::<std::net::SocketAddr>::new())).spawn();
    /// let writer = db.with_policy(Primary);
    /// let readers = db.with_policy(Replica(LeastRequest::new()));
    /// # let _ = (writer, readers); }
    /// ```
    #[must_use]
    pub fn with_policy(&self, policy: impl Policy) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            policy: Arc::new(policy),
        }
    }

    /// The endpoints now. Holding the set keeps no connection open.
    pub fn endpoints(&self) -> Arc<EndpointSet> {
        Arc::clone(self.shared.snapshot.load().set())
    }

    /// How discovery is doing.
    pub fn status(&self) -> Arc<Status> {
        self.shared.status.load_full()
    }

    /// Changes of the set, from what it is now: the first change adds all present endpoints.
    ///
    /// A slow reader sees several changes as one, and never blocks the others.
    pub fn subscribe(&self) -> Changes {
        Changes::new(self.shared.changed.subscribe())
    }

    /// Waits until there is an endpoint, at most the builder's
    /// [`initial_timeout`](crate::Builder::initial_timeout).
    ///
    /// # Errors
    ///
    /// When the time is over: [`PickError::Unresolved`] or [`PickError::NoEndpoints`], with the cause
    /// that DNS gave. At once: [`PickError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn resolved(&self) -> Result<(), PickError> {
        self.shared
            .wait(
                self.shared.settings.initial_timeout,
                self.shared.settings.initial_timeout,
            )
            .await
    }

    /// Asks the source again soon: a hint for when something seems wrong. Calls are coalesced, and
    /// questions are at least 1 s apart.
    pub fn refresh(&self) {
        self.shared.signals.refresh.store(true, Relaxed);
        self.shared.signals.notify.notify_one();
    }

    /// Reports that connecting to an endpoint failed. It is set aside for a moment (100 ms, doubling
    /// up to 10 s), and the source is asked again. The balancer's own services do this themselves;
    /// call it if you dial by yourself.
    pub fn unreachable(&self, endpoint: &Endpoint) {
        self.shared.signals.unreachable(endpoint);
    }

    /// Reports that connecting succeeded, which ends the row of failures.
    pub fn reached(&self, endpoint: &Endpoint) {
        self.shared.signals.reached(endpoint);
    }

    pub(crate) fn max_attempts(&self) -> usize {
        self.shared.settings.max_attempts
    }
}

impl<S: Send + Sync + 'static> Balancer<S> {
    /// What to wait for after a pick failed; `None` to give up at once.
    pub(crate) fn wait_for(&self, error: &PickError) -> Option<Wait> {
        let Settings {
            initial_timeout,
            wait_when_empty,
            ..
        } = self.shared.settings;
        let patience = match error {
            PickError::Unresolved(_) => initial_timeout,
            PickError::NoEndpoints(_) => wait_when_empty,
            _ => Duration::ZERO,
        };
        if patience.is_zero() {
            return None;
        }
        let shared = Arc::clone(&self.shared);
        Some(Box::pin(async move {
            shared.wait(initial_timeout, wait_when_empty).await
        }))
    }
}

impl<S> Clone for Balancer<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            policy: Arc::clone(&self.policy),
        }
    }
}

impl<S> fmt::Debug for Balancer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer")
            .field("status", &self.shared.status.load())
            .field("endpoints", self.shared.snapshot.load().set())
            .finish_non_exhaustive()
    }
}
