//! One pod's connections, and the requests that wait for one.

use std::{
    net::SocketAddr,
    sync::{Arc, MutexGuard, PoisonError},
};

use tokio::{sync::oneshot, time::Instant};

#[cfg(feature = "http2")]
use super::shared::Links;
use super::{
    client::Client,
    connection::{Connection, Exclusive},
    error::ConnectError,
    health::{Health, Late},
    socket::Close,
};
use crate::{endpoint::Endpoint, outcome::Cause};

mod state;

use state::{Free, Presence, State};

#[expect(
    clippy::disallowed_types,
    reason = "one pod's, held for some nanoseconds, after the pick"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// Connections to one address. Dropping the pool closes those that are free; the others end with
/// their response.
pub(super) struct Pool {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) client: Arc<Client>,
    pub(super) health: Health,
    state: Mutex<State>,
}

/// A connection that was waited for, or why the pod did not take one.
pub(super) type Outcome = Result<Connection, ConnectError>;

/// What a checkout finds.
pub(super) enum Checkout {
    /// A connection that can take a request. A dial is for its successor.
    Free(Connection, Dial),
    /// None: the first that is made or becomes free will come here.
    Wait(oneshot::Receiver<Outcome>, Dial),
}

/// Whether to start another dial.
#[must_use = "a dial was counted: start it"]
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Dial {
    No,
    Yes,
}

impl Pool {
    pub(super) fn new(endpoint: Arc<Endpoint>, client: Arc<Client>) -> Self {
        let state = State::new(client.settings.expected_streams());
        Self {
            endpoint,
            client,
            health: Health::default(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.endpoint.addr()
    }

    /// A connection that can take a request, of the free ones that which was used last; or else a place
    /// in the queue, and perhaps a dial.
    pub(super) fn checkout(self: &Arc<Self>, now: Instant) -> Checkout {
        // One lock for both: a connection that becomes free in between must not be missed.
        let mut state = self.state();
        state.trust_until(now);
        #[cfg(feature = "http2")]
        if let Some((stream, is_old)) = state.links.open() {
            let dial = state.replace_if(is_old);
            return Checkout::Free(Connection::Stream(stream), dial);
        }
        while let Some(Free { connection, .. }) = state.free.pop_back() {
            if !connection.is_closed() {
                let dial = state.replace_if(connection.is_old());
                return Checkout::Free(Connection::Exclusive(connection), dial);
            }
        }
        let (outcome, dial) = state.wait(self);
        Checkout::Wait(outcome, dial)
    }

    /// Waits for the first connection that is made or becomes free again, past those that are free.
    pub(super) fn wait(&self) -> (oneshot::Receiver<Outcome>, Dial) {
        self.state().wait(self)
    }

    /// Takes a connection that a request no longer needs: for the one that waits longest, or the next.
    pub(super) fn give_back(self: &Arc<Self>, mut connection: Box<Exclusive>) {
        while !connection.is_closed() {
            let waiter = {
                let mut state = self.state();
                match state.waiting.pop_front() {
                    Some(waiter) => waiter,
                    None if state.presence != Presence::Live || connection.is_old() => return,
                    None => return state.keep(connection, self),
                }
            };
            match waiter.send(Ok(Connection::Exclusive(connection))) {
                // That request is gone.
                Err(Ok(Connection::Exclusive(back))) => connection = back,
                _ => return,
            }
        }
    }

    /// Whether one dial more is wanted.
    pub(super) fn another(&self) -> Dial {
        self.state().next_dial(self)
    }

    /// A dial has ended well.
    pub(super) fn dialled(self: &Arc<Self>, connection: Box<Exclusive>) -> Dial {
        self.reached();
        self.give_back(connection);
        let mut state = self.state();
        state.expected = 1;
        state.end_dial(self)
    }

    /// A dial has ended well, with a connection for many requests. It is known from now on.
    #[cfg(feature = "http2")]
    pub(super) fn linked(self: &Arc<Self>, link: super::shared::Link) -> Dial {
        self.reached();
        let mut state = self.state();
        // The pod may permit none by now.
        state.expected = link.max_streams().max(1);
        // Perhaps nobody waits for it any more. First, for only while it runs does the tick tell the time.
        state.start_reaping(self);
        state.links.tick = state.tick;
        state.links.add(link);
        state.admit();
        if state.presence != Presence::Live {
            state.links.close_idle();
        }
        state.end_dial(self)
    }

    /// A connection that requests share takes no more of them; those on it may go on. Whether that is news.
    #[cfg(feature = "http2")]
    pub(super) fn ended(&self, id: u64) -> (bool, Dial) {
        let mut state = self.state();
        if state.open.contains_key(&id) {
            state.ending.insert(id);
        }
        (state.links.ended(id), state.next_dial(self))
    }

    /// Does something with the connections that requests share, and lets those who wait have what that freed.
    #[cfg(feature = "http2")]
    pub(super) fn with_links(self: &Arc<Self>, change: impl FnOnce(&mut Links)) {
        let mut state = self.state();
        state.start_reaping(self);
        state.links.tick = state.tick;
        change(&mut state.links);
        if state.presence != Presence::Live {
            state.links.close_idle();
        }
        state.admit();
    }

    /// A dial that began at `began` has failed. Reports the pod, and fails the requests for which no
    /// other dial is under way: another one now would do no better.
    pub(super) fn refused(&self, began: Instant, error: &ConnectError) {
        let failed = {
            let mut state = self.state();
            // Dials that were under way together saw one event, which counts once; and a pod that has
            // taken a connection since then can be reached.
            if state.heard.is_none_or(|heard| heard <= began) {
                if matches!(error, ConnectError::Timeout) {
                    // Unlike a refusal it costs each request a wait: one at a time finds out.
                    self.health.suspect(&self.client);
                }
                self.endpoint.unreachable(error.cause());
                state.heard = Some(Instant::now());
            }
            state.give_up_dial()
        };
        for waiter in failed {
            // Perhaps it is gone.
            let _ = waiter.send(Err(error.clone()));
        }
    }

    /// A dial was dropped, as its runtime shut down: nobody's fault, but nobody may wait for it.
    pub(super) fn dropped(&self) {
        let failed = self.state().give_up_dial();
        for waiter in failed {
            let error =
                std::io::Error::new(std::io::ErrorKind::Interrupted, "the runtime has shut down");
            let _ = waiter.send(Err(ConnectError::io(error)));
        }
    }

    /// A socket is open: how it is told to close. `None` if it comes too late.
    pub(super) fn opened(&self) -> Option<(u64, Arc<Close>)> {
        let mut state = self.state();
        if state.presence == Presence::Gone {
            return None;
        }
        state.next_id += 1;
        let id = state.next_id;
        let close = Arc::<Close>::default();
        close.ending.draining(state.presence == Presence::Draining);
        state.open.insert(id, Arc::clone(&close));
        Some((id, close))
    }

    /// It is closed, and makes room for another.
    pub(super) fn closed(&self, id: u64) -> Dial {
        let mut state = self.state();
        state.open.remove(&id);
        state.ending.remove(&id);
        state.next_dial(self)
    }

    /// The pod took a connection and closed it, or turned us down, before a request was written: as good as none.
    pub(super) fn closed_at_once(&self, cause: Cause) {
        self.health.suspect(&self.client);
        self.endpoint.unreachable(cause);
    }

    /// The pod has fallen silent, or does not answer in time. Its next request makes a connection of its
    /// own, and so finds out whether the pod is there before it is written.
    pub(super) fn silent(&self) {
        self.health.suspect(&self.client);
        self.endpoint.unreachable(Cause::TimedOut);
        let mut state = self.state();
        let State { free, .. } = &mut *state;
        free.drain(..).for_each(|free| free.connection.silent());
        #[cfg(feature = "http2")]
        {
            let silent = state.links.ids().filter_map(|id| state.open.get(&id));
            silent.for_each(|close| close.ending.silent());
            state.links.retire();
        }
    }

    /// Whether an earlier request was given up while others are answered.
    #[inline]
    pub(super) fn is_doubted(&self) -> bool {
        self.health.is_doubted(&self.client)
    }

    /// A request is late, or is so still. True if the pod is silent.
    pub(super) fn late(&self, late: &Late, now: Instant) -> bool {
        let is_silent = self.health.late(&self.client, late, now);
        if is_silent && self.health.is_news(&self.client, now) {
            self.silent();
        }
        is_silent
    }

    /// A request that was sent at `sent` was late, and nobody waits for it any more.
    pub(super) fn gave_up(&self, sent: Instant) {
        self.health.gave_up(&self.client, sent, Instant::now());
    }

    /// The pod has answered a request that was sent at `sent`; now, which is returned.
    pub(super) fn answered(&self, sent: Instant, is_ignored: bool) -> Instant {
        let (now, millis) = self.client.answered(sent, is_ignored);
        if self.health.answered(millis) {
            self.endpoint.reached();
        }
        now
    }

    /// The pod took a connection. What is suspected of it, that does not disprove.
    fn reached(&self) {
        if !self.health.is_suspect() {
            self.endpoint.reached();
        }
    }

    /// The pod left the set: what is under way may end, what is free closes.
    pub(super) fn drain(&self) {
        let mut state = self.state();
        state.presence = Presence::Draining;
        state
            .open
            .values()
            .for_each(|close| close.ending.draining(true));
        state.free.clear();
        #[cfg(feature = "http2")]
        state.links.close_idle();
    }

    /// The pod is in the set again.
    pub(super) fn revive(&self) {
        let mut state = self.state();
        state.presence = Presence::Live;
        state
            .open
            .values()
            .for_each(|close| close.ending.draining(false));
    }

    /// The time to drain is over.
    pub(super) fn close(&self) {
        let (open, free, waiting) = {
            let mut state = self.state();
            state.presence = Presence::Gone;
            state.ending.clear();
            #[cfg(feature = "http2")]
            state.links.retire();
            (
                std::mem::take(&mut state.open),
                std::mem::take(&mut state.free),
                std::mem::take(&mut state.waiting),
            )
        };
        drop((free, waiting));
        open.values().for_each(|close| close.now());
    }

    /// Makes a connection before one is needed.
    pub(super) fn warm(&self) -> Dial {
        let mut state = self.state();
        if state.dials > 0 || !state.open.is_empty() {
            return Dial::No;
        }
        state.dials += 1;
        Dial::Yes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
