//! What a token says, and the strict reading of it: form, header, claims, times.
//!
//! Nothing here knows a key. The reader is made for tokens that this gateway wrote, so whatever it
//! would not have written itself is refused, even where RFC 7515 and RFC 7519 leave room.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::AccountRole;
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
    /// The header is not exactly `alg`, `typ` and `kid`.
    Header,
    /// No kind of token has this `typ`.
    Type,
    /// Not the algorithm of this kind.
    Algorithm,
    /// Not the key of this kind.
    KeyId,
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
            Self::Header => "token header is not exactly alg, typ and kid",
            Self::Type => "token has an unknown typ",
            Self::Algorithm => "token has another algorithm than its kind",
            Self::KeyId => "token was signed with another key",
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
        Self::new(Reason::InvalidCredentials, "invalid or expired token").detail(error.to_string())
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
        /// Id and times.
        life: Life,
    },
    /// A narrow and short permit.
    Scoped {
        /// The user on whose behalf it is used.
        subject: String,
        /// What it may be used for.
        scopes: Vec<String>,
        /// The one model it may be used with.
        model: String,
        /// The most tokens that one request may ask for.
        max_tokens: u64,
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

/// A JWS in compact form (RFC 7515 section 7.1).
pub(super) struct Compact<'a> {
    pub(super) header: &'a str,
    pub(super) payload: &'a str,
    pub(super) signature: &'a str,
    /// What is signed: header and payload as they stand there.
    pub(super) message: &'a str,
}

impl<'a> Compact<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, TokenError> {
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::NotCompact)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::NotCompact)?;
        match [header, payload, signature].into_iter().all(is_base64url) {
            true => Ok(Self { header, payload, signature, message }),
            false => Err(TokenError::NotCompact),
        }
    }
}

/// The whole header: a member more, less or twice refuses the token, `crit`, `jku`, `jwk`, `x5u`,
/// `x5c`, `zip` and `b64` among them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) typ: String,
    pub(super) kid: String,
}

impl Header {
    pub(super) fn decode(part: &str) -> Result<Self, TokenError> {
        object(part).ok_or(TokenError::Header)
    }
}

/// The whole payload. The optional claims belong to one kind each, which then requires them.
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
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<AccountRole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u64>,
}

impl Claims {
    pub(super) fn decode(part: &str) -> Result<Self, TokenError> {
        object(part).ok_or(TokenError::Claims("token claims are not exactly those of its kind"))
    }

    /// Checks who wrote it, for whom, and that it has the claims of its kind and no others.
    pub(super) fn open(self, kind: Kind) -> Result<Verified, TokenError> {
        self.check_names(kind)?;
        let Self { sub: subject, iat, nbf, exp, jti, role, scopes, model, max_tokens, .. } = self;
        let life = Life { id: jti, issued_at: iat, not_before: nbf, expires_at: exp };
        match (kind, role, scopes, model, max_tokens) {
            (Kind::User, Some(role), None, None, None) => {
                Ok(Verified::User { subject, role, life })
            }
            (Kind::Scoped, None, Some(scopes), Some(model), Some(max_tokens)) => {
                Ok(Verified::Scoped { subject, scopes, model, max_tokens, life })
            }
            _ => Err(TokenError::Claims("token has the claims of another kind")),
        }
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

    fn new(kind: Kind, subject: String, life: Life) -> Self {
        Self {
            iss: ISSUER.to_owned(),
            sub: subject,
            aud: kind.audience().to_owned(),
            iat: life.issued_at,
            nbf: life.not_before,
            exp: life.expires_at,
            jti: life.id,
            role: None,
            scopes: None,
            model: None,
            max_tokens: None,
        }
    }
}

impl From<Verified> for Claims {
    fn from(token: Verified) -> Self {
        match token {
            Verified::User { subject, role, life } => {
                Self { role: Some(role), ..Self::new(Kind::User, subject, life) }
            }
            Verified::Scoped { subject, scopes, model, max_tokens, life } => Self {
                scopes: Some(scopes),
                model: Some(model),
                max_tokens: Some(max_tokens),
                ..Self::new(Kind::Scoped, subject, life)
            },
        }
    }
}

/// Encodes a part of a token.
pub(super) fn encode(part: &impl Serialize) -> Option<String> {
    serde_json::to_vec(part).ok().map(|json| URL_SAFE_NO_PAD.encode(json))
}

/// Decodes a part that is a JSON object; serde would take an array for a struct, too.
fn object<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    bytes.starts_with(b"{").then(|| serde_json::from_slice(&bytes).ok())?
}

fn is_base64url(part: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !part.is_empty() && part.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn life() -> Life {
        Life { id: "j".into(), issued_at: 100, not_before: 100, expires_at: 160 }
    }

    fn user() -> Verified {
        Verified::User { subject: "alice".into(), role: AccountRole::User, life: life() }
    }

    fn scoped() -> Verified {
        let (scopes, model) = (vec!["llm:generate".into()], "phi3".into());
        Verified::Scoped { subject: "alice".into(), scopes, model, max_tokens: 64, life: life() }
    }

    fn part(json: &str) -> String {
        URL_SAFE_NO_PAD.encode(json)
    }

    fn with(mut claims: Value, name: &str, value: Value) -> String {
        claims[name] = value;
        part(&claims.to_string())
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
    }

    #[test]
    fn a_token_has_exactly_three_parts_of_base64url() {
        let cases = [
            ("a.b.c", true),
            ("-_0.zZ9.AA", true),
            ("", false),
            ("a", false),
            ("a.b", false),
            ("..", false),
            (".b.c", false),
            ("a..c", false),
            ("a.b.", false),
            ("a.b.c.", false),
            ("a.b.c.d", false),
            ("a.b.c.d.e", false),
            ("a=.b.c", false),
            ("a.b.c==", false),
            ("a+.b.c", false),
            ("a.b/.c", false),
            ("a. b.c", false),
            ("a.b.c\n", false),
            ("%00.%00.%00", false),
            ("ä.b.c", false),
            ("{\"protected\":\"a\",\"payload\":\"b\",\"signature\":\"c\"}", false),
        ];
        for (token, good) in cases {
            assert_eq!(Compact::split(token).is_ok(), good, "{token:?}");
        }
    }

    #[test]
    fn a_header_has_exactly_three_members() {
        let cases = [
            (r#"{"alg":"HS256","typ":"t","kid":"k"}"#, true),
            (r#"{"kid":"k","alg":"HS256","typ":"t"}"#, true),
            (r#"{"alg":"HS256","typ":"t"}"#, false),
            (r#"{"alg":"HS256","kid":"k"}"#, false),
            (r#"{"typ":"t","kid":"k"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k","kid":"k"}"#, false),
            (r#"{"alg":"none","typ":"t","kid":"k","\u0061lg":"HS256"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k","Alg":"none"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":null}"#, false),
            (r#"{"alg":["HS256"],"typ":"t","kid":"k"}"#, false),
            (r#"["HS256","t","k"]"#, false),
            (r#" {"alg":"HS256","typ":"t","kid":"k"}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k"}{}"#, false),
            (r#"{"alg":"HS256","typ":"t","kid":"k"}x"#, false),
            ("{}", false),
            ("null", false),
            ("", false),
        ];
        for (json, good) in cases {
            assert_eq!(Header::decode(&part(json)).is_ok(), good, "{json}");
        }
        for name in ["crit", "jku", "jwk", "x5u", "x5c", "x5t", "zip", "b64", "cty", "exp", "foo"] {
            let json = json!({"alg": "HS256", "typ": "t", "kid": "k", name: "x"}).to_string();
            assert!(Header::decode(&part(&json)).is_err(), "{name}");
        }
    }

    #[test]
    fn every_claim_is_required_and_of_its_type() {
        let whole = serde_json::to_value(Claims::from(scoped())).unwrap();
        for name in whole.as_object().unwrap().keys() {
            let mut claims = whole.clone();
            claims.as_object_mut().unwrap().remove(name);
            let opened =
                Claims::decode(&part(&claims.to_string())).and_then(|c| c.open(Kind::Scoped));
            assert!(opened.is_err(), "without {name}");
            for wrong in [json!(null), json!([]), json!({}), json!(1.5), json!(-1), json!(true)] {
                if name == "scopes" && wrong == json!([]) {
                    continue;
                }
                let opened = Claims::decode(&with(whole.clone(), name, wrong.clone()));
                assert!(opened.and_then(|c| c.open(Kind::Scoped)).is_err(), "{name}: {wrong}");
            }
        }
    }

    #[test]
    fn unknown_and_double_claims_are_refused() {
        let whole = serde_json::to_value(Claims::from(user())).unwrap();
        assert!(Claims::decode(&with(whole.clone(), "admin", json!(true))).is_err());
        let double = whole.to_string().replacen('{', r#"{"role":"owner","#, 1);
        assert!(Claims::decode(&part(&double)).is_err());
    }

    #[test]
    fn issuer_audience_subject_and_id_are_exact() {
        let whole = serde_json::to_value(Claims::from(user())).unwrap();
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
            let claims = Claims::decode(&with(whole.clone(), name, json!(value)));
            assert!(claims.and_then(|c| c.open(Kind::User)).is_err(), "{name}={value:?}");
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
        for error in [TokenError::TooLong, TokenError::Signature, TokenError::Expired] {
            let denial = Denial::from(error);
            assert_eq!(denial.operator_detail(), error.to_string());
            assert_eq!(
                denial.detail(""),
                Denial::new(Reason::InvalidCredentials, "invalid or expired token")
            );
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Header::decode(&text).is_err());
            let part = URL_SAFE_NO_PAD.encode(&bytes);
            prop_assert!(Claims::decode(&part).is_err());
            prop_assert_eq!(Compact::split(&text).is_ok(), text.split('.').count() == 3 && text.split('.').all(is_base64url));
        }
    }
}
