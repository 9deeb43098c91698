//! What a token says, and the strict reading of it: kind, claims, times.
//!
//! The reader is made for tokens that this gateway wrote, so whatever it would not have written
//! itself is refused, even where RFC 7519 leaves room. The outer form is in `jws.rs`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::AccountRole;
use super::jws::object;
use crate::verdict::{Denial, Reason};

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

impl From<TokenError> for Denial {
    fn from(error: TokenError) -> Self {
        let denial = if error == TokenError::NoKeys {
            Self::new(Reason::Internal, "logins cannot be verified now")
        } else {
            Self::new(Reason::InvalidCredentials, "invalid or expired token")
        };
        denial.detail(error.to_string())
    }
}

/// What a genuine token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verified {
    /// A person who logged in.
    User {
        /// The user's name.
        subject: String,
        /// The role at the time of the login.
        role: AccountRole,
        /// The epoch of the user that it belongs to; with a later one of the user it is void.
        epoch: u64,
        /// Whether a second factor was shown.
        mfa: bool,
        /// Id and times. The id is that of the session.
        life: Life,
    },
    /// A narrow and short permit.
    Scoped {
        /// The user on whose behalf it is used.
        subject: String,
        /// The epoch of the user that it belongs to; with a later one of the user it is void.
        epoch: u64,
        /// The session that it was made in; with that it ends.
        session: Option<String>,
        /// The id of the API key that it was made with; with that it ends.
        key: Option<String>,
        /// What it may be used for.
        scopes: Vec<String>,
        /// The one model it may be used with.
        model: String,
        /// The most tokens that one request may ask for.
        max_tokens: u64,
        /// The only address that may use it, an IPv4 address never written as IPv6.
        address: Option<IpAddr>,
        /// Whether it may be used for one request only.
        once: bool,
        /// Id and times.
        life: Life,
    },
}

impl Verified {
    /// The user's name.
    #[must_use]
    pub fn subject(&self) -> &str {
        match self {
            Self::User { subject, .. } | Self::Scoped { subject, .. } => subject,
        }
    }

    /// Id and times.
    #[must_use]
    pub const fn life(&self) -> &Life {
        match self {
            Self::User { life, .. } | Self::Scoped { life, .. } => life,
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
        (!narrow && !bound && self.once.is_none()).then_some(Verified::User {
            subject: self.sub,
            role,
            epoch: self.epoch,
            mfa,
            life,
        })
    }

    fn scoped(self) -> Option<Verified> {
        let life = self.life();
        (self.role.is_none() && self.mfa.is_none() && self.once != Some(false)).then_some(())?;
        Some(Verified::Scoped {
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
        })
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
            Verified::User { subject, role, epoch, mfa, life } => Self {
                role: Some(role),
                mfa: Some(mfa),
                ..Self::new(Kind::User, subject, epoch, life)
            },
            Verified::Scoped {
                subject,
                epoch,
                session,
                key,
                scopes,
                model,
                max_tokens,
                address,
                once,
                life,
            } => Self {
                scopes: Some(scopes),
                model: Some(model),
                max_tokens: Some(max_tokens),
                sid: session,
                key,
                ip: address,
                once: once.then_some(true),
                ..Self::new(Kind::Scoped, subject, epoch, life)
            },
        }
    }
}

/// Reads a claim that may be left out but never be `null`: this gateway does not write that.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::jws::encode;
    use super::*;

    fn life() -> Life {
        Life { id: "j".into(), issued_at: 100, not_before: 100, expires_at: 160 }
    }

    fn user() -> Verified {
        let (subject, role) = ("alice".into(), AccountRole::User);
        Verified::User { subject, role, epoch: 7, mfa: true, life: life() }
    }

    fn scoped() -> Verified {
        Verified::Scoped {
            subject: "alice".into(),
            epoch: 7,
            session: None,
            key: None,
            scopes: vec!["llm:generate".into()],
            model: "phi3".into(),
            max_tokens: 64,
            address: None,
            once: false,
            life: life(),
        }
    }

    /// With every claim that a scoped token can have.
    fn bound() -> Claims {
        Claims {
            sid: Some("s".into()),
            key: Some("4fQ2mZ8aT1xK".into()),
            ip: Some(IpAddr::from([192, 0, 2, 1])),
            once: Some(true),
            ..Claims::from(scoped())
        }
    }

    fn open(claims: &Value, kind: Kind) -> Result<Verified, TokenError> {
        Claims::decode(&part(&claims.to_string())).and_then(|claims| claims.open(kind))
    }

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    fn claims(token: Verified) -> Value {
        serde_json::to_value(Claims::from(token)).unwrap()
    }

    fn with(mut claims: Value, name: &str, value: Value) -> Value {
        claims[name] = value;
        claims
    }

    #[test]
    fn what_is_written_is_read() {
        for (kind, token) in [(Kind::User, user()), (Kind::Scoped, scoped())] {
            let payload = encode(&Claims::from(token.clone())).unwrap();
            assert_eq!(Claims::decode(&payload).unwrap().open(kind), Ok(token));
        }
    }

    #[test]
    fn the_claims_of_one_kind_are_not_those_of_the_other() {
        let other = Err(TokenError::Claims("token has another audience"));
        assert_eq!(Claims::from(user()).open(Kind::Scoped), other);
        assert_eq!(Claims::from(scoped()).open(Kind::User), other);
        let mixed = Claims { aud: "portcullis:llm".into(), ..Claims::from(user()) };
        let error = Err(TokenError::Claims("token has the claims of another kind"));
        assert_eq!(mixed.open(Kind::Scoped), error);
        let both = Claims { role: Some(AccountRole::Owner), ..Claims::from(scoped()) };
        assert_eq!(both.open(Kind::Scoped), error);
        let both = Claims { mfa: Some(true), ..Claims::from(scoped()) };
        assert_eq!(both.open(Kind::Scoped), error);
    }

    #[test]
    fn a_user_token_has_none_of_the_claims_of_a_scoped_one() {
        let (user, bound) = (claims(user()), serde_json::to_value(bound()).unwrap());
        let error = Err(TokenError::Claims("token has the claims of another kind"));
        for name in ["scopes", "model", "max_tokens", "sid", "key", "ip", "once"] {
            let mixed = with(user.clone(), name, bound[name].clone());
            assert_eq!(open(&mixed, Kind::User), error, "{name}");
        }
    }

    #[test]
    fn a_scoped_token_says_what_it_is_bound_to() {
        let whole = serde_json::to_value(bound()).unwrap();
        assert_eq!((&whole["ip"], &whole["once"]), (&json!("192.0.2.1"), &json!(true)));
        let expected = match scoped() {
            Verified::Scoped { subject, epoch, scopes, model, max_tokens, life, .. } => {
                let (session, key) = (Some("s".into()), Some("4fQ2mZ8aT1xK".into()));
                let address = Some(IpAddr::from([192, 0, 2, 1]));
                Verified::Scoped {
                    subject,
                    epoch,
                    session,
                    key,
                    scopes,
                    model,
                    max_tokens,
                    address,
                    once: true,
                    life,
                }
            }
            user @ Verified::User { .. } => user,
        };
        assert_eq!(open(&whole, Kind::Scoped), Ok(expected));
        for (name, wrong) in [
            ("once", json!(false)),
            ("once", json!(1)),
            ("once", json!(null)),
            ("ip", json!(null)),
            ("ip", json!("192.0.2.1/32")),
            ("ip", json!("localhost")),
            ("sid", json!(null)),
            ("key", json!(7)),
        ] {
            assert!(open(&with(whole.clone(), name, wrong), Kind::Scoped).is_err(), "{name}");
        }
    }

    #[test]
    fn every_claim_is_required_and_of_its_type() {
        for (whole, kind) in [(claims(user()), Kind::User), (claims(scoped()), Kind::Scoped)] {
            for name in whole.as_object().unwrap().keys() {
                let mut claims = whole.clone();
                claims.as_object_mut().unwrap().remove(name);
                assert!(open(&claims, kind).is_err(), "without {name}");
                for wrong in [json!(null), json!([0]), json!({}), json!(1.5), json!(-1)] {
                    let changed = with(whole.clone(), name, wrong.clone());
                    assert!(open(&changed, kind).is_err(), "{name}: {wrong}");
                }
            }
        }
    }

    #[test]
    fn unknown_and_double_claims_are_refused() {
        let whole = claims(user());
        assert!(open(&with(whole.clone(), "admin", json!(true)), Kind::User).is_err());
        let double = whole.to_string().replacen('{', r#"{"role":"owner","#, 1);
        assert!(Claims::decode(&part(&double)).is_err());
    }

    #[test]
    fn issuer_audience_subject_and_id_are_exact() {
        let cases = [
            ("iss", "Portcullis"),
            ("iss", ""),
            ("aud", "portcullis"),
            ("aud", "portcullis:llm"),
            ("aud", "portcullis:user "),
            ("sub", ""),
            ("jti", ""),
            ("role", "root"),
        ];
        for (name, value) in cases {
            let claims = with(claims(user()), name, json!(value));
            assert!(open(&claims, Kind::User).is_err(), "{name}={value:?}");
        }
    }

    #[test]
    fn a_token_lives_from_its_issue_to_its_expiry() {
        let cases = [
            (94, Err(TokenError::NotYetValid)),
            (95, Ok(())),
            (100, Ok(())),
            (159, Ok(())),
            (160, Err(TokenError::Expired)),
            (u64::MAX, Err(TokenError::Expired)),
        ];
        for (now, expected) in cases {
            assert_eq!(life().check(now), expected, "at {now}");
        }
        let later = Life { not_before: 120, ..life() };
        assert_eq!(later.check(110), Err(TokenError::NotYetValid));
        assert_eq!(later.check(115), Ok(()));
    }

    #[test]
    fn callers_are_not_told_which_check_failed() {
        for error in [TokenError::TooLong, TokenError::Issuer, TokenError::Expired] {
            let denial = Denial::from(error);
            assert_eq!(denial.operator_detail(), error.to_string());
            assert_eq!(
                denial.detail(""),
                Denial::new(Reason::InvalidCredentials, "invalid or expired token")
            );
        }
    }

    #[test]
    fn a_lost_issuer_is_a_fault_of_the_gateway() {
        let denial = Denial::from(TokenError::NoKeys);
        assert_eq!((denial.reason(), denial.status()), (Reason::Internal, 503));
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Claims::decode(&URL_SAFE_NO_PAD.encode(&bytes)).is_err());
        }
    }

    #[test]
    fn operators_are_told_what_is_wrong_and_callers_are_not() {
        use TokenError::*;
        let refused = [
            TooLong,
            NotCompact,
            Header,
            Type,
            Issuer,
            Algorithm,
            KeyId,
            Signature,
            Claims("claim sub is wrong"),
            NotYetValid,
            Expired,
        ];
        let denials = refused.map(Denial::from);
        let details: HashSet<_> = denials.iter().map(Denial::operator_detail).collect();
        assert_eq!(details.len(), refused.len());
        assert!(details.contains("claim sub is wrong") && details.contains("token has expired"));
        let told = |denial: &Denial| (denial.reason(), denial.message().to_owned());
        assert!(denials.iter().all(|denial| told(denial) == told(&denials[0])));
        assert_eq!(denials[0].reason(), Reason::InvalidCredentials);
        let no_keys = Denial::from(NoKeys);
        assert_eq!(no_keys.reason(), Reason::Internal);
        assert_eq!(no_keys.operator_detail(), "the keys of the token's issuer cannot be fetched");
    }
}
