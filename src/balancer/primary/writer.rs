//! The primary as it was at one moment, and whether it still is.

use std::{fmt, future::Future, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use super::Fenced;
use crate::{
    balancer::shared::{Shared, Stamp},
    endpoint::Endpoint,
    hint::Hint,
    probe::Term,
    set::Reign,
};

/// The accepted primary, from [`PrimaryView`](crate::PrimaryView): where to connect, and whether connections made
/// there are still to the primary.
///
/// Keep it with each connection. Discovery goes on while one is kept.
pub struct Writer<S = ()> {
    shared: Arc<Shared<S>>,
    endpoint: Arc<Endpoint>,
    service: S,
    reign: Reign,
}

impl<S: Clone> Writer<S> {
    /// The primary of the newest snapshot.
    #[inline]
    pub(super) fn of(shared: &Arc<Shared<S>>) -> Option<Self> {
        let snapshot = shared.snapshot.load();
        let index = snapshot.set().primary()?;
        if shared.epochs.is_closed() {
            return None;
        }
        Some(Self {
            shared: Arc::clone(shared),
            endpoint: Arc::clone(snapshot.set().at(index)?),
            service: snapshot.service(index)?.clone(),
            reign: snapshot.set().reign(),
        })
    }
}

impl<S> Writer<S> {
    /// Its address, to dial.
    pub fn addr(&self) -> SocketAddr {
        self.endpoint.addr()
    }

    /// The pod's name, where discovery told one.
    pub fn name(&self) -> Option<&str> {
        self.endpoint.name()
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its service.
    pub fn service(&self) -> &S {
        &self.service
    }

    /// Its service, to call.
    pub fn service_mut(&mut self) -> &mut S {
        &mut self.service
    }

    /// Counts the switches: a new number for each accepted pair of endpoint and term. A primary that was lost and
    /// returns in its term, as after a crash, keeps its generation.
    pub fn generation(&self) -> u64 {
        self.reign.generation
    }

    /// Moves with each new generation and with each loss: connections of another epoch are dead or to
    /// another node.
    pub fn epoch(&self) -> u64 {
        self.reign.epoch
    }

    /// The term of its claim, if the database has one.
    pub fn term(&self) -> Option<Term> {
        self.reign.term
    }

    /// Whether this is still the accepted primary, and was all the time: one load. What every
    /// checkout of a pooled connection asks.
    #[inline]
    pub fn is_current(&self) -> bool {
        !self.shared.epochs.is_after(self.reign.epoch)
    }

    /// How long ago a probe last proved who the primary is. Above the probe's interval something is in doubt.
    pub fn confirmed_ago(&self) -> Duration {
        self.shared.epochs.confirmed_ago()
    }

    /// Waits until a probe answers from now on: true if this is still the accepted primary then, false as soon as it
    /// is lost.
    ///
    /// For a connection whose write was refused as read-only: [`report`](Self::report) that, and ask this before the
    /// connection is used again. The answer comes at once or 50 ms after the last look; while the primary hangs, when it
    /// is lost for that.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn confirmed(&self) -> bool {
        let known = self.shared.epochs.last_proof();
        loop {
            let mut news = pin!(self.shared.observed.notified());
            // Before the look: no answer is missed.
            news.as_mut().enable();
            if !self.is_current() {
                return false;
            }
            if self.shared.epochs.last_proof() != known {
                return true;
            }
            tokio::select! {
                () = news => {}
                () = self.lost() => return false,
            }
        }
    }

    /// Completes when this is not the accepted primary any more, at once if that was before the call: another one was
    /// accepted, this one was lost, or discovery has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn lost(&self) {
        let mut epochs = self.shared.epochs.subscribe();
        // An error would say that the sender is gone, and `self` has it.
        let _ = epochs.wait_for(|&(now, _)| now > self.reign.epoch).await;
    }

    /// The output of `work`, or [`Fenced`] as soon as this is not the accepted primary any more: then `work` is
    /// dropped, and what it had sent may still take effect.
    ///
    /// Nothing is done twice. Drop the connection too: its next reply would be to a request of this `work`.
    ///
    /// # Errors
    ///
    /// [`Fenced`], which tells whether the work had begun.
    ///
    /// # Cancel safety
    ///
    /// As `work`.
    pub async fn run<F: Future>(&self, work: F) -> Result<F::Output, Fenced> {
        if !self.is_current() {
            return Err(Fenced::new(&self.shared, &self.endpoint, false));
        }
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = self.lost() => Err(Fenced::new(&self.shared, &self.endpoint, true)),
        }
    }

    /// Reports what an error on a connection to it hints at ([`Hint`]): the probes look at once. Coalesced, ignored
    /// if this was lost since, and never evidence by itself.
    pub fn report(&self, hint: Hint) {
        if !self.is_current() {
            return;
        }
        let stamp = Stamp {
            endpoint: self.endpoint.id(),
            epoch: self.reign.epoch,
        };
        self.shared.signals.hint(Some(stamp), hint);
    }
}

impl<S: Clone> Clone for Writer<S> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            endpoint: Arc::clone(&self.endpoint),
            service: self.service.clone(),
            reign: self.reign,
        }
    }
}

impl<S> fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("endpoint", &self.endpoint)
            .field("reign", &self.reign)
            .field("is_current", &self.is_current())
            .finish_non_exhaustive()
    }
}

impl<S> fmt::Display for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}
