//! Reading what one has written.

use std::{pin::pin, time::Duration};

use tokio::time::{Instant, timeout_at};

use super::{Balancer, Pick, PickError, Writer};
use crate::{
    backoff::FOREVER,
    probe::Term,
    registry::Snapshot,
    set::{Candidates, Reign},
};

/// How far a write went: what a replica must have to show it. From [`Writer::wrote_at`].
///
/// ```
/// use headless_lb::{Term, Written};
///
/// // Told by another process, in a cookie, say.
/// let written = Written::in_term(Term::new(4), 0x16B_3740);
/// assert_eq!(written.position(), 0x16B_3740);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    under: Under,
    position: u64,
}

/// Who was the primary then. A position means nothing under another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Term(Term),
    Generation(u64),
}

impl Written {
    /// Something was written in this term, up to this position in bytes.
    pub const fn in_term(term: Term, position: u64) -> Self {
        Self {
            under: Under::Term(term),
            position,
        }
    }

    /// The position in bytes.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The term, if the database has one.
    pub const fn term(&self) -> Option<Term> {
        match self.under {
            Under::Term(term) => Some(term),
            Under::Generation(_) => None,
        }
    }

    /// Whether a primary came after the one that wrote it: it may lie beyond the point where that one began.
    fn is_before(&self, reign: Reign) -> bool {
        match self.under {
            Under::Term(term) => reign.term.is_some_and(|now| term < now),
            Under::Generation(generation) => generation < reign.generation,
        }
    }

    /// Whether the primary that is known here is one before the writer: it lacks the write.
    fn is_known_after(&self, reign: Reign) -> bool {
        self.is_after(reign) && (self.term().is_none() || reign.term.is_some())
    }

    /// Whether the writer is not known here yet.
    fn is_after(&self, reign: Reign) -> bool {
        match self.under {
            Under::Term(term) => reign.term.is_none_or(|now| term > now),
            Under::Generation(generation) => generation > reign.generation,
        }
    }
}

impl<S> Writer<S> {
    /// A write on this primary went up to `position`: what the database says after the commit
    /// (`pg_current_wal_insert_lsn()`, `master_repl_offset`). For [`Balancer::replica_at_least`].
    pub fn wrote_at(&self, position: u64) -> Written {
        let under = match self.term() {
            Some(term) => Under::Term(term),
            None => Under::Generation(self.generation()),
        };
        Written { under, position }
    }
}

impl<S: Clone> Balancer<S> {
    /// A replica that has what was written, by the handle's policy; the primary if none has it `within` the time
    /// given, or if another primary came since: the write may lie beyond the point where that one began.
    ///
    /// Positions only grow, so a replica that was seen there has the write. It is seen up to one probe interval late.
    /// One exception: a replica that received more of the old primary than the new one has, and was never
    /// rewound, has other data there. It is left out where the probe tells a replica's term, or while it is ahead of
    /// the primary; after that nothing tells it from one that is slow.
    ///
    /// ```no_run
    /// # async fn example(db: headless_lb::Balancer) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let writer = db.primary().wait(Duration::from_secs(10)).await?;
    /// // ... INSERT, COMMIT, SELECT pg_current_wal_insert_lsn() ...
    /// let written = writer.wrote_at(0x16B_3740);
    /// let reader = db.replica_at_least(&written, Duration::from_millis(500)).await?;
    /// println!("read from {}", reader.addr());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`pick`](Self::pick), when the time is over and there is no primary either, or only one of a term
    /// before that of the write.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn replica_at_least(
        &self,
        written: &Written,
        within: Duration,
    ) -> Result<Pick<S>, PickError> {
        let deadline = Instant::now() + within.min(FOREVER);
        loop {
            let mut news = pin!(self.shared.observed.notified());
            // Before the look: no position is missed.
            news.as_mut().enable();
            let pick = self.in_newest(|snapshot| self.reader_of(snapshot, written, false));
            if pick.is_ok() || timeout_at(deadline, news).await.is_err() {
                return pick.or_else(|_| {
                    self.in_newest(|snapshot| self.reader_of(snapshot, written, true))
                });
            }
        }
    }

    fn reader_of(
        &self,
        snapshot: &Snapshot<S>,
        written: &Written,
        is_late: bool,
    ) -> Option<Pick<S>> {
        let set = snapshot.set();
        let now = self.now();
        let (reign, candidates) = (
            set.reign(),
            set.available().with_key(self.key).with_now(now),
        );
        let primary = || self.take(snapshot, candidates.primaries().choose(0)?.index(), now);
        if is_late && written.is_known_after(reign) {
            return None;
        }
        if is_late || written.is_before(reign) {
            return primary();
        }
        let replicas = candidates.replicas();
        if written.is_after(reign) || replicas.is_empty() {
            return None;
        }
        let policy = |some: Candidates<'_>| {
            let picked = some.pick(&*self.policy).or_else(|| some.choose(0));
            picked.map(|choice| choice.index())
        };
        let choice = replicas.fitting(|endpoint| endpoint.has(written.position), policy)?;
        self.take(snapshot, choice.index(), now)
    }
}
