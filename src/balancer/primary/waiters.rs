//! Those who wait for a primary: bounded, in order, and served at a pace.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use tokio::{
    sync::{AcquireError, Semaphore},
    time::Instant,
};

use crate::{backoff::spread, draw::unit};

/// More would only find a database that is busy with those who came first.
const MOST: usize = 1000;

/// So many are served at once, each `EVERY`: the 1,000th is served after 630 ms. Vitess drains its buffer one
/// request at a time by default (`buffer_drain_concurrency`); a connect costs a server some 10 ms.
const BATCH: usize = 16;
const EVERY: Duration = Duration::from_millis(10);

/// How coarse tokio's timers are: they fire up to so much late.
const TICK: Duration = Duration::from_millis(1);

/// The first batch comes so long after a primary was accepted, at most: programs of one cluster should not
/// all connect in the same instant.
const STAGGER: Duration = Duration::from_millis(5);

/// The queue. Served by the driver alone.
#[derive(Debug)]
pub(crate) struct Waiters {
    waiting: AtomicUsize,
    /// Its queue is fair, and who leaves it costs nothing.
    turns: Semaphore,
}

impl Default for Waiters {
    fn default() -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            turns: Semaphore::new(0),
        }
    }
}

impl Waiters {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// A place in the queue, if there is one.
    pub(super) fn queue(&self) -> Option<Place<'_>> {
        let place = Place { waiters: self };
        let before = self.waiting.fetch_add(1, Relaxed);
        (before < MOST).then_some(place)
    }

    /// Lets the next ones go on, and no others until it is called again.
    fn serve(&self) {
        // Who did not use a turn of the last batch is gone.
        self.turns.forget_permits(BATCH);
        self.turns
            .add_permits(self.waiting.load(Relaxed).min(BATCH));
    }

    /// Nobody will be served any more.
    pub(crate) fn close(&self) {
        self.turns.close();
    }
}

/// One who waits.
#[derive(Debug)]
pub(super) struct Place<'a> {
    waiters: &'a Waiters,
}

impl Place<'_> {
    /// Waits for its turn. An error: there will be none.
    pub(super) async fn turn(&self) -> Result<(), AcquireError> {
        self.waiters
            .turns
            .acquire()
            .await
            .map(|permit| permit.forget())
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiters.waiting.fetch_sub(1, Relaxed);
    }
}

/// When the driver serves the next batch.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    next: Option<Instant>,
    /// Whether that is less than a tick away.
    is_near: bool,
    /// When the last batch went.
    served: Option<Instant>,
}

impl Serving {
    /// Serves those who wait if it is time. Called after every event.
    pub(crate) fn serve(&mut self, now: Instant, waiters: &Waiters, has_primary: bool) {
        if !has_primary || waiters.is_empty() {
            self.next = None;
            if !has_primary {
                waiters.turns.forget_permits(BATCH);
            }
            return;
        }
        let next = *self.next.get_or_insert_with(|| {
            let first = now + spread(STAGGER, 0.0, 1.0, unit());
            // A pause or a loss of less than a batch's time must not let two batches go.
            self.served.map_or(first, |at| first.max(at + EVERY))
        });
        if next <= now {
            waiters.serve();
            self.served = Some(now);
            self.next = Some(now + EVERY);
        }
        self.is_near = self.next.is_some_and(|next| next <= now + TICK);
    }

    /// When to call it next, if anybody waits.
    ///
    /// A tick early first: a timer for the moment itself fires after the next tick, and with a tick lost in each of 62
    /// pauses the last of 1,000 would wait for 690 ms on a machine that does nothing else.
    pub(crate) fn deadline(&self, waiters: &Waiters) -> Option<Instant> {
        let next = self.next.filter(|_| !waiters.is_empty())?;
        Some(if self.is_near { next } else { next - TICK })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_primary_that_is_lost_and_back_within_a_batch_brings_no_second_one() {
        let (waiters, mut serving) = (Waiters::default(), Serving::default());
        let places: Vec<_> = (0..100).map(|_| waiters.queue().unwrap()).collect();
        let start = Instant::now();
        let mut served = |millis, has_primary| {
            let now = start + Duration::from_millis(millis);
            serving.serve(now, &waiters, has_primary);
            waiters.turns.forget_permits(places.len())
        };
        assert_eq!((served(0, true), served(5, true)), (0, BATCH));
        assert_eq!((served(6, false), served(7, true)), (0, 0));
        assert_eq!((8..15).map(|at| served(at, true)).sum::<usize>(), 0);
        assert_eq!((15..25).map(|at| served(at, true)).sum::<usize>(), BATCH);
    }

    #[test]
    fn turns_that_nobody_took_do_not_add_up() {
        let (waiters, mut serving) = (Waiters::default(), Serving::default());
        let places: Vec<_> = (0..100).map(|_| waiters.queue().unwrap()).collect();
        let start = Instant::now();
        for millis in 0..100 {
            let now = start + Duration::from_millis(millis);
            serving.serve(now, &waiters, true);
        }
        assert_eq!(waiters.turns.available_permits(), BATCH);
        serving.serve(start + Duration::from_millis(100), &waiters, false);
        assert_eq!(waiters.turns.available_permits(), 0);
        drop(places);
    }
}
