//! A number and when it was written: a cell that readers let fade without writing it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number and when it was written, in one word; 0 if it was not.
#[derive(Debug, Default)]
pub(super) struct Stamped(AtomicU64);

/// A moment may be so many stamps (73 minutes) before the one in the cell: that of an answer that was told late. All else is
/// age. Were half of the circle late, what nobody asked over a long weekend would look new for as long again.
const LATE: u32 = 1 << 25;

/// What a [`Stamped`] held.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    word: u64,
}

impl Stamped {
    #[inline]
    pub(super) fn load(&self) -> Seen {
        Seen {
            word: self.0.load(Relaxed),
        }
    }

    #[inline]
    pub(super) fn store(&self, value: f32, stamp: u32) {
        self.0.store(word(value, stamp), Relaxed);
    }

    /// Writes unless somebody else has meanwhile.
    #[inline]
    pub(super) fn replace(&self, seen: Seen, value: f32, stamp: u32) {
        let _ = self
            .0
            .compare_exchange(seen.word, word(value, stamp), Relaxed, Relaxed);
    }
}

#[inline]
fn word(value: f32, stamp: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(stamp)
}

impl Seen {
    #[inline]
    pub(super) fn value(self) -> Option<f32> {
        (self.word != 0).then(|| f32::from_bits((self.word >> 32) as u32))
    }

    /// Whether it was written after that moment.
    #[inline]
    pub(super) fn is_newer(self, stamp: u32) -> bool {
        self.word != 0 && stamp.wrapping_sub(self.word as u32) > u32::MAX - LATE
    }

    /// Stamps since it was written.
    #[inline]
    pub(super) fn age(self, stamp: u32) -> u32 {
        between(self.word as u32, stamp)
    }
}

/// Stamps from a cell's to that of a reader. One whose clock reading is older than the cell's sees none.
#[inline]
pub(super) fn between(cell: u32, stamp: u32) -> u32 {
    let age = stamp.wrapping_sub(cell);
    if age > u32::MAX - LATE { 0 } else { age }
}
