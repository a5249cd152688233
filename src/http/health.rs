//! Whether a pod that takes connections answers, too.
//!
//! A refused connect is certain. Silence is not: the pod may be slow, or all may be. So a pod counts as
//! silent only if two requests to it are late, it has answered nothing since they were sent, and requests
//! sent later have been answered by others. It is set aside as one that refuses, and comes back with one
//! request at a time until it answers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

use tokio::time::Instant;

use super::client::Client;

/// One late request may be a slow one; another beside it is no accident.
const LATE_ONES: u32 = 2;

/// One pod's answers.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Milliseconds since the client's start.
    answered_at: AtomicU64,
    /// Late requests since then.
    late: AtomicU32,
    /// What it takes tells nothing until it answers.
    suspect: AtomicBool,
    /// One request is finding out.
    trial: AtomicBool,
}

/// Whether a request may go to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Open,
    /// As the one that finds out. [`Health::end_trial`] when it has.
    Trial,
    Denied,
}

impl Health {
    #[inline]
    pub(super) fn admit(&self) -> Admission {
        if !self.suspect.load(Relaxed) {
            Admission::Open
        } else if self.trial.swap(true, Relaxed) {
            Admission::Denied
        } else {
            Admission::Trial
        }
    }

    pub(super) fn end_trial(&self) {
        self.trial.store(false, Relaxed);
    }

    pub(super) fn is_suspect(&self) -> bool {
        self.suspect.load(Relaxed)
    }

    /// From now on the pod must answer before it is trusted.
    pub(super) fn suspect(&self) {
        self.suspect.store(true, Relaxed);
    }

    /// The pod has answered, at `now` in milliseconds since the client's start; true if that was in doubt.
    #[inline]
    pub(super) fn answered(&self, now: u64) -> bool {
        // Read first: what is known already need not be written, and the line stays shared.
        if self.answered_at.load(Relaxed) < now {
            self.answered_at.store(now, Relaxed);
        }
        if self.late.load(Relaxed) != 0 {
            self.late.store(0, Relaxed);
        }
        self.suspect.load(Relaxed) && self.suspect.swap(false, Relaxed)
    }

    /// A request that was sent at `sent` is late, or is so still. True if the pod is silent.
    pub(super) fn late(&self, client: &Client, sent: Instant, is_first: bool) -> bool {
        if self.answered_at.load(Relaxed) > client.millis(sent) {
            return false;
        }
        let before = self.late.fetch_add(u32::from(is_first), Relaxed);
        before + u32::from(is_first) >= LATE_ONES && client.answers_since(sent)
    }
}
