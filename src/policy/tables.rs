//! What a policy computed for the sets it was prepared for.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;

use crate::set::EndpointSet;

/// The tables of the newest sets, found by the set's id: the driver adds one before it publishes the set, and readers
/// of the set before still find theirs.
///
/// Two are enough for one service. A [`Prefer`](crate::Prefer) around the policy prepares it for two sets each time, and
/// one inside another for four: the tables of the set before must survive that, for it is still picked from.
pub(super) struct Tables<T> {
    newest: ArcSwap<Vec<(u64, Arc<T>)>>,
}

const KEPT: usize = 8;

impl<T> Tables<T> {
    /// What `look` makes of the set's table; of `None`, if the policy was not prepared for it.
    #[inline]
    pub(super) fn with<R>(&self, set: &EndpointSet, look: impl FnOnce(Option<&T>) -> R) -> R {
        let newest = self.newest.load();
        let table = newest.iter().find(|(id, _)| *id == set.id());
        look(table.map(|(_, table)| &**table))
    }

    /// Adds the set's table, which `build` may make of the others, the newest first.
    pub(super) fn add(&self, set: &EndpointSet, build: impl FnOnce(&[(u64, Arc<T>)]) -> T) {
        let table = Arc::new(build(&self.newest.load()));
        // Two handles may add at once, each for a set of its own.
        self.newest.rcu(|newest| {
            let others = newest.iter().filter(|(id, _)| *id != set.id());
            let mut kept = vec![(set.id(), Arc::clone(&table))];
            kept.extend(others.take(KEPT - 1).cloned());
            kept
        });
    }
}

impl<T> Default for Tables<T> {
    fn default() -> Self {
        Self {
            newest: ArcSwap::default(),
        }
    }
}

impl<T> fmt::Debug for Tables<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.newest.load();
        f.debug_set().entries(ids.iter().map(|(id, _)| id)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::set_of;

    #[test]
    fn the_tables_of_the_newest_sets_are_found_and_older_ones_are_dropped() {
        let tables = Tables::default();
        let sets: Vec<EndpointSet> = (0..10).map(set_of).collect();
        for set in &sets {
            tables.add(set, |_| set.len());
        }
        let found = |set| tables.with(set, |table| table.copied());
        let found: Vec<_> = sets.iter().map(found).collect();
        let kept = (2..10).map(Some);
        assert_eq!(
            found,
            [None, None].into_iter().chain(kept).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_set_has_one_table_the_newest() {
        let (tables, set) = (Tables::default(), set_of(1));
        tables.add(&set, |others| others.len());
        tables.add(&set, |others| others.len());
        assert_eq!(tables.with(&set, |table| table.copied()), Some(1));
        assert_eq!(tables.newest.load().len(), 1);
    }
}
