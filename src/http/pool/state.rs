//! What the pool's lock guards: connections that are free, requests that wait, dials under way.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use tokio::{
    sync::oneshot,
    task::AbortHandle,
    time::{Instant, sleep},
};

use super::{Dial, Outcome, Pool};
#[cfg(feature = "http2")]
use crate::http::{connection::Connection, shared::Links};
use crate::{
    backoff::FOREVER,
    http::{connection::Exclusive, socket::Close},
};

/// Free connections per pod. A burst may need more, and closes what is above. Each costs a descriptor
/// on both sides and some 30 kB here (`benches/overhead -- --memory`), hyper's buffers for the most part; the
/// next burst of this size costs no connect.
const MAX_IDLE: usize = 100;

/// How often in an idle timeout free connections are looked at: a connection is closed by the last eighth.
const TICKS: u32 = 8;

/// Connects under way per pod. Below the smallest listen queue in common use (Java's 50), for a SYN
/// that finds the queue full is dropped, and sent again only after 1 s.
const MAX_DIALS: usize = 32;

/// Either there are connections that can take a request, or requests that wait for one.
pub(super) struct State {
    /// HTTP/1.1: the newest at the back, which is used first, so that surplus ones grow old at the front.
    pub(super) free: VecDeque<Free>,
    /// HTTP/2: connections that many requests share.
    #[cfg(feature = "http2")]
    pub(super) links: Links,
    /// The oldest at the front. Some may have gone. While there are any, a dial is under way, or all
    /// connections that are allowed are busy.
    pub(super) waiting: VecDeque<oneshot::Sender<Outcome>>,
    /// How many dials are under way: whoever waits first gets the first connection, new or free again.
    pub(super) dials: usize,
    /// Every socket that is open, also those in use.
    pub(super) open: HashMap<u64, Arc<Close>>,
    /// Those of them that take no more requests, and end with what they have. They make room for others.
    pub(super) ending: HashSet<u64>,
    pub(super) next_id: u64,
    /// How many requests a connection is expected to take at once.
    pub(super) expected: usize,
    /// When the last dial ended that tells something new: it succeeded, or its failure was reported.
    /// Stragglers must not keep this young, or a pod that hangs would be reported once for good.
    pub(super) heard: Option<Instant>,
    pub(super) presence: Presence,
    /// Closes free connections as they grow old, while there are any.
    reaper: Option<Reaper>,
    /// Its clock, at its last look. So requests need not read another.
    pub(super) tick: u32,
    /// If it has not looked by then, nobody knows how old what is free is: the machine slept.
    pub(super) looks_before: Instant,
}

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Presence {
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
                if !weak.upgrade().is_some_and(|pool| pool.state().reap(&pool)) {
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

pub(super) struct Free {
    pub(super) connection: Box<Exclusive>,
    /// The tick of that moment.
    pub(super) since: u32,
}

impl State {
    pub(super) fn new(expected: usize) -> Self {
        Self {
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
        }
    }

    pub(super) fn wait(&mut self, pool: &Pool) -> (oneshot::Receiver<Outcome>, Dial) {
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

    pub(super) fn keep(&mut self, connection: Box<Exclusive>, pool: &Arc<Pool>) {
        while self.free.len() >= MAX_IDLE {
            self.free.pop_front();
        }
        self.start_reaping(pool);
        let since = self.tick;
        self.free.push_back(Free { connection, since });
    }

    /// Sees to it that connections close as they grow too old to be used, also if the client falls silent.
    #[inline]
    pub(super) fn start_reaping(&mut self, pool: &Arc<Pool>) {
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

    /// Closes what is free if nobody has looked for too long.
    #[inline]
    pub(super) fn trust_until(&mut self, now: Instant) {
        if self.reaper.is_some() && self.looks_before <= now {
            self.free.clear();
            #[cfg(feature = "http2")]
            self.links.close_idle();
        }
    }

    /// A connection that is too old serves while its successor is made.
    pub(super) fn replace_if(&mut self, is_old: bool) -> Dial {
        if !is_old || self.dials > 0 || self.presence != Presence::Live {
            return Dial::No;
        }
        self.dials += 1;
        Dial::Yes
    }

    /// Counts another dial, if one is wanted and allowed.
    pub(super) fn next_dial(&mut self, pool: &Pool) -> Dial {
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
    pub(super) fn connections(&self) -> usize {
        let spent = self.ending.len();
        #[cfg(feature = "http2")]
        let spent = spent + self.links.retired();
        self.open.len().saturating_sub(spent)
    }

    /// A dial brought something.
    pub(super) fn end_dial(&mut self, pool: &Pool) -> Dial {
        self.dials -= 1;
        self.heard = Some(Instant::now());
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        self.next_dial(pool)
    }

    /// A dial brought nothing: those who waited longest and have no dial left.
    pub(super) fn give_up_dial(&mut self) -> Vec<oneshot::Sender<Outcome>> {
        self.dials -= 1;
        self.waiting.retain(|waiter| !waiter.is_closed());
        let served = self.dials.saturating_mul(self.expected);
        let left = self.waiting.len().saturating_sub(served);
        self.waiting.drain(..left).collect()
    }

    /// Requests that wait, onto connections that have room.
    #[cfg(feature = "http2")]
    pub(super) fn admit(&mut self) {
        while let Some(waiter) = self.waiting.pop_front() {
            if waiter.is_closed() {
                continue;
            }
            let Some((stream, _)) = self.links.open() else {
                self.waiting.push_front(waiter);
                return;
            };
            if let Err(Ok(Connection::Stream(stream))) = waiter.send(Ok(Connection::Stream(stream)))
            {
                // It has gone at this very moment. We hold the lock that its drop would take.
                stream.close_in(&mut self.links);
            }
        }
    }

    /// Looks once more; false if nothing is free, and nobody need look again.
    fn reap(&mut self, pool: &Pool) -> bool {
        self.look(pool);
        let tick = self.tick;
        while self
            .free
            .front()
            .is_some_and(|free| tick.saturating_sub(free.since) >= TICKS)
        {
            self.free.pop_front();
        }
        let is_needed = !self.free.is_empty();
        #[cfg(feature = "http2")]
        let is_needed = self.links.reap(tick, TICKS) || is_needed;
        if !is_needed {
            self.reaper = None;
        }
        is_needed
    }
}
