//! What the policies of this crate ask of a view beside its numbers: scans, draws, and a second look at fewer.

use std::iter;

use super::{Candidates, Choice, Part};
use crate::{draw::below, endpoint::Endpoint};

/// More replicas than any database has that a policy with a bound is used for.
const ON_STACK: usize = 32;

impl<'a> Candidates<'a> {
    /// Looks at each candidate once, by its index in the set.
    #[inline]
    pub(crate) fn each_index(self, mut look: impl FnMut(usize)) {
        if self.excluded.is_empty() {
            self.range().for_each(look);
        } else {
            self.range()
                .filter(|&index| self.has(index))
                .for_each(&mut look);
        }
    }

    /// Looks at each candidate once, from number `start` on and around.
    #[inline]
    pub(crate) fn each_from(&self, start: usize, look: &mut impl FnMut(usize, &'a Endpoint)) {
        if !self.excluded.is_empty() {
            for i in (start..self.len()).chain(0..start) {
                look(i, &self.set.endpoints[self.index(i)]);
            }
            return;
        }
        let endpoints = &self.set.endpoints[self.start..self.end];
        let (before, from) = endpoints.split_at(start.min(endpoints.len()));
        // Two loops: a chain of both costs half as much again.
        for (i, endpoint) in iter::zip(start.., from) {
            look(i, endpoint);
        }
        for (i, endpoint) in iter::zip(0.., before) {
            look(i, endpoint);
        }
    }

    /// Two different candidates, each pair as likely as any other; one if there is no other.
    #[inline]
    pub(crate) fn choose_two(&self, bits: u64) -> Option<(Choice<'a>, Option<Choice<'a>>)> {
        let n = self.len();
        let first = below((bits >> 32) as u32, n);
        let one = self.choose(first)?;
        let Some(others) = n.checked_sub(1).filter(|&others| others > 0) else {
            return Some((one, None));
        };
        // Draw from the others, and step over the first: both orders of a pair are equally likely.
        let second = below(bits as u32, others);
        Some((
            one,
            self.choose(if second >= first { second + 1 } else { second }),
        ))
    }

    /// Those at the same position as the one at `index` of the set.
    pub(crate) fn beside(self, index: usize) -> Self {
        match self.set.position(index) {
            Some(position) => self.narrow(self.set.group(position)),
            None => self,
        }
    }

    /// What `policy` picks of these without the one at `index` of the set. Allocates only where others are left
    /// out already.
    pub(crate) fn without(
        self,
        index: usize,
        policy: impl Fn(Candidates<'_>) -> Option<usize>,
    ) -> Option<Choice<'a>> {
        let (one, mut many) = ([index], Vec::new());
        let excluded = if self.excluded.is_empty() {
            &one[..]
        } else {
            many.extend_from_slice(self.excluded);
            let place = many.partition_point(|&other| other < index);
            many.insert(place, index);
            &many
        };
        let rest = Candidates { excluded, ..self };
        if rest.is_empty() {
            return None;
        }
        let index = policy(rest)?;
        Some(Choice {
            set: self.set,
            index,
        })
    }

    /// What `policy` picks of those that `fits` holds for.
    ///
    /// Asks it first and looks at what it picked: while all fit, that is one look. Allocates only where
    /// some do not fit among more than `ON_STACK`.
    pub(crate) fn fitting(
        self,
        fits: impl Fn(&Endpoint) -> bool,
        policy: impl Fn(Candidates<'_>) -> Option<usize>,
    ) -> Option<Choice<'a>> {
        let of = |index| Choice {
            set: self.set,
            index,
        };
        let picked = policy(self).map(of)?;
        if fits(picked.endpoint()) {
            return Some(picked);
        }
        let unfit = |index: &usize| !fits(&self.set.endpoints[*index]);
        let out = (self.start..self.end)
            .filter(|index| self.excluded.binary_search(index).is_ok() || unfit(index));
        let (mut few, mut many) = ([0; ON_STACK], Vec::new());
        let excluded = if self.span() <= ON_STACK {
            let count = iter::zip(&mut few, out)
                .map(|(to, index)| *to = index)
                .count();
            &few[..count]
        } else {
            many.extend(out);
            &many
        };
        let rest = Candidates { excluded, ..self };
        if rest.is_empty() {
            return None;
        }
        policy(rest).map(of)
    }

    /// What `policy` picks of those that are in `part` too; nothing if there is none. Allocates only where this request left some out.
    pub(crate) fn within(
        self,
        part: &Part,
        policy: impl Fn(Candidates<'_>) -> Option<usize>,
    ) -> Option<Choice<'a>> {
        let place = |index| part.places.partition_point(|&place| place < index);
        let excluded: Vec<usize> = self
            .excluded
            .iter()
            .filter_map(|index| part.places.binary_search(index).ok())
            .collect();
        let some = Candidates {
            set: &part.set,
            start: place(self.start),
            end: place(self.end),
            excluded: &excluded,
            key: self.key,
            now: self.now,
        };
        if some.is_empty() {
            return None;
        }
        let index = *part.places.get(policy(some)?)?;
        Some(Choice {
            set: self.set,
            index,
        })
    }
}
