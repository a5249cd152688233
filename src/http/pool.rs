//! One pod's connections, and the requests that wait for one.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, MutexGuard, PoisonError},
};

use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, sleep},
};

#[cfg(feature = "http2")]
use super::shared::Links;
use super::{
    client::Client,
    connection::{Connection, Exclusive},
    error::ConnectError,
    health::{Health, Late},
    socket::Close,
};
use crate::{endpoint::Endpoint, registry::FOREVER};

#[expect(
    clippy::disallowed_types,
    reason = "one pod's, held for some nanoseconds, after the pick"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// Free connections per pod. A burst may need more, and closes what is above. Each costs a descriptor
/// on both sides and some 30 kB here (`benches/overhead -- --memory`), hyper's buffers for the most part; the
/// next burst of this size costs no connect.
const MAX_IDLE: usize = 100;

/// How often in an idle timeout free connections are looked at: a connection is closed by the last eighth.
const TICKS: u32 = 8;

/// Connects under way per pod. Below the smallest listen queue in common use (Java's 50), for a SYN
/// that finds the queue full is dropped, and sent again only after 1 s.
const MAX_DIALS: usize = 32;

/// Connections to one address. Dropping the pool closes those that are free; the others end with
/// their response.
pub(super) struct Pool {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) client: Arc<Client>,
    pub(super) health: Health,
    state: Mutex<State>,
}

/// Either there are connections that can take a request, or requests that wait for one.
struct State {
    /// HTTP/1.1: the newest at the back, which is used first, so that surplus ones grow old at the front.
    free: VecDeque<Free>,
    /// HTTP/2: connections that many requests share.
    #[cfg(feature = "http2")]
    links: Links,
    /// The oldest at the front. Some may have gone. While there are any, a dial is under way, or all
    /// connections that are allowed are busy.
    waiting: VecDeque<oneshot::Sender<Outcome>>,
    /// How many dials are under way: whoever waits first gets the first connection, new or free again.
    dials: usize,
    /// Every socket that is open, also those in use.
    open: HashMap<u64, Arc<Close>>,
    /// Those of them that take no more requests, and end with what they have. They make room for others.
    ending: HashSet<u64>,
    next_id: u64,
    /// How many requests a connection is expected to take at once.
    expected: usize,
    /// When the last dial ended that tells something new: it succeeded, or its failure was reported.
    /// Stragglers must not keep this young, or a pod that hangs would be reported once for good.
    heard: Option<Instant>,
    presence: Presence,
    /// Closes free connections as they grow old, while there are any.
    reaper: Option<Reaper>,
    /// Its clock, at its last look. So requests need not read another.
    tick: u32,
    /// If it has not looked by then, nobody knows how old what is free is: the machine slept.
    looks_before: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Presence {
    /// In the set. Removed: Draining.
    Live,
    /// Not in the set: finishes what it has, and keeps nothing free. Returned: Live. Its time over: Gone.
    Draining,
    /// Has no connection any more, and gets none.
    Gone,
}

/// A task that ends with the pool.
struct Reaper(AbortHandle);

impl Reaper {
    #[cold]
    fn start(pool: &Arc<Pool>) -> Self {
        let pause = pool.client.settings.idle_timeout / TICKS;
        let weak = Arc::downgrade(pool);
        let reaping = pool.client.runtime.spawn(async move {
            loop {
                sleep(pause).await;
                if !weak.upgrade().is_some_and(|pool| pool.reap()) {
                    return;
                }
            }
        });
        Self(reaping.abort_handle())
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Free {
    connection: Box<Exclusive>,
    /// The tick of that moment.
    since: u32,
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
        let expected = client.settings.expected_streams();
        let state = State {
            free: VecDeque::new(),
            #[cfg(feature = "http2")]
            links: Links::default(),
            waiting: VecDeque::new(),
            dials: 0,
            open: HashMap::new(),
            ending: HashSet::new(),
            next_id: 0,
            expected,
            heard: None,
            presence: Presence::Live,
            reaper: None,
            tick: 0,
            looks_before: Instant::now(),
        };
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
        if state.reaper.is_some() && state.looks_before <= now {
            state.free.clear();
            #[cfg(feature = "http2")]
            state.links.close_idle();
        }
        #[cfg(feature = "http2")]
        if let Some((stream, is_old)) = state.links.open(self) {
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
        state.links.tick = state.tick;
        state.links.add(link);
        state.admit(self);
        if state.presence != Presence::Live {
            state.links.close_idle();
        }
        // Perhaps nobody waits for it any more.
        state.start_reaping(self);
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
        state.admit(self);
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
                self.client.signals.unreachable(&self.endpoint);
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

    /// The pod took a connection and closed it before a request was written: as good as none.
    pub(super) fn closed_at_once(&self) {
        self.health.suspect(&self.client);
        self.client.signals.unreachable(&self.endpoint);
    }

    /// The pod has fallen silent, or does not answer in time. Its next request makes a connection of its
    /// own, and so finds out whether the pod is there before it is written.
    pub(super) fn silent(&self) {
        self.health.suspect(&self.client);
        self.client.signals.unreachable(&self.endpoint);
        let mut state = self.state();
        state.free.clear();
        #[cfg(feature = "http2")]
        state.links.retire();
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

    /// The pod has answered a request that was sent at `sent`.
    pub(super) fn answered(&self, sent: Instant) {
        let now = self.client.answered(sent);
        if self.health.answered(now) {
            self.client.signals.reached(&self.endpoint);
        }
    }

    /// The pod took a connection. What is suspected of it, that does not disprove.
    fn reached(&self) {
        if !self.health.is_suspect() {
            self.client.signals.reached(&self.endpoint);
        }
    }

    /// The pod left the set: what is under way may end, what is free closes.
    pub(super) fn drain(&self) {
        let mut state = self.state();
        state.presence = Presence::Draining;
        state.free.clear();
        #[cfg(feature = "http2")]
        state.links.close_idle();
    }

    /// The pod is in the set again.
    pub(super) fn revive(&self) {
        self.state().presence = Presence::Live;
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

    /// Looks once more; false if nothing is free, and nobody need look again.
    fn reap(&self) -> bool {
        let mut state = self.state();
        state.look(self);
        let tick = state.tick;
        while state
            .free
            .front()
            .is_some_and(|free| tick.saturating_sub(free.since) >= TICKS)
        {
            state.free.pop_front();
        }
        let is_needed = !state.free.is_empty();
        #[cfg(feature = "http2")]
        let is_needed = state.links.reap(tick, TICKS) || is_needed;
        if !is_needed {
            state.reaper = None;
        }
        is_needed
    }
}

impl State {
    fn wait(&mut self, pool: &Pool) -> (oneshot::Receiver<Outcome>, Dial) {
        let (waiter, outcome) = oneshot::channel();
        if self.presence == Presence::Gone {
            // Nobody will answer, which the receiver finds at once.
            return (outcome, Dial::No);
        }
        self.waiting.push_back(waiter);
        if self.dials < MAX_DIALS {
            // The dial of a request that is gone serves another.
            self.waiting.retain(|waiter| !waiter.is_closed());
        }
        (outcome, self.next_dial(pool))
    }

    fn keep(&mut self, connection: Box<Exclusive>, pool: &Arc<Pool>) {
        while self.free.len() >= MAX_IDLE {
            self.free.pop_front();
        }
        self.start_reaping(pool);
        let since = self.tick;
        self.free.push_back(Free { connection, since });
    }

    /// Sees to it that connections close as they grow too old to be used, also if the client falls silent.
    #[inline]
    fn start_reaping(&mut self, pool: &Arc<Pool>) {
        if self.reaper.is_none() {
            self.look(pool);
            self.reaper = Some(Reaper::start(pool));
        }
    }

    /// By the clock, for the machine may have slept, and the reaper with it.
    fn look(&mut self, pool: &Pool) {
        let (now, idle) = (Instant::now(), pool.client.settings.idle_timeout);
        let pause = (idle / TICKS).as_millis().max(1);
        self.tick = (pool.client.age(now).as_millis() / pause) as u32;
        self.looks_before = now.checked_add(idle).unwrap_or(now + FOREVER);
    }

    /// A connection that is too old serves while its successor is made.
    fn replace_if(&mut self, is_old: bool) -> Dial {
        if !is_old || self.dials > 0 || self.presence != Presence::Live {
            return Dial::No;
        }
        self.dials += 1;
        Dial::Yes
    }

    /// Counts another dial, if one is wanted and allowed.
    fn next_dial(&mut self, pool: &Pool) -> Dial {
        let most = pool.client.settings.max_connections;
        let allowed = MAX_DIALS.min(most.saturating_sub(self.connections()));
        let wanted = self.waiting.len().div_ceil(self.expected);
        if wanted <= self.dials || self.dials >= allowed || self.presence == Presence::Gone {
            return Dial::No;
        }
        self.dials += 1;
        Dial::Yes
    }

    /// How many can take requests, now or later.
    fn connections(&self) -> usize {
        let spent = self.ending.len();
        #[cfg(feature = "http2")]
        let spent = spent + self.links.retired();
        self.open.len().saturating_sub(spent)
    }

    /// A dial brought something.
    fn end_dial(&mut self, pool: &Pool) -> Dial {
        self.dials -= 1;
        self.heard = Some(Instant::now());
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        self.next_dial(pool)
    }

    /// A dial brought nothing: those who waited longest and have no dial left.
    fn give_up_dial(&mut self) -> Vec<oneshot::Sender<Outcome>> {
        self.dials -= 1;
        self.waiting.retain(|waiter| !waiter.is_closed());
        let served = self.dials.saturating_mul(self.expected);
        let left = self.waiting.len().saturating_sub(served);
        self.waiting.drain(..left).collect()
    }

    /// Requests that wait, onto connections that have room.
    #[cfg(feature = "http2")]
    fn admit(&mut self, pool: &Arc<Pool>) {
        while let Some(waiter) = self.waiting.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some((stream, _)) = self.links.open(pool) else {
                self.waiting.push_front(waiter);
                return;
            };
            if let Err(Ok(Connection::Stream(stream))) = waiter.send(Ok(Connection::Stream(stream)))
            {
                // It has gone at this very moment. We hold the lock that its drop would take.
                self.links.close(stream.forget());
            }
        }
    }
}
