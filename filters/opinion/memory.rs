//! What guards said before. It is found by a keyed digest: no text is kept, and without the key, which
//! never leaves the process, nobody can try texts out on it.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use quick_cache::sync::Cache;
use sha2::Sha256;

use super::{Opinion, SettingsError};
use crate::clock;

/// The keyed digest of a text.
pub(super) type Key = [u8; 32];

pub(super) struct Memory {
    secret: [u8; 32],
    /// None if nothing is to be remembered.
    known: Option<Cache<Key, Known>>,
    ttl_ns: u64,
}

#[derive(Clone, Copy)]
struct Known {
    opinion: Opinion,
    until_ns: u64,
}

impl Memory {
    pub(super) fn new(entries: usize, ttl: Duration) -> Result<Self, SettingsError> {
        let secret = clock::random()
            .map_err(|_| SettingsError::new("the operating system has no randomness to give"))?;
        let ttl_ns = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let known = (entries > 0 && ttl_ns > 0).then(|| Cache::new(entries));
        Ok(Self { secret, known, ttl_ns })
    }

    pub(super) fn key(&self, text: &str) -> Key {
        // Keys of any length are allowed, so making the HMAC cannot fail.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.secret) else { return self.secret };
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().into()
    }

    pub(super) fn get(&self, key: &Key, now_ns: u64) -> Option<Opinion> {
        let cache = self.known.as_ref()?;
        let known = cache.get(key)?;
        if now_ns < known.until_ns {
            return Some(known.opinion);
        }
        cache.remove_if(key, |known| known.until_ns <= now_ns);
        None
    }

    pub(super) fn keep(&self, key: Key, opinion: Opinion, now_ns: u64) {
        if let Some(cache) = &self.known {
            cache.insert(key, Known { opinion, until_ns: now_ns.saturating_add(self.ttl_ns) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INNOCENT: Opinion = Opinion::Innocent { score: 0.1 };

    #[test]
    fn opinions_are_kept_for_their_time() {
        let memory = Memory::new(8, Duration::from_nanos(10)).unwrap();
        let (one, other) = (memory.key("one"), memory.key("other"));
        assert_ne!(one, other);
        memory.keep(one, INNOCENT, 100);
        for (key, now_ns, expected) in
            [(&one, 109, Some(INNOCENT)), (&other, 109, None), (&one, 110, None), (&one, 109, None)]
        {
            assert_eq!(memory.get(key, now_ns), expected, "{now_ns}");
        }
    }

    #[test]
    fn keys_differ_between_processes() {
        let digest = || Memory::new(1, Duration::from_secs(1)).unwrap().key("one");
        assert_ne!(digest(), digest());
    }

    #[test]
    fn no_entries_or_no_time_is_no_memory() {
        for (entries, ttl) in [(0, Duration::from_secs(1)), (8, Duration::ZERO)] {
            let memory = Memory::new(entries, ttl).unwrap();
            let key = memory.key("one");
            memory.keep(key, INNOCENT, 0);
            assert_eq!(memory.get(&key, 0), None);
        }
    }

    #[test]
    fn it_stays_within_its_size() {
        let memory = Memory::new(64, Duration::from_secs(1)).unwrap();
        for n in 0..10_000 {
            memory.keep(memory.key(&n.to_string()), INNOCENT, 0);
        }
        assert!(memory.known.unwrap().len() <= 64);
    }
}
