//! Keys and identities as numbers: a hash that is the same everywhere, today and tomorrow.
//!
//! Clients agree on the pod of a key only if they agree on its hash, also across processes, platforms and versions of
//! this crate. So the function is frozen: the tests pin what it gives. It has no secret: who may choose keys may
//! choose them for one pod, against which a [bound](crate::Rendezvous::bounded) helps and a better hash would not.

use std::hash::{Hash, Hasher};

use crate::draw::mix;

/// The first 192 bits of the fraction of pi: no structure, and nothing up the sleeve. The multiplier is made odd.
const START: u64 = 0x243f_6a88_85a3_08d3;
const STEP: u64 = 0x1319_8a2e_0370_7345;

/// The hash of a key.
#[inline]
pub(crate) fn hash_of(key: impl Hash) -> u64 {
    let mut hasher = KeyHasher(START);
    key.hash(&mut hasher);
    hasher.finish()
}

/// One long multiplication, its halves laid over each other, as in wyhash: enough for a word that is random already, at half
/// the price of [`mix`].
#[inline]
pub(crate) fn fold(word: u64) -> u64 {
    let product = u128::from(word) * u128::from(STEP);
    (product >> 64) as u64 ^ product as u64
}

/// One [`fold`] for each word of the key, and [`mix`] at the end.
#[derive(Debug)]
struct KeyHasher(u64);

impl KeyHasher {
    #[inline]
    fn absorb(&mut self, word: u64) {
        // Rotated, lest two words that cancel each other out do so in either order.
        self.0 = fold(self.0 ^ word).rotate_left(23);
    }
}

/// Numbers by value, those below zero by their width as well, whatever the platform's order of bytes and width of `usize`. A slice
/// of numbers is the bytes that it is in memory: Rust hands it over so.
impl Hasher for KeyHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.absorb(u64::from_le_bytes(*word));
        }
        // The length in the byte that is always free: what ends in zeros is longer than what does not.
        let mut last = (bytes.len() as u64) << 56;
        for (i, &byte) in rest.iter().enumerate() {
            last |= u64::from(byte) << (8 * i);
        }
        self.absorb(last);
    }

    #[inline]
    fn write_u8(&mut self, number: u8) {
        self.absorb(number.into());
    }

    #[inline]
    fn write_u16(&mut self, number: u16) {
        self.absorb(number.into());
    }

    #[inline]
    fn write_u32(&mut self, number: u32) {
        self.absorb(number.into());
    }

    #[inline]
    fn write_u64(&mut self, number: u64) {
        self.absorb(number);
    }

    #[inline]
    fn write_u128(&mut self, number: u128) {
        self.absorb(number as u64);
        self.absorb((number >> 64) as u64);
    }

    #[inline]
    fn write_usize(&mut self, number: usize) {
        self.absorb(number as u64);
    }

    /// What is there by default would write as many bits as the platform has: -7 would be another key on 32 bits.
    #[inline]
    fn write_isize(&mut self, number: isize) {
        self.absorb(number as i64 as u64);
    }

    #[inline]
    fn finish(&self) -> u64 {
        mix(self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_hash_is_frozen() {
        // A change here moves every key of every user, and separates clients of two versions.
        assert_eq!(hash_of(""), 0xbb71_391e_ce8e_3319);
        assert_eq!(hash_of("user-7"), 0xa542_ebe2_82d6_72d1);
        assert_eq!(
            hash_of("a key that is longer than a word"),
            0x525d_0337_9d2c_17b6
        );
        assert_eq!(hash_of(b"user-7"), 0xd959_1125_c96b_b3b9);
        assert_eq!(hash_of(7_u64), 0x1c3d_8e4d_5114_a8c6);
        assert_eq!(hash_of(-7_i32), 0xd934_07fd_ecd7_337b);
        assert_eq!(hash_of(("tenant", 7_u32)), 0xd834_dc33_fa78_799b);
    }

    #[test]
    fn numbers_of_either_width_are_one_key_and_a_string_is_one_however_it_is_kept() {
        assert_eq!(hash_of(7_usize), hash_of(7_u64));
        assert_eq!(hash_of(7_u32), hash_of(7_u64));
        assert_eq!(hash_of(-7_isize), hash_of(-7_i64));
        assert_eq!(hash_of("key"), hash_of(String::from("key")));
        let borrowed = &"key";
        assert_eq!(hash_of("key"), hash_of(borrowed));
    }

    #[test]
    fn keys_that_differ_in_little_have_hashes_that_differ_in_much() {
        let mut hashes = BTreeSet::new();
        let mut texts: Vec<String> = (0..20_000).map(|i| format!("user-{i}")).collect();
        texts.extend((0..40).map(|n| "\0".repeat(n)));
        texts.extend((0..8).map(|n| format!("1234567{}", n as u8 as char)));
        for text in &texts {
            assert!(hashes.insert(hash_of(text)), "{text:?}");
        }
        // Of 64 bits about half differ from one number to the next: 32, standard deviation 4 / sqrt(20,000).
        let flips = |i: u64| (hash_of(i) ^ hash_of(i + 1)).count_ones();
        let mean = (0..20_000).map(flips).sum::<u32>() as f64 / 20_000.0;
        assert!((mean - 32.0).abs() < 0.2, "{mean}");
        // And of two bits at any place, each pair of values is as likely: no bit follows from another.
        for bit in 0..63 {
            let both = (0..20_000_u64).filter(|&i| hash_of(i) >> bit & 3 == 3);
            let count = both.count();
            assert!((4600..5400).contains(&count), "bit {bit}: {count}");
        }
    }
}
