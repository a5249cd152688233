//! Whether a request may go to another pod that one may have seen: by its kind, by number, and by budget.

use std::sync::Arc;

use tokio::time::Instant;

use super::Tries;
use crate::http::client::Client;

/// To how many pods a request is sent at most that they may have seen. HAProxy makes as many retries by default
/// (`retries 3`, its manual) where they cost nothing; if three pods fail, the fault is hardly theirs.
pub(super) const MAX_SENT: usize = 3;

/// By which budget a late request goes to another pod as well.
pub(super) enum Leave {
    Hedge(Arc<Client>),
    Retry,
}

impl Tries {
    /// No pod has it now. Whether another may get it that one may have seen.
    pub(super) fn may_go_on(&mut self, client: &Arc<Client>) -> bool {
        if !self.needs_leave {
            return true;
        }
        let mut under_way = self.under_way.iter_mut().flatten();
        if let Some(hedge) = under_way.find(|one| one.is_hedge) {
            // It was permitted, and takes the place of the one that failed.
            hedge.is_hedge = false;
        } else {
            if !self.message.may_repeat() || self.sent >= MAX_SENT {
                return false;
            }
            self.retrying = client.may_retry();
            if self.retrying.is_none() {
                return false;
            }
        }
        self.needs_leave = false;
        true
    }

    /// Reports the tries that are late. Whether the request may go to another pod as well.
    pub(super) fn may_double(&mut self, now: Instant) -> Option<Leave> {
        let mut late = None;
        for one in self.under_way.iter_mut().flatten() {
            // If not: another pod has been found, but no connection yet.
            one.attempt.sent_at()?;
            let is_silent = one.attempt.late(now);
            late = Some((Arc::clone(&one.attempt.pod.pool.client), is_silent));
        }
        let (client, is_silent) = late?;
        if self.sent >= MAX_SENT || !self.message.may_double() {
            return None;
        }
        if client.may_hedge() {
            return Some(Leave::Hedge(client));
        }
        if !is_silent {
            return None;
        }
        // A pod that is silent has as good as failed.
        self.retrying = client.may_retry();
        self.retrying.is_some().then_some(Leave::Retry)
    }
}
