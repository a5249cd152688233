//! What was added and removed, as a stream.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use tokio::sync::watch::{Receiver, error::RecvError};

use crate::{endpoint::Endpoint, set::EndpointSet};

/// The changes of a set, from [`Balancer::subscribe`](crate::Balancer::subscribe).
///
/// Each change is the difference between the set that this reader saw last and the set now, so a
/// slow reader misses nothing and holds nothing up; an endpoint that came and went in between is not
/// told. It ends when the last [`Balancer`](crate::Balancer) is dropped: it keeps none alive.
///
/// ```
/// use headless_lb::{Balancer, Fixed};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let balancer = Balancer::builder(Fixed::new([SocketAddr::from(([127, 0, 0, 1], 80))])).spawn();
/// let mut changes = balancer.subscribe();
/// let first = changes.next().await.ok_or("closed")?;
/// assert_eq!(first.added().len(), 1);
/// # Ok(())
/// # }
/// ```
pub struct Changes {
    state: State,
    /// Ascending by id.
    known: Vec<Arc<Endpoint>>,
}

enum State {
    /// There may be something new.
    Look(Receiver<Arc<EndpointSet>>),
    /// There is nothing new.
    Wait(Pin<Box<dyn Future<Output = Looked> + Send>>),
    /// There will be nothing new.
    Ended,
}

/// Whether there is something new, and the receiver back.
type Looked = (Result<(), RecvError>, Receiver<Arc<EndpointSet>>);

/// One change: all that came and went at once.
#[derive(Clone, Debug)]
pub struct Change {
    added: Vec<Arc<Endpoint>>,
    removed: Vec<Arc<Endpoint>>,
    set: Arc<EndpointSet>,
}

impl Changes {
    pub(super) fn new(receiver: Receiver<Arc<EndpointSet>>) -> Self {
        Self {
            state: State::Look(receiver),
            known: Vec::new(),
        }
    }

    /// The next change; `None` when the last balancer is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no change.
    pub async fn next(&mut self) -> Option<Change> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    fn difference(&mut self, set: Arc<EndpointSet>) -> Option<Change> {
        let mut present: Vec<_> = set.iter().cloned().collect();
        present.sort_unstable_by_key(|endpoint| endpoint.id());
        let lacks = |sorted: &[Arc<Endpoint>], endpoint: &Arc<Endpoint>| {
            sorted
                .binary_search_by_key(&endpoint.id(), |other| other.id())
                .is_err()
        };
        let missing_from = |these: &[Arc<Endpoint>], those: &[Arc<Endpoint>]| -> Vec<_> {
            those
                .iter()
                .filter(|endpoint| lacks(these, endpoint))
                .cloned()
                .collect()
        };
        let added = missing_from(&self.known, &present);
        let removed = missing_from(&present, &self.known);
        self.known = present;
        let changed = !added.is_empty() || !removed.is_empty();
        changed.then_some(Change {
            added,
            removed,
            set,
        })
    }
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Change>> {
        let this = self.get_mut();
        loop {
            this.state = match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Look(mut receiver) => {
                    let set = Arc::clone(&receiver.borrow_and_update());
                    let wait = Box::pin(async move { (receiver.changed().await, receiver) });
                    this.state = State::Wait(wait);
                    if let Some(change) = this.difference(set) {
                        return Poll::Ready(Some(change));
                    }
                    continue;
                }
                State::Wait(mut wait) => match wait.as_mut().poll(cx) {
                    Poll::Pending => {
                        this.state = State::Wait(wait);
                        return Poll::Pending;
                    }
                    Poll::Ready((Ok(()), receiver)) => State::Look(receiver),
                    Poll::Ready((Err(_), _)) => State::Ended,
                },
            };
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl Change {
    /// Endpoints that were not there before.
    pub fn added(&self) -> &[Arc<Endpoint>] {
        &self.added
    }

    /// Endpoints that are not there any more.
    pub fn removed(&self) -> &[Arc<Endpoint>] {
        &self.removed
    }

    /// The set after the change.
    pub fn set(&self) -> &Arc<EndpointSet> {
        &self.set
    }
}
