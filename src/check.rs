//! Active health checks: each pod is asked whether it is well, beside the requests.

use std::{borrow::Cow, error::Error, fmt, future::Future, ops::RangeInclusive, time::Duration};

#[cfg(feature = "http2")]
use crate::probe::GrpcHealth;
use crate::{
    backoff::FOREVER,
    endpoint::Endpoint,
    probe::{HttpHealth, Observation, Probe, ProbeError, Role, Tcp},
};

mod checked;

pub(crate) use checked::Checked;

/// Three of them are less than the 30 s after which the kubelet calls a pod unready, by its own defaults: a check that
/// is slower tells nothing that DNS does not.
const INTERVAL: Duration = Duration::from_secs(5);

/// As the kubelet's `timeoutSeconds`.
const TIMEOUT: Duration = Duration::from_secs(1);

/// As HAProxy's `rise`.
pub(crate) const RISE: u32 = 2;

/// As HAProxy's `fall` and the kubelet's `failureThreshold`.
pub(crate) const FALL: u32 = 3;

/// Asks each pod whether it is well, again and again, and sets those aside that are not.
///
/// What is asked is a [`Probe`] whose role does not matter: `Ok` is healthy, `Err` is not. So every probe is a check
/// ([`Check::new`]), and the usual ones have a short name.
///
/// ```no_run
/// use headless_lb::{Balancer, Check, Dns};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let web = Balancer::builder(Dns::headless("web.prod.svc.cluster.local", 8080)?)
///     .check(Check::http("/healthz").interval(Duration::from_secs(10)))
///     .spawn();
/// # let _ = web;
/// # Ok(())
/// # }
/// ```
///
/// # Whether you need one
///
/// There is none by default. In a cluster DNS lists only pods whose readiness the kubelet has just asked for, and a
/// pod that refuses connections is set aside by the first request that finds out. A check adds what neither sees: a
/// path that is broken between this client and the pod, a service with so few requests that these tell nothing, pods
/// that nobody else asks (outside Kubernetes, or without a readiness probe), and what the pod answers to *you*.
///
/// It costs each pod one question per client and interval: 200 clients at the default 5 s ask every pod 40 times a
/// second, all of them together `clients x pods / 5 s`.
///
/// # The numbers
///
/// | | interval | timeout | rise | fall |
/// |---|---|---|---|---|
/// | `Check` | 5 s, +-20 % | 1 s | 2 | 3 |
/// | kubelet, readiness | 10 s | 1 s | 1 | 3 |
/// | HAProxy | 2 s | 2 s | 2 | 3 |
/// | Envoy | each of these must be given | | | |
///
/// (Kubernetes: "Configure Probes"; HAProxy: `inter`, `timeout check`, `rise`, `fall`; Envoy:
/// `config.core.v3.HealthCheck`.) By the defaults, a pod that hangs is set aside 11 to 21 s after it began to, and
/// one that is well again returns within 4 to 12 s. The kubelet finds out after 20 to 31 s by its own, and then DNS has to
/// tell.
///
/// # What becomes of a pod
///
/// - A pod is **healthy until it has failed `fall` times in a row**: whoever is in DNS was ready a moment ago, and a
///   new pod does not wait for a check. Where it should prove first that it can be reached, there is
///   [`warm_up`](crate::Builder::warm_up); its checks begin when it has joined. The first check comes at a random
///   time within one interval, so that pods are not asked all at once.
/// - No failure counts double, not even a refused connection: the connects of requests have a rule of their own for
///   that, and a listener that restarts should be back within a moment, not after two checks.
/// - An unhealthy pod is set aside ([`Position::Ejected`](crate::Position::Ejected)): it keeps its connections and
///   what is in flight, and is picked only if nothing else is left. It returns after `rise` successes in a row.
/// - **While fewer than half of the pods would remain, checks set nobody aside** (Envoy's panic; [`Status::is_panic`](crate::Status::is_panic)): then
///   it is more likely the check that is wrong, and a request that may fail beats one that must. Nor while no other
///   replica would remain.
/// - The [primary](crate::primary) stays where it is: there is nobody else to write to.
///
/// [`Status::unhealthy`](crate::Status::unhealthy) counts them; each change is an event for people.
#[derive(Clone, Debug)]
#[must_use = "give it to Builder::check"]
pub struct Check<P> {
    pub(crate) probe: P,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

impl<P: Probe> Check<P> {
    /// Asks by this probe. Its role, its own interval and timeout do not matter here.
    ///
    /// ```
    /// use headless_lb::{Check, Redis};
    ///
    /// let answers = Check::new(Redis::new().password("secret"));
    /// # let _ = answers;
    /// ```
    pub fn new(probe: P) -> Self {
        Self {
            probe,
            interval: INTERVAL,
            timeout: TIMEOUT,
            rise: RISE,
            fall: FALL,
        }
    }

    /// Time between the end of one question and the next, jittered by 20 %. Default 5 s, at least 50 ms. Every client
    /// asks every pod: halving it doubles what that costs them.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.min(FOREVER);
        self
    }

    /// The most that a question may take, with the connect if it needs one. Default 1 s, as the kubelet's.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(FOREVER);
        self
    }

    /// So many successes in a row make an unhealthy pod healthy. Default 2: one that flaps stays out. At least 1.
    pub fn rise(mut self, successes: u32) -> Self {
        self.rise = successes.max(1);
        self
    }

    /// So many failures in a row make a healthy pod unhealthy. Default 3: a lost packet, or a pause for a moment, is no
    /// illness. At least 1.
    pub fn fall(mut self, failures: u32) -> Self {
        self.fall = failures.max(1);
        self
    }
}

impl Check<Tcp> {
    /// Whether the pod takes connections: [`Tcp`]. A process that hangs still does, for its kernel accepts.
    pub fn tcp() -> Self {
        Self::new(Tcp::new())
    }
}

impl Check<HttpHealth> {
    /// Whether the pod answers a `GET` of this path, at its own port, with a status of 200 to 399: [`HttpHealth`].
    pub fn http(path: impl Into<Cow<'static, str>>) -> Self {
        Self::new(HttpHealth::new(path))
    }

    /// Which statuses are healthy. Default 200 to 399, as for the kubelet.
    ///
    /// ```
    /// use headless_lb::Check;
    ///
    /// let strict = Check::http("/healthz").status(200..=200);
    /// # let _ = strict;
    /// ```
    pub fn status(mut self, healthy: RangeInclusive<u16>) -> Self {
        self.probe = self.probe.status(healthy);
        self
    }

    /// Asks at this port of the pod, as where health has a port of its own. Default: the endpoint's.
    pub fn port(mut self, port: u16) -> Self {
        self.probe = self.probe.port(port);
        self
    }

    /// Asks over TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.probe = self.probe.tls(tls);
        self
    }
}

#[cfg(feature = "http2")]
#[cfg_attr(docsrs, doc(cfg(feature = "http2")))]
impl Check<GrpcHealth> {
    /// Whether the pod says `SERVING` by the gRPC health protocol: [`GrpcHealth`].
    ///
    /// ```
    /// use headless_lb::Check;
    ///
    /// let check = Check::grpc().service("shop.Catalog");
    /// # let _ = check;
    /// ```
    pub fn grpc() -> Self {
        Self::new(GrpcHealth::new())
    }

    /// Asks for the health of this service. Default: the empty name, which means the whole server.
    pub fn service(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.probe = self.probe.service(name);
        self
    }

    /// Asks over TLS.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, tls: crate::Tls) -> Self {
        self.probe = self.probe.tls(tls);
        self
    }
}

impl<F, Fut, E> Check<CheckFn<F>>
where
    F: Fn(&Endpoint) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    /// Whatever you ask, with your own client: `Ok` is healthy.
    ///
    /// The closure is called for each question; its future is dropped at the [`timeout`](Check::timeout) and when the
    /// pod is gone.
    ///
    /// ```
    /// use headless_lb::{Check, Endpoint};
    /// use tokio::net::UdpSocket;
    ///
    /// let echoes = Check::from_fn(|endpoint: &Endpoint| {
    ///     let pod = endpoint.addr();
    ///     async move {
    ///         let socket = UdpSocket::bind("0.0.0.0:0").await?;
    ///         socket.send_to(b"ping", pod).await?;
    ///         socket.recv_from(&mut [0; 16]).await.map(drop)
    ///     }
    /// });
    /// # let _ = echoes;
    /// ```
    pub fn from_fn(check: F) -> Self {
        Self::new(CheckFn { check })
    }
}

/// The probe that [`Check::from_fn`] makes.
#[derive(Clone, Copy)]
pub struct CheckFn<F> {
    check: F,
}

impl<F, Fut, E> Probe for CheckFn<F>
where
    F: Fn(&Endpoint) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    fn observe(
        &self,
        endpoint: &Endpoint,
        _: &mut (),
    ) -> impl Future<Output = Result<Observation, ProbeError>> + Send {
        let asked = (self.check)(endpoint);
        async {
            asked.await.map_err(ProbeError::passing)?;
            Ok(Observation::of(Role::Unknown))
        }
    }
}

impl<F> fmt::Debug for CheckFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckFn")
    }
}
