//! Random draws for picks: one small generator a thread, no lock, no allocation, no shared write.

use std::{
    cell::Cell,
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use rand::{Rng, rngs::SmallRng};

/// The increment of SplitMix64: 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The constants of wyrand, as in wyhash "final version 4.2": odd, with as many ones as zeros in each byte.
const WYRAND_STEP: u64 = 0x2d35_8dcc_aa6c_78a5;
const WYRAND_MASK: u64 = 0x8bb8_4b93_962e_acc9;

/// The finalizer of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014).
///
/// Every bit of the input moves about half the bits of the output, which is what ordering and seeding need of a hash.
#[inline]
pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// SplitMix64 as it is published (Vigna, `splitmix64.c`): one step of the sequence from the state `x`, that is the increment and
/// then [`mix`]. As a hash it moves zero too, which [`mix`] alone does not.
#[inline]
pub(crate) fn splitmix64(x: u64) -> u64 {
    mix(x.wrapping_add(GOLDEN))
}

/// A random number for the life of this process: clients started from one image must not walk one order.
pub(crate) fn process_seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(fresh_seed)
}

/// Out of line: a thread needs one, and its later draws should not make room for it.
#[cold]
fn fresh_seed() -> u64 {
    rand::make_rng::<SmallRng>().next_u64()
}

/// Where a policy gets its random numbers from: the thread's generator, or a seed for repeatable runs.
pub(crate) struct Draw {
    /// State of the seeded generator. Written by every draw, so threads that share it contend; `None` in production.
    seeded: Option<AtomicU64>,
}

impl Draw {
    pub(crate) const fn from_thread() -> Self {
        Self { seeded: None }
    }

    pub(crate) const fn seeded(seed: u64) -> Self {
        Self {
            seeded: Some(AtomicU64::new(seed)),
        }
    }

    /// 64 random bits, if they come from the thread's generator and it has its seed: without a call, for which a pick would save
    /// registers. Else nothing is drawn.
    #[inline]
    pub(crate) fn ready_bits(&self) -> Option<u64> {
        if self.seeded.is_some() {
            return None;
        }
        let word = STATE.get();
        (word != 0).then(|| step(word))
    }

    /// 64 random bits.
    #[inline]
    pub(crate) fn bits(&self) -> u64 {
        match &self.seeded {
            None => thread_bits(),
            Some(state) => splitmix64(state.fetch_add(GOLDEN, Relaxed)),
        }
    }
}

impl fmt::Debug for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.seeded.is_some() {
            "seeded"
        } else {
            "thread"
        })
    }
}

/// A number from 0 up to 1, from the thread's generator.
pub(crate) fn unit() -> f64 {
    f64::from(thread_bits() as u32) / (f64::from(u32::MAX) + 1.0)
}

/// Maps 32 random bits to `0..n` by multiply and shift (Lemire: "Fast random integer generation in an interval", 2019).
///
/// Without its rejection step: for a million endpoints the bias is below 0.03 %, for ten below 1 in 10^8.
#[inline]
pub(crate) fn below(bits: u32, n: usize) -> usize {
    ((u64::from(bits) * n as u64) >> 32) as usize
}

/// A random number in `0.0..1.0`, for jitter.
#[cfg(feature = "http")]
pub(crate) fn thread_unit() -> f64 {
    // As many bits as a double holds.
    (thread_bits() >> 11) as f64 / (1u64 << 53) as f64
}

thread_local! {
    /// The state of the thread's generator. 0: not seeded yet. One word needs no destructor and no lazy flag.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

#[inline]
fn thread_bits() -> u64 {
    let mut word = STATE.get();
    if word == 0 {
        word = fresh_seed();
    }
    step(word)
}

/// The generator wyrand (Wang Yi): a Weyl sequence, mixed by one long multiplication. Half the
/// instructions of [`mix`], and passes the same test batteries (BigCrush, PractRand).
#[inline]
fn step(word: u64) -> u64 {
    let word = word.wrapping_add(WYRAND_STEP);
    STATE.set(word);
    let product = u128::from(word) * u128::from(word ^ WYRAND_MASK);
    (product >> 64) as u64 ^ product as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixer_gives_the_published_splitmix64_sequence() {
        // First outputs for seed 1234567, as listed by several published SplitMix64 test vectors.
        let draw = Draw::seeded(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| draw.bits()).collect();
        assert_eq!(
            first,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn below_covers_the_whole_range_and_nothing_beyond() {
        assert_eq!(below(0, 7), 0);
        assert_eq!(below(u32::MAX, 7), 6);
        assert_eq!(below(u32::MAX, 1), 0);
    }
}
