//! The primary, for programs that write: who it is, whether it still is, and waiting for one.
//!
//! What a client can know: it observes, and cannot prevent. See [`PrimaryView`].

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{Balancer, shared::Shared};
use crate::{hint::Hint, primary::Report};

mod changes;
mod epochs;
mod error;
mod waiters;
mod writer;

pub use changes::PrimaryChanges;
pub(super) use epochs::Epochs;
pub use error::{Fenced, NoPrimary, NoPrimaryKind};
pub(crate) use waiters::Serving;
pub(super) use waiters::Waiters;
pub use writer::Writer;

/// Who takes the writes: a cheap view of a balancer with a [`probe`](crate::Builder::probe).
///
/// ```no_run
/// use headless_lb::{Balancer, Dns, Observation, ProbeError, Role, probe_fn};
/// use std::time::Duration;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let probe = probe_fn(|_| async { Ok::<_, ProbeError>(Observation::of(Role::Primary)) });
/// let db = Balancer::builder(Dns::srv("_postgres._tcp.db.prod.svc.cluster.local")?)
///     .probe(probe)
///     .spawn();
/// let writer = db.primary().wait(Duration::from_secs(10)).await?;
/// let connection = tokio::net::TcpStream::connect(writer.addr()).await?;
/// let written = writer.run(async { /* write over the connection */ }).await?; // ends when it is not the primary any more
/// # let _ = (connection, written);
/// # Ok(())
/// # }
/// ```
///
/// # What a client cannot promise
///
/// - Observation is not fencing. The primary is whom the probes found to be it, at most one probe interval and a round trip
///   ago. A client that is cut off together with an old primary goes on writing there until the server's side
///   ends it. To prevent two primaries is the work of the database's manager: Patroni with a watchdog,
///   synchronous replication, Redis' `min-replicas-to-write`.
/// - A write in flight at a failover has an unknown outcome. [`Writer::run`] ends it with [`Fenced`] and says so; nothing
///   here writes a second time.
/// - [`get`](Self::get) can return a node that was demoted this moment, and a process that was stopped wakes
///   with old knowledge: [`Writer::confirmed_ago`] tells how old.
/// - Terms cannot order two promotions that knew nothing of each other, nor a restored backup.
/// - Asynchronous replication loses writes at a failover. Nothing here brings them back.
pub struct PrimaryView<S = ()> {
    shared: Arc<Shared<S>>,
}

impl<S> Balancer<S> {
    /// The view of the primary, for programs that write.
    pub fn primary(&self) -> PrimaryView<S> {
        PrimaryView {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S: Clone> PrimaryView<S> {
    /// The primary now: no lock, no allocation, no await.
    ///
    /// While the last proof is in doubt, since one answer is overdue, say, it is still returned.
    ///
    /// # Errors
    ///
    /// [`NoPrimary`] names the cause, and what each endpoint said.
    pub fn get(&self) -> Result<Writer<S>, NoPrimary> {
        Writer::of(&self.shared).ok_or_else(|| self.none(NoPrimaryKind::None))
    }

    /// The primary: at once if there is one, else as soon as there is, `within` the time given at most. It covers all: the first
    /// resolution, probes, and a turn among those who wait. 10 s is a good value, as Vitess buffers for.
    ///
    /// When a primary appears, those who wait are served first come, first served, 16 every 10 ms: each is
    /// about to connect, and a database that was just promoted should not meet a thousand connects at once.
    ///
    /// # Errors
    ///
    /// [`NoPrimary`]: the time is over, 1,000 wait already, or discovery has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the turn to the next, and loses nothing.
    pub async fn wait(&self, within: Duration) -> Result<Writer<S>, NoPrimary> {
        let waiters = &self.shared.waiters;
        if waiters.is_empty()
            && let Some(writer) = Writer::of(&self.shared)
        {
            return Ok(writer);
        }
        let Some(place) = waiters.queue() else {
            return Err(self.none(NoPrimaryKind::TooManyWaiters));
        };
        self.shared.signals.notify.notify_one();
        let served = async {
            loop {
                if place.turn().await.is_err() {
                    return Err(self.none(NoPrimaryKind::None));
                }
                if let Some(writer) = Writer::of(&self.shared) {
                    return Ok(writer);
                }
                // Lost again in this very moment.
            }
        };
        timeout(within, served)
            .await
            .unwrap_or_else(|_| Err(self.none(NoPrimaryKind::TimedOut(within))))
    }

    /// The primaries one after the other, from what is now.
    ///
    /// A slow reader sees several changes as one, and never blocks the others.
    pub fn subscribe(&self) -> PrimaryChanges<S> {
        PrimaryChanges::new(&self.shared)
    }
}

impl<S> PrimaryView<S> {
    /// Reports what an error of your driver hints at, where no [`Writer`] is at hand: the probes look at
    /// once. Coalesced, and never evidence by itself.
    pub fn report(&self, hint: Hint) {
        self.shared.signals.hint(None, hint);
    }

    /// What is known of the primary, and how each endpoint stands to it: for people, and for decisions outside
    /// the request path. `None` without a probe, and before it was heard of.
    pub fn status(&self) -> Option<Arc<Report>> {
        self.shared.status.load().primary().cloned()
    }

    /// Accepts terms below the highest that was seen, and data of whatever lineage, from now on: for after a restore
    /// from a backup, whose PostgreSQL goes on in an older timeline. The errors say when this is needed; it is an operator's decision, for
    /// to a client an old primary looks the same.
    pub fn forget_term(&self) {
        self.shared.signals.forget_term();
    }

    fn none(&self, kind: NoPrimaryKind) -> NoPrimary {
        self.shared.meter.no_endpoint("no_primary");
        NoPrimary::new(kind, &self.shared)
    }
}

impl<S> Clone for PrimaryView<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<S> fmt::Debug for PrimaryView<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.shared.snapshot.load();
        let primary = snapshot.set().primary();
        f.debug_struct("PrimaryView")
            .field(
                "primary",
                &primary.and_then(|index| snapshot.set().at(index)),
            )
            .field("reign", &snapshot.set().reign())
            .finish_non_exhaustive()
    }
}
