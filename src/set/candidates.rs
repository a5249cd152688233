//! What a policy sees of a set, and its answer.

use std::{fmt, hash::Hash, ops::Range};

use tokio::time::Instant;

use super::{EndpointSet, Position};
use crate::{endpoint::Endpoint, key::hash_of};

/// What a policy picks from: a view of a set that narrows.
///
/// Copying it is free. Endpoints that this request already tried are not in it.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    pub(super) set: &'a EndpointSet,
    pub(super) start: usize,
    pub(super) end: usize,
    /// Indices of the set that are left out: ascending, distinct, all in `start..end`.
    pub(super) excluded: &'a [usize],
    pub(super) key: Option<u64>,
    pub(super) now: Option<Instant>,
}

/// A policy's answer: one endpoint of the candidates it was given.
///
/// Only [`Candidates::choose`] makes one, and its lifetime ties it to that very set, so an answer
/// cannot be out of range or out of date:
///
/// ```compile_fail
/// # use headless_lb::{Candidates, Choice};
/// fn pick<'a>(candidates: Candidates<'a>, yesterday: Choice<'static>) -> Option<Choice<'static>> {
///     candidates.choose(0)
/// }
/// ```
///
/// ```
/// # use headless_lb::{Candidates, Choice};
/// fn pick<'a>(candidates: Candidates<'a>) -> Option<Choice<'a>> {
///     candidates.choose(0)
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    pub(super) set: &'a EndpointSet,
    pub(super) index: usize,
}

impl<'a> Candidates<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.end - self.start - self.excluded.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The candidate number `i`, counted from 0; `None` from [`len`](Self::len) on.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&'a Endpoint> {
        Some(self.choose(i)?.endpoint())
    }

    /// Picks the candidate number `i`; `None` from [`len`](Self::len) on.
    #[inline]
    pub fn choose(&self, i: usize) -> Option<Choice<'a>> {
        if !self.excluded.is_empty() {
            return self.choose_untried(i);
        }
        (i < self.span()).then_some(Choice {
            set: self.set,
            index: self.start + i,
        })
    }

    /// How many there would be had this request tried none yet.
    #[inline]
    pub(crate) fn span(&self) -> usize {
        self.end - self.start
    }

    /// Whether this request left some out.
    pub(crate) fn is_reduced(&self) -> bool {
        !self.excluded.is_empty()
    }

    /// The candidate at `place`, which is below [`span`](Self::span), or the next one that was not tried.
    #[inline]
    pub(crate) fn choose_from(&self, place: usize) -> Option<Choice<'a>> {
        debug_assert!(place < self.span());
        if !self.excluded.is_empty() {
            return self.choose_untried_from(place);
        }
        Some(Choice {
            set: self.set,
            index: self.start + place,
        })
    }

    /// The candidates in their order: the same for every pick while the set stays.
    pub fn iter(self) -> impl Iterator<Item = &'a Endpoint> {
        (0..self.len()).map(move |i| &*self.set.endpoints[self.index(i)])
    }

    /// Where they are in the set, those included that this request tried.
    #[inline]
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether the endpoint at this index of the set is one of them.
    #[inline]
    pub(crate) fn has(&self, index: usize) -> bool {
        self.range().contains(&index)
            && (self.excluded.is_empty() || self.excluded.binary_search(&index).is_err())
    }

    /// Picks the one at this index of the set, if it is one of them.
    #[inline]
    pub(crate) fn choose_at(&self, index: usize) -> Option<Choice<'a>> {
        self.has(index).then_some(Choice {
            set: self.set,
            index,
        })
    }

    /// Only the accepted primary: one or none.
    #[must_use]
    #[inline]
    pub fn primaries(self) -> Self {
        self.narrow(self.set.group(Position::Primary))
    }

    /// Only the replicas.
    #[must_use]
    #[inline]
    pub fn replicas(self) -> Self {
        self.narrow(self.set.group(Position::Replica))
    }

    /// These, or if there is none, the others.
    #[must_use]
    #[inline]
    pub fn or(self, others: Self) -> Self {
        if self.is_empty() { others } else { self }
    }

    /// The same candidates for a key, as [`pick_for`](crate::Balancer::pick_for) asks for them.
    ///
    /// ```
    /// use headless_lb::{EndpointSet, Policy, Rendezvous};
    /// use std::net::SocketAddr;
    ///
    /// let set = EndpointSet::of((1..=3).map(|i| SocketAddr::from(([10, 0, 0, i], 80))));
    /// let policy = Rendezvous::new();
    /// let pick = || policy.pick(set.available().for_key("user-7")).map(|choice| choice.endpoint().addr());
    /// assert_eq!(pick(), pick());
    /// ```
    #[must_use]
    pub fn for_key(self, key: impl Hash) -> Self {
        self.with_key(Some(hash_of(key)))
    }

    /// The hash of what the caller gave to [`pick_for`](crate::Balancer::pick_for) or
    /// [`for_key`](crate::Balancer::for_key).
    #[inline]
    pub fn key(&self) -> Option<u64> {
        self.key
    }

    /// The set that these are of.
    #[inline]
    pub fn set(&self) -> &'a EndpointSet {
        self.set
    }

    /// The moment of the pick. The balancer reads the clock before it asks a policy
    /// [about time](crate::Policy::is_timed); for others it is read here.
    #[inline]
    pub fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }

    /// The same candidates at this moment: for tests and simulations, where time is what they say it is.
    #[must_use]
    #[inline]
    pub fn at(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }

    #[inline]
    pub(crate) fn with_now(mut self, now: Option<Instant>) -> Self {
        self.now = now;
        self
    }

    /// Whether some endpoint of the set should not get its full share yet.
    #[inline]
    pub(crate) fn is_careful(&self) -> bool {
        self.set.is_careful
    }

    #[inline]
    pub(crate) fn with_key(mut self, key: Option<u64>) -> Self {
        self.key = key;
        self
    }

    /// Leaves out the endpoints at `excluded`: indices of the set, ascending and distinct.
    ///
    /// A balancer does this for its retries; this is for a simulation that stands in for the balancer.
    #[doc(hidden)]
    #[must_use]
    pub fn excluding(mut self, excluded: &'a [usize]) -> Self {
        self.excluded = excluded;
        self.narrow(self.start..self.end)
    }

    #[inline]
    pub(super) fn narrow(mut self, range: Range<usize>) -> Self {
        self.start = self.start.max(range.start);
        self.end = self.end.min(range.end).max(self.start);
        if !self.excluded.is_empty() {
            let first = self.excluded.partition_point(|&index| index < self.start);
            let last = self.excluded.partition_point(|&index| index < self.end);
            self.excluded = &self.excluded[first..last];
        }
        self
    }

    /// The index in the set of candidate `i`.
    #[inline]
    pub(super) fn index(&self, i: usize) -> usize {
        self.start
            + if self.excluded.is_empty() {
                i
            } else {
                self.stepped_over(i)
            }
    }

    /// As [`choose`](Self::choose), where some are left out. A call of its own at the end of a pick: the picks that leave
    /// none out need not save registers for it.
    #[cold]
    #[inline(never)]
    fn choose_untried(&self, i: usize) -> Option<Choice<'a>> {
        (i < self.len()).then(|| Choice {
            set: self.set,
            index: self.index(i),
        })
    }

    /// As [`choose_from`](Self::choose_from), where some are left out.
    #[cold]
    #[inline(never)]
    fn choose_untried_from(&self, place: usize) -> Option<Choice<'a>> {
        let before = self
            .excluded
            .partition_point(|&index| index < self.start + place);
        // So many candidates stand before that place; behind the last comes the first.
        self.choose_untried((place - before).checked_rem(self.len())?)
    }

    /// `i` and the number of those left out before candidate `i`. The k-th excluded index is
    /// `excluded[k] - k` candidates in, so a binary search tells.
    #[cold]
    fn stepped_over(&self, i: usize) -> usize {
        let (mut low, mut high) = (0, self.excluded.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.excluded[middle] - self.start - middle <= i {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        i + low
    }
}

impl<'a> Choice<'a> {
    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &'a Endpoint {
        &self.set.endpoints[self.index]
    }

    /// The place of the endpoint in its set: the index of its service in a
    /// [`Snapshot`](crate::registry::Snapshot), and of what else is kept beside a set.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Choice").field(self.endpoint()).finish()
    }
}
