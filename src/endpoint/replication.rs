//! How far a database's data go on a pod.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::Endpoint;

/// How far a database's data go on this pod. Written by the driver alone; read by policies with a bound.
#[derive(Debug)]
pub(super) struct Replication {
    /// The last position that was observed, in bytes; `UNKNOWN` if none was.
    position: AtomicU64,
    /// How many bytes the primary was ahead; `UNKNOWN` if that cannot be told.
    bytes: AtomicU64,
    /// For how many milliseconds it has been ahead; `UNKNOWN` if that cannot be told.
    millis: AtomicU64,
    /// Whether anybody asks. Set by readers, once.
    wanted: AtomicBool,
}

const UNKNOWN: u64 = u64::MAX;

impl Default for Replication {
    fn default() -> Self {
        Self {
            position: AtomicU64::new(UNKNOWN),
            bytes: AtomicU64::new(UNKNOWN),
            millis: AtomicU64::new(UNKNOWN),
            wanted: AtomicBool::new(false),
        }
    }
}

impl Endpoint {
    /// How far this pod's data go, in bytes, as its probe last saw; `None` if no probe tells.
    pub fn position(&self) -> Option<u64> {
        known(&self.replication.position)
    }

    /// How many bytes of the primary's data this replica lacked when its probe last asked; `None` if that
    /// is not known: no probe tells positions, or no primary was seen lately.
    ///
    /// Who asks makes the probe look at the position each time ([`wants_position`](Self::wants_position)).
    pub fn lag_bytes(&self) -> Option<u64> {
        self.want_position();
        known(&self.replication.bytes)
    }

    /// For how long this replica had lacked data of the primary when its probe last asked: zero if it
    /// lacked none, however long the primary wrote nothing; `None` as in [`lag_bytes`](Self::lag_bytes).
    pub fn lag(&self) -> Option<Duration> {
        self.want_position();
        known(&self.replication.millis).map(Duration::from_millis)
    }

    /// Whether this pod was seen to have its data up to this position.
    pub(crate) fn has(&self, position: u64) -> bool {
        self.want_position();
        // With an unknown lag it may follow another primary, whose positions mean something else.
        known(&self.replication.bytes).is_some()
            && known(&self.replication.position).is_some_and(|seen| seen >= position)
    }

    /// Whether somebody goes by this endpoint's lag: a probe to which a position costs something may look
    /// at it less often otherwise.
    pub fn wants_position(&self) -> bool {
        self.replication.wanted.load(Relaxed)
    }

    /// Reads before it writes: the line stays shared.
    pub(crate) fn want_position(&self) {
        if !self.wants_position() {
            self.replication.wanted.store(true, Relaxed);
        }
    }

    /// Notes what a probe saw: the position, and what the replica lacks. Called by the driver alone.
    pub(crate) fn replicated(
        &self,
        position: Option<u64>,
        lag_bytes: Option<u64>,
        lag: Option<Duration>,
    ) {
        let millis = lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(UNKNOWN - 1));
        let cells = &self.replication;
        cells.position.store(position.unwrap_or(UNKNOWN), Relaxed);
        cells.bytes.store(lag_bytes.unwrap_or(UNKNOWN), Relaxed);
        cells.millis.store(millis.unwrap_or(UNKNOWN), Relaxed);
    }
}

fn known(cell: &AtomicU64) -> Option<u64> {
    Some(cell.load(Relaxed)).filter(|&value| value != UNKNOWN)
}
