//! The pods that a request was offered to in vain.

use std::{mem, sync::Arc};

use crate::{
    balancer::Balancer,
    endpoint::Endpoint,
    http::{HttpError, pod::HttpPod},
    service::Error,
};

/// Pods that get the request no more, and why.
#[derive(Default)]
pub(super) struct Tried {
    pods: Vec<Arc<Endpoint>>,
    /// Those of them that may get it again if there is no other.
    spared: Vec<Arc<Endpoint>>,
    /// Why the last pod did not take it.
    unsent: Option<HttpError>,
    /// The last pod that may have seen it, and how it failed.
    seen: Option<(Arc<Endpoint>, HttpError)>,
}

/// How many pods were excluded at some moment.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    pods: usize,
    spared: usize,
}

impl Tried {
    /// The pods to pick no more.
    pub(super) fn pods(&self) -> &[Arc<Endpoint>] {
        &self.pods
    }

    /// A pod gets it no more; or only if there is no other.
    pub(super) fn exclude(&mut self, pod: &Arc<Endpoint>, is_spared: bool) {
        self.pods.push(Arc::clone(pod));
        if is_spared {
            self.spared.push(Arc::clone(pod));
        }
    }

    /// A pod did not take it.
    pub(super) fn unsent(&mut self, error: HttpError) {
        self.unsent = Some(error);
    }

    /// A pod may have seen it, and failed.
    pub(super) fn seen(&mut self, pod: &Arc<Endpoint>, error: HttpError) {
        self.seen = Some((Arc::clone(pod), error));
    }

    /// Whether it is known why the request may fail.
    pub(super) fn has_error(&self) -> bool {
        self.unsent.is_some() || self.seen.is_some()
    }

    /// Whether a pod may have seen it.
    pub(super) fn was_seen(&self) -> bool {
        self.seen.is_some()
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            pods: self.pods.len(),
            spared: self.spared.len(),
        }
    }

    /// Those that were excluded since may be picked again.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.pods.truncate(mark.pods);
        self.spared.truncate(mark.spared);
    }

    /// Whether there are some that may get it again.
    pub(super) fn has_spared(&self) -> bool {
        !self.spared.is_empty()
    }

    /// There is no other pod: those that are spared may be picked again.
    pub(super) fn readmit(&mut self) {
        let spared = mem::take(&mut self.spared);
        self.pods
            .retain(|one| !spared.iter().any(|other| Arc::ptr_eq(one, other)));
    }

    /// What the request ends with.
    pub(super) fn end(&mut self, balancer: &Balancer<HttpPod>) -> Error<HttpError> {
        match (self.seen.take(), self.unsent.take()) {
            (Some((endpoint, error)), _) => Error::Service {
                service: balancer.status().service().into(),
                endpoint,
                error,
            },
            (None, error) => self.end_unsent(balancer, error.unwrap_or(HttpError::SetAside)),
        }
    }

    /// The same for a request that no pod has seen.
    pub(super) fn end_unsent(
        &mut self,
        balancer: &Balancer<HttpPod>,
        error: HttpError,
    ) -> Error<HttpError> {
        Error::unsent(balancer, &mut self.pods, error)
    }
}
