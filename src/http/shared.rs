//! HTTP/2: connections that requests share.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::Request;
use hyper::client::conn::http2::SendRequest;
use tokio::time::Instant;

use super::{connection::Sending, outgoing::Outgoing, pool::Pool};

/// The connections of one pod. The oldest come first, so that few are used and surplus ones grow idle.
#[derive(Default)]
pub(super) struct Links {
    links: Vec<Link>,
    /// The pool's, at the last change.
    pub(super) tick: u32,
}

/// What a connection and its streams have in common.
struct Common {
    id: u64,
    /// Weak, for the pool owns the connections. A pool that is gone counts no more.
    pool: Weak<Pool>,
    /// Its loss was told.
    is_lost: AtomicBool,
}

/// One connection, and its streams.
pub(super) struct Link {
    common: Arc<Common>,
    sender: SendRequest<Outgoing>,
    streams: usize,
    /// Streams that have become tunnels. Nobody tells when they end, so they keep their places, and a
    /// connection on which they have taken all gets a successor.
    tunnels: usize,
    /// What the pod permits, or our own limit.
    max_streams: usize,
    /// The tick of that moment.
    idle_since: u32,
    expires: Option<Instant>,
    /// Takes no more requests.
    is_retired: bool,
}

impl Link {
    pub(super) fn new(
        id: u64,
        pool: Weak<Pool>,
        sender: SendRequest<Outgoing>,
        max_streams: usize,
        expires: Option<Instant>,
    ) -> Self {
        let common = Arc::new(Common {
            id,
            pool,
            is_lost: AtomicBool::new(false),
        });
        Self {
            common,
            sender,
            streams: 0,
            tunnels: 0,
            max_streams,
            idle_since: 0,
            expires,
            is_retired: false,
        }
    }

    pub(super) fn max_streams(&self) -> usize {
        self.max_streams
    }

    fn id(&self) -> u64 {
        self.common.id
    }

    fn has_room(&self) -> bool {
        let taken = self.streams + self.tunnels;
        !self.is_retired && taken < self.max_streams && !self.sender.is_closed()
    }

    fn is_old(&self) -> bool {
        self.expires
            .is_some_and(|expires| expires <= Instant::now())
    }
}

impl Links {
    pub(super) fn add(&mut self, mut link: Link) {
        link.idle_since = self.tick;
        // The successor of one that is too old.
        for old in self.links.iter_mut().filter(|link| link.is_old()) {
            old.is_retired = true;
        }
        self.links.push(link);
        self.drop_spent();
    }

    /// A stream on a connection that has room, and whether that should have a successor.
    pub(super) fn open(&mut self) -> Option<(Stream, bool)> {
        let link = self.links.iter_mut().find(|link| link.has_room())?;
        link.streams += 1;
        let stream = Stream {
            sender: Some(link.sender.clone()),
            common: Some(Arc::clone(&link.common)),
        };
        Some((stream, link.is_old()))
    }

    /// A stream has ended.
    pub(super) fn close(&mut self, id: u64) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id() == id) {
            link.streams -= 1;
            if link.streams == 0 {
                link.idle_since = self.tick;
            }
        }
        self.drop_spent();
    }

    /// A stream has become a tunnel. The connection lives as long as its tunnels do, whether it is known here
    /// or not.
    fn hand_over(&mut self, id: u64) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id() == id) {
            link.tunnels += 1;
            link.is_retired |= link.tunnels >= link.max_streams;
        }
        self.close(id);
    }

    /// The pod permits another number of streams.
    pub(super) fn permit(&mut self, id: u64, streams: usize) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id() == id) {
            link.max_streams = streams;
        }
    }

    /// The connection takes no more requests; those on it may go on. False if that was known.
    pub(super) fn ended(&mut self, id: u64) -> bool {
        let before = self.links.len();
        self.links.retain(|link| link.id() != id);
        self.links.len() < before
    }

    /// Which there are.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> {
        self.links.iter().map(|link| link.id())
    }

    /// None of them takes more requests.
    pub(super) fn retire(&mut self) {
        self.links
            .iter_mut()
            .for_each(|link| link.is_retired = true);
        self.drop_spent();
    }

    /// How many only end what they have.
    pub(super) fn retired(&self) -> usize {
        self.links.iter().filter(|link| link.is_retired).count()
    }

    /// Those without a request close.
    pub(super) fn close_idle(&mut self) {
        self.links.retain(|link| link.streams > 0);
    }

    /// Closes those that were idle for so many ticks. False if none is left that is idle.
    pub(super) fn reap(&mut self, tick: u32, ticks: u32) -> bool {
        self.links
            .retain(|link| link.streams > 0 || tick.saturating_sub(link.idle_since) < ticks);
        self.links.iter().any(|link| link.streams == 0)
    }

    /// A connection ends when nobody holds its sender.
    fn drop_spent(&mut self) {
        self.links
            .retain(|link| link.streams > 0 || !(link.is_retired || link.sender.is_closed()));
    }
}

/// A place on a shared connection, for one request until its response has ended.
pub(super) struct Stream {
    /// Until the request is sent. What a connection that ends has not looked at comes back when nobody can
    /// send on it any more, so one that waits for its answer must not be able to.
    sender: Option<SendRequest<Outgoing>>,
    /// Until the pool was told that it has ended.
    common: Option<Arc<Common>>,
}

impl Stream {
    pub(super) fn send(&mut self, request: Request<Outgoing>) -> Sending {
        let Some(mut sender) = self.sender.take() else {
            unreachable!("a stream carries one request");
        };
        Box::pin(sender.try_send_request(request))
    }

    pub(super) fn is_closed(&self) -> bool {
        let sender = self.sender.as_ref();
        sender.is_none_or(SendRequest::is_closed)
    }

    /// Its connection is lost. Whether no other stream has told.
    pub(super) fn is_first_loss(&self) -> bool {
        let common = self.common.as_ref();
        common.is_none_or(|common| !common.is_lost.swap(true, Relaxed))
    }

    /// Back, in vain: its place is free again.
    pub(super) fn close_in(mut self, links: &mut Links) {
        if let Some(common) = self.common.take() {
            links.close(common.id);
        }
    }

    /// The stream is the caller's from now on.
    pub(super) fn hand_over(mut self) {
        self.tell(Links::hand_over);
    }

    fn tell(&mut self, change: impl FnOnce(&mut Links, u64)) {
        if let Some(common) = self.common.take()
            && let Some(pool) = common.pool.upgrade()
        {
            pool.with_links(|links| change(links, common.id));
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.tell(Links::close);
    }
}
