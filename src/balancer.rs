//! The handle: picks endpoints, tells what is known, asks for more.

use std::{fmt, hash::Hash, pin::pin, sync::Arc, time::Duration};

use arc_swap::Guard;
use tokio::time::{Instant, timeout_at};

use crate::{
    endpoint::Endpoint,
    key::hash_of,
    meter::Picked,
    outcome::Cause,
    policy::Policy,
    registry::{Snapshot, Status},
    set::{Candidates, EndpointSet, indices_of},
};

mod changes;
mod error;
mod explain;
mod pick;
mod primary;
mod reading;
mod shared;
mod view;

pub use changes::{Change, Changes};
pub use error::PickError;
pub use explain::{Explained, Explanation};
pub use pick::{Pick, Pod};
pub(crate) use primary::Serving;
pub use primary::{Fenced, NoPrimary, NoPrimaryKind, PrimaryChanges, PrimaryView, Writer};
pub use reading::Written;
pub(crate) use shared::{Reported, Settings, Shared, Signals, Wait};

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
    /// What the policy says to that, at hand.
    is_timed: bool,
    /// The hash of what this handle is [for](Balancer::for_key).
    key: Option<u64>,
}

/// Whether the probe has been heard of each endpoint. A status without endpoints is older than the set
/// that has some, and tells nothing of them.
fn knows_roles(status: &Status) -> bool {
    status.endpoints() > 0 && status.unobserved() == 0
}

/// For asking a policy whether it takes anything at all: one that goes by keys wants to see one.
const ANY_KEY: Option<u64> = Some(0);

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
    /// The hash of a string, of bytes or of a number is frozen: the same in every process, on every platform and in
    /// every version of this crate. That of other types is what they give to a [`Hasher`](std::hash::Hasher), in order.
    ///
    /// For whole requests, and for several picks: [`for_key`](Self::for_key).
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick).
    pub fn pick_for(&self, key: impl Hash) -> Result<Pick<S>, PickError> {
        self.pick_with(Some(hash_of(key)), &[])
    }

    /// Picks up to `n` distinct endpoints, in the policy's order: fewer if there are not so many.
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick), if not even one can be picked (and `n` is not 0).
    pub fn pick_many(&self, n: usize) -> Result<Vec<Pick<S>>, PickError> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let now = self.now();
        let picked = self.in_newest(|snapshot| {
            let (mut picks, mut excluded) = (Vec::new(), Vec::new());
            while picks.len() < n {
                let available = snapshot.set().available().with_key(self.key);
                let candidates = available.excluding(&excluded);
                let Some(index) = self.choose_from(candidates.with_now(now)) else {
                    break;
                };
                picks.extend(self.take(snapshot, index, now));
                let place = excluded.partition_point(|&other| other < index);
                excluded.insert(place, index);
            }
            (!picks.is_empty()).then_some(picks)
        });
        self.count_nothing(picked.as_ref().err());
        picked
    }

    /// The pod with this name (`"db-0"`) or StatefulSet ordinal (`0`).
    ///
    /// Names come from SRV records: use [`Dns::srv`](crate::Dns::srv). A pod that refuses connections
    /// is returned too: there is no other one of this name. A rejected one is not.
    ///
    /// # Errors
    ///
    /// [`PickError::NoSuchPod`] if the set has none, else as [`pick`](Self::pick).
    pub fn pod<'p>(&self, pod: impl Into<Pod<'p>>) -> Result<Pick<S>, PickError> {
        let (pod, now) = (pod.into(), self.now());
        let picked = self.in_newest(|snapshot| {
            let candidates = snapshot.set().reachable();
            let place = candidates.iter().position(|endpoint| pod.is(endpoint))?;
            self.shared.meter.picked(Picked::Unknown);
            self.part(snapshot, candidates.choose(place)?.index(), now)
        });
        let picked = picked.map_err(|error| match error {
            PickError::NoCandidate(status) => PickError::NoSuchPod {
                pod: pod.to_string().into(),
                status,
            },
            error => error,
        });
        self.count_nothing(picked.as_ref().err());
        picked
    }

    /// Picks by the policy, leaving out the endpoints that this request tried already. When the
    /// available ones are used up, ejected ones are tried too: a connect that may fail beats none.
    pub(crate) fn pick_with(
        &self,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
    ) -> Result<Pick<S>, PickError> {
        if !tried.is_empty() {
            return self.pick_another_with(key, tried);
        }
        let (now, snapshot) = (self.now(), self.shared.snapshot.load());
        if let Some(pick) = self.first(&snapshot, key, now) {
            return Ok(pick);
        }
        let picked = self.in_newer(snapshot, |newer| self.first(newer, key, now));
        self.count_nothing(picked.as_ref().err());
        picked
    }

    /// The policy's choice from all that are available. Always inlined: a pick would spend a tenth of its instructions on
    /// handing over what this returns.
    #[inline(always)]
    fn first(
        &self,
        snapshot: &Snapshot<S>,
        key: Option<u64>,
        now: Option<Instant>,
    ) -> Option<Pick<S>> {
        let index = self.choose_first(snapshot.set(), key, now)?;
        self.take(snapshot, index, now)
    }

    /// As [`pick_with`](Self::pick_with), where something was tried. Out of line: it would make room for itself in every pick.
    #[cold]
    #[inline(never)]
    fn pick_another_with(
        &self,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
    ) -> Result<Pick<S>, PickError> {
        let now = self.now();
        let picked = self.in_newest(|snapshot| {
            let index = self.choose(snapshot.set(), key, tried, now)?;
            self.take(snapshot, index, now)
        });
        if picked.is_ok() {
            self.shared.meter.retried(false);
        }
        picked
    }

    /// As [`pick_with`](Self::pick_with), for who counts by himself what he picks, and over what it goes.
    #[cfg(feature = "http")]
    pub(crate) fn pick_uncounted(
        &self,
        tried: &[Arc<Endpoint>],
    ) -> Result<(Pick<S>, Picked), PickError> {
        let now = self.now();
        self.in_newest(|snapshot| {
            let index = self.choose(snapshot.set(), None, tried, now)?;
            let picked = Picked::of(snapshot.set().is_ejected(index));
            Some((self.part(snapshot, index, now)?, picked))
        })
    }

    /// As [`pick_uncounted`](Self::pick_uncounted), but not from those set aside while others are available: for a
    /// request that an endpoint has already.
    #[cfg(feature = "http")]
    pub(crate) fn pick_another(
        &self,
        tried: &[Arc<Endpoint>],
    ) -> Result<(Pick<S>, Picked), PickError> {
        let now = self.now();
        self.in_newest(|snapshot| {
            let excluded = indices_of(snapshot.set(), tried);
            let available = snapshot.set().available().with_key(self.key);
            let rest = available.excluding(&excluded);
            let index = self.choose_from(rest.with_now(now))?;
            let picked = Picked::of(snapshot.set().is_ejected(index));
            Some((self.part(snapshot, index, now)?, picked))
        })
    }

    /// Asks the picker for a snapshot's endpoint. A set that is published while the one before gives
    /// nothing is looked at too: the reason for nothing must not be older than the set.
    fn in_newest<T>(&self, picker: impl Fn(&Snapshot<S>) -> Option<T>) -> Result<T, PickError> {
        let snapshot = self.shared.snapshot.load();
        match picker(&snapshot) {
            Some(picked) => Ok(picked),
            None => self.in_newer(snapshot, picker),
        }
    }

    /// The same, where this snapshot gave nothing.
    #[cold]
    #[inline(never)]
    fn in_newer<T>(
        &self,
        mut snapshot: Guard<Arc<Snapshot<S>>>,
        picker: impl Fn(&Snapshot<S>) -> Option<T>,
    ) -> Result<T, PickError> {
        loop {
            let error = self.shared.nothing_picked(snapshot.set());
            let newer = self.shared.snapshot.load();
            if newer.set().generation() == snapshot.set().generation() {
                return Err(error);
            }
            snapshot = newer;
            if let Some(picked) = picker(&snapshot) {
                return Ok(picked);
            }
        }
    }

    /// The same, counted.
    #[inline]
    fn take(&self, snapshot: &Snapshot<S>, index: usize, now: Option<Instant>) -> Option<Pick<S>> {
        let is_ejected = snapshot.set().is_ejected(index);
        self.shared.meter.picked(Picked::of(is_ejected));
        self.part(snapshot, index, now)
    }

    /// The endpoint and its service, from one snapshot by one index.
    #[inline]
    fn part(&self, snapshot: &Snapshot<S>, index: usize, now: Option<Instant>) -> Option<Pick<S>> {
        let service = snapshot.service(index)?.clone();
        let mut in_flight = snapshot.set().at(index)?.begin();
        if let Some(now) = now {
            in_flight.sent_at(now);
        }
        Some(Pick { service, in_flight })
    }
}

impl<S> Balancer<S> {
    /// The index of the policy's choice.
    fn choose(
        &self,
        set: &EndpointSet,
        key: Option<u64>,
        tried: &[Arc<Endpoint>],
        now: Option<Instant>,
    ) -> Option<usize> {
        if tried.is_empty() {
            return self.choose_first(set, key, now);
        }
        let (key, excluded) = (key.or(self.key), indices_of(set, tried));
        let available = set.available().with_key(key).with_now(now);
        let rest = available.excluding(&excluded);
        let reachable = set.reachable().with_key(key).with_now(now);
        self.choose_from(rest.or(reachable.excluding(&excluded)))
    }

    /// The same, where nothing was tried.
    #[inline]
    fn choose_first(
        &self,
        set: &EndpointSet,
        key: Option<u64>,
        now: Option<Instant>,
    ) -> Option<usize> {
        let key = key.or(self.key);
        self.choose_from(set.available().with_key(key).with_now(now))
    }

    #[inline]
    fn choose_from(&self, candidates: Candidates<'_>) -> Option<usize> {
        Some(candidates.pick(&*self.policy)?.index())
    }

    /// When a request through this handle's policy begins, if that is of interest.
    #[inline]
    pub(super) fn now(&self) -> Option<Instant> {
        self.is_timed.then(Instant::now)
    }

    /// A handle whose policy is prepared for the set that is there, and for those that come.
    pub(crate) fn new(shared: Arc<Shared<S>>, policy: Arc<dyn Policy>) -> Self {
        shared.prepare(&policy);
        Self {
            shared,
            is_timed: policy.is_timed(),
            policy,
            key: None,
        }
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
        let balancer = Self::new(Arc::clone(&self.shared), Arc::new(policy));
        Self {
            key: self.key,
            ..balancer
        }
    }

    /// The same service for one key: all picks and calls through this handle are for it, repeated ones too. For
    /// policies that look at keys ([`Rendezvous`](crate::Rendezvous), [`Maglev`](crate::Maglev)); the others ignore it.
    ///
    /// As cheap as a clone, so one may be made for each request. What a key is, is for the caller to know; behind other
    /// layers, a service at the bottom of the stack tells it from the request:
    ///
    /// ```
    /// # use headless_lb::{Balancer, Fixed, Rendezvous};
    /// use std::{convert::Infallible, net::SocketAddr, sync::Arc};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    /// # let pods = Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))]);
    /// # let call = |_: &Arc<headless_lb::Endpoint>| service_fn(async |user: u64| Ok::<_, Infallible>(user));
    /// let carts = Balancer::builder(pods).policy(Rendezvous::new()).spawn_with(call);
    /// let by_user = service_fn(move |user: u64| carts.for_key(user).oneshot(user));
    ///
    /// let stack = ServiceBuilder::new().timeout(std::time::Duration::from_secs(2)).service(by_user);
    /// stack.oneshot(7).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// Over HTTP likewise: `catalog.for_key(user).oneshot(request)`; and for a gRPC client,
    /// `CatalogClient::with_origin(catalog.for_key(user), origin)`.
    #[must_use]
    pub fn for_key(&self, key: impl Hash) -> Self {
        Self {
            key: Some(hash_of(key)),
            ..self.clone()
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

    /// Waits until this handle's policy can pick an endpoint, at most the builder's
    /// [`initial_timeout`](crate::Builder::initial_timeout). For a handle over
    /// [`Primary`](crate::Primary): until there is a primary.
    ///
    /// # Errors
    ///
    /// When the time is over, what a pick says then, with the cause that DNS gave. At once:
    /// [`PickError::Closed`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn resolved(&self) -> Result<(), PickError> {
        let timeout = self.shared.settings.initial_timeout;
        self.wait(ANY_KEY, timeout, timeout).await
    }

    /// Waits until the policy picks something: at most `unknown` while the source or a probe has not
    /// told yet, at most `known` while what they told is that there is nothing.
    async fn wait(
        &self,
        key: Option<u64>,
        unknown: Duration,
        known: Duration,
    ) -> Result<(), PickError> {
        let start = Instant::now();
        let mut changed = self.shared.changed.subscribe();
        loop {
            // A policy that goes by the lag may take one although the set stays.
            let mut observed = pin!(self.shared.observed.notified());
            observed.as_mut().enable();
            // The set and the reason before the wake-up: none is missed.
            let error = {
                let snapshot = self.shared.snapshot.load();
                if self.choose(snapshot.set(), key, &[], None).is_some() {
                    return Ok(());
                }
                self.shared.nothing_picked(snapshot.set())
            };
            let patience = match &error {
                PickError::Closed(_) => return Err(error),
                PickError::Unresolved(_) => unknown,
                PickError::NoCandidate(status) if !knows_roles(status) => unknown,
                _ => known,
            };
            let woken = async {
                tokio::select! {
                    changed = changed.changed() => changed.is_ok(),
                    () = observed => true,
                }
            };
            match timeout_at(start + patience, woken).await {
                Ok(true) => {}
                // The driver published while the time ran out, or nothing came.
                Ok(false) | Err(_) => {
                    let snapshot = self.shared.snapshot.load();
                    let picked = self.choose(snapshot.set(), key, &[], None);
                    return picked
                        .map(|_| ())
                        .ok_or_else(|| self.shared.nothing_picked(snapshot.set()));
                }
            }
        }
    }

    /// Asks the source again soon: a hint for when something seems wrong. Calls are coalesced, and
    /// questions are at least 1 s apart.
    pub fn refresh(&self) {
        self.shared.signals.refresh();
    }

    /// Reports that connecting to an endpoint failed. It is set aside for a moment (100 ms, doubling
    /// up to 10 s), and the source is asked again. The balancer's own services do this themselves;
    /// call it if you dial by yourself.
    pub fn unreachable(&self, endpoint: &Endpoint) {
        endpoint.unreachable(Cause::Refused);
    }

    /// Reports that connecting succeeded, which ends the row of failures.
    pub fn reached(&self, endpoint: &Endpoint) {
        endpoint.reached();
    }

    /// Counts that a request found nothing to try.
    #[inline]
    pub(crate) fn count_nothing(&self, error: Option<&PickError>) {
        if let Some(error) = error {
            self.shared.meter.no_endpoint(error.label());
        }
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
            PickError::Closed(_) => return None,
            PickError::Unresolved(_) => initial_timeout,
            PickError::NoCandidate(status) if !knows_roles(status) => initial_timeout,
            _ => wait_when_empty,
        };
        if patience.is_zero() {
            return None;
        }
        let balancer = self.clone();
        Some(Box::pin(async move {
            balancer.wait(None, initial_timeout, wait_when_empty).await
        }))
    }
}

impl<S> Clone for Balancer<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            policy: Arc::clone(&self.policy),
            is_timed: self.is_timed,
            key: self.key,
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
