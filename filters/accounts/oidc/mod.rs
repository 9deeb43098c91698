//! External issuers: tokens of an OpenID provider, verified with the keys that it publishes.
//!
//! | file | story |
//! |---|---|
//! | `issuer.rs` | an issuer as it is configured, and what makes a configuration unsafe |
//! | `reading.rs` | header and claims of a foreign token, and which account and role they give |
//! | `jwks.rs` | the published keys, each with exactly one algorithm |
//! | `cache.rs` | when keys are fetched, and how long they serve |
//! | [`fetch`] | the fetching, bounded in time and size |
//!
//! The `iss` of a token only selects one of the configured issuers. Its signature is then verified
//! with the keys of that issuer alone: the `kid` selects a key, the key fixes the algorithm, and that
//! must be one of the issuer's. A token never says where its key is (RFC 8725 section 3.10). The
//! claims `iss`, `aud`, `exp`, `iat` are required and `nbf` is obeyed, with a minute for clocks that
//! differ, and no token is valid for more than a day.
//!
//! Tokens that verified are remembered by their SHA-256 until they expire or the keys are fetched
//! again. Whether a token is revoked is for the caller to ask, each time, with [`External::id`].

mod cache;
pub mod fetch;
mod issuer;
mod jwks;
mod reading;

#[cfg(test)]
mod support;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};

use super::claims::TokenError;
use super::jws::Compact;
use crate::clock::Clock;
pub use fetch::{Fetch, FetchError, Fetched, HttpFetch};
pub use issuer::{Issuer, IssuerAlgorithm, IssuerError};
pub use reading::External;

use cache::KeyCache;
use reading::{Head, named_issuer};

/// Longest foreign token that is looked at, in bytes.
pub const MAX_EXTERNAL_BYTES: usize = 16 * 1024;

const CACHED_TOKENS: usize = 10_000;

/// All external issuers.
pub struct Issuers {
    clock: Clock,
    known: HashMap<String, Arc<Known>>,
    verified: Cache<[u8; 32], Genuine>,
}

impl Issuers {
    /// Takes the issuers and the way to their keys. Nothing is fetched before it is needed.
    ///
    /// # Errors
    /// [`IssuerError`] names the issuer and what is wrong with it.
    pub fn new(
        issuers: Vec<Issuer>,
        fetch: Arc<dyn Fetch>,
        clock: Clock,
    ) -> Result<Self, IssuerError> {
        let mut known = HashMap::new();
        let mut names = Vec::new();
        for issuer in issuers {
            issuer.check()?;
            let twice = |issuer: &Issuer| Err(issuer.wrong("there is another one like it"));
            if names.contains(&issuer.name) {
                return twice(&issuer);
            }
            names.push(issuer.name.clone());
            match known.entry(issuer.issuer.clone()) {
                Entry::Occupied(_) => return twice(&issuer),
                Entry::Vacant(place) => {
                    let keys = Arc::new(KeyCache::new(&issuer, Arc::clone(&fetch), clock.clone()));
                    place.insert(Arc::new(Known { issuer, keys }));
                }
            }
        }
        Ok(Self { clock, known, verified: Cache::new(CACHED_TOKENS) })
    }

    /// Whether a token says that it comes from one of these issuers. That is not verified: it only
    /// tells who is to verify it.
    #[must_use]
    pub fn recognises(&self, token: &str) -> bool {
        token.len() <= MAX_EXTERNAL_BYTES && self.split(token).is_ok()
    }

    /// Verifies a token. Keys that are not there yet are waited for, ten seconds at most; that needs
    /// a Tokio runtime with time, any one.
    ///
    /// # Errors
    /// [`TokenError`]; its text is for the operator. [`TokenError::NoKeys`] means that the issuer
    /// cannot be asked, not that anything is wrong with the token.
    pub async fn verify(&self, token: &str) -> Result<Arc<External>, TokenError> {
        if token.len() > MAX_EXTERNAL_BYTES {
            return Err(TokenError::TooLong);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(genuine) = self.verified.get(&digest) {
            if genuine.is_current() {
                let checked = genuine.external.check(self.clock.unix_secs());
                checked.inspect_err(|_| drop(self.verified.remove(&digest)))?;
                return Ok(genuine.external);
            }
            drop(self.verified.remove(&digest));
        }
        let genuine = self.open(token).await?;
        genuine.external.check(self.clock.unix_secs())?;
        let external = Arc::clone(&genuine.external);
        self.verified.insert(digest, genuine);
        Ok(external)
    }

    /// Names of the issuers whose keys could not be fetched when that was last tried.
    pub fn failing(&self) -> impl Iterator<Item = &str> {
        self.known
            .values()
            .filter(|known| known.keys.is_failing())
            .map(|known| known.issuer.name.as_str())
    }

    /// The parts of a token, and the issuer that it names.
    fn split<'a>(&self, token: &'a str) -> Result<(Compact<'a>, &Arc<Known>), TokenError> {
        let compact = Compact::split(token)?;
        let known = self.known.get(&named_issuer(compact.payload)?);
        known.map(|known| (compact, known)).ok_or(TokenError::Issuer)
    }

    /// Checks all but the times. Of the claims only `iss` is read before the signature is right.
    async fn open(&self, token: &str) -> Result<Genuine, TokenError> {
        let (compact, known) = self.split(token)?;
        let head = Head::decode(compact.header, &known.issuer.algorithms)?;
        let held = known.keys.holding(&head.kid).await?;
        if !held.keys.find(&head)?.verify(compact.message, compact.signature) {
            return Err(TokenError::Signature);
        }
        let external = Arc::new(External::read(&compact, &known.issuer)?);
        Ok(Genuine { external, known: Arc::clone(known), generation: held.generation })
    }
}

impl fmt::Debug for Issuers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.known.values().map(|known| &known.issuer.name)).finish()
    }
}

/// An issuer with its keys.
struct Known {
    issuer: Issuer,
    keys: Arc<KeyCache>,
}

/// A token whose signature was right with keys of this generation.
#[derive(Clone)]
struct Genuine {
    external: Arc<External>,
    known: Arc<Known>,
    generation: u64,
}

impl Genuine {
    /// Whether the keys still serve, and are the same.
    fn is_current(&self) -> bool {
        self.known.keys.fresh().is_some_and(|held| held.generation == self.generation)
    }
}
