//! Tokens: issued here, and verified here by the rules of RFC 8725.
//!
//! | kind | for | `typ` | `aud` | algorithm |
//! |---|---|---|---|---|
//! | user | a person who logged in, up to 15 min | `portcullis-user+jwt` | `portcullis:user` | EdDSA |
//! | scoped | one model, some scopes, up to 60 s | `portcullis-llm+jwt` | `portcullis:llm` | HS256, or EdDSA by configuration |
//!
//! The kind fixes audience and claims, the key fixes the algorithm, and which keys there are for a
//! kind is fixed by the configuration; a header decides nothing but which of them is asked. The file
//! `ring.rs` has the keys and how they are exchanged, `issue.rs` what tokens are made of.
//!
//! Tokens that verified are remembered by their SHA-256, so that each costs its signature once. What
//! [`TokenService::verify`] says of a token is the same whether it was remembered or not: that it is
//! genuine and of now. Whether it is revoked, of an earlier epoch, used before
//! ([`ScopedToken::once`]) or shown by another address is for the caller to ask, each time.
//!
//! # RFC 8725, point by point
//!
//! | section | what is done | test |
//! |---|---|---|
//! | 3.1 | one algorithm for each key, and fixed ones for each kind | `rfc_8725_3_1_each_key_has_one_algorithm` |
//! | 3.2 | Ed25519 and HMAC-SHA256 only, never `none` | `rfc_8725_3_2_alg_none_in_every_spelling` |
//! | 3.3 | nothing is read before the signature is right | `rfc_8725_3_3_an_edited_payload_is_refused` |
//! | 3.4 | signatures and keys are taken in their one encoding only | `rfc_8725_3_4_a_signature_has_one_form` |
//! | 3.5 | short, sample and patterned keys are refused | `rfc_8725_3_5_weak_token_keys_are_refused` |
//! | 3.6 | nothing is encrypted or compressed | `rfc_8725_3_6_compression_is_refused` |
//! | 3.7 | claims are UTF-8 and nothing else | `rfc_8725_3_7_other_encodings_are_refused` |
//! | 3.8 | `iss` is exact, `sub` is needed | `rfc_8725_3_8_issuer_and_subject_are_validated` |
//! | 3.9 | `aud` is exact, one for each kind | `rfc_8725_3_9_the_audience_is_validated` |
//! | 3.10 | a `kid` is compared only; `jku`, `jwk`, `x5u` are refused | `rfc_8725_3_10_a_kid_is_compared_and_never_followed` |
//! | 3.11 | `typ` is exact, one for each kind | `rfc_8725_3_11_the_type_is_exact` |
//! | 3.12 | `typ`, `aud`, claims and lifetime of the kinds exclude each other | `rfc_8725_3_12_one_kind_is_never_taken_for_the_other` |

mod issue;
mod ring;

#[cfg(test)]
mod rfc8725;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::claims::{Claims, Kind};
pub use super::claims::{Life, ScopedToken, TokenError, UserToken, Verified};
use super::jws::{Compact, Header};
use super::keys::{KeyError, TokenKey};
use crate::clock::Clock;
pub use issue::{IssueError, Issued, ScopedGrant, UserGrant};
pub use ring::{AcceptedKey, KeyMaterial, TokenKeys};

use issue::Signer;
use ring::{Ring, Trusted};

/// Longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// Longest lifetime of a user token.
pub const MAX_USER_TTL: Duration = Duration::from_secs(15 * 60);
/// Longest lifetime of a scoped token.
pub const MAX_LLM_TTL: Duration = Duration::from_secs(60);

const CACHED_TOKENS: usize = 10_000;

/// How long tokens are valid, cut to whole seconds.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct Ttls {
    /// Of a user token, up to [`MAX_USER_TTL`].
    pub user: Duration,
    /// Of a scoped token, up to [`MAX_LLM_TTL`].
    pub llm: Duration,
}

/// What scoped tokens are signed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "there are two types of keys")]
pub enum ScopedAlgorithm {
    /// HMAC-SHA256 with the token key: 3 µs to verify.
    #[default]
    #[serde(rename = "HS256")]
    Hs256,
    /// Ed25519 with the signing key: 40 µs to verify, and who verifies cannot sign.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

/// The rules by which tokens are issued.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct TokenRules {
    /// How long tokens are valid.
    pub ttls: Ttls,
    /// What scoped tokens are signed with.
    pub scoped: ScopedAlgorithm,
}

/// Issues tokens and verifies them.
pub struct TokenService {
    clock: Clock,
    user: Signer,
    scoped: Signer,
    ring: Ring,
    verified: Cache<[u8; 32], Genuine>,
}

impl TokenService {
    /// Takes the keys that sign and those that are accepted beside them.
    ///
    /// # Errors
    /// [`KeyError`] if a key is not of its type, is weak, missing or there twice, or a lifetime is
    /// out of bounds.
    pub fn new(keys: TokenKeys, clock: Clock, rules: TokenRules) -> Result<Self, KeyError> {
        let TokenKeys { signing_key, token_key, accepted } = keys;
        let signing = Arc::new(TokenKey::ed25519(&signing_key)?);
        let token = token_key.as_ref().map(TokenKey::hmac).transpose()?.map(Arc::new);
        let (minting, current) = assign(&signing, token, rules.scoped)?;
        Ok(Self {
            clock,
            user: Signer::new(Kind::User, signing, user_ttl(rules.ttls)?)?,
            scoped: Signer::new(Kind::Scoped, minting, llm_ttl(rules.ttls)?)?,
            ring: Ring::new(current, &accepted, rules.scoped)?,
            verified: Cache::new(CACHED_TOKENS),
        })
    }

    /// Issues a token to a user who logged in; its id is that of the session.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_user(&self, grant: UserGrant) -> Result<Issued, IssueError> {
        self.user.user(grant, self.clock.unix_secs())
    }

    /// Issues a scoped token. Whether the caller holds what it asks for was decided before.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue_scoped(&self, grant: ScopedGrant) -> Result<Issued, IssueError> {
        self.scoped.scoped(grant, self.clock.unix_secs())
    }

    /// Verifies a token of either kind: that it is genuine and of now. Not known here is whether it
    /// is revoked, used before, or shown by the right address.
    ///
    /// # Errors
    /// [`TokenError`]; its text is for the operator, callers are told the same of all.
    pub fn verify(&self, token: &str) -> Result<Arc<Verified>, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        let now = self.clock.unix_secs();
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.verified.get(&digest) {
            known.check(now).inspect_err(|_| drop(self.verified.remove(&digest)))?;
            return Ok(known.token);
        }
        let opened = self.open(token)?;
        opened.check(now)?;
        self.verified.insert(digest, opened.clone());
        Ok(opened.token)
    }

    /// The public keys that are accepted now (RFC 7517 section 5), for `/.well-known/jwks.json`.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": self.ring.jwks(self.clock.unix_secs()) })
    }

    /// Checks all but the times. Claims are not even decoded before the signature is right.
    fn open(&self, token: &str) -> Result<Genuine, TokenError> {
        let compact = Compact::split(token)?;
        let header = Header::decode(compact.header)?;
        let kind = Kind::of(&header.typ)?;
        let trusted = self.ring.find(&header, kind)?;
        if !trusted.key().verify(compact.message, compact.signature) {
            return Err(TokenError::Signature);
        }
        let token = Claims::decode(compact.payload)?.open(kind)?;
        match token.life().span() {
            span if (1..=self.signer(kind).ttl()).contains(&span) => {
                Ok(Genuine { token: Arc::new(token), key_until: trusted.until() })
            }
            _ => Err(TokenError::Claims("token has a lifetime that its kind does not have")),
        }
    }

    const fn signer(&self, kind: Kind) -> &Signer {
        match kind {
            Kind::User => &self.user,
            Kind::Scoped => &self.scoped,
        }
    }
}

impl fmt::Debug for TokenService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenService").field("ring", &self.ring).finish_non_exhaustive()
    }
}

/// A token whose signature is right.
#[derive(Clone)]
struct Genuine {
    token: Arc<Verified>,
    /// When the key that signed it is no longer accepted, in Unix seconds.
    key_until: u64,
}

impl Genuine {
    fn check(&self, now: u64) -> Result<(), TokenError> {
        match now < self.key_until {
            true => self.token.life().check(now),
            false => Err(TokenError::KeyId),
        }
    }
}

/// The key that signs scoped tokens, and what the keys that sign may verify.
fn assign(
    signing: &Arc<TokenKey>,
    token: Option<Arc<TokenKey>>,
    rule: ScopedAlgorithm,
) -> Result<(Arc<TokenKey>, Vec<Trusted>), KeyError> {
    let signing = Arc::clone(signing);
    match (rule, token) {
        (ScopedAlgorithm::EdDsa, _) => {
            let both = Trusted::current(Arc::clone(&signing), &[Kind::User, Kind::Scoped]);
            Ok((signing, vec![both]))
        }
        (ScopedAlgorithm::Hs256, Some(token)) => {
            let user = Trusted::current(signing, &[Kind::User]);
            let scoped = Trusted::current(Arc::clone(&token), &[Kind::Scoped]);
            Ok((token, vec![user, scoped]))
        }
        (ScopedAlgorithm::Hs256, None) => {
            Err(KeyError::Ring("with HS256 for scoped tokens, a token key is needed"))
        }
    }
}

fn user_ttl(ttls: Ttls) -> Result<u64, KeyError> {
    bounded(ttls.user, MAX_USER_TTL).ok_or(KeyError::Ttl("user_token_ttl is not from 1s to 15m"))
}

fn llm_ttl(ttls: Ttls) -> Result<u64, KeyError> {
    bounded(ttls.llm, MAX_LLM_TTL).ok_or(KeyError::Ttl("llm_token_ttl is not from 1s to 60s"))
}

fn bounded(ttl: Duration, longest: Duration) -> Option<u64> {
    (ttl.as_secs() >= 1 && ttl <= longest).then_some(ttl.as_secs())
}
