//! What the registry hands to readers.

use std::{fmt, sync::Arc};

use crate::{
    endpoint::Endpoint,
    set::{EndpointSet, Position},
};

/// What readers load: a set, and the service of each endpoint at the same index.
pub struct Snapshot<S> {
    pub(super) set: Arc<EndpointSet>,
    pub(super) services: Box<[S]>,
}

impl<S> Snapshot<S> {
    pub(crate) fn empty() -> Self {
        let set = EndpointSet::from_groups(Vec::new(), [0; Position::COUNT], 0);
        Self {
            set: Arc::new(set),
            services: Box::default(),
        }
    }

    /// The endpoints.
    #[inline]
    pub fn set(&self) -> &Arc<EndpointSet> {
        &self.set
    }

    /// The service of the endpoint at `index` of the set.
    #[inline]
    pub fn service(&self, index: usize) -> Option<&S> {
        self.services.get(index)
    }
}

impl<S> fmt::Debug for Snapshot<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// A new snapshot, and what came and went since the last one.
#[derive(Debug)]
pub struct Published<S> {
    pub(super) snapshot: Snapshot<S>,
    pub(super) added: Vec<Arc<Endpoint>>,
    pub(super) removed: Vec<Arc<Endpoint>>,
}

impl<S> Published<S> {
    /// The snapshot to hand to readers.
    pub fn snapshot(&self) -> &Snapshot<S> {
        &self.snapshot
    }

    /// The snapshot, by value.
    pub fn into_snapshot(self) -> Snapshot<S> {
        self.snapshot
    }

    /// Endpoints that were not in the set before.
    pub fn added(&self) -> &[Arc<Endpoint>] {
        &self.added
    }

    /// Whether it is more than another order of the same endpoints.
    pub(crate) fn has_other_members(&self) -> bool {
        !self.added.is_empty() || !self.removed.is_empty()
    }

    /// Endpoints that are not in the set any more.
    pub fn removed(&self) -> &[Arc<Endpoint>] {
        &self.removed
    }
}
