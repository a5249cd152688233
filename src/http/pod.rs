//! One pod, and the checkout of a connection to it.

use std::{
    fmt, mem,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    HttpError, HttpService,
    client::Client,
    connection::Connection,
    dial,
    error::ConnectError,
    health::Admission,
    pool::{self, Outcome, Pool},
};
use crate::{endpoint::Endpoint, meter::Picked};

/// One pod's HTTP connections: what a balancer from [`spawn_http`](crate::Builder::spawn_http)
/// keeps for each endpoint. Clones share them.
///
/// To call one certain pod, take its tower service:
///
/// ```no_run
/// # use headless_lb::{Balancer, HttpPod};
/// # use http_body_util::Empty;
/// # use hyper::{Request, body::Bytes};
/// # use tower::ServiceExt;
/// # async fn example(catalog: Balancer<HttpPod>) -> Result<(), Box<dyn std::error::Error>> {
/// let (pod, _in_flight) = catalog.pod("catalog-0")?.into_parts();
/// let request = Request::post("http://catalog.shop/cache/flush").body(Empty::<Bytes>::new())?;
/// let response = pod.into_service().oneshot(request).await?;
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
pub struct HttpPod {
    pub(super) pool: Arc<Pool>,
    checkout: Checkout,
    /// This clone finds out whether the pod answers again.
    is_trial: bool,
    /// How it was picked, until that is counted: with the first look for a connection.
    picked: Option<Picked>,
}

enum Checkout {
    /// Nothing yet. Polled: Ready, or Waiting.
    Idle,
    /// The same, and the pod was picked at this very moment: no other reading of the clock is needed.
    Picked(Instant),
    /// No connection was free. The first that is, or is made: Ready. None can be made: Idle. Dropped:
    /// what came too late goes to the next.
    Waiting(oneshot::Receiver<Outcome>),
    /// A connection of this clone; when it was taken, if it was free. Called: Idle. Dropped: back to the pool.
    Ready(Connection, Option<Instant>),
}

impl HttpPod {
    pub(super) fn new(endpoint: &Arc<Endpoint>, client: &Arc<Client>) -> Self {
        Self {
            pool: Arc::new(Pool::new(Arc::clone(endpoint), Arc::clone(client))),
            checkout: Checkout::Idle,
            is_trial: false,
            picked: None,
        }
    }

    /// This clone was picked so. It is counted over what it goes.
    pub(super) fn picked(&mut self, picked: Picked) {
        self.picked = Some(picked);
    }

    /// The address that is dialled.
    pub fn addr(&self) -> SocketAddr {
        self.pool.addr()
    }

    /// This pod alone as a tower service. What becomes of its requests is yours to say:
    /// [`Pick::record`](crate::Pick::record).
    pub fn into_service(self) -> HttpService {
        HttpService::new(self)
    }

    /// Makes a connection before one is needed; false if there is one.
    pub(super) fn warm(&self) -> bool {
        let dial = self.pool.warm();
        let is_needed = dial == pool::Dial::Yes;
        dial::start(&self.pool, dial);
        is_needed
    }

    /// Whether a request may go to the pod: while it is being found out whether it answers again, no other
    /// may, unless there is no other pod.
    pub(super) fn admit(&mut self, may_repeat: bool, is_last: bool) -> Result<(), HttpError> {
        let client = &self.pool.client;
        // Over TLS and HTTP/2 the pod speaks before anything is written.
        let may_be_lost = may_repeat || client.form.keeps;
        match self.pool.health.admit(client, may_be_lost) {
            Admission::Open => Ok(()),
            Admission::Trial => {
                self.is_trial = true;
                Ok(())
            }
            Admission::Denied if is_last => Ok(()),
            Admission::Denied => Err(HttpError::SetAside),
        }
    }

    /// The pod was picked at this very moment.
    pub(super) fn picked_at(&mut self, now: Instant) {
        self.checkout = Checkout::Picked(now);
    }

    /// Waits for a connection that can take a request: a free one, or else the first that becomes free
    /// or is made.
    pub(super) fn poll_checkout(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), HttpError>> {
        loop {
            self.checkout = match &mut self.checkout {
                Checkout::Ready(connection, _) if !connection.is_closed() => {
                    return Poll::Ready(Ok(()));
                }
                Checkout::Ready(..) => Checkout::Idle,
                idle @ (Checkout::Idle | Checkout::Picked(_)) => {
                    let now = match idle {
                        Checkout::Picked(now) => *now,
                        _ => Instant::now(),
                    };
                    let checkout = self.pool.checkout(now);
                    if let Some(picked) = self.picked.take() {
                        let is_free = matches!(checkout, pool::Checkout::Free(..));
                        let meter = &self.pool.client.signals.meter;
                        meter.picked(picked.over(is_free));
                    }
                    match checkout {
                        pool::Checkout::Free(connection, dial) => {
                            dial::start(&self.pool, dial);
                            Checkout::Ready(connection, Some(now))
                        }
                        pool::Checkout::Wait(outcome, dial) => {
                            dial::start(&self.pool, dial);
                            Checkout::Waiting(outcome)
                        }
                    }
                }
                Checkout::Waiting(outcome) => {
                    let outcome = ready!(Pin::new(outcome).poll(cx))
                        .unwrap_or_else(|_| Err(ConnectError::gone()));
                    self.checkout = Checkout::Idle;
                    // It may have closed again, but a pod that closes each connection must not be
                    // dialled without end.
                    self.checkout = Checkout::Ready(outcome?, None);
                    return Poll::Ready(Ok(()));
                }
            };
        }
    }

    /// From now on waits for a connection that has not been idle.
    pub(super) fn renew(&mut self) {
        let (outcome, dial) = self.pool.wait();
        self.checkout = Checkout::Waiting(outcome);
        dial::start(&self.pool, dial);
    }

    /// The connection that was checked out, and when if that was known.
    pub(super) fn take(&mut self) -> Option<(Connection, Option<Instant>)> {
        match mem::replace(&mut self.checkout, Checkout::Idle) {
            Checkout::Ready(connection, at) => Some((connection, at)),
            other => {
                self.checkout = other;
                None
            }
        }
    }

    /// The checkout may be a while ago.
    pub(super) fn forget_when(&mut self) {
        if let Checkout::Ready(_, at) = &mut self.checkout {
            *at = None;
        }
    }

    /// What was to be found out is found out, or will not be.
    pub(super) fn end_trial(&mut self) {
        if mem::take(&mut self.is_trial) {
            self.pool.health.end_trial();
        }
    }
}

impl Clone for HttpPod {
    /// The same pod, with no connection checked out.
    fn clone(&self) -> Self {
        Self {
            pool: Arc::clone(&self.pool),
            checkout: Checkout::Idle,
            is_trial: false,
            picked: None,
        }
    }
}

impl Drop for HttpPod {
    fn drop(&mut self) {
        self.end_trial();
        match mem::replace(&mut self.checkout, Checkout::Idle) {
            Checkout::Idle | Checkout::Picked(_) => {}
            Checkout::Waiting(mut outcome) => {
                outcome.close();
                if let Ok(Ok(connection)) = outcome.try_recv() {
                    connection.give_back();
                }
            }
            Checkout::Ready(connection, _) => connection.give_back(),
        }
    }
}

impl fmt::Debug for HttpPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPod")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}
