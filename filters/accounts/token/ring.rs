//! The keys that verify tokens: those that sign now, and those that are accepted beside them.
//!
//! A key is exchanged without a failed request in three steps, each on one gateway after the other:
//! the new key is accepted everywhere, then it signs everywhere, then the old one is no longer
//! accepted. `until` takes the last step by itself.
//!
//! | key | user tokens | scoped tokens |
//! |---|---|---|
//! | `signing_key` | EdDSA | EdDSA, if the rules say so |
//! | `token_key` | | HS256, if the rules say so |
//! | accepted signing key | EdDSA | EdDSA |
//! | accepted token key | | HS256; only with an `until` if the rules say EdDSA |
//!
//! The keys that sign are held to the rules of now. An accepted key comes from before a change of
//! the rules, or is there for one to come, so it verifies whatever a key of its type may sign: to go
//! from HS256 to EdDSA, the old token key is accepted until a minute after the change (and the other
//! way round on gateways that are changed later). A symmetric key is never accepted for ever where
//! the rules ask for signatures, and no key ever has two algorithms.

use std::sync::Arc;

use secrecy::{SecretSlice, SecretString};
use serde_json::Value;

use super::ScopedAlgorithm;
use crate::accounts::claims::{Kind, TokenError};
use crate::accounts::jws::Header;
use crate::accounts::keys::{KeyError, TokenKey};

/// The keys of a [`TokenService`](super::TokenService).
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct TokenKeys {
    /// Ed25519 (PKCS#8 PEM): signs user tokens, and scoped ones with [`ScopedAlgorithm::EdDsa`].
    pub signing_key: SecretString,
    /// 32 or more random bytes: sign scoped tokens with [`ScopedAlgorithm::Hs256`], which needs
    /// them. Otherwise they are judged and not used.
    pub token_key: Option<SecretSlice<u8>>,
    /// Keys that verify and never sign.
    pub accepted: Vec<AcceptedKey>,
}

/// A key that verifies and never signs: the next one, or the one before.
#[derive(Debug)]
#[expect(clippy::exhaustive_structs, reason = "made from the configuration")]
pub struct AcceptedKey {
    /// The key.
    pub key: KeyMaterial,
    /// When it is no longer accepted (Unix seconds); `None`: as long as it is configured.
    pub until: Option<u64>,
}

/// A key of one of the two types.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there are two types of keys")]
pub enum KeyMaterial {
    /// Ed25519, PKCS#8 PEM.
    Signing(SecretString),
    /// HMAC, 32 or more random bytes.
    Token(SecretSlice<u8>),
}

/// A key, what it may verify, and how long.
#[derive(Debug)]
pub(super) struct Trusted {
    key: Arc<TokenKey>,
    kinds: &'static [Kind],
    until: u64,
}

impl Trusted {
    /// The key that signs these kinds of tokens.
    pub(super) const fn current(key: Arc<TokenKey>, kinds: &'static [Kind]) -> Self {
        Self { key, kinds, until: u64::MAX }
    }

    fn accepted(accepted: &AcceptedKey, rule: ScopedAlgorithm) -> Result<Self, KeyError> {
        let until = accepted.until.unwrap_or(u64::MAX);
        let (key, kinds): (_, &[Kind]) = match &accepted.key {
            KeyMaterial::Signing(pem) => (TokenKey::ed25519(pem)?, &[Kind::User, Kind::Scoped]),
            KeyMaterial::Token(key) => (TokenKey::hmac(key)?, &[Kind::Scoped]),
        };
        match (&accepted.key, rule, accepted.until) {
            (KeyMaterial::Token(_), ScopedAlgorithm::EdDsa, None) => Err(KeyError::Ring(
                "with EdDSA for scoped tokens, an accepted token key needs an end",
            )),
            _ => Ok(Self { key: Arc::new(key), kinds, until }),
        }
    }

    /// When it is no longer accepted, in Unix seconds.
    pub(super) const fn until(&self) -> u64 {
        self.until
    }

    pub(super) fn key(&self) -> &TokenKey {
        &self.key
    }
}

/// All keys that verify; no two have one `kid`.
#[derive(Debug)]
pub(super) struct Ring(Vec<Trusted>);

impl Ring {
    pub(super) fn new(
        mut keys: Vec<Trusted>,
        accepted: &[AcceptedKey],
        rule: ScopedAlgorithm,
    ) -> Result<Self, KeyError> {
        for key in accepted {
            let key = Trusted::accepted(key, rule)?;
            if keys.iter().any(|other| other.key.kid() == key.key.kid()) {
                return Err(KeyError::Ring("the same key is configured twice"));
            }
            keys.push(key);
        }
        Ok(Self(keys))
    }

    /// The key that the header names (RFC 8725 section 3.1): the `kid` selects it, the key fixes
    /// the algorithm, and the kind of the token must be one of the key's. Whether the key has ended
    /// is for the caller to ask, with [`Trusted::until`], each time that the token is shown.
    pub(super) fn find(&self, header: &Header, kind: Kind) -> Result<&Trusted, TokenError> {
        let named = |trusted: &&Trusted| trusted.key.kid() == header.kid;
        let trusted = self.0.iter().find(named).ok_or(TokenError::KeyId)?;
        match trusted.key.alg() == header.alg && trusted.kinds.contains(&kind) {
            true => Ok(trusted),
            false => Err(TokenError::Algorithm),
        }
    }

    /// The public keys that are accepted now.
    pub(super) fn jwks(&self, now: u64) -> Vec<Value> {
        self.0.iter().filter(|key| now < key.until).filter_map(|key| key.key.jwk()).collect()
    }
}
