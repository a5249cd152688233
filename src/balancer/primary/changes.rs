//! The primaries one after the other.

use std::{
    fmt,
    sync::{Arc, Weak},
};

use tokio::sync::watch;

use super::{NoPrimary, PrimaryView, Writer};
use crate::balancer::shared::Shared;

/// Who the primary is, each time that changes; from [`PrimaryView::subscribe`](crate::PrimaryView::subscribe).
///
/// It ends when the last [`Balancer`](crate::Balancer) is dropped: it keeps none alive.
pub struct PrimaryChanges<S = ()> {
    shared: Weak<Shared<S>>,
    epochs: watch::Receiver<(u64, bool)>,
}

impl<S> PrimaryChanges<S> {
    pub(super) fn new(shared: &Arc<Shared<S>>) -> Self {
        let mut epochs = shared.epochs.subscribe();
        // What is now is news.
        epochs.mark_changed();
        Self {
            shared: Arc::downgrade(shared),
            epochs,
        }
    }
}

impl<S: Clone> PrimaryChanges<S> {
    /// The next one: the primary, or why there is none now. `None` when the last balancer is gone.
    ///
    /// A slow reader sees several changes as one, and misses no last one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<Result<Writer<S>, NoPrimary>> {
        self.epochs.changed().await.ok()?;
        let shared = self.shared.upgrade()?;
        Some(PrimaryView { shared }.get())
    }
}

impl<S> fmt::Debug for PrimaryChanges<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrimaryChanges")
            .field("epoch", &self.epochs.borrow().0)
            .finish_non_exhaustive()
    }
}
