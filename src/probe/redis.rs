//! Redis: role, offset and replication lineage, over a connection that stays open.

use std::{fmt, sync::Arc, time::Duration};

use super::{Observation, Probe, ProbeError};
use crate::endpoint::Endpoint;
#[cfg(feature = "tls")]
use crate::tls::Tls;

mod answer;
mod resp;
mod session;

use session::Login;
pub use session::RedisSession;

/// Four questions a second: the three commands of one take 4 us of the server's time in all (measured:
/// Redis 7.0.15, `INFO commandstats`).
const INTERVAL: Duration = Duration::from_millis(250);

/// Faster than this buys little: a promotion takes longer.
const SHORTEST: Duration = Duration::from_millis(50);

/// A stopped node's kernel still accepts connections, so this covers the dial and the answer.
const TIMEOUT: Duration = Duration::from_millis(500);

/// The [`Probe`] of Redis and its kin: `ROLE` and `INFO replication`, four times a second, over one connection
/// per pod that stays open.
///
/// ```
/// use headless_lb::{Balancer, Fixed, Redis};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pods = Fixed::new([7, 8].map(|host| SocketAddr::from(([10, 244, 1, host], 6379))));
/// let cache = Balancer::builder(pods)
///     .probe(Redis::new().username("probe").password("secret"))
///     .spawn();
/// # drop(cache); }
/// ```
///
/// # What it needs
///
/// `ACL SETUSER probe on >secret +role +info`, or the password of the default user; without either, a
/// server that asks for none. If `INFO` is refused, the role is all that is known: then a master that was
/// superseded while nobody looked cannot be told from the one that superseded it.
///
/// # What it tells
///
/// - **Role.** `master` is [`Role::Primary`](crate::Role::Primary), `slave` is
///   [`Role::Replica`](crate::Role::Replica), which also [points to](Observation::points_to) its master if that
///   is configured by address. A node that loads its data is
///   [`Starting`](crate::ProbeFailure::Starting), whatever it says of its role: `ROLE` is answered during that,
///   and nothing else is.
/// - **Lineage.** Redis has no term. But each promotion makes a new replication id and keeps the one before, so
///   the new master names the one that it supersedes ([`Lineage`](crate::Lineage)). A master that comes back
///   with nothing has an id that nobody knows. One that comes back with its file (a replica that was
///   restarted without its configuration, say) names the id in that file in the same way, however old it
///   is, and that counts for nothing: only a master that was fed by another since it started was promoted
///   (`total_net_repl_input_bytes`, which `CONFIG RESETSTAT` makes 0). The ids are asked for every time: they change
///   without a change of role too, when a lone master gets its first replica and when it has had none
///   for `repl-backlog-ttl`.
/// - **Position.** The replication offset, in bytes. A replica whose link is down tells none.
/// - **Fence.** A master with `min-replicas-to-write` that has no replica in time takes no writes, and says so.
///   With one in time and two wanted it takes none either, which `INFO` does not tell.
///
/// # With Sentinel, and without
///
/// Sentinel promotes, this observes; they need not know each other. `ROLE` on the nodes finds the new master as
/// soon as it is one, and lineage tells it from the old one. What Sentinel could add is order where lineage has
/// none: its `config-epoch` grows with each failover that it made. A [`probe_fn`](crate::probe_fn) that asks a
/// Sentinel `SENTINEL MASTER <name>` may report it as a [`Term`](crate::Term) for the address that it names; it must
/// ask the node its `ROLE` as well, for Sentinel names the new master before it is one.
///
/// Redis Cluster is no case for this probe: it has a master for each shard.
///
/// # What nobody can promise
///
/// Replication is asynchronous: what the old master acknowledged last may be lost at a failover, and what is
/// written to it between the promotion and the next look *is* lost. `min-replicas-to-write` bounds that on the
/// server's side. And a replica that was promoted while the client was cut off from it is not known here.
#[derive(Clone)]
#[must_use = "give it to Builder::probe"]
pub struct Redis {
    login: Login,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    interval: Duration,
    timeout: Duration,
}

impl Redis {
    /// Asks without a password, in the open, every 250 ms.
    pub fn new() -> Self {
        Self {
            login: Login::default(),
            #[cfg(feature = "tls")]
            tls: None,
            interval: INTERVAL,
            timeout: TIMEOUT,
        }
    }

    /// The ACL user (Redis 6 and later). Default: the one that the server calls `default`.
    pub fn username(mut self, username: impl Into<Arc<str>>) -> Self {
        self.login.username = Some(username.into());
        self
    }

    /// The password of that user. Default: none, and no `AUTH`.
    ///
    /// `AUTH` says it as it is, to whoever has the pod's address: use a user of the probe's own with no more rights than
    /// it needs, and TLS where others may listen.
    pub fn password(mut self, password: impl Into<Arc<str>>) -> Self {
        self.login.password = Some(password.into());
        self
    }

    /// Over TLS. The port is then the one that the server calls `tls-port`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Time between two questions, jittered by 20 %. Default 250 ms, at least 50 ms. It bounds for how long writes
    /// may still go to a master that was superseded.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval.max(SHORTEST);
        self
    }

    /// The most that opening, and each question, may take in all. Default 500 ms. A server that a script or a
    /// `KEYS` of somebody's blocks for longer than that looks like one that hangs.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<RedisSession, ProbeError> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return RedisSession::dial_tls(endpoint, tls).await;
        }
        RedisSession::dial(endpoint).await
    }
}

impl Default for Redis {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for Redis {
    type Session = RedisSession;

    async fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(RedisSession, Option<Observation>), ProbeError> {
        let mut session = self.dial(endpoint).await?;
        let observation = session.log_in(&self.login).await?;
        Ok((session, Some(observation)))
    }

    async fn observe(
        &self,
        _: &Endpoint,
        session: &mut RedisSession,
    ) -> Result<Observation, ProbeError> {
        session.ask().await
    }

    async fn signalled(&self, session: &mut RedisSession) {
        session.stirred().await;
    }

    fn interval(&self) -> Duration {
        self.interval
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("username", &self.login.username)
            .field("interval", &self.interval)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
