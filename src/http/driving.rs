//! HTTP/2: all that hyper does for one connection, in one task.
//!
//! hyper would have a task for the connection, one that opens streams, and more for each stream. Spread over
//! threads, a goodbye of the pod can come between opening a stream and looking whether it was opened: then
//! hyper cannot tell whether the request was written, and neither could we. In one task nothing comes between.
//! And what the pod says of the connection (settings, goodbye) is known when it is read, not when the next
//! request comes upon it.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker, ready},
};

use futures_util::{StreamExt, stream::FuturesUnordered, task::AtomicWaker};
use hyper::{client::conn::http2::Connection, rt};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::{outgoing::Outgoing, socket::Socket};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the tasks of a connection.
#[derive(Clone)]
pub(super) struct Executor(mpsc::UnboundedSender<Task>);

/// And where they are taken from. Only what the driver polls puts any there, so it need not be woken for them.
pub(super) type Tasks = mpsc::UnboundedReceiver<Task>;

pub(super) fn executor() -> (Executor, Tasks) {
    let (sender, tasks) = mpsc::unbounded_channel();
    (Executor(sender), tasks)
}

impl<F> rt::Executor<F> for Executor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        // Without a driver the connection is gone as well.
        let _ = self.0.send(Box::pin(task));
    }
}

/// A connection with its tasks.
pub(super) struct Driver {
    /// Opens streams, until it takes no more requests.
    connection: Option<Connection<TokioIo<Socket>, Outgoing, Executor>>,
    /// The socket's, and the streams'.
    tasks: FuturesUnordered<Task>,
    new: Tasks,
    wakes: Arc<Wakes>,
    waker: Waker,
}

/// Tasks wake each other all the time. Those that are polled anyway need no scheduler for that.
#[derive(Default)]
struct Wakes {
    is_polling: AtomicBool,
    came: AtomicBool,
    driver: AtomicWaker,
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.came.store(true, SeqCst);
        if !self.is_polling.load(SeqCst) {
            self.driver.wake();
        }
    }
}

/// How often tasks may wake each other before others have their turn.
const ROUNDS: usize = 8;

impl Driver {
    pub(super) fn new(
        connection: Connection<TokioIo<Socket>, Outgoing, Executor>,
        new: Tasks,
    ) -> Self {
        let wakes = Arc::<Wakes>::default();
        Self {
            connection: Some(connection),
            tasks: FuturesUnordered::new(),
            new,
            waker: Waker::from(Arc::clone(&wakes)),
            wakes,
        }
    }

    /// Goes as far as it can. Ready, once, when the connection takes no more requests; those that it has
    /// go on.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.wakes.driver.register(cx.waker());
        self.wakes.is_polling.store(true, SeqCst);
        // What was read may concern the connection, and what that does is to be written.
        self.poll_tasks();
        let ended = self.poll_connection(cx);
        self.poll_tasks();
        self.wakes.is_polling.store(false, SeqCst);
        if self.wakes.came.load(SeqCst) {
            cx.waker().wake_by_ref();
        }
        ended
    }

    /// What the pod permits, while it is asked.
    pub(super) fn max_streams(&self) -> Option<usize> {
        let connection = self.connection.as_ref()?;
        Some(connection.current_max_send_streams())
    }

    /// Nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.connection.is_none() && self.tasks.is_empty()
    }

    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        let Some(connection) = &mut self.connection else {
            return Poll::Pending;
        };
        let ended = ready!(Pin::new(connection).poll(cx));
        // Requests that it did not look at go back.
        self.connection = None;
        Poll::Ready(ended)
    }

    fn poll_tasks(&mut self) {
        let mut cx = Context::from_waker(&self.waker);
        for _ in 0..ROUNDS {
            self.wakes.came.store(false, SeqCst);
            while let Ok(task) = self.new.try_recv() {
                self.tasks.push(task);
            }
            while let Poll::Ready(Some(())) = self.tasks.poll_next_unpin(&mut cx) {}
            if self.new.is_empty() && !self.wakes.came.load(SeqCst) {
                return;
            }
        }
        self.wakes.came.store(true, SeqCst);
    }
}
