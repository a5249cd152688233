//! Virtual time: what happens next.

use std::{cmp::Ordering, collections::BinaryHeap, collections::VecDeque};

/// Virtual time since the start of a run, or a length of it.
pub(crate) type Nanos = u64;

pub(crate) const MICRO: Nanos = 1_000;
pub(crate) const MILLI: Nanos = 1_000 * MICRO;
pub(crate) const SECOND: Nanos = 1_000 * MILLI;

/// Events in order of time; equal times in order of insertion.
///
/// Most events are a constant time away (a hop, a deadline), so they come in order by themselves: each
/// such delay has a lane, and the heap holds the few that remain.
pub(crate) struct Queue<E> {
    now: Nanos,
    inserted: u64,
    heap: BinaryHeap<Entry<E>>,
    lanes: Vec<Lane<E>>,
}

struct Lane<E> {
    delay: Nanos,
    entries: VecDeque<Entry<E>>,
}

struct Entry<E> {
    at: Nanos,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    /// Starts at 0, with a lane for each of these delays.
    pub(crate) fn new(delays: &[Nanos]) -> Self {
        let lane = |&delay| Lane {
            delay,
            entries: VecDeque::new(),
        };
        Self {
            now: 0,
            inserted: 0,
            heap: BinaryHeap::new(),
            lanes: delays.iter().map(lane).collect(),
        }
    }

    pub(crate) fn now(&self) -> Nanos {
        self.now
    }

    /// Lets `event` happen `delay` from now.
    pub(crate) fn after(&mut self, delay: Nanos, event: E) {
        let entry = Entry {
            at: self.now + delay,
            order: self.inserted,
            event,
        };
        self.inserted += 1;
        match self.lanes.iter_mut().find(|lane| lane.delay == delay) {
            Some(lane) => lane.entries.push_back(entry),
            None => self.heap.push(entry),
        }
    }

    /// Lets `event` happen at `at`, which is not in the past.
    pub(crate) fn at(&mut self, at: Nanos, event: E) {
        self.after(at.saturating_sub(self.now), event);
    }

    /// Goes on to the next event; `None` when there is none.
    pub(crate) fn next(&mut self) -> Option<E> {
        let mut first = self.heap.peek().map(Entry::key);
        let mut from = None;
        for (i, lane) in self.lanes.iter().enumerate() {
            if let Some(entry) = lane.entries.front()
                && first.is_none_or(|first| entry.key() < first)
            {
                (first, from) = (Some(entry.key()), Some(i));
            }
        }
        let entry = match from {
            Some(lane) => self.lanes[lane].entries.pop_front(),
            None => self.heap.pop(),
        }?;
        self.now = entry.at;
        Some(entry.event)
    }
}

impl<E> Entry<E> {
    fn key(&self) -> (Nanos, u64) {
        (self.at, self.order)
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    /// Reversed: the heap gives the greatest, which is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}
