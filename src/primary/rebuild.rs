//! A cluster that was built anew under the same name (R11).

use std::{collections::HashMap, sync::Arc};

use tokio::time::Instant;

use super::{Event, Tracker, node::FALL, order::Rank};

/// All claims are those of one other cluster: how many more reports of each endpoint that must outlast.
#[derive(Debug)]
pub(super) struct Rebuild {
    id: Arc<str>,
    /// By endpoint id.
    waiting: HashMap<u64, u32>,
}

impl Tracker {
    /// Begins to count when all claims are those of another cluster, and ends when one is not.
    ///
    /// Rounds are counted from the last moment at which a node of the old cluster claimed anything: while
    /// a hung primary may still be it, a node that was restarted empty must not win by answering faster.
    pub(super) fn watch_rebuild(&mut self) {
        let id = self.foreign_id();
        if let (Some(rebuild), Some(id)) = (&self.rebuild, &id)
            && rebuild.id == *id
        {
            return;
        }
        self.rebuild = id.map(|id| {
            let waiting = self.nodes.keys().map(|node| (*node, FALL)).collect();
            Rebuild { id, waiting }
        });
    }

    /// The identity that all claims share, if it is another than the cluster's. An accepted primary's is not.
    fn foreign_id(&self) -> Option<Arc<str>> {
        if !self.memory.knows_cluster() {
            return None;
        }
        let mut claims = self.claims.iter().map(|id| self.nodes[id].claim.as_ref());
        let first = claims.next()??;
        let id = first.id()?;
        let is_other = self.memory.rank(first) == Rank::Foreign;
        let is_alone = claims.all(|claim| claim.and_then(|claim| claim.id()) == Some(id));
        (is_other && is_alone).then(|| id.into())
    }

    /// Counts a report; after two of each endpoint the other cluster is ours.
    pub(super) fn count_round(&mut self, now: Instant, id: u64) {
        let Some(rebuild) = &mut self.rebuild else {
            return;
        };
        if let Some(left) = rebuild.waiting.get_mut(&id) {
            *left -= 1;
            if *left == 0 {
                rebuild.waiting.remove(&id);
            }
        }
        self.end_rebuild(now);
    }

    /// An endpoint that is gone is not waited for.
    pub(super) fn forget_round(&mut self, id: u64) {
        if let Some(rebuild) = &mut self.rebuild {
            rebuild.waiting.remove(&id);
        }
    }

    fn end_rebuild(&mut self, now: Instant) {
        if let Some(rebuild) = self.rebuild.take_if(|rebuild| rebuild.waiting.is_empty()) {
            let lineage = self
                .claims
                .first()
                .and_then(|id| self.nodes[id].lineage.clone());
            self.memory.clear();
            if let Some(lineage) = lineage {
                self.memory.go_on_with(&lineage);
            }
            self.is_learned = false;
            self.reigned = None;
            self.ring.clear();
            self.is_unjudged = true;
            self.events.push(Event::Rebuilt { id: rebuild.id });
            self.decide(now);
        }
    }
}
