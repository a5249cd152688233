//! A steady load: an open loop, which goes on asking at its rate when the answers come late or not
//! at all.
#![expect(clippy::disallowed_methods, reason = "the load runs beside the story")]

use std::{future::Future, time::Duration};

use tokio::{
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time::interval,
};

/// A bound for a machine that cannot keep up: beyond it the loop waits for an answer.
const MAX_IN_FLIGHT: usize = 256;

/// A bound in count: ten minutes at 100 a second.
const MAX_REQUESTS: u32 = 60_000;

/// A load that runs until it is stopped.
pub(crate) struct Load {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Load {
    /// Makes a call every `period`.
    pub(crate) fn start<F>(period: Duration, mut call: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            let mut beat = interval(period);
            for _ in 0..MAX_REQUESTS {
                tokio::select! {
                    _ = beat.tick() => {}
                    _ = &mut stopped => break,
                }
                while calls.try_join_next().is_some() {}
                if calls.len() >= MAX_IN_FLIGHT {
                    calls.join_next().await;
                }
                calls.spawn(call());
            }
            while calls.join_next().await.is_some() {}
        });
        Self { stop, task }
    }

    /// Makes no more calls, and waits for those in flight.
    pub(crate) async fn stop(self) {
        // It may have ended by itself, at its bound.
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}
