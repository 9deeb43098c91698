//! What tokens are made of, and the making of them.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;

use super::MAX_TOKEN_BYTES;
use crate::accounts::AccountRole;
use crate::accounts::claims::{Claims, Kind, Life, ScopedToken, UserToken, Verified};
use crate::accounts::jws::{Header, encode};
use crate::accounts::keys::{KeyError, TokenKey};
use crate::clock::random;
use crate::verdict::{Denial, Reason};

/// A new token.
#[derive(Debug)]
#[non_exhaustive]
pub struct Issued {
    /// What the caller gets.
    pub token: SecretString,
    /// Its `jti`, for audit records and revocation; of a user token it is the id of the session.
    pub id: String,
    /// When it was issued, in Unix seconds.
    pub issued_at: u64,
    /// When it expires, in Unix seconds.
    pub expires_at: u64,
    /// Seconds from the one to the other.
    pub expires_in: u64,
}

/// What a user token is to carry.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers make them whole")]
pub struct UserGrant {
    /// The user's name.
    pub subject: String,
    /// The user's role.
    pub role: AccountRole,
    /// The user's epoch: the token is void when a later one begins.
    pub epoch: u64,
    /// Whether a second factor was shown.
    pub mfa: bool,
}

/// What a scoped token is to carry.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "callers make them whole")]
pub struct ScopedGrant {
    /// The user on whose behalf it is used.
    pub subject: String,
    /// The user's epoch: the token is void when a later one begins.
    pub epoch: u64,
    /// The session that asks for it: the token ends with that.
    pub session: Option<String>,
    /// The id of the API key that asks for it: the token ends with that.
    pub key: Option<String>,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// The one model it may be used with, by its canonical name.
    pub model: String,
    /// The most tokens that one request may ask for.
    pub max_tokens: u64,
    /// The only address that may use it.
    pub address: Option<IpAddr>,
    /// Whether it may be used for one request only.
    pub once: bool,
    /// When the credential that asks for it expires (Unix seconds): the token does not outlive it.
    pub not_after: Option<u64>,
}

/// Why a token was not issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "each has its own answer")]
pub enum IssueError {
    /// The credential that asks has expired.
    Expired,
    /// There is no subject, or the claims do not fit into [`MAX_TOKEN_BYTES`].
    Claims,
    /// The machine has no randomness, or signing failed.
    Signing,
}

impl fmt::Display for IssueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the credential has expired",
            Self::Claims => "the names and scopes do not fit into a token",
            Self::Signing => "the token could not be signed",
        })
    }
}

impl std::error::Error for IssueError {}

impl From<IssueError> for Denial {
    fn from(error: IssueError) -> Self {
        let reason = match error {
            IssueError::Expired => Reason::InvalidCredentials,
            IssueError::Claims => Reason::InvalidRequest,
            IssueError::Signing => Reason::Internal,
        };
        Self::new(reason, error.to_string())
    }
}

/// What one kind of token is signed with.
#[derive(Debug)]
pub(super) struct Signer {
    key: Arc<TokenKey>,
    /// Seconds.
    ttl: u64,
    /// The header of all its tokens, encoded.
    header: String,
}

impl Signer {
    pub(super) fn new(kind: Kind, key: Arc<TokenKey>, ttl: u64) -> Result<Self, KeyError> {
        let (alg, typ, kid) = (key.alg().into(), kind.typ().into(), key.kid().into());
        let header = encode(&Header { alg, typ, kid }).ok_or(KeyError::SigningKey)?;
        Ok(Self { key, ttl, header })
    }

    /// The longest lifetime, in seconds.
    pub(super) const fn ttl(&self) -> u64 {
        self.ttl
    }

    pub(super) fn user(&self, grant: UserGrant, now: u64) -> Result<Issued, IssueError> {
        let UserGrant { subject, role, epoch, mfa } = grant;
        let life = self.life(now, None)?;
        self.issue(Verified::User(UserToken { subject, role, epoch, mfa, life }))
    }

    pub(super) fn scoped(&self, grant: ScopedGrant, now: u64) -> Result<Issued, IssueError> {
        let life = self.life(now, grant.not_after)?;
        self.issue(Verified::Scoped(ScopedToken {
            subject: grant.subject,
            epoch: grant.epoch,
            session: grant.session,
            key: grant.key,
            scopes: grant.scopes,
            model: grant.model,
            max_tokens: grant.max_tokens,
            address: grant.address.map(|address| address.to_canonical()),
            once: grant.once,
            life,
        }))
    }

    fn life(&self, now: u64, not_after: Option<u64>) -> Result<Life, IssueError> {
        let expires_at = now.saturating_add(self.ttl).min(not_after.unwrap_or(u64::MAX));
        if expires_at <= now {
            return Err(IssueError::Expired);
        }
        let jti = random::<16>().map_err(|_| IssueError::Signing)?;
        let id = URL_SAFE_NO_PAD.encode(jti);
        Ok(Life { id, issued_at: now, not_before: now, expires_at })
    }

    fn issue(&self, content: Verified) -> Result<Issued, IssueError> {
        if content.subject().is_empty() {
            return Err(IssueError::Claims);
        }
        let Life { id, issued_at, expires_at, .. } = content.life().clone();
        let expires_in = content.life().span();
        let token = self.sign(&Claims::from(content)).ok_or(IssueError::Signing)?;
        match token.len() {
            ..=MAX_TOKEN_BYTES => {
                Ok(Issued { token: token.into(), id, issued_at, expires_at, expires_in })
            }
            _ => Err(IssueError::Claims),
        }
    }

    fn sign(&self, claims: &Claims) -> Option<String> {
        let message = [self.header.as_str(), ".", &encode(claims)?].concat();
        let signature = self.key.sign(&message)?;
        Some([message.as_str(), ".", &signature].concat())
    }
}
