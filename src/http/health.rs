//! Whether a pod that takes connections answers, too.
//!
//! A refused connect is certain. Silence is not: the pod may be slow, or all may be. So a pod counts as
//! silent only if two requests to it are late, it has answered nothing since they were sent, and requests
//! sent later have been answered by others. It is set aside as one that refuses, and comes back with one
//! request at a time until it answers.
//!
//! Where callers come one after the other none is sent later; there it counts what others have answered since an earlier
//! late request was given up and before this one was sent.
//!
//! Where all pods turn slow together, the first to answer would make the others look silent. So the request must be late
//! by that answer too, and each report needs an answer of its own.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use tokio::time::Instant;

use super::client::Client;

/// One late request may be a slow one; another beside it is no accident.
const LATE_ONES: u32 = 2;

/// How long a request that must not be repeated leaves it to others to find out, as far as the pod would be
/// written to without having shown that it is there. The longest absence of a pod that is set aside: a service of
/// such requests only must not lose the pod for good.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(10);

const NONE: u64 = u64::MAX;

/// One pod's answers.
#[derive(Debug)]
pub(super) struct Health {
    /// Milliseconds since the client's start.
    answered_at: AtomicU64,
    /// Late requests since then.
    late: AtomicU32,
    /// When the first late request was given up since then; [`NONE`].
    given_up: AtomicU64,
    /// When it was reported last.
    reported_at: AtomicU64,
    /// What it takes tells nothing until it answers.
    suspect: AtomicBool,
    /// When that was found last.
    suspected_at: AtomicU64,
    /// One request is finding out.
    trial: AtomicBool,
}

/// A request that should have been answered by now.
pub(super) struct Late {
    pub(super) sent: Instant,
    /// The pod was doubted when it was sent.
    pub(super) is_doubted: bool,
    /// It was not reported before.
    pub(super) is_first: bool,
}

/// Whether a request may go to the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Open,
    /// As the one that finds out. [`Health::end_trial`] when it has.
    Trial,
    Denied,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            answered_at: AtomicU64::new(0),
            late: AtomicU32::new(0),
            given_up: AtomicU64::new(NONE),
            reported_at: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            suspected_at: AtomicU64::new(0),
            trial: AtomicBool::new(false),
        }
    }
}

impl Health {
    /// `may_be_lost`: the request can be repeated, or is not written before the pod has shown that it is there.
    #[inline]
    pub(super) fn admit(&self, client: &Client, may_be_lost: bool) -> Admission {
        if !self.suspect.load(Relaxed) {
            return Admission::Open;
        }
        self.try_out(client, may_be_lost)
    }

    #[cold]
    fn try_out(&self, client: &Client, may_be_lost: bool) -> Admission {
        let now = client.millis(Instant::now());
        let since = now.saturating_sub(self.suspected_at.load(Relaxed));
        let is_left = !may_be_lost && since < LEFT_TO_OTHERS.as_millis() as u64;
        if is_left || self.trial.swap(true, Relaxed) {
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
    pub(super) fn suspect(&self, client: &Client) {
        let now = client.millis(Instant::now());
        self.suspected_at.store(now, Relaxed);
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
            self.given_up.store(NONE, Relaxed);
        }
        self.suspect.load(Relaxed) && self.suspect.swap(false, Relaxed)
    }

    /// Whether others have answered since a late request was given up, and this pod has not.
    #[inline]
    pub(super) fn is_doubted(&self, client: &Client) -> bool {
        let given_up = self.given_up.load(Relaxed);
        // Within the same millisecond it was the quicker pod's answer that ended the late one.
        given_up != NONE && client.answers_since(given_up.saturating_sub(1))
    }

    /// A request is late, or is so still. True if the pod is silent.
    pub(super) fn late(&self, client: &Client, late: &Late, now: Instant) -> bool {
        let (sent, now) = (client.millis(late.sent), client.millis(now));
        if self.answered_at.load(Relaxed) > sent {
            return false;
        }
        let before = self.late.fetch_add(u32::from(late.is_first), Relaxed);
        before + u32::from(late.is_first) >= LATE_ONES
            && client.is_late_now(now.saturating_sub(sent))
            && (late.is_doubted || client.answers_since(sent))
    }

    /// Whether there is anything new since the pod was reported as silent: others have answered what was sent later.
    pub(super) fn is_news(&self, client: &Client, now: Instant) -> bool {
        let is_news = client.answers_since(self.reported_at.load(Relaxed));
        if is_news {
            self.reported_at.fetch_max(client.millis(now), Relaxed);
        }
        is_news
    }

    /// A late request that was sent at `sent` is waited for no more. What was sent before tells nothing: where all
    /// have become slow, the quicker of two pods has just answered and the other is about to.
    pub(super) fn gave_up(&self, client: &Client, sent: Instant, now: Instant) {
        if self.answered_at.load(Relaxed) <= client.millis(sent) {
            self.given_up.fetch_min(client.millis(now), Relaxed);
        }
    }
}
