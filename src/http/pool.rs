//! One pod's free connections, and the requests that wait for one.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::connection::Connection;
use crate::{balancer::Signals, endpoint::Endpoint};

#[expect(
    clippy::disallowed_types,
    reason = "one pod's, held for some nanoseconds, after the pick"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// How long a connection may stay free. Servers and what stands before them close idle ones, and a
/// request written at that moment is lost, so we close first: nginx does after 75 s, many a load
/// balancer after 60 s. Where a server is quicker (Node.js: 5 s), its close is mostly seen in time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(55);

/// Free connections per pod. A burst may need more, and closes what is above. Each costs a descriptor
/// on both sides and some 10 kB; the next burst of this size costs no connect.
const MAX_IDLE: usize = 100;

/// Connects under way per pod. Below the smallest listen queue in common use (Java's 50), for a SYN
/// that finds the queue full is dropped, and sent again only after 1 s.
const MAX_DIALS: usize = 32;

/// Connections to one address. Dropping the pool closes those that are free; the others end with
/// their response.
pub(super) struct Pool<B> {
    endpoint: Arc<Endpoint>,
    signals: Arc<Signals>,
    /// The pod took a connection and closed it at once: until it serves a request, that it takes
    /// connections says nothing.
    closes_at_once: AtomicBool,
    state: Mutex<State<B>>,
}

/// Either there are free connections, or requests that wait for one.
struct State<B> {
    /// The newest at the back, which is used first, so that surplus ones grow old at the front.
    free: VecDeque<Free<B>>,
    /// The oldest at the front. Some may have gone. While there are any, a dial is under way.
    waiting: VecDeque<oneshot::Sender<Outcome<B>>>,
    /// How many dials are under way: whoever waits first gets the first connection, new or free again.
    dials: usize,
    /// When the last dial ended that tells something new: it succeeded, or its failure was reported.
    /// Stragglers must not keep this young, or a pod that hangs would be reported once for good.
    heard: Option<Instant>,
}

struct Free<B> {
    connection: Box<Connection<B>>,
    since: Instant,
}

/// A connection that was waited for, or why the pod did not take one.
pub(super) type Outcome<B> = io::Result<Box<Connection<B>>>;

/// What a checkout finds.
pub(super) enum Checkout<B> {
    /// A connection that can take a request.
    Free(Box<Connection<B>>),
    /// None: the first that is made or becomes free will come here.
    Wait(oneshot::Receiver<Outcome<B>>, Dial),
}

/// Whether to start another dial.
#[must_use = "a dial was counted: start it"]
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dial {
    No,
    Yes,
}

impl<B> Pool<B> {
    pub(super) fn new(endpoint: Arc<Endpoint>, signals: Arc<Signals>) -> Self {
        let state = State {
            free: VecDeque::new(),
            waiting: VecDeque::new(),
            dials: 0,
            heard: None,
        };
        Self {
            endpoint,
            signals,
            closes_at_once: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.endpoint.addr()
    }

    /// A free connection, that which was used last; or else a place in the queue, and perhaps a dial.
    pub(super) fn checkout(&self) -> Checkout<B> {
        let now = Instant::now();
        // One lock for both: a connection that becomes free in between must not be missed.
        let mut state = self.state();
        while let Some(Free { connection, since }) = state.free.pop_back() {
            if now - since >= IDLE_TIMEOUT {
                // The rest is older.
                state.free.clear();
            } else if !connection.is_closed() {
                return Checkout::Free(connection);
            }
        }
        let (outcome, dial) = state.wait();
        Checkout::Wait(outcome, dial)
    }

    /// Takes a free connection: for the request that waits longest, or for the next.
    pub(super) fn give_back(&self, mut connection: Box<Connection<B>>) {
        while !connection.is_closed() {
            let waiter = {
                let mut state = self.state();
                let Some(waiter) = state.waiting.pop_front() else {
                    return state.keep(connection, Instant::now());
                };
                waiter
            };
            match waiter.send(Ok(connection)) {
                // That request is gone.
                Err(Ok(back)) => connection = back,
                _ => return,
            }
        }
    }

    /// Waits for the first connection that is made or becomes free again, past those that are free.
    pub(super) fn wait(&self) -> (oneshot::Receiver<Outcome<B>>, Dial) {
        self.state().wait()
    }

    /// A dial has ended well.
    pub(super) fn dialled(&self, connection: Box<Connection<B>>) -> Dial {
        if !self.closes_at_once.load(Relaxed) {
            self.signals.reached(&self.endpoint);
        }
        self.give_back(connection);
        let mut state = self.state();
        state.dials -= 1;
        state.heard = Some(Instant::now());
        while state
            .waiting
            .front()
            .is_some_and(oneshot::Sender::is_closed)
        {
            state.waiting.pop_front();
        }
        state.next_dial()
    }

    /// A dial that began at `began` has failed. Reports the pod, and fails the requests for which no
    /// other dial is under way: another one now would do no better.
    pub(super) fn refused(&self, began: Instant, error: &io::Error) {
        let failed = {
            let mut state = self.state();
            // Dials that were under way together saw one event, which counts once; and a pod that has
            // taken a connection since then can be reached.
            if state.heard.is_none_or(|heard| heard <= began) {
                self.signals.unreachable(&self.endpoint);
                state.heard = Some(Instant::now());
            }
            state.end_dial()
        };
        for waiter in failed {
            // Perhaps it is gone.
            let _ = waiter.send(Err(copy(error)));
        }
    }

    /// A dial was dropped, as its runtime shut down: nobody's fault, but nobody may wait for it.
    pub(super) fn dropped(&self) {
        let failed = self.state().end_dial();
        for waiter in failed {
            let error = io::Error::new(io::ErrorKind::Interrupted, "the runtime has shut down");
            let _ = waiter.send(Err(error));
        }
    }

    /// The pod took a connection and closed it before a request was written: as good as none.
    pub(super) fn closed_at_once(&self) {
        self.closes_at_once.store(true, Relaxed);
        self.signals.unreachable(&self.endpoint);
    }

    /// The pod answered.
    pub(super) fn served(&self) {
        if self.closes_at_once.load(Relaxed) {
            self.closes_at_once.store(false, Relaxed);
            self.signals.reached(&self.endpoint);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> State<B> {
    fn wait(&mut self) -> (oneshot::Receiver<Outcome<B>>, Dial) {
        let (waiter, outcome) = oneshot::channel();
        self.waiting.push_back(waiter);
        if self.dials < MAX_DIALS {
            // The dial of a request that is gone serves another.
            self.waiting.retain(|waiter| !waiter.is_closed());
        }
        (outcome, self.next_dial())
    }

    fn keep(&mut self, connection: Box<Connection<B>>, now: Instant) {
        let is_old = |free: &Free<B>| now - free.since >= IDLE_TIMEOUT;
        while self.free.len() >= MAX_IDLE || self.free.front().is_some_and(is_old) {
            self.free.pop_front();
        }
        let since = now;
        self.free.push_back(Free { connection, since });
    }

    /// Counts another dial, if one is wanted and allowed.
    fn next_dial(&mut self) -> Dial {
        if self.waiting.len() <= self.dials || self.dials >= MAX_DIALS {
            return Dial::No;
        }
        self.dials += 1;
        Dial::Yes
    }

    /// A dial brought nothing: those who waited longest and have no dial left.
    fn end_dial(&mut self) -> Vec<oneshot::Sender<Outcome<B>>> {
        self.dials -= 1;
        self.waiting.retain(|waiter| !waiter.is_closed());
        let left = self.waiting.len().saturating_sub(self.dials);
        self.waiting.drain(..left).collect()
    }
}

/// The same error for several requests.
fn copy(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_hangs_is_reported_again_and_again() {
        let address = SocketAddr::from(([10, 0, 0, 1], 80)).into();
        let endpoint = Arc::new(Endpoint::new(address, Instant::now()));
        let pool = Pool::<()>::new(Arc::clone(&endpoint), Arc::default());
        let error = io::Error::from(io::ErrorKind::TimedOut);
        // A request each second that goes on waiting, and each dial ends after a second and a half: there
        // is always one that began before the last one failed.
        let (mut dials, mut requests, mut overlaps) = (VecDeque::new(), Vec::new(), 0);
        for half_seconds in 0..120 {
            if half_seconds % 2 == 0 {
                let (outcome, dial) = pool.wait();
                requests.push(outcome);
                if dial == Dial::Yes {
                    dials.push_back(Instant::now());
                }
            }
            overlaps += usize::from(dials.len() > 1);
            tokio::time::advance(Duration::from_millis(500)).await;
            if dials
                .front()
                .is_some_and(|began| began.elapsed() >= Duration::from_millis(1500))
            {
                pool.refused(dials.pop_front().unwrap(), &error);
            }
        }
        assert!(overlaps > 20, "dials must overlap, or this shows nothing");
        let reported = endpoint.connects().failures;
        assert!(
            (15..=60).contains(&reported),
            "{reported} reports in a minute"
        );
    }
}
