//! The handle: picks endpoints, tells what is known, asks for more.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher, Hash},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use crate::{
    endpoint::{Endpoint, InFlight},
    policy::Policy,
    registry::{Ago, Snapshot, Status},
    set::{Candidates, EndpointSet, Position, indices_of},
};

mod changes;
mod error;

pub use changes::{Change, Changes};
pub use error::PickError;

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

/// What all handles of one service share, and the driver writes.
pub(crate) struct Shared<S> {
    snapshot: ArcSwap<Snapshot<S>>,
    /// Replaced with every answer, also if the set stays: not read by picks that succeed.
    status: ArcSwap<Status>,
    /// Wakes those who wait for a set or follow its changes.
    changed: watch::Sender<Arc<EndpointSet>>,
    signals: Arc<Signals>,
    settings: Settings,
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
    /// The driver is gone.
    pub(crate) closed: AtomicBool,
}

/// How requests behave. Defaults and reasons: [`Builder`](crate::Builder).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) initial_timeout: Duration,
    pub(crate) wait_when_empty: Duration,
    pub(crate) max_attempts: usize,
}

/// An endpoint that was picked, and its service. The request counts as in flight until it is dropped.
#[must_use = "the request counts as ended when the pick is dropped"]
pub struct Pick<S = ()> {
    service: S,
    in_flight: InFlight,
}

// ===== impl Balancer =====

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
        let hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
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
        endpoint.refused();
        self.shared.signals.alarm();
    }

    /// Reports that connecting succeeded, which ends the row of failures.
    pub fn reached(&self, endpoint: &Endpoint) {
        if endpoint.connected() {
            self.shared.signals.alarm();
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

/// The view for people: a line on discovery, then a line for each endpoint.
///
/// ```text
/// db.prod.svc.cluster.local: 2 endpoints; answer SRV with TTL 30 s 1.2 s ago
///   pod   address          role     state      in flight  since
///   db-0  10.244.1.7:5432  primary  available          3  12 min
///   db-1  10.244.2.4:5432  replica  available          0  12 min
/// ```
impl<S> fmt::Display for Balancer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.endpoints();
        write!(f, "{}", self.shared.status.load())?;
        if set.is_empty() {
            return Ok(());
        }
        let widest = |lengths: &mut dyn Iterator<Item = usize>, title: usize| {
            lengths.fold(title, usize::max)
        };
        let name = widest(
            &mut set.iter().map(|e| e.name().map_or(1, str::len)),
            "pod".len(),
        );
        let addr = widest(
            &mut set.iter().map(|e| e.addr().to_string().len()),
            "address".len(),
        );
        write!(
            f,
            "\n  {:name$}  {:addr$}  role     state      in flight  since",
            "pod", "address"
        )?;
        for (position, endpoint) in set.positions() {
            let (role, state) = match position {
                Position::Primary => ("primary", "available"),
                Position::Replica => ("replica", "available"),
                Position::Unknown => ("-", "available"),
                Position::Ejected => ("-", "ejected"),
                Position::Rejected => ("-", "rejected"),
            };
            let pod = endpoint.name().unwrap_or("-");
            let (address, pending) = (endpoint.addr().to_string(), endpoint.pending());
            let since = Ago(endpoint.since());
            write!(
                f,
                "\n  {pod:name$}  {address:addr$}  {role:7}  {state:9}  {pending:9}  {since}"
            )?;
        }
        Ok(())
    }
}

// ===== impl Shared =====

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

    /// Hands a snapshot to the readers. Called by the driver alone.
    pub(crate) fn publish(&self, snapshot: Snapshot<S>) {
        let set = Arc::clone(snapshot.set());
        self.snapshot.store(Arc::new(snapshot));
        self.changed.send_replace(set);
    }

    /// Replaces the status, if it is another. Called by the driver alone, after
    /// [`publish`](Self::publish).
    pub(crate) fn tell(&self, status: &Status) {
        let before = self.status.load();
        if before.is_same(status) {
            return;
        }
        self.status.store(Arc::new(status.clone()));
        if status.is_resolved() && !before.is_resolved() {
            self.wake();
        }
    }

    /// Lets those who wait look again.
    pub(crate) fn wake(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Waits until a request may be picked for: at most `unresolved` before the first answer, at most
    /// `empty` while the set is known to be empty.
    pub(crate) async fn wait(
        &self,
        unresolved: Duration,
        empty: Duration,
    ) -> Result<(), PickError> {
        let start = Instant::now();
        let mut changed = self.changed.subscribe();
        loop {
            let error = {
                let snapshot = self.snapshot.load();
                let candidates = snapshot.set().available();
                if !candidates.is_empty() {
                    return Ok(());
                }
                self.nothing_picked(candidates)
            };
            let patience = match error {
                PickError::Unresolved(_) => unresolved,
                PickError::NoEndpoints(_) => empty,
                _ => return Err(error),
            };
            let deadline = start + patience;
            match timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(error),
                Err(_) => {
                    let snapshot = self.snapshot.load();
                    let candidates = snapshot.set().available();
                    return if candidates.is_empty() {
                        Err(self.nothing_picked(candidates))
                    } else {
                        Ok(())
                    };
                }
            }
        }
    }

    /// Why a pick from `candidates` gave nothing.
    fn nothing_picked(&self, candidates: Candidates<'_>) -> PickError {
        let status = self.status.load_full();
        if !candidates.is_empty() {
            PickError::NoCandidate(status)
        } else if self.signals.closed.load(Relaxed) {
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
    pub(crate) fn alarm(&self) {
        self.alarm.store(true, Relaxed);
        self.notify.notify_one();
    }
}

// ===== impl Pick =====

impl<S> Pick<S> {
    /// The endpoint that was picked.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }

    /// Its address, to dial.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.endpoint().addr()
    }

    /// Its service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Its service, to call.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// The service, and the guard that counts the request while it lives.
    pub fn into_parts(self) -> (S, InFlight) {
        (self.service, self.in_flight)
    }
}

impl<S> fmt::Debug for Pick<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pick").field(self.endpoint()).finish()
    }
}

/// A pod by name or StatefulSet ordinal: what [`Balancer::pod`] takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pod<'a> {
    /// By name: `db-0`.
    Name(&'a str),
    /// By ordinal: 0 for any name that ends in `-0`.
    Ordinal(u32),
}

impl Pod<'_> {
    fn is(&self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Name(name) => endpoint
                .name()
                .is_some_and(|own| own.eq_ignore_ascii_case(name)),
            Self::Ordinal(ordinal) => endpoint.ordinal() == Some(*ordinal),
        }
    }
}

impl fmt::Display for Pod<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ordinal(ordinal) => write!(f, "number {ordinal}"),
        }
    }
}

impl<'a> From<&'a str> for Pod<'a> {
    fn from(name: &'a str) -> Self {
        Self::Name(name)
    }
}

impl From<u32> for Pod<'_> {
    fn from(ordinal: u32) -> Self {
        Self::Ordinal(ordinal)
    }
}
