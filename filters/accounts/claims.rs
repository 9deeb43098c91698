//! What a token says, and the strict reading of it: kind, claims, times.
//!
//! The reader is made for tokens that this gateway wrote, so whatever it would not have written
//! itself is refused, even where RFC 7519 leaves room. The outer form is in `jws.rs`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::AccountRole;
use super::jws::object;

/// The `iss` of every token.
pub(super) const ISSUER: &str = "portcullis";
/// How far the clocks of two gateways may differ, in seconds. `exp` is exact.
const LEEWAY_SECS: u64 = 5;

/// Why a token is not accepted. Never contains any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// More bytes than a token may have.
    TooLong,
    /// Not three parts of base64url without padding.
    NotCompact,
    /// The header lacks a member that is needed, or has one that is not accepted.
    Header,
    /// No kind of token has this `typ`.
    Type,
    /// No configured issuer has this `iss`.
    Issuer,
    /// Not an algorithm of this kind and this key.
    Algorithm,
    /// No key that is accepted now has this `kid`.
    KeyId,
    /// The keys of the external issuer cannot be had, so nothing can be said about its tokens.
    NoKeys,
    /// The signature is not right.
    Signature,
    /// A claim is missing, unknown, there twice or wrong; the text says which.
    Claims(&'static str),
    /// Issued or valid from some time in the future.
    NotYetValid,
    /// Expired.
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLong => "token is too long",
            Self::NotCompact => "token is not three parts of base64url",
            Self::Header => "token header has too few members, or one that is not accepted",
            Self::Type => "token has an unknown typ",
            Self::Issuer => "token has an unknown issuer",
            Self::Algorithm => "token has another algorithm than its kind or key",
            Self::KeyId => "token was signed with a key that is not accepted",
            Self::NoKeys => "the keys of the token's issuer cannot be fetched",
            Self::Signature => "token signature is wrong",
            Self::Claims(what) => what,
            Self::NotYetValid => "token is not valid yet",
            Self::Expired => "token has expired",
        })
    }
}

impl std::error::Error for TokenError {}

/// What a genuine token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A person who logged in.
    User(UserToken),
    /// A narrow and short permit.
    Scoped(ScopedToken),
}

/// The token of a person who logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserToken {
    /// The user's name.
    pub subject: String,
    /// The role at the time of the login.
    pub role: AccountRole,
    /// The epoch of the user that it belongs to; with a later one of the user it is void.
    pub epoch: u64,
    /// Whether a second factor was shown.
    pub mfa: bool,
    /// Id and times. The id is that of the session.
    pub life: Life,
}

/// A narrow and short permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopedToken {
    /// The user on whose behalf it is used.
    pub subject: String,
    /// The epoch of the user that it belongs to; with a later one of the user it is void.
    pub epoch: u64,
    /// The session that it was made in; with that it ends.
    pub session: Option<String>,
    /// The id of the API key that it was made with; with that it ends.
    pub key: Option<String>,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// The one model it may be used with.
    pub model: String,
    /// The most tokens that one request may ask for.
    pub max_tokens: u64,
    /// The only address that may use it, an IPv4 address never written as IPv6.
    pub address: Option<IpAddr>,
    /// Whether it may be used for one request only.
    pub once: bool,
    /// Id and times.
    pub life: Life,
}

impl Verified {
    /// The user's name.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::User(token) => &token.subject,
            Self::Scoped(token) => &token.subject,
        }
    }

    /// Id and times.
    #[must_use]
    pub const fn life(&self) -> &Life {
        match self {
            Self::User(token) => &token.life,
            Self::Scoped(token) => &token.life,
        }
    }
}

/// The id of a token and its times, in Unix seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// `jti`: 128 random bits in base64url.
    pub id: String,
    /// `iat`.
    pub issued_at: u64,
    /// `nbf`.
    pub not_before: u64,
    /// `exp`.
    pub expires_at: u64,
}

impl Life {
    /// Whether the token may be used now (RFC 7519 section 4.1.4 to 4.1.6).
    pub(super) fn check(&self, now: u64) -> Result<(), TokenError> {
        if self.issued_at.max(self.not_before) > now.saturating_add(LEEWAY_SECS) {
            return Err(TokenError::NotYetValid);
        }
        if now >= self.expires_at {
            return Err(TokenError::Expired);
        }
        Ok(())
    }

    /// Seconds from issue to expiry.
    pub(super) const fn span(&self) -> u64 {
        self.expires_at.saturating_sub(self.issued_at)
    }
}

/// The two kinds of tokens; their rules exclude each other (RFC 8725 section 3.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Scoped,
}

impl Kind {
    /// The kind with this `typ`.
    pub(super) fn of(typ: &str) -> Result<Self, TokenError> {
        let mut kinds = [Self::User, Self::Scoped].into_iter();
        kinds.find(|kind| kind.typ() == typ).ok_or(TokenError::Type)
    }

    /// The `typ` (RFC 8725 section 3.11).
    pub(super) const fn typ(self) -> &'static str {
        match self {
            Self::User => "portcullis-user+jwt",
            Self::Scoped => "portcullis-llm+jwt",
        }
    }

    /// The `aud` (RFC 8725 section 3.9).
    pub(super) const fn audience(self) -> &'static str {
        match self {
            Self::User => "portcullis:user",
            Self::Scoped => "portcullis:llm",
        }
    }
}

/// The whole payload. The claims after `epoch` belong to one kind each: `role` and `mfa` to user
/// tokens, which require them; the others to scoped tokens, which require the first three.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    aud: String,
    iat: u64,
    nbf: u64,
    exp: u64,
    jti: String,
    epoch: u64,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    role: Option<AccountRole>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    mfa: Option<bool>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
    /// The session that minted it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    /// The API key that minted it.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The client that it is bound to.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    ip: Option<IpAddr>,
    /// `true` or not there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    once: Option<bool>,
}

impl Claims {
    pub(super) fn decode(part: &str) -> Result<Self, TokenError> {
        object(part).ok_or(TokenError::Claims("token claims are not exactly those of its kind"))
    }

    /// Checks who wrote it, for whom, and that it has the claims of its kind and no others.
    pub(super) fn open(self, kind: Kind) -> Result<Verified, TokenError> {
        self.check_names(kind)?;
        let opened = match kind {
            Kind::User => self.user(),
            Kind::Scoped => self.scoped(),
        };
        opened.ok_or(TokenError::Claims("token has the claims of another kind"))
    }

    fn check_names(&self, kind: Kind) -> Result<(), TokenError> {
        if self.iss != ISSUER {
            return Err(TokenError::Claims("token has another issuer"));
        }
        if self.aud != kind.audience() {
            return Err(TokenError::Claims("token has another audience"));
        }
        if self.sub.is_empty() || self.jti.is_empty() {
            return Err(TokenError::Claims("token has no subject or no id"));
        }
        Ok(())
    }

    fn user(self) -> Option<Verified> {
        let life = self.life();
        let (Some(role), Some(mfa)) = (self.role, self.mfa) else { return None };
        let narrow = self.scopes.is_some() || self.model.is_some() || self.max_tokens.is_some();
        let bound = self.sid.is_some() || self.key.is_some() || self.ip.is_some();
        (!narrow && !bound && self.once.is_none()).then_some(Verified::User(UserToken {
            subject: self.sub,
            role,
            epoch: self.epoch,
            mfa,
            life,
        }))
    }

    fn scoped(self) -> Option<Verified> {
        let life = self.life();
        (self.role.is_none() && self.mfa.is_none() && self.once != Some(false)).then_some(())?;
        Some(Verified::Scoped(ScopedToken {
            subject: self.sub,
            epoch: self.epoch,
            session: self.sid,
            key: self.key,
            scopes: self.scopes?,
            model: self.model?,
            max_tokens: self.max_tokens?,
            address: self.ip,
            once: self.once.is_some(),
            life,
        }))
    }

    fn life(&self) -> Life {
        Life {
            id: self.jti.clone(),
            issued_at: self.iat,
            not_before: self.nbf,
            expires_at: self.exp,
        }
    }

    fn new(kind: Kind, subject: String, epoch: u64, life: Life) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            sub: subject,
            aud: kind.audience().to_owned(),
            iat: life.issued_at,
            nbf: life.not_before,
            exp: life.expires_at,
            jti: life.id,
            epoch,
            role: None,
            mfa: None,
            scopes: None,
            model: None,
            max_tokens: None,
            sid: None,
            key: None,
            ip: None,
            once: None,
        }
    }
}

impl From<Verified> for Claims {
    fn from(token: Verified) -> Self {
        match token {
            Verified::User(token) => Self {
                role: Some(token.role),
                mfa: Some(token.mfa),
                ..Self::new(Kind::User, token.subject, token.epoch, token.life)
            },
            Verified::Scoped(token) => Self {
                scopes: Some(token.scopes),
                model: Some(token.model),
                max_tokens: Some(token.max_tokens),
                sid: token.session,
                key: token.key,
                ip: token.address,
                once: token.once.then_some(true),
                ..Self::new(Kind::Scoped, token.subject, token.epoch, token.life)
            },
        }
    }
}

/// Reads a claim that may be left out but never be `null`: this gateway does not write that.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests;
