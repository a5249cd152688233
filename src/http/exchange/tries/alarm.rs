//! What the passing of time does to a request: a connect that takes long, an answer that is late, a try whose
//! time is over, a pause that is.

use std::time::Duration;

use tokio::time::Instant;

use super::{Done, Tries, leave::Leave};
use crate::{
    backoff::{exponential, spread},
    draw::thread_unit,
    http::{HttpError, attempt::Failed, client::Client},
};

/// How long a request waits for a connection before it is offered to another pod as well: the Connection
/// Attempt Delay of RFC 8305, 5.
const CONNECT_PATIENCE: Duration = Duration::from_millis(250);

/// When an answer is late before it is known how long answers take.
const LATE_AT_FIRST: Duration = Duration::from_millis(500);

/// Before the second retry, and doubled before the third. The first goes at once.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// From when on an answer is late.
pub(super) fn late_after(client: &Client) -> Duration {
    client.late_after().unwrap_or(LATE_AT_FIRST)
}

impl Tries {
    /// When something is to be done next.
    pub(in crate::http::exchange) fn alarm(&self) -> Option<Instant> {
        let limits = self.under_way.iter().flatten().filter_map(|one| one.limit);
        limits.chain(self.due).min()
    }

    /// The time has come to look again.
    pub(in crate::http::exchange) fn on_alarm(&mut self, now: Instant) -> Option<Done> {
        for place in 0..self.under_way.len() {
            let one = self.under_way[place].as_ref();
            if one
                .and_then(|one| one.limit)
                .is_some_and(|limit| limit <= now)
            {
                let one = self.under_way[place].take()?;
                one.attempt.time_out();
                let failed = Failed::sent(HttpError::TryTimeout);
                if let Some(outcome) = self.failed(one, failed) {
                    return Some(outcome);
                }
            }
        }
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        if self.is_idle() {
            // The pause is over.
            return None;
        }
        if !self.is_out() {
            // Whichever pod takes a connection first gets it.
            return self.begin(false);
        }
        self.be_patient(self.patience, now);
        let leave = self.may_double(now)?;
        let picks = self.picks;
        let outcome = self.begin(true);
        if let Leave::Hedge(client) = leave
            && self.picks == picks
        {
            // There is no other pod: the leave serves another request.
            client.return_hedge();
        }
        outcome
    }

    /// Looks for another pod if no connection is at hand before long.
    pub(super) fn await_connection(&mut self) {
        if self.due.is_none() && !self.is_out() {
            self.be_patient(CONNECT_PATIENCE, Instant::now());
        }
    }

    /// Waits for connections as at first, unless a pod has the request.
    pub(super) fn await_connection_anew(&mut self) {
        if !self.is_out() {
            self.due = None;
        }
    }

    /// It was sent at this moment: looks again when the answer is late.
    pub(super) fn await_answer(&mut self, sent: Instant, late: Duration) {
        self.due = sent.checked_add(late);
        self.patience = late / 2;
    }

    /// Does nothing for a moment. It has been sent to so many pods.
    pub(super) fn pause(&mut self, sent: usize) {
        let pause = exponential(RETRY_PAUSE, RETRY_PAUSE * 8, sent as u32 - 1);
        self.due = Instant::now().checked_add(spread(pause, 0.8, 1.2, thread_unit()));
    }

    /// Looks again after this long, and then after twice as long.
    fn be_patient(&mut self, patience: Duration, now: Instant) {
        self.due = now.checked_add(patience);
        self.patience = patience * 2;
    }
}
