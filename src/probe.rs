//! Asking a pod what it is: primary or replica.
//!
//! A [`Probe`] observes one endpoint at a time. The driver runs it for every endpoint of the set, in
//! parallel; the tracker makes of the observations who the [primary](crate::primary) is, and the registry
//! puts each endpoint where that says, for [`Balancer::primary`](crate::Balancer::primary) and the
//! policies [`Primary`](crate::Primary), [`Replica`](crate::Replica) and
//! [`PreferReplica`](crate::PreferReplica).
//!
//! | probe | asks | says |
//! |---|---|---|
//! | `Postgres` (feature `postgres`) | the server, on a session that stays open | role, fence, timeline, cluster, position |
//! | `PostgresAlive` (feature `postgres`) | the server, without credentials | that it is there |
//! | [`Patroni`], [`PatroniCluster`] | Patroni's REST API | who holds the leader lock, with PostgreSQL's role |
//! | [`Redis`] | the server, on a session that stays open | role, lineage, offset |
//! | [`HttpStatus`] | any HTTP check, such as Galera's `clustercheck` | primary for 200, replica for 503 |
//! | [`ByName`] | DNS, for an operator's `-rw` name | primary if the name leads there |
//! | [`ByOrdinal`] | nobody | the pod with that number; for primaries that never move |
//! | [`Tcp`] | whether the port takes connections | that it is there |
//! | [`HttpHealth`] | any page at the endpoint's own port | that it is well |
//! | `GrpcHealth` (feature `http2`) | the gRPC health service | that it is well |
//! | [`probe_fn`], your own [`Probe`] | whatever you ask, with your own driver | whatever that tells |
//!
//! Two together are better than one where one knows the lock and the other the server:
//! [`authority`]`(Patroni::new()).confirm(Postgres::new("probe"))`. Also [`first`] and [`all`].

use std::{fmt, future::Future, time::Duration};

use crate::endpoint::Endpoint;

mod combine;
mod error;
#[cfg(feature = "http2")]
mod grpc;
mod http;
mod json;
mod name;
mod observation;
mod ordinal;
mod patroni;
#[cfg(feature = "postgres")]
mod postgres;
mod redis;
mod tcp;

pub use combine::{All, Authoritative, Confirm, FirstOf, all, authority, first};
pub use error::{ProbeError, ProbeFailure};
#[cfg(feature = "http2")]
pub use grpc::{GrpcHealth, GrpcSession};
pub use http::{HttpHealth, HttpStatus};
pub use name::ByName;
pub use observation::{Authority, Lineage, Observation, Role, Term};
pub use ordinal::ByOrdinal;
pub use patroni::{Patroni, PatroniCluster};
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresAlive, PostgresSession};
pub use redis::{Redis, RedisSession};
pub use tcp::Tcp;

/// Observes the role of an endpoint.
///
/// The driver keeps one session per endpoint open, asks it every [`interval`](Self::interval), and
/// drops it after an error. A probe without state has the session `()`; [`probe_fn`] makes one from
/// a closure.
///
/// # Cancel safety
///
/// The driver drops the futures of [`open`](Self::open) and [`observe`](Self::observe) at the
/// [`timeout`](Self::timeout) and when the endpoint is gone, and then drops the session too: it may
/// hold half a reply. The future of [`signalled`](Self::signalled) is dropped each time that the session is
/// asked, and made anew afterwards: it must lose nothing of the session by that.
pub trait Probe: Send + Sync + 'static {
    /// An open connection, or `()`.
    type Session: Send;

    /// Dials, authenticates, and reports the role if that already told it.
    fn open(
        &self,
        endpoint: &Endpoint,
    ) -> impl Future<Output = Result<(Self::Session, Option<Observation>), ProbeError>> + Send;

    /// Asks an open session.
    fn observe(
        &self,
        endpoint: &Endpoint,
        session: &mut Self::Session,
    ) -> impl Future<Output = Result<Observation, ProbeError>> + Send;

    /// Completes when the session has something to say by itself, such as its end: the driver then
    /// asks at once. The default never does.
    ///
    /// Must be cancel safe: the driver drops it when it is time to ask, and goes on with the session.
    fn signalled(&self, session: &mut Self::Session) -> impl Future<Output = ()> + Send {
        let _ = session;
        std::future::pending()
    }

    /// Time between two questions, jittered by 20 %. Default 1 s: a connection per question costs
    /// the server a connection. With an open session 250 ms is cheap.
    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    /// The most that opening, and each question, may take in all. Default 500 ms: a stopped node's
    /// kernel still accepts connections, so a limit on the connect alone would hang.
    fn timeout(&self) -> Duration {
        Duration::from_millis(500)
    }
}

/// A [`Probe`] without a session, from an async closure over the address and name of the endpoint.
///
/// ```
/// use headless_lb::{Endpoint, Observation, ProbeError, Role, probe_fn};
///
/// let by_port = probe_fn(|endpoint: &Endpoint| {
///     let primary = endpoint.addr().port() == 5432;
///     async move {
///         Ok::<_, ProbeError>(Observation::of(if primary { Role::Primary } else { Role::Replica }))
///     }
/// });
/// # let _ = by_port;
/// ```
pub fn probe_fn<F, Fut>(observe: F) -> ProbeFn<F>
where
    F: Fn(&Endpoint) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Observation, ProbeError>> + Send,
{
    ProbeFn {
        observe,
        interval: Duration::from_secs(1),
        timeout: Duration::from_millis(500),
    }
}

/// The probe that [`probe_fn`] makes.
#[derive(Clone, Copy)]
pub struct ProbeFn<F> {
    observe: F,
    interval: Duration,
    timeout: Duration,
}

impl<F> ProbeFn<F> {
    /// The time between two calls. Default 1 s, for a closure that connects each time.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// The most that one call may take. Default 500 ms.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl<F, Fut> Probe for ProbeFn<F>
where
    F: Fn(&Endpoint) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Observation, ProbeError>> + Send,
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
        (self.observe)(endpoint)
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl<F> fmt::Debug for ProbeFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeFn")
    }
}
