//! Putting a balancer together.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    backoff::FOREVER,
    balancer::{Balancer, Settings, Shared, Signals},
    check::Check,
    driver::{Checker, Driver, Prober, Probers, Subsetting},
    eject::Ejection,
    endpoint::Endpoint,
    policy::{Adaptive, Policy, Random},
    primary::OnConflict,
    probe::Probe,
    registry::{Config, EmptyMode, NewService, Registry},
    resolve::{Resolve, Source},
    subset::{Rule, Subset},
};

/// Builds a [`Balancer`]. Every setting has a default that needs no change in a cluster.
///
/// It can build several: they share the resolver and the policy, and nothing else. A policy that takes turns or remembers what
/// it picked ([`RoundRobin`](crate::RoundRobin), [`First`](crate::First)) or prepares tables ([`Maglev`](crate::Maglev)) serves one
/// service well, and several one at the expense of the other: make a builder for each then.
///
/// ```no_run
/// use headless_lb::{Balancer, Dns, LeastRequest};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let db = Balancer::builder(Dns::headless("db.prod.svc.cluster.local", 5432)?)
///     .policy(LeastRequest::new())
///     .spawn();
/// # let _ = db;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until it builds or spawns"]
pub struct Builder {
    source: Arc<dyn Source>,
    service: Arc<str>,
    policy: Arc<dyn Policy>,
    probers: Probers,
    subset: Option<Subset>,
    config: Config,
    settings: Settings,
    /// Of the jitter; the one in `config` is replaced.
    seed: Option<u64>,
}

impl Balancer<()> {
    /// Starts to build a balancer over what `resolver` finds.
    pub fn builder(resolver: impl Resolve) -> Builder {
        Builder {
            service: resolver.service().into(),
            source: Arc::new(resolver),
            policy: Arc::new(Adaptive::new()),
            probers: Probers::default(),
            subset: None,
            config: Config::default(),
            seed: None,
            settings: Settings {
                initial_timeout: Duration::from_secs(10),
                wait_when_empty: Duration::ZERO,
                max_attempts: 5,
                is_probed: false,
            },
        }
    }
}

impl Builder {
    /// How endpoints are picked. Default: [`Adaptive`], which needs no tuning.
    ///
    /// The reason is the simulation (`examples/policies`): no other policy comes as close to the best of each scenario, and where pods are unequal, slow
    /// by turns or fail, round robin and two random choices fail by tens of percent or take several times as
    /// long. What it costs is some 60 ns over 20 pods and, where the caller does not time requests anyway, two readings of the
    /// clock. For endpoints whose requests nobody [records](crate::Pick::record), as connections of a database, it is
    /// least requests in flight over all of them. Where shares must be exact, take [`RoundRobin`](crate::RoundRobin).
    pub fn policy(mut self, policy: impl Policy) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// Observes the role of each endpoint, for [`Primary`](crate::Primary) and
    /// [`Replica`](crate::Replica). Default: none, all roles unknown.
    pub fn probe(mut self, probe: impl Probe) -> Self {
        let probe: Arc<dyn Prober> = Arc::new(probe);
        self.config.probe_interval = Some(probe.interval());
        self.config.probe_timeout = probe.timeout();
        self.settings.is_probed = true;
        self.probers.roles = Some(probe);
        self
    }

    /// Asks each endpoint whether it is well, and sets those aside that are not. Default: none, for DNS lists only
    /// pods that the kubelet found ready, and requests find out by themselves; [`Check`] tells what one adds and costs.
    ///
    /// ```
    /// use headless_lb::{Balancer, Check, Fixed};
    /// use std::net::SocketAddr;
    ///
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// let pods = Fixed::new([7, 8].map(|host| SocketAddr::from(([10, 244, 1, host], 8080))));
    /// let web = Balancer::builder(pods).check(Check::http("/healthz")).spawn();
    /// # drop(web); }
    /// ```
    pub fn check(mut self, check: Check<impl Probe>) -> Self {
        let Check {
            probe,
            interval,
            timeout,
            rise,
            fall,
        } = check;
        self.config.check_rise = rise;
        self.config.check_fall = fall;
        self.probers.health = Some(Arc::new(Checker {
            probe,
            interval,
            timeout,
        }));
        self
    }

    /// Whom to believe of two that both say they are the primary, where nothing tells who came later. Default:
    /// [`OnConflict::PreferIncumbent`], for a switch that cannot be justified costs more than none.
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.config.on_conflict = on_conflict;
        self
    }

    /// Uses a part of the pods, where there are very many of them and of clients. Default: all. See
    /// [`subset`](crate::subset) for when and which.
    ///
    /// With a [probe](Self::probe) all pods are used still: the primary might be outside.
    pub fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    /// The name that errors and events give the service. Default: the resolver's.
    pub fn service_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.service = name.into();
        self
    }

    /// The longest time between two questions. Default 5 s, whatever the TTL says: cluster DNS says
    /// 30 s and answers fresh. Longer is staler; shorter is more load on DNS (pods times names divided
    /// by this, in queries a second). Values below [`min_interval`](Self::min_interval) count as that.
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.config.refresh_interval = interval;
        self
    }

    /// The shortest time between two answered questions, and between a [`refresh`](Balancer::refresh) and
    /// the answer before it (1 s at least). Default 1 s: CoreDNS permits `ttl 0`. At least 1 ms. After a
    /// failure the back-off begins with half of it on average.
    pub fn min_interval(mut self, interval: Duration) -> Self {
        self.config.min_interval = interval;
        self
    }

    /// Waits for the TTL of an answer, up to `cap`, instead of the refresh interval. Default off. For
    /// name servers that bill by query; the set is then up to `cap` stale for nothing.
    pub fn respect_ttl(mut self, cap: Duration) -> Self {
        self.config.respect_ttl = Some(cap);
        self
    }

    /// When to believe that a service that had endpoints has none. Default:
    /// [`EmptyMode::Confirm`], 3 answers over 10 s.
    pub fn empty(mut self, mode: EmptyMode) -> Self {
        self.config.empty = mode;
        self
    }

    /// Drops endpoints that no answer confirmed for this long, as when DNS is down. Default: never, as
    /// an old address that works beats none. At least two refresh intervals. 10 min is a good value where other services soon re-use
    /// addresses.
    pub fn max_stale(mut self, age: Duration) -> Self {
        self.config.max_stale = Some(age);
        self
    }

    /// How long a removed endpoint keeps its counters, in case it returns, and what is in flight on it.
    /// Default 30 s, the grace period of a terminating pod. Services that listen
    /// ([`NewService::removed`]) close idle connections at once and the others when this is over.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.linger = linger;
        self
    }

    /// Connects to a new endpoint before it takes requests: it joins the set once a connect to it has
    /// succeeded or failed (then set aside, as any that refuses), at the latest after `deadline`.
    ///
    /// Default off: inside a cluster a connect costs a request less than a millisecond, and an endpoint
    /// that waits is capacity that is missing. Turn it on where connects are dear, as with TLS or across
    /// zones; 1 s, linkerd's connect timeout, is a good value. Zero is off.
    ///
    /// No endpoint waits while no other takes requests, when it returns within
    /// [`linger`](Self::linger), or where its service does not connect by itself
    /// ([`NewService::warm`]). Removals never wait: an address that left DNS gets no new request.
    pub fn warm_up(mut self, deadline: Duration) -> Self {
        self.config.warm_up = Some(deadline);
        self
    }

    /// When requests that fail set their pod aside, and for how long. Default: [`Ejection::new`], five failures in a
    /// row. [`Ejection::off`] turns it off; pods that refuse connections are set aside in any case.
    pub fn eject(mut self, ejection: Ejection) -> Self {
        self.config.ejection = ejection;
        self
    }

    /// Brings a pod to its full share of the requests over this time, when it joins others or returns from being
    /// set aside: `max(0.10, max(t, 1 s) / window)` of it after `t` (Envoy's slow start, aggression 1).
    ///
    /// Default off: a pod is ready when its readiness probe says so, and [`Adaptive`](crate::Adaptive) finds out
    /// by itself how slow it is (pods that are 3 x slower for 5 s: p99 50 ms, round robin 134, in the simulation).
    /// Turn it on for pods that are slow at first, under the other policies; as long as they are slow, 10 to
    /// 60 s, is a good value. Zero is off.
    ///
    /// Where all pods are new, none is spared. Policies that mean one endpoint, by key or rank, are not led
    /// elsewhere, nor are requests for the primary.
    pub fn slow_start(mut self, window: Duration) -> Self {
        self.config.slow_start = Some(window);
        self
    }

    /// How long a call, or [`resolved`](Balancer::resolved), waits for the first answer. Default 10 s:
    /// name servers may still be starting with the node. Through a policy by role, a call also waits that
    /// long for the probe's first observations. Zero fails at once.
    pub fn initial_timeout(mut self, timeout: Duration) -> Self {
        self.settings.initial_timeout = timeout.min(FOREVER);
        self
    }

    /// How long a call waits while it is known that no endpoint will do: none there, or none of the role. Default zero: fail at once, so that
    /// the caller can answer 503. Set it for services that scale to zero and wake up.
    pub fn wait_when_empty(mut self, timeout: Duration) -> Self {
        self.settings.wait_when_empty = timeout.min(FOREVER);
        self
    }

    /// How many distinct endpoints a call tries whose request is still unsent. Default 5: a refused
    /// connect costs some microseconds, and a pod that refused is set aside for later calls. At least 1.
    pub fn max_attempts(mut self, attempts: usize) -> Self {
        self.settings.max_attempts = attempts.max(1);
        self
    }

    /// Seeds the jitter of questions and back-offs, for repeatable tests. Default: drawn anew for each
    /// balancer, so that clients never ask in step.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The handle and the driver, apart: nothing runs until the driver is polled.
    ///
    /// ```
    /// use headless_lb::{Balancer, Fixed};
    /// use std::net::SocketAddr;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pods = Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))]);
    /// let (balancer, driver) = Balancer::builder(pods).build();
    /// tokio::select! {
    ///     () = driver => unreachable!("a handle is alive"),
    ///     resolved = balancer.resolved() => resolved?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn build(&self) -> (Balancer<()>, Driver) {
        self.build_with(no_service)
    }

    /// As [`build`](Self::build), with a service for each endpoint.
    pub fn build_with<N: NewService>(&self, new_service: N) -> (Balancer<N::Service>, Driver) {
        self.build_signalling(|_| new_service)
    }

    /// As [`build_with`](Self::build_with), for services that report by themselves how their connects
    /// went.
    fn build_signalling<N: NewService>(
        &self,
        new_service: impl FnOnce(&Arc<Signals>) -> N,
    ) -> (Balancer<N::Service>, Driver) {
        let (signals, hints) = Signals::new(&self.service);
        let signals = Arc::new(signals);
        let mut config = self.config.clone();
        config.jitter_seed = self.seed.unwrap_or_else(|| Config::default().jitter_seed);
        let registry = Registry::new(
            Arc::clone(&self.service),
            config,
            new_service(&signals),
            Instant::now(),
        );
        let shared = Shared::new(
            registry.status().clone(),
            Arc::clone(&signals),
            self.settings,
        );
        let shared = Arc::new(shared);
        let driver = Driver::new(
            Arc::clone(&self.source),
            self.probers.clone(),
            self.subsetting(),
            registry,
            Arc::downgrade(&shared),
            signals,
            hints,
        );
        (Balancer::new(shared, Arc::clone(&self.policy)), driver)
    }

    fn subsetting(&self) -> Option<Subsetting> {
        let subset = self
            .subset
            .as_ref()
            .filter(|_| self.probers.roles.is_none())?;
        Some(match &subset.rule {
            Rule::Rendezvous(client) => Subsetting::by_rendezvous(*client, subset.size),
            Rule::Peers {
                source,
                service,
                own,
            } => {
                let peers = Self {
                    source: Arc::clone(source),
                    // Several balancers may have the same peers, and are told apart in metrics and events.
                    service: format!("{service} for {}", self.service).into(),
                    subset: None,
                    // Nobody picks a peer, and the policy is not to prepare for them.
                    policy: Arc::new(Random::new()),
                    // Who the others are is all that is asked of them.
                    probers: Probers::default(),
                    // Not in step with the questions about the pods.
                    seed: self.seed.map(|seed| !seed),
                    ..self.clone()
                };
                // Clients that restart together are all unready for a while.
                let peers = peers.empty(EmptyMode::KeepLast).build();
                Subsetting::by_peers(peers, *own, subset.size)
            }
        })
    }

    /// Builds, and spawns the driver on the current tokio runtime.
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`], outside a runtime.
    #[must_use = "discovery ends when the last handle is dropped"]
    pub fn spawn(&self) -> Balancer<()> {
        self.spawn_with(no_service)
    }

    /// As [`spawn`](Self::spawn), with a service for each endpoint, made when the endpoint appears.
    ///
    /// # Panics
    ///
    /// As [`tokio::spawn`], outside a runtime.
    #[must_use = "discovery ends when the last handle is dropped"]
    pub fn spawn_with<N: NewService>(&self, new_service: N) -> Balancer<N::Service> {
        self.spawn_signalling(|_| new_service)
    }

    pub(crate) fn spawn_signalling<N: NewService>(
        &self,
        new_service: impl FnOnce(&Arc<Signals>) -> N,
    ) -> Balancer<N::Service> {
        let (balancer, driver) = self.build_signalling(new_service);
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that starts the driver"
        )]
        tokio::spawn(driver);
        balancer
    }
}

fn no_service(_: &Arc<Endpoint>) {}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("service", &self.service)
            .field("subset", &self.subset)
            .field("config", &self.config)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
